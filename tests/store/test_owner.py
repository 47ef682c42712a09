"""Who runs a node: a process that cannot be mistaken for another."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys

import pytest

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


@pytest.mark.parametrize("text", ["", "nonsense", "[]", "1", '"x"', "{}", '{"host":"h"}', "null"])
def test_what_is_not_an_owner_is_refused(text):
    with pytest.raises((ValueError, TypeError)):
        Owner.from_json(text)
