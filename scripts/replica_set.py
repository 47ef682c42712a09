"""A primary with replicas, and Sentinels where they are asked for, for what fails over."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import redis as redis_py

from flowd.prctl import end_with_parent
from flowd.supervisor.bare_redis import ProbeResult, probe
from flowd.supervisor.embedded_server import find_binary
from scripts.redis_server import RedisServer

HOST = "127.0.0.1"
START_LIMIT_S = 180.0
MASTER_NAME = "p0"
# What a Sentinel waits for before it takes the primary for gone.
DOWN_AFTER_MS = 500


def hold_port() -> socket.socket:
    """A port of loopback that is given to nobody else while this is open, and where a server may
    listen, end, and listen again: what only was free is another's by then, now and then."""
    held = socket.socket()
    held.bind((HOST, 0))
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return held


def port_of(held: socket.socket) -> int:
    return int(held.getsockname()[1])


class Place(NamedTuple):
    """Where a server runs: its address, and what stands before the command that starts it."""

    host: str = HOST
    within: tuple[str, ...] = ()


HERE: Final = Place()


def listening(port: int, tls: Mapping[str, str] | None) -> dict[str, str]:
    """As in redis.conf; `tls` are its files."""
    if tls is None:
        return {"port": str(port)}
    return {"port": "0", "tls-port": str(port), "tls-replication": "yes", **tls}


class ReplicaServer(RedisServer):
    """Answers on a port, too: its replicas and the Sentinels need one."""

    def __init__(
        self,
        folder: Path,
        tls: Mapping[str, str] | None = None,
        place: Place = HERE,
        **options: str | tuple[str, ...],
    ) -> None:
        folder.mkdir()
        self.place = place
        self.within = place.within
        self._held = hold_port()
        self.port = port_of(self._held)
        super().__init__(
            folder,
            **listening(self.port, tls),
            bind=place.host,
            # Others come from another address than that of loopback.
            protected_mode="no",
            repl_diskless_sync_delay="0",
            repl_timeout="5",
            enable_debug_command="local",
            **options,
        )

    def release_port(self) -> None:
        self._held.close()

    @property
    def address(self) -> tuple[str, int]:
        return self.place.host, self.port

    def ask(self, *command: str | int) -> Any:
        options: dict[str, Any] = {"decode_responses": True, "socket_timeout": 2.0}
        with redis_py.Redis(unix_socket_path=self.socket_path, **options) as client:
            return client.execute_command(*command)

    def facts(self) -> dict[str, Any]:
        """Of its replication; none while it does not answer."""
        try:
            return dict(self.ask("INFO", "replication"))
        except redis_py.RedisError:
            return {}

    @property
    def is_primary(self) -> bool:
        return self.process.poll() is None and self.facts().get("role") == "master"


class Sentinel:
    """One of those that watch the primary, and name it."""

    def __init__(
        self,
        folder: Path,
        primary: ReplicaServer,
        quorum: int,
        tls: Mapping[str, str] | None = None,
        place: Place = HERE,
    ) -> None:
        folder.mkdir()
        self._held = hold_port()
        self.port = port_of(self._held)
        self.place = place
        # flowd's own server knows no TLS.
        self._binary = find_binary(os.environ.get("FLOWD_TEST_REDIS_SERVER") if tls else None)
        self._config = folder / "sentinel.conf"
        self._socket_path = str(folder / "redis.sock")
        name, (host, port) = MASTER_NAME, primary.address
        lines = (
            *(f"{option} {value}" for option, value in listening(self.port, tls).items()),
            f"bind {place.host}",
            "protected-mode no",
            f"unixsocket {self._socket_path}",
            f"dir {folder}",
            f"logfile {folder / 'sentinel.log'}",
            f"sentinel monitor {name} {host} {port} {quorum}",
            f"sentinel down-after-milliseconds {name} {DOWN_AFTER_MS}",
            f"sentinel failover-timeout {name} 1500",
        )
        self._config.write_text("\n".join(lines) + "\n")

    def start(self) -> None:
        command = [*self.place.within, self._binary, str(self._config), "--sentinel"]
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, preexec_fn=end_with_parent
        )
        wait_for(lambda: probe(self._socket_path) is ProbeResult.READY, "a Sentinel to answer")

    def ask(self, *command: str, **login: Any) -> Any:
        """The reply as it is sent: the client would make another shape of it."""
        options: dict[str, Any] = {"decode_responses": True, "protocol": 2, **login}
        connection = redis_py.UnixDomainSocketConnection(path=self._socket_path, **options)
        try:
            connection.send_command(*command)
            return connection.read_response()
        finally:
            connection.disconnect()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def release_port(self) -> None:
        self._held.close()


def wait_for(is_so: Any, what: str, limit_s: float = START_LIMIT_S) -> None:
    deadline = time.monotonic() + limit_s
    while not is_so():
        assert time.monotonic() < deadline, f"waited {limit_s:g} s in vain for {what}"
        time.sleep(0.01)


class ReplicaSet:
    """`with ReplicaSet(folder, replicas=2, sentinels=3) as servers`: the first is the primary."""

    def __init__(
        self,
        folder: Path,
        replicas: int = 1,
        sentinels: int = 0,
        tls: Mapping[str, str] | None = None,
        places: Sequence[Place] = (HERE,),
        **options: Any,
    ) -> None:
        """The first server, and the first Sentinel, are at the first place, all others at the
        last."""
        first, *_, last = *places, places[-1]
        self.servers = [
            ReplicaServer(folder / f"server-{at}", tls, last if at else first, **options)
            for at in range(replicas + 1)
        ]
        quorum = sentinels // 2 + 1
        self.sentinels = [
            Sentinel(folder / f"sentinel-{at}", self.servers[0], quorum, tls, last if at else first)
            for at in range(sentinels)
        ]

    def __enter__(self) -> Self:
        first, *others = self.servers
        for server in self.servers:
            server.start()
        for server in others:
            server.ask("REPLICAOF", *first.address)
        self.wait_until_whole()
        for sentinel in self.sentinels:
            sentinel.start()
        self.wait_until_watched()
        return self

    def __exit__(self, *_: object) -> None:
        for one in (*self.sentinels, *self.servers):
            with contextlib.suppress(AttributeError):
                one.process.send_signal(signal.SIGCONT)
                one.kill()
            one.release_port()

    @property
    def url(self) -> str:
        """By way of the Sentinels."""
        hosts = ",".join(f"{one.place.host}:{one.port}" for one in self.sentinels)
        return f"redis+sentinel://{hosts}/{MASTER_NAME}/0"

    @property
    def primary(self) -> ReplicaServer:
        """Where two take themselves for it, that which others follow."""
        found = [one for one in self.servers if one.is_primary]
        return max(found, key=lambda one: one.facts().get("connected_slaves", 0))

    def wait_until_whole(self) -> None:
        """All others follow one primary, and have all it has."""

        def is_whole() -> bool:
            facts = [one.facts() for one in self.servers]
            primaries = [one for one in facts if one.get("role") == "master"]
            online = sum(one.get("master_link_status") == "up" for one in facts)
            if len(primaries) != 1 or online != len(facts) - 1:
                return False
            offset = primaries[0]["master_repl_offset"]
            return all(one.get("slave_repl_offset", offset) >= offset for one in facts)

        wait_for(is_whole, "the replicas to follow")

    def wait_until_watched(self) -> None:
        """Every Sentinel knows the others and the replicas, and sees nothing amiss with the same
        primary: two that disagree, or amid a failover, would elect nobody while a third is away."""

        def is_watched() -> bool:
            seen = set()
            for one in self.sentinels:
                flat = one.ask("SENTINEL", "MASTER", MASTER_NAME)
                facts = dict(zip(flat[::2], flat[1::2], strict=True))
                known = int(facts["num-slaves"]), int(facts["num-other-sentinels"])
                if known != (len(self.servers) - 1, len(self.sentinels) - 1):
                    return False
                seen.add((facts["flags"], facts["port"]))
            return len(seen) <= 1 and all(flags == "master" for flags, _ in seen)

        wait_for(is_watched, "the Sentinels to know each other")

    def mend(self) -> None:
        """Let go what is frozen, start what has ended, and wait until all are there. Whatever goes
        on comes to its end first: who ended is empty, and must not be followed."""
        wait_for(lambda: self.named_server.is_primary, "the named to be the primary")
        for one in (*self.servers, *self.sentinels):
            if one.process.poll() is not None:
                one.start()
            one.process.send_signal(signal.SIGCONT)
        primary = self.named
        for server in self.servers:
            if server.port != primary:
                server.ask("REPLICAOF", *self._at(primary).address)
        self.wait_until_whole()
        self.wait_until_watched()

    def _at(self, port: int) -> ReplicaServer:
        return next(one for one in self.servers if one.port == port)

    def _said(self) -> set[int]:
        found = (
            one.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER_NAME)
            for one in self.sentinels
            if one.process.poll() is None
        )
        return {int(port) for _, port in found}

    @property
    def named(self) -> int:
        """The port of the primary, as all Sentinels say once they agree."""

        wait_for(lambda: len(self._said()) == 1, "the Sentinels to agree")
        return self._said().pop()

    @property
    def named_server(self) -> ReplicaServer:
        return self._at(self.named)

    def fail_over(self) -> None:
        """Begin one although nothing is wrong. A Sentinel refuses that amid another, and while it
        knows of no good replica."""

        def is_begun() -> bool:
            with contextlib.suppress(redis_py.ResponseError):
                self.sentinels[0].ask("SENTINEL", "FAILOVER", MASTER_NAME)
                return True
            return False

        wait_for(is_begun, "a failover to begin")

    def promote(self, server: ReplicaServer) -> None:
        """By hand: this one is the primary, and all others follow it."""
        server.ask("REPLICAOF", "NO", "ONE")
        for other in self.servers:
            if other is not server and other.process.poll() is None:
                other.ask("REPLICAOF", *server.address)


class MovingAddress:
    """`with MovingAddress(server.address) as address`: `target` is where new connections lead;
    those that are open stay where they are."""

    def __init__(self, target: tuple[str, int]) -> None:
        self.target = target
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._ways: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port}/0"

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = self._do(asyncio.start_server(self._lead, HOST, 0))
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(START_LIMIT_S)

    async def _close(self) -> None:
        self._server.close()
        for way in self._ways:
            way.cancel()
        await asyncio.gather(*self._ways, return_exceptions=True)

    async def _lead(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        this = asyncio.current_task()
        assert this is not None
        self._ways.add(this)
        with contextlib.suppress(OSError, asyncio.CancelledError), closing(writer):
            there, onward = await asyncio.open_connection(*self.target)
            with closing(onward):
                ways = [
                    asyncio.create_task(_pass_on(reader, onward)),
                    asyncio.create_task(_pass_on(there, writer)),
                ]
                try:
                    await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for way in ways:
                        way.cancel()
        self._ways.discard(this)


@contextlib.contextmanager
def closing(writer: asyncio.StreamWriter) -> Iterator[None]:
    try:
        yield
    finally:
        writer.close()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
