"""`flowd start` from the first line on the terminal to the last process that ends."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.daemon import PATIENCE_S, is_all_running, wait_until
from tests.private_server import PrivateServer, free_port
from tests.process.flowd_process import CONFIG, Flowd, definition, node

Run = Callable[..., Flowd]

CHAIN = (node("A"), node("B", "A"), node("C", "B"))


def test_one_line_says_what_runs_and_a_workflow_completes(run_flowd: Run) -> None:
    flowd = run_flowd("start")
    status = flowd.wait_until_running()

    execution_id = flowd.submit_and_trigger(*CHAIN)

    assert flowd.wait_for_execution(execution_id) == "COMPLETED"
    assert flowd.stdout == (
        f"flowd listens on {status['api']} and uses its own Redis "
        f"(data in {flowd.data_dir}); 2 workers run\n"
    )
    assert [one["name"] for one in status["processes"]] == [
        "redis",
        "api-1",
        "scheduler",
        "worker-1",
        "worker-2",
    ]
    for one in status["processes"][1:]:
        assert psutil.Process(one["pid"]).cmdline()[0] == f"flowd: {one['name']}"
    assert psutil.Process(flowd.process.pid).cmdline()[0] == "flowd: supervisor"


def test_flags_win_over_the_file(run_flowd: Run) -> None:
    flowd = run_flowd("start", "--workers", "1", "--host", "localhost", "--data-dir", "other")
    flowd.data_dir = flowd.folder / "other"

    status = flowd.wait_until_running()

    assert len(status["processes"]) == 4
    assert flowd.stdout.endswith("1 worker runs\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_signal_ends_it_cleanly_with_nothing_left(run_flowd: Run, number: signal.Signals) -> None:
    flowd = run_flowd("start")
    flowd.wait_until_running()

    flowd.signal(number)

    assert flowd.wait_for_end() == 0
    assert flowd.survivors() == []
    assert flowd.events("role.failed") == []
    assert not (flowd.data_dir / "control.sock").exists()


def test_what_was_acknowledged_is_there_after_a_restart(run_flowd: Run) -> None:
    flowd = run_flowd("start")
    flowd.wait_until_running()
    execution_id = flowd.submit_and_trigger(*CHAIN)
    flowd.wait_for_execution(execution_id)
    flowd.signal(signal.SIGTERM)
    flowd.wait_for_end()

    flowd = run_flowd("start")
    flowd.wait_until_running()

    assert flowd.api.execution_status(execution_id) == "COMPLETED"
    assert set(flowd.api.execution_results(execution_id)) == {"A", "B", "C"}


def test_p05_a_killed_supervisor_takes_everything_with_it_and_leaves_nothing_to_clean_up(
    run_flowd: Run,
) -> None:
    first = run_flowd("start")
    first.wait_until_running()
    execution_id = first.submit_and_trigger(*CHAIN)
    first.wait_for_execution(execution_id)

    first.process.kill()
    wait_until(lambda: not first.survivors(), "every process to be gone")

    second = run_flowd("start")
    second.wait_until_running()
    assert second.api.execution_status(execution_id) == "COMPLETED"
    assert second.wait_for_execution(second.submit_and_trigger(*CHAIN)) == "COMPLETED"


def test_p05_a_start_right_after_a_kill_does_not_meet_the_old_server(run_flowd: Run) -> None:
    first = run_flowd("start")
    first.wait_until_running()
    execution_id = first.api.submit_workflow(definition(*CHAIN))

    first.process.kill()
    first.process.wait()
    second = run_flowd("start")

    second.wait_until_running()
    assert second.api.execution_status(execution_id) == "PENDING"


def test_p15_a_second_start_in_the_same_data_dir_names_the_first(run_flowd: Run) -> None:
    first = run_flowd("start")
    first.wait_until_running()

    second = run_flowd("start")

    assert second.wait_for_end() == 75
    assert f"flowd already runs in {first.data_dir} (pid {first.process.pid})" in second.stderr
    # The first has lost nothing by it: not its lock, not its socket.
    assert run_flowd("start").wait_for_end() == 75
    assert first.wait_for_execution(first.submit_and_trigger(*CHAIN)) == "COMPLETED"


def test_p12_a_taken_port_is_named_and_nothing_is_started(run_flowd: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        flowd = run_flowd("start", "--port", str(port))

        assert flowd.wait_for_end() == 75
    assert f"another program already listens on 127.0.0.1:{port}" in flowd.stderr
    assert not (flowd.data_dir / "redis.log").exists()


def test_bad_settings_are_all_named(run_flowd: Run, tmp_path: Path) -> None:
    (tmp_path / "flowd.toml").write_text(CONFIG)
    flowd = run_flowd("start", FLOWD_WORKERS__COUNT="many", FLOWD_WORKER__COUNT="2")

    assert flowd.wait_for_end() == 78
    assert flowd.stderr == (
        "flowd: the settings cannot be used:\n"
        "  FLOWD_WORKER__COUNT: no setting has this name; did you mean 'FLOWD_WORKERS__COUNT'?\n"
        "  FLOWD_WORKERS__COUNT: workers.count must be a whole number from 0 to 512, "
        "'many' is not\n"
    )


def test_a_flag_that_does_not_exist_is_a_usage_error(run_flowd: Run) -> None:
    assert run_flowd("start", "--prot", "1").wait_for_end() == 2


def test_without_the_external_redis_it_does_not_start(run_flowd: Run) -> None:
    port = str(free_port())
    flowd = run_flowd("start", FLOWD_REDIS__MODE="external", FLOWD_REDIS__PORT=port)

    assert flowd.wait_for_end() == 69
    assert f"flowd: no Redis answers at localhost:{port}" in flowd.stderr


def test_an_embedded_server_that_cannot_start_is_quoted(run_flowd: Run) -> None:
    flowd = run_flowd("start", FLOWD_REDIS__SERVER="/bin/false")
    assert flowd.wait_for_end() == 69
    assert "the embedded Redis server did not start" in flowd.stderr

    flowd = run_flowd("start", FLOWD_REDIS__SERVER="no-such-server")
    assert flowd.wait_for_end() == 78
    assert "there is no program 'no-such-server'" in flowd.stderr


def test_it_ends_when_its_data_directory_is_taken_away(run_flowd: Run) -> None:
    """It went on as if nothing were wrong: no order reached it, the API could not reach Redis."""
    flowd = run_flowd("start")
    flowd.wait_until_running()

    shutil.rmtree(flowd.data_dir)

    assert flowd.wait_for_end() == 69
    assert f"flowd: the data directory {flowd.data_dir} was deleted or moved" in flowd.stderr
    assert flowd.survivors() == []


def test_a_redis_that_answers_is_used_and_no_server_started(run_flowd: Run, tmp_path: Path) -> None:
    server = PrivateServer()
    server.start()
    try:
        (tmp_path / "flowd.toml").write_text(
            f"[api]\nport = 0\n[redis]\nurl = 'unix://{server.socket_path}'\ndata_dir = 'data'\n"
        )
        flowd = run_flowd("start")
        status = flowd.wait_until_running()

        assert "redis" not in [one["name"] for one in status["processes"]]
        assert status["redis"]["mode"] == "external"
        assert f"uses the Redis at unix:{server.socket_path}; 2 workers run" in flowd.stdout
        assert flowd.wait_for_execution(flowd.submit_and_trigger(*CHAIN)) == "COMPLETED"
        assert not (flowd.data_dir / "redis.sock").exists()
    finally:
        server.stop()


def test_with_a_port_the_embedded_server_answers_there_too(run_flowd: Run) -> None:
    port = str(free_port())
    flowd = run_flowd("start", FLOWD_REDIS__PORT=port, FLOWD_REDIS__MODE="auto")
    status = flowd.wait_until_running()

    assert status["redis"]["address"] == f"localhost:{port}"
    # A role beside it, of somebody with another data directory, joins it there.
    role = run_flowd("scheduler", "--data-dir", "other", FLOWD_REDIS__PORT=port)
    wait_until(lambda: f"uses the Redis at localhost:{port}" in role.stdout, "the role to run")


def test_p17_closed_standard_streams_are_no_reason_to_die(tmp_path: Path, run_flowd: Run) -> None:
    flowd = run_flowd("start")
    flowd.wait_until_running()
    flowd.signal(signal.SIGTERM)
    flowd.wait_for_end()

    command = f"exec {sys.executable} -m flowd.cli.main start <&- >&- 2>&-"
    process = subprocess.Popen(
        ["/bin/sh", "-c", command], cwd=tmp_path, env=flowd.environ, start_new_session=True
    )
    flowd.process = process
    flowd.wait_until_running()
    assert flowd.wait_for_execution(flowd.submit_and_trigger(*CHAIN)) == "COMPLETED"
    flowd.signal(signal.SIGTERM)
    assert flowd.wait_for_end() == 0


def test_p17_a_log_that_nobody_reads_does_not_stop_it(tmp_path: Path, run_flowd: Run) -> None:
    flowd = run_flowd("start")
    flowd.wait_until_running()
    flowd.signal(signal.SIGTERM)
    flowd.wait_for_end()
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    try:
        # Full to the last byte before it starts.
        with pytest.raises(BlockingIOError):
            while True:
                os.write(writer, b"x" * 4096)
        with pytest.raises(BlockingIOError):
            while True:
                os.write(writer, b"x")
        os.set_blocking(writer, True)
        flowd.process = subprocess.Popen(
            [sys.executable, "-m", "flowd.cli.main", "start"],
            cwd=tmp_path,
            env=flowd.environ,
            stderr=writer,
            start_new_session=True,
        )
        flowd.wait_until_running()
        flowd.kill("worker-1")
        assert flowd.wait_for_execution(flowd.submit_and_trigger(*CHAIN)) == "COMPLETED"
        flowd.signal(signal.SIGTERM)
        assert flowd.wait_for_end() == 0
    finally:
        os.close(reader)
        os.close(writer)


def test_the_command_itself_loads_next_to_nothing() -> None:
    heavy = {"redis", "starlette", "uvicorn", "pydantic", "asyncio", "rich", "multiprocessing"}
    program = f"import sys, flowd.cli.main; print(sorted({heavy} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert run.stdout == "[]\n", run.stderr


@pytest.mark.parametrize(
    ("module", "code"), [("click", -signal.SIGINT), ("flowd.cli.commands.start", 130)]
)
def test_ctrl_c_while_it_loads_ends_it_without_a_traceback(module: str, code: int) -> None:
    program = f"""
import os, signal, sys

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == "{module}":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupting())
sys.argv[1:] = ["start", "--help"]
from flowd.cli.entry import main
main()
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert (ended.returncode, ended.stdout, ended.stderr) == (code, "", "")


def test_help_names_every_command() -> None:
    command = [sys.executable, "-m", "flowd.cli.main", "--help"]
    text = subprocess.run(command, capture_output=True, text=True).stdout

    assert set(re.findall(r"^  (\w+) ", text, flags=re.M)) >= {
        "start",
        "status",
        "top",
        "stop",
        "reload",
        "restart",
        "scale",
        "logs",
        "api",
        "scheduler",
        "worker",
        "demo",
    }


# What systemd does for flowd.socket (sd_listen_fds(3)).
PASS_ON = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="flowd.socket")
os.execv(sys.executable, [sys.executable, "-m", "flowd.cli.main", "start"])
"""


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX], ids=["tcp", "unix"])
def test_clients_of_a_socket_that_systemd_keeps_wait_while_flowd_is_restarted(
    tmp_path: Path, run_flowd: Run, family: socket.AddressFamily, monkeypatch: pytest.MonkeyPatch
) -> None:
    flowd = run_flowd("status")
    flowd.wait_for_end()
    monkeypatch.chdir(tmp_path)
    address = ("127.0.0.1", 0) if family is socket.AF_INET else "api.sock"

    def start() -> dict[str, Any]:
        flowd.process = subprocess.Popen(
            [sys.executable, "-c", PASS_ON, str(listener.fileno())],
            pass_fds=[listener.fileno()],
            cwd=tmp_path,
            env=flowd.environ,
            start_new_session=True,
        )
        return flowd.wait_until_running()

    with socket.socket(family) as listener, socket.socket(family) as client:
        listener.bind(address)
        listener.listen()
        where = listener.getsockname()
        expected = f"http://127.0.0.1:{where[1]}" if family is socket.AF_INET else "unix:api.sock"
        assert start()["api"] == expected
        flowd.signal(signal.SIGTERM)
        assert flowd.wait_for_end() == 0

        client.connect(where)
        client.settimeout(PATIENCE_S)
        client.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        start()

        assert client.makefile("rb").read().endswith(b'{"status":"ok"}')
        flowd.signal(signal.SIGTERM)
        assert flowd.wait_for_end() == 0


def start_on_terminal(folder: Path, environ: dict[str, str], *before: str) -> tuple[int, int]:
    """A shell that puts flowd into the background of a terminal: the shell's pid, the terminal."""
    start = f"{sys.executable} -m flowd.cli.main start"
    lines = "; ".join((*before, f"{start} & wait"))
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(folder)
        os.execve("/bin/bash", ["bash", "-mc", lines], {**environ, "FLOWD_SHUTDOWN__GRACE_S": "1"})
    return pid, terminal


def wait_for(flowd: Flowd, is_right: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """As its own `wait_for_status`, of one that we have not started as our child."""
    return wait_until(
        lambda: status if (status := flowd.status()) and is_right(status) else None,
        "the status",
    )


def test_under_nohup_it_outlives_its_terminal(run_flowd: Run, tmp_path: Path) -> None:
    flowd = run_flowd("status")
    flowd.wait_for_end()
    shell, terminal = start_on_terminal(
        tmp_path, {**flowd.environ, "FLOWD_LOG__FILE": "log"}, "trap '' HUP"
    )
    pid = wait_for(flowd, is_all_running)["pid"]

    os.kill(shell, signal.SIGKILL)
    os.waitpid(shell, 0)
    os.close(terminal)
    os.kill(pid, signal.SIGHUP)
    # It answers behind the signal, which said that the terminal is gone.
    assert wait_for(flowd, is_all_running)["reloading"] is False
    # From now on it means a reload again.
    os.kill(pid, signal.SIGHUP)
    wait_until(lambda: "supervisor.reloaded" in (tmp_path / "log").read_text(), "the reload")

    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not flowd.status(), "its end")


def test_in_the_background_of_a_terminal_that_wants_quiet_it_is_quiet(
    run_flowd: Run, tmp_path: Path
) -> None:
    """Each line wrote itself again and again: the signal it was answered with was caught."""
    flowd = run_flowd("status")
    flowd.wait_for_end()
    shell, terminal = start_on_terminal(tmp_path, flowd.environ, "stty tostop")
    status = wait_for(flowd, is_all_running)
    count = len(status["processes"])

    assert flowd.wait_for_execution(flowd.submit_and_trigger(node("A"))) == "COMPLETED"
    os.kill(status["pid"], signal.SIGTTOU)
    wait_for(flowd, lambda now: len(now["processes"]) == count - 1)
    os.kill(status["pid"], signal.SIGTERM)
    os.waitpid(shell, 0)
    # The shell says that its job is done, and nobody else says anything.
    said = os.read(terminal, 65536).decode()
    assert "listens on" not in said
    assert "supervisor" not in said


def test_a_terminal_that_is_closed_ends_it(tmp_path: Path, run_flowd: Run) -> None:
    """SIGHUP is a reload, but not where it says that nobody is there any more."""
    flowd = run_flowd("status")
    flowd.wait_for_end()
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(tmp_path)
        os.execve(
            sys.executable,
            [sys.executable, "-m", "flowd.cli.main", "start"],
            {**flowd.environ, "FLOWD_LOG__FILE": "log"},
        )
    try:
        wait_until(lambda: (status := flowd.status()) and is_all_running(status), "the start")
        # A reload, as long as the terminal is there.
        os.kill(pid, signal.SIGHUP)
        wait_until(lambda: "supervisor.reloaded" in (tmp_path / "log").read_text(), "the reload")
    finally:
        os.close(terminal)

    wait_until(lambda: os.waitpid(pid, os.WNOHANG)[0] == pid, "its end")
    assert '"signal":"SIGTERM"' in (tmp_path / "log").read_text()


def test_in_a_locale_of_another_encoding_it_starts_and_its_commands_write(
    run_flowd: Run, tmp_path: Path
) -> None:
    """Files of flowd itself were read in the locale's encoding; an emoji ended what had run."""
    made = subprocess.run(
        ["localedef", "-i", "ja_JP", "-f", "EUC-JP", str(tmp_path / "ja_JP.eucJP")],
        capture_output=True,
    )
    if not (tmp_path / "ja_JP.eucJP" / "LC_CTYPE").exists():
        pytest.skip(f"no such locale can be made here: {made.stderr!r}")
    locale = {"LOCPATH": str(tmp_path), "LC_ALL": "ja_JP.eucJP"}
    flowd = run_flowd("start", "--workers", "1", **locale)
    flowd.wait_until_running()
    (tmp_path / "w.yaml").write_text(
        'name: "😀"\ndag: {nodes: [{id: A, handler: transform, '
        'config: {input: {"é": "😀"}, expression: "@"}}]}\n',
        "utf-8",
    )

    for arguments in (["run", "w.yaml"], ["get", "@latest"], ["ls"]):
        ended = subprocess.run(
            [sys.executable, "-m", "flowd.cli.entry", *arguments],
            cwd=tmp_path,
            env=flowd.environ,
            capture_output=True,
        )
        assert ended.returncode == 0, ended.stderr
        if arguments[0] == "run":
            assert json.loads(ended.stdout)["A"]["result"] == {"é": "😀"}
