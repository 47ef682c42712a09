"""The settings: every section with its keys, what each accepts and means, its default, its names.

A new setting is one entry in a section below. `loading` finds where a value was given; `readers`
turn what was given into the type of the setting; `reference` writes all of them down, for
flowd.toml and for the manual.

May use: destinations and the tree of errors. Called by every role when it starts.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from flowd.config import readers as read
from flowd.config.sentinel_url import SentinelUrl, parse_sentinel_url
from flowd.home import DEFAULT_DATA_DIR

SECRET = "********"
PRODUCTION = "production"
# Who flowd is to its embedded server.
EMBEDDED_USER = "flowd"
SECRET_VARIABLE_PREFIX = "FLOWD_SECRET_"
DEFAULT_WORKER_NAME = f"worker-{socket.gethostname()}"


def _setting(
    default: Any,
    reader: Callable[[Any], Any],
    meaning: str,
    *,
    flag: str = "",
    variable: str = "",
    example: Any = None,
    is_secret: bool = False,
) -> Any:
    """A key users may set.

    `meaning` is what flowd.toml and the manual say of it, in Markdown; `flag` and `variable` are
    its names beside `FLOWD_<SECTION>__<KEY>`; `example` is shown where the default is no value.
    """
    facts = {
        "read": reader,
        "meaning": meaning,
        "flag": flag,
        "variable": variable,
        "example": example,
        "is_secret": is_secret,
    }
    return field(default=default, repr=not is_secret, metadata=facts)


@dataclass(frozen=True, slots=True)
class ApiSettings:
    host: str = _setting(
        "127.0.0.1",
        read.text,
        "address the API listens on; `0.0.0.0` is every interface, and needs a [token](tokens.md)",
        flag="--host",
    )
    port: int = _setting(
        8000, read.whole(0, 65535), "port of the API; 0 lets the system choose", flag="--port"
    )
    processes: int = _setting(1, read.whole(1, 64), "number of API processes")
    socket: Path | None = _setting(
        None,
        read.optional_path,
        "unix socket to listen on in place of host and port, open to its user and group;"
        " a socket passed by systemd overrides all three",
        example="/run/flowd/api.sock",
    )
    allowed_hosts: tuple[str, ...] = _setting(
        (),
        read.texts,
        "further [host names](http-api.md#limits) that requests may use for flowd, such as "
        '`["flowd.example.com", "*.internal"]`',
    )
    body_max_mb: float = _setting(
        1.0, read.number(0.001, 16, "MiB"), "largest body of a request in MiB, at most 16"
    )
    connections_max: int = _setting(
        1000, read.whole(1, 10**6), "open connections of each API process"
    )
    rate_limit: float = _setting(
        0.0,
        read.number(0, 1e6, "requests a second"),
        "requests per second of each token, or of each address without a token; 0 is no limit",
    )


@dataclass(frozen=True, slots=True)
class RedisSettings:
    mode: str = _setting(
        "auto",
        read.one_of("auto", "embedded", "external"),
        "`auto` uses the Redis that answers at host and port, or starts flowd's own there; "
        "`embedded` always starts flowd's own; `external` never does",
    )
    url: str | None = _setting(
        None,
        read.redis_url,
        "`redis://`, `rediss://` or `unix://`, in place of host, port and db; `redis+sentinel://` "
        "and `rediss+sentinel://` for a [Redis that fails over](failover.md)",
        is_secret=True,
        example="rediss://user:password@redis.example.com:6379/0",
    )
    host: str = _setting("localhost", read.text, "host of Redis", variable="REDIS_HOST")
    port: int = _setting(
        6379,
        read.whole(0, 65535),
        "port of Redis; with 0, flowd's own Redis only has a unix socket",
        variable="REDIS_PORT",
    )
    db: int = _setting(0, read.whole(0, 1023), "number of the Redis database", variable="REDIS_DB")
    data_dir: Path = _setting(
        DEFAULT_DATA_DIR,
        read.path,
        "folder for the data of flowd's own Redis, and flowd's lock, control socket and tokens",
        flag="--data-dir",
    )
    durability: str = _setting(
        "always",
        read.one_of("always", "everysec"),
        "of flowd's own Redis: `always` loses nothing that was acknowledged; `everysec` is "
        "faster and may lose one second",
    )
    server: str | None = _setting(
        None,
        read.optional_text,
        "the Redis or Valkey program to run instead of the one that comes with flowd",
        example="redis-server",
    )
    replicas: int = _setting(
        0,
        read.whole(0, 16),
        "replicas of a Redis of your own that must have a change before it is acknowledged, and "
        "before a node that rests on it starts; with 0, a failover [may lose]"
        "(failover.md#acknowledged-by-replicas) what came last",
    )
    # Not a key: `flowd start` sets it once its embedded server listens there.
    socket_path: str | None = None
    # Of flowd's own user there.
    socket_password: str | None = field(default=None, repr=False)

    @property
    def sentinels(self) -> SentinelUrl | None:
        """Those that name the server; None where its own address is known."""
        if self.url is None or self.socket_path:
            return None
        return parse_sentinel_url(self.url)

    @property
    def address(self) -> str:
        """Where this Redis is, for people: never with a password."""
        if self.socket_path:
            return f"unix:{self.socket_path}"
        if self.url is None:
            return f"{self.host}:{self.port}"
        if self.sentinels is not None:
            return self.sentinels.address
        parts = urlsplit(self.url)
        if parts.scheme == "unix":
            return f"unix:{parts.path}"
        return f"{parts.hostname}:{parts.port or 6379}"


@dataclass(frozen=True, slots=True)
class WorkersSettings:
    count: int = _setting(
        2,
        read.whole(0, 512),
        "number of worker processes; with 0, only a `flowd worker` runs nodes",
        flag="--workers",
    )
    concurrency: int = _setting(64, read.whole(1, 4096), "nodes that each worker runs at once")
    memory_max_mb: int = _setting(
        0,
        read.whole(0, 10**7),
        "memory in MiB at which a worker finishes its nodes and is replaced; 0 is no limit",
    )
    tasks_max: int = _setting(
        0,
        read.whole(0, 10**12 - 1),
        "nodes after which a worker is replaced; 0 is no limit",
    )
    queues: tuple[str, ...] = _setting(
        ("default",),
        read.queues,
        "the [queues](queues.md) that each worker takes nodes from, the most urgent first; a node"
        " that names none is in `default`",
        flag="--queues",
    )
    groups: tuple[read.WorkerGroup, ...] = _setting(
        (),
        read.groups,
        "further workers, with [queues](queues.md#groups-of-workers) of their own: a section"
        " `[workers.groups.NAME]` with `count` and `queues` for each group",
        # A section of a key that is written out would be a second one.
        example=(),
    )
    name: str = _setting(
        DEFAULT_WORKER_NAME,
        read.text,
        "name of a `flowd worker`; the workers of `flowd start` are `worker-1` and so on",
        flag="--name",
        variable="WORKER_NAME",
        example="worker-1",
    )


@dataclass(frozen=True, slots=True)
class TasksSettings:
    stream: str = _setting(
        "workflow:tasks",
        read.stream,
        "key of the stream of nodes to run; none that flowd keeps for something else",
        variable="WORKER_STREAM",
    )
    group: str = _setting(
        "workflow_group", read.text, "name of its consumer group", variable="WORKER_GROUP"
    )


@dataclass(frozen=True, slots=True)
class SchedulerSettings:
    interval_s: float = _setting(
        1.0, read.seconds(0.01, 3600), "seconds between two rounds of the scheduler"
    )


@dataclass(frozen=True, slots=True)
class DefaultsSettings:
    """What a node has that says nothing of its own."""

    timeout_s: float = _setting(
        300.0, read.seconds(0.001, 86400), "time-out of a node without one, in seconds"
    )
    max_attempts: int = _setting(1, read.whole(1, 1000), "attempts of a node without `retry`")
    delay_s: float = _setting(1.0, read.seconds(0, 86400), "seconds before the second attempt")
    backoff: float = _setting(
        2.0, read.number(1, 100, "times"), "factor by which each further pause grows"
    )
    max_delay_s: float = _setting(300.0, read.seconds(0, 86400), "longest pause, in seconds")
    jitter: float = _setting(
        0.1,
        read.number(0, 1, "parts"),
        "fraction by which a pause may randomly be shorter or longer",
    )


@dataclass(frozen=True, slots=True)
class MapSettings:
    items_max: int = _setting(
        10_000,
        read.whole(1, 100_000),
        "most items of one [map](workflows.md#mapping-a-list)",
    )


@dataclass(frozen=True, slots=True)
class ShutdownSettings:
    grace_s: float = _setting(
        30.0, read.seconds(0, 3600), "seconds that running nodes get to finish when flowd stops"
    )


@dataclass(frozen=True, slots=True)
class SupervisorSettings:
    hung_after_s: float = _setting(
        10.0,
        read.seconds_or_never(0.5, 3600),
        "seconds the event loop of a process may hang before the process is killed; 0 is for ever",
    )


@dataclass(frozen=True, slots=True)
class RetentionSettings:
    finished_days: float = _setting(
        7.0,
        read.number(0, 36500, "days"),
        "days for which an execution is kept after its end; 0 is for ever",
    )
    cache_max_mb: int = _setting(
        256, read.whole(1, 1_000_000), "most MiB of outputs that are [cached](cache.md)"
    )


@dataclass(frozen=True, slots=True)
class CallbacksSettings:
    allow: tuple[str, ...] = _setting(
        (),
        read.destinations,
        "hosts that callbacks may go to although they are not public, written as in "
        "`handlers.call_external_service.allow`",
    )


@dataclass(frozen=True, slots=True)
class SecretsSettings:
    folder: Path | None = _setting(
        None,
        read.optional_path,
        "folder with a file for each [secret](secrets.md)",
        example="secrets",
    )
    bound: tuple[str, ...] = _setting(
        (),
        read.bound_secrets,
        'secrets with the only hosts they may go to, such as `["API_KEY@api.example.com"]`',
    )
    # Not a key: the variables of `.env` that hold secrets.
    from_dotenv: tuple[tuple[str, str], ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class LogSettings:
    level: str = _setting(
        "info",
        read.one_of("debug", "info", "warning", "error"),
        "lowest level that is logged: `debug`, `info`, `warning` or `error`",
    )
    file: Path | None = _setting(
        None,
        read.optional_path,
        "file for the [log](log-events.md), instead of stderr",
        example="flowd.log",
    )
    max_mb: float = _setting(
        64.0, read.number(0, 1e6, "MiB"), "size in MiB at which the log file is rotated; 0 is never"
    )
    max_age_days: float = _setting(
        7.0,
        read.number(0, 36500, "days"),
        "age in days at which the log file is rotated; 0 is never",
    )
    keep: int = _setting(5, read.whole(0, 1000), "number of rotated files that are kept")


@dataclass(frozen=True, slots=True)
class LogsSettings:
    node_max_kb: int = _setting(
        64,
        read.whole(4, 16_384),
        "KiB that are kept of what each attempt of a node [says](logs.md): half of them from its "
        "begin, half from its end",
    )
    execution_max_mb: int = _setting(
        64, read.whole(1, 4096), "MiB of all logs of one execution; what comes then is dropped"
    )


@dataclass(frozen=True, slots=True)
class TelemetrySettings:
    otlp_endpoint: str | None = _setting(
        None,
        read.url("http", "https"),
        "URL of an OpenTelemetry collector that gets a [trace](telemetry.md) of each execution, by "
        "OTLP over HTTP; needs the extra `flowd[telemetry]`",
        example="http://localhost:4318",
    )


@dataclass(frozen=True, slots=True)
class CallExternalServiceSettings:
    simulated_hosts: tuple[str, ...] = _setting(
        ("service-a", "service-b", "service-c", "service-d", "consumer"),
        read.texts,
        "hosts that are simulated, not called; in development, so is a name without a dot that "
        "does not resolve; `[]` turns both off",
    )
    allow: tuple[str, ...] = _setting(
        (),
        read.destinations,
        'hosts that may be called although they are not public, such as `["10.0.0.5:8080", '
        '"*.internal", "192.168.0.0/16"]`',
    )
    timeout_s: float = _setting(
        30.0, read.seconds(0.1, 86400), "time-out of a whole call, in seconds"
    )
    answer_max_mb: float = _setting(
        10.0, read.number(0.001, 16, "MiB"), "largest answer in MiB, decompressed"
    )


@dataclass(frozen=True, slots=True)
class LlmSettings:
    base_url: str | None = _setting(
        None,
        read.url("http", "https"),
        "URL of the model's server; without it the model is simulated",
        example="https://api.openai.com/v1",
    )
    api_key: str | None = _setting(
        None,
        read.optional_text,
        "sent as a bearer token",
        is_secret=True,
        example="better kept in FLOWD_HANDLERS__LLM__API_KEY",
    )
    model: str | None = _setting(
        None, read.optional_text, "the model to ask when the node names none", example="gpt-5-mini"
    )
    timeout_s: float = _setting(120.0, read.seconds(0.1, 86400), "seconds for a whole answer")


@dataclass(frozen=True, slots=True)
class ShellSettings:
    enabled: bool = _setting(
        False,
        read.truth,
        "whether workflows may run programs with the handler [shell](handlers.md#shell), as the "
        "user of flowd",
    )
    timeout_s: float = _setting(
        300.0, read.seconds(0.1, 86400), "time-out of a program, in seconds"
    )
    output_max_mb: float = _setting(
        1.0, read.number(0.001, 8, "MiB"), "MiB a program may write to each of stdout and stderr"
    )


@dataclass(frozen=True, slots=True)
class HandlersSettings:
    modules: tuple[str, ...] = _setting(
        (), read.modules, "Python modules with [handlers of your own](own-handlers.md)"
    )
    call_external_service: CallExternalServiceSettings = field(
        default_factory=CallExternalServiceSettings
    )
    llm: LlmSettings = field(default_factory=LlmSettings)
    shell: ShellSettings = field(default_factory=ShellSettings)
    # Not a key: where the settings file is; modules are found there too.
    folder: Path | None = field(default=None, compare=False)
    # Nor this: where the modules were given, for messages.
    origin: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Mode:
    """Whether flowd is tried out or depended on."""

    environment: str = _setting(
        "development",
        read.one_of("development", PRODUCTION),
        "`development` or `production`; another word in `ENVIRONMENT` counts as `production`, "
        "with a warning. In `development`, a 500 has the traceback of its defect, and calls to "
        "unresolvable hosts without a dot are simulated; in `production`, which "
        "`scripts/install` writes, flowd's own Redis always asks for a [password](redis-keys.md)",
        variable="ENVIRONMENT",
    )
    debug: bool = _setting(
        True,
        read.truth,
        "`false` hides the tracebacks in development too; an unknown word in `DEBUG` is a warning",
        variable="DEBUG",
    )

    @property
    def shows_tracebacks(self) -> bool:
        """Whether who made a request may see the traceback of a defect it has met."""
        return self.debug and self.environment == "development"


@dataclass(frozen=True, slots=True)
class Processes(Mode):
    """The processes, what they share, and what a node has by default."""

    api: ApiSettings = field(default_factory=ApiSettings)
    redis: RedisSettings = field(default_factory=RedisSettings)
    workers: WorkersSettings = field(default_factory=WorkersSettings)
    tasks: TasksSettings = field(default_factory=TasksSettings)
    scheduler: SchedulerSettings = field(default_factory=SchedulerSettings)
    defaults: DefaultsSettings = field(default_factory=DefaultsSettings)
    map: MapSettings = field(default_factory=MapSettings)
    shutdown: ShutdownSettings = field(default_factory=ShutdownSettings)
    supervisor: SupervisorSettings = field(default_factory=SupervisorSettings)
    retention: RetentionSettings = field(default_factory=RetentionSettings)


@dataclass(frozen=True, slots=True)
class Settings(Processes):
    callbacks: CallbacksSettings = field(default_factory=CallbacksSettings)
    secrets: SecretsSettings = field(default_factory=SecretsSettings)
    log: LogSettings = field(default_factory=LogSettings)
    logs: LogsSettings = field(default_factory=LogsSettings)
    telemetry: TelemetrySettings = field(default_factory=TelemetrySettings)
    handlers: HandlersSettings = field(default_factory=HandlersSettings)

    def with_redis_socket(self, socket_path: str, password: str | None = None) -> Settings:
        """A copy whose store connects to this unix socket, whatever host and url say.

        With a password it logs in there as flowd's own user.
        """
        redis = replace(self.redis, socket_path=socket_path, socket_password=password)
        return replace(self, redis=redis)
