"""A proxy between clients and Redis on a unix socket, which can do to a message what networks do.

It runs in a thread of its own. Messages are the commands of clients; a rule picks them by bytes
they contain, and says what becomes of the nth of them:

lose_request  it never arrives; the connection is cut
lose_reply    it arrives and is carried out; the connection is cut before the answer
cut           half of it arrives, then the connection is cut
half_open     the server loses the connection, the client is not told
black_hole    from here on nothing passes in either direction, and both ends think all is well
trickle       it passes byte by byte, and so does its answer
delay         it passes `seconds` later
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self, get_args

Fault = Literal["lose_request", "lose_reply", "cut", "half_open", "black_hole", "trickle", "delay"]
FAULTS: tuple[Fault, ...] = get_args(Fault)
_CHUNK = 1 << 16


@dataclass(slots=True)
class Rule:
    """What becomes of the `nth` message (from 1), and the `times - 1` after it, with `pattern`."""

    fault: Fault
    pattern: bytes
    nth: int = 1
    times: int = 1
    seconds: float = 0.1
    seen: int = field(default=0, init=False)
    done: int = field(default=0, init=False)

    def is_for(self, message: bytes) -> bool:
        if self.pattern not in message:
            return False
        self.seen += 1
        is_due = self.nth <= self.seen < self.nth + self.times
        self.done += is_due
        return is_due


def frame_end(data: bytes | bytearray, at: int = 0) -> int | None:
    """Where the RESP value that begins at `at` ends; None while it is not all there."""
    line_end = data.find(b"\r\n", at)
    if line_end < 0:
        return None
    kind, after = data[at : at + 1], line_end + 2
    if kind in b"$=!":
        size = int(data[at + 1 : line_end])
        end = after if size < 0 else after + size + 2
        return end if end <= len(data) else None
    if kind in b"*~>%":
        count = int(data[at + 1 : line_end]) * (2 if kind == b"%" else 1)
        end: int | None = after
        for _ in range(count):
            if end is None:
                return None
            end = frame_end(data, end)
        return end
    return after


def take_frames(data: bytearray) -> list[bytes]:
    """The whole values at the beginning of `data`, taken out of it."""
    frames = []
    while data and (end := frame_end(data)) is not None:
        frames.append(bytes(data[:end]))
        del data[:end]
    return frames


class Proxy:
    """`with Proxy(folder / "proxy.sock", server_socket) as proxy`: clients connect to `path`."""

    def __init__(self, path: Path, target: str) -> None:
        self.path = str(path)
        self.connections = 0
        self._target = target
        self._rules: list[Rule] = []
        self._is_cut_off = False
        self._lines: set[_Line] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def add(self, fault: Fault, pattern: bytes | str, **options: float) -> Rule:
        """A rule from now on. Its `done` counts the messages it was applied to."""
        text = pattern.encode() if isinstance(pattern, str) else pattern
        rule = Rule(fault, text, **options)  # type: ignore[arg-type]
        self._do(lambda: self._rules.append(rule))
        return rule

    def cut_off(self) -> None:
        """A partition: nothing passes on any line, also a new one, until `heal`."""
        self._do(lambda: setattr(self, "_is_cut_off", True))

    def heal(self) -> None:
        """No rules, and no partition; lines that were open before are reset."""

        def heal() -> None:
            self._is_cut_off = False
            self._rules.clear()
            for line in list(self._lines):
                line.close()

        self._do(heal)

    def cut_all(self) -> None:
        """Reset every line there is; new ones pass."""
        self._do(lambda: [line.close() for line in list(self._lines)])

    def __enter__(self) -> Self:
        self._server = self._loop.run_until_complete(
            asyncio.start_unix_server(self._serve, self.path)
        )
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        async def close() -> None:
            self._server.close()
            for line in list(self._lines):
                line.close()
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(close(), self._loop).result(120)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, step: Callable[[], object]) -> None:
        """In the thread of the proxy, before this returns."""

        async def run() -> None:
            step()

        asyncio.run_coroutine_threadsafe(run(), self._loop).result(120)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            to_server = await asyncio.open_unix_connection(self._target)
        except OSError:
            writer.transport.abort()
            return
        line = _Line((reader, writer), to_server, self)
        self._lines.add(line)
        try:
            # Cancelled is how the proxy ends; the stream server would report it.
            with contextlib.suppress(asyncio.CancelledError):
                await line.run()
        finally:
            self._lines.discard(line)
            line.close()

    def fault_for(self, message: bytes) -> Rule | None:
        """Every rule counts the message; the first that is due decides."""
        due = [rule for rule in self._rules if rule.is_for(message)]
        return due[0] if due else None

    @property
    def is_cut_off(self) -> bool:
        return self._is_cut_off


_Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class _Line:
    """One client's connection, and the one to the server that belongs to it."""

    def __init__(self, client: _Stream, server: _Stream, proxy: Proxy) -> None:
        self._client_reader, self._client = client
        self._server_reader, self._server = server
        self._proxy = proxy
        self._owed = 0
        self._is_swallowing = False
        self._is_deaf = False
        self._is_trickling = False

    async def run(self) -> None:
        async with asyncio.TaskGroup() as both:
            requests = both.create_task(self._carry_requests())
            replies = both.create_task(self._carry_replies())
            await asyncio.wait((requests, replies), return_when=asyncio.FIRST_COMPLETED)
            requests.cancel()
            replies.cancel()

    def close(self) -> None:
        for writer in (self._client, self._server):
            writer.transport.abort()

    async def _carry_requests(self) -> None:
        data = bytearray()
        with contextlib.suppress(OSError):
            while chunk := await self._client_reader.read(_CHUNK):
                data += chunk
                for message in take_frames(data):
                    if not await self._pass(message):
                        return

    async def _pass(self, message: bytes) -> bool:
        """Carry one message to the server; False once the line is over."""
        if self._proxy.is_cut_off or self._is_deaf:
            return True
        rule = self._proxy.fault_for(message)
        fault = rule.fault if rule else None
        if rule and fault == "delay":
            await asyncio.sleep(rule.seconds)
        if fault == "lose_request":
            return False
        if fault == "cut":
            await self._send(self._server, message[: len(message) // 2])
            return False
        if fault == "half_open":
            self._is_deaf = True
            self._server.transport.abort()
            return True
        if fault == "black_hole":
            self._is_deaf = True
            return True
        self._is_trickling |= fault == "trickle"
        self._is_swallowing |= fault == "lose_reply"
        self._owed += 1
        await self._send(self._server, message)
        return True

    def _note_reply(self) -> None:
        self._owed -= 1
        self._is_trickling &= self._owed > 0

    async def _carry_replies(self) -> None:
        data = bytearray()
        with contextlib.suppress(OSError):
            while chunk := await self._server_reader.read(_CHUNK):
                data += chunk
                for reply in take_frames(data):
                    if not (self._is_swallowing or self._is_deaf or self._proxy.is_cut_off):
                        await self._send(self._client, reply)
                    self._note_reply()
                if self._is_swallowing and self._owed == 0:
                    return
        if self._is_deaf:
            # The client is not told that the server is gone.
            await asyncio.Event().wait()

    async def _send(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        size = 1 if self._is_trickling else len(data)
        for at in range(0, len(data), size):
            writer.write(data[at : at + size])
            await writer.drain()
            if self._is_trickling:
                await asyncio.sleep(0)
