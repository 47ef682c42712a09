"""What the model is worth: scripts broken on purpose, each of which it has to notice."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from flowd.store.redis import scripts
from tests.model.machine import Machine

# Enough to be sure of each within seconds; the example is found, not made small.
THOROUGH = settings(
    max_examples=400,
    stateful_step_count=60,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
    print_blob=False,
    report_multiple_bugs=False,
)

NO_FENCE = (r"if not end_entry\((.*?)\) then", r"end_entry(\1) if false then")
# Name, script, what is taken out of it, what stands there instead.
MUTATIONS = [
    ("no fence", "complete_nodes", r"if is_stale\[nth\] then", "if false then"),
    ("no fence at a failure", "fail_node", *NO_FENCE),
    ("no fence at a retry", "retry_node", *NO_FENCE),
    (
        "acknowledged first, committed never",
        "complete_nodes",
        r"writes\[size \+ 1\], writes\[size \+ 2\] = node, 'COMPLETED'",
        "size = size - 2",
    ),
    ("renewed without a look at the owner", "renew_lease", r"== 0 then", "== 2 then"),
    (
        "claimed without a look at the owner",
        "claim_nodes",
        r"if is_owner\(.*?\) then",
        "if true then",
    ),
    ("a death leaves the entry in place", "requeue_entry", r"redis\.call\('XDEL'.*?\)", ""),
    ("the attempt does not rise", "requeue_entry", r"attempt \+ 1", "attempt + 0"),
    ("deaths are forgotten", "requeue_entry", r"deaths = deaths \+ 1", "deaths = deaths"),
    (
        "a join opens at its first dependency",
        "complete_nodes",
        r"elseif arrived % ARRIVALS == tonumber\(needed\[join\]\)",
        "elseif arrived % ARRIVALS == 1",
    ),
    ("a pause is not heeded", "complete_nodes", r"if status == 'PAUSED' then", "if false then"),
    (
        "a cancelled node still commits",
        "complete_nodes",
        r"elseif not is_live\(status\) or not is_outstanding\(state\) or is_done",
        "elseif is_done",
    ),
    (
        "a failure stops at its neighbours",
        "fail_node",
        r"1 \+ fail_pending\(stream, continuations, execution_id, 15,",
        "1 + 0 * fail_pending(stream, continuations, execution_id, 16,",
    ),
    (
        "an ended execution stays active",
        "complete_nodes",
        r"redis\.pcall\('SREM', active, execution_id\)",
        "",
    ),
    (
        "a skip arrives as if completed",
        "skip_nodes",
        r"'node\.skipped', SKIPPED,",
        "'node.skipped', 1,",
    ),
    (
        "a failure opens what looks at it before all have ended",
        "fail_node",
        r"arrived % ARRIVALS == tonumber\(needed\)",
        "arrived % ARRIVALS == 1",
    ),
    ("no fence at a wait", "wait_nodes", r"if is_stale\[nth\] then", "if false then"),
    (
        "what has come before the wait is not looked for",
        "wait_nodes",
        r"if decision then",
        "if false then",
    ),
    (
        "the second to come decides too",
        "wake_node",
        r"if not decisions\[nth\] then",
        "if true then",
    ),
    (
        "a node that is woken keeps its record",
        "wake_node",
        r"redis\.pcall\('HDEL', prefix \.\. ':waits', unpack\(node_ids\)\)",
        "",
    ),
    (
        "how often it waited is forgotten",
        "requeue_entry",
        r"failures, waits\)\nannounce",
        "failures)\nannounce",
    ),
    ("failures are forgotten", "dispatch_retries", r"failures or '0'", "'0'"),
]


def test_every_mutation_changes_its_script():
    """One that does not is skipped by nobody, and found by those alone who run all of them."""
    texts = {one.name: one.text for one in scripts.ALL}
    assert [
        name
        for name, script, pattern, _ in MUTATIONS
        if not re.search(pattern, texts[script], flags=re.DOTALL)
    ] == []


# What is found within a second or two runs each time; the others with `-m thorough`, and within ten
# times as many examples.
SLOW = (
    "a skip arrives as if completed",
    "a failure opens what looks at it before all have ended",
    "failures are forgotten",
    "a cancelled node still commits",
    "a pause is not heeded",
    "deaths are forgotten",
    "a failure stops at its neighbours",
    "an ended execution stays active",
    "no fence at a failure",
    "no fence at a retry",
    "the attempt does not rise",
    "no fence at a wait",
    "what has come before the wait is not looked for",
    "the second to come decides too",
    "a node that is woken keeps its record",
    "how often it waited is forgotten",
)


@pytest.mark.parametrize(
    ("name", "pattern", "instead"),
    [
        pytest.param(*rest, id=name, marks=[pytest.mark.thorough] if name in SLOW else [])
        for name, *rest in MUTATIONS
    ],
)
def test_the_model_notices(request, server, redis, monkeypatch, name, pattern, instead):
    is_slow = request.node.get_closest_marker("thorough") is not None
    examples = (10 if is_slow else 1) * THOROUGH.max_examples
    original = getattr(scripts, name.upper())
    text, count = re.subn(pattern, instead, original.text, flags=re.DOTALL)
    assert count, "this mutation changes nothing"
    sha = redis.script_load(text)
    monkeypatch.setattr(scripts, name.upper(), replace(original, pieces=(text,), sha=sha))
    everything = [getattr(scripts, one.name.upper()) for one in scripts.ALL]
    monkeypatch.setattr(scripts, "ALL", tuple(everything))

    with pytest.raises(AssertionError):
        run_state_machine_as_test(
            lambda: Machine(server), settings=settings(THOROUGH, max_examples=examples)
        )
