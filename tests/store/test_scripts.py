"""The scripts as a whole: each says what it answers, and each answer is tested."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from flowd.store.redis import scripts

HERE = Path(__file__).parent
LUA = Path(scripts.__file__).parent.parent / "lua"


def outcome_words(script: scripts.Script) -> set[str]:
    """What a script's head says it returns: the quoted words behind RETURNS."""
    head = (LUA / f"{script.name}.lua").read_text()
    (returns,) = re.findall(r"^-- RETURNS((?:.*\n)(?:--  .*\n)*)", head, re.MULTILINE)
    words = set(re.findall(r"'(\w+)'", returns))
    assert words or re.search("offset|how many|the ids|names", returns), (
        f"{script.name} does not say what it returns"
    )
    return words


def asserted_words(script: scripts.Script) -> set[str]:
    """The strings that stand in an assert statement of this script's test file."""
    tree = ast.parse((HERE / f"test_{script.name}.py").read_text())
    return {
        constant.value
        for statement in ast.walk(tree)
        if isinstance(statement, ast.Assert)
        for constant in ast.walk(statement)
        if isinstance(constant, ast.Constant) and isinstance(constant.value, str)
    }


@pytest.mark.parametrize("script", scripts.ALL, ids=lambda script: script.name)
def test_every_outcome_of_a_script_is_tested(script):
    assert outcome_words(script) - asserted_words(script) == set()


def test_every_lua_file_is_a_script_or_a_fragment_of_one():
    assert {file.stem for file in LUA.glob("*.lua")} == {script.name for script in scripts.ALL}
    texts = [file.read_text() for file in LUA.rglob("*.lua")]
    used = {fragment for text in texts for fragment, _ in scripts._USE.findall(text)}
    used |= {fragment for text in texts for fragment in scripts._THEN.findall(text)}
    assert {file.stem for file in (LUA / "shared").glob("*.lua")} == used


@pytest.mark.parametrize("script", scripts.ALL, ids=lambda script: script.name)
def test_what_a_script_makes_when_it_is_called_for_is_in_it_once(script):
    made = re.findall(r"^if name == '(\w+)' then$", script.text, re.MULTILINE)
    called_for = set(re.findall(r"made\('(\w+)'\)", script.text))

    assert sorted(made) == sorted(called_for)
    assert "\n--" not in script.text


def test_the_scripts_of_the_main_street_stay_small():
    """The server's collector of garbage walks over all of them again and again: together they have
    to stay in the cache of a processor, and what they compile to is some five times as long."""
    of_a_lone_hop = (scripts.SUBMIT_WORKFLOW, scripts.TRIGGER_WORKFLOW, scripts.COMPLETE_NODES)
    assert sum(len(one.text) for one in of_a_lone_hop) < 71_000


@pytest.mark.parametrize("script", scripts.ALL, ids=lambda script: script.name)
def test_a_script_is_known_to_the_server_by_the_sum_of_its_text(script, redis):
    assert redis.script_load(script.text) == script.sha


@pytest.mark.parametrize("script", scripts.ALL, ids=lambda script: script.name)
def test_a_head_names_keys_arguments_and_outcomes(script):
    text = (LUA / f"{script.name}.lua").read_text()

    assert text.startswith("#!lua")
    places = [text.find(f"\n-- {word}") for word in ("KEYS", "ARGV", "RETURNS")]
    assert -1 not in places
    assert places == sorted(places)


def test_only_what_makes_new_work_is_refused_by_a_full_server():
    refused = {script.name for script in scripts.ALL if "allow-oom" not in script.text}

    begin = {
        "stage_nodes", "submit_workflow", "trigger_workflow", "run_workflow", "fire_schedule",
        "start_children", "settle_places",
    }  # fmt: skip
    assert refused == {
        *begin,
        "append_log",
        "find_outputs",
        "keep_outputs",
        "stage_items",
        "stage_map",
        "wake_node",
        "put_definition",
        "put_schedule",
    }
