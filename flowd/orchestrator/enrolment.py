"""The other workers of this Redis: which handlers they know, and whether that is what ours do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby, islice
from typing import Final

from flowd.handlers.registry import built_in_registry
from flowd.orchestrator.owner import Machine, Owner
from flowd.store import Store

# There may be many machines.
_TOLD_MAX: Final = 3


async def enrolled(store: Store) -> dict[str, Owner]:
    """Who each enrolled worker is, by consumer; left out are those that do not say it readably."""
    owners = {}
    for consumer, text in (await store.tasks.owners()).items():
        try:
            owners[consumer] = Owner.from_json(text)
        except (ValueError, TypeError):
            continue
    return owners


def who_knows(handler: str, queue: str, owners: Mapping[str, Owner]) -> str | None:
    """A consumer that reads this queue and says that it knows this handler."""
    return next(
        (
            consumer
            for consumer, owner in owners.items()
            if queue in owner.queues and handler in (owner.handlers or ())
        ),
        None,
    )


def differing(own: Owner, owners: Mapping[str, Owner]) -> Iterator[str]:
    """Of each other flowd that takes nodes from the same queues and has other handlers, a sentence.

    Only the first worker of a flowd is told, as all would say the same. Those that have ended, and
    those that do not say what they know, do not count.
    """
    known = [one for one in owners.values() if one.handlers is not None]
    siblings = [one for one in known if _flowd(one) == _flowd(own)]
    if any(one.pid < own.pid and one.handlers == own.handlers for one in siblings):
        return
    others = [
        one
        for one in known
        if _flowd(one) != _flowd(own)
        and _added(one) != _added(own)
        and not {*one.queues}.isdisjoint(own.queues)
        and not (one.machine == own.machine and one.is_gone())
    ]
    others.sort(key=lambda one: (_flowd(one), one.since_ms))
    for _, workers in islice(groupby(others, _flowd), _TOLD_MAX):
        yield _difference(own, list(workers))


def _difference(own: Owner, workers: Sequence[Owner]) -> str:
    first, count = workers[0], len(workers)
    since = datetime.fromtimestamp(first.since_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    here, there = _added(own), _added(first)
    differences = [
        text.format(", ".join(map(repr, sorted(names))))
        for text, names in (
            ("does not know {}", here - there),
            ("knows {}, which this one does not", there - here),
        )
        if names
    ]
    return (
        f"another flowd (process {first.parent_pid} on {first.host}, since {since}, "
        f"{count} {'worker' if count == 1 else 'workers'}) takes nodes from the same Redis and "
        f"{' and '.join(differences)}; give one of the two a redis.port or redis.url of its own, "
        "or both the same handlers"
    )


def _flowd(owner: Owner) -> tuple[Machine, int]:
    """Equal for the workers of one supervisor."""
    return owner.machine, owner.parent_pid


def _added(owner: Owner) -> frozenset[str]:
    """Its handlers beyond those of flowd."""
    # Another version of flowd may come with others.
    return frozenset(owner.handlers or ()).difference(built_in_registry().names())
