"""Read flowd.toml, `.env`, the environment and the flags into one frozen `Settings`.

A value comes from the first of: flag, `FLOWD_<SECTION>__<KEY>`, the documented variables
(`REDIS_HOST`, `WORKER_NAME` ...), flowd.toml, default. The real environment wins over `.env`.
A new setting is one line in a section below: its default, what it accepts, its other names.
"""

from __future__ import annotations

import os
import re
import socket
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from functools import cache
from io import StringIO
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from flowd.destinations import Destination
from flowd.errors import InvalidSettings, Problem

DEFAULT_FILE = "flowd.toml"
DEFAULT_DATA_DIR = Path(".flowd")
SECRET = "********"
DEFAULT_WORKER_NAME = f"worker-{socket.gethostname()}"

# Variables with flowd's prefix that are not settings: they belong to the clients, the tests, and
# whoever keeps secrets there.
_NOT_SETTINGS = ("FLOWD_CONFIG", "FLOWD_URL", "FLOWD_TOKEN")
_NOT_SETTINGS_PREFIXES = ("FLOWD_TEST_", "FLOWD_SECRET_")


# Readers turn a value of the file, or the text of a variable, into the setting's type.
# What they raise says what would be right; the caller says where and what was wrong.


def _text(value: Any) -> str:
    if isinstance(value, str) and value and value.isprintable():
        return value
    raise ValueError("a text that is not empty")


def _optional_text(value: Any) -> str | None:
    return None if value == "" else _text(value)


def _truth(value: Any) -> bool:
    word = str(value).strip().lower()
    if word in ("true", "yes", "on", "1"):
        return True
    if word in ("false", "no", "off", "0"):
        return False
    raise ValueError("true or false")


def _whole(least: int, most: int) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        if isinstance(value, int | str) and re.fullmatch(r"\s*[+-]?\d{1,12}\s*", str(value)):
            number = int(value)
            if least <= number <= most:
                return number
        raise ValueError(f"a whole number from {least} to {most}")

    return read


def _number(least: float, most: float, unit: str) -> Callable[[Any], float]:
    def read(value: Any) -> float:
        if not isinstance(value, bool) and re.fullmatch(r"\s*\d+(\.\d*)?\s*", str(value)):
            number = float(value)
            if least <= number <= most:
                return number
        raise ValueError(f"a number of {unit} from {least:g} to {most:g}")

    return read


def _seconds(least: float, most: float) -> Callable[[Any], float]:
    return _number(least, most, "seconds")


def _one_of(*words: str) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if value in words:
            return str(value)
        raise ValueError(" or ".join(f"'{word}'" for word in words))

    return read


def _texts(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    if isinstance(value, list | tuple) and all(isinstance(part, str) for part in value):
        return tuple(value)
    raise ValueError('a list of texts, such as ["service-a", "service-b"]')


def _modules(value: Any) -> tuple[str, ...]:
    names = _texts(value)
    if all(part.isidentifier() for name in names for part in name.split(".")):
        return names
    raise ValueError('a list of names of Python modules, such as ["my_handlers"], without .py')


def _destinations(value: Any) -> tuple[str, ...]:
    entries = _texts(value)
    for entry in entries:
        Destination.parse(entry)
    return entries


def _bound_secrets(value: Any) -> tuple[str, ...]:
    entries = _texts(value)
    for entry in entries:
        name, at, host = entry.partition("@")
        if not at or not name.isidentifier():
            raise ValueError('a list of secrets and hosts, such as ["API_KEY@api.example.com"]')
        Destination.parse(host)
    return entries


def _path(value: Any) -> Path:
    try:
        return Path(_text(value)).expanduser()
    except RuntimeError:
        raise ValueError("a path, and after ~ the name of a user of this machine") from None


def _optional_path(value: Any) -> Path | None:
    return None if value == "" else _path(value)


def _url(*schemes: str) -> Callable[[Any], str | None]:
    def read(value: Any) -> str | None:
        if value == "":
            return None
        wanted = "a URL that starts with " + " or ".join(f"{scheme}://" for scheme in schemes)
        try:
            parts = urlsplit(_text(value))
            if parts.scheme in schemes:
                wanted = "a URL with a host, and with a port from 1 to 65535 where it names one"
            if parts.scheme in schemes and (parts.hostname or parts.path) and parts.port != 0:
                return str(value)
        except ValueError:
            pass
        raise ValueError(wanted)

    return read


def _setting(
    default: Any,
    read: Callable[[Any], Any],
    *,
    flag: str = "",
    variable: str = "",
    is_secret: bool = False,
) -> Any:
    """A key users may set: `flag` and `variable` are its names beside `FLOWD_<SECTION>__<KEY>`."""
    facts = {"read": read, "flag": flag, "variable": variable, "is_secret": is_secret}
    return field(default=default, repr=not is_secret, metadata=facts)


@dataclass(frozen=True, slots=True)
class ApiSettings:
    host: str = _setting("127.0.0.1", _text, flag="--host")
    # Port 0 lets the system choose; the start line and `flowd status` say which it was.
    port: int = _setting(8000, _whole(0, 65535), flag="--port")
    processes: int = _setting(1, _whole(1, 64))
    # A unix socket to listen on, in place of host and port.
    socket: Path | None = _setting(None, _optional_path)  # noqa: RUF009
    # Names a request may address flowd by, `*.` and a domain too; none stands for the safe default.
    allowed_hosts: tuple[str, ...] = _setting((), _texts)
    body_max_mb: float = _setting(1.0, _number(0.001, 16, "MiB"))
    # Of each process.
    connections_max: int = _setting(1000, _whole(1, 10**6))
    # Requests a second of each token, or client address without tokens; 0 is no limit.
    rate_limit: float = _setting(0.0, _number(0, 1e6, "requests a second"))


@dataclass(frozen=True, slots=True)
class RedisSettings:
    mode: str = _setting("auto", _one_of("auto", "embedded", "external"))
    # Wins over host, port and db. May hold a password, hence kept out of repr.
    url: str | None = _setting(None, _url("redis", "rediss", "unix"), is_secret=True)
    host: str = _setting("localhost", _text, variable="REDIS_HOST")
    # Port 0 gives the embedded server no TCP port at all, only its unix socket.
    port: int = _setting(6379, _whole(0, 65535), variable="REDIS_PORT")
    db: int = _setting(0, _whole(0, 1023), variable="REDIS_DB")
    data_dir: Path = _setting(DEFAULT_DATA_DIR, _path, flag="--data-dir")  # noqa: RUF009
    durability: str = _setting("always", _one_of("always", "everysec"))
    # A server to use instead of the one in the wheel: a path, or a name found on PATH.
    server: str | None = _setting(None, _optional_text)
    # Not a key: `flowd start` sets it once its embedded server listens there.
    socket_path: str | None = None

    @property
    def address(self) -> str:
        """Where this Redis is, for people: never with a password."""
        if self.socket_path:
            return f"unix:{self.socket_path}"
        if self.url is None:
            return f"{self.host}:{self.port}"
        parts = urlsplit(self.url)
        if parts.scheme == "unix":
            return f"unix:{parts.path}"
        return f"{parts.hostname}:{parts.port or 6379}"


@dataclass(frozen=True, slots=True)
class WorkersSettings:
    count: int = _setting(2, _whole(0, 512), flag="--workers")
    concurrency: int = _setting(64, _whole(1, 4096))
    # One that uses this much memory, or has done this many nodes, is replaced; 0 is no limit.
    memory_max_mb: int = _setting(0, _whole(0, 10**7))
    tasks_max: int = _setting(0, _whole(0, 10**12 - 1))
    name: str = _setting(DEFAULT_WORKER_NAME, _text, flag="--name", variable="WORKER_NAME")


@dataclass(frozen=True, slots=True)
class TasksSettings:
    stream: str = _setting("workflow:tasks", _text, variable="WORKER_STREAM")
    group: str = _setting("workflow_group", _text, variable="WORKER_GROUP")


@dataclass(frozen=True, slots=True)
class SchedulerSettings:
    interval_s: float = _setting(1.0, _seconds(0.01, 3600))


@dataclass(frozen=True, slots=True)
class DefaultsSettings:
    """What a node has that says nothing of its own."""

    timeout_s: float = _setting(300.0, _seconds(0.001, 86400))
    max_attempts: int = _setting(1, _whole(1, 1000))
    # The pause before the second attempt; each further one is `backoff` times as long.
    delay_s: float = _setting(1.0, _seconds(0, 86400))
    backoff: float = _setting(2.0, _number(1, 100, "times"))
    max_delay_s: float = _setting(300.0, _seconds(0, 86400))
    # The part of a pause that is left to chance, so that many do not come back at once.
    jitter: float = _setting(0.1, _number(0, 1, "parts"))


@dataclass(frozen=True, slots=True)
class ShutdownSettings:
    grace_s: float = _setting(30.0, _seconds(0, 3600))


@dataclass(frozen=True, slots=True)
class SupervisorSettings:
    # A process whose event loop stands still for this long is killed; 0 is never.
    hung_after_s: float = _setting(10.0, _seconds(0, 3600))


@dataclass(frozen=True, slots=True)
class RetentionSettings:
    # How long an execution is kept after its end; 0 keeps it for ever.
    finished_days: float = _setting(7.0, _number(0, 36500, "days"))


@dataclass(frozen=True, slots=True)
class CallbacksSettings:
    # Hosts, networks and names with `*.` that may be called back although they are not public.
    allow: tuple[str, ...] = _setting((), _destinations)


@dataclass(frozen=True, slots=True)
class SecretsSettings:
    # A file per secret, named as the secret is.
    folder: Path | None = _setting(None, _optional_path)  # noqa: RUF009
    # `NAME@host`: this secret goes to these hosts and nowhere else.
    bound: tuple[str, ...] = _setting((), _bound_secrets)


@dataclass(frozen=True, slots=True)
class LogSettings:
    level: str = _setting("info", _one_of("debug", "info", "warning", "error"))
    # None is stderr. A new file is begun at this size or this age; 0 is no limit.
    file: Path | None = _setting(None, _optional_path)  # noqa: RUF009
    max_mb: float = _setting(64.0, _number(0, 1e6, "MiB"))
    max_age_days: float = _setting(7.0, _number(0, 36500, "days"))
    keep: int = _setting(5, _whole(0, 1000))


@dataclass(frozen=True, slots=True)
class CallExternalServiceSettings:
    # Hosts that answer without a network: those of the sample workflows.
    simulated_hosts: tuple[str, ...] = _setting(
        ("service-a", "service-b", "service-c", "service-d", "consumer"), _texts
    )
    # Hosts, networks and names with `*.` that may be called although they are not public.
    allow: tuple[str, ...] = _setting((), _destinations)
    timeout_s: float = _setting(30.0, _seconds(0.1, 86400))
    # Decompressed. A node's output may have 16 MiB.
    answer_max_mb: float = _setting(10.0, _number(0.001, 16, "megabytes"))


@dataclass(frozen=True, slots=True)
class LlmSettings:
    # Without a base_url the provider is simulated.
    base_url: str | None = _setting(None, _url("http", "https"))
    api_key: str | None = _setting(None, _optional_text, is_secret=True)
    model: str | None = _setting(None, _optional_text)
    timeout_s: float = _setting(120.0, _seconds(0.1, 86400))


@dataclass(frozen=True, slots=True)
class ShellSettings:
    # Whoever may submit a workflow may then run any program as flowd's user.
    enabled: bool = _setting(False, _truth)
    timeout_s: float = _setting(300.0, _seconds(0.1, 86400))
    # Of stdout and of stderr.
    output_max_mb: float = _setting(1.0, _number(0.001, 8, "megabytes"))


@dataclass(frozen=True, slots=True)
class HandlersSettings:
    # Python modules with handlers of the user's own.
    modules: tuple[str, ...] = _setting((), _modules)
    call_external_service: CallExternalServiceSettings = field(
        default_factory=CallExternalServiceSettings
    )
    llm: LlmSettings = field(default_factory=LlmSettings)
    shell: ShellSettings = field(default_factory=ShellSettings)
    # Not a key: where the settings file is; modules are found there too.
    folder: Path | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Settings:
    environment: str = _setting("development", _text, variable="ENVIRONMENT")
    debug: bool = _setting(True, _truth, variable="DEBUG")
    api: ApiSettings = field(default_factory=ApiSettings)
    redis: RedisSettings = field(default_factory=RedisSettings)
    workers: WorkersSettings = field(default_factory=WorkersSettings)
    tasks: TasksSettings = field(default_factory=TasksSettings)
    scheduler: SchedulerSettings = field(default_factory=SchedulerSettings)
    defaults: DefaultsSettings = field(default_factory=DefaultsSettings)
    shutdown: ShutdownSettings = field(default_factory=ShutdownSettings)
    supervisor: SupervisorSettings = field(default_factory=SupervisorSettings)
    retention: RetentionSettings = field(default_factory=RetentionSettings)
    callbacks: CallbacksSettings = field(default_factory=CallbacksSettings)
    secrets: SecretsSettings = field(default_factory=SecretsSettings)
    log: LogSettings = field(default_factory=LogSettings)
    handlers: HandlersSettings = field(default_factory=HandlersSettings)

    def with_redis_socket(self, socket_path: str) -> Settings:
        """A copy whose store connects to this unix socket, whatever host and url say."""
        return replace(self, redis=replace(self.redis, socket_path=socket_path))


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

    `config_path` None reads ./flowd.toml when there is one. Raises InvalidSettings with every
    problem at once.
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
    path = config_path or Path(DEFAULT_FILE)
    problems: list[Problem] = []
    try:
        here = Path.cwd()
    except OSError as error:
        message = f"the folder flowd runs in is gone ({error.strerror}); go to one that is there"
        raise InvalidSettings([Problem(".", "no_folder", message)]) from error
    folder = (here / path).parent
    given: list[_Given] = []
    if config_path is not None or path.exists():
        given += _from_file(path, folder, problems)
    variables = _dotenv(folder / ".env", problems) | {
        name: (value, name, here) for name, value in environ.items()
    }
    given += _from_documented_variables(variables)
    given += _from_flowd_variables(variables, problems)
    given += _from_flags(flags or {}, here)

    values: dict[str, Any] = {
        "redis.data_dir": folder / DEFAULT_DATA_DIR,
        "handlers.folder": folder,
    }
    for one in given:
        _read_into(values, one, problems)
    if problems:
        raise InvalidSettings(problems)
    settings: Settings = _build(Settings, values)
    if settings.redis.mode == "embedded" and settings.redis.url is not None:
        message = "redis.mode 'embedded' and a redis.url exclude each other; take one away"
        raise InvalidSettings([Problem("redis.url", "bad_value", message)])
    return settings, {one.key: one.origin for one in given}


def list_settings(settings: Settings) -> Iterator[tuple[str, Any]]:
    """Every key with its value, fit to be shown: a secret that is set is SECRET."""
    for key, one in _keys().items():
        value = attrgetter(key)(settings)
        yield key, SECRET if one.metadata["is_secret"] and value is not None else value


def _from_file(path: Path, folder: Path, problems: list[Problem]) -> Iterator[_Given]:
    try:
        text = path.read_text(encoding="utf-8")
        tables = tomllib.loads(text)
    except (OSError, UnicodeError) as error:
        reason = (error.strerror if isinstance(error, OSError) else "") or str(error)
        if isinstance(error, FileNotFoundError):
            reason += f"; `flowd config init {path}` makes one"
        problems.append(Problem(str(path), "unreadable_file", f"cannot read it: {reason}"))
        return
    # Beside what tomllib calls an error: a number of thousands of digits, brackets without end.
    except (ValueError, RecursionError) as error:
        problems.append(Problem(str(path), "bad_toml", f"this is not TOML: {error}"))
        return
    lines = _lines_of_keys(text)
    for key, value in _flatten(tables):
        origin = f"{path}:{lines[key]}" if key in lines else str(path)
        if key in _keys():
            yield _Given(key, value, origin, folder)
        else:
            problems.append(_unknown_key(key, value, origin))


def _from_documented_variables(
    variables: Mapping[str, tuple[str, str, Path]],
) -> Iterator[_Given]:
    for key, one in _keys().items():
        value, origin, folder = variables.get(one.metadata["variable"], ("", "", Path()))
        # Empty is how compose files and shells say "not set".
        if value:
            yield _Given(key, value, origin, folder)


def _from_flowd_variables(
    variables: Mapping[str, tuple[str, str, Path]], problems: list[Problem]
) -> Iterator[_Given]:
    keys = {"FLOWD_" + key.upper().replace(".", "__"): key for key in _keys()}
    for name, (value, origin, folder) in variables.items():
        if name in keys:
            yield _Given(keys[name], value, origin, folder)
        elif (
            name.startswith("FLOWD_")
            and name not in _NOT_SETTINGS
            and not name.startswith(_NOT_SETTINGS_PREFIXES)
        ):
            hint = _did_you_mean(name, keys)
            problems.append(Problem(origin, "unknown_variable", f"no setting has this name{hint}"))


def _from_flags(flags: Mapping[str, Any], here: Path) -> Iterator[_Given]:
    for key, value in flags.items():
        if value is not None:
            yield _Given(key, value, _keys()[key].metadata["flag"] or key, here)


def _read_into(values: dict[str, Any], given: _Given, problems: list[Problem]) -> None:
    facts = _keys()[given.key].metadata
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
    for one in fields(section):  # type: ignore[arg-type]
        key = prefix + one.name
        if one.default_factory is not MISSING:
            arguments[one.name] = _build(one.default_factory, values, key + ".")
        elif key in values:
            arguments[one.name] = values[key]
    return section(**arguments)


@cache
def _keys() -> dict[str, Field[Any]]:
    """Every key users may set, by its dotted name."""
    return dict(_walk(Settings))


def _walk(section: Callable[..., Any], prefix: str = "") -> Iterator[tuple[str, Field[Any]]]:
    for one in fields(section):  # type: ignore[arg-type]
        if one.default_factory is not MISSING:
            yield from _walk(one.default_factory, f"{prefix}{one.name}.")
        elif one.metadata:
            yield prefix + one.name, one


@cache
def _sections() -> frozenset[str]:
    parts = [key.split(".")[:-1] for key in _keys()]
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
        hint = _did_you_mean(name, known)
        return Problem(origin, "unknown_section", f"unknown section [{key}]{hint}")
    known = [one.rpartition(".")[2] for one in _keys() if one.rpartition(".")[0] == section]
    elsewhere = [one.rpartition(".")[0] for one in _keys() if one.rpartition(".")[2] == name]
    hint = _did_you_mean(name, known)
    if not hint and elsewhere:
        hint = f"; it belongs in [{elsewhere[0]}]" if elsewhere[0] else "; it belongs at the top"
    return Problem(origin, "unknown_key", f"unknown key {name!r}{place}{hint}")


def _did_you_mean(name: str, known: Any) -> str:
    import difflib

    near = difflib.get_close_matches(name, sorted(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


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


def _dotenv(path: Path, problems: list[Problem]) -> dict[str, tuple[str, str, Path]]:
    """The variables of `.env` with where each stands; empty when there is no such file."""
    if not path.is_file():
        return {}
    from dotenv import dotenv_values

    try:
        text = path.read_text(encoding="utf-8")
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
