"""Who runs a node: a process that cannot be mistaken for another."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

from flowd.orchestrator import owner as owner_module
from flowd.orchestrator.owner import Owner

PRINT_OWNER = """
import sys
from flowd.orchestrator.owner import Owner
sys.stdout.write(Owner.of_this_process().to_json().decode())
"""


def test_an_owner_survives_the_way_through_redis():
    owner = Owner.of_this_process()

    assert Owner.from_json(owner.to_json().decode()) == owner
    assert owner.pid == os.getpid()
    assert owner == Owner.of_this_process()


def test_two_processes_have_the_same_machine_and_nothing_else_in_common():
    text = subprocess.run(
        [sys.executable, "-c", PRINT_OWNER], capture_output=True, check=True, text=True
    ).stdout
    other, here = Owner.from_json(text), Owner.of_this_process()

    assert (other.host, other.boot_id) == (here.host, here.boot_id)
    assert other.pid != here.pid
    assert other.started_ticks > here.started_ticks


def test_a_name_of_a_process_may_hold_anything():
    """The start time stands behind the name, which may hold spaces and brackets."""
    rename = "from pathlib import Path; Path('/proc/self/comm').write_text('a) 1 (b 2')"
    text = subprocess.run(
        [sys.executable, "-c", f"{rename}\n{PRINT_OWNER}"],
        capture_output=True,
        check=True,
        text=True,
    ).stdout

    assert Owner.from_json(text).started_ticks > Owner.of_this_process().started_ticks


def test_every_life_of_every_process_is_a_consumer_of_its_own():
    owner = Owner("host", "boot", 42, 1000)
    names = [owner.consumer("w", 1), owner.consumer("w", 2), owner.consumer("v", 1)]
    for field, value in (("host", "h"), ("boot_id", "b"), ("pid", 43), ("started_ticks", 1001)):
        names.append(dataclasses.replace(owner, **{field: value}).consumer("w", 1))

    assert len(set(names)) == len(names)
    assert owner.consumer("w", 1) == Owner("host", "boot", 42, 1000).consumer("w", 1)
    assert names[0].startswith("w-")


def test_a_process_that_lives_is_not_gone_and_one_with_its_pid_and_another_start_is():
    owner = Owner.of_this_process()
    before = dataclasses.replace(owner, started_ticks=owner.started_ticks - 1)

    assert not owner.is_gone()
    assert before.machine == owner.machine
    assert before.is_gone()


def test_a_process_is_gone_when_it_has_ended_and_before_its_parent_has_taken_note():
    with subprocess.Popen(
        [sys.executable, "-c", f"{PRINT_OWNER}\nsys.stdout.flush()\nsys.stdin.read()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        owner = Owner.from_json(read_json(process.stdout))
        assert not owner.is_gone()
        process.stdin.close()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert owner.is_gone()
    assert owner.is_gone()


def test_a_process_that_proc_hides_is_not_gone(monkeypatch):
    """In the hardened unit the scheduler once took away what a worker of another user on the
    same machine held, every second."""
    there = Owner.of_this_process()
    with subprocess.Popen(["true"]) as process:
        ended = dataclasses.replace(there, pid=process.pid)
    monkeypatch.setattr(owner_module, "Path", lambda _: Path("/proc/hidden"))

    assert not there.is_gone()
    assert ended.is_gone()
    assert dataclasses.replace(there, pid=10**12).is_gone()


def read_json(pipe) -> str:
    """All of one JSON object, from a pipe that stays open behind it."""
    text = b""
    while not text.endswith(b"}"):
        text += pipe.read1()
    return text.decode()


@pytest.mark.parametrize("field", ["host", "boot_id", "pid_space"])
def test_a_process_of_another_machine_boot_or_container_is_not_of_this_machine(field):
    owner = Owner.of_this_process()
    assert dataclasses.replace(owner, **{field: "other"}).machine != owner.machine


@pytest.mark.parametrize("text", ["", "nonsense", "[]", "1", '"x"', "{}", '{"host":"h"}', "null"])
def test_what_is_not_an_owner_is_refused(text):
    with pytest.raises((ValueError, TypeError)):
        Owner.from_json(text)
