"""`flowd run FILE --local`: a flowd for one run, of which nothing is left."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from flowd.cli.private_flowd import clean_environment
from tests.daemon import PATIENCE_S
from tests.manual import blocks

OWN = """\
import os
from flowd.handlers import handler

@handler("where")
def where(config: dict) -> dict:
    return {"folder": os.getcwd(), "secret": config["secret"]}
"""
USES_OWN = """\
name: own
dag:
  nodes:
    - {id: A, handler: where, config: {secret: {$secret: word}}}
"""
ASKS = "name: asks\ndag: {nodes: [{id: ok, handler: signal}]}\n"
SLOW = "name: slow\ndag: {nodes: [{id: A, handler: delay, config: {seconds: 1000}}]}\n"
FAILS = """\
name: fails
dag: {nodes: [{id: A, handler: unreliable_handler, config: {failure_rate: 1}}]}
"""
# Nothing of this may be used: it would speak to another flowd's Redis, or to nobody.
TOML = """\
[api]
socket = "nowhere/api.sock"
[redis]
mode = "external"
url = "redis://127.0.0.1:1/0"
[workers]
count = 0
[log]
file = "flowd.log"
[secrets]
bound = ["word=*"]
[handlers]
modules = ["own_of_a_local_run"]
"""


def names_in(folder: Path) -> list[str]:
    return [one.name for one in folder.iterdir()]


class Folder:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.temporary = path / "tmp"
        self.temporary.mkdir()
        self.environ = clean_environment() | {"TMPDIR": str(self.temporary)}

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "flowd.cli.main", "run", "--local", *arguments],
            cwd=self.path,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str) -> tuple[int, str, str]:
        process = self.start(*arguments)
        output, errors = process.communicate(timeout=PATIENCE_S)
        return process.returncode, output, errors

    def left(self) -> list[str]:
        """Files of it, and processes that know of its folder."""
        processes = []
        for one in Path("/proc").glob("[0-9]*/environ"):
            try:
                text = one.read_bytes()
            except OSError:
                continue
            if str(self.temporary).encode() in text:
                processes.append(one.parent.name)
        return [*names_in(self.temporary), *processes]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_own_handlers_run_with_the_settings_beside_the_file(folder: Folder) -> None:
    (folder.path / "flowd.toml").write_text(TOML.replace('bound = ["word=*"]\n', ""))
    (folder.path / "own_of_a_local_run.py").write_text(OWN)
    (folder.path / "own.yaml").write_text(USES_OWN)
    folder.environ["FLOWD_SECRET_word"] = "hush"
    before = names_in(folder.path)

    code, output, errors = folder.run("own.yaml")

    assert code == 0, errors
    assert json.loads(output)["A"]["folder"] == str(folder.path)
    assert f"its settings: {folder.path / 'flowd.toml'}" in errors
    assert set(names_in(folder.path)) - {"__pycache__"} == set(before)
    assert folder.left() == []


def test_the_exit_code_says_how_it_ended(folder: Folder) -> None:
    (folder.path / "fails.yaml").write_text(FAILS)
    (folder.path / "slow.yaml").write_text(SLOW)

    code, output, errors = folder.run("fails.yaml", "-o", "json")
    assert (code, json.loads(output)["status"]) == (1, "FAILED")
    assert "its settings: the defaults, there is no flowd.toml" in errors
    code, _, errors = folder.run("slow.yaml", "--timeout", "0.5")
    assert code == 124
    assert "flowd watch" not in errors
    assert folder.left() == []


def test_the_callback_is_not_called_and_that_is_said(folder: Folder) -> None:
    """Whether it was depended on who was quicker, the call or the end of its flowd."""
    with socket.create_server(("127.0.0.1", 0)) as receiver:
        url = f"http://127.0.0.1:{receiver.getsockname()[1]}/"
        dag = {"nodes": [{"id": "A", "handler": "noop"}]}
        tells = {"name": "tells", "callback": {"url": url}, "dag": dag}
        (folder.path / "tells.json").write_text(json.dumps(tells))

        code, _, errors = folder.run("tells.json")

        assert (code, "the callback of the workflow is not called" in errors) == (0, True)
        receiver.setblocking(False)
        with pytest.raises(BlockingIOError):
            receiver.accept()


def test_the_run_of_its_own_that_is_shown(folder: Folder) -> None:
    (report,) = blocks("Workflows from the command line", "yaml")
    (folder.path / "report.yaml").write_text(report)
    (line,) = blocks("A run of its own", "console")
    arguments = line.replace("--local ", "").split()
    assert arguments[:3] == ["$", "flowd", "run"]

    code, output, errors = folder.run(*arguments[3:])

    assert code == 0, errors
    assert "Greet Ada" in output


def test_what_is_wrong_is_said_before_anything_starts(folder: Folder) -> None:
    (folder.path / "wrong.yaml").write_text(FAILS.replace("unreliable", "unrelaible"))

    code, _, errors = folder.run("wrong.yaml")

    assert code == 1
    assert errors.startswith("wrong.yaml:2: node 'A': handler: unknown handler")
    assert "starting" not in errors


def test_what_it_asks_is_answered_as_it_says(folder: Folder) -> None:
    """Nobody knew where: its port is any, and was not told."""
    (folder.path / "asks.yaml").write_text(ASKS)
    with folder.start("asks.yaml") as process:
        assert process.stderr is not None and process.stdout is not None
        said = ""
        while not said.startswith("answer what it asks with `flowd "):
            said = process.stderr.readline()
            assert said, "it has ended"
        command = said.split("`")[1].replace("NODE", "ok").split()
        answered = subprocess.run(
            [sys.executable, "-m", "flowd.cli.main", *command[1:]],
            env=folder.environ,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S,
        )
        assert answered.returncode == 0, answered.stderr
        output, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, errors
    assert json.loads(output)["ok"]["data"] == {"approved": True}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_it_and_leaves_nothing(folder: Folder, number: int, code: int) -> None:
    (folder.path / "slow.yaml").write_text(SLOW)
    process = folder.start("slow.yaml")
    assert process.stderr is not None
    while "WAITING" not in process.stderr.readline():
        assert process.poll() is None

    process.send_signal(number)

    process.communicate(timeout=PATIENCE_S)
    assert process.returncode == code
    assert folder.left() == []


CHILD = """\
name: leaf
dag: {nodes: [{id: A, handler: transform, config: {input: "{{ input.x }}", expression: "@"}}]}
output: "{{ A.result }}"
---
name: at_night
cron: "0 2 * * *"
workflow: leaf
"""
PARENT = """\
name: parent
dag: {nodes: [{id: call, handler: workflow, config: {name: leaf, input: {x: "{{ input.x }}"}}}]}
output: {twice: ["{{ call.output }}", "{{ call.output }}"]}
"""


def test_a_parent_runs_with_the_definitions_that_are_given_beside_it(folder: Folder) -> None:
    (folder.path / "parent.yaml").write_text(PARENT)
    children = folder.path / "children"
    children.mkdir()
    (children / "leaf.yaml").write_text(CHILD)

    code, output, errors = folder.run(
        "parent.yaml", "--with", str(children), "--input", "x=word", "-o", "json"
    )

    assert code == 0, errors
    assert json.loads(output)["output"] == {"twice": ["word", "word"]}
    assert folder.left() == []


def test_what_is_given_beside_it_and_cannot_be_read_ends_it(folder: Folder) -> None:
    (folder.path / "parent.yaml").write_text(PARENT)
    (folder.path / "leaf.yaml").write_text("name: [")

    code, _, errors = folder.run("parent.yaml", "--with", "leaf.yaml")

    assert code == 1
    assert "leaf.yaml" in errors
    assert folder.left() == []
