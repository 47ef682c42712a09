"""Replace children one by one, and nobody notices: the new one is ready before the old one goes.

One change at a time, hence never more than one process above the number that was asked for.
A successor that does not become ready ends the roll, and the old child goes on.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from flowd.log import get_logger
from flowd.supervisor.child import Role
from flowd.supervisor.crew import Crew
from flowd.supervisor.post import Post, State

log = get_logger(__name__)


class _Change(NamedTuple):
    post: Post
    role: Role
    reason: str
    # Whether the old child has all the time it needs, as long as nobody else waits for his turn.
    is_patient: bool


class Roll:
    """`go_on` does what is due and nothing twice; it may be called at any time."""

    def __init__(self, crew: Crew) -> None:
        self._crew = crew
        self._waiting: deque[_Change] = deque()
        self._change: _Change | None = None
        self._successor: Post | None = None
        # Why the last roll was broken off; None when it was not.
        self.failure: str | None = None

    @property
    def names(self) -> list[str]:
        """Whose turn it is, and who still waits."""
        current = [] if self._change is None else [self._change]
        return [change.role.name for change in [*current, *self._waiting]]

    def is_over(self) -> bool:
        return self._change is None and not self._waiting

    def add(self, post: Post, role: Role, reason: str, *, is_patient: bool = False) -> None:
        """Give this post a child of that role. A change that waits for the same post is dropped."""
        if self.is_over():
            self.failure = None
        self._waiting = deque(one for one in self._waiting if one.post is not post)
        self._waiting.append(_Change(post, role, reason, is_patient))

    def go_on(self, kill_at: float) -> None:
        """Take the next step; an old child that is asked to end now has until `kill_at`."""
        if self._change is None:
            self._begin_next()
        elif self._successor and self._successor.state is State.RUNNING:
            post, is_patient = self._change.post, self._change.is_patient and not self._waiting
            if post not in self._crew.posts:
                self._end()
            elif not post.is_leaving or (post.is_patient and not is_patient):
                self._crew.dismiss(post, None if is_patient else kill_at)

    def has_lost(self, post: Post) -> bool:
        """Told of each child that ended; True when the post is gone and nobody follows it.

        The old child has its successor already. A successor that was not ready yet had nothing to
        follow up: the old child stays, and so do those that waited for their turn.
        """
        change, successor = self._change, self._successor
        if change is None or successor is None or post not in (change.post, successor):
            return False
        if post is change.post:
            if successor.state is not State.RUNNING:
                # It died too soon: its post is the successor's now, for better or worse.
                successor.history = post.history
            return True
        if post.ready_at is not None or change.post not in self._crew.posts:
            self._change = self._successor = None
            return False
        self.failure = f"a new {post.role.name} did not become ready and {post.last_exit}"
        log.error("roll.failed", child=post.role.name, reason=post.last_exit)
        self._change = self._successor = None
        self._waiting.clear()
        return True

    def _begin_next(self) -> None:
        while self._waiting and self._change is None:
            change = self._waiting.popleft()
            if change.post not in self._crew.posts or change.post.is_leaving:
                continue
            if change.post.child is None:
                change.post.role = change.role
                if change.post.state is State.FATAL:
                    change.post.forgive()
                continue
            log.info("roll.began", child=change.role.name, reason=change.reason)
            self._change = change
            successor = self._successor = self._crew.add(change.role, behind=change.post)
            successor.restarts = change.post.restarts
            successor.last_exit = f"was replaced: {change.reason}"
            self._crew.start(successor)

    def _end(self) -> None:
        assert self._change is not None
        self._change = self._successor = None
