"""Every way a workflow can be wrong, reported all at once, and never anything but a refusal."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowd.errors import InvalidWorkflow, Problem
from flowd.workflow.definition import WorkflowDefinition
from flowd.workflow.report import PROBLEMS_MAX
from flowd.workflow.validator import CONFIG_LEVELS_MAX, NODES_MAX, validate_workflow

HANDLERS = dict.fromkeys(("noop", "call_external_service", "llm"))


def node(node_id: Any, *dependencies: Any, handler: Any = "noop", **config: Any) -> dict[str, Any]:
    return {
        "id": node_id,
        "handler": handler,
        "dependencies": list(dependencies),
        "config": config,
    }


def workflow(*nodes: Any, **fields: Any) -> dict[str, Any]:
    return {"name": "test", "dag": {"nodes": list(nodes)}, **fields}


def validate(document: Any) -> WorkflowDefinition:
    body = document if isinstance(document, bytes) else orjson.dumps(document)
    return validate_workflow(body, HANDLERS)


def problems(document: Any) -> tuple[Problem, ...]:
    with pytest.raises(InvalidWorkflow) as refused:
        validate(document)
    assert refused.value.problems
    return refused.value.problems


def found(document: Any) -> list[tuple[str, str]]:
    return [(problem.path, problem.code) for problem in problems(document)]


def texts(document: Any) -> list[str]:
    return [str(problem) for problem in problems(document)]


def test_a_good_workflow_is_returned_with_its_defaults() -> None:
    good = workflow({"id": "A", "handler": "noop"}, node("B", "A", prompt="{{ A.data }}"))
    accepted = validate(good)
    assert [one.id for one in accepted.dag.nodes] == ["A", "B"]
    assert accepted.dag.nodes[0].dependencies == []
    assert accepted.dag.nodes[0].config == {}
    assert accepted.dag.nodes[1].config == {"prompt": "{{ A.data }}"}


def test_everything_wrong_is_reported_at_once() -> None:
    wrong = workflow(
        node("fetch"),
        node("a:b"),
        node("C", "fetsh", "fetch", "fetch", 3, handler="nop"),
        node("C", "C"),
        node("D", "E", x="{{ D.x }} {{ Q }} {{ fetch.y }} {{"),
        node("E", "D"),
        7,
        {"id": "F", "handlr": "noop", "dependencies": "x", "config": {"{{ fetch }}": 1}},
        {"id": 9, "handler": None, "config": []},
        nmae="w",
    )
    assert sorted(found(wrong)) == sorted(
        [
            ("dag.nodes[1].id", "bad_id"),
            ("dag.nodes[2].handler", "unknown_handler"),
            ("dag.nodes[2].dependencies[0]", "unknown_dependency"),
            ("dag.nodes[2].dependencies[2]", "duplicate_dependency"),
            ("dag.nodes[2].dependencies[3]", "wrong_type"),
            ("dag.nodes[3].id", "duplicate_id"),
            ("dag.nodes[3].dependencies[0]", "cycle"),
            ("dag.nodes[4].dependencies[0]", "cycle"),
            ("dag.nodes[4].config.x", "unknown_reference"),
            ("dag.nodes[4].config.x", "not_upstream"),
            ("dag.nodes[4].config.x", "malformed_template"),
            ("dag.nodes[6]", "wrong_type"),
            ("dag.nodes[7].handlr", "unknown_field"),
            ("dag.nodes[7].dependencies", "wrong_type"),
            ("dag.nodes[7].config", "template_in_key"),
            ("dag.nodes[8].id", "wrong_type"),
            ("dag.nodes[8].handler", "wrong_type"),
            ("dag.nodes[8].config", "wrong_type"),
            ("nmae", "unknown_field"),
        ]
    )


@pytest.mark.parametrize(
    ("document", "text"),
    [
        (
            workflow(node("fetch"), node("B", "fetsh")),
            "dag.nodes[1].dependencies[0]: unknown node 'fetsh'; did you mean 'fetch'?",
        ),
        (
            workflow(node("A"), node("B", "qqqqqq")),
            "dag.nodes[1].dependencies[0]: unknown node 'qqqqqq'",
        ),
        (
            workflow(node("A", handler="LLM")),
            "dag.nodes[0].handler: unknown handler 'LLM'; did you mean 'llm'?",
        ),
        (
            workflow(node("A", handler="email")),
            (
                "dag.nodes[0].handler: unknown handler 'email'; "
                "the handlers are call_external_service, llm, noop"
            ),
        ),
        (workflow(node("A"), depends=1), "depends: unknown field"),
        (
            workflow({"id": "A", "handler": "noop", "dependancies": []}),
            "dag.nodes[0].dependancies: unknown field; did you mean 'dependencies'?",
        ),
        (
            workflow(node("A"), node("B", x="{{ a.data }}")),
            "dag.nodes[1].config.x: template reads the unknown node 'a'; did you mean 'A'?",
        ),
        (
            workflow(node("A"), node("B", x=[{"y": "{{ A.data }}"}])),
            (
                "dag.nodes[1].config.x[0].y: template reads node 'A', which is not upstream of "
                "'B'; add 'A' to the dependencies of 'B'"
            ),
        ),
        (
            workflow(node("A", x="{{ A.data }}")),
            "dag.nodes[0].config.x: template in node 'A' reads the output of 'A', its own",
        ),
        (
            workflow(node("A", "A")),
            "dag.nodes[0].dependencies[0]: node 'A' depends on itself, a cycle A -> A; remove it",
        ),
        (
            workflow(node("A", "C"), node("B", "A"), node("C", "B")),
            (
                "dag.nodes[0].dependencies[0]: cycle A -> B -> C -> A; "
                "remove one of these dependencies"
            ),
        ),
        (
            workflow(node("A"), node("A")),
            "dag.nodes[1].id: duplicate node id 'A'; dag.nodes[0] has it already",
        ),
        (workflow(), "dag.nodes: a workflow needs at least one node"),
        (workflow(node("A"), name=7), "name: expected a string, not a number"),
    ],
)
def test_a_problem_says_where_it_is_and_what_to_do(document: Any, text: str) -> None:
    assert text in texts(document)


@pytest.mark.parametrize(
    "node_id", ["", "a:b", "a.b", "a\x00b", "..", "ä", "-a", "a b", "x" * 129, "x" * 10_000]
)
def test_a_bad_id_is_named_but_never_in_full_length(node_id: str) -> None:
    (problem,) = problems(workflow(node(node_id)))
    assert (problem.path, problem.code) == ("dag.nodes[0].id", "bad_id")
    assert len(problem.message) < 200


def test_a_dependency_on_a_node_with_a_bad_id_is_not_reported_as_unknown_too() -> None:
    assert found(workflow(node("a:b"), node("B", "a:b"))) == [("dag.nodes[0].id", "bad_id")]


def test_templates_may_read_any_upstream_node_not_only_direct_dependencies() -> None:
    validate(workflow(node("A"), node("B", "A"), node("C", "B", x="{{ A.x }} {{ B.y }}")))


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_json"),
        (b" \n", "invalid_json"),
        (b"nope", "invalid_json"),
        (b"{", "invalid_json"),
        (b"\xff\xfe{}", "invalid_json"),
        (b'{"name": "\xed\xa0\x80"}', "invalid_json"),
        (b'{"name": "\\ud800"}', "invalid_json"),
        (b'{"name": NaN}', "invalid_json"),
        (b'{"name": Infinity}', "invalid_json"),
        (b'{"name": 1e999}', "invalid_json"),
        (b'{"name": ' + b"1" * 5_000 + b"}", "invalid_json"),
        (b"[" * 100_000, "invalid_json"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "invalid_json"),
        (b'{"a":' * 500 + b"1" + b"}" * 500, "too_deep"),
        (b"[" + b"0," * 2_000_001 + b"0]", "too_many_values"),
        (b"[]", "wrong_type"),
        (b'"text"', "wrong_type"),
        (b"null", "wrong_type"),
    ],
)
def test_what_is_no_object_in_json_is_one_problem(body: bytes, code: str) -> None:
    (problem,) = problems(body)
    assert (problem.path, problem.code) == ("", code)
    assert len(problem.message) < 200


def test_keys_written_twice_are_found_wherever_they_are() -> None:
    body = (
        b'{"name": "x", "dag": {"nodes": [{"id": "A", "handler": "noop", "id": "B",'
        b' "config": {"a:b": [{"k": 1, "\\u006b": 2}], "a:b": [{"k": 1, "k": 2, "k": 3}]}}]},'
        b' "name": "y"}'
    )
    assert found(body) == [
        ("name", "duplicate_key"),
        ("dag.nodes[0].id", "duplicate_key"),
        ('dag.nodes[0].config["a:b"]', "duplicate_key"),
        ('dag.nodes[0].config["a:b"][0].k', "duplicate_key"),
    ]


def test_an_escaped_colon_cannot_hide_a_key_written_twice() -> None:
    # The text form of the accepted document has as many colons as the body.
    body = b'{"name":"\\u003a","name":"\\u003a","dag":{"nodes":[{"id":"A","handler":"noop"}]}}'
    assert found(body) == [("name", "duplicate_key")]


@given(st.data())
def test_keys_written_twice_are_found_in_any_config(data: st.DataObject) -> None:
    keys = st.text(alphabet='ab:"\\', max_size=2)
    scalars = st.integers() | st.text(alphabet=':{"\\u03a', max_size=4)
    pairs = st.lists(st.tuples(keys, scalars), max_size=4)
    inner, outer = data.draw(pairs), data.draw(pairs)
    as_ascii = data.draw(st.booleans())

    def written(some: list[tuple[str, Any]]) -> str:
        texts = [
            json.dumps(key).replace(":", "\\u003a" if as_ascii else ":") + ":" + json.dumps(value)
            for key, value in some
        ]
        return "{" + ",".join(texts) + "}"

    config = written(outer)[:-1] + ("," if outer else "") + f'"inner": {written(inner)}}}'
    body = f'{{"name":"x","dag":{{"nodes":[{{"id":"A","handler":"noop","config":{config}}}]}}}}'
    has_duplicate = any(len({key for key, _ in some}) < len(some) for some in (inner, outer))
    try:
        validate(body.encode())
        assert not has_duplicate
    except InvalidWorkflow as refused:
        codes = {problem.code for problem in refused.problems}
        assert ("duplicate_key" in codes) == has_duplicate


@pytest.mark.parametrize("number", [2**63, 2**64 - 1, -(2**63), 10**15])
def test_integers_of_64_bits_are_kept(number: int) -> None:
    body = orjson.dumps(workflow(node("A", x=0))).replace(b'"x":0', b'"x":%d' % number)
    assert validate(body).dag.nodes[0].config == {"x": number}


@pytest.mark.parametrize("number", [2**64, -(2**63) - 1, 10**30, 10**300])
def test_integers_that_would_lose_digits_are_refused(number: int) -> None:
    body = orjson.dumps(workflow(node("A", x=[0]))).replace(b"[0]", b"[%d]" % number)
    assert found(body) == [("dag.nodes[0].config.x[0]", "integer_too_large")]


@pytest.mark.parametrize("number", ["12345678901234.567", "0.123456789012345678", "1e-400"])
def test_decimals_that_would_lose_digits_are_refused(number: str) -> None:
    body = orjson.dumps(workflow(node("A", x=[0]))).replace(b"[0]", b"[%s]" % number.encode())
    assert found(body) == [("dag.nodes[0].config.x[0]", "number_too_long")]


def test_long_digits_in_a_string_are_fine() -> None:
    assert validate(workflow(node("A", x="1" * 5_000))).dag.nodes[0].config == {"x": "1" * 5_000}


def nested(levels: int) -> Any:
    value: Any = {}
    for level in range(levels - 1):
        value = {"a": value} if level % 2 else [value]
    return value


def test_config_may_be_nested_to_the_limit_and_no_deeper() -> None:
    validate(
        workflow({"id": "A", "handler": "noop", "config": {"x": nested(CONFIG_LEVELS_MAX - 1)}})
    )
    deeper = {"id": "A", "handler": "noop", "config": {"x": nested(CONFIG_LEVELS_MAX)}}
    assert found(workflow(deeper)) == [("dag.nodes[0].config", "too_deep")]


def test_of_many_problems_a_hundred_are_listed_and_the_rest_is_counted() -> None:
    listed = problems(workflow(*(node(f"n{number}", "ghost") for number in range(350))))
    assert len(listed) == PROBLEMS_MAX + 1
    assert str(listed[-1]) == "and 250 more problems"


def test_a_cycle_is_listed_however_much_else_is_wrong() -> None:
    many = [node(f"n{number}", "ghost") for number in range(350)]
    assert problems(workflow(*many, node("A", "B"), node("B", "A")))[0].code == "cycle"


def test_a_long_cycle_is_shown_by_its_beginning_and_its_end() -> None:
    ring = [node(f"n{number}", f"n{(number - 1) % 500}") for number in range(500)]
    (text,) = texts(workflow(*ring))
    assert "cycle n0 -> n1 -> n2 -> n3 -> n4 -> … 491 more … -> n496 -> n497" in text
    assert text.endswith("n499 -> n0; remove one of these dependencies")


def test_ten_thousand_nodes_in_a_chain_a_star_and_layers_are_accepted() -> None:
    many = 10_000
    chain = [node(f"n{number}", *([f"n{number - 1}"] if number else [])) for number in range(many)]
    star = [node("hub"), *(node(f"n{number}", "hub", x="{{ hub.x }}") for number in range(many))]
    layers = [
        node(f"n{layer}_{one}", *([f"n{layer - 1}_{other}" for other in range(20)] * (layer > 0)))
        for layer in range(many // 20)
        for one in range(20)
    ]
    for nodes in (chain, chain[::-1], star, layers):
        assert len(validate(workflow(*nodes)).dag.nodes) == len(nodes)


def test_more_nodes_than_flowd_takes_are_one_problem() -> None:
    assert found(workflow(*([1] * (NODES_MAX + 1)))) == [("dag.nodes", "too_many_nodes")]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
ids = st.sampled_from(["A", "B", "C", "a:b", "", "D"]) | json_values
nodes = st.fixed_dictionaries(
    {"id": ids, "handler": st.sampled_from(["noop", "nop"]) | json_values},
    optional={
        "dependencies": st.lists(ids, max_size=3) | json_values,
        "config": st.dictionaries(
            st.text(max_size=3), st.sampled_from(["{{ A.x }}", "{{", "{{ B }}"]) | json_values
        )
        | json_values,
        "extra": json_values,
    },
)
documents = st.fixed_dictionaries(
    {},
    optional={
        "name": st.just("w") | json_values,
        "dag": st.fixed_dictionaries(
            {"nodes": st.lists(nodes | json_values, max_size=5) | json_values}
        )
        | json_values,
    },
)


@given(documents | json_values)
def test_any_document_is_refused_with_problems_or_stored_without_loss(document: Any) -> None:
    body = json.dumps(document).encode()
    try:
        accepted = validate(body)
    except InvalidWorkflow as refused:
        assert refused.problems
        assert len(set(refused.problems)) == len(refused.problems)
        return
    again = validate(accepted.to_json())
    assert again == accepted
    assert [one.config for one in accepted.dag.nodes] == [
        one.get("config", {}) for one in document["dag"]["nodes"]
    ]


@given(st.binary(max_size=200) | st.text(alphabet='{}[]",:0 \\u', max_size=60).map(str.encode))
def test_any_bytes_are_refused_with_problems(body: bytes) -> None:
    assert problems(body)


def test_what_a_handler_finds_wrong_in_its_config_is_reported_with_the_rest() -> None:
    def check(config: dict[str, Any], path: str) -> list[Problem]:
        return [Problem(f"{path}.config.{key}", "bad_config", "wrong") for key in config]

    document = workflow(node("A", x=1), node("B", "Z", y="{{ A.x }}"))
    with pytest.raises(InvalidWorkflow) as refused:
        validate_workflow(orjson.dumps(document), {"noop": check})

    assert {(problem.path, problem.code) for problem in refused.value.problems} >= {
        ("dag.nodes[0].config.x", "bad_config"),
        ("dag.nodes[1].config.y", "bad_config"),
        ("dag.nodes[1].dependencies[0]", "unknown_dependency"),
    }


@pytest.mark.parametrize(
    ("secret", "message"),
    [
        ("", "string should have at least 1 character"),
        ("x" * 1025, "string should have at most 1024 characters"),
    ],
)
def test_a_text_is_not_told_to_be_an_object_where_both_will_do(secret: str, message: str) -> None:
    """An empty secret of a callback was refused as a string: expected an object."""
    callback = {"url": "http://example.com", "secret": secret}
    document = {**workflow(node("A")), "callback": callback}

    (problem,) = problems(document)
    assert (problem.path, problem.message) == ("callback.secret", message)
