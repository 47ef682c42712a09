"""Collect everything that is wrong with one workflow, within bounds."""

from __future__ import annotations

from collections.abc import Iterable

from flowd.errors import Problem

PROBLEMS_MAX = 100
VALUE_CHARS_SHOWN_MAX = 64


class Report:
    """Keeps the first PROBLEMS_MAX problems and counts the rest."""

    def __init__(self) -> None:
        self._listed: list[Problem] = []
        self._unlisted = 0

    def add(self, path: str, code: str, message: str) -> None:
        if len(self._listed) < PROBLEMS_MAX:
            self._listed.append(Problem(path, code, message))
        else:
            self._unlisted += 1

    def extend(self, problems: Iterable[Problem]) -> None:
        for problem in problems:
            self.add(problem.path, problem.code, problem.message)

    def problems(self) -> list[Problem]:
        """All of them; the last one says how many are not listed."""
        if not self._unlisted:
            return list(self._listed)
        more = Problem("", "more_problems", f"and {self._unlisted:,} more problems")
        return [*self._listed, more]


def quote(text: str | None) -> str:
    """A value of any length, fit for a message."""
    return repr(shorten(text or ""))


def shorten(text: str) -> str:
    return text if len(text) <= VALUE_CHARS_SHOWN_MAX else text[:VALUE_CHARS_SHOWN_MAX] + "…"
