"""README's examples, run as they stand: the tour, the command line, the client, the workflows."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.process.flowd_process import CONFIG, Flowd, clean_environ, node

README = (Path(__file__).parents[2] / "README.md").read_text()
REPORT = """
name: report
input: {who: nobody}
dag:
  nodes:
    - {id: A, handler: noop}
    - {id: B, handler: llm, dependencies: [A], config: {prompt: "Greet {{ input.who }}"}}
"""


def page(title: str) -> str:
    return re.split(rf"\n##+ {title}\n", README)[1].split("\n## ")[0]


def blocks(title: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page(title), re.DOTALL)


def test_the_examples_run_as_they_stand(run_flowd: Callable[..., Flowd], tmp_path: Path) -> None:
    flowd = run_flowd("start", "--workers", "1")
    flowd.wait_until_running()
    (tmp_path / "report.yaml").write_text(REPORT)
    environ = {**clean_environ(), "FLOWD_URL": flowd.url}

    def run(*command: str) -> str:
        ended = subprocess.run(
            [sys.executable, *command],
            cwd=tmp_path,
            env=environ,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    (session,) = blocks("Workflows from the command line", "console")
    commands = [line.removeprefix("$ flowd ") for line in session.splitlines()]
    assert len(commands) > 5
    seen = [run("-m", "flowd.cli.main", *command.split()) for command in commands]
    assert "Greet Ada" in seen[1]

    blocking, asynchronous = blocks("Python client", "python")
    printed = run("-c", blocking)
    assert printed.splitlines()[0] == "{'A': {'status': 'ok'}}"
    assert printed.splitlines()[-2:] == ["execution.completed", "COMPLETED"]
    assert run("-c", asynchronous).splitlines() == ["COMPLETED", "hello"]


@pytest.mark.skipif(shutil.which("curl") is None, reason="the tour is made with curl")
def test_the_tour_goes_as_it_is_told(run_flowd: Callable[..., Flowd], tmp_path: Path) -> None:
    flowd = run_flowd("start", "--workers", "1")
    flowd.wait_until_running()
    shown_id = re.findall(r"trigger/([0-9a-f]{24})", README)[0]
    execution_id = ""
    steps = re.findall(
        r"```bash\n(.*?)```\n```json\n(.*?)```", page("A tour of five minutes"), re.DOTALL
    )
    assert len(steps) == 4
    for commands, shown in steps:
        lines = re.sub(r"\\\n\s*", "", commands).strip()
        answers = []
        for command in re.split(r"\n(?=curl )", lines):
            here = command.replace("http://localhost:8000", flowd.url).replace(
                shown_id, execution_id
            )
            ended = subprocess.run(
                ["bash", "-c", here], cwd=tmp_path, capture_output=True, text=True, timeout=30
            )
            answers.append(json.loads(ended.stdout))
        execution_id = answers[0].get("execution_id", execution_id)
        if "/trigger/" in lines:
            flowd.wait_for_execution(execution_id)
        expected = [json.loads(line.replace(shown_id, execution_id)) for line in shown.splitlines()]
        assert answers == expected


def test_every_workflow_that_is_shown_is_a_valid_one(
    run_flowd: Callable[..., Flowd], tmp_path: Path
) -> None:
    (tmp_path / "flowd.toml").write_text(CONFIG + '[handlers]\nmodules = ["my_handlers"]\n')
    new = [sys.executable, "-m", "flowd.cli.main", "new", "my_handlers"]
    subprocess.run(new, cwd=tmp_path, env=clean_environ(), check=True, timeout=30)
    flowd = run_flowd("start", "--workers", "1")
    flowd.wait_until_running()
    shown = [
        json.loads(text)
        for text in re.findall(r"```json\n(\{.*?)```", README, re.DOTALL)
        if is_json(text)
    ]
    workflows = [one for one in shown if "dag" in one]
    workflows += [{"name": "x", "dag": {"nodes": [one]}} for one in shown if "handler" in one]
    assert len(workflows) >= 4
    for workflow in workflows:
        flowd.api.submit_workflow(json.dumps(workflow).encode())


def is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


def test_a_token_opens_what_it_is_said_to(run_flowd: Callable[..., Flowd], tmp_path: Path) -> None:
    flowd = run_flowd("start", "--workers", "1")
    flowd.wait_until_running()
    create = re.findall(r"```bash\nflowd (token create .*?)\n```", README)[0]
    made = subprocess.run(
        [sys.executable, "-m", "flowd.cli.main", *create.split()],
        cwd=tmp_path,
        env=clean_environ(),
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert made.stdout.startswith("flowd_")


def test_what_waits_is_seen_where_it_is_said_to_be(run_flowd: Callable[..., Flowd]) -> None:
    flowd = run_flowd("start", "--workers", "0")
    flowd.wait_for_status(lambda status: status["state"] == "RUNNING", "the API")
    execution_id = flowd.submit_and_trigger(node("A"), node("B", "A"))
    with flowd.redis as redis:
        ((_, fields),) = redis.execute_command("XRANGE", "workflow:tasks", "-", "+")
        assert (fields["execution_id"], fields["node_id"]) == (execution_id, "A")
        assert redis.execute_command("GET", f"workflow:{execution_id}:status") == "RUNNING"
