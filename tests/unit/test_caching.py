"""The field `cache`: what of it is refused, and which calls are equal."""

from __future__ import annotations

import json

import pytest

from flowd.errors import InvalidWorkflow
from flowd.workflow.caching import Cache, names_under
from flowd.workflow.graph import compile_plan
from flowd.workflow.templating import CompiledConfig
from flowd.workflow.validator import validate_workflow

HANDLERS = dict.fromkeys(("noop", "signal", "delay", "workflow", "own"))


def validated(*nodes):
    document = {"name": "w", "dag": {"nodes": list(nodes)}}
    return validate_workflow(json.dumps(document).encode(), HANDLERS)


def problems(*nodes):
    with pytest.raises(InvalidWorkflow) as refused:
        validated(*nodes)
    return [(one.path, one.code) for one in refused.value.problems]


def node(cache, handler="noop", **more):
    return {"id": "A", "handler": handler, "cache": cache, **more}


@pytest.mark.parametrize(
    ("cache", "path", "code"),
    [
        (3600, "cache", "wrong_type"),
        ({}, "cache.ttl_s", "missing_field"),
        ({"key": "x"}, "cache.ttl_s", "missing_field"),
        ({"ttl_s": 0}, "cache.ttl_s", "invalid_value"),
        ({"ttl_s": 1e12}, "cache.ttl_s", "invalid_value"),
        ({"ttl_s": "1h"}, "cache.ttl_s", "invalid_value"),
        ({"ttl": 60, "ttl_s": 60}, "cache.ttl", "unknown_field"),
        ({"ttl_s": 60, "key": ""}, "cache.key", "invalid_value"),
        ({"ttl_s": 60, "key": 5}, "cache.key", "wrong_type"),
        ({"ttl_s": 60, "key": "{{ input. }}"}, "cache.key", "malformed_template"),
        ({"ttl_s": 60, "key": "{{ C.x }}"}, "cache.key", "unknown_reference"),
        ({"ttl_s": 60, "key": "{{ B.x }}"}, "cache.key", "not_upstream"),
        ({"ttl_s": 60, "key": "{{ item }}"}, "cache.key", "unknown_reference"),
    ],
)
def test_a_cache_that_makes_no_sense_is_refused_with_its_path(cache, path, code):
    assert problems(node(cache), {"id": "B", "handler": "noop"}) == [(f"dag.nodes[0].{path}", code)]


@pytest.mark.parametrize("handler", ["signal", "delay", "workflow"])
def test_a_node_that_does_nothing_but_wait_is_not_cached(handler):
    assert ("dag.nodes[0].cache", "not_cacheable") in problems(node({"ttl_s": 60}, handler))


def test_a_node_that_is_called_until_its_output_changes_is_not_cached():
    repeated = node({"ttl_s": 60}, repeat={"until": "output.done"})
    assert problems(repeated) == [("dag.nodes[0].cache", "not_cacheable")]


def test_a_key_reads_what_the_config_may_and_the_items_of_a_map():
    key = {
        "ttl_s": 60,
        "key": "{{ B.x }} {{ item }} {{ index }} {{ input.y }} {{ execution.name }}",
    }
    fan = node(key, "own", dependencies=["B"], map={"over": "{{ input.rows }}"})
    plan = compile_plan(validated({"id": "B", "handler": "noop"}, fan).to_json())

    assert plan.nodes["A"].asks is None, "the node itself reads its list"
    assert plan.node("A.3").asks.inputs == ("B", "item", "index", "input", "execution")
    assert not plan.nodes["B"].is_static


def name(config=None, inputs=None, handler="llm", **written):
    made = Cache({"ttl_s": 60, **written}).name(handler, CompiledConfig(config or {}), inputs or {})
    return made and made[0]


def test_equal_configs_are_equal_calls_however_they_are_written():
    one = {"url": "{{ A.url }}", "headers": {"a": "1", "b": "2"}}
    same = {"headers": {"b": "2", "a": "{{ B.n }}"}, "url": "http://x"}
    inputs = {"A": {"url": "http://x"}, "B": {"n": "1"}}

    assert name(one, inputs) == name(same, inputs)
    assert name(one, inputs) != name(one, {**inputs, "A": {"url": "http://y"}})
    assert name(one, inputs) != name(one, inputs, handler="own")
    assert name({"n": 1}) != name({"n": "1"}) != name({"n": True})


def test_a_secret_counts_by_its_name_and_never_by_its_value():
    config = {"token": {"$secret": "API_KEY"}}
    made = Cache({"ttl_s": 60}).name("llm", CompiledConfig(config), {})
    assert made[1] == b'{"token":{"$secret":"API_KEY"}}'


@pytest.mark.parametrize(
    ("value", "made"),
    [
        ("berlin", "llm/=berlin"),
        ("", "llm/="),
        (5, "llm/=5"),
        (True, "llm/=true"),
        ([1, {"b": 2, "a": 1}], 'llm/=[1,{"a":1,"b":2}]'),
        (None, None),
    ],
)
def test_a_key_names_what_is_kept_and_null_is_no_key(value, made):
    assert name(inputs={"input": {"city": value}}, key="{{ input.city }}") == made


def test_a_key_that_cannot_be_made_and_a_config_that_cannot_are_none():
    assert name(inputs={"input": {}}, key="{{ input.city }}") is None
    assert name({"city": "{{ input.city }}"}, {"input": {}}) is None


def test_long_keys_stay_apart_and_begin_as_they_are_written():
    made = {name(key="x" * 200 + str(at)) for at in range(3)}
    assert len(made) == 3
    assert all(one.startswith(names_under("llm", "x" * 100)) for one in made)
    assert all(len(one) < 200 for one in made)
