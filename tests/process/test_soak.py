"""What a soak makes of what it has seen; .ci/run has a whole one, of a minute."""

from __future__ import annotations

import json
import random

import pytest

from flowd.store.redis import keys
from flowd.workflow.graph import nodes_of
from scripts.soaking.__main__ import _kinds, main
from scripts.soaking.applies import SCHEDULES, SET, Applies
from scripts.soaking.checker import Execution
from scripts.soaking.families import SAVED
from scripts.soaking.faults import KINDS, UPGRADES, Fault
from scripts.soaking.gates import asking, check_answers
from scripts.soaking.ledger import CANCELLED, END, START, Note
from scripts.soaking.recovery import recoveries, silences
from scripts.soaking.report import as_text
from scripts.soaking.schedules import WORKFLOW
from scripts.soaking.shapes import (
    _choosing,
    corrected,
    expected_states,
    expected_status,
    random_workflow,
)
from scripts.soaking.soak import Outcome


def test_a_fault_that_never_happened_makes_a_soak_void():
    outcome = Outcome(1, 1.0, ["kill_api", "hold"], faults=[Fault("hold", 1.0)])
    assert (outcome.missing, outcome.exit_code) == (["kill_api"], 2)
    assert "void: these never happened: kill_api" in as_text(outcome)
    outcome.violations.append("something")
    assert outcome.exit_code == 1


def test_an_unknown_fault_is_named(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--faults", "kill_time"])
    assert ended.value.code == 2
    assert "unknown faults kill_time" in capsys.readouterr().err


def test_versions_change_only_where_that_is_asked_for():
    """An older process keeps all but the oldest workflows out of the mixture."""
    assert UPGRADES not in _kinds(None, 5.0, (UPGRADES,))
    assert set(_kinds(None, 5.0, ())) == set(KINDS)
    assert _kinds(UPGRADES, 1.0, (UPGRADES,)) == [UPGRADES]


def test_the_mixture_has_all_that_a_workflow_can_say():
    chance = random.Random(1)
    nodes = [one for _ in range(100) for one in nodes_of(json.loads(random_workflow(chance)))]
    said = {name for one in nodes for name in one} | {one["handler"] for one in nodes}
    assert {"when", "after", "allow_failure", "repeat", "map", "signal", "delay"} <= said
    assert {"limit", "queue", "cache"} <= said
    assert {"Tidy", "Told", "Swept"} <= {one["id"] for one in nodes}
    assert any(one["map"].get("fail_fast") for one in nodes if "map" in one)
    called = {one["config"]["name"] for one in nodes if one["handler"] == "workflow"}
    assert called | {"child-good"} == set(SAVED)
    assert any("map" in one for one in nodes if one["handler"] == "workflow")


def test_a_correction_mends_what_fails_and_leaves_the_definition_it_was_made_of():
    hopeless = {"id": "N0", "handler": "ledger_hopeless", "dependencies": []}
    quick = {**hopeless, "handler": "ledger_quick"}
    other = {"id": "N1", "handler": "ledger_failing", "dependencies": ["N0"]}
    definition = {"name": "soak", "dag": {"nodes": [hopeless, other]}}
    before = json.dumps(definition)

    mended = corrected(definition, random.Random(1))
    assert mended["dag"]["nodes"] == [{**quick, "config": {}}, other]
    assert json.dumps(definition) == before
    (changed,) = corrected({"dag": {"nodes": [quick]}}, random.Random(1))["dag"]["nodes"]
    assert changed["handler"] == "ledger_sleepy"


def test_what_was_applied_and_is_not_what_is_saved_is_seen(tmp_path, redis):
    applies = Applies(tmp_path / "applied", 1)
    applies.change(with_schedules=False)
    assert list(applies.check(redis)) == [], "it was not applied yet"
    applies.is_settled = True
    for kind, name in (member.split(" ") for member in applies.wanted):
        redis.hset(keys.SETS, f"{kind} {name}", SET)
        if kind == "definition":
            redis.zadd(keys.DEFINITIONS, {name: 0})
        else:
            redis.hset(keys.LIMITS, name, "1")
    assert list(applies.check(redis)) == []

    redis.zadd(keys.SCHEDULES, {SCHEDULES[0]: 0})
    redis.hset(keys.SETS, "definition gone", SET)
    redis.zrem(keys.DEFINITIONS, WORKFLOW)
    assert list(applies.check(redis)) == [
        "definition gone: the set owns it",
        f"definition {WORKFLOW}: it is not saved",
        f"schedule {SCHEDULES[0]}: it is saved, and in no file",
    ]


def test_a_recovery_is_the_time_until_each_node_that_was_cut_short_starts_again():
    def note(phase: str, node_id: str, attempt: int, pid: int, at_s: float) -> Note:
        return Note(phase, "e", node_id, attempt, pid, at_s)

    ledger = [
        note(START, "done", 1, 7, 1.0),
        note(END, "done", 1, 7, 1.1),
        note(START, "A", 1, 7, 2.0),
        note(START, "other", 1, 8, 2.1),
        note(START, "B", 1, 7, 2.2),
        note(START, "A", 2, 8, 3.5),
        note(START, "B", 2, 8, 13.0),
    ]
    kill = Fault("kill_worker", 3.0, 7, (7,), 3.0)
    found = recoveries([kill, Fault("reload", 9.0, "one", (), 10.0)], ledger)
    assert found == [("kill_worker", 0.5, True), ("kill_worker", 10.0, False)]


def test_who_thaws_after_its_work_was_given_away_has_lost_it():
    def note(phase: str, attempt: int, pid: int, at_s: float) -> Note:
        return Note(phase, "e", "A", attempt, pid, at_s)

    frozen = Fault("freeze_host", 3.0, "one", (7,), 45.0)
    first = note(START, 1, 7, 2.0)
    given_away = [first, note(START, 2, 8, 33.0), note(CANCELLED, 1, 7, 45.1)]
    assert recoveries([frozen], given_away) == [("freeze_host", 30.0, True)]
    kept = [first, note(END, 1, 7, 5.0), note(START, 2, 8, 33.0)]
    assert recoveries([frozen], kept) == []


def test_what_begins_after_redis_is_back_is_timed():
    notes = [Note(START, "e", "A", 1, 7, at_s) for at_s in (1.0, 3.5, 9.0)]
    faults = [Fault("kill_redis", 2.0, "redis", (), 3.0), Fault("kill_api", 2.0, 1, (), 2.0)]
    assert silences(faults, notes) == [("kill_redis", 0.5)]


def test_what_has_to_become_of_a_shape():
    def node(node_id: str, *above: str, handler: str = "ledger_quick", **more: object) -> object:
        return {"id": node_id, "handler": handler, "dependencies": list(above), **more}

    definition = {
        "dag": {
            "nodes": [
                node("A"),
                node("B", "A", handler="ledger_failing", config={"calls": 1}),
                node("C", "A", handler="ledger_hopeless"),
                node("D", "B", "C"),
                node("E", "B"),
            ]
        }
    }
    states = expected_states(definition)
    assert states == {
        "A": "COMPLETED",
        "B": "COMPLETED",
        "C": "FAILED",
        "D": "FAILED",
        "E": "COMPLETED",
    }
    assert expected_status(definition, states) == "FAILED"
    assert expected_states(definition, ["B"])["E"] == "FAILED"
    # A rerun from C that leaves B out.
    settled = {"A": "COMPLETED", "B": "FAILED", "D": "FAILED", "E": "FAILED"}
    assert expected_states(definition, settled=settled) == {**settled, "C": "FAILED"}


def test_what_has_to_become_of_nodes_that_ask():
    first = {"id": "N0", "handler": "ledger_quick", "dependencies": []}
    definition = {"dag": {"nodes": [first, *asking("N0", 0.1)]}}
    states = expected_states(definition)
    assert states == {
        **dict.fromkeys(("N0", "Asked", "Later", "Due", "Answered"), "COMPLETED"),
        "Refused": "FAILED",
    }
    assert expected_status(definition, states) == "COMPLETED"


def answered(**output: object) -> Execution:
    nodes = {"Asked": "COMPLETED"}
    definition = {"dag": {"nodes": [{"id": "Asked", "handler": "signal"}]}}
    return Execution("e", "COMPLETED", definition, {}, {}, nodes, {"Asked": json.dumps(output)})


def test_an_answer_that_was_recorded_and_is_not_the_outcome_is_found():
    decision = {"data": 1, "rejected": None, "timed_out": False, "by": None, "at_ms": 5}
    good = {"data": 1, "timed_out": False, "by": None, "at_ms": 5}
    assert list(check_answers([answered(**good)], {("e", "Asked"): decision}, {})) == []
    for wrong in ({"data": 2}, {"timed_out": True}, {"at_ms": 6}):
        found = list(check_answers([answered(**{**good, **wrong})], {("e", "Asked"): decision}, {}))
        assert len(found) == 1 and found[0].startswith("e Asked: it was answered")
    assert len(list(check_answers([answered(**good)], {}, {}))) == 1
    assert list(check_answers([answered(**good)], {}, {"e": {"Asked": "COMPLETED"}})) == []
    assert list(check_answers([answered(**{**good, "timed_out": True})], {}, {})) == []


def test_what_has_to_become_of_nodes_that_choose():
    nodes = _choosing("N0")
    for handler, mended, joined in (
        ("ledger_quick", "SKIPPED", "COMPLETED"),
        ("ledger_hopeless", "COMPLETED", "FAILED"),
    ):
        definition = {
            "dag": {"nodes": [{"id": "N0", "handler": handler, "dependencies": []}, *nodes]}
        }
        states = expected_states(definition)
        fails = handler == "ledger_hopeless"
        assert states == {
            "N0": "FAILED" if fails else "COMPLETED",
            "Arm": "FAILED" if fails else "SKIPPED",
            "Below": "FAILED" if fails else "SKIPPED",
            "Mended": mended,
            "May": "FAILED",
            "Other": joined,
            "Joined": joined,
            "Last": "COMPLETED",
        }
        assert expected_status(definition, states) == ("FAILED" if fails else "COMPLETED")
