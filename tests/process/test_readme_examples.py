"""README's examples of the command line and of the client, run as they stand."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.process.flowd_process import Flowd, clean_environ

README = (Path(__file__).parents[2] / "README.md").read_text()
REPORT = """
name: report
input: {who: nobody}
dag:
  nodes:
    - {id: A, handler: noop}
    - {id: B, handler: llm, dependencies: [A], config: {prompt: "Greet {{ input.who }}"}}
"""


def blocks(title: str, language: str) -> list[str]:
    page = re.split(rf"\n##+ {title}\n", README)[1].split("\n## ")[0]
    return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)


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

    (example,) = blocks("Python client", "python")
    printed = run("-c", example)
    assert printed.splitlines()[0] == "{'A': {'status': 'ok'}}"
    assert printed.splitlines()[-2:] == ["execution.completed", "COMPLETED"]
