"""`flowd apply`: what is saved is as the files say, whoever is killed in the middle of it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, get_args

import pytest

from flowd.api.routers import sets
from flowd.cli.kinds import KINDS
from flowd.client import ApiError, Client
from tests.daemon import PATIENCE_S
from tests.manual import blocks
from tests.process.flowd_process import Flowd, clean_environ

COUNT = 100


@pytest.fixture(scope="module")
def flowd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flowd]:
    folder = tmp_path_factory.mktemp("flowd")
    with Flowd(folder, ["start", "--workers", "0"]) as flowd:
        flowd.wait_for_status(lambda status: status["state"] == "RUNNING", "the API")
        yield flowd


class Applying:
    def __init__(self, url: str, folder: Path) -> None:
        self.url, self.folder = url, folder
        self.client = Client(url)

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "flowd.cli.main", "apply", "--url", self.url, *arguments],
            cwd=self.folder,
            env=clean_environ(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def apply(self, *arguments: str, code: int = 0) -> tuple[list[str], str]:
        """What it has done, a line each, and what it said beside."""
        process = self.start(*arguments)
        output, errors = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == code, output + errors
        return output.splitlines(), errors

    def saved(self) -> dict[str, Any]:
        """The latest version of each definition, and what each schedule says."""
        definitions = {one["name"]: one["version"] for one in self.client.definitions()}
        schedules = {one["name"]: one["cron"] for one in self.client.schedules()}
        return definitions | schedules


@pytest.fixture
def here(flowd: Flowd, tmp_path: Path) -> Iterator[Applying]:
    applying = Applying(flowd.url, tmp_path)
    with applying.client as client:
        yield applying
        for schedule in list(client.schedules()):
            client.delete_schedule(schedule["name"])
        for definition in list(client.definitions()):
            client.delete_definition(definition["name"])


def definition(name: str, handler: str = "noop") -> str:
    return f"name: {name}\ndag:\n  nodes:\n    - {{id: A, handler: {handler}}}\n"


def schedule(name: str, workflow: str, cron: str = "0 6 * * *") -> str:
    return f'name: {name}\nworkflow: {workflow}\ncron: "{cron}"\n'


def test_a_definition_and_its_schedule_stand_in_one_file(here: Applying) -> None:
    here.write("a.yaml", schedule("nightly", "report") + "---\n" + definition("report"))

    done, _ = here.apply("a.yaml")
    assert done == ["definition report created", "schedule nightly created"]
    done, said = here.apply("a.yaml")
    assert (done, said) == ([], "nothing changed: 2 unchanged\n")
    here.write("a.yaml", schedule("nightly", "report", "1 6 * * *"))
    here.write("b.yaml", definition("report", "delay, config: {seconds: 1}"))
    done, said = here.apply("a.yaml", "b.yaml")
    assert done == ["definition report changed (version 2)", "schedule nightly changed"]
    assert said == "2 changed\n"


def test_files_are_applied_as_the_manual_shows(here: Applying) -> None:
    here.write("nightly.yaml", blocks("Applying files", "yaml")[0])
    outputs = []
    for line in blocks("Applying files", "console")[0].splitlines():
        ended = subprocess.run(
            [sys.executable, "-m", "flowd.cli.main", *line.removeprefix("$ flowd ").split()],
            cwd=here.folder,
            env={**clean_environ(), "FLOWD_URL": here.url},
            capture_output=True,
            text=True,
            check=True,
            timeout=PATIENCE_S,
        )
        outputs.append(ended.stdout + ended.stderr)

    assert "would be created" in outputs[1]
    assert "schedule nightly created" in outputs[2]
    assert outputs[3] == "nothing changed: 2 unchanged\n"


def test_a_callback_of_a_schedule_is_compared_and_its_secret_is_not_shown(here: Applying) -> None:
    text = definition("report") + "---\n" + schedule("nightly", "report")
    telling = text + 'callback: {url: "https://example.com/a", secret: shared}\n'
    here.write("a.yaml", telling)
    here.apply("a.yaml")

    assert here.apply("a.yaml", "--diff")[0] == []
    assert here.apply("a.yaml")[0] == []
    here.write("a.yaml", telling.replace("/a", "/b"))
    changed, _ = here.apply("a.yaml", "--diff")
    assert "schedule nightly would be changed" in changed[0]
    assert "https://example.com/b" in "".join(changed) and "shared" not in "".join(changed)


def test_a_schedule_that_was_paused_by_hand_stays_paused(here: Applying) -> None:
    text = definition("report") + "---\n" + schedule("nightly", "report")
    here.write("a.yaml", text)
    here.apply("a.yaml")
    here.client.pause_schedule("nightly")

    assert here.apply("a.yaml") == ([], "nothing changed: 2 unchanged\n")
    assert here.client.schedule("nightly")["paused"] is True
    here.write("a.yaml", text + "paused: false\n")
    assert here.apply("a.yaml")[0] == ["schedule nightly changed"]


def test_a_diff_shows_every_place_that_would_change_and_changes_nothing(here: Applying) -> None:
    here.write("a.yaml", definition("report") + "---\n" + schedule("nightly", "report"))
    assert here.apply("a.yaml", "--diff")[0] == [
        "definition report would be created",
        "schedule nightly would be created",
    ]
    here.apply("a.yaml", "--set", "s")
    before = here.saved()
    here.write("a.yaml", definition("report", "delay, config: {seconds: 1}"))

    done, said = here.apply("a.yaml", "--diff", "--set", "s", "--prune")
    assert done == [
        "definition report would be changed",
        "  dag.nodes[0].handler",
        '    - "noop"',
        '    + "delay"',
        "  dag.nodes[0].config.seconds",
        "    - (missing)",
        "    + 1",
        "schedule nightly would be removed",
    ]
    assert said == "1 would be changed, 1 would be removed\n"
    assert here.saved() == before
    here.write("a.yaml", definition("report") + "---\n" + schedule("nightly", "report"))
    assert here.apply("a.yaml", "--diff") == ([], "nothing would change: 2 unchanged\n")


def test_a_diff_refuses_what_applying_would_refuse(here: Applying) -> None:
    here.write("a.yaml", definition("report"))
    here.apply("a.yaml")
    here.write(
        "b.yaml",
        definition("report", "delay, config: {seconds: 1}")
        + "---\n"
        + schedule("next", "report")
        + "version: 2\n---\n"
        + schedule("later", "report")
        + "version: 3\n---\n"
        + schedule("lost", "nobody"),
    )
    here.write("c.yaml", definition("labelled") + "labels: {team: 'a,b'}\n")

    for arguments in (("--diff",), ()):
        done, said = here.apply("b.yaml", "c.yaml", *arguments, code=1)
        assert any(line.startswith("schedule next ") for line in done)
        assert "version: definition 'report' has no version 3; its latest is 2\n" in said
        assert "workflow: no definition 'nobody' is saved; `flowd definitions ls`" in said
        assert "labels.team: bad value 'a,b'; use 1 to 100 characters" in said
        assert said.endswith("3 refused\n")


def test_a_diff_refuses_an_input_that_what_runs_then_would_not_take(here: Applying) -> None:
    closed = "input_schema: {required: [day], properties: {day: {type: string}}}\n"
    here.write("a.yaml", definition("report") + "---\n" + schedule("nightly", "report"))
    here.apply("a.yaml")
    for day in ("input: {day: 1}\n", ""):
        here.write(
            "b.yaml",
            definition("report") + closed + "---\n" + schedule("nightly", "report") + day,
        )
        for arguments in (("--diff",), ()):
            _, said = here.apply("b.yaml", *arguments, code=1)
            assert ("input.day: 1 is not of type" if day else "'day' is a required") in said
    # A version that stays as it is, and then the latest of those that are saved.
    for version, code in ((1, 0), (2, 1)):
        here.write("c.yaml", schedule("nightly", "report") + f"version: {version}\n")
        here.apply("c.yaml", "--diff", code=code)
    here.write("c.yaml", schedule("nightly", "report") + "input: {day: monday}\n")
    assert here.apply("c.yaml", "--diff")[0][0] == "schedule nightly would be changed"


def test_a_flowd_that_runs_is_asked_about_workflows_only(here: Applying) -> None:
    here.write("a.yaml", definition("report") + "---\n" + schedule("nightly", "report"))
    here.write("b.yaml", schedule("nightly", "report", "61 * * * *"))
    command = [sys.executable, "-m", "flowd.cli.main", "validate", "a.yaml", "--url", here.url]
    run = partial(
        subprocess.run, cwd=here.folder, env=clean_environ(), capture_output=True, text=True
    )

    assert run(command).stderr == "a.yaml is valid: 1 workflow of 1 node, 1 schedule\n"
    command[4] = "b.yaml"
    assert run(command).stderr.startswith("b.yaml:3: cron: bad minute")


def test_what_is_broken_keeps_no_other_from_being_applied(here: Applying) -> None:
    here.write("f/a.yaml", definition("a", "nop") + "---\n" + definition("good"))
    here.write("f/b.yaml", "name: [")
    here.write("f/c.yaml", definition("bad name"))
    here.write("f/d.json", "{}")
    here.write("f/e.yaml", definition("good"))
    here.write("f/f.yaml", schedule("s", "nobody") + "---\n" + schedule("t", "good", "61 * * * *"))

    here.write("f/g.yaml", schedule("u", "a"))

    done, said = here.apply("f", "nowhere.yaml", code=1)
    assert done == ["definition good created"]
    assert "\nflowd: cannot read nowhere.yaml: No such file" in f"\n{said}"
    for line in (
        "f/g.yaml:2: workflow: it is not saved: it was refused, as said above",
        "f/a.yaml:4: node 'A': handler: unknown handler 'nop'; did you mean 'noop'?",
        "f/b.yaml:2: this is neither JSON nor YAML",
        "f/c.yaml:1: name: bad name 'bad name'; use 1 to 100 letters",
        "f/d.json:1: name: a document that is applied needs a name",
        "f/e.yaml:1: name: the definition 'good' stands in f/a.yaml:5 already",
        "f/f.yaml:2: workflow: ",
        "'nobody'",
        "f/f.yaml:7: cron: ",
    ):
        assert line in said
    assert here.saved() == {"good": 1}


def test_a_prune_removes_what_the_set_has_made_and_nothing_else(here: Applying) -> None:
    here.write("other.yaml", definition("other"))
    here.apply("other.yaml", "--set", "others")
    here.write("by-hand.yaml", definition("by-hand"))
    here.apply("by-hand.yaml")
    here.write("f/a.yaml", definition("a") + "---\n" + schedule("s", "a"))
    here.write("f/b.yaml", definition("b"))
    here.apply("f", "--set", "mine")
    (here.folder / "f/a.yaml").unlink()

    assert here.apply("f", "--set", "mine") == ([], "nothing changed: 1 unchanged\n")
    assert here.apply("f", "--set", "mine", "--prune")[0] == [
        "schedule s removed",
        "definition a removed",
    ]
    assert here.saved() == {"b": 1, "by-hand": 1, "other": 1}
    assert here.client.applied_set("mine") == [{"kind": "definition", "name": "b"}]
    here.apply("f", "--prune", code=2)


def test_what_calls_another_is_pruned_before_that(here: Applying) -> None:
    # By their names, what is called would go first.
    for name, runs in (("a", None), ("b", "a"), ("c", "b")):
        text = definition(name, f"workflow, config: {{name: {runs}}}" if runs else "noop")
        here.write(f"f/{name}.yaml", text)
    here.apply("f", "--set", "mine")
    for name in "ab":
        (here.folder / f"f/{name}.yaml").unlink()
    assert "is run by the definition 'c'" in here.apply("f", "--set", "mine", "--prune", code=1)[1]

    (here.folder / "f/c.yaml").unlink()
    assert sorted(here.apply("f", "--set", "mine", "--prune")[0]) == [
        f"definition {name} removed" for name in "abc"
    ]


@pytest.mark.parametrize("diff", [(), ("--diff",)])
def test_what_calls_a_workflow_that_is_nowhere_is_refused(
    here: Applying, diff: tuple[str, ...]
) -> None:
    """It was saved with exit code 0, and could not be run: a schedule found that at night."""
    parent = definition("all", "workflow, config: {name: custmer}")
    here.write("a.yaml", parent + "---\n" + definition("customer"))

    _, said = here.apply("a.yaml", *diff, code=1)

    assert "a.yaml:4: node 'A': config.name: no definition 'custmer' is saved" in said
    assert "all" not in here.saved()
    here.write("b.yaml", definition("custmer"))
    here.apply("a.yaml", "b.yaml", *diff)
    if not diff:
        # Those that are saved already count, too.
        here.apply("a.yaml")


def test_a_set_of_which_no_file_is_left_can_be_pruned(here: Applying) -> None:
    here.write("f/a.yaml", definition("a") + "---\n" + schedule("s", "a"))
    here.apply("f", "--set", "emptied")
    (here.folder / "f/a.yaml").unlink()

    assert "holds no workflow" in here.apply("f", "--set", "emptied", code=1)[1]
    assert here.apply("f", "--set", "emptied", "--prune")[0] == [
        "schedule s removed",
        "definition a removed",
    ]
    assert here.saved() == {}
    assert here.client.applied_set("emptied") == []


def test_limits_are_applied_previewed_refused_and_pruned_as_the_others_are(here: Applying) -> None:
    api = "name: api\nmax: 3\nper_s: 10\n"
    here.write("l/api.yaml", api + "---\nname: gpu\nmax: 1\n")
    assert here.apply("l", "--diff")[0] == [
        "limit api would be created",
        "limit gpu would be created",
    ]
    assert here.apply("l", "--set", "limits")[0] == ["limit api created", "limit gpu created"]
    assert here.apply("l", "--set", "limits") == ([], "nothing changed: 2 unchanged\n")

    here.write("l/api.yaml", api.replace("3", "4"))
    assert here.apply("l", "--set", "limits", "--prune")[0] == [
        "limit api changed",
        "limit gpu removed",
    ]
    here.write("l/api.yaml", api.replace("3", "0") + "mox: 1\n")
    for flags in ((), ("--diff",)):
        assert "mox: unknown field" in "".join(map(str, here.apply("l", *flags, code=1)))
    (limit,) = here.client.limits()
    assert (limit["name"], limit["max"]) == ("api", 4)
    here.client.delete_limit("api")


def test_a_set_has_members_that_apply_knows_to_put(here: Applying) -> None:
    with pytest.raises(ApiError) as refused:
        here.client.put_set("mine", [{"kind": "workflow", "name": "a"}])
    assert refused.value.status == 400
    assert {kind.name for kind in KINDS} <= set(get_args(sets.Kind))


def test_nothing_is_removed_while_a_file_cannot_be_read(here: Applying) -> None:
    """It may hold what would be removed."""
    here.write("f/a.yaml", definition("a"))
    here.write("f/b.yaml", definition("b"))
    here.apply("f", "--set", "mine")
    here.write("f/a.yaml", "name: [")

    _, said = here.apply("f", "--set", "mine", "--prune", code=1)
    assert "nothing is removed, as some files cannot be read" in said
    assert here.saved() == {"a": 1, "b": 1}


def test_what_something_outside_the_set_needs_stays_and_is_told(here: Applying) -> None:
    here.write("f/a.yaml", definition("a"))
    here.write("f/b.yaml", definition("b"))
    here.apply("f", "--set", "mine")
    here.client.put_schedule("by-hand", {"workflow": "a", "every_s": 3600})
    (here.folder / "f/a.yaml").unlink()

    _, said = here.apply("f", "--set", "mine", "--prune", code=1)
    assert "definition a: " in said
    assert "by-hand" in said
    here.client.delete_schedule("by-hand")
    assert here.apply("f", "--set", "mine", "--prune")[0] == ["definition a removed"]


def test_a_hundred_files_twice_change_nothing_the_second_time(here: Applying) -> None:
    for at in range(COUNT):
        here.write(
            f"many/{at:03}.yaml", definition(f"w{at}") + "---\n" + schedule(f"s{at}", f"w{at}")
        )

    done, _ = here.apply("many", "--set", "many", "--prune")
    assert len(done) == 2 * COUNT
    before = here.saved()
    answer = json.loads("\n".join(here.apply("many", "--set", "many", "--prune", "--json")[0]))
    assert answer["changed"] is False
    assert {one["outcome"] for one in answer["documents"]} == {"unchanged"}
    assert here.apply("many") == ([], f"nothing changed: {2 * COUNT} unchanged\n")
    assert here.saved() == before


def test_one_that_was_killed_in_the_middle_is_applied_again_to_the_same_end(here: Applying) -> None:
    for at in range(COUNT):
        here.write(
            f"many/{at:03}.yaml", definition(f"w{at}") + "---\n" + schedule(f"s{at}", f"w{at}")
        )
    for reached in (3, 60):
        process = here.start("many", "--set", "many", "--prune")
        deadline = time.monotonic() + PATIENCE_S
        while len(list(here.client.definitions())) < reached and process.poll() is None:
            assert time.monotonic() < deadline
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=PATIENCE_S)
    # What was made before the kill, and is in no file any more.
    (here.folder / "many/000.yaml").unlink()

    here.apply("many", "--set", "many", "--prune")

    expected = {f"w{at}": 1 for at in range(1, COUNT)}
    assert here.saved() == expected | {f"s{at}": "0 6 * * *" for at in range(1, COUNT)}
    assert len(here.client.applied_set("many")) == 2 * (COUNT - 1)


def test_a_set_takes_over_what_another_has_made(here: Applying) -> None:
    here.write("a.yaml", definition("a"))
    here.apply("a.yaml", "--set", "one")
    here.apply("a.yaml", "--set", "two")
    here.write("b.yaml", definition("b"))

    here.apply("b.yaml", "--set", "one", "--prune")
    assert here.saved() == {"a": 1, "b": 1}
    with pytest.raises(ApiError, match="bad name"):
        here.client.put_set("no name", [])
