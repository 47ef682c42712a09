"""shell runs real programs: what they get, what they leave behind, how they are ended."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
import uvloop

from flowd.config import Settings
from flowd.errors import Fail, HandlerFailed
from flowd.handlers.config_checks import config_checks
from flowd.handlers.context import HandlerContext, Resources
from flowd.handlers.registry import built_in_registry
from tests.daemon import PATIENCE_S, is_gone, wait_until
from tests.handler_calls import run_handler, settings_with

ON = settings_with("shell", enabled=True, timeout_s=PATIENCE_S)


def run(*command: Any, **config: Any) -> dict[str, Any]:
    return run_handler("shell", {"command": list(command), **config}, settings=ON)


def failure_of(*command: Any, **config: Any) -> str:
    with pytest.raises(HandlerFailed) as failure:
        run(*command, **config)
    return str(failure.value)


def test_exit_code_and_both_outputs_are_returned() -> None:
    output = run("sh", "-c", "echo out; echo err >&2")

    assert output == {"exit_code": 0, "stdout": "out\n", "stderr": "err\n"}


def test_arguments_are_passed_as_they_are() -> None:
    assert run("printf", "%s|", "a b", "$HOME;`ls`", 7)["stdout"] == "a b|$HOME;`ls`|7|"


def test_stdin_env_and_cwd_are_given(tmp_path: Path) -> None:
    script = 'pwd; cat; echo "$GREETING"'
    output = run("sh", "-c", script, stdin="ä\n", env={"GREETING": "hi"}, cwd=str(tmp_path))

    assert output["stdout"] == f"{tmp_path}\nä\nhi\n"


def test_flowd_s_own_environment_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWD_HANDLERS__LLM__API_KEY", "canary")

    assert "canary" not in run("env")["stdout"]


def test_input_nobody_reads_is_no_failure() -> None:
    assert run("true", stdin="x" * 1_000_000)["exit_code"] == 0


@pytest.mark.parametrize(
    ("command", "text"),
    [
        (("sh", "-c", "echo why >&2; exit 3"), "'sh' exited with 3: why"),
        (("sh", "-c", "kill -9 $$"), "'sh' was killed by SIGKILL"),
        (("no-such-program",), "'no-such-program' cannot be started: No such file or directory"),
        (("a\0b",), "config.command: a NUL character cannot be passed to a program"),
        ((), "config.command: list should have at least 1 item"),
    ],
)
def test_a_program_that_fails_fails_the_node(command: tuple[str, ...], text: str) -> None:
    assert text in failure_of(*command)


def test_an_exit_code_may_be_expected() -> None:
    assert run("sh", "-c", "exit 3", expected_exit_codes=[0, 3])["exit_code"] == 3


def test_a_program_that_takes_too_long_is_killed_with_its_children(tmp_path: Path) -> None:
    script = "sleep 1000 & echo $! > child; echo $$ > parent; wait"

    with pytest.raises(HandlerFailed) as failure:
        run("sh", "-c", script, cwd=str(tmp_path), timeout_s=2.0)

    assert str(failure.value) == "'sh' did not end within 2 s and was killed"
    assert failure.value.kinds == {"timeout"}
    for name in ("child", "parent"):
        pid = int((tmp_path / name).read_text())
        wait_until(lambda pid=pid: is_gone(pid), f"{name} to be gone")


def test_what_a_program_leaves_in_the_background_is_killed_and_not_waited_for() -> None:
    output = run("sh", "-c", "sleep 1000 & echo $!")

    wait_until(lambda: is_gone(int(output["stdout"])), "the child to be gone")


def test_a_call_that_is_cancelled_kills_its_program(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"

    async def cancel() -> None:
        function = built_in_registry().load("shell").function
        config = {"command": ["sh", "-c", f"echo $$ > {pid_file}; sleep 1000"]}
        call = asyncio.ensure_future(
            function(config, HandlerContext("e1", "A", 1, ON, Resources()))
        )
        while not (pid_file.exists() and pid_file.read_text()):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        call.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await call

    uvloop.run(asyncio.wait_for(cancel(), PATIENCE_S))
    wait_until(lambda: is_gone(int(pid_file.read_text())), "the program to be gone")


def test_more_output_than_is_kept_fails_the_node() -> None:
    settings = settings_with("shell", enabled=True, output_max_mb=0.001)
    with pytest.raises(HandlerFailed, match="more than 1048 bytes to stderr; raise"):
        run_handler("shell", {"command": ["sh", "-c", "yes >&2"]}, settings=settings)


def test_of_a_program_that_writes_much_the_end_may_be_kept() -> None:
    settings = settings_with("shell", enabled=True, output_max_mb=0.001)
    command = ["sh", "-c", "yes 0123456789 | head -n 5000; echo well; echo done >&2"]

    output = run_handler("shell", {"command": command, "output": "end"}, settings=settings)

    assert len(output["stdout"]) == 8_000
    assert output["stdout"].endswith("0123456789\nwell\n")
    assert output["stderr"] == "done\n"


def test_it_is_off_until_it_is_turned_on() -> None:
    assert not Settings().handlers.shell.enabled
    with pytest.raises(Fail, match=r"set enabled = true under \[handlers\.shell\]"):
        run_handler("shell", {"command": ["true"]})

    def check(settings: Settings, config: dict[str, Any]) -> list[tuple[str, str]]:
        found = config_checks(built_in_registry(), settings)["shell"]
        assert found is not None
        return [(one.path, one.code) for one in found(config, "dag.nodes[0]")]

    assert check(Settings(), {"command": ["true"]}) == [("dag.nodes[0].handler", "handler_off")]
    assert check(ON, {"command": ["true"]}) == []
    assert check(replace(ON), {}) == [("dag.nodes[0].config.command", "missing_config")]


@pytest.mark.parametrize(
    ("script", "config", "output"),
    [
        ("echo out; exit 3", {}, {"exit_code": 3, "stdout": "out\n", "stderr": ""}),
        (
            "echo out; echo bad >&2; sleep 60",
            {"timeout_s": 3.0},
            {"exit_code": None, "stdout": "out\n", "stderr": "bad\n"},
        ),
    ],
)
def test_a_failure_keeps_what_the_program_wrote(
    script: str, config: dict[str, Any], output: dict[str, Any]
) -> None:
    with pytest.raises(HandlerFailed) as failure:
        run("sh", "-c", script, **config)

    assert orjson.loads(failure.value.report) == {"output": output}


def test_of_much_that_was_written_the_end_is_kept() -> None:
    with pytest.raises(HandlerFailed) as failure:
        run("sh", "-c", "head -c 100000 /dev/zero | tr '\\0' x; echo the end; exit 1")

    output = orjson.loads(failure.value.report)["output"]
    assert output["stdout"].startswith("…xxx")
    assert output["stdout"].endswith("xthe end\n")
    assert len(output["stdout"]) == 8_001


def test_without_a_word_on_stderr_the_error_has_what_was_printed() -> None:
    assert failure_of("sh", "-c", "echo no rule; exit 2") == "'sh' exited with 2: no rule"
