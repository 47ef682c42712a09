"""A flowd of one's own: whoever has started it can end it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from flowd.cli.private_flowd import PrivateFlowd
from tests.daemon import wait_until


def test_to_look_whether_it_has_ended_takes_no_lock_that_an_interrupt_could_leave_taken(
    tmp_path: Path,
) -> None:
    flowd = PrivateFlowd(tmp_path, ("sleep", "600"))
    flowd.start()
    with flowd.process._waitpid_lock:  # type: ignore[attr-defined]
        assert not flowd.has_ended
        os.kill(flowd.process.pid, signal.SIGKILL)
        wait_until(lambda: flowd.has_ended, "its end is seen")

    assert flowd.stop() == -signal.SIGKILL
