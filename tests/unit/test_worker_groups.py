"""Groups of workers: what the settings say of them, and which processes that makes."""

from __future__ import annotations

import socket

import pytest

from flowd.config.loading import load_settings
from flowd.errors import InvalidSettings
from flowd.supervisor.roles import build_lineup
from flowd.workflow.queues import queues_in

FILE = """
[workers]
count = 2

[workers.groups.gpu]
count = 1
queues = ["gpu", "default"]
"""


def test_the_workers_of_a_group_are_called_after_it_and_read_its_queues(tmp_path) -> None:
    path = tmp_path / "flowd.toml"
    path.write_text(FILE)
    settings = load_settings(path, environ={})
    with socket.socket() as listener:
        lineup = build_lineup(settings, listener, None)

    workers = {role.name: role for role in lineup.roles if role.kind == "worker"}
    assert list(workers) == ["worker-1", "worker-2", "gpu-1"]
    read = {name: role.run.args[0].workers.queues for name, role in workers.items()}
    assert read == {
        "worker-1": ("default",),
        "worker-2": ("default",),
        "gpu-1": ("gpu", "default"),
    }
    # As `flowd status` says it.
    assert {name: role.queues for name, role in workers.items()} == read
    assert lineup.groups == ["gpu"]
    assert lineup.worker("gpu-7").run.args[0].workers.queues == ("gpu", "default")


@pytest.mark.parametrize(
    "said",
    [
        "[workers.groups]\ngpu = 3",
        "[workers.groups.worker]\ncount = 1\nqueues = ['a']",
        "[workers.groups.gpu]\ncount = 1",
        "[workers.groups.gpu]\ncount = -1\nqueues = ['a']",
        "[workers.groups.gpu]\ncount = 1\nqueues = []",
        "[workers.groups.GPU]\ncount = 1\nqueues = ['a']",
        "[workers]\nqueues = ['a', 'a']",
    ],
)
def test_rubbish_is_refused(tmp_path, said) -> None:
    path = tmp_path / "flowd.toml"
    path.write_text(said)
    with pytest.raises(InvalidSettings, match="workers"):
        load_settings(path, environ={})


def test_a_run_of_its_own_reads_every_queue_that_its_definition_names() -> None:
    nodes = b'[{"id": "a", "queue": "gpu"}, {"id": "b"}]'
    last = b'[{"id": "c", "queue": "low"}]'
    document = b'{"queue": "x", "dag": {"nodes": ' + nodes + b', "finally": ' + last + b"}}"
    assert queues_in(document) == {"x", "gpu", "low"}
    for rubbish in (b"", b"[]", b"{}", b'{"dag": 1}', b'{"dag": {"nodes": [1]}}'):
        assert queues_in(rubbish) == set()
