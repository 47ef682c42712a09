"""One flowd per data directory; the lock decides, not the pid in the file."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flowd.errors import AlreadyRunning, InvalidSettings, ServerFailed
from flowd.supervisor.lock import PID_FILE, DataDirLock, is_held

HOLDER = """
import sys
from pathlib import Path
from flowd.supervisor.lock import DataDirLock
lock = DataDirLock(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def holder_of(data_dir: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(data_dir)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def test_a_second_holder_is_refused_and_told_who_the_first_is(tmp_path: Path) -> None:
    with holder_of(tmp_path) as first:
        with pytest.raises(AlreadyRunning, match=rf"\(pid {first.pid}\)"):
            DataDirLock(tmp_path)
        assert is_held(tmp_path)


def test_looking_does_not_take_the_lock(tmp_path: Path) -> None:
    assert not is_held(tmp_path)
    DataDirLock(tmp_path).release()
    assert not is_held(tmp_path)
    with holder_of(tmp_path):
        assert is_held(tmp_path)


def test_a_killed_holder_leaves_nothing_to_clean_up(tmp_path: Path) -> None:
    with holder_of(tmp_path) as first:
        first.kill()
        first.wait()
        lock = DataDirLock(tmp_path)

        assert (tmp_path / PID_FILE).read_text() == f"{os.getpid()}\n"
        lock.release()


def test_p15_a_stale_pid_that_lives_again_as_another_program_is_ignored(tmp_path: Path) -> None:
    (tmp_path / PID_FILE).write_text(f"{os.getppid()}\n")

    DataDirLock(tmp_path).release()


def test_the_holder_is_named_by_the_kernel_when_the_file_lies(tmp_path: Path) -> None:
    with holder_of(tmp_path) as first:
        (tmp_path / PID_FILE).write_text("1\n")

        with pytest.raises(AlreadyRunning, match=rf"\(pid {first.pid}\)"):
            DataDirLock(tmp_path)


def test_the_data_dir_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    DataDirLock(tmp_path / "new" / "data").release()

    assert (tmp_path / "new" / "data").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "new" / "data" / PID_FILE).stat().st_mode & 0o777 == 0o600


def test_a_data_dir_that_cannot_be_made_is_a_setting_to_change(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(InvalidSettings, match="cannot be used: Not a directory"):
        DataDirLock(tmp_path / "file" / "data")


def test_a_full_disk_is_told_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", write)
    with pytest.raises(ServerFailed, match=f"cannot write {tmp_path}/{PID_FILE}: No space left"):
        DataDirLock(tmp_path)


def test_the_lock_notices_that_its_file_was_taken_away_or_replaced(tmp_path: Path) -> None:
    lock = DataDirLock(tmp_path)
    assert not lock.is_gone()

    (tmp_path / PID_FILE).rename(tmp_path / "elsewhere")
    assert lock.is_gone()
    (tmp_path / PID_FILE).touch()
    assert lock.is_gone()
