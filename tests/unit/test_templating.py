"""What templates mean, what they refuse, and that outputs stay data."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowd.errors import Problem, TemplateError
from flowd.workflow.definition import NodeDefinition
from flowd.workflow.templating import (
    RENDERED_BYTES_MAX,
    CompiledConfig,
    Reference,
    find_templates,
)

OUTPUTS = {
    "A": {
        "data": "text",
        "number": 7,
        "none": None,
        "items": [{"name": "first"}, {"name": "second"}],
        "a-b": "dashed",
        "two words": "spaced",
        "url": "a b&c/ü",
    },
    "node-2": {"status": "ok"},
}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


def render(value: Any, outputs: dict[str, Any] | None = None) -> Any:
    return CompiledConfig({"value": value}).render(OUTPUTS if outputs is None else outputs)["value"]


def flaws(value: Any) -> list[Problem]:
    found = find_templates({"value": value}, "config")
    return [one for one in found if isinstance(one, Problem)]


@pytest.mark.parametrize(
    ("template", "rendered"),
    [
        ("{{ A.data }}", "text"),
        ("{{A.data}}", "text"),
        ("{{ A.number }}", 7),
        ("{{ A.none }}", None),
        ("{{ A.items }}", OUTPUTS["A"]["items"]),
        ("{{ A.items[1].name }}", "second"),
        ("{{ A.items[ 0 ].name }}", "first"),
        ("{{ A.a-b }}", "dashed"),
        ('{{ A["two words"] }}', "spaced"),
        ("{{ A['two words'] }}", "spaced"),
        ("{{ node-2.status }}", "ok"),
        ("{{ node-2 }}", {"status": "ok"}),
    ],
)
def test_a_value_that_is_one_template_keeps_its_type(template: str, rendered: Any) -> None:
    assert render(template) == rendered


@pytest.mark.parametrize(
    ("template", "rendered"),
    [
        ("Summarize {{ A.data }}!", "Summarize text!"),
        (" {{ A.number }}", " 7"),
        ("{{ A.data }}{{ A.none }}", "textnull"),
        ("x={{ A.items }}", 'x=[{"name":"first"},{"name":"second"}]'),
        ("}} { { {{ A.number }} }}", "}} { { 7 }}"),
    ],
)
def test_inside_text_strings_go_in_bare_and_the_rest_as_compact_json(
    template: str, rendered: str
) -> None:
    assert render(template) == rendered


@pytest.mark.parametrize(
    ("template", "rendered"),
    [
        ('{{ A.nothing | default("y") }}', "y"),
        ("{{ A.nothing | default('it\\'s \"so\"') }}", 'it\'s "so"'),
        ('{{ A.nothing | default("}}") }}', "}}"),
        ("{{ A.nothing.at.all | default(-1.5) }}", -1.5),
        ("{{ A.items[9] | default(null) }}", None),
        ("{{ A.nothing | default(true) }}", True),
        ('{{ A.data | default("y") }}', "text"),
        ('{{ A.none | default("y") }}', None),
        ("{{ A.nothing | default(1) | default(2) }}", 1),
        ("{{ A.data | json }}", '"text"'),
        ("{{ A.items | json }}", '[{"name":"first"},{"name":"second"}]'),
        ("{{ A.url | urlencode }}", "a%20b%26c%2F%C3%BC"),
        ("http://x/{{ A.number | urlencode }}", "http://x/7"),
        ("{{ A.url | json | urlencode }}", "%22a%20b%26c%2F%C3%BC%22"),
        ("{{ A.nothing | default('a b') | urlencode }}", "a%20b"),
        ("{{ A.nothing | urlencode | default('a b') }}", "a b"),
    ],
)
def test_filters(template: str, rendered: Any) -> None:
    assert render(template) == rendered


def test_two_braces_can_be_written_as_a_literal() -> None:
    assert render('{{ "{{" }} A.data }} {{ A.number }}') == "{{ A.data }} 7"
    assert CompiledConfig({"value": '{{ "{{" }}'}).inputs == ()


@given(json_values)
def test_outputs_are_data_whatever_is_in_them(value: Any) -> None:
    outputs = {"A": {"data": value, "again": "{{ A.data }}"}}
    assert render("{{ A.data }}", outputs) == value
    assert render("{{ A }}", outputs) == outputs["A"]
    assert render("{{ A.again }}!", outputs) == "{{ A.data }}!"
    shown = value if isinstance(value, str) else orjson.dumps(value).decode()
    assert render("<{{ A.data }}>", outputs) == f"<{shown}>"


@given(json_values.filter(lambda value: "{{" not in orjson.dumps(value).decode()))
def test_a_config_without_templates_is_rendered_as_it_is(value: Any) -> None:
    config = {"value": value}
    compiled = CompiledConfig(config)
    assert compiled.inputs == ()
    assert compiled.render({}) == config


@given(st.text(alphabet="{} A.x[0]|\"'\\jsonde()fault1-", max_size=40))
def test_a_text_either_has_a_flaw_or_compiles(text: str) -> None:
    if flaws(text):
        with pytest.raises(TemplateError):
            CompiledConfig({"value": text}).render({})
    else:
        references = {
            one.node_id
            for one in find_templates({"value": text}, "config")
            if isinstance(one, Reference)
        }
        assert set(CompiledConfig({"value": text}).inputs) == references


@given(st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,20}", fullmatch=True))
def test_every_node_id_can_be_referred_to(node_id: str) -> None:
    assert NodeDefinition(id=node_id, handler="noop").id == node_id
    assert render(f"{{{{ {node_id}.x }}}}", {node_id: {"x": 1}}) == 1


def test_a_rendered_config_can_be_changed_without_harm_to_the_next() -> None:
    source = {"headers": {"a": ["b", "{{ A.data }}"]}, "list": [{}], "text": "{{ A.data }}"}
    compiled = CompiledConfig(source)
    first = compiled.render(OUTPUTS)
    first["headers"]["a"].append("changed")
    first["list"][0]["changed"] = True
    del first["text"]
    assert compiled.render(OUTPUTS) == {
        "headers": {"a": ["b", "text"]},
        "list": [{}],
        "text": "text",
    }


def test_keys_keep_their_order() -> None:
    compiled = CompiledConfig({"b": "{{ A.data }}", "a": 1, "c": "{{ A.number }}"})
    assert list(compiled.render(OUTPUTS)) == ["b", "a", "c"]


def test_inputs_are_named_in_order_each_once() -> None:
    config = {"x": "{{ B.a }} {{ A.b }}", "y": ["{{ B.c }}", {"z": "{{ C }}"}]}
    assert CompiledConfig(config).inputs == ("B", "A", "C")


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{ A.dta }}", "'A' has no key 'dta'; its keys are 'data', 'number', 'none', 'items'"),
        ("{{ A.items[2].name }}", "'A.items' has no item '[2]'; its length is 2"),
        ("{{ A.items.name }}", "'A.items' is an array, there is no 'name' in it"),
        ("{{ A.data.x }}", "'A.data' is a string, there is no 'x' in it"),
        ("{{ A.data[0] }}", "'A.data' is a string, there is no '[0]' in it"),
        ("{{ A.none.x }}", "'A.none' is null, there is no 'x' in it"),
        ("{{ A[0] }}", "'A' is an object, it has no item '[0]'; its keys are 'data'"),
        ("{{ Z.x }}", "node 'Z' has no output"),
    ],
)
def test_a_miss_fails_and_names_what_there_is(template: str, text: str) -> None:
    with pytest.raises(TemplateError) as failed:
        render(template)
    assert str(failed.value).startswith(text)


def test_a_miss_names_no_value_and_not_every_key_of_many() -> None:
    outputs = {"A": {f"key-{number}": "secret" for number in range(1000)} | {"k" * 500: 1}}
    with pytest.raises(TemplateError) as failed:
        render("{{ A.other }}", outputs)
    assert "secret" not in str(failed.value)
    assert "and 981 more" in str(failed.value)
    assert len(str(failed.value)) < 1000


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{", "expected a node id"),
        ("{{ }}", "expected a node id"),
        ("{{ .x }}", "expected a node id"),
        ("{{ A", "unterminated"),
        ("{{ A.x }", "unterminated"),
        ("{{ A. }}", "cannot read '.'"),
        ("{{ A.x + 1 }}", "cannot read '+ 1'"),
        ("{{ A.f() }}", "cannot read '()'"),
        ("{{ A[-1] }}", "cannot read '[-1]'"),
        ("{{ A[x] }}", "cannot read '[x]'"),
        ("{{ A.x | upper }}", "unknown filter 'upper'; there is default, json, urlencode"),
        ("{{ A.x | default }}", "default needs one value in brackets"),
        ("{{ A.x | default(y) }}", "default needs one value in brackets"),
        ("{{ A.x | default(1e999) }}", "is not a JSON number"),
        ("{{ A.x | default(0.123456789012345678) }}", "has more digits than 64 bits hold; write"),
        ('{{ A.x | default("\\q") }}', "bad escape"),
        ("{{ " + "A" * 129 + " }}", "expected a node id"),
    ],
)
def test_a_malformed_template_is_a_flaw(template: str, reason: str) -> None:
    (flaw,) = flaws(f"before {template}")
    assert flaw.path == "config.value"
    assert flaw.code == "malformed_template"
    assert reason in flaw.message


def test_one_text_may_have_many_flaws_and_good_references_between_them() -> None:
    found = list(find_templates({"value": "{{ A..x }} {{ B.x }} {{ C"}, "config"))
    assert [getattr(one, "node_id", None) or one.code for one in found] == [  # type: ignore[union-attr]
        "malformed_template",
        "B",
        "malformed_template",
    ]


def test_a_template_in_a_key_name_is_a_flaw_wherever_it_is() -> None:
    (flaw,) = flaws([{"{{ A.x }}": 1}])
    assert flaw.path == "config.value[0]"
    assert flaw.code == "template_in_key"


def test_references_carry_the_path_of_their_value() -> None:
    config = {"a": ["x", {"b c": "{{ A.x }}"}], "d": "{{ B }}"}
    assert list(find_templates(config, "config")) == [
        Reference('config.a[1]["b c"]', "A", step="x"),
        Reference("config.d", "B"),
    ]


def test_any_depth_and_any_number_of_openings_can_be_searched() -> None:
    deep: Any = "{{ A }}"
    for _ in range(5_000):
        deep = [deep]
    (found,) = find_templates({"value": deep}, "c")
    assert isinstance(found, Reference)
    for text in ("{{" * 50_000, "{{ A {{ " * 50_000, "{{ A['" * 50_000, "{{" + " " * 50_000):
        assert flaws(text)


def check_size(config: dict[str, Any], outputs: dict[str, Any]) -> None:
    compiled = CompiledConfig(config)
    assert compiled.inputs
    compiled.check_size(outputs, {name: len(orjson.dumps(one)) for name, one in outputs.items()})


LARGE = {"A": {"text": "x" * 1_000_000, "list": list(range(100_000)), "small": 1}}


@pytest.mark.parametrize(
    "config",
    [
        {"x": "{{ A.text }}" * 17},
        {"x": ["{{ A }}"] * 20},
        {"x": {str(at): "{{ A.list }}" for at in range(40)}},
        {"x": "{{ A.small | default('no') }}", "y": "{{ A.text | json | urlencode }}" * 17},
        {"x": '{{ A.none | default("\\"")' + " | json" * 40 + " }}"},
    ],
)
def test_what_would_grow_beyond_its_bound_is_refused_before_it_is_made(
    config: dict[str, Any],
) -> None:
    with pytest.raises(TemplateError, match=f"more than {RENDERED_BYTES_MAX:,} bytes"):
        check_size(config, LARGE)


@pytest.mark.parametrize(
    "config",
    [
        {"x": "{{ A.text }}" * 15},
        {"x": ["{{ A.small }}"] * 1000},
        {"x": "{{ A.small | json }}" * 9},
    ],
)
def test_what_is_read_counts_and_not_the_output_it_is_read_from(config: dict[str, Any]) -> None:
    check_size(config, LARGE)
    assert CompiledConfig(config).render(LARGE)
