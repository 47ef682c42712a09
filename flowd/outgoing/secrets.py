"""Secrets of a node's config: `{"$secret": "NAME"}`, looked up when the handler is called.

Only what stands in the definition is looked up. An output is data, even if it looks like this.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from flowd.config import SECRET_VARIABLE_PREFIX, Settings
from flowd.destinations import Destination
from flowd.errors import Fail
from flowd.redaction import REDACTOR, SECRET_CHARS_MIN
from flowd.workflow.secret_places import SECRET_KEY, SecretPlace

# What is hidden before it is used.
LEARNED_CHARS_MIN: Final = 8
LEARNED_CHARS_MAX: Final = 4096
# The handlers that can promise where a secret goes.
BOUND_HANDLERS: Final = ("call_external_service", "llm")


class Filled(NamedTuple):
    """A config with its secrets. `only` are the hosts it may be sent to, None for any."""

    config: dict[str, Any]
    only: tuple[Destination, ...] | None


class Secrets:
    """Looks in the environment, `.env`, `[secrets] folder`, and among systemd's credentials."""

    def __init__(self, settings: Settings, environ: Mapping[str, str] = os.environ) -> None:
        self._variables = dict(settings.secrets.from_dotenv) | {
            name: value
            for name, value in environ.items()
            if name.startswith(SECRET_VARIABLE_PREFIX)
        }
        credentials = environ.get("CREDENTIALS_DIRECTORY")
        folders = (settings.secrets.folder, Path(credentials) if credentials else None)
        self._folders = [folder for folder in folders if folder is not None]
        self._bound: dict[str, list[Destination]] = {}
        for entry in settings.secrets.bound:
            name, _, host = entry.partition("@")
            self._bound.setdefault(name, []).append(Destination.parse(host))
        self._learn(settings.handlers.llm.api_key or "")

    def _learn(self, *values: str) -> None:
        """Hide what only other workers use: a service may say here what was sent to it there.

        Short ones could be innocent text, and a file of many lines a certificate: they are hidden
        from their first use on.
        """
        candidates = [*values, *self._variables.values()]
        for folder in self._folders:
            candidates += _one_line_files(folder)
        for value in candidates:
            if len(value) >= LEARNED_CHARS_MIN and len(value.splitlines()) == 1:
                REDACTOR.learn(value)

    def fill(self, config: dict[str, Any], places: Sequence[SecretPlace], handler: str) -> Filled:
        """Put secrets into a rendered config, which is changed. Raises Fail, naming no value."""
        only: tuple[Destination, ...] | None = None
        for steps, name in places:
            if handler == "shell" and steps[0] not in ("env", "stdin"):
                raise Fail(
                    f"the secret {name!r} would be seen in the list of processes; use env or stdin"
                )
            value = self.resolve(name)
            if name in self._bound:
                if handler not in BOUND_HANDLERS:
                    raise Fail(
                        f"the secret {name!r} is bound to hosts by [secrets] bound, and nobody "
                        f"can tell where {handler!r} sends it"
                    )
                bound = tuple(self._bound[name])
                only = bound if only is None else tuple(one for one in only if one in bound)
            target: Any = config
            for step in steps[:-1]:
                target = target[step]
            target[steps[-1]] = value
        return Filled(config, only)

    def resolve_written(self, secret: Any) -> str:
        """A secret as a definition has it: a text, or `{"$secret": "NAME"}`. Raises Fail.

        A text is for the caller to hide while it is used: there may be one for each execution.
        """
        if isinstance(secret, dict):
            return self.resolve(str(secret.get(SECRET_KEY)))
        return str(secret)

    def resolve(self, name: str) -> str:
        """The value, which is known to the redaction from now on. Raises Fail."""
        value = self._variables.get(SECRET_VARIABLE_PREFIX + name)
        for folder in self._folders:
            if value is None:
                value = _read(folder / name)
        if value is None:
            raise Fail(f"there is no secret {name!r}; looked for {self._looked(name)}")
        if len(value) < SECRET_CHARS_MIN:
            raise Fail(
                f"the secret {name!r} is shorter than {SECRET_CHARS_MIN} characters: it could not "
                "be kept out of logs and outputs"
            )
        REDACTOR.learn(value)
        return value

    def _looked(self, name: str) -> str:
        places = [f"the variable {SECRET_VARIABLE_PREFIX}{name}"]
        places += [f"the file {folder / name}" for folder in self._folders]
        return " and ".join(places)


def _one_line_files(folder: Path) -> Iterator[str]:
    """What can be read of a folder and may be a secret; there need not be one."""
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            with contextlib.suppress(Fail, OSError):
                if path.is_file() and path.stat().st_size <= LEARNED_CHARS_MAX:
                    yield _read(path) or ""


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8-sig").removesuffix("\n")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise Fail(f"the secret in {path} cannot be read: {reason}") from None
