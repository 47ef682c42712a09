"""Every command against a real flowd: through a pipe, and on a terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from flowd import Client
from flowd.cli.main import main
from flowd.client import ApiError
from tests.daemon import PATIENCE_S, wait_until
from tests.process.faulty import FaultyFlowd
from tests.process.flowd_process import Flowd, clean_environ, node

ROOT = Path(__file__).parents[2]
GOOD = {"name": "good", "dag": {"nodes": [node("A"), node("B", "A")]}}
BAD = {"name": "bad", "dag": {"nodes": [node("A"), node("B", "A", handler="refuse")]}}
YAML = """
name: from-yaml
input: {who: you}
dag:
  nodes:
    - id: A
      handler: transform
      config:
        input: {who: "{{ input.who }}", n: "{{ input.n | default(0) }}"}
        expression: "{who: who, n: n}"
"""


@pytest.fixture(scope="module")
def flowd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyFlowd]:
    """One for all of them."""
    flowd = FaultyFlowd(tmp_path_factory.mktemp("cli"), ["start", "--workers", "1"])
    with flowd:
        flowd.wait_until_running()
        yield flowd


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    for name, workflow in (("good", GOOD), ("bad", BAD)):
        (folder / f"{name}.json").write_text(json.dumps(workflow))
    (folder / "some.yaml").write_text(YAML)
    (folder / "twice.yaml").write_text("name: a\nname: b\n")
    held = {"name": "held", "dag": {"nodes": [node("A", handler="delay", seconds=600)]}}
    (folder / "held.json").write_text(json.dumps(held))
    hourly = "workflow: report\ncron: 0 * * * *\ncallback: {url: 'http://x/y'}\n"
    (folder / "hourly.yaml").write_text(hourly)
    gates = [node(one, handler="signal", prompt=f"Open {one}?") for one in "ABC"]
    (folder / "asked.json").write_text(json.dumps({"name": "asked", "dag": {"nodes": gates}}))
    fan = node("fan") | {"map": {"over": "{{ input.rows }}"}}
    mapped = {"name": "mapped", "input": {"rows": ["a", "b", "c"]}, "dag": {"nodes": [fan]}}
    (folder / "mapped.json").write_text(json.dumps(mapped))
    over = {"map": {"over": "{{ input.rows }}", "max_failed": 1}}
    fan = node("fan", x="{{ item.x }}") | over
    mixed = {"name": "mixed", "input": {"rows": [{"x": 1}, {}]}, "dag": {"nodes": [fan, node("A")]}}
    (folder / "mixed.json").write_text(json.dumps(mixed))
    return folder


class Shell:
    """Runs commands as a user would who has set FLOWD_URL."""

    def __init__(self, flowd: FaultyFlowd, folder: Path) -> None:
        self.folder = self.files = folder
        self.config = flowd.folder / "flowd.toml"
        self.environ = {**clean_environ(), "FLOWD_URL": flowd.url, "COLUMNS": "120"}

    def _command(self, arguments: tuple[str, ...]) -> list[str]:
        return [sys.executable, "-m", "flowd.cli.main", *arguments]

    def ended(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self._command(arguments),
            input=stdin,
            cwd=self.folder,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )

    def pipe(self, *arguments: str, stdin: str = "", code: int = 0) -> str:
        ended = self.ended(*arguments, stdin=stdin)
        assert ended.returncode == code, ended.stdout + ended.stderr
        self.stderr = ended.stderr
        return ended.stdout

    def json(self, *arguments: str, stdin: str = "", code: int = 0) -> Any:
        return json.loads(self.pipe(*arguments, "-o", "json", stdin=stdin, code=code))

    def terminal(self, *arguments: str, code: int = 0) -> str:
        """What a person sees, without colours."""
        seen = self.raw_terminal(*arguments, code=code)
        return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", seen)

    def raw_terminal(self, *arguments: str, code: int = 0) -> str:
        controller, follower = pty.openpty()
        process = subprocess.Popen(
            self._command(arguments),
            cwd=self.folder,
            env={**self.environ, "TERM": "xterm-256color"},
            stdin=follower,
            stdout=follower,
            stderr=follower,
        )
        os.close(follower)
        seen = b""
        while chunk := _read(controller):
            seen += chunk
        os.close(controller)
        assert process.wait(PATIENCE_S) == code, seen
        return seen.decode()


def _read(controller: int) -> bytes:
    try:
        return os.read(controller, 65536)
    except OSError:
        return b""


@pytest.fixture
def shell(flowd: FaultyFlowd, files: Path) -> Shell:
    return Shell(flowd, files)


def test_commands_find_the_flowd_of_their_folder(shell: Shell, flowd: FaultyFlowd) -> None:
    """They asked port 8000, whatever flowd.toml, its port 0 or `status` said."""
    shell.folder = flowd.folder
    del shell.environ["FLOWD_URL"]

    assert isinstance(shell.json("ls"), list)


def test_validate_says_what_is_wrong_and_where(shell: Shell) -> None:
    shell.pipe("validate", "good.json")
    assert "valid workflow of 2 nodes" in shell.stderr
    shell.pipe("validate", "some.yaml")
    answer = shell.json("validate", "good.json")
    assert answer == {
        "valid": True,
        "nodes": 2,
        "files": [{"file": "good.json", "valid": True, "problems": []}],
    }
    shell.pipe("validate", "-", stdin='{"name": "x", "dag": {"nodes": []}}', code=1)
    assert "dag.nodes: a workflow needs at least one node" in shell.stderr
    shell.pipe("validate", "twice.yaml", code=1)
    assert "twice.yaml:2: " in shell.stderr
    assert "written more than once" in shell.stderr
    shell.pipe("validate", "nothing.json", code=1)
    assert "cannot read nothing.json" in shell.stderr


def test_a_limit_or_a_queue_that_nobody_has_yet_is_warned_of_with_the_nearest(shell: Shell) -> None:
    """It was said by none of them: the limit held nothing back, and the node waited for ever."""
    slips = [node("A") | {"limit": "licenze"}, node("B") | {"queue": "defualt", "limit": "else"}]
    (shell.folder / "slips.json").write_text(
        json.dumps({"name": "slips", "dag": {"nodes": slips}}, indent=1)
    )
    shell.pipe("limits", "put", "license", "--max", "1")
    nobody = "limit: nobody has made the limit"
    told = [
        f": node 'A': {nobody} 'licenze'; did you mean 'license'?",
        f": node 'B': {nobody} 'else'; until somebody does, it holds nothing back",
        ": node 'B': queue: no worker reads the queue 'defualt'; did you mean 'default'?",
    ]

    def warned() -> list[str]:
        lines = [one for one in shell.stderr.splitlines() if one.startswith("warning: ")]
        return sorted(re.sub(r"^warning: (slips|stdin)(\.json:\d+)?", "", one) for one in lines)

    for command in (
        ("validate", "slips.json", "--url", shell.environ["FLOWD_URL"]),
        ("apply", "slips.json", "--diff"),
        ("apply", "slips.json"),
        ("definitions", "put", "slips", "slips.json"),
        ("run", "slips.json", "--no-wait"),
        ("run", "slips", "--no-wait"),
        ("submit", "slips.json"),
    ):
        shell.pipe(*command)
        assert warned() == told, command
    assert re.search("warning: slips.json:[0-9]+: node 'A'", shell.stderr)
    started = shell.pipe("submit", "-", stdin=(shell.folder / "slips.json").read_text()).strip()
    assert warned() == told
    shell.pipe("trigger", started)
    said = shell.pipe("explain", started)
    assert "no worker that is alive reads the queue 'defualt' (did you mean 'default'?)" in said
    assert "Nobody has made the limit 'licenze', which holds nothing back; did you mean" in said
    shell.pipe("act", "cancel", "--name", "slips", "--yes")
    shell.pipe("limits", "rm", "license", "--yes")
    shell.pipe("definitions", "rm", "slips", "--yes")


def test_what_flowd_refuses_as_a_whole_is_said_with_its_file(shell: Shell) -> None:
    (shell.folder / "list.json").write_text("[]")
    new = {"name": "new", "dag": {"nodes": [node("A", handler="of_tomorrow")]}}
    (shell.folder / "new.json").write_text(json.dumps(new))
    for command in (["submit", "list.json"], ["definitions", "put", "x", "list.json"]):
        shell.pipe(*command, code=1)
        assert "list.json:1: expected an object, not an array" in shell.stderr
    shell.pipe("submit", "new.json", code=1)
    assert "there after `flowd reload`; the handlers are " in shell.stderr


def test_a_rerun_with_a_correction_says_node_by_node_what_becomes_of_it(shell: Shell) -> None:
    failed = shell.json("submit", "bad.json", "--wait", code=1)["execution_id"]
    files = {"fixed": node("B", "A"), "wrong": node("B", "A", handler="nop")}
    for name, second in files.items():
        document = {"name": "bad", "dag": {"nodes": [node("A"), second, node("C", "B")]}}
        (shell.folder / f"{name}.json").write_text(json.dumps(document, indent=1))

    preview = shell.pipe("rerun", failed, "--with", "fixed.json", "--preview")
    assert [line.split(maxsplit=2) for line in preview.splitlines()[1:]] == [
        ["B", "runs", "was FAILED, and its handler changed"],
        ["C", "runs", "new"],
        ["A", "is", "reused  unchanged, completed, and nothing it depends on runs again"],
    ]
    again = shell.pipe("rerun", failed, "--with", "fixed.json").strip()
    assert "B runs: was FAILED, and its handler changed\n" in shell.stderr
    assert "2 to run, 1 reused" in shell.stderr
    shell.pipe("watch", again)
    assert [one["id"] for one in shell.json("definition", again)["dag"]["nodes"]] == ["A", "B", "C"]
    answer = shell.json("rerun", again, "--with", "bad.json", "--preview")
    assert answer["removed"] == [{"node_id": "C", "why": "not in the corrected definition"}]
    assert "removed" not in shell.json("rerun", failed, "--preview")
    shell.pipe("rerun", failed, "--with", "wrong.json", code=1)
    assert re.search(r"wrong.json:\d+: node 'B': handler: unknown handler 'nop'", shell.stderr)
    shell.pipe("rerun", again, "--with", "fixed.json", code=1)
    assert "name the node to begin with" in shell.stderr


def test_submit_and_what_comes_of_it(shell: Shell) -> None:
    execution_id = shell.pipe("submit", "good.json").strip()
    assert f"start it with `flowd trigger {execution_id}`" in shell.stderr
    assert shell.json("get", execution_id)["status"] == "PENDING"
    assert "trigger" in shell.pipe("explain", execution_id).lower()
    assert f"`flowd trigger {execution_id}`" in shell.pipe("explain", execution_id)
    shell.pipe("trigger", execution_id)
    assert f"started {execution_id}; " in shell.stderr
    shell.pipe("watch", execution_id)
    shell.pipe("trigger", execution_id)
    assert shell.stderr == f"{execution_id} was started before, and is COMPLETED\n"
    assert json.loads(shell.pipe("trigger", execution_id, "--wait")).keys() == {"A", "B"}
    execution_id = shell.pipe("submit", "some.yaml").strip()
    shell.pipe("trigger", execution_id, "--input", "who=Ada", "--input", "n=2")
    shell.pipe("watch", execution_id)
    assert json.loads(shell.pipe("results", execution_id, "A"))["result"] == {"who": "Ada", "n": 2}
    assert 'input: {"who": "Ada", "n": 2}\n' in shell.pipe("get", execution_id)
    again = shell.pipe("submit", "good.json", "--key", "k1").strip()
    assert shell.pipe("submit", "good.json", "--key", "k1").strip() == again
    once = [shell.json("run", "good.json", "--key", "k2")["execution_id"] for _ in "ab"]
    assert once[0] == once[1]
    results = shell.pipe("submit", "some.yaml", "--wait", "--timeout", "170", "--input", "n=7")
    assert json.loads(results)["A"] == {"result": {"who": "you", "n": 7}}
    shell.pipe("submit", "bad.json", "--wait", code=1)
    shell.pipe("submit", "good.json", "--trigger", "--input", "nonsense", code=2)
    shell.pipe("submit", "some.yaml", "--input", "n=7", code=2)
    assert "add --trigger or --wait" in shell.stderr
    shell.pipe("submit", "some.yaml", "--timeout", "1", code=2)


def test_run_that_does_not_wait_prints_the_id_and_leaves(shell: Shell) -> None:
    execution_id = shell.pipe("run", "good.json", "--no-wait").strip()
    shell.pipe("watch", execution_id)
    assert set(shell.json("run", "good.json", "--no-wait")) == {"execution_id"}
    for more, said in (
        (("--timeout", "1"), "--no-wait does not"),
        (("--local",), "--local ends with what it runs"),
    ):
        shell.pipe("run", "good.json", "--no-wait", *more, code=2)
        assert said in shell.stderr


def test_run_shows_the_nodes_and_ends_as_they_do(shell: Shell) -> None:
    assert json.loads(shell.pipe("run", "good.json")).keys() == {"A", "B"}
    assert "B COMPLETED" in shell.stderr
    shell.pipe("run", "bad.json", code=1)
    assert "B FAILED: refused" in shell.stderr
    seen = shell.terminal("run", "bad.json", code=1)
    assert "FAILED 1" in seen
    assert "refused" in seen
    assert re.search(r"━ *\r\nA COMPLETED noop[^\n]*\n└── B FAILED refuse", seen)
    assert "bad FAILED in " in seen
    assert "  B failed: refused\r\n" in seen
    seen = shell.terminal("run", "good.json")
    assert re.search(r"\ngood COMPLETED in \S+: 2 COMPLETED\r\n  B {", seen)
    assert '{\r\n  "A"' not in seen
    ended = shell.json("run", "bad.json", code=1)
    assert (ended["status"], ended["results"]["B"]) == ("FAILED", {"error": "refused"})
    for command in ("run", "submit"):
        wait = ("--wait",) if command == "submit" else ()
        shell.pipe(command, "held.json", *wait, "--timeout", "0.3", code=124)
        assert "it runs on: `flowd watch " in shell.stderr
        shell.pipe("cancel", "@latest")


def test_ctrl_c_leaves_the_execution_running_and_says_how_to_go_on(shell: Shell) -> None:
    process = subprocess.Popen(
        shell._command(("run", "held.json")),
        cwd=shell.folder,
        env=shell.environ,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    execution_id = process.stderr.readline().strip()
    wait_until(lambda: "RUNNING" in shell.pipe("get", execution_id), "the node to run")
    process.send_signal(signal.SIGINT)
    told = process.stderr.read()
    assert process.wait(PATIENCE_S) == 130
    assert f"flowd watch {execution_id}" in told
    assert shell.json("get", execution_id)["status"] == "RUNNING"
    shell.pipe("cancel", execution_id)


def test_looking_at_executions(shell: Shell) -> None:
    shell.pipe("run", "good.json")
    (latest,) = shell.json("ls", "-n", "1")
    execution_id = latest["execution_id"]
    assert (latest["name"], latest["status"]) == ("good", "COMPLETED")
    assert shell.pipe("ls", "-n", "1", "-o", "id").strip() == execution_id
    for listed in (
        shell.pipe("ls", "--status", "completed"),
        shell.terminal("ls", "--name", "go*"),
    ):
        assert execution_id in listed
    for text in (execution_id, execution_id[:20], "@latest"):
        assert shell.pipe("get", text, "-o", "id").strip() == execution_id
    seen = shell.terminal("get", "@latest")
    assert re.search(r"B +COMPLETED +noop +A +1 +worker-1", seen)
    assert shell.json("definition", "@latest")["dag"]["nodes"][1]["dependencies"] == ["A"]
    assert [one["execution_id"] for one in shell.json("ls", "--after", "1h", "-n", "1")] == [
        execution_id
    ]
    assert shell.json("ls", "--before", "1d") == []
    shell.pipe("ls", "--after", "soon", code=2)
    assert json.loads(shell.pipe("results", "@latest", "A")) == {"status": "ok"}
    shell.pipe("results", "@latest", "Z", code=1)
    shell.pipe("get", "0" * 24, code=1)
    assert "no execution has the id" in shell.stderr
    shell.pipe("get", "zzz", code=1)
    shell.pipe("watch", execution_id)
    assert "execution COMPLETED" in shell.stderr
    assert "COMPLETED 2" in shell.terminal("watch", execution_id)
    events = [
        json.loads(line) for line in shell.pipe("events", execution_id, "-o", "json").splitlines()
    ]
    assert events[0]["type"] == "execution.submitted"
    assert events[-1]["type"] == "execution.completed"
    assert "node.completed" in shell.terminal("events", execution_id)


def test_an_input_that_a_workflow_does_not_know_is_warned_of_with_the_nearest(shell: Shell) -> None:
    """`--input whu=Ada` was taken in silence, and the greeting was for nobody."""
    slip = ("--input", "whu=Ada", "--input", "n=1", "--input", "some=2")
    near = "warning: --input: the workflow knows no input 'whu'; did you mean 'who'?"
    none = "warning: --input: the workflow knows no input 'some'; it knows n, who"
    shell.pipe("definitions", "put", "from-yaml", "some.yaml")
    execution_id = shell.pipe("submit", "some.yaml").strip()
    for command in (
        ("run", "some.yaml", "--no-wait"),
        ("run", "from-yaml", "--no-wait"),
        ("submit", "some.yaml", "--trigger"),
        ("trigger", execution_id),
        ("run", "some.yaml", "--local"),
    ):
        shell.pipe(*command, *slip)
        said = [one for one in shell.stderr.splitlines() if one.startswith("warning")]
        assert said == [none, near], command
    shell.pipe("run", "good.json", "--no-wait", "--input", "day=1")
    assert "knows no input 'day'; it reads no input" in shell.stderr
    shell.pipe("run", "from-yaml", "--no-wait", "--input", "who=Ada")
    assert "warning" not in shell.stderr
    shell.pipe("definitions", "rm", "from-yaml", "--yes")


def test_what_holds_up_a_whole_execution_is_explained_once(shell: Shell) -> None:
    """It was said once for the execution, and again for each of its nodes."""
    nodes = [node("A", handler="delay", seconds=600), node("B"), node("C")]
    one = {"name": "one", "concurrency": {"max": 1}, "dag": {"nodes": nodes}}
    (shell.folder / "one.json").write_text(json.dumps(one))
    first, waits = (shell.pipe("submit", "one.json", "--trigger").strip() for _ in "12")
    pending = shell.pipe("submit", "one.json").strip()

    said = shell.pipe("explain", waits)
    assert said.count("waits for a place") == 1
    assert first in said
    assert "A PENDING: it waits for a place" in shell.pipe("explain", waits, "A")
    said = shell.pipe("explain", pending)
    assert said.count(f"`flowd trigger {pending}`") == 1
    shell.pipe("pause", first)
    assert shell.pipe("explain", first).count(f"`flowd resume {first}`") == 1
    shell.pipe("act", "cancel", "--name", "one", "--yes")


def test_holding_up_and_running_again(shell: Shell) -> None:
    execution_id = shell.pipe("submit", "held.json", "--trigger").strip()
    assert "A " in shell.pipe("explain", execution_id)
    assert re.search(r"RUNNING +0/1 .*[+-]\d\d:\d\d +\d+(ms|\.\ds)", shell.pipe("ls", "-n", "1"))
    shell.pipe("rm", execution_id, "--yes", code=1)
    shell.pipe("pause", execution_id)
    assert shell.json("get", execution_id)["status"] == "PAUSED"
    assert "paused" in shell.terminal("explain", execution_id).lower()
    shell.pipe("resume", execution_id)
    shell.pipe("cancel", execution_id)
    assert shell.json("get", execution_id)["status"] == "CANCELLED"
    shell.pipe("pause", execution_id, code=1)
    assert "it is CANCELLED" in shell.stderr
    shell.pipe("run", "bad.json", code=1)
    failed = shell.pipe("ls", "-n", "1", "-o", "id").strip()
    preview = shell.pipe("rerun", failed, "--preview")
    assert re.search(r"A +is reused", preview)
    assert re.search(r"B +runs", preview)
    again = shell.pipe("rerun", failed, "--from", "B", "--key", "k").strip()
    assert shell.json("get", again)["rerun_of"] == failed
    assert shell.pipe("rerun", failed, "--from", "B", "--key", "k").strip() == again
    assert shell.json("rerun", failed, "--wait", code=1)["status"] == "FAILED"
    shell.pipe("rerun", failed, "--wait", "--preview", code=2)
    shell.pipe("rm", again, code=2)
    assert "--yes does it without" in shell.stderr
    shell.pipe("watch", again, code=1)
    shell.pipe("rm", again, "--yes")
    assert shell.stderr == f"deleted {again}\n"
    shell.pipe("get", again, code=1)
    again = shell.pipe("rerun", failed, "--from", "B").strip()
    shell.pipe("watch", again, code=1)
    assert "definition: equal" in shell.pipe("diff", failed, again)
    found = shell.json("diff", failed, again)
    assert (found["outputs"], found["first_difference"]) == ([], None)
    other = shell.json("ls", "-n", "1", "--name", "held")[0]["execution_id"]
    assert "the first node that differs: A" in shell.pipe("diff", failed, other, code=1)


def test_what_needs_somebody_is_shown_and_compared_with_the_last_good_run(shell: Shell) -> None:
    good = {}
    # The last of them is found by what is not its name.
    for name in ("nights", "nights*"):
        workflow = {"name": name, "dag": {"nodes": [node("A"), node("B", "A")]}}
        (shell.folder / "good-night.json").write_text(json.dumps(workflow))
        good[name] = shell.json("submit", "good-night.json", "--wait")["execution_id"]
    refuses = {"name": "nights", "dag": {"nodes": [node("A"), node("B", "A", handler="refuse")]}}
    (shell.folder / "bad-night.json").write_text(json.dumps(refuses))
    failed = shell.json("submit", "bad-night.json", "--wait", code=1)["execution_id"]
    asked = shell.pipe("submit", "asked.json", "--trigger").strip()

    wait_until(lambda: shell.json("get", asked)["counts"] == {"WAITING": 3}, "the questions")
    seen = shell.pipe("now")
    assert re.search(rf"failed within a day: \d+; .*\n.*\n{failed} +- +nights ", seen)
    assert re.search(rf"waiting for an answer: \d+; .*\n(.*\n)*{asked} +A +asked .*Open A", seen)
    assert shell.json("now")["attention"]
    seen = shell.pipe("diff", failed, code=1)
    assert seen.startswith(f"a: {good['nights']} nights COMPLETED")
    assert "dag.nodes[1].handler" in seen
    again = shell.pipe("rerun", failed).strip()
    shell.pipe("watch", again, code=1)
    assert shell.pipe("diff", again).startswith(f"a: {failed} nights FAILED")
    shell.pipe("diff", asked, code=1)
    assert "no execution of 'asked' has completed before" in shell.stderr
    shell.pipe("cancel", asked)


def test_events_of_some_types_are_printed_alone(shell: Shell) -> None:
    failed = shell.json("submit", "bad.json", "--wait", code=1)["execution_id"]

    rows = shell.pipe("events", failed, "--type", "node.failed", "--type", "execution.submitted")

    assert [row.split()[2] for row in rows.splitlines()] == ["execution.submitted", "node.failed"]
    ends = ("--type", "node.failed", "--type", "execution.failed")
    told = map(json.loads, shell.pipe("events", failed, *ends, "-o", "json").splitlines())
    node_failed, execution_failed = told
    assert (node_failed["node_id"], node_failed["error"]) == ("B", "refused")
    assert (execution_failed["name"], execution_failed["error"]) == ("bad", "B: refused")
    shell.pipe("events", failed, "--type", "node.fail", code=2)
    assert "did you mean 'node.failed'?" in shell.stderr


def test_what_is_wrong_with_an_argument_is_said_of_the_argument(shell: Shell) -> None:
    for arguments, said in (
        (("ls", "--status", "late"), "  status: input should be 'PENDING'"),
        (("get", "x" * 5_000), "no execution has an id that begins with 'x"),
        (("limits", "get", "nobody"), "`flowd limits ls` lists them"),
        (("limits", "put", "api", "--per-s", "nan"), "'nan' is no finite number"),
        (("run", "good.json", "--timeout", "nan"), "'nan' is no finite number"),
        (("logs", "@latest", "--attempt", "1"), "--attempt is of a node; name it after the ID"),
        (("logs", "nobody"), "'nobody' is no id of an execution"),
        (("help", "nobody"), "there is no topic 'nobody'; `flowd help` lists them"),
    ):
        code = 2 if "nan" in arguments or "--attempt" in arguments else 1
        shell.pipe(*arguments, code=code)
        assert said in shell.stderr
        assert len(shell.stderr) < 1_000


def test_many_are_acted_on_at_once_and_each_says_what_came_of_it(shell: Shell) -> None:
    held = shell.pipe("submit", "held.json", "--trigger").strip()
    shell.pipe("run", "bad.json", code=1)
    which = ("--since", "1h", "--status", "failed", "--status", "running", "-n", "2")
    listed = shell.pipe("act", "rerun", *which, "--preview", "-o", "id").split()
    assert held in listed
    assert len(listed) == 2

    shell.pipe("act", "rerun", *which, code=2)
    assert "--yes does it without" in shell.stderr
    shell.pipe("act", "rerun", "--yes", code=2)
    assert "say which" in shell.stderr
    results = {one["execution_id"]: one for one in shell.json("act", "rerun", *which, "-y", code=1)}

    assert results.keys() == set(listed)
    assert (results[held]["outcome"], results[held]["code"]) == ("refused", "wrong_state")
    (other,) = results.keys() - {held}
    again = results[other]["new_execution_id"]
    assert shell.json("get", again)["rerun_of"] == other
    shell.pipe("act", "cancel", "--name", "hel*", "--status", "RUNNING", "-y")
    assert shell.json("get", held)["status"] == "CANCELLED"


def test_dead_letters(shell: Shell, flowd: FaultyFlowd) -> None:
    execution_id = flowd.submit_and_trigger(node("A", handler="die", way="kill", attempts=3))
    assert flowd.wait_for_execution(execution_id) == "FAILED"
    (letter,) = shell.json("dlq", "list")
    assert (letter["execution_id"], letter["node_id"]) == (execution_id, "A")
    assert "given up" in shell.terminal("dlq", "list")
    for way in (shell.pipe, shell.terminal):
        assert json.loads(way("dlq", "show", letter["dead_letter_id"]))["node_id"] == "A"
    assert "asked for" in shell.terminal("dlq", "redrive", letter["dead_letter_id"], "--preview")
    assert len(shell.json("dlq", "list")) == 1
    again = shell.terminal("dlq", "redrive", letter["dead_letter_id"]).strip()
    assert flowd.wait_for_execution(again) in ("COMPLETED", "FAILED")
    shell.pipe("dlq", "purge", code=2)
    assert shell.json("dlq", "purge", "--all", "--yes")["deleted"] >= 0
    # Sent again, because an answer was lost: it is answered as then.
    assert shell.pipe("dlq", "redrive", letter["dead_letter_id"]).strip() == again
    shell.pipe("dlq", "redrive", "1-0", code=1)
    assert shell.json("dlq", "list") == []
    flowd.wait_until_running()


def test_doctor_finds_what_does_not_add_up(shell: Shell, flowd: FaultyFlowd) -> None:
    arguments = ("doctor", "--config", str(shell.config))
    seen = shell.pipe(*arguments)
    assert "FAILED" not in seen
    assert seen.splitlines()[-1].startswith("healthy")
    assert "ok" in shell.terminal(*arguments)
    stranger = "0" * 24
    is_over = threading.Event()

    def keep_it_there() -> None:
        """The reconciler forgets it again and again."""
        with flowd.redis as redis:
            while not is_over.wait(0.001):
                redis.sadd("workflows:active", stranger)
            redis.srem("workflows:active", stranger)

    def is_found() -> bool:
        found = shell.ended(*arguments)
        is_said = f"execution {stranger} is active and has no status" in found.stdout
        assert found.returncode == is_said, found.stdout + found.stderr
        verdict = "not healthy: " if is_said else "healthy"
        assert found.stdout.splitlines()[-1].startswith(verdict)
        return is_said

    keeping = threading.Thread(target=keep_it_there)
    keeping.start()
    try:
        wait_until(is_found, "the finding")
    finally:
        is_over.set()
        keeping.join()


def test_a_flowd_that_does_not_answer_is_said_so(shell: Shell) -> None:
    shell.pipe("ls", "--url", "http://127.0.0.1:1", code=69)
    assert "is it running?" in shell.stderr


def test_a_token_opens_it_and_is_in_no_list_of_processes(
    shell: Shell, run_flowd: Callable[..., Flowd]
) -> None:
    closed = run_flowd("start", "--workers", "0")
    closed.wait_for_status(lambda status: status["state"] == "RUNNING", "the API")
    shell.folder, shell.environ["FLOWD_URL"] = closed.folder, closed.url
    reader = shell.pipe("token", "create", "--name", "r", "--scope", "read").splitlines()[0]
    wait_until(lambda: _status_of(closed.url) == 401, "the token to be noticed")
    shell.pipe("ls", code=77)
    assert "flowd: " in shell.stderr
    shell.pipe("ls", "--token", reader)
    shell.pipe("dlq", "list", "--token", reader)
    shell.pipe("submit", str(shell.files / "good.json"), "--token", reader, code=77)
    shell.environ["FLOWD_TOKEN"] = reader
    shell.pipe("ls")
    command = shell._command(("events", "-f", "--token", reader))
    process = subprocess.Popen(command, env=shell.environ)
    command_line = Path(f"/proc/{process.pid}/cmdline")
    try:
        wait_until(lambda: command_line.read_text().startswith("flowd events"), "another title")
        assert reader not in command_line.read_text()
    finally:
        process.kill()
        process.wait()


def _status_of(url: str) -> int:
    with pytest.raises(ApiError) as refused, Client(url, "none") as client:
        next(client.list(), None)
        raise ApiError(200, "", "")
    return refused.value.status


def test_events_are_followed_until_ctrl_c(shell: Shell) -> None:
    process = subprocess.Popen(
        shell._command(("events", "-f", "-o", "json")),
        env=shell.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    # Only what happens once it listens is shown, so something has to until it does.
    seen: list[str] = []
    reading = threading.Thread(target=lambda: seen.extend(process.stdout or ()))
    reading.start()

    def has_ended() -> bool:
        shell.pipe("run", "good.json")
        return any('"execution.completed"' in line for line in seen)

    wait_until(has_ended, "an event")
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE_S) == 130
    reading.join(PATIENCE_S)
    assert process.stderr is not None
    assert process.stderr.read() == ""
    ids = [json.loads(line)["id"] for line in seen]
    assert len(set(ids)) == len(ids)


def test_a_full_disk_for_what_is_printed_is_one_sentence(shell: Shell) -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            shell._command(("config", "show")),
            stdout=full,
            stderr=subprocess.PIPE,
            env=shell.environ,
            text=True,
        )
    assert (ended.returncode, ended.stderr) == (1, "flowd: cannot write: No space left on device\n")


def test_who_has_seen_enough_may_close_the_pipe(shell: Shell) -> None:
    for _ in range(3):
        shell.pipe("submit", "good.json")
    command = [*shell._command(("events", "-f")), "|", "head", "-1"]
    piped = subprocess.Popen(
        ["bash", "-c", f"set -o pipefail; {' '.join(command)}"],
        env=shell.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )

    def has_ended() -> bool:
        shell.pipe("submit", "good.json")
        return piped.poll() is not None

    wait_until(has_ended, "the end of the pipe")
    out, err = piped.communicate()
    assert (len(out.splitlines()), err, piped.returncode) == (1, "", 0)


def test_no_color_is_heeded(shell: Shell) -> None:
    shell.pipe("run", "good.json")
    coloured = re.compile(r"\x1b\[(?:\d+;)*3\d")
    assert coloured.search(shell.raw_terminal("ls"))
    shell.environ["NO_COLOR"] = "1"
    for command in (("ls",), ("get", "@latest"), ("run", "good.json"), ("doctor",)):
        where = ("--config", str(shell.config)) if command == ("doctor",) else ()
        assert not coloured.search(shell.raw_terminal(*command, *where)), command


def test_a_shell_completes_the_names_of_commands(shell: Shell) -> None:
    shell.environ |= {
        "_FLOWD_COMPLETE": "bash_complete",
        "COMP_WORDS": "flowd re",
        "COMP_CWORD": "1",
    }
    found = {line.partition(",")[2] for line in shell.pipe().splitlines()}
    assert found == {
        "redis-cli",
        "reload",
        "reject",
        "restart",
        "restore",
        "results",
        "resume",
        "rerun",
    }


def test_the_items_of_a_map_are_listed_in_their_order(shell: Shell) -> None:
    shell.pipe("run", "mapped.json")
    listed = shell.json("items", "@latest", "fan")
    assert [(one["node_id"], one["item"]) for one in listed] == [
        ("fan.0", "a"),
        ("fan.1", "b"),
        ("fan.2", "c"),
    ]
    assert len(shell.json("items", "@latest", "fan", "-n", "2")) == 2
    assert shell.json("items", "@latest", "fan", "--state", "failed") == []
    assert re.search(r'fan\.2 .*COMPLETED.*"c"', shell.terminal("items", "@latest", "fan"))
    shell.pipe("items", "@latest", "gone", code=1)


def test_of_a_map_that_bore_failures_it_is_said_how_they_run_again(shell: Shell) -> None:
    shell.pipe("run", "mixed.json")
    shell.pipe("items", "@latest", "fan")
    rerun = shell.stderr.strip().rpartition(": ")[2]
    assert re.fullmatch(r"flowd rerun [0-9a-f]{24} --from fan\.1", rerun)
    assert "1 of its 2 items run" in shell.pipe(*rerun.split()[1:], "--preview")
    shell.pipe("items", "@latest", "A", code=1)
    assert "node 'A'" in shell.stderr and "has no items" in shell.stderr


def test_who_is_asked_answers_once(shell: Shell) -> None:
    execution_id = shell.pipe("submit", "asked.json", "--trigger").strip()
    wait_until(lambda: "Open A?" in shell.pipe("explain", execution_id, "A"), "the question")
    assert f"`flowd approve {execution_id} A`" in shell.pipe("explain", execution_id, "A")
    assert "Open B?" in shell.pipe("get", execution_id)
    shell.environ |= {
        "_FLOWD_COMPLETE": "bash_complete",
        "COMP_WORDS": f"flowd approve {execution_id} ",
        "COMP_CWORD": "3",
    }
    assert shell.pipe().split() == ["plain,A", "plain,B", "plain,C"]
    del shell.environ["_FLOWD_COMPLETE"]

    shell.pipe("approve", execution_id, "A", "--key", "k")
    assert shell.stderr == f'sent node A of {execution_id}: {{"approved": true}}\n'
    shell.pipe("approve", execution_id, "A", "--key", "k")
    shell.pipe("reject", execution_id, "A", "--reason", "no", code=1)
    assert "is decided: it was answered" in shell.stderr
    shell.pipe("signal", execution_id, "B", "--data", "yes", code=2)
    assert "is not JSON; text needs its quotes" in shell.stderr
    decision = shell.json("signal", execution_id, "B", "--data", '{"n": 1.5}')["decision"]
    assert (decision["data"], decision["by"]) == ({"n": 1.5}, None)
    shell.pipe("reject", execution_id, "C", "--reason", " ", code=2)
    assert "'--reason': it is empty" in shell.stderr
    shell.pipe("reject", execution_id, "C", "--reason", "too \x1b[31mrisky")
    assert shell.stderr == f"rejected node C of {execution_id}\n"
    shell.pipe("watch", execution_id, code=1)
    assert "C FAILED: it was rejected: too \\x1b[31mrisky" in shell.stderr
    assert shell.json("results", execution_id, "B")["data"] == {"n": 1.5}
    shell.pipe("approve", execution_id, "D", code=1)
    assert "has no node 'D'" in shell.stderr


def test_a_workflow_is_saved_run_by_its_name_and_deleted(shell: Shell) -> None:
    shell.pipe("definitions", "put", "report", "some.yaml")
    assert shell.stderr == "Definition saved: report, version 1\n"
    assert shell.pipe("definitions", "put", "report", "some.yaml", "-o", "id") == "1\n"
    assert (
        "Definition unchanged" in shell.json("definitions", "put", "report", "some.yaml").values()
    )
    written = shell.pipe("definitions", "get", "report")
    assert "unchanged" in shell.json("definitions", "put", "report", "-", stdin=written)["message"]
    assert shell.json("definitions", "put", "report", "good.json")["version"] == 2
    assert [one["version"] for one in shell.json("definitions", "versions", "report")] == [2, 1]
    assert shell.pipe("definitions", "ls", "-o", "id") == "report\n"
    assert shell.json("definitions", "get", "report", "--version", "1")["latest"] == 2

    assert json.loads(shell.pipe("run", "report")).keys() == {"A", "B"}
    shell.pipe("watch", shell.pipe("run", "report", "--no-wait").strip())
    results = shell.pipe("run", "report", "--version", "1", "--input", "n=7", "--input", "who=you")
    assert json.loads(results)["A"] == {"result": {"who": "you", "n": 7}}
    # A file of this name goes before.
    (shell.folder / "report").write_text((shell.files / "good.json").read_text())
    shell.pipe("run", "report")
    assert shell.json("get", "@latest")["name"] == "good"

    shell.pipe("definitions", "rm", "report", code=2)
    assert "--yes" in shell.stderr
    shell.pipe("definitions", "rm", "report", "--yes")
    assert shell.stderr == "deleted report\n"
    (shell.folder / "report").unlink()
    shell.pipe("run", "report", code=1)
    assert "'report' is no file" in shell.stderr
    assert "`flowd definitions ls` lists those that are" in shell.stderr
    shell.pipe("run", "report.json", code=1)
    assert "cannot read report.json" in shell.stderr
    shell.pipe("run", "report", "--local", code=2)
    shell.pipe("definitions", "put", "no/name", "good.json", code=1)
    shell.pipe("definitions", "put", "report", "nothing.json", code=1)
    shell.pipe("ls", "--label", "team", code=1)
    assert "write a label as name:value" in shell.stderr


def test_a_node_and_the_child_it_waits_for_name_each_other(shell: Shell) -> None:
    shell.pipe("definitions", "put", "asked", "asked.json")
    calling = node("call", handler="workflow", name="asked", version=1)
    parent = shell.pipe("submit", "-", "--trigger", stdin=as_workflow("calling", calling)).strip()
    shown = wait_until(
        lambda: re.search(
            r"call +WAITING .* child (\w{24}) RUNNING 0/3", shell.pipe("get", parent)
        ),
        "the node to wait for its child",
    )
    child = shown[1]
    assert f"\nparent: {parent} call\n" in shell.pipe("get", child)
    for gate in "ABC":
        shell.pipe("approve", child, gate)
    shell.pipe("watch", parent)
    assert f"call COMPLETED: child {child}\n" in shell.stderr
    assert re.search(rf"call +COMPLETED .* child {child}\n", shell.pipe("get", parent))
    assert re.search(
        rf"call COMPLETED workflow [^\n]*child {child}", shell.terminal("watch", parent)
    )
    assert "parent: " not in shell.pipe("get", parent)
    shell.pipe("definitions", "rm", "asked", "--yes")


def as_workflow(name: str, *nodes: dict[str, Any]) -> str:
    return json.dumps({"name": name, "dag": {"nodes": nodes}})


def test_the_next_times_of_a_paused_schedule_are_said_to_start_nothing(shell: Shell) -> None:
    shell.pipe("definitions", "put", "report", "good.json")
    shell.pipe("schedules", "put", "hourly", "hourly.yaml")
    shell.pipe("schedules", "next", "hourly")
    assert shell.stderr == ""
    shell.pipe("schedules", "pause", "hourly")
    shell.pipe("schedules", "next", "hourly")
    assert shell.stderr == ("it is paused: nothing starts until `flowd schedules resume hourly`\n")
    shell.pipe("schedules", "rm", "hourly", "--yes")
    shell.pipe("definitions", "rm", "report", "--yes")


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_completion_is_printed(shell: Shell, name: str) -> None:
    assert "_FLOWD_COMPLETE" in shell.pipe("completion", name)


# Each with what is seen of it; `terminal` ends when the command does.
ANYWHERE = [
    ("validate good.json", "valid workflow of 2 nodes"),
    ("schema", "json-schema.org"),
    ("submit good.json", r"[0-9a-f]{24}"),
    ("run good.json", "COMPLETED 2"),
    ("now", "flowd works"),
    ("ls", "good"),
    ("get @latest", "good"),
    ("results @latest", r'"status": "ok"'),
    ("definition @latest", r'"handler": "noop"'),
    ("watch @latest", "COMPLETED"),
    ("explain @latest", "COMPLETED"),
    ("events @latest", "execution.completed"),
    ("diff @latest @latest", "outputs: equal"),
    ("rerun @latest --preview", "is reused"),
    ("rerun @latest --from A", r"[0-9a-f]{24}"),
    ("act pause --status completed --limit 1 --preview", r"[0-9a-f]{24}"),
    ("act delete --name nobody --yes", ""),
    ("rm @latest --yes", ""),
    ("definitions put report good.json", ""),
    ("definitions ls", r"report +1 +2 "),
    ("definitions get report", r'"handler": "noop"'),
    ("definitions versions report", r"1 +2 "),
    ("schedules put hourly hourly.yaml", ""),
    ("schedules ls", "hourly"),
    ("schedules get hourly", r"report[^}]*callback http://x/y"),
    ("schedules next hourly", r"T\d\d:00:00"),
    ("schedules pause hourly", ""),
    ("schedules resume hourly", ""),
    ("schedules run hourly", r"[0-9a-f]{24}"),
    ("schedules rm hourly --yes", ""),
    ("definitions rm report --yes", ""),
    ("limits put api --max 3", ""),
    ("limits ls", "api"),
    ("limits get api", "3"),
    ("limits rm api --yes", ""),
    ("cache ls", "ENTRIES"),
    ("cache clear --yes", ""),
    ("ui", "/ui/"),
    ("dlq list", "REASON"),
    ("dlq purge --all --yes", ""),
    ("completion bash", "_FLOWD_COMPLETE"),
]
# These speak to the daemon, in whose folder they run.
BESIDE_IT = [
    ("status", "worker-1"),
    ("doctor", "ok"),
    ("config check", ""),
    ("backup kept", "flowd-"),
    ("config show", "api.port"),
    ("handlers", "noop"),
    ("token list", "SCOPE"),
    ("restart worker-1", ""),
    ("scale 2", ""),
    ("reload", ""),
]
# These need no flowd: in a folder of their own, one after the other.
APART = [
    ("help", "tour"),
    ("new mine", "mine.py"),
    ("config init", "wrote"),
    ("token create --name t --scope read --data-dir data", "flowd_"),
    ("token list --data-dir data", "read"),
    ("token revoke t --data-dir data", ""),
]
HERE = {"trigger", "pause", "resume", "cancel", "dlq show", "dlq redrive"}
HERE |= {"approve", "signal", "reject", "items"}
# These do not end by themselves, or end flowd.
ELSEWHERE = {
    "start": "test_start",
    "api": "test_roles",
    "scheduler": "test_roles",
    "worker": "test_roles",
    "demo": "test_demo",
    "install": "test_install",
    "uninstall": "test_install",
    "apply": "test_apply",
    "restore": "test_recipes",
    "redis-cli": "test_redis_access",
    "top": "test_control",
    "stop": "test_control",
    "logs": "test_control",
}


@pytest.mark.parametrize("way", ["pipe", "terminal"])
def test_every_command_works_on_a_terminal_and_in_a_pipe(
    shell: Shell, flowd: FaultyFlowd, way: str, tmp_path: Path
) -> None:
    run = getattr(shell, way)
    shell.pipe("run", "good.json")
    for command, wanted in ANYWHERE:
        if way == "pipe" and command.split()[0] in ("validate", "run", "watch"):
            continue  # What these say goes to stderr; other tests look there.
        assert re.search(wanted, run(*command.split())), command
        if command in ("submit good.json", "rerun @latest --from A"):
            shell.pipe("run", "good.json")
    shell.folder = flowd.folder
    for command, wanted in BESIDE_IT:
        assert re.search(wanted, run(*command.split())), command
        flowd.wait_until_running()
    held = shell.pipe("submit", str(shell.files / "held.json"), "--trigger").strip()
    for command in ("trigger", "pause", "resume", "cancel"):
        run(command, held)
    assert flowd.api.execution_status(held) == "CANCELLED"
    asked = shell.pipe("submit", str(shell.files / "asked.json"), "--trigger").strip()
    for answer in (
        ("approve", "A"),
        ("signal", "B", "--data", "0"),
        ("reject", "C", "--reason=no"),
    ):
        run(answer[0], asked, *answer[1:])
    assert flowd.wait_for_execution(asked) == "FAILED"
    shell.folder = tmp_path
    for command, wanted in APART:
        assert re.search(wanted, run(*command.split())), command


def test_no_command_is_left_out() -> None:
    tried = {_name(command.split()) for command, _ in (*ANYWHERE, *BESIDE_IT, *APART)}
    for command, file in ELSEWHERE.items():
        text = (Path(__file__).parent / f"{file}.py").read_text()
        assert re.search(rf"\b{command}\b", text), command

    assert tried | HERE | ELSEWHERE.keys() == {name for name, _ in _leaves(main)}


def test_whoever_speaks_to_a_flowd_can_say_it_for_programs() -> None:
    for name, command in _leaves(main):
        options = {one.name for one in command.params}
        assert "url" not in options or "output" in options, name


def _leaves(group: click.Group, before: str = "") -> Iterator[tuple[str, click.Command]]:
    with click.Context(group) as context:
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            if isinstance(command, click.Group):
                yield from _leaves(command, f"{before}{name} ")
            elif command is not None:
                yield f"{before}{name}", command


def _name(words: list[str]) -> str:
    """Without arguments and options."""
    return " ".join(
        words[
            : 2
            if words[0] in ("cache", "config", "definitions", "dlq", "limits", "schedules", "token")
            else 1
        ]
    )


def test_a_name_cannot_give_orders_to_the_terminal(shell: Shell) -> None:
    workflow = {**GOOD, "name": "a\x1b]0;title\x07\x9b31m\u202e\nb"}
    shell.pipe("submit", "-", "--wait", stdin=json.dumps(workflow))
    for way in (shell.raw_terminal, shell.pipe):
        for command in ("ls -n 1", "get @latest", "diff @latest @latest", "watch @latest"):
            seen = way(*command.split())
            assert not re.search("\x1b]|[\x07\x9b\u202e]", seen), command
            assert way == shell.pipe or r"a\x1b]0;title\x07\x9b31m\u202e\nb" in seen, command
    assert shell.json("ls", "-n", "1")[0]["name"] == workflow["name"]


def test_help_names_every_command(shell: Shell) -> None:
    for seen in (shell.pipe("--help"), shell.terminal("--help")):
        for name in ("run", "ls", "explain", "dlq", "doctor", "token"):
            assert re.search(rf"^  {name}  ", seen, re.MULTILINE)


def test_the_client_does_what_the_commands_do(flowd: FaultyFlowd) -> None:
    with Client(flowd.url) as client:
        assert client.run(GOOD, timeout_s=PATIENCE_S).keys() == {"A", "B"}
        first = next(client.list())
        assert client.wait(first["execution_id"]) == "COMPLETED"
        assert client.timeline(first["execution_id"])["nodes"][0]["node_id"] == "A"
        assert client.node(first["execution_id"], "A")["state"] == "COMPLETED"
        held = client.submit(
            {"name": "h", "dag": {"nodes": [node("A", handler="delay", seconds=600)]}}
        )
        client.trigger(held)
        with pytest.raises(TimeoutError):
            client.wait(held, 0.2)
        client.cancel(held)
        client.delete(held)


def test_the_address_of_the_dashboard_is_printed_and_that_of_an_execution(shell: Shell) -> None:
    execution_id = shell.pipe("submit", "good.json", "-o", "id").strip()

    assert shell.pipe("ui") == f"{shell.environ['FLOWD_URL']}/ui/\n"
    assert shell.pipe("ui", "@latest").endswith(f"/ui/executions/{execution_id}\n")
    assert shell.pipe("ui", "--url", "http://127.0.0.1:1", code=69) == ""
    assert "does not answer" in shell.stderr
