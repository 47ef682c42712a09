"""Check that the folders, programs and packages that settings name exist."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Final

from flowd.config import Settings
from flowd.errors import InvalidSettings, Problem

_EXPORTER: Final = "opentelemetry.exporter.otlp.proto.http.trace_exporter"


def require_places(settings: Settings) -> None:
    """Raises InvalidSettings with everything that is missing; what flowd makes itself need not be
    there."""
    problems = [Problem(key, "missing_place", message) for key, message in _missing(settings)]
    if problems:
        raise InvalidSettings(problems)


def _missing(settings: Settings) -> Iterator[tuple[str, str]]:
    folder, path, server = settings.secrets.folder, settings.api.socket, settings.redis.server
    if folder is not None and not folder.is_dir():
        yield "secrets.folder", f"there is no folder {str(folder)!r}; make it, or take the key away"
    elif folder is not None and not os.access(folder, os.R_OK | os.X_OK):
        yield "secrets.folder", f"this user may not read {str(folder)!r}; let it, or run as another"
    if path is not None and not path.parent.is_dir():
        yield "api.socket", f"there is no folder {str(path.parent)!r} to make the socket in"
    if settings.log.file is not None and settings.log.file.is_dir():
        yield "log.file", f"{str(settings.log.file)!r} is a folder; name a file in it"
    is_own = settings.redis.mode != "external" and settings.redis.url is None
    if is_own and server is not None and shutil.which(server) is None:
        hint = "install it, or take the key away for the server that comes with flowd"
        yield "redis.server", f"there is no program {server!r} to run; {hint}"
    if settings.telemetry.otlp_endpoint is not None and not _is_installed(_EXPORTER):
        hint = "install it with `pip install 'flowd[telemetry]'`, or take the key away"
        yield "telemetry.otlp_endpoint", f"OpenTelemetry is not installed here; {hint}"


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False
