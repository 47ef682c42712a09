"""Other systems, in the same run: Huey, and BullMQ where there is node, on a server of their own.

`--peers` installs them into a folder of the bench's, once. Each has two worker processes and runs
what W1, W2, W3 and W5 run, with a handler that does nothing and a result that is kept. Like is
compared with like: whoever waits is told when the last result is stored, not from within its
handler; of a single node, which is given to all of them in one call without HTTP, the result is
read.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

from scripts.benchmark.bench import Bench
from scripts.benchmark.processes import Void
from scripts.benchmark.sizes import Sizes
from scripts.redis_server import RedisServer

FOLDER: Final = Path(__file__).parents[3] / ".peers"
_HERE: Final = Path(__file__).parent
_HUEY: Final = ("huey==3.5.4", "redis==8.1.0")
_BULLMQ: Final = ("bullmq@6.7.0", "ioredis@5")
_INSTALL_LIMIT_S: Final = 300
# Each figure is that of flowd with this id.
FIGURES: Final = ("W1", "W2", "W3", "W5 run")


@dataclass(frozen=True, slots=True)
class Peer:
    """`install` puts it into its folder; `command` runs its program there."""

    name: str
    install: Callable[[Path], list[str]]
    command: tuple[str, ...]
    variable: str
    library: str
    # How many processes make up two workers: some fork theirs.
    processes: int = 1

    @property
    def folder(self) -> Path:
        return FOLDER / self.name.lower()

    @property
    def is_installed(self) -> bool:
        return (self.folder / "installed").exists()

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {self.variable: str(self.folder / self.library)}


def _pip(folder: Path) -> list[str]:
    return [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(folder), *_HUEY]


def _npm(folder: Path) -> list[str]:
    return ["npm", "install", "--silent", "--no-fund", "--prefix", str(folder), *_BULLMQ]


PEERS: Final = (
    Peer("Huey", _pip, (sys.executable, str(_HERE / "huey_program.py")), "PYTHONPATH", "."),
    Peer(
        "BullMQ",
        _npm,
        ("node", str(_HERE / "bullmq_program.js")),
        "NODE_PATH",
        "node_modules",
        processes=2,
    ),
)


def install(peer: Peer) -> str:
    """Why it is left out; empty when it is there."""
    if peer.is_installed:
        return ""
    peer.folder.mkdir(parents=True, exist_ok=True)
    command = peer.install(peer.folder)
    if shutil.which(command[0]) is None or shutil.which(peer.command[0]) is None:
        return f"there is no {Path(peer.command[0]).name} here"
    try:
        run = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=_INSTALL_LIMIT_S
        )
    except subprocess.TimeoutExpired:
        return f"installing it took more than {_INSTALL_LIMIT_S} s"
    if run.returncode:
        return f"installing it failed: {(run.stderr or run.stdout).strip()[-300:]}"
    (peer.folder / "installed").touch()
    return ""


class _Driver:
    """A running peer: takes an order, and says how many seconds it took."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def seconds(self, workload: str, size: int) -> float:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{workload} {size}\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise Void("the program of a peer ended")
        return float(answer)


@contextmanager
def _running(peer: Peer, folder: Path) -> Iterator[_Driver]:
    folder.mkdir()
    server = RedisServer(folder)
    with ExitStack() as open_ones:
        server.start()
        open_ones.callback(server.kill)

        def program(role: str, **options: Any) -> subprocess.Popen[str]:
            process = subprocess.Popen(
                [*peer.command, role, server.socket_path],
                env=peer.environment,
                text=True,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                **options,
            )
            open_ones.callback(_end, process)
            return process

        for _ in range(peer.processes):
            program("work", stdout=subprocess.DEVNULL)
        yield _Driver(program("drive", stdin=subprocess.PIPE, stdout=subprocess.PIPE))


def _end(process: subprocess.Popen[str]) -> None:
    """With the workers it has forked, which are of its session."""
    if process.poll() is None:
        os.killpg(process.pid, 9)
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


def measure(peer: Peer, bench: Bench, repetitions: int) -> dict[str, float]:
    """The median of each figure. Raises Void."""
    with _running(peer, bench.folder / f"peer-{peer.name}") as driver:
        _repetition(driver, bench.sizes, share=0.1)
        taken = [_repetition(driver, bench.sizes) for _ in range(repetitions)]
    return {one: median(each[one] for each in taken) for one in FIGURES}


def _repetition(driver: _Driver, sizes: Sizes, share: float = 1.0) -> dict[str, float]:
    def part(size: int) -> int:
        return max(1, int(share * size))

    singles = [driver.seconds("single", 1) for _ in range(part(sizes.singles))]
    diamonds = part(sizes.diamonds)
    return {
        "W1": driver.seconds("chain", sizes.chain) * 1000 / sizes.chain,
        "W2": (sizes.fan + 2) / driver.seconds("fan", sizes.fan),
        "W3": 4 * diamonds / driver.seconds("diamonds", diamonds),
        "W5 run": median(singles) * 1000,
    }


def table(flowd: dict[str, float], measured: dict[str, dict[str, float] | str]) -> str:
    """Beside flowd's own figures of the same run; a text says why a peer is left out."""
    heads = ("W1 ms/hop", "W2 nodes/s", "W3 nodes/s", "W5 run ms")
    rows: list[Sequence[str]] = [("", *heads), ("flowd", *_cells(flowd))]
    notes = []
    for name, found in measured.items():
        if isinstance(found, str):
            notes.append(f"{name} is left out: {found}")
        else:
            rows.append((name, *_cells(found)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.rjust(width) for cell, width in zip(one, widths, strict=True))
        for one in rows
    ]
    return "\n".join(["", *lines, *notes])


def _cells(figures: dict[str, float]) -> list[str]:
    return [f"{figures[one]:,.3g}" if one in figures else "–" for one in FIGURES]


def measure_all(bench: Bench, repetitions: int) -> dict[str, dict[str, float] | str]:
    measured: dict[str, dict[str, float] | str] = {}
    for peer in PEERS:
        reason = install(peer)
        try:
            print(f"{peer.name} ", end="", file=sys.stderr, flush=True)
            measured[peer.name] = reason or measure(peer, bench, repetitions)
        except (Void, OSError) as error:
            measured[peer.name] = str(error)
        print(time.strftime("%H:%M:%S"), file=sys.stderr)
    return measured
