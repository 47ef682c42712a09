"""A daemon with roles made for tests: `python -m tests.unit.stub_daemon FOLDER ROLE...`.

A role is `name:kind:behaviour`, the behaviour one of the functions below.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from flowd.cli.exit_codes import exit_code_of
from flowd.errors import CrashLoop
from flowd.log import set_up_log
from flowd.supervisor.child import Kind, Role
from flowd.supervisor.supervisor import Supervisor

Ready = Callable[[], None]


def serve(_folder: Path, ready: Ready) -> None:
    """Work until SIGTERM, as a real role does."""
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM,))
    ready()
    signal.sigwait((signal.SIGTERM,))


def stubborn(_folder: Path, ready: Ready) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    ready()
    while True:
        signal.pause()


def die_soon(_folder: Path, ready: Ready) -> None:
    ready()
    time.sleep(0.1)
    sys.exit(7)


def leave_quietly(_folder: Path, ready: Ready) -> None:
    ready()
    os._exit(0)


def break_down(_folder: Path, _ready: Ready) -> None:
    raise RuntimeError("no such module: the reason to be seen")


def hang(_folder: Path, _ready: Ready) -> None:
    while True:
        signal.pause()


def breed(folder: Path, ready: Ready) -> None:
    """A handler's own child, which would outlive the worker."""
    process = subprocess.Popen(["sleep", "1000"])
    (folder / "grandchild").write_text(str(process.pid))
    serve(folder, ready)


def need_a_file(folder: Path, ready: Ready) -> None:
    """Becomes ready once the folder holds `allowed`, at the first try or never."""
    while not (folder / "allowed").exists():
        time.sleep(0.01)
    serve(folder, ready)


def write_order(folder: Path, ready: Ready) -> None:
    """Says in the file `order` when it was asked to stop."""
    serve(folder, ready)
    with (folder / "order").open("a") as file:
        file.write(f"{os.getpid()}\n")


BEHAVIOURS = {
    one.__name__: one
    for one in (
        serve,
        stubborn,
        die_soon,
        leave_quietly,
        break_down,
        hang,
        breed,
        need_a_file,
        write_order,
    )
}


def build_role(folder: Path, text: str) -> Role:
    name, kind, behaviour = text.split(":")
    act = BEHAVIOURS[behaviour]
    if kind != Kind.SERVER:
        limit_s = 0.3 if behaviour == "hang" else None
        return Role(name, Kind(kind), partial(act, folder), start_limit_s=limit_s)
    # Another program cannot call `ready`; the supervisor has to ask.
    is_ready = (folder / "server_is_up").exists
    return Role(name, Kind.SERVER, lambda _: act(folder, lambda: None), is_ready, tries_max=1)


def record_recovery(folder: Path, pid: int, cause: str, is_blamed: bool) -> None:
    with (folder / "recovered").open("a") as file:
        file.write(json.dumps([pid, cause, is_blamed]) + "\n")


def main() -> None:
    folder = Path(sys.argv[1])
    set_up_log(process="supervisor")
    supervisor = Supervisor(
        [build_role(folder, text) for text in sys.argv[2:]],
        data_dir=folder,
        grace_s=float(os.environ.get("STUB_GRACE_S", "10")),
        recover=partial(record_recovery, folder),
        announce=lambda: print("announced", flush=True),
    )
    try:
        supervisor.run()
    except CrashLoop as error:
        print(error, file=sys.stderr)
        sys.exit(exit_code_of(error))


if __name__ == "__main__":
    main()
