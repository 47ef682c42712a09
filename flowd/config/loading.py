"""Read flowd.toml, `.env`, the environment and the flags into one frozen `Settings`.

A value comes from the first of: flag, `FLOWD_<SECTION>__<KEY>`, the documented variables
(`REDIS_HOST`, `WORKER_NAME` ...), flowd.toml, default. The real environment wins over `.env`.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, fields
from functools import cache
from io import StringIO
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

from flowd.config import (
    PRODUCTION,
    SECRET,
    SECRET_VARIABLE_PREFIX,
    Settings,
)
from flowd.errors import InvalidSettings, Problem
from flowd.home import DEFAULT_DATA_DIR, DEFAULT_FILE, may_be_there
from flowd.suggestions import did_you_mean, nearest

# Variables with flowd's prefix that are not settings: they belong to the clients, the tests, and
# whoever keeps secrets there.
_NOT_SETTINGS = ("FLOWD_CONFIG", "FLOWD_URL", "FLOWD_TOKEN", "FLOWD_PROFILE")
_NOT_SETTINGS_PREFIXES = ("FLOWD_TEST_", SECRET_VARIABLE_PREFIX)
# What Kubernetes tells every container of a Service, here one named flowd or flowd-something.
_SERVICE_ADDRESS = re.compile(r"(?:tcp|udp|sctp)://")
_SERVICE_VARIABLE = re.compile(
    r"FLOWD_(?:\w+_)?(?:SERVICE_(?:HOST|PORT(?:_\w+)?)|PORT_\d+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)"
)
_DATA_DIR = re.compile(r"""^\s*(?:redis\.)?data_dir\s*=\s*(["'])(.+?)\1""", re.MULTILINE)


# A value, where it was written, and the folder that relative paths start from.
_Variable = tuple[str, str, Path]


class _Given(NamedTuple):
    """One value somebody gave: `origin` says where, relative paths start from `folder`."""

    key: str
    value: Any
    origin: str
    folder: Path


def load_settings(
    config_path: Path | None = None,
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Settings:
    """The settings of this start. `flags` are by key (`api.port`); a None among them is not given.

    `config_path` names a file, or a folder whose flowd.toml is read when there is one; None is this
    folder. Raises InvalidSettings with every problem at once.
    """
    return load_with_origins(config_path, flags, environ)[0]


def load_with_origins(
    config_path: Path | None = None,
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] = os.environ,
) -> tuple[Settings, dict[str, str]]:
    """As load_settings, and by key where its value was given; a key that is not there has its
    default.
    """
    problems: list[Problem] = []
    values, origins = _gather(config_path, flags or {}, environ, problems)
    if problems:
        raise InvalidSettings(problems)
    settings: Settings = _build(Settings, values)
    if settings.redis.mode == "embedded" and settings.redis.url is not None:
        mode, url = (f"{origins[one]}" for one in ("redis.mode", "redis.url"))
        message = (
            f"redis.mode 'embedded' ({mode}) and a redis.url ({url}) exclude each other; take one "
            "away"
        )
        raise InvalidSettings([Problem("redis.url", "bad_value", message)])
    if settings.redis.mode == "embedded" and settings.redis.replicas:
        message = "flowd's own Redis has no replicas; leave redis.replicas out, or use a redis.url"
        raise InvalidSettings([Problem("redis.replicas", "bad_value", message)])
    return settings, origins


def find_data_dir(config_path: Path | None = None, environ: Mapping[str, str] = os.environ) -> Path:
    """Where a flowd of these settings keeps its lock, also when they have mistakes by now.

    Raises InvalidSettings only where there is no folder to start from.
    """
    data_dir: Path = _gather(config_path, {}, environ, [])[0]["redis.data_dir"]
    return data_dir


def config_file(config_path: Path | None) -> Path:
    """The file that `load_settings` reads; only where it was named itself it has to be there."""
    return config_path if _is_file(config_path) else (config_path or Path()) / DEFAULT_FILE


def _is_file(config_path: Path | None) -> TypeGuard[Path]:
    # What may not be looked at is read, and the reason said.
    return config_path is not None and not os.path.isdir(config_path)  # noqa: PTH112


def _gather(
    config_path: Path | None,
    flags: Mapping[str, Any],
    environ: Mapping[str, str],
    problems: list[Problem],
) -> tuple[dict[str, Any], dict[str, str]]:
    """What was given, by key, and where; what is wrong with it is added to `problems`."""
    path = config_file(config_path)
    try:
        here = Path.cwd()
    except OSError as error:
        message = f"the folder flowd runs in is gone ({error.strerror}); go to one that is there"
        raise InvalidSettings([Problem(".", "no_folder", message)]) from error
    folder = (here / path).parent
    given: list[_Given] = []
    if _is_file(config_path) or may_be_there(path):
        given += _from_file(path, folder, problems)
    from_dotenv = _dotenv(folder / ".env", problems)
    variables = from_dotenv | _from_environ(environ, here)
    given += _from_documented_variables(variables)
    given += _from_flowd_variables(variables, problems)
    given += _from_flags(flags, here)

    values: dict[str, Any] = {
        "redis.data_dir": folder / DEFAULT_DATA_DIR,
        "handlers.folder": folder,
        "secrets.from_dotenv": tuple(
            (name, value)
            for name, (value, *_) in from_dotenv.items()
            if name.startswith(SECRET_VARIABLE_PREFIX)
        ),
    }
    for source in given:
        _read_into(values, source, problems)
    origins = {source.key: source.origin for source in given}
    values["handlers.origin"] = origins.get("handlers.modules", "")
    return values, origins


def list_settings(settings: Settings) -> Iterator[tuple[str, Any]]:
    """Every key with its value, fit to be shown: a secret that is set is SECRET."""
    for key, setting in setting_fields().items():
        value = attrgetter(key)(settings)
        yield key, SECRET if setting.metadata["is_secret"] and value is not None else value


def _from_file(path: Path, folder: Path, problems: list[Problem]) -> Iterator[_Given]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        tables = tomllib.loads(text)
    except (OSError, UnicodeError) as error:
        reason = (error.strerror if isinstance(error, OSError) else "") or str(error)
        if isinstance(error, FileNotFoundError):
            reason += f"; `flowd config init {path}` makes one"
        if isinstance(error, PermissionError):
            reason += "; ask as its owner, or with sudo"
        problems.append(Problem(str(path), "unreadable_file", f"cannot read it: {reason}"))
        return
    # Beside what tomllib calls an error: a number of thousands of digits, brackets without end.
    except (ValueError, RecursionError) as error:
        twice = "; write each section once, with all its keys" if "twice" in str(error) else ""
        problems.append(Problem(str(path), "bad_toml", f"this is not TOML: {error}{twice}"))
        # Enough to find the flowd that was started with this file before it was broken.
        if match := _DATA_DIR.search(text):
            yield _Given("redis.data_dir", match[2], str(path), folder)
        return
    lines = _lines_of_keys(text)
    for key, value in _flatten(tables):
        origin = f"{path}:{lines[key]}" if key in lines else str(path)
        if key in setting_fields():
            yield _Given(key, value, origin, folder)
        else:
            problems.append(_unknown_key(key, value, origin))


def ignored_variables(folder: Path, environ: Mapping[str, str] = os.environ) -> list[str]:
    """What of the environment, and of `.env` in this folder, is not taken; each with the reason."""
    variables = _dotenv(folder / ".env", []) | _from_environ(environ, folder)
    return [
        f"{one.origin}: {one.value!r} is not taken: {reason}"
        for one in _documented(variables)
        if (reason := _why_not_meant(one.key, one.value))
    ]


def _from_documented_variables(variables: Mapping[str, _Variable]) -> Iterator[_Given]:
    for one in _documented(variables):
        if not _why_not_meant(one.key, one.value):
            yield one
        elif one.key == "environment":
            # Whoever has another word there is hardly developing.
            yield one._replace(value=PRODUCTION)


def _documented(variables: Mapping[str, _Variable]) -> Iterator[_Given]:
    for key, setting in setting_fields().items():
        value, origin, folder = variables.get(setting.metadata["variable"], ("", "", Path()))
        # Empty is how compose files and shells say "not set".
        if value:
            yield _Given(key, value, origin, folder)


def _why_not_meant(key: str, value: str) -> str:
    """These names are common: other programs, and a cluster, write what is no setting of flowd."""
    if key.endswith("port") and _SERVICE_ADDRESS.match(value):
        return f"Kubernetes writes it for a Service; FLOWD_{key.upper().replace('.', '__')} is ours"
    if key in ("debug", "environment"):
        try:
            setting_fields()[key].metadata["read"](value)
        except ValueError as error:
            assumed = f", and here it is taken to be '{PRODUCTION}'" if key == "environment" else ""
            return f"{key} is {error}{assumed}"
    return ""


def _from_flowd_variables(
    variables: Mapping[str, _Variable], problems: list[Problem]
) -> Iterator[_Given]:
    keys = {"FLOWD_" + key.upper().replace(".", "__"): key for key in setting_fields()}
    for name, (value, origin, folder) in variables.items():
        if name in keys:
            yield _Given(keys[name], value, origin, folder)
        elif name.startswith("FLOWD_") and not _is_foreign(name, value):
            # Without what all of them begin with: it makes any two look alike.
            near = nearest(name[6:], [key[6:] for key in keys])
            hint = f"; did you mean 'FLOWD_{near}'?" if near else ""
            problems.append(Problem(origin, "unknown_variable", f"no setting has this name{hint}"))


def _is_foreign(name: str, value: str) -> bool:
    if name in _NOT_SETTINGS or name.startswith(_NOT_SETTINGS_PREFIXES):
        return True
    is_address = name.endswith("_PORT") and _SERVICE_ADDRESS.match(value)
    return bool(is_address or _SERVICE_VARIABLE.fullmatch(name))


def _from_flags(flags: Mapping[str, Any], here: Path) -> Iterator[_Given]:
    for key, value in flags.items():
        if value is not None:
            yield _Given(key, value, setting_fields()[key].metadata["flag"] or key, here)


def _read_into(values: dict[str, Any], given: _Given, problems: list[Problem]) -> None:
    facts = setting_fields()[given.key].metadata
    try:
        value = facts["read"](given.value)
    except ValueError as error:
        shown = "the value" if facts["is_secret"] else repr(given.value)
        message = f"{given.key} must be {error}, {shown} is not"
        problems.append(Problem(given.origin, "bad_value", message))
        return
    values[given.key] = given.folder / value if isinstance(value, Path) else value


def _build(section: Callable[..., Any], values: Mapping[str, Any], prefix: str = "") -> Any:
    arguments: dict[str, Any] = {}
    for setting in fields(section):  # type: ignore[arg-type]
        key = prefix + setting.name
        if setting.default_factory is not MISSING:
            arguments[setting.name] = _build(setting.default_factory, values, key + ".")
        elif key in values:
            arguments[setting.name] = values[key]
    return section(**arguments)


@cache
def setting_fields() -> dict[str, Field[Any]]:
    """Every key users may set, by its dotted name."""
    return dict(_walk(Settings))


def _walk(section: Callable[..., Any], prefix: str = "") -> Iterator[tuple[str, Field[Any]]]:
    for setting in fields(section):  # type: ignore[arg-type]
        if setting.default_factory is not MISSING:
            yield from _walk(setting.default_factory, f"{prefix}{setting.name}.")
        elif setting.metadata:
            yield prefix + setting.name, setting


@cache
def _sections() -> frozenset[str]:
    parts = [key.split(".")[:-1] for key in setting_fields()]
    return frozenset(".".join(names[: n + 1]) for names in parts for n in range(len(names)))


def _flatten(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in table.items():
        key = prefix + name
        if isinstance(value, dict) and key in _sections():
            yield from _flatten(value, key + ".")
        else:
            yield key, value


def _unknown_key(key: str, value: Any, origin: str) -> Problem:
    section, _, name = key.rpartition(".")
    place = f" in [{section}]" if section else ""
    if key in _sections():
        return Problem(origin, "bad_value", f"{key} is a section; write [{key}] above its keys")
    if isinstance(value, dict):
        known = [one.rpartition(".")[2] for one in _sections() if one.rpartition(".")[0] == section]
        hint = did_you_mean(name, known)
        return Problem(origin, "unknown_section", f"unknown section [{key}]{hint}")
    places = [one.rpartition(".") for one in setting_fields()]
    known = [one for place, _, one in places if place == section]
    elsewhere = [place for place, _, one in places if one == name]
    hint = did_you_mean(name, known)
    if not hint and elsewhere:
        hint = f"; it belongs in [{elsewhere[0]}]" if elsewhere[0] else "; it belongs at the top"
    return Problem(origin, "unknown_key", f"unknown key {name!r}{place}{hint}")


def _lines_of_keys(text: str) -> dict[str, int]:
    """Line number of each key and section as people write them, for messages only.

    tomllib keeps no positions. A key inside an inline table is not found: the message then
    names the file alone.
    """
    lines: dict[str, int] = {}
    section = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if header := re.match(r"\s*\[+([^\]]+)\]", line):
            section = _bare(header[1])
            lines.setdefault(section, number)
        elif key := re.match(r"\s*([A-Za-z0-9_.\-\"' ]+?)\s*=", line):
            lines.setdefault(f"{section}.{_bare(key[1])}".lstrip("."), number)
    return lines


def _bare(key: str) -> str:
    return ".".join(part.strip().strip("\"'") for part in key.split("."))


def _from_environ(environ: Mapping[str, str], here: Path) -> dict[str, _Variable]:
    return {name: (value, name, here) for name, value in environ.items()}


def _dotenv(path: Path, problems: list[Problem]) -> dict[str, _Variable]:
    """The variables of `.env` with where each stands; empty when there is no such file."""
    # In a folder that may not be looked into the settings beside it say the reason.
    if not os.path.isfile(path):  # noqa: PTH113
        return {}
    from dotenv import dotenv_values

    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeError) as error:
        problems.append(Problem(str(path), "unreadable_file", f"cannot read it: {error}"))
        return {}
    lines = {
        name[1]: number
        for number, line in enumerate(text.splitlines(), start=1)
        if (name := re.match(r"\s*(?:export\s+)?([A-Za-z_]\w*)\s*=", line))
    }
    return {
        name: (value, f"{path}:{lines.get(name, 1)}: {name}", path.parent)
        for name, value in dotenv_values(stream=StringIO(text), interpolate=False).items()
        if value is not None
    }
