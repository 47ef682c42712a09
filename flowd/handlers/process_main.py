"""Handlers in processes of their own: the process that is forked, and the call in the fork.

Run by a worker, with the number of the socket its orders come by and the worker's pid.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import select
import signal
import socket
import sys
import threading
import traceback
from pathlib import Path
from typing import Any, Final

import orjson

from flowd.config import Settings
from flowd.errors import Fail, WaitFor
from flowd.handlers.context import HandlerContext, Resources
from flowd.handlers.frames import LINE, framed, receive_frame
from flowd.handlers.loading import open_registry
from flowd.handlers.outcome import OUTPUT_BYTES_MAX, as_failure
from flowd.handlers.registry import Handler, Registry
from flowd.log import keep_stderr, listen_to_nodes, set_up_log
from flowd.node_log import SPEAKER, LineSink
from flowd.outgoing.secrets import Secrets
from flowd.prctl import adopt_orphans, end_with_parent
from flowd.redaction import REDACTOR
from flowd.store import open_store
from flowd.workflow import exact_json

TEXT_CHARS_MAX: Final = 1 << 20
# The first line the worker reads; one for each process that has ended follows.
READY: Final = b"ready\n"


def main() -> None:
    orders = socket.socket(fileno=int(sys.argv[1]))
    _die_with(int(sys.argv[2]))
    # What a call has started and left behind becomes this process's child, and is ended by it.
    adopt_orphans()
    settings: Settings = pickle.loads(receive_frame(orders) or b"")
    log = settings.log
    set_up_log(
        level=log.level,
        process="isolated",
        file=log.file,
        max_mb=log.max_mb,
        max_age_days=log.max_age_days,
        keep=log.keep,
    )
    listen_to_nodes()
    # Learned once here, so that no call has to.
    Secrets(settings)
    # What a module prints is no message of ours.
    reports = os.dup(1)
    os.dup2(2, 1)
    mother = _Mother(orders, reports, open_registry(settings), settings)
    os.write(reports, READY)
    mother.serve()


def _die_with(parent: int) -> None:
    end_with_parent()
    if os.getppid() != parent:
        os._exit(os.EX_TEMPFAIL)


class _Mother:
    """Single-threaded, so that it may be forked at any time."""

    def __init__(
        self, orders: socket.socket, reports: int, registry: Registry, settings: Settings
    ) -> None:
        self._orders = orders
        self._reports = reports
        self._registry = registry
        self._settings = settings
        self._calls: set[int] = set()
        self._wake, wake = socket.socketpair()
        for end in (self._wake, wake):
            end.setblocking(False)
        self._wake_end = wake
        signal.signal(signal.SIGCHLD, lambda *_: None)
        # The worker decides when this ends.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        signal.set_wakeup_fd(wake.fileno())

    def serve(self) -> None:
        while True:
            ready, _, _ = select.select([self._orders, self._wake], [], [])
            if self._wake in ready:
                self._wake.recv(4096)
                self._reap()
            if self._orders in ready:
                data, fds, _, _ = socket.recv_fds(self._orders, 1, 3)
                if not data:
                    return
                self._fork(socket.socket(fileno=fds[0]), fds[1:])

    def _fork(self, line: socket.socket, outputs: list[int]) -> None:
        """`outputs` is where its stdout and its stderr lead."""
        with line:
            mother = os.getpid()
            pid = os.fork()
            if pid == 0:
                self._orders.close()
                os.close(self._reports)
                _lead_outputs(outputs)
                _run_call(line, self._registry, self._settings, mother)
            self._calls.add(pid)
        for descriptor in outputs:
            os.close(descriptor)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            if pid in self._calls:
                self._calls.discard(pid)
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)
                os.write(self._reports, f"{pid} {status}\n".encode())
        for orphan in _children() - self._calls:
            with contextlib.suppress(ProcessLookupError):
                os.kill(orphan, signal.SIGKILL)


def _lead_outputs(outputs: list[int]) -> None:
    """In the fork: what it writes goes to the worker; flowd's own log where it went before."""
    keep_stderr()
    with contextlib.suppress(Exception):
        # Its lines are heard as they come.
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    for number, descriptor in enumerate(outputs, start=1):
        os.dup2(descriptor, number)
        os.close(descriptor)


def _children() -> set[int]:
    text = Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="utf-8")
    return {int(pid) for pid in text.split()}


def _run_call(line: socket.socket, registry: Registry, settings: Settings, mother: int) -> None:
    """In the fork: one call, and the end of the process."""
    exit_code = os.EX_SOFTWARE
    try:
        os.setsid()
        _die_with(mother)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        line.sendall(framed(str(os.getpid()).encode()))
        if request := receive_frame(line):
            line.sendall(framed(_answer(line, registry, settings, **pickle.loads(request))))
        exit_code = os.EX_OK
    except BaseException:  # noqa: BLE001 - nothing of the fork may come back into the parent
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            # A handler may have closed it.
            with contextlib.suppress(Exception):
                stream.flush()
        os._exit(exit_code)


def _answer(
    line: socket.socket,
    registry: Registry,
    settings: Settings,
    *,
    name: str,
    config: dict[str, Any],
    context: dict[str, Any],
    secrets: list[str],
) -> bytes:
    for secret in secrets:
        REDACTOR.learn(secret)
    store = open_store(settings)
    resources = Resources(store.budgets, store.executions)
    try:
        given = _IsolatedContext(line, settings=settings, resources=resources, **context)
        SPEAKER.set(given)
        output = _call(registry.load(name), config, given)
    except BaseException as error:  # noqa: BLE001 - a handler may raise anything
        return _error(error)
    try:
        text = b'{"output":%b}' % exact_json.dumps(output)
    except (TypeError, ValueError) as error:
        return _error(Fail(f"handler {name!r} returned what is not JSON: {error}"))
    if len(text) > OUTPUT_BYTES_MAX + 64:
        return _error(
            Fail(f"the output has {len(text)} bytes; at most {OUTPUT_BYTES_MAX} are kept")
        )
    return text


def _call(handler: Handler, config: dict[str, Any], context: Any) -> Any:
    result = handler.function(config, context)
    return asyncio.run(result) if asyncio.iscoroutine(result) else result


def _error(error: BaseException) -> bytes:
    failure = as_failure(error)
    waits_for = None
    if isinstance(failure, WaitFor):
        waits_for = (failure.waker, failure.due_ms, failure.text)
    record = {
        "code": failure.code,
        "text": str(failure),
        "after_s": getattr(failure, "after_s", None),
        "kinds": list(failure.kinds),
        "report": failure.report.decode(),
        "waits_for": waits_for,
    }
    return orjson.dumps({"error": record})


class _IsolatedContext(HandlerContext):
    """A context whose heartbeat and lines are heard by the worker."""

    def __init__(self, line: socket.socket, **facts: Any) -> None:
        super().__init__(**facts)
        self._line = line
        self._has_turn = threading.RLock()

    def heartbeat(self) -> None:
        super().heartbeat()
        self._send(b"heartbeat")

    def node_log(self) -> LineSink:
        return self

    def write(self, stream: str, text: str) -> None:
        # What was printed before comes first.
        with contextlib.suppress(Exception):
            sys.stdout.flush()
        data = text[:TEXT_CHARS_MAX].encode("utf-8", "backslashreplace")
        self._send(b"%b%b %b" % (LINE, stream.encode(), data))

    def feed(self, stream: str, text: str) -> str:
        self.write(stream, text.removesuffix("\n"))
        return text

    def _send(self, data: bytes) -> None:
        with self._has_turn:
            self._line.sendall(framed(data))


if __name__ == "__main__":
    main()
