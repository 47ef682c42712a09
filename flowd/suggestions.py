"""Find what somebody probably meant by a name that does not exist."""

from __future__ import annotations

from collections.abc import Iterable


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The name that looks most like it, if one does; some 20 µs for each of `names`."""
    import difflib  # Not at the top: a command that misses no name does not pay for it.

    close = difflib.get_close_matches(name, sorted(names), n=1)
    return close[0] if close else None


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """`; did you mean 'fetch'?`, to be put behind a sentence, or nothing."""
    near = nearest(name, names)
    return f"; did you mean {near!r}?" if near else ""
