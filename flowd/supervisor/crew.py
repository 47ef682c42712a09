"""The crew: every post of the daemon, and the start, the signals and the end of its children."""

from __future__ import annotations

import selectors
import signal
import time
from collections.abc import Callable, Iterable
from functools import partial

from flowd.log import get_logger
from flowd.supervisor.child import Child, Kind, Role, describe_exit, end_orphans, reap_orphans
from flowd.supervisor.groups import Groups, groups_below
from flowd.supervisor.post import Post, State
from flowd.supervisor.stacks import DUMP_S

log = get_logger(__name__)

# A fork fails when the machine is out of memory or processes: another try costs little.
FORK_RETRY_S = 1.0


class Crew:
    """`on_end(post, pid, code)` hears of each child that has ended, before its post is changed.

    `close_in_child` runs in every forked child, on its copy of the supervisor's memory.
    """

    def __init__(
        self,
        roles: Iterable[Role],
        selector: selectors.BaseSelector,
        *,
        close_in_child: Callable[[Kind], None],
        on_end: Callable[[Post, int, int], None],
    ) -> None:
        self.posts = [Post(role) for role in roles]
        self._selector = selector
        self._close_in_child = close_in_child
        self._on_end = on_end
        self._groups = Groups()
        # When the stacks that were asked for are written.
        self.stacks_due_at: float | None = None

    def of(self, *kinds: Kind) -> list[Post]:
        return [post for post in self.posts if post.role.kind in kinds]

    def staying(self, *kinds: Kind) -> list[Post]:
        return [post for post in self.of(*kinds) if not post.is_leaving]

    def is_empty(self) -> bool:
        return not any(post.child for post in self.posts)

    def add(self, role: Role, *, behind: Post | None = None) -> Post:
        """A post without a child, in its place in the list that `flowd status` shows."""
        post = Post(role)
        same_kind = [index for index, one in enumerate(self.posts) if one.role.kind is role.kind]
        index = self.posts.index(behind) if behind else (same_kind or [len(self.posts) - 1])[-1]
        self.posts.insert(index + 1, post)
        return post

    def remove(self, post: Post) -> None:
        """Forget a post that has no child."""
        self.posts.remove(post)

    def start(self, post: Post) -> None:
        """Fork its child; when that cannot be done it is tried again."""
        try:
            child = Child(post.role, self._groups, partial(self._leave_to_child, post.role.kind))
        except OSError as error:
            log.error("child.unforked", child=post.role.name, error=str(error))
            post.state, post.due_at = State.BACKOFF, time.monotonic() + FORK_RETRY_S
            return
        post.fill(child, time.monotonic())
        self._selector.register(child.pidfd, selectors.EVENT_READ, partial(self._reap, post))
        self._selector.register(child.ready_fd, selectors.EVENT_READ, partial(self._hear, post))
        self._note_groups()
        log.debug("child.started", child=post.role.name, pid=child.pid)

    def become_ready(self, post: Post) -> None:
        if post.state is State.STARTING and post.child:
            post.become_ready(time.monotonic())
            log.info("child.ready", child=post.role.name, pid=post.child.pid)

    def ask_to_stop(self, post: Post, kill_at: float | None) -> None:
        """SIGTERM now; SIGKILL when it is still there at `kill_at`, never for None. Once, but one
        that had all the time it needs may be given an end after all."""
        is_hurried = post.is_patient and kill_at is not None
        if post.child and (post.state is not State.STOPPING or is_hurried):
            post.begin_stop(kill_at)
            post.child.vitals.be_patient(post.is_patient)
            post.child.send(signal.SIGTERM)

    def dismiss(self, post: Post, kill_at: float | None) -> None:
        """Let its child finish, and give up the post."""
        post.is_leaving = True
        if post.child:
            self.ask_to_stop(post, kill_at)
        else:
            self.remove(post)

    def forward(self, number: signal.Signals) -> None:
        """Pass a signal on to every child that is flowd: the server is another program."""
        for post in self.posts:
            if post.child and post.role.kind is not Kind.SERVER:
                post.child.send(number)

    def dump_stacks(self, now: float) -> None:
        """Have every child that is flowd write its stacks, for `show_stacks`."""
        self.forward(signal.SIGUSR2)
        self.stacks_due_at = now + DUMP_S

    def show_stacks(self, now: float) -> None:
        if self.stacks_due_at is not None and now >= self.stacks_due_at:
            self.stacks_due_at = None
            for post in self.posts:
                post.show_stacks()

    def end_all(self, server_patience_s: float) -> None:
        """Leave nothing behind: the server may finish, everybody else is killed."""
        for post in self.posts:
            if post.child and post.role.kind is not Kind.SERVER:
                post.child.end(patience_s=0.0)
        for post in self.of(Kind.SERVER):
            if post.child:
                post.child.end(patience_s=server_patience_s)

    def look(self, now: float, every_s: float) -> None:
        """Take note of how each child is; called about `every_s`."""
        for post in self.posts:
            if post.watch:
                post.watch.look(now, every_s)
            if post.role.look_after and post.state is State.RUNNING:
                post.role.look_after()
        reap_orphans(self._pids())
        self._note_groups()

    def _note_groups(self) -> None:
        workers = (post.child.pid for post in self.of(Kind.WORKER) if post.child)
        self._groups.write(group for pid in workers for group in groups_below(pid))

    def _pids(self) -> list[int]:
        return [post.child.pid for post in self.posts if post.child]

    def _leave_to_child(self, kind: Kind) -> None:
        for post in self.posts:
            if post.child:
                post.child.close()
        self._close_in_child(kind)

    def _hear(self, post: Post) -> None:
        assert post.child is not None
        self._selector.unregister(post.child.ready_fd)
        if post.child.take_report():
            self.become_ready(post)

    def _reap(self, post: Post) -> None:
        child = post.child
        assert child is not None
        if child.ready_fd in self._selector.get_map():
            self._hear(post)
        self._selector.unregister(child.pidfd)
        code = child.reap()
        if post.role.kind is Kind.WORKER:
            end_orphans(self._pids())
        post.last_exit = describe_exit(code)
        if post.hung_s is not None:
            post.last_exit = f"was hung for {post.hung_s:.0f} s and {post.last_exit}"
        self._on_end(post, child.pid, code)
