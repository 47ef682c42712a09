"""The manual's examples, run as they stand, and a list of where each of them is."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flowd.client import Client
from flowd.config.loading import load_settings
from flowd.handlers import Fail
from flowd.handlers.loading import ENTRY_POINT_GROUP
from flowd.supervisor.asking import ask
from tests.daemon import PATIENCE_S, wait_until
from tests.manual import MANUAL, ROOT, SECTIONS, blocks
from tests.process.flowd_process import CONFIG, Flowd, clean_environ, node

WORKFLOWS = "test_every_workflow_that_is_shown_is_a_valid_one"
CHOOSING = "test_the_workflow_the_manual_shows_chooses_as_it_is_told"
MAPPING = "test_the_workflow_the_manual_shows_maps_its_lists"
HANDLERS = "test_the_page_works_when_it_is_followed"
EXAMPLES = "test_the_examples_run_as_they_stand"
SNIPPETS = "test_what_is_shown_of_settings_and_handlers_is_taken"
TOUR = "test_the_tour_goes_as_it_is_told"
NIGHTLY = "test_a_nightly_job_goes_as_it_is_told_from_its_first_line_to_the_alert"
BACKUP = "test_a_backup_is_restored_with_all_that_was_acknowledged_before_it"
TOLD = "test_a_failure_is_told_by_the_exit_code_and_by_the_events"
FIRST = "test_the_first_page_works_when_it_is_followed"
APPROVAL = "test_an_approval_goes_as_it_is_told"
PLACES = "test_of_one_customer_one_execution_runs_at_a_time_as_it_is_told"
CHECKING = "test_validate_says_what_the_manual_shows"
SLIPS = "test_a_limit_or_a_queue_that_nobody_has_yet_is_warned_of_with_the_nearest"
EDITOR = "test_the_schema_is_used_as_the_manual_shows"
APPLYING = "test_files_are_applied_as_the_manual_shows"
MANY = "test_a_graph_and_an_action_on_many_are_as_they_are_shown"
TOGETHER = "test_limits_queues_and_concurrency_go_together_as_they_are_told"
TOKEN = "test_a_token_opens_what_it_is_said_to"
# The tests that run the examples, by section and language, one for each.
RUN_BY = {
    ("Start", "bash"): ["test_the_quickstart_shows_the_samples", EXAMPLES],
    ("A first workflow", "yaml"): [FIRST],
    ("A first workflow", "console"): [FIRST],
    ("A handler of your own", "python"): [FIRST],
    ("A handler of your own", "toml"): [FIRST],
    ("A tour of five minutes", "bash"): [TOUR] * 4,
    ("A tour of five minutes", "json"): [TOUR] * 4,
    ("Workflows", "json"): [WORKFLOWS],
    ("Choosing, and failing well", "json"): [CHOOSING],
    ("Cleaning up", "json"): [WORKFLOWS],
    ("Mapping a list", "json"): [MAPPING],
    ("Waiting", "json"): [WORKFLOWS] * 2,
    ("Attempts and time-outs", "json"): [WORKFLOWS],
    ("Schedules", "json"): ["test_a_schedule_goes_as_it_is_told"],
    ("Schedules", "yaml"): ["test_a_schedule_goes_as_it_is_told"],
    ("Schedules", "bash"): ["test_a_schedule_goes_as_it_is_told"],
    ("Schedules", "console"): ["test_a_schedule_goes_as_it_is_told"],
    ("At most so many at a time", "yaml"): [PLACES],
    ("At most so many at a time", "console"): [PLACES],
    ("Approvals and signals", "yaml"): [APPROVAL],
    ("Approvals and signals", "console"): [APPROVAL],
    ("Answering", "bash"): [APPROVAL],
    ("Answering", "json"): [APPROVAL],
    ("Secrets", "json"): [WORKFLOWS],
    ("Workflows that run workflows", "json"): [WORKFLOWS],
    ("llm", "toml"): [SNIPPETS],
    ("Handlers of your own", "bash"): [HANDLERS] * 2,
    ("Handlers of your own", "toml"): [HANDLERS, SNIPPETS],
    ("Handlers of your own", "json"): [HANDLERS],
    ("Handlers of your own", "python"): [SNIPPETS],
    ("HTTP API", "json"): ["test_a_refusal_is_the_one_that_is_shown"],
    ("Tokens", "bash"): [TOKEN] * 2,
    ("Callbacks", "json"): [WORKFLOWS],
    ("Told of what did not run", "yaml"): [
        "test_a_schedule_with_a_callback_is_taken_as_it_is_shown"
    ],
    ("Callbacks", "python"): ["test_the_check_the_manual_shows_takes_what_is_signed"],
    ("Workflows from the command line", "console"): [EXAMPLES],
    ("Workflows from the command line", "yaml"): [EXAMPLES],
    ("Checking workflows", "yaml"): [CHECKING],
    ("Checking workflows", "text"): [CHECKING, SLIPS],
    ("A run of its own", "console"): ["test_the_run_of_its_own_that_is_shown"],
    ("Running it", "python"): ["test_the_example_of_the_manual_saves_and_runs"],
    ("Workflows in an editor", "console"): [EDITOR],
    ("Workflows in an editor", "yaml"): [EDITOR],
    ("Applying files", "yaml"): [APPLYING],
    ("Applying files", "console"): [APPLYING],
    ("Python client", "python"): [EXAMPLES] * 2,
    ("Running as a service", "bash"): ["tests/process/test_install.py"],
    ("A nightly job", "python"): [NIGHTLY],
    ("A nightly job", "toml"): [NIGHTLY],
    ("A nightly job", "yaml"): [NIGHTLY],
    ("A nightly job", "console"): [NIGHTLY] * 3,
    ("A nightly job", "promql"): [NIGHTLY],
    ("Told when it fails", "json"): [WORKFLOWS],
    ("Told when it fails", "bash"): ["test_a_failure_is_told_by_the_exit_code_and_by_the_events"]
    * 2,
    ("Ask somebody, with a deadline", "json"): [WORKFLOWS],
    ("Many machines", "bash"): ["test_p16_two_hosts_share_the_work_and_freezing_one_harms_nothing"],
    ("Backup", "bash"): [BACKUP],
    ("Restore", "bash"): [BACKUP],
    ("Events", "text"): ["test_an_event_comes_as_it_is_shown"],
    ("Redis", "bash"): ["test_what_waits_is_seen_where_it_is_said_to_be"],
    ("Who may use flowd's own Redis", "bash"): ["test_the_ways_in_are_those_of_the_manual"] * 2,
    ("Working on flowd", "bash"): [".ci/run"],
    ("Limits and rates", "json"): [WORKFLOWS],
    ("Limits and rates", "bash"): ["test_limits_are_put_and_lifted_as_it_is_told"],
    ("Limits and rates", "console"): ["test_limits_are_put_and_lifted_as_it_is_told"],
    ("All of it together", "yaml"): [TOGETHER],
    ("All of it together", "toml"): [TOGETHER],
    ("All of it together", "console"): [TOGETHER],
    ("Logs of nodes", "bash"): ["test_what_a_node_says_is_read_as_it_is_told"],
    ("Reading them", "bash"): ["test_what_a_node_says_is_read_as_it_is_told"],
    ("Acting on many", "json"): [MANY],
    ("Graph and states", "json"): [MANY],
    ("Queues", "json"): [WORKFLOWS],
    ("Cache", "json"): [WORKFLOWS],
    ("Clearing it", "console"): ["test_the_cache_is_seen_and_cleared_as_it_is_told"],
    ("Clearing it", "bash"): ["test_the_cache_is_seen_and_cleared_as_it_is_told"],
    ("A wheel", "bash"): ["tests/process/test_wheel.py"],
    ("Which flowd", "toml"): ["test_the_profile_of_the_manual_is_taken"],
    ("The single file", "bash"): [
        "test_it_is_built_and_copied_to_another_machine_as_the_manual_says"
    ]
    * 2,
    ("The Debian package", "bash"): ["tests/process/test_debian_package.py"],
    ("Containers", "bash"): ["tests/process/test_container.py"] * 2,
    ("A planned failover", "bash"): ["tests/process/test_failover.py"],
    ("The morning after", "console"): ["test_the_morning_after_goes_as_it_is_told"],
    ("Telemetry", "bash"): [SNIPPETS],
    ("Telemetry", "toml"): [SNIPPETS],
    ("Who reads them", "toml"): ["test_settings_of_queues_are_taken_as_they_are_shown"],
    ("Users with few rights", "text"): [
        "test_the_manual_lists_each_right_and_no_other",
        "test_a_user_with_no_more_rights_than_the_manual_says_runs_all_of_it",
    ],
    ("Groups of workers", "toml"): ["test_settings_of_queues_are_taken_as_they_are_shown"],
}


def test_no_example_is_left_out() -> None:
    shown = Counter(
        (title, language)
        for title, text in SECTIONS.items()
        for language in re.findall(r"(?m)^```(\w*)\n(?:.*\n)*?```$", text)
    )
    # A picture is no example.
    del shown["The rooms", "text"]
    assert shown == {place: len(tests) for place, tests in RUN_BY.items()}

    tests = "\n".join(file.read_text() for file in (ROOT / "tests").rglob("test_*.py"))
    for test in {one for some in RUN_BY.values() for one in some}:
        assert (ROOT / test).exists() or f"def {test}" in tests, test


def test_the_quickstart_shows_the_samples(tmp_path: Path) -> None:
    """In a folder that is installed already: pip and the network are test_install's."""
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    (tmp_path / "scripts").mkdir()
    for name in ("scripts/quickstart", "scripts/venv.sh", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    for name, module in (("python", ""), ("flowd", "-m flowd.cli.main ")):
        (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {module}"$@"\n')
        (programs / name).chmod(0o755)
    (programs / "activate").touch()
    installed = 'source scripts/venv.sh; install_key > "$venv/installed-flowd"'
    subprocess.run(["bash", "-c", installed], cwd=tmp_path, check=True, timeout=PATIENCE_S)
    (command,) = re.findall(r"```bash\n(\S+quickstart)\n```", SECTIONS["Start"])

    ended = subprocess.run(
        [command],
        cwd=tmp_path,
        env=clean_environ(),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )

    assert ended.returncode == 0, ended.stderr
    for sample in ("linear", "fanout", "race"):
        assert f"{sample} COMPLETED" in ended.stdout
    assert ".venv/bin/flowd start" in ended.stdout


def test_the_examples_run_as_they_stand(run_flowd: Callable[..., Flowd], tmp_path: Path) -> None:
    flowd = run_flowd("start", "--workers", "1")
    flowd.wait_until_running()
    (report,) = blocks("Workflows from the command line", "yaml")
    (tmp_path / "report.yaml").write_text(report)
    environ = {**clean_environ(), "FLOWD_URL": flowd.url}

    def run(*command: str) -> str:
        ended = subprocess.run(
            [sys.executable, *command],
            cwd=tmp_path,
            env=environ,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
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


def test_the_first_page_works_when_it_is_followed(
    run_flowd: Callable[..., Flowd], tmp_path: Path
) -> None:
    (settings,) = blocks("A handler of your own", "toml")
    (tmp_path / "flowd.toml").write_text(CONFIG + settings)
    (tmp_path / "shop.py").write_text(blocks("A handler of your own", "python")[0])
    (tmp_path / "report.yaml").write_text(blocks("A first workflow", "yaml")[0])
    flowd = run_flowd("start", "--workers", "1")
    flowd.wait_until_running()

    (session,) = blocks("A first workflow", "console")
    printed = [
        subprocess.run(
            [sys.executable, "-m", "flowd.cli.main", *line.removeprefix("$ flowd ").split()],
            cwd=tmp_path,
            env={**clean_environ(), "FLOWD_URL": flowd.url},
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=True,
        ).stdout
        for line in session.splitlines()
    ]

    assert "Greet Ada: Simulated call to http://service-a" in printed[0]
    total = {"id": "A", "handler": "total", "config": {"prices": [1, 2]}}
    execution_id = flowd.submit_and_trigger(total)
    flowd.wait_for_execution(execution_id)
    assert flowd.api.execution_results(execution_id) == {"A": {"total": 3, "attempt": 1}}


@pytest.mark.skipif(shutil.which("curl") is None, reason="the tour is made with curl")
def test_the_tour_goes_as_it_is_told(run_flowd: Callable[..., Flowd], tmp_path: Path) -> None:
    flowd = run_flowd("start", "--workers", "1")
    flowd.wait_until_running()
    shown_id = re.findall(r"trigger/([0-9a-f]{24})", MANUAL)[0]
    execution_id = ""
    steps = re.findall(
        r"```bash\n(.*?)```\n```json\n(.*?)```", SECTIONS["A tour of five minutes"], re.DOTALL
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
                ["bash", "-c", here],
                cwd=tmp_path,
                capture_output=True,
                text=True,
                timeout=PATIENCE_S,
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
    subprocess.run(new, cwd=tmp_path, env=clean_environ(), check=True, timeout=PATIENCE_S)
    flowd = run_flowd("start", "--workers", "1")
    flowd.wait_until_running()
    shown = [
        json.loads(text.replace("[...]", json.dumps([node("A")])))
        for (title, language), tests in RUN_BY.items()
        for text, test in zip(blocks(title, language), tests, strict=True)
        if test == WORKFLOWS
    ]
    assert len(shown) >= 5
    # What one of them runs as its child, in that version.
    with Client(flowd.url) as client:
        for at in range(3):
            saved = {"name": "report", "dag": {"nodes": [node("A", x=at)]}}
            client.put_definition("report", saved)
    for one in shown:
        above = map(node, one.get("dependencies", ()))
        workflow = one if "dag" in one else {"name": "x", "dag": {"nodes": [*above, one]}}
        flowd.api.submit_workflow(json.dumps(workflow).encode())


def test_a_refusal_is_the_one_that_is_shown(run_flowd: Callable[..., Flowd]) -> None:
    flowd = run_flowd("start", "--workers", "0")
    flowd.wait_for_status(lambda status: status["state"] == "RUNNING", "the API")
    body = {"name": "x", "dag": {"nodes": [node("fetch"), node("B", "fetsh")]}}

    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(
            f"{flowd.url}/workflow", json.dumps(body).encode(), timeout=PATIENCE_S
        )

    (shown,) = blocks("HTTP API", "json")[:1]
    assert json.loads(refused.value.read()) == json.loads(shown)


def test_what_is_shown_of_settings_and_handlers_is_taken(tmp_path: Path) -> None:
    (llm,) = blocks("llm", "toml")
    (tmp_path / "flowd.toml").write_text(llm)
    model = load_settings(tmp_path / "flowd.toml", {}, {}).handlers.llm
    assert (model.base_url, model.model) == ("http://localhost:11434/v1", "llama3.2")

    (telemetry,) = blocks("Telemetry", "toml")
    (tmp_path / "flowd.toml").write_text(telemetry)
    settings = load_settings(tmp_path / "flowd.toml", {}, {})
    assert settings.telemetry.otlp_endpoint == "http://localhost:4318"
    (install,) = blocks("Telemetry", "bash")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    assert re.findall(r"flowd\[(\w+)\]", install) == ["telemetry"] and "telemetry" in extras

    entry_points = tomllib.loads(blocks("Handlers of your own", "toml")[1])["project"]
    assert list(entry_points["entry-points"]) == [ENTRY_POINT_GROUP]

    names: dict[str, Any] = {"GreetConfig": dict}
    (signature,) = blocks("Handlers of your own", "python")
    exec(signature, names)
    assert callable(names["greet"])
    assert names["Fail"] is Fail


@pytest.mark.skipif(shutil.which("curl") is None, reason="it is sent with curl")
def test_an_approval_goes_as_it_is_told(run_flowd: Callable[..., Flowd], tmp_path: Path) -> None:
    flowd = run_flowd("start", "--workers", "1")
    flowd.wait_until_running()
    (release,) = blocks("Approvals and signals", "yaml")
    (tmp_path / "release.yaml").write_text(release)
    (session,) = blocks("Approvals and signals", "console")
    (curl,) = blocks("Answering", "bash")
    (answer,) = blocks("Answering", "json")

    def run(line: str) -> str:
        ended = subprocess.run(
            [sys.executable, "-m", "flowd.cli.main", *line.removeprefix("$ flowd ").split()],
            cwd=tmp_path,
            env={**clean_environ(), "FLOWD_URL": flowd.url},
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    submit, explain, *others = session.splitlines()
    first = run(submit).strip()
    question = "Ship 1.4? Simulated call to http://service-a"
    wait_until(lambda: question in run(explain), "the question")
    output = json.loads([run(line) for line in others][-1])
    assert (output["data"], output["timed_out"]) == ({"approved": True}, False)
    assert "ship" in flowd.api.execution_results(first)

    shown_id, second = json.loads(answer)["execution_id"], run(submit).strip()
    command = curl.replace("http://localhost:8000", flowd.url).replace(shown_id, second)
    ended = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, timeout=PATIENCE_S
    )
    seen, shown = json.loads(ended.stdout), json.loads(answer)
    seen["decision"]["at_ms"] = shown["decision"]["at_ms"]
    assert seen == {**shown, "execution_id": second}
    assert flowd.wait_for_execution(second) == "COMPLETED"


@pytest.mark.skipif(shutil.which("curl") is None, reason="it is sent with curl")
def test_a_schedule_goes_as_it_is_told(run_flowd: Callable[..., Flowd], tmp_path: Path) -> None:
    flowd = run_flowd("start", "--workers", "1")
    flowd.wait_until_running()
    (report,) = blocks("Schedules", "json")
    (nightly,) = blocks("Schedules", "yaml")
    (curl,) = blocks("Schedules", "bash")
    (session,) = blocks("Schedules", "console")
    (tmp_path / "report.json").write_text(report)
    (tmp_path / "nightly.yaml").write_text(nightly)
    command = curl.replace("http://localhost:8000", flowd.url)
    saved = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert json.loads(saved.stdout)["version"] == 1

    told = []
    for line in session.splitlines():
        ended = subprocess.run(
            [sys.executable, "-m", "flowd.cli.main", *line.removeprefix("$ flowd ").split()],
            cwd=tmp_path,
            env={**clean_environ(), "FLOWD_URL": flowd.url},
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        told.append(ended.stdout)

    _, times, run, listed = told
    assert len(times.split()) == 5 and all("T06:30:00+0" in one for one in times.split())
    assert "30 6 * * 1-5 Europe/Berlin" in listed and times.split()[0] in listed
    execution_id = run.strip()
    assert flowd.wait_for_execution(execution_id) == "COMPLETED"
    results = flowd.api.execution_results(execution_id)
    assert "day=20" in results["fetch"]["data"]


def test_of_one_customer_one_execution_runs_at_a_time_as_it_is_told(
    run_flowd: Callable[..., Flowd], tmp_path: Path
) -> None:
    # Without a worker the first has not ended before the others were typed.
    flowd = run_flowd("start", "--workers", "0")
    flowd.wait_for_status(lambda status: status["state"] == "RUNNING", "the API")
    (written,) = blocks("At most so many at a time", "yaml")
    (tmp_path / "import.yaml").write_text(written)
    (session,) = blocks("At most so many at a time", "console")

    told = []
    for line in session.splitlines():
        ended = subprocess.run(
            [sys.executable, "-m", "flowd.cli.main", *line.removeprefix("$ flowd ").split()],
            cwd=tmp_path,
            env={**clean_environ(), "FLOWD_URL": flowd.url},
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        told.append(ended.stdout)

    first, second, explained = (one.strip() for one in told)
    assert "it waits for a place" in explained and first in explained
    ask(flowd.data_dir, "scale", workers=1)
    assert [flowd.wait_for_execution(one) for one in (first, second)] == ["COMPLETED"] * 2


@pytest.mark.skipif(shutil.which("curl") is None, reason="it is sent with curl")
def test_a_token_opens_what_it_is_said_to(run_flowd: Callable[..., Flowd], tmp_path: Path) -> None:
    flowd = run_flowd("start", "--workers", "1")
    flowd.wait_until_running()
    create = re.findall(r"```bash\nflowd (token create .*?)\n```", MANUAL)[0]
    made = subprocess.run(
        [sys.executable, "-m", "flowd.cli.main", *create.split()],
        cwd=tmp_path,
        env=clean_environ(),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    token = made.stdout.strip()
    assert token.startswith("flowd_")
    (curl,) = re.findall(r"```bash\n(curl -H .Authorization.*?)\n```", SECTIONS["Tokens"])
    command = curl.replace("http://localhost:8000", flowd.url).replace("flowd_...", token)

    def ask(command: str) -> Any:
        answer = subprocess.run(
            ["bash", "-c", command], capture_output=True, text=True, timeout=PATIENCE_S
        )
        return json.loads(answer.stdout)

    stranger = f"curl {flowd.url}/workflows"
    wait_until(lambda: ask(stranger).get("code") == "unauthenticated", "the token to count")
    assert ask(command) == {"workflows": [], "next_cursor": None}


def test_what_waits_is_seen_where_it_is_said_to_be(run_flowd: Callable[..., Flowd]) -> None:
    flowd = run_flowd("start", "--workers", "0")
    flowd.wait_for_status(lambda status: status["state"] == "RUNNING", "the API")
    execution_id = flowd.submit_and_trigger(node("A"), node("B", "A"))
    (shown,) = blocks("Redis", "bash")
    waiting, status = shown.replace("<execution_id>", execution_id).splitlines()
    with flowd.redis as redis:
        ((_, fields),) = redis.execute_command(*waiting.removeprefix("redis-cli ").split())
        assert (fields["execution_id"], fields["node_id"]) == (execution_id, "A")
        assert redis.execute_command(*status.removeprefix("redis-cli ").split()) == "RUNNING"


def test_an_event_comes_as_it_is_shown(run_flowd: Callable[..., Flowd]) -> None:
    flowd = run_flowd("start", "--workers", "1")
    flowd.wait_until_running()
    execution_id = flowd.submit_and_trigger(node("A"))
    flowd.wait_for_execution(execution_id)
    with urllib.request.urlopen(
        f"{flowd.url}/workflows/{execution_id}/events?types=node.completed", timeout=PATIENCE_S
    ) as stream:
        _, told = stream.read().decode().split("\n\n", 1)

    (shown,) = blocks("Events", "text")
    assert len(shown.splitlines()) == 3
    for line, example in zip(told.strip().splitlines(), shown.splitlines(), strict=True):
        name, _, value = line.partition(": ")
        assert name == example.partition(": ")[0]
        if name == "data":
            assert list(json.loads(value)) == list(json.loads(example.partition(": ")[2]))
        else:
            assert re.sub(r"\d+", "0", line) == re.sub(r"\d+", "0", example)
