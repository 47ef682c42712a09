"""How things are said: lists, numbers and spans of time, as people say them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from flowd.store.troubles import Trouble
from flowd.suggestions import did_you_mean, nearest

NAMES_SHOWN_MAX: Final = 10
NO_WORKER: Final = "no worker is alive: `flowd start` runs some, `flowd scale 2` where flowd runs"
NO_SCHEDULER: Final = "no scheduler is alive: `flowd start` runs one, `flowd status` shows it"
STORE_FULL: Final = (
    "redis is at its memory limit and refuses what would start an execution: raise its "
    "`maxmemory`, or delete old executions with `flowd act delete`"
)
TROUBLES: Final = {
    "stream_missing": "the task stream is gone from Redis",
    "group_missing": "the consumer group of the task stream is gone",
    "stream_corrupt": "the key of the task stream holds something else",
}


def sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def listed(names: Sequence[str]) -> str:
    """`A`, `A and B`, `A, B and C`; the first few of many."""
    shown = list(names[:NAMES_SHOWN_MAX])
    if hidden := len(names) - len(shown):
        shown.append(f"{hidden:,} more")
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def ahead(count: int) -> str:
    if count == 0:
        return "no entry is"
    return "1 entry is" if count == 1 else f"{count:,} entries are"


def span(ms: int) -> str:
    """A length of time as people say it: `0.4 s`, `12 s`, `3 min 5 s`, `2 h 10 min`."""
    seconds = max(0, ms) / 1000
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def trouble_text(trouble: Trouble) -> str:
    verb, _, *node_id = trouble.what.split(" ")
    what = " ".join([verb, *node_id]).rstrip()
    return f"`{what}` was begun and cannot be carried on: {trouble.reason}; it is tried again"


def stall_text(stalled: Trouble) -> str:
    return f"the worker {stalled.what} {stalled.reason}; `flowd start` replaces it"


def unread_text(queues: Sequence[str], read: Iterable[str]) -> str:
    """`read` are those that workers do read."""
    named, them = listed([repr(one) for one in queues]), "it" if len(queues) == 1 else "them"
    meant = [nearest(one, read) for one in queues]
    hint = f" (did you mean {listed([repr(one) for one in meant if one])}?)" if any(meant) else ""
    return (
        f"no worker that is alive reads the queue {named}{hint}: add {them} to the `queues` of "
        "`[workers]`, or of a group of them, and `flowd reload`"
    )


def unmade_text(names: Iterable[str], made: Iterable[str]) -> str:
    """A sentence on each of these limits, which nobody has made."""
    return "".join(
        f" Nobody has made the limit {one!r}, which holds nothing back"
        + (did_you_mean(one, made) or ".")
        for one in names
    )


def where_more_is(execution_id: str, first: str, is_map: bool, count: int) -> str:
    """Where the other failures are listed, of `count` in all, and those of items."""
    path, text = f"/workflows/{execution_id}/nodes", ""
    if is_map:
        text = f" GET {path}/{first}/items?state=FAILED lists its items that did."
    return text + (f" GET {path} lists all that did." if count > 1 else "")


def corrupt_text(execution_id: str, node_id: str) -> str:
    key = f"workflow:{execution_id}:node:{node_id}"
    return f"the key {key!r} is gone, or holds something flowd did not write"
