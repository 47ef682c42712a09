"""The settings: every section with its keys, what each accepts, its default and its other names.

A new setting is one line in a section below. `loading` finds where a value was given; `readers`
turn what was given into the type of the setting.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from flowd.config import readers as read

DEFAULT_FILE = "flowd.toml"
DEFAULT_DATA_DIR = Path(".flowd")
SECRET = "********"
DEFAULT_WORKER_NAME = f"worker-{socket.gethostname()}"


def _setting(
    default: Any,
    reader: Callable[[Any], Any],
    *,
    flag: str = "",
    variable: str = "",
    is_secret: bool = False,
) -> Any:
    """A key users may set: `flag` and `variable` are its names beside `FLOWD_<SECTION>__<KEY>`."""
    facts = {"read": reader, "flag": flag, "variable": variable, "is_secret": is_secret}
    return field(default=default, repr=not is_secret, metadata=facts)


@dataclass(frozen=True, slots=True)
class ApiSettings:
    host: str = _setting("127.0.0.1", read.text, flag="--host")
    # Port 0 lets the system choose; the start line and `flowd status` say which it was.
    port: int = _setting(8000, read.whole(0, 65535), flag="--port")
    processes: int = _setting(1, read.whole(1, 64))
    # A unix socket to listen on, in place of host and port.
    socket: Path | None = _setting(None, read.optional_path)  # noqa: RUF009
    # Names a request may address flowd by, `*.` and a domain too; none stands for the safe default.
    allowed_hosts: tuple[str, ...] = _setting((), read.texts)
    body_max_mb: float = _setting(1.0, read.number(0.001, 16, "MiB"))
    # Of each process.
    connections_max: int = _setting(1000, read.whole(1, 10**6))
    # Requests a second of each token, or client address without tokens; 0 is no limit.
    rate_limit: float = _setting(0.0, read.number(0, 1e6, "requests a second"))


@dataclass(frozen=True, slots=True)
class RedisSettings:
    mode: str = _setting("auto", read.one_of("auto", "embedded", "external"))
    # Wins over host, port and db. May hold a password, hence kept out of repr.
    url: str | None = _setting(None, read.url("redis", "rediss", "unix"), is_secret=True)
    host: str = _setting("localhost", read.text, variable="REDIS_HOST")
    # Port 0 gives the embedded server no TCP port at all, only its unix socket.
    port: int = _setting(6379, read.whole(0, 65535), variable="REDIS_PORT")
    db: int = _setting(0, read.whole(0, 1023), variable="REDIS_DB")
    data_dir: Path = _setting(DEFAULT_DATA_DIR, read.path, flag="--data-dir")  # noqa: RUF009
    durability: str = _setting("always", read.one_of("always", "everysec"))
    # A server to use instead of the one in the wheel: a path, or a name found on PATH.
    server: str | None = _setting(None, read.optional_text)
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
    count: int = _setting(2, read.whole(0, 512), flag="--workers")
    concurrency: int = _setting(64, read.whole(1, 4096))
    # One that uses this much memory, or has done this many nodes, is replaced; 0 is no limit.
    memory_max_mb: int = _setting(0, read.whole(0, 10**7))
    tasks_max: int = _setting(0, read.whole(0, 10**12 - 1))
    name: str = _setting(DEFAULT_WORKER_NAME, read.text, flag="--name", variable="WORKER_NAME")


@dataclass(frozen=True, slots=True)
class TasksSettings:
    stream: str = _setting("workflow:tasks", read.text, variable="WORKER_STREAM")
    group: str = _setting("workflow_group", read.text, variable="WORKER_GROUP")


@dataclass(frozen=True, slots=True)
class SchedulerSettings:
    interval_s: float = _setting(1.0, read.seconds(0.01, 3600))


@dataclass(frozen=True, slots=True)
class DefaultsSettings:
    """What a node has that says nothing of its own."""

    timeout_s: float = _setting(300.0, read.seconds(0.001, 86400))
    max_attempts: int = _setting(1, read.whole(1, 1000))
    # The pause before the second attempt; each further one is `backoff` times as long.
    delay_s: float = _setting(1.0, read.seconds(0, 86400))
    backoff: float = _setting(2.0, read.number(1, 100, "times"))
    max_delay_s: float = _setting(300.0, read.seconds(0, 86400))
    # The part of a pause that is left to chance, so that many do not come back at once.
    jitter: float = _setting(0.1, read.number(0, 1, "parts"))


@dataclass(frozen=True, slots=True)
class ShutdownSettings:
    grace_s: float = _setting(30.0, read.seconds(0, 3600))


@dataclass(frozen=True, slots=True)
class SupervisorSettings:
    # A process whose event loop stands still for this long is killed; 0 is never.
    hung_after_s: float = _setting(10.0, read.seconds(0, 3600))


@dataclass(frozen=True, slots=True)
class RetentionSettings:
    # How long an execution is kept after its end; 0 keeps it for ever.
    finished_days: float = _setting(7.0, read.number(0, 36500, "days"))


@dataclass(frozen=True, slots=True)
class CallbacksSettings:
    # Hosts, networks and names with `*.` that may be called back although they are not public.
    allow: tuple[str, ...] = _setting((), read.destinations)


@dataclass(frozen=True, slots=True)
class SecretsSettings:
    # A file per secret, named as the secret is.
    folder: Path | None = _setting(None, read.optional_path)  # noqa: RUF009
    # `NAME@host`: this secret goes to these hosts and nowhere else.
    bound: tuple[str, ...] = _setting((), read.bound_secrets)


@dataclass(frozen=True, slots=True)
class LogSettings:
    level: str = _setting("info", read.one_of("debug", "info", "warning", "error"))
    # None is stderr. A new file is begun at this size or this age; 0 is no limit.
    file: Path | None = _setting(None, read.optional_path)  # noqa: RUF009
    max_mb: float = _setting(64.0, read.number(0, 1e6, "MiB"))
    max_age_days: float = _setting(7.0, read.number(0, 36500, "days"))
    keep: int = _setting(5, read.whole(0, 1000))


@dataclass(frozen=True, slots=True)
class CallExternalServiceSettings:
    # Hosts that answer without a network: those of the sample workflows.
    simulated_hosts: tuple[str, ...] = _setting(
        ("service-a", "service-b", "service-c", "service-d", "consumer"), read.texts
    )
    # Hosts, networks and names with `*.` that may be called although they are not public.
    allow: tuple[str, ...] = _setting((), read.destinations)
    timeout_s: float = _setting(30.0, read.seconds(0.1, 86400))
    # Decompressed. A node's output may have 16 MiB.
    answer_max_mb: float = _setting(10.0, read.number(0.001, 16, "megabytes"))


@dataclass(frozen=True, slots=True)
class LlmSettings:
    # Without a base_url the provider is simulated.
    base_url: str | None = _setting(None, read.url("http", "https"))
    api_key: str | None = _setting(None, read.optional_text, is_secret=True)
    model: str | None = _setting(None, read.optional_text)
    timeout_s: float = _setting(120.0, read.seconds(0.1, 86400))


@dataclass(frozen=True, slots=True)
class ShellSettings:
    # Whoever may submit a workflow may then run any program as flowd's user.
    enabled: bool = _setting(False, read.truth)
    timeout_s: float = _setting(300.0, read.seconds(0.1, 86400))
    # Of stdout and of stderr.
    output_max_mb: float = _setting(1.0, read.number(0.001, 8, "megabytes"))


@dataclass(frozen=True, slots=True)
class HandlersSettings:
    # Python modules with handlers of the user's own.
    modules: tuple[str, ...] = _setting((), read.modules)
    call_external_service: CallExternalServiceSettings = field(
        default_factory=CallExternalServiceSettings
    )
    llm: LlmSettings = field(default_factory=LlmSettings)
    shell: ShellSettings = field(default_factory=ShellSettings)
    # Not a key: where the settings file is; modules are found there too.
    folder: Path | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Settings:
    environment: str = _setting("development", read.text, variable="ENVIRONMENT")
    debug: bool = _setting(True, read.truth, variable="DEBUG")
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
