"""`flowd validate`: what is wrong is said with its file, line and node, and no flowd runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from flowd.cli.lines import line_of, lines_in_json, lines_in_yaml
from flowd.cli.main import main
from flowd.cli.workflow_yaml import read_documents
from flowd.workflow.strict_json import join_path
from tests.manual import blocks

WRONG = """\
name: nightly
dag:
  nodes:
    - id: load
      handler: call_external_service
      config:
        ulr: http://example.com
    - {id: sum, handler: transfrm, dependencies: [laod]}
"""
GOOD = '{"name": "good", "dag": {"nodes": [{"id": "A", "handler": "noop"}]}}'
YAML = "name: good\ndag:\n  nodes: [{id: A, handler: noop}]\n"
OWN = """\
from pydantic import BaseModel
from flowd.handlers import handler

class Config(BaseModel):
    n: int

@handler("double")
def double(config: Config) -> dict:
    return {"n": 2 * config.n}
"""
USES_OWN = "name: own\ndag:\n  nodes:\n    - {id: A, handler: double, config: {n: %s}}\n"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FLOWD_URL", raising=False)
    return tmp_path


def validate(*arguments: str, code: int = 0, stdin: str | None = None) -> Result:
    ended = CliRunner().invoke(main, ["validate", *arguments], input=stdin)
    assert ended.exit_code == code, ended.output
    return ended


def write(folder: Path, **texts: str) -> None:
    for name, text in texts.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_a_problem_is_said_with_its_line_and_its_node(here: Path) -> None:
    write(here, a_yaml=WRONG)

    assert validate("a.yaml", code=1).stderr.splitlines() == [
        "a.yaml:7: node 'load': config.ulr: unknown key; did you mean 'url'?",
        "a.yaml:8: node 'sum': handler: unknown handler 'transfrm'; did you mean 'transform'?",
        "a.yaml:8: node 'sum': dependencies[0]: unknown node 'laod'; did you mean 'load'?",
    ]


def test_validate_says_what_the_manual_shows(here: Path) -> None:
    write(here, nightly_yaml=blocks("Checking workflows", "yaml")[0])

    assert validate("nightly.yaml", code=1).stderr == blocks("Checking workflows", "text")[0]


def test_the_same_is_said_of_json(here: Path) -> None:
    lines = '{"name": "x", "dag":\n{"nodes": [\n{"id": "A",\n"handler": "nop"}]}}'
    write(here, a_json=lines, b_json='{"name":\n]')

    assert validate("a.json", "b.json", code=1).stderr.splitlines() == [
        "a.json:4: node 'A': handler: unknown handler 'nop'; did you mean 'noop'?",
        (
            "b.json:2: the body is not valid JSON: unexpected character, expected a JSON value: "
            "line 2 column 1 (char 9)"
        ),
        "0 of 2 files are valid",
    ]


def test_each_document_of_a_file_is_checked_at_its_own_lines(here: Path) -> None:
    write(here, a_yaml=f"---\n{GOOD}\n---\n{WRONG}---\n")

    lines = validate("a.yaml", code=1).stderr.splitlines()
    assert [line.split(": ")[0] for line in lines] == ["a.yaml:10", "a.yaml:11", "a.yaml:11"]


def test_a_schedule_is_checked_with_a_name_or_without_one(here: Path) -> None:
    said = 'workflow: report\ncron: "0 6 * * *"\n'
    write(here, a_yaml=said, b_yaml=f"name: nightly\n{said}", c_yaml=f"{said}overlaps: skip\n")

    lines = validate("a.yaml", "b.yaml", "c.yaml", code=1).stderr.splitlines()
    assert "c.yaml:3: overlaps: unknown field; did you mean 'overlap'?" in lines
    assert lines[-1] == "2 of 3 files are valid"


def test_a_valid_file_is_said_to_hold_what_it_holds(here: Path) -> None:
    workflow = "name: w\ndag: {nodes: [{id: A, handler: noop}]}\n"
    timed = "name: s\nworkflow: w\nevery_s: 60\n"
    write(
        here,
        a_yaml=timed,
        b_yaml=f"{workflow}---\n{timed.replace('name: s', 'name: t')}",
        c_yaml=f"{workflow}---\n{workflow.replace('w', 'v')}",
        d_yaml=f"name: api\nmax: 3\n---\n{timed.replace(': s', ': u')}---\nname: mail\nper_s: 1\n",
    )

    assert validate("a.yaml", "b.yaml", "c.yaml", "d.yaml").stderr.splitlines() == [
        "a.yaml is valid: 1 schedule",
        "b.yaml is valid: 1 workflow of 1 node, 1 schedule",
        "c.yaml is valid: 2 workflows of 2 nodes",
        "d.yaml is valid: 1 schedule, 2 limits",
        "4 of 4 files are valid",
    ]


@pytest.mark.parametrize("text", ["", "\n", "# nothing yet\n", "---\n---\n", "null\n"])
def test_a_file_without_a_document_is_empty(here: Path, text: str) -> None:
    write(here, a_yaml=text)

    assert validate("a.yaml", code=1).stderr == "a.yaml: the file is empty\n"


def test_the_schema_of_an_editor_may_stand_beside_the_workflows(here: Path) -> None:
    """As the manual says to put it there, and to check the folder."""
    from flowd.cli.commands.schema import schema

    (here / "workflow.schema.json").write_text(CliRunner().invoke(schema).output)
    write(here, good_json=GOOD)

    assert validate(".").stderr == "good.json is a valid workflow of 1 node\n"
    assert "name: this field is required" in validate("workflow.schema.json", code=1).stderr


def test_a_name_that_stands_twice_in_a_file_is_said(here: Path) -> None:
    workflow = "name: w\ndag: {nodes: [{id: A, handler: noop}]}\n"
    timed = "name: w\nworkflow: w\nevery_s: 60\n"
    write(here, a_yaml=f"{workflow}---\n{timed}---\n{workflow}---\n{timed}", b_yaml=workflow)

    assert validate("a.yaml", "b.yaml", code=1).stderr.splitlines() == [
        "a.yaml:8: name: the definition 'w' stands in line 1 already",
        "a.yaml:11: name: the schedule 'w' stands in line 3 already",
        "b.yaml is a valid workflow of 1 node",
        "1 of 2 files are valid",
    ]


@pytest.mark.parametrize(
    "text", ["name: w\nmax: 3\n", "name: w\nworkflow: w\nevery_s: 60\n"], ids=["limit", "schedule"]
)
def test_what_only_apply_takes_stands_once_in_all_files(here: Path, text: str) -> None:
    """`flowd apply` refused the second, and `flowd validate` had called both valid."""
    write(here, f__a_yaml=text, f__b_yaml=f"{YAML}---\n{text}")

    said = validate("f", code=1).stderr.splitlines()

    (problem,) = (line for line in said if " already" in line)
    assert problem.startswith("f/b.yaml:5: name: the ")
    assert problem.endswith(" 'w' stands in f/a.yaml:1 already")


CALLS = "name: all\ndag:\n  nodes:\n    - {id: A, handler: workflow, config: {name: %s}}\n"


def test_a_saved_workflow_that_no_file_here_has_is_warned_of(here: Path) -> None:
    timed = "name: nightly\nworkflow: god\nevery_s: 60\n"
    write(here, f__a_yaml=CALLS % "goood", f__b_yaml=f"{YAML}---\n{timed}")

    said = validate("f").stderr.splitlines()

    hint = "; did you mean 'good'?"
    assert said[:2] == [
        f"warning: f/a.yaml:4: node 'A': config.name: no file here defines 'goood'{hint}",
        f"warning: f/b.yaml:6: workflow: no file here defines 'god'{hint}",
    ]
    write(here, f__a_yaml=CALLS % "good", f__b_yaml=GOOD)
    assert "warning" not in validate("f").stderr
    # One alone may run whatever is saved.
    write(here, f__a_yaml=CALLS % "elsewhere")
    assert "warning" not in validate("f/a.yaml").stderr


ASKS = """\
name: asks
queue: %s
dag:
  nodes:
    - {id: A, handler: noop, limit: %s}
    - {id: B, handler: noop, limit: {name: %s, key: x}, queue: urgnt}
  finally:
    - {id: C, handler: noop, queue: urgnt}
"""


def test_a_limit_that_no_file_makes_and_a_queue_that_no_worker_reads_are_warned_of(
    here: Path,
) -> None:
    """A slip in either was said by nobody: the limit held nothing back, the queue for ever."""
    groups = '[workers.groups.b]\ncount = 1\nqueues = ["gpu"]\n'
    write(here, a_yaml=ASKS % ("gpu", "apii", "apii"), b_yaml="name: api\nmax: 3\n")
    write(here, flowd_toml='[workers]\nqueues = ["urgent", "default"]\n' + groups)

    said = [one for one in validate("a.yaml", "b.yaml").stderr.splitlines() if "warning" in one]

    no_file, no_worker = "no file here makes the limit", "no worker of flowd.toml reads the queue"
    assert said == [
        f"warning: a.yaml:5: node 'A': limit: {no_file} 'apii'; did you mean 'api'?",
        f"warning: a.yaml:6: node 'B': queue: {no_worker} 'urgnt'; did you mean 'urgent'?",
    ]
    # Nothing is known of limits, and of queues where there is no flowd.toml.
    assert "limit" not in validate("a.yaml").stderr
    (here / "flowd.toml").unlink()
    assert "warning" not in validate("a.yaml").stderr


def test_where_workers_run_elsewhere_nothing_is_known_of_queues(here: Path) -> None:
    write(here, a_yaml=ASKS % ("gpu", "api", "api"), flowd_toml="[workers]\ncount = 0\n")
    assert "warning" not in validate("a.yaml").stderr


@pytest.mark.parametrize(
    "text", ["{{ execution.scheduled_at }}", "of {{input.day}}", "{{ execution.id | json }}"]
)
def test_a_template_in_the_input_of_a_schedule_is_refused_with_the_cure(
    here: Path, text: str
) -> None:
    """It was taken as it is written: the node got the literal text, the first time at night."""
    write(here, a_yaml=f'workflow: w\nevery_s: 60\ninput:\n  deep: [{{day: "{text}"}}]\n')

    said = validate("a.yaml", code=1).stderr

    assert "input: '{{" in said or "input: {{" in said, said
    assert "templates read execution.scheduled_at" in said


def test_braces_that_mean_nothing_to_flowd_stay_in_the_input_of_a_schedule(here: Path) -> None:
    write(here, a_yaml='workflow: w\nevery_s: 60\ninput: {mail: "Dear {{ name }}"}\n')

    validate("a.yaml")


@pytest.mark.parametrize("version", ["0", "newest", "1.5", "true", "null"])
def test_a_wrong_version_of_a_schedule_is_one_mistake(here: Path, version: str) -> None:
    write(here, a_yaml=f"workflow: w\nevery_s: 60\nversion: {version}\ninput: [1]\n")

    assert validate("a.yaml", code=1).stderr.splitlines() == [
        "a.yaml:3: version: write the number of a version, or 'latest'",
        "a.yaml:4: input: input should be an object",
    ]


def test_a_tab_is_named_as_what_it_is(here: Path) -> None:
    write(here, a_yaml="name: w\ndag:\n\tnodes: []\n")

    assert validate("a.yaml", code=1).stderr.startswith(
        "a.yaml:3: this is neither JSON nor YAML: nothing begins with this character; indent with "
    )


def test_a_broken_file_keeps_no_other_from_being_checked(here: Path) -> None:
    write(here, flows__a_yaml="name: [", flows__deep__b_json=GOOD, flows___hidden__c_json="{")

    said = validate("flows", "gone.yaml", code=1).stderr
    assert "flows/a.yaml:2: this is neither JSON nor YAML" in said
    assert "flows/deep/b.json is a valid workflow of 1 node\n" in said
    assert "flowd: cannot read gone.yaml: No such file or directory" in said
    assert "1 of 3 files are valid" in said
    assert "hidden" not in said


def test_a_folder_without_workflows_is_said(here: Path) -> None:
    write(here, empty__a_txt="x")

    assert "empty holds no workflow" in validate("empty", code=1).stderr


def test_for_programs_it_is_json(here: Path) -> None:
    write(here, a_yaml=WRONG, b_json=GOOD)

    answer = json.loads(validate("--json", "a.yaml", "b.json", code=1).stdout)
    assert (answer["valid"], answer["nodes"]) == (False, 1)
    assert [one["valid"] for one in answer["files"]] == [False, True]
    assert answer["files"][0]["problems"][0] == {
        "line": 7,
        "node_id": "load",
        "path": "dag.nodes[0].config.ulr",
        "code": "unknown_config",
        "message": "unknown key; did you mean 'url'?",
    }
    assert json.loads(validate("-o", "json", "b.json").stdout)["valid"] is True


def test_stdin_is_checked() -> None:
    assert "stdin is a valid workflow of 1 node" in validate("-", stdin=GOOD).stderr
    assert "stdin:8: node 'sum'" in validate("-", stdin=WRONG, code=1).stderr


def test_handlers_of_the_settings_beside_the_file_are_known(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.path", __import__("sys").path[:])
    toml = '[handlers]\nmodules = ["own_of_validate"]\n'
    write(here, shop__flowd_toml=toml, shop__a_yaml=USES_OWN % 2, shop__b_yaml=USES_OWN % "x")
    (here / "shop/own_of_validate.py").write_text(OWN)

    validate("shop/a.yaml")
    said = validate("shop", code=1).stderr
    assert "shop/b.yaml:4: node 'A': config.n: input should be a valid integer" in said
    assert "1 of 2 files are valid" in said
    write(here, elsewhere__a_yaml=USES_OWN % 2)
    assert "unknown handler 'double'" in validate("elsewhere", code=1).stderr
    validate("elsewhere", "--config", "shop/flowd.toml")


def test_broken_handlers_and_settings_have_an_exit_code_of_their_own(here: Path) -> None:
    write(here, a_json=GOOD, flowd_toml='[handlers]\nmodules = ["not_there_at_all"]\n')
    assert "flowd.toml:2: the module " in validate("a.json", code=78).stderr

    write(here, flowd_toml="[api]\nprot = 1\n")
    assert "did you mean 'port'?" in validate("a.json", code=78).stderr


def test_what_is_too_long_for_the_api_is_refused(here: Path) -> None:
    write(here, a_json=GOOD + " " * 2_000, flowd_toml="[api]\nbody_max_mb = 0.001\n")

    assert "longer than the limit of 1,048 bytes" in validate("a.json", code=1).stderr


VALUES = st.recursive(
    st.just(0),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "b.c", "d e", "f[0]", "é"]), inner, max_size=3)
    ),
    max_leaves=12,
)


def places(value: Any, path: str = "") -> Iterator[str]:
    if path:
        yield path
    if isinstance(value, dict):
        for key, child in value.items():
            yield from places(child, join_path(path, key))
    elif isinstance(value, list):
        for index, child in enumerate(value):
            yield from places(child, f"{path}[{index}]")


def expected_lines(value: Any, path: str, line: int) -> tuple[dict[str, int], int]:
    """By place, and the line behind: as `json.dumps(indent=0)` writes it."""
    found = {path: line} if path else {}
    if not isinstance(value, dict | list) or not value:
        return found, line
    children = (
        [(join_path(path, key), child) for key, child in value.items()]
        if isinstance(value, dict)
        else [(f"{path}[{at}]", child) for at, child in enumerate(value)]
    )
    for place, child in children:
        inner, line = expected_lines(child, place, line + 1)
        found |= inner
    return found, line + 1


@given(st.dictionaries(st.sampled_from(["x", "y z"]), VALUES, max_size=2))
def test_every_place_is_found_at_its_line(document: dict[str, Any]) -> None:
    text = json.dumps(document, indent=0, ensure_ascii=False)
    expected, _ = expected_lines(document, "", 1)
    wanted = list(places(document))

    in_json = lines_in_json(text, wanted)
    (tree,) = [one.tree for one in read_documents(text.encode())]
    in_yaml = lines_in_yaml(tree, wanted)
    assert {one: in_json.get(one) for one in wanted} == expected
    assert {one: in_yaml.get(one) for one in wanted} == expected


def test_a_place_that_is_not_there_is_what_is_around_it() -> None:
    (tree,) = [one.tree for one in read_documents(b"a:\n  b:\n    - {c: 1}\n")]

    assert line_of("a.b[0].nothing", lines_in_yaml(tree, ["a.b[0].nothing"])) == 3
    assert line_of("z", lines_in_yaml(tree, ["z"])) == 1


def test_an_alias_is_found_where_it_is_written() -> None:
    (tree,) = [one.tree for one in read_documents(b"x: &a\n  c: 1\ny: *a\n")]

    assert lines_in_yaml(tree, ["y.c"])["y.c"] == 2


def test_what_an_alias_of_itself_holds_ends() -> None:
    tree = yaml.compose("&a [*a]")

    assert line_of("[0][0][0]", lines_in_yaml(tree, ["[0][0][0]"])) == 1
