"""When a child that ended is started again, and when flowd gives up on it. Pure.

A child that never became ready has something wrong with it that another try seldom mends. One that
was ready and died met bad luck or a bad node: it comes back at once, then ever more slowly.
"""

from __future__ import annotations

from dataclasses import dataclass

from flowd.backoff import pause_after

TRIES_MAX = 3
# Three tries of ten seconds and the pauses between them stay close to half a minute.
START_LIMIT_S = 9.0
RETRY_PAUSE_S = 0.5
BACKOFF_FIRST_S = 0.1
BACKOFF_MAX_S = 30.0
# Ready for this long, a child has shown that it works: its earlier deaths are forgotten.
HEALTHY_AFTER_S = 10.0


@dataclass(frozen=True, slots=True)
class History:
    """What is remembered of one child's earlier lives."""

    was_ever_ready: bool = False
    failed_starts: int = 0
    deaths_in_a_row: int = 0


def after_death(
    history: History,
    *,
    ready_for_s: float | None,
    jitter: float,
    tries_max: int = TRIES_MAX,
) -> tuple[History, float | None]:
    """The new history, and the seconds until the next start; None means give up.

    `ready_for_s` is None when this life never became ready. `jitter` is a number from 0 to 1 and
    takes up to half of a pause away, so that children which died together do not return together.
    """
    if ready_for_s is None and not history.was_ever_ready:
        failed_starts = history.failed_starts + 1
        pause_s = RETRY_PAUSE_S * failed_starts if failed_starts < tries_max else None
        return History(failed_starts=failed_starts), pause_s
    is_healthy = ready_for_s is not None and ready_for_s >= HEALTHY_AFTER_S
    deaths = 1 if is_healthy else history.deaths_in_a_row + 1
    # A child that was ready once is never given up: what it needs may come back.
    return History(was_ever_ready=True, deaths_in_a_row=deaths), _backoff_s(deaths, jitter)


def _backoff_s(deaths: int, jitter: float) -> float:
    if deaths == 1:
        return 0.0
    pause_s = pause_after(deaths - 1, first_s=BACKOFF_FIRST_S, longest_s=BACKOFF_MAX_S)
    return pause_s * (1 - jitter / 2)
