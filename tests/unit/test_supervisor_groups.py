"""The process groups that end with the supervisor."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import psutil
import pytest

from flowd.supervisor.groups import Groups, groups_below
from tests.daemon import wait_until


@pytest.fixture
def tree() -> Iterator[psutil.Process]:
    """A shell with a child in its own group, and one that has made itself a session."""
    program = "sleep 1000 & setsid sleep 1000 & wait"
    process = subprocess.Popen(["/bin/sh", "-c", program], start_new_session=True)
    found = psutil.Process(process.pid)
    wait_until(lambda: len({os.getpgid(one.pid) for one in found.children()}) == 2, "two groups")
    known = found.children()
    yield found
    for one in [*known, found]:
        if one.is_running():
            one.kill()
    process.wait()


def test_the_groups_below_are_its_own_and_those_its_descendants_have_made(
    tree: psutil.Process,
) -> None:
    assert groups_below(tree.pid) == {os.getpgid(one.pid) for one in [tree, *tree.children()]}
    assert groups_below(2**22) == {2**22}


def test_what_was_written_last_is_read_in_another_process() -> None:
    groups = Groups()
    groups.write([11, 12, 13])
    groups.write([21, 22])

    pid = os.fork()
    if pid == 0:
        os._exit(0 if groups.read() == [21, 22] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_more_groups_than_there_is_room_for_are_cut_off() -> None:
    groups = Groups()
    groups.write(range(1, 100_000))

    assert groups.read() == list(range(1, 8192))
