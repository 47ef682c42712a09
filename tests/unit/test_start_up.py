"""What a command imports before it does anything: what it does not need costs everybody time."""

from __future__ import annotations

import socketserver
import subprocess
import sys
import threading
from pathlib import Path

import pytest

# What no command needs that asks over a socket: of Python, of others, and rooms of flowd.
HEAVY = {
    *("asyncio", "concurrent", "difflib", "logging", "multiprocessing", "subprocess"),
    *("dotenv", "httpx2", "jsonschema", "pydantic", "redis", "rich", "setproctitle"),
    *("starlette", "uvicorn", "yaml"),
}
ROOMS = {"api", "handlers", "log", "orchestrator", "outgoing", "scheduler", "store", "workers"}
ROOMS |= {"diagnosis", "web"}

COMMANDS = {
    "ls": ("ls", "--url", "http://127.0.0.1:9"),
    "get": ("get", "--url", "http://127.0.0.1:9", "0" * 24),
    "cancel": ("cancel", "--url", "http://127.0.0.1:9", "0" * 24),
    "dlq": ("dlq", "list", "--url", "http://127.0.0.1:9"),
    "validate": ("validate", "--url", "http://127.0.0.1:9", "workflow.json"),
    "ls of this folder": ("ls",),
    "status": ("status",),
}


def imported(folder: Path, *arguments: str, **environ: str) -> set[str]:
    """The modules of a `flowd` with these arguments when it ends."""
    program = (
        "import atexit, sys\n"
        "atexit.register(lambda: print('\\n'.join(sys.modules), file=open('modules', 'w')))\n"
        "from flowd.cli.entry import main\n"
        "main()\n"
    )
    subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", **environ},
        capture_output=True,
        check=False,
    )
    return set((folder / "modules").read_text().split())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    nodes = '[{"id": "A", "handler": "noop"}]'
    (tmp_path / "workflow.json").write_text(f'{{"name": "w", "dag": {{"nodes": {nodes}}}}}')
    (tmp_path / ".flowd").mkdir()
    return tmp_path


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_that_asks_flowd_imports_little(folder: Path, command: str) -> None:
    modules = imported(folder, *COMMANDS[command], FLOWD_API__PORT="9")

    assert "flowd.cli.main" in modules
    assert modules & HEAVY == set()
    assert modules & {f"flowd.{room}" for room in ROOMS} == set()
    assert "flowd.client.asynchronous" not in modules


def test_where_a_flowd_runs_its_settings_are_not_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Supervisor(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.rfile.readline()
            self.wfile.write(b'{"api": "http://127.0.0.1:9"}\n')

    # A path that is too long for a socket is no matter of this test.
    monkeypatch.chdir(folder)
    with socketserver.UnixStreamServer(".flowd/control.sock", Supervisor) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        modules = imported(folder, "ls")
        server.shutdown()

    assert "flowd.client.connections" in modules
    assert "flowd.config" not in modules


def test_the_registry_of_handlers_is_read_without_what_checks_workflows(folder: Path) -> None:
    modules = imported(folder, "config", "check")

    assert "flowd.handlers.registry" in modules
    assert (
        modules & {"pydantic", "redis", "rich", "starlette", "flowd.workflow.definition"} == set()
    )


def test_a_check_without_a_flowd_imports_the_handlers_that_are_named(folder: Path) -> None:
    modules = imported(folder, "validate", "workflow.json")

    assert "flowd.handlers.builtin.noop" in modules
    assert modules & {"redis", "httpx2", "flowd.store", "flowd.handlers.builtin.llm"} == set()


def test_the_help_imports_little_more_than_click_and_a_call_at_most_twice_as_much(
    folder: Path,
) -> None:
    program = "import sys, click; print(len(sys.modules))"
    click = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    in_help = len(imported(folder, "--help"))

    assert in_help < 1.5 * int(click.stdout)
    assert len(imported(folder, *COMMANDS["ls"], FLOWD_API__PORT="9")) < 2 * in_help


def test_the_start_builds_no_description_of_the_api() -> None:
    """There are dozens, and the API builds the few it needs when it needs them."""
    program = (
        "from flowd.supervisor import roles\n"
        "roles.load_what_children_share()\n"
        "from flowd.api.contract.model import Model\n"
        "pending = list(Model.__subclasses__())\n"
        "for one in pending: pending += one.__subclasses__()\n"
        "print(len(pending) > 30, [one for one in pending if one.__pydantic_complete__])\n"
    )

    run = [sys.executable, "-c", program]
    assert subprocess.run(run, capture_output=True, text=True, check=True).stdout == "True []\n"


def test_who_checks_schemas_compiles_no_grammar_of_addresses(tmp_path: Path) -> None:
    """Where it was installed each process that checked one took a second for it."""
    (tmp_path / "rfc3987_syntax.py").write_text(
        "print('compiled', end=' ')\n"
        "def is_valid_syntax(term, value):\n"
        "    return (term, value) == ('iri', 'a:b')\n"
    )
    program = (
        "import flowd.handlers.json_schema\n"
        "print('imported', end=' ')\n"
        "from jsonschema import Draft202012Validator as Kind\n"
        "checks = Kind({'format': 'iri'}, format_checker=Kind.FORMAT_CHECKER)\n"
        "print(checks.is_valid('a:b'), checks.is_valid('a b'))\n"
    )

    run = [sys.executable, "-c", program]
    environ = {"PYTHONPATH": str(tmp_path)}
    said = subprocess.run(run, capture_output=True, text=True, check=True, env=environ).stdout
    assert said == "imported compiled True False\n"
