"""What a node makes of how its dependencies ended: whether it runs, is skipped, or fails.

What has arrived at a node is one number that the scripts count up: 1 for each dependency that has
ended, `SKIPPED` for one that was skipped, `FAILED` for one that failed; all of them together exact
for 100,000 dependencies. A dependency that failed and may do so arrives as a completed one.
"""

from __future__ import annotations

from functools import cached_property
from typing import Final, Literal

from flowd.errors import DependencyFailed, Fail, SkipNode, TemplateError
from flowd.workflow.conditions import Condition, MalformedCondition, Read, Scope

_COUNT: Final = 2**17
SKIPPED: Final = 1 + _COUNT
FAILED: Final = 1 + _COUNT * _COUNT

After = Literal["completed", "failed", "ended"]


class Choice:
    """When a node runs: after what, and under which condition. Whether it `looks` at what has
    arrived: not where all it can be opened by is that its dependencies have completed."""

    def __init__(
        self, after: After, when: str | None, dependencies: int, *, looks: bool = True
    ) -> None:
        self.after = after
        self.looks = looks
        self._when = when
        self._dependencies = dependencies

    @property
    def has_condition(self) -> bool:
        return self._when is not None

    @cached_property
    def condition(self) -> Condition | None:
        """Raises MalformedCondition, which no definition does that went through the API."""
        return None if self._when is None else Condition(self._when)

    @property
    def reads(self) -> tuple[Read, ...]:
        """What the condition looks up; nothing where it is malformed."""
        try:
            return self.condition.reads if self.condition else ()
        except MalformedCondition:
            return ()

    def check_arrivals(self, arrived: int) -> None:
        """Raises SkipNode or DependencyFailed unless the dependencies, all ended, let it run."""
        skipped = arrived // _COUNT % _COUNT
        failed = arrived // _COUNT // _COUNT
        if self._dependencies == 0 or self.after == "ended":
            return
        if self.after == "failed":
            if not failed:
                raise SkipNode("none of its dependencies failed, and it runs after a failure")
        elif failed:
            raise DependencyFailed("not run: a dependency failed, and it runs after completed ones")
        elif skipped == self._dependencies:
            raise SkipNode("all of its dependencies were skipped")

    def check_condition(self, scope: Scope) -> None:
        """Raises SkipNode where the condition is false, Fail where it cannot be decided."""
        try:
            if self.condition is None or self.condition.decide(scope):
                return
        except TemplateError as error:
            raise Fail(f"when: {error}") from None
        raise SkipNode(f"its condition is false: {self._when}")
