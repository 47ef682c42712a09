"""Watch one child: whether its event loop turns, and what it uses of the machine."""

from __future__ import annotations

import os
from pathlib import Path

from flowd.proc_stat import read_stat
from flowd.pulse import Vitals

LOOK_EVERY_S = 1.0
# A look that comes much later than it should was held up itself, as by a suspended machine: the
# time in between says nothing about the child.
_LATE = 2

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_MIB = 1024 * 1024


class Watch:
    """From the child's fork to its end."""

    def __init__(self, pid: int, vitals: Vitals, now: float) -> None:
        self._pid = pid
        self._vitals = vitals
        self._looked_at = now
        self._beat = vitals.last_beat
        self._cpu_s = 0.0
        self.silent_s = 0.0
        # What it used when it became ready, before it did any work.
        self.own_weight_mb = 0.0
        self.cpu_percent = 0.0
        self.memory_mb = 0.0

    @property
    def has_beaten(self) -> bool:
        """Whether its event loop has ever turned; before that it imports what it needs."""
        return self._vitals.last_beat != 0

    @property
    def in_flight(self) -> int:
        return self._vitals.in_flight

    @property
    def done(self) -> int:
        return self._vitals.done

    @property
    def stuck(self) -> int:
        return self._vitals.stuck

    @property
    def stalled_s(self) -> int:
        return self._vitals.stalled_s

    @property
    def suspects(self) -> tuple[str, ...]:
        return self._vitals.suspects

    def redis_overdue_s(self, now: float) -> float | None:
        """For how long it should have had an answer from Redis; None when it expects none."""
        due = self._vitals.answer_due
        return max(0.0, now - due / 1e9) if due else None

    def look(self, now: float, every_s: float) -> None:
        """Take note of the beat and of the use; called about `every_s`. `now` is monotonic."""
        passed_s, self._looked_at = now - self._looked_at, now
        beat = self._vitals.last_beat
        if beat == self._beat:
            self.silent_s += min(passed_s, _LATE * every_s)
        else:
            self._beat, self.silent_s = beat, 0.0
        self._measure(passed_s)

    def _measure(self, passed_s: float) -> None:
        fields = self._fields()
        if not fields:
            return
        cpu_s = (int(fields[11]) + int(fields[12])) / _TICKS_PER_S
        if passed_s > 0:
            self.cpu_percent = 100 * (cpu_s - self._cpu_s) / passed_s
        self._cpu_s = cpu_s
        self.memory_mb = int(fields[21]) * _PAGE_BYTES / _MIB

    def weigh(self) -> None:
        """Take note of what it uses now, when it is ready and has not begun."""
        if fields := self._fields():
            self.own_weight_mb = int(fields[21]) * _PAGE_BYTES / _MIB

    def _fields(self) -> list[str]:
        """Those of /proc/<pid>/stat: 14, 15 and 24 of proc(5), which are the CPU ticks and the
        resident pages, are 11, 12 and 21 here. Empty when there is no such process.
        """
        try:
            return read_stat(self._pid)
        except OSError:
            return []

    def own_memory_mb(self) -> float | None:
        """Its share of what it holds together with its siblings (PSS), None when not readable.

        Slower to read than the rest: only for who asks.
        """
        try:
            text = Path(f"/proc/{self._pid}/smaps_rollup").read_text(encoding="utf-8")
        except OSError:
            return None
        for line in text.splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
        return None
