"""The log file and its rotation, with as many writers as there are; what a full disk costs."""

from __future__ import annotations

import json
import os
import resource
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flowd.log_output import LogFile
from tests.daemon import PATIENCE_S


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "flowd.log"


@pytest.fixture
def open_file(path: Path) -> Iterator[Callable[..., LogFile]]:
    opened = []

    def open_file(*, max_bytes: int = 0, max_age_s: float = 0, keep: int = 9) -> LogFile:
        file = LogFile(path, max_bytes=max_bytes, max_age_s=max_age_s, keep=keep)
        file.reopen()
        opened.append(file)
        return file

    yield open_file
    for file in opened:
        file.close()


def names(path: Path) -> list[str]:
    return sorted(one.name for one in path.parent.iterdir())


def old(path: Path, number: int = 1) -> Path:
    return path.with_name(f"{path.name}.{number}")


def test_a_file_of_the_size_is_put_aside_before_the_next_line(
    open_file: Callable[..., LogFile], path: Path
) -> None:
    file = open_file(max_bytes=10)

    for line in (b"one 4567890\n", b"two\n", b"three 67890\n", b"four\n"):
        assert file.write(line)

    assert old(path, 2).read_bytes() == b"one 4567890\n"
    assert old(path, 1).read_bytes() == b"two\nthree 67890\n"
    assert path.read_bytes() == b"four\n"


@pytest.mark.parametrize(
    ("keep", "kept"), [(0, []), (1, ["flowd.log.1"]), (2, ["flowd.log.1", "flowd.log.2"])]
)
def test_no_more_than_so_many_old_files_are_kept(
    open_file: Callable[..., LogFile], path: Path, keep: int, kept: list[str]
) -> None:
    file = open_file(max_bytes=1, keep=keep)

    for number in range(5):
        file.write(b"%d\n" % number)

    assert names(path) == ["flowd.log", *kept]
    assert path.read_bytes() == b"4\n"


def test_the_age_of_a_file_is_that_of_its_first_line_whoever_wrote_it(
    open_file: Callable[..., LogFile], path: Path
) -> None:
    two_days_ago = (datetime.now(UTC) - timedelta(days=2)).isoformat()[:23] + "Z"
    path.write_text(json.dumps({"time": two_days_ago, "event": "node.completed"}) + "\n")

    open_file(max_age_s=3 * 86400).write(b"young enough\n")
    assert names(path) == ["flowd.log"]
    open_file(max_age_s=86400).write(b"new\n")

    assert path.read_bytes() == b"new\n"
    assert old(path).read_text().endswith("young enough\n")


def test_without_limits_nothing_is_put_aside(open_file: Callable[..., LogFile], path: Path) -> None:
    path.write_text('{"time": "2001-01-01T00:00:00.000Z"}\n')

    open_file().write(b"new\n")

    assert names(path) == ["flowd.log"]


def test_a_moved_file_is_noticed_with_the_next_line(
    open_file: Callable[..., LogFile], path: Path
) -> None:
    file = open_file()
    file.write(b"one\n")

    path.rename(old(path))
    file.write(b"two\n")

    assert (old(path).read_bytes(), path.read_bytes()) == (b"one\n", b"two\n")


WRITER = """
import sys
from pathlib import Path
from flowd.log_output import LogFile
file = LogFile(Path(sys.argv[1]), max_bytes=20_000, max_age_s=0, keep=1000)
print(flush=True), sys.stdin.read(1)
for number in range(2000):
    assert file.write(f"{sys.argv[2]} {number} {'x' * 80}\\n".encode())
"""


def test_many_writers_rotate_one_file_and_lose_no_line(path: Path) -> None:
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, path, str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for number in range(4)
    ]
    for writer in writers:
        assert writer.stdout is not None
        writer.stdout.read(1)
    for writer in writers:
        writer.communicate(b"x", timeout=PATIENCE_S)
        assert writer.returncode == 0

    found: dict[int, list[int]] = {number: [] for number in range(4)}
    files = sorted(path.parent.iterdir(), key=lambda one: -int("0" + one.suffix[1:].strip("log")))
    for file in files:
        # A line more for each writer that looked just before it was full.
        assert file.stat().st_size < 20_000 + 5 * 100
        for line in file.read_text().splitlines():
            writer_number, number, text = line.split()
            assert text == "x" * 80
            found[int(writer_number)].append(int(number))
    assert len(files) > 20
    assert {number: sorted(lines) for number, lines in found.items()} == {
        number: list(range(2000)) for number in range(4)
    }


def test_threads_of_one_process_lose_no_line_either(
    open_file: Callable[..., LogFile], path: Path
) -> None:
    file = open_file(max_bytes=2_000, keep=1000)

    def write(name: int) -> None:
        for number in range(500):
            assert file.write(f"{name} {number} {'x' * 20}\n".encode())

    threads = [threading.Thread(target=write, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    lines = [line for one in path.parent.iterdir() for line in one.read_text().splitlines()]
    assert len(names(path)) > 3
    assert len(lines) == len(set(lines)) == 2000


def run_logging(code: str, **streams: object) -> subprocess.CompletedProcess[bytes]:
    program = f"from flowd.log import *\nfrom pathlib import Path\nlog = get_logger('x')\n{code}"
    command = [sys.executable, "-c", program]
    return subprocess.run(command, stderr=subprocess.PIPE, timeout=PATIENCE_S, **streams)  # type: ignore[call-overload, no-any-return]


def events_in(text: bytes) -> list[str]:
    return [json.loads(line)["event"] for line in text.splitlines()]


def test_with_a_file_stderr_gets_errors_only(path: Path) -> None:
    run = run_logging(
        f"set_up_log(file=Path({str(path)!r}))\nlog.info('node.completed')\nlog.error('role.failed')"
    )

    assert events_in(path.read_bytes()) == ["node.completed", "role.failed"]
    assert events_in(run.stderr) == ["role.failed"]


def test_a_file_that_cannot_be_opened_is_named_and_stderr_used_until_it_can(path: Path) -> None:
    path.mkdir()
    run = run_logging(
        f"path = Path({str(path)!r})\n"
        "set_up_log(file=path)\nlog.info('node.completed')\n"
        "path.rmdir()\nlog.info('node.failed')"
    )

    assert events_in(run.stderr) == ["log.unopened", "node.completed"]
    assert b"Is a directory" in run.stderr
    assert events_in(path.read_bytes()) == ["node.failed"]


def test_the_folder_of_the_file_is_made(tmp_path: Path) -> None:
    path = tmp_path / "log" / "flowd" / "flowd.log"
    run_logging(f"set_up_log(file=Path({str(path)!r}))\nlog.info('node.completed')")

    assert events_in(path.read_bytes()) == ["node.completed"]


def test_a_full_disk_sends_lines_to_stderr_and_the_file_goes_on_when_there_is_room(
    path: Path,
) -> None:
    run = run_logging(
        "import resource\n"
        f"path = Path({str(path)!r})\n"
        "set_up_log(file=path)\n"
        "for number in range(20): log.info('node.completed', number=number, text='x' * 40)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)\n"
        "log.info('node.failed')",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, -1)),
    )

    assert run.returncode == 0
    *whole, torn, last = path.read_bytes().splitlines()
    numbers = [json.loads(line)["number"] for line in (*whole, *run.stderr.splitlines())]
    # The line that found half of its room stands in both.
    assert numbers == list(range(20))
    assert not torn.endswith(b"}")
    assert json.loads(last)["event"] == "node.failed"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", disk]
    try:
        allowed = subprocess.run(mount, capture_output=True).returncode == 0
    except OSError:
        allowed = False
    if not allowed:
        pytest.skip("this user may not mount a small disk")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


def test_rotation_on_a_full_disk_ends_nobody_and_recovers(small_disk: Path) -> None:
    (small_disk / "ballast").write_bytes(b"x" * 40_000)
    path = small_disk / "flowd.log"
    run = run_logging(
        f"path = Path({str(path)!r})\n"
        "set_up_log(file=path, max_mb=0.005, keep=100)\n"
        "for number in range(500): log.info('node.completed', number=number, text='x' * 40)\n"
        "(path.parent / 'ballast').unlink()\n"
        "log.info('node.failed')",
    )

    assert run.returncode == 0
    assert 100 < len(run.stderr.splitlines()) < 500
    assert path.read_bytes().endswith(b'"event":"node.failed"}\n')


def test_lines_nobody_took_are_counted(path: Path) -> None:
    program = (
        "import os\nfrom flowd.log import *\nset_up_log()\nlog = get_logger('x')\n"
        "for _ in range(3): log.info('node.completed')\n"
        f"os.dup2(os.open({str(path)!r}, os.O_WRONLY | os.O_CREAT), 2)\n"
        "log.info('node.failed')"
    )
    with Path("/dev/full").open("wb") as full:
        subprocess.run([sys.executable, "-c", program], stderr=full, check=True)

    dropped, failed = (json.loads(line) for line in path.read_text().splitlines())
    assert (dropped["event"], dropped["level"], dropped["lines"]) == ("log.dropped", "warning", 3)
    assert failed["event"] == "node.failed"


def test_a_journal_reads_the_priority_of_each_line() -> None:
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as lines:
        found = os.fstat(writer)
        program = (
            "from flowd.log import *\nset_up_log(level='debug')\nlog = get_logger('x')\n"
            "log.debug('a.b'), log.info('a.b'), log.warning('a.b'), log.error('a.b')"
        )
        subprocess.run(
            [sys.executable, "-c", program],
            stderr=writer,
            env={**os.environ, "JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"},
            check=True,
        )
        os.close(writer)
        assert [line[:4] for line in lines] == [b"<7>{", b"<6>{", b"<4>{", b"<3>{"]


def test_a_stderr_that_is_not_the_journal_s_gets_no_priority() -> None:
    """JOURNAL_STREAM is inherited by what a service starts with another stderr."""
    os.environ["JOURNAL_STREAM"] = "1:2"
    try:
        run = run_logging("set_up_log()\nlog.info('node.completed')")
    finally:
        del os.environ["JOURNAL_STREAM"]

    assert run.stderr.startswith(b"{")


FLOOD = (
    "from flowd.log import *\nset_up_log()\nlog = get_logger('x')\n"
    "for _ in range(10_000): log.info('node.completed', text='x' * 500)"
)


def test_a_stopped_terminal_makes_nobody_wait() -> None:
    ours, theirs = os.openpty()
    try:
        process = subprocess.Popen([sys.executable, "-c", FLOOD], stderr=theirs)
        # Nobody reads `ours`: the same as Ctrl-S.
        assert process.wait(PATIENCE_S) == 0
    finally:
        os.close(ours)
        os.close(theirs)


def test_a_journal_that_does_not_read_makes_nobody_wait() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = subprocess.Popen([sys.executable, "-c", FLOOD], stderr=theirs)
        assert process.wait(PATIENCE_S) == 0


def test_setting_up_again_leaks_no_descriptor(path: Path) -> None:
    run = run_logging(
        "import os\n"
        f"path = Path({str(path)!r})\n"
        "set_up_log(file=path)\nbefore = len(os.listdir('/proc/self/fd'))\n"
        "for _ in range(10): set_up_log(file=path), reopen_log()\n"
        "print(len(os.listdir('/proc/self/fd')) - before)",
        stdout=subprocess.PIPE,
    )

    assert run.stdout == b"0\n"
