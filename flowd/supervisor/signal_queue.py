"""Signals as a queue: a handler only wakes the loop, which takes them when it has time."""

from __future__ import annotations

import faulthandler
import os
import selectors
import signal
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from flowd.supervisor.child import SIGNALS, TERMINAL_SIGNALS
from flowd.supervisor.stacks import dump_on_signal


class SignalQueue:
    """Every signal the supervisor knows, while `catching` is entered."""

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self._selector = selector
        self._waiting: deque[signal.Signals] = deque()
        self._wakeup = os.pipe()
        for end in self._wakeup:
            os.set_blocking(end, False)
        self._had_terminal = _has_terminal()
        # As nohup(1) starts a program: it is to outlive its terminal.
        self._outlives_terminal = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def take(self) -> signal.Signals | None:
        """The oldest. A SIGHUP because the terminal is gone comes as SIGTERM, or as None to who was
        started to outlive it."""
        number = self._waiting.popleft()
        if number is signal.SIGHUP and self._had_terminal and not _has_terminal():
            self._had_terminal = False
            return None if self._outlives_terminal else signal.SIGTERM
        return number

    @contextmanager
    def hearing_all(self) -> Iterator[None]:
        """While the loop waits. Elsewhere those that a terminal sends for what is written to it are
        blocked: their handler would have the write tried again, and sent again, for ever."""
        signal.pthread_sigmask(signal.SIG_UNBLOCK, TERMINAL_SIGNALS)
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_BLOCK, TERMINAL_SIGNALS)

    @contextmanager
    def catching(self) -> Iterator[None]:
        self._selector.register(
            self._wakeup[0], selectors.EVENT_READ, lambda: os.read(self._wakeup[0], 512)
        )
        held = signal.pthread_sigmask(signal.SIG_BLOCK, TERMINAL_SIGNALS)
        before = {number: signal.signal(number, self._enqueue) for number in SIGNALS}
        fd_before = signal.set_wakeup_fd(self._wakeup[1], warn_on_full_buffer=False)
        dump_on_signal(chain=True)
        try:
            yield
        finally:
            faulthandler.unregister(signal.SIGUSR2)
            signal.set_wakeup_fd(fd_before)
            for number, handler in before.items():
                signal.signal(number, handler)
            signal.pthread_sigmask(signal.SIG_SETMASK, held)
            self.close_in_child()

    def close_in_child(self) -> None:
        for end in self._wakeup:
            os.close(end)

    def _enqueue(self, number: int, _frame: object) -> None:
        self._waiting.append(signal.Signals(number))


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True
