"""The manual's page on handlers, followed to the letter, through a real `flowd start`."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.api_client import ApiError
from tests.daemon import PATIENCE_S, wait_until
from tests.manual import SECTIONS, blocks
from tests.private_server import PrivateServer
from tests.process.flowd_process import CONFIG, Flowd, clean_environ, node

Run = Callable[..., Flowd]


def run(folder: Path, *command: str) -> str:
    """What a command prints that succeeds."""
    ended = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=folder,
        env=clean_environ(),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_the_page_works_when_it_is_followed(run_flowd: Run, tmp_path: Path) -> None:
    create, try_out = blocks("Handlers of your own", "bash")
    assert create == "flowd new my_handlers\n"
    assert try_out.splitlines()[-1] == "pytest test_my_handlers.py"

    run(tmp_path, "flowd.cli.main", "new", "my_handlers")
    assert "4 passed" in run(tmp_path, "pytest", "-p", "no:cacheprovider", "test_my_handlers.py")
    (tmp_path / "flowd.toml").write_text(CONFIG + blocks("Handlers of your own", "toml")[0])
    listed = json.loads(run(tmp_path, "flowd.cli.main", "handlers", "-o", "json"))
    assert [one["name"] for one in listed][-2:] == ["greet", "count_words"]
    assert listed[-2]["config"]["properties"].keys() == {"name", "language"}
    assert "whom to greet" in run(tmp_path, "flowd.cli.main", "handlers")

    flowd = run_flowd("start", "--workers", "1")
    flowd.wait_until_running()
    execution_id = flowd.api.submit_workflow(blocks("Handlers of your own", "json")[0].encode())
    flowd.api.trigger_workflow(execution_id)

    assert flowd.wait_for_execution(execution_id) == "COMPLETED"
    results = flowd.api.execution_results(execution_id)
    assert results == {"A": {"greeting": "Bonjour Ada"}, "B": {"words": 2, "attempt": 1}}
    shown = re.findall(r"is `(\{.*?\})`", SECTIONS["Handlers of your own"].replace("\n", " "))
    assert [json.loads(one) for one in shown] == [results["A"], results["B"]]
    assert '"event":"handler.logged"' in flowd.stderr

    with pytest.raises(ApiError, match=r"dag\.nodes\[0\]\.config\.langage: unknown key; did you"):
        flowd.submit_and_trigger(node("A", handler="greet", name="Ada", langage="fr"))


@pytest.mark.parametrize("command", ["start", "worker", "api"])
def test_a_module_that_cannot_be_imported_stops_the_start(
    command: str, run_flowd: Run, tmp_path: Path, server: PrivateServer
) -> None:
    (tmp_path / "my_handlers.py").write_text("import no_such_library\n")
    config = CONFIG.replace('mode = "embedded"', f'url = "unix://{server.socket_path}"')
    (tmp_path / "flowd.toml").write_text(config + '[handlers]\nmodules = ["my_handlers"]\n')

    flowd = run_flowd(command)
    code = wait_until(lambda: flowd.process.poll() is not None, "the end") and flowd.process.wait()

    assert code == 78, flowd.stderr
    assert "the module 'my_handlers' of [handlers] modules cannot be imported" in flowd.stderr
    assert "No module named 'no_such_library'" in flowd.stderr


def test_a_reload_with_a_module_that_cannot_be_imported_changes_nothing(
    run_flowd: Run, tmp_path: Path
) -> None:
    module = tmp_path / "my_handlers.py"
    good = 'from flowd.handlers import handler\n@handler("mine")\ndef mine(config): return {}\n'
    module.write_text(good)
    settings = CONFIG + '[handlers]\nmodules = ["my_handlers"]\n'
    (tmp_path / "flowd.toml").write_text(settings)
    flowd = run_flowd("start", "--workers", "1")
    before = [one["pid"] for one in flowd.wait_until_running()["processes"]]
    (tmp_path / "flowd.toml").write_text(settings.replace("[api]", "[api]\nprocesses = 2"))
    module.write_text(good + "import no_such_library\n")

    for command in ("config check", "reload"):
        ended = subprocess.run(
            [sys.executable, "-m", "flowd.cli.main", *command.split()],
            cwd=tmp_path,
            env=flowd.environ,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )
        assert ended.returncode == 78
        assert "the module 'my_handlers' of [handlers] modules cannot be imported" in ended.stderr
        assert "No module named 'no_such_library'" in ended.stderr

    assert [one["pid"] for one in flowd.wait_until_running()["processes"]] == before
    assert flowd.wait_for_execution(flowd.submit_and_trigger(node("A", handler="mine"))) == (
        "COMPLETED"
    )
    module.write_text(good)
    run(tmp_path, "flowd.cli.main", "reload", "--data-dir", str(flowd.data_dir))
    after = [one["pid"] for one in flowd.wait_until_running()["processes"]]
    assert len(after) == len(before) + 1
    assert not set(after[1:]) & set(before[1:])


def test_new_writes_over_nothing(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text("mine")
    command = [sys.executable, "-m", "flowd.cli.main", "new"]

    for name, text in (
        ("mine", "exists already"),
        ("a-b", "cannot be the name of a Python module"),
        ("mine.py", "leave .py away"),
        ("json", "there is a module 'json' already"),
    ):
        ended = subprocess.run([*command, name], cwd=tmp_path, capture_output=True, text=True)
        assert ended.returncode != 0
        assert text in ended.stderr

    assert [path.name for path in tmp_path.iterdir()] == ["test_mine.py"]
