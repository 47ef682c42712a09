"""The field `limit`: what of it is refused, and which place a node takes."""

from __future__ import annotations

import json

import pytest

from flowd.errors import Fail, InvalidWorkflow
from flowd.workflow.graph import compile_plan
from flowd.workflow.limiting import Limit, place_of, split_place
from flowd.workflow.validator import validate_workflow

HANDLERS = dict.fromkeys(("noop", "signal", "delay", "workflow", "own"))


def validated(*nodes, **fields):
    document = {"name": "w", "dag": {"nodes": list(nodes)}, **fields}
    return validate_workflow(json.dumps(document).encode(), HANDLERS)


def problems(*nodes):
    with pytest.raises(InvalidWorkflow) as refused:
        validated(*nodes)
    return [(one.path, one.code) for one in refused.value.problems]


def node(limit, handler="noop", **more):
    return {"id": "A", "handler": handler, "limit": limit, **more}


@pytest.mark.parametrize(
    ("limit", "path", "code"),
    [
        (3, "limit", "wrong_type"),
        ([], "limit", "wrong_type"),
        ("", "limit", "invalid_value"),
        ("a b", "limit", "invalid_value"),
        ("a/b", "limit", "invalid_value"),
        ({}, "limit.name", "missing_field"),
        ({"name": "a:b"}, "limit.name", "invalid_value"),
        ({"name": "a", "kye": "x"}, "limit.kye", "unknown_field"),
        ({"name": "a", "key": 5}, "limit.key", "wrong_type"),
        ({"name": "a", "key": ""}, "limit.key", "invalid_value"),
        ({"name": "a", "key": "{{ input. }}"}, "limit.key", "malformed_template"),
        ({"name": "a", "key": "{{ B.x }}"}, "limit.key", "unknown_reference"),
        ({"name": "a", "key": "{{ item }}"}, "limit.key", "unknown_reference"),
    ],
)
def test_a_limit_that_makes_no_sense_is_refused_with_its_path(limit, path, code):
    assert problems(node(limit), {"id": "B", "handler": "noop"}) == [(f"dag.nodes[0].{path}", code)]


@pytest.mark.parametrize("handler", ["signal", "delay", "workflow"])
def test_a_node_that_does_nothing_but_wait_takes_no_limit(handler):
    assert ("dag.nodes[0].limit", "not_limitable") in problems(node("api", handler))


def test_own_handlers_take_limits_and_the_key_of_a_map_reads_its_items():
    fan = node({"name": "api", "key": "{{ item.tenant }}"}, "own", map={"over": "{{ input.rows }}"})
    plan = compile_plan(validated(fan, {"id": "B", "handler": "own", "limit": "api"}).to_json())

    assert plan.nodes["A"].asks is None
    assert plan.node("A.3").asks.inputs == ("item",)
    assert plan.nodes["B"].asks.limit.place({}) == "api"
    assert plan.language == 3


def test_a_workflow_without_limits_is_what_it_was():
    plan = compile_plan(validated({"id": "A", "handler": "noop"}).to_json())

    assert (plan.language, plan.nodes["A"].asks, plan.nodes["A"].is_static) == (0, None, True)


@pytest.mark.parametrize(
    ("key", "place"),
    [("acme", "api/acme"), (7, "api/7"), (True, "api/true"), (1.5, "api/1.5")],
)
def test_each_key_is_a_place_of_its_own(key, place):
    limit = Limit({"name": "api", "key": "{{ input.customer }}"})

    assert limit.place({"input": {"customer": key}}) == place
    assert split_place(place) == ("api", place.partition("/")[2])


def test_a_key_of_any_text_is_a_place_that_no_other_text_has():
    odd = ["a b", "a/b", "x:waiters", "", "ä", "\ud800", "x" * 65, "~" + "0" * 16]
    places = {place_of("api", key) for key in odd}

    assert len(places) == len(odd)
    assert all(" " not in one and one.startswith("api/~") for one in places)


@pytest.mark.parametrize("customer", [None, [], {}])
def test_a_key_that_is_no_text_fails_the_node(customer):
    limit = Limit({"name": "api", "key": "{{ input.customer }}"})

    with pytest.raises(Fail, match="the key of limit 'api' is"):
        limit.place({"input": {"customer": customer}})


def test_a_key_that_is_missing_fails_the_node():
    with pytest.raises(Fail, match="the key of limit 'api': 'input' has no key 'customer'"):
        Limit({"name": "api", "key": "{{ input.customer }}"}).place({"input": {}})
