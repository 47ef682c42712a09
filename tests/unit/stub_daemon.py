"""A daemon with roles made for tests: `python -m tests.unit.stub_daemon FOLDER ROLE...`.

A role is `name:kind:behaviour`, the behaviour one of the functions below.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from flowd import pulse
from flowd.cli.exit_codes import exit_code_of
from flowd.errors import CrashLoop, InvalidSettings, Problem
from flowd.log import set_up_log
from flowd.pulse import Pulse
from flowd.supervisor.child import Role, RoleKind
from flowd.supervisor.lineup import Lineup
from flowd.supervisor.supervisor import Hooks, Supervisor

GRACE_S = 10.0
# The entry whose handler makes the loop of `beat` stand still.
SUSPECT = "7-1"


def serve(_folder: Path, pulse: Pulse) -> None:
    """Work until SIGTERM, as a real role does."""
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM,))
    pulse.ready()
    signal.sigwait((signal.SIGTERM,))


def stubborn(_folder: Path, pulse: Pulse) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    pulse.note_work(3, 0)
    pulse.ready()
    while True:
        signal.pause()


def die_soon(_folder: Path, pulse: Pulse) -> None:
    pulse.ready()
    time.sleep(0.1)
    sys.exit(7)


def leave_quietly(_folder: Path, pulse: Pulse) -> None:
    pulse.ready()
    os._exit(0)


def break_down(_folder: Path, _pulse: Pulse) -> None:
    raise RuntimeError("no such module: the reason to be seen")


def hang(_folder: Path, _pulse: Pulse) -> None:
    while True:
        signal.pause()


def breed(folder: Path, pulse: Pulse) -> None:
    """A handler's own child, which would outlive the worker."""
    process = subprocess.Popen(["sleep", "1000"])
    (folder / "grandchild").write_text(str(process.pid))
    serve(folder, pulse)


def need_a_file(folder: Path, pulse: Pulse) -> None:
    """Becomes ready once the folder holds `allowed`, at the first try or never."""
    while not (folder / "allowed").exists():
        time.sleep(0.01)
    serve(folder, pulse)


def write_order(folder: Path, pulse: Pulse) -> None:
    """Says in the file `order` when it was asked to stop."""
    serve(folder, pulse)
    with (folder / "order").open("a") as file:
        file.write(f"{os.getpid()}\n")


def busy(_folder: Path, pulse: Pulse) -> None:
    """Uses a tenth of a processor, and has done one node."""
    pulse.note_work(0, 1)
    pulse.ready()
    while True:
        until = time.process_time() + 0.01
        while time.process_time() < until:
            pass
        time.sleep(0.1)


def beat(folder: Path, pulse: Pulse) -> None:
    """An event loop as the real roles have it; it stands still once the folder holds `freeze`.

    The file `done` says how many more nodes it has done, `ballast_mb` how much memory to take,
    `stalled_s` for how long it has asked for no work.
    """

    def look() -> None:
        if (folder / "freeze").exists():
            pulse.enter(SUSPECT)
            (folder / "frozen").write_text(str(os.getpid()))
            time.sleep(1000)
        if done := take_number(folder / "done"):
            pulse.note_work(3, done)
        if stalled_s := take_number(folder / "stalled_s"):
            pulse.note_stalled(stalled_s)
        if ballast_mb := take_number(folder / "ballast_mb"):
            ballast.append(b"x" * (ballast_mb * 2**20))
        loop.call_later(0.01, look)

    ballast: list[bytes] = []
    loop = asyncio.new_event_loop()
    loop.add_signal_handler(signal.SIGTERM, loop.stop)
    pulse.beat_on(loop)
    pulse.ready()
    look()
    loop.run_forever()


def end_late(folder: Path, pulse: Pulse) -> None:
    """As `beat`, and what it runs when it is asked to end takes until the folder holds `ended`,
    or until the grace period is over, where it is told to mind that."""
    beat(folder, pulse)
    while pulse.is_patient and not (folder / "ended").exists():
        time.sleep(0.01)


def take_number(path: Path) -> int:
    """The number in a file, which goes with it; 0 while there is none, or is being written."""
    text = path.read_text() if path.exists() else ""
    if text:
        path.unlink()
    return int(text or 0)


def import_long(folder: Path, pulse: Pulse) -> None:
    """Its event loop begins late, as with handlers that load a model."""
    time.sleep(2.5)
    beat(folder, pulse)


BEHAVIOURS = {
    one.__name__: one
    for one in (
        serve,
        beat,
        end_late,
        import_long,
        busy,
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
    if kind != RoleKind.SERVER:
        limit_s = {"hang": 0.3, "import_long": 20.0}.get(behaviour)
        return Role(
            name,
            RoleKind(kind),
            partial(act, folder),
            start_limit_s=limit_s,
            has_pulse=act in (beat, end_late, import_long),
        )
    # Another program cannot call `ready`; the supervisor has to ask.
    is_ready = (folder / "server_is_up").exists
    return Role(name, RoleKind.SERVER, lambda _: act(folder, Pulse()), is_ready, tries_max=1)


def record_recovery(
    folder: Path, pid: int, cause: str, is_blamed: bool, suspects: Sequence[str], _hung_s: float
) -> None:
    with (folder / "recovered").open("a") as file:
        file.write(json.dumps([pid, cause, is_blamed, *suspects]) + "\n")


def newcomer(folder: Path) -> str:
    """How one behaves that is hired by `scale`."""
    return "break_down" if (folder / "newcomers_break_down").exists() else "serve"


def build_lineup(folder: Path, roles: Sequence[str]) -> Lineup:
    return Lineup(
        [build_role(folder, text) for text in roles],
        grace_s=float(os.environ.get("STUB_GRACE_S", str(GRACE_S))),
        worker=lambda name: build_role(folder, f"{name}:worker:{newcomer(folder)}"),
        hung_after_s=float(os.environ.get("STUB_HUNG_AFTER_S", "0")),
        tasks_max=int(os.environ.get("STUB_TASKS_MAX", "0")),
        memory_max_mb=int(os.environ.get("STUB_MEMORY_MAX_MB", "0")),
    )


def reload(folder: Path) -> Lineup:
    """The file `roles` says what is to run from now on."""
    roles = (folder / "roles").read_text().split()
    if not roles:
        raise InvalidSettings([Problem("roles", "bad_value", "nothing would run")])
    lineup = build_lineup(folder, roles)
    trial = TRIALS.get((folder / "trial").read_text()) if (folder / "trial").exists() else None
    return replace(lineup, trial=trial, set_up=(folder / "set_up").touch)


def refuse() -> None:
    raise InvalidSettings([Problem("handlers", "bad_value", "no such module")])


TRIALS = {
    "refuse": refuse,
    "leave": lambda: os._exit(0),
    "pass": lambda: None,
    "hang": signal.pause,
}


def main() -> None:
    folder = Path(sys.argv[1])
    # So that one who waits for a core is not taken for one who hangs, however soon that counts.
    constants: Any = pulse
    constants.BEAT_EVERY_S = 0.1
    set_up_log(process="supervisor")
    supervisor = Supervisor(
        build_lineup(folder, sys.argv[2:]),
        data_dir=folder,
        hooks=Hooks(
            reload=lambda: reload(folder),
            recover=partial(record_recovery, folder),
            announce=lambda: print("announced", flush=True),
        ),
    )
    try:
        supervisor.run()
    except CrashLoop as error:
        print(error, file=sys.stderr)
        sys.exit(exit_code_of(error))


if __name__ == "__main__":
    main()
