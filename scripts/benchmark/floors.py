"""The least the machine needs: bare loops on the same server, in the same run.

They keep what a node cannot do without (take the entry, acknowledge and delete it, store status and
output) and nothing else: no plan, no handler, no fence, no attempt, no owner, no timestamps.
Each runs once unmeasured, so that every process is warm.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import hiredis
import redis

from scripts.benchmark.line import Command, Line, pack
from scripts.benchmark.processes import Partner, Void

_STREAM = "floor:tasks"
_GROUP = "floor"
_OUTPUT = '{"status":"ok"}'
# As long as an execution id of flowd's, and a plan digest.
_EXECUTION_ID = "0" * 24
_PLAN = "0" * 16
_RUN = f"floor:{_EXECUTION_ID}:run"

# What the one call of a hop has to do: end this entry, append the next one, take it.
_HOP = """
redis.call('XACK', KEYS[1], ARGV[1], ARGV[3])
redis.call('XDEL', KEYS[1], ARGV[3])
redis.call('SET', KEYS[2], 'COMPLETED')
redis.call('SET', KEYS[3], ARGV[4])
redis.call('XADD', KEYS[1], '*', 'execution_id', ARGV[5], 'node_id', ARGV[6], 'attempt', '1',
  'plan', ARGV[7])
return redis.call('XREADGROUP', 'GROUP', ARGV[1], ARGV[2], 'COUNT', 1, 'STREAMS', KEYS[1], '>')
"""
DRAIN_BATCH = 100
SOCKET_BATCH = 64


def _node(node_id: str) -> str:
    return f"floor:{_EXECUTION_ID}:node:{node_id}"


def _entry(node_id: str) -> Command:
    fields = ("execution_id", _EXECUTION_ID, "node_id", node_id, "attempt", "1", "plan", _PLAN)
    return ("XADD", _STREAM, "*", *fields)


class Floor:
    """One bare loop, from the making of its stream until nothing of it is left."""

    def __init__(self, socket_path: str) -> None:
        self._line = Line(socket_path)
        self._clear()
        self._line.ask("XGROUP", "CREATE", _STREAM, _GROUP, "0", "MKSTREAM")

    def _clear(self) -> None:
        cursor = b""
        while cursor != b"0":
            cursor, names = self._line.ask(
                "SCAN", cursor or b"0", "MATCH", "floor:*", "COUNT", 5000
            )
            if names:
                self._line.ask("UNLINK", *names)

    def close(self) -> None:
        self._clear()
        self._line.close()

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class HopFloor(Floor):
    """One hop of a chain as one script call of a synchronous redis-py client."""

    def __init__(self, socket_path: str) -> None:
        super().__init__(socket_path)
        self._client = redis.Redis(unix_socket_path=socket_path)
        self._sha = self._client.script_load(_HOP)
        self.ms_per_hop(100)

    def ms_per_hop(self, hops: int) -> float:
        self._line.ask(*_entry("n0"))
        reply: Any = self._client.xreadgroup(_GROUP, "one", {_STREAM: ">"}, count=1)
        call = partial(self._client.evalsha, self._sha, 3, _STREAM)
        begin = time.perf_counter()
        for hop in range(hops):
            entry_id = reply[0][1][0][0]
            node = _node(f"n{hop}")
            reply = call(
                node,
                f"{node}:output",
                _GROUP,
                "one",
                entry_id,
                _OUTPUT,
                _EXECUTION_ID,
                f"n{hop + 1}",
                _PLAN,
            )
        seconds = time.perf_counter() - begin
        last_id = reply[0][1][0][0]
        self._client.xack(_STREAM, _GROUP, last_id)
        self._client.xdel(_STREAM, last_id)
        return seconds * 1000 / hops

    def close(self) -> None:
        self._client.close()
        super().close()


class _ManyProcesses(Floor):
    """Processes that begin together, each telling when it was done."""

    def __init__(self, socket_path: str, works: Iterable[Callable[..., Any]]) -> None:
        super().__init__(socket_path)
        self._partners = [Partner(partial(work, socket_path)) for work in works]

    def _seconds(self, nodes: int) -> float:
        """Until all have found the stream empty. Raises Void unless they ended `nodes` nodes."""
        begin = time.perf_counter()
        for partner in self._partners:
            partner.order()
        results = [partner.result() for partner in self._partners]
        ended = sum(count for _, count in results)
        if ended != nodes or self._line.ask("XLEN", _STREAM):
            raise Void(f"a floor ended {ended} of {nodes} nodes")
        return max(end for end, _ in results) - begin

    def close(self) -> None:
        for partner in self._partners:
            partner.close()
        super().close()


class DrainFloor(_ManyProcesses):
    """Take 100 entries, answer them in one redis-py pipeline, again, until there are none."""

    def __init__(self, socket_path: str, processes: int) -> None:
        super().__init__(socket_path, [partial(_drain, f"d{n}") for n in range(processes)])
        self.nodes_per_s(1000)

    def nodes_per_s(self, nodes: int) -> float:
        self._line.ask_all([_entry(f"n{at}") for at in range(nodes)])
        return nodes / self._seconds(nodes)


def _drain(name: str, socket_path: str) -> Callable[[], tuple[float, int]]:
    client = redis.Redis(unix_socket_path=socket_path)
    client.ping()

    def work() -> tuple[float, int]:
        ended = 0
        while True:
            reply: Any = client.xreadgroup(_GROUP, name, {_STREAM: ">"}, count=DRAIN_BATCH)
            if not reply:
                return time.perf_counter(), ended
            pipeline = client.pipeline(transaction=False)
            for entry_id, fields in reply[0][1]:
                node = _node(fields[b"node_id"].decode())
                pipeline.xack(_STREAM, _GROUP, entry_id)
                pipeline.xdel(_STREAM, entry_id)
                pipeline.set(node, "COMPLETED")
                pipeline.set(f"{node}:output", _OUTPUT)
            pipeline.execute()
            ended += len(reply[0][1])

    return work


class SocketFloor(_ManyProcesses):
    """All commands of a node on bare sockets, 64 nodes to a write, two processes, no script."""

    def __init__(self, socket_path: str) -> None:
        super().__init__(socket_path, [partial(_answer, f"s{n}") for n in range(2)])
        self.nodes_per_s(100, 10)

    def nodes_per_s(self, roots: int, length: int) -> float:
        """`roots` chains of `length` at once: every node but the last of each appends another."""
        nodes = roots * length
        self._line.ask("HSET", _RUN, "remaining", nodes)
        self._line.ask_all([(*_entry(f"c{at}"), "left", length - 1) for at in range(roots)])
        return nodes / self._seconds(nodes)


def _answer(name: str, socket_path: str) -> Callable[[], tuple[float, int]]:
    line = Line(socket_path)
    read = ("XREADGROUP", "GROUP", _GROUP, name, "COUNT", SOCKET_BATCH, "STREAMS", _STREAM, ">")
    take = hiredis.pack_command(read)

    def work() -> tuple[float, int]:
        ended = 0
        line.send(take)
        reply = line.read()
        while True:
            if reply:
                entries = reply[0][1]
                commands = [one for entry in entries for one in _commands_of(*entry)]
                line.send(pack(commands) + take)
                for _ in commands:
                    line.read()
                ended += len(entries)
            elif int(line.ask("HGET", _RUN, "remaining")) == 0:
                return time.perf_counter(), ended
            else:
                line.send(take)
            reply = line.read()

    return work


def _commands_of(entry_id: bytes, fields: list[bytes]) -> list[Command]:
    """Everything one node needs, as commands of its own."""
    named = dict(zip(fields[::2], fields[1::2], strict=True))
    node_id, left = named[b"node_id"].decode(), int(named[b"left"])
    node = _node(f"{node_id}-{left}")
    commands: list[Command] = [
        ("XACK", _STREAM, _GROUP, entry_id),
        ("XDEL", _STREAM, entry_id),
        ("MSET", node, "COMPLETED", f"{node}:output", _OUTPUT),
        ("HINCRBY", _RUN, "remaining", -1),
    ]
    if left:
        commands.append((*_entry(node_id), "left", left - 1))
    return commands


def round_trip_s(line: Line) -> float:
    """One PING on a bare socket."""
    begin = time.perf_counter()
    line.ask("PING")
    return time.perf_counter() - begin
