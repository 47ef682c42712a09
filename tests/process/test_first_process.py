"""The first process of a container passes signals on, reaps what nobody else does, and ends as its
command does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from tests.daemon import PATIENCE_S

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may make a PID namespace")

PROGRAM = """
import os, signal, subprocess, sys, time
from flowd.cli.first_process import leave_first_place

assert os.getpid() == 1
leave_first_place()
assert os.getppid() == 1

def processes():
    # Those too that are dead and not reaped.
    return [name for name in os.listdir("/proc") if name.isdigit()]

for _ in range(5):
    # Its shell ends at once: what it has started becomes the first process's.
    subprocess.run(["sh", "-c", "sleep 0.1 & exit 0"], check=True)
while len(processes()) > 2:
    time.sleep(0.01)
"""


def run(more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*("unshare", "--pid", "--fork", "--mount-proc"), sys.executable, "-c", PROGRAM + more],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ("sys.exit(0)", 0),
        ("sys.exit(70)", 70),
        # Without a handler it would not even reach the first process.
        ("os.kill(1, signal.SIGTERM); time.sleep(600)", 128 + signal.SIGTERM),
        ("os.kill(os.getpid(), signal.SIGKILL)", 128 + signal.SIGKILL),
    ],
)
def test_the_dead_are_reaped_and_it_ends_as_its_command_does(end: str, code: int) -> None:
    ended = run(end)

    assert ended.returncode == code, ended.stderr


def test_what_it_is_told_its_command_is_told() -> None:
    ended = run(
        """
# Held back until it is waited for: it may be told before it waits.
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
os.kill(1, signal.SIGUSR1)
print(signal.sigwait({signal.SIGUSR1}).name)
"""
    )

    assert (ended.stdout, ended.returncode) == ("SIGUSR1\n", 0), ended.stderr
