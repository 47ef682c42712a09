"""The page's reader of YAML says what the command line's says, or refuses with a line."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from playwright.sync_api import Page

from flowd.cli.workflow_yaml import BadYaml, yaml_to_json
from tests.manual import MANUAL

READ = """async texts => {
  const folder = new URL('./', document.querySelector('script[type=module]').src);
  const { parseYaml } = await import(new URL('yaml.js', folder));
  return texts.map(text => {
    try { return { value: parseYaml(text) }; }
    catch (error) { return { line: error.line, wrong: error.message }; }
  });
}"""
WRITTEN = """
a: 1
b: -0.5
c: 1e3
d: ~
e: null
f: true
g: "quoted: #no"
h: 'it''s'
i: on
j: 012
k: 12:30
l: a # comment
m: a#b
n: http://x/y:z
o: []
p: {}
q: [1, "two", {x: y, z: [3]}, four five]
r: {a: 1, "b c": d, e: , 'f': [g]}
s: "tab\\tnew\\nlarge \\u00e9"
"""
CASES = [
    "",
    "# only a comment",
    "---\na: 1\n",
    "a",
    "[1, 2]",
    "- 1\n- - 2\n  - 3\n-\n  a: b\n- c: d\n  e: f\n",
    WRITTEN,
    "a:\n- 1\n- 2\nb:\n  - 3\n",
    "a: |\n  one\n    two\n\n  three\nb: >\n  one\n  two\n\n  three\n",
    "c: |-\n  end\nd: |+\n  kept\n\n",
    "a: >-\n  {{ x }}\n  and more\nb: 1\n",
    "a: one\n  two\n  three\nb: c\n",
    "a: [1,\n  2,\n  3]\nb: {x: 1,\n  y: 2}\n",
    "a: \"one\n  two\"\nb: 'three\n  four'\n",
    "\"a b\": 1\n'c': 2\n? d\n: 3\n",
    "a: &x 1\nb: *x\n",
    "a: !!str 1\n",
    "a: b: c\n",
    "a: 1\na: 2\n",
    "a: [1, 2\n",
    "\ta: 1\n",
    "a:\n  b: 1\n c: 2\n",
    "1: a\n",
    "a: 1\n---\nb: 2\n",
    "a: @b\n",
    "a: 'open\n",
    "{a: 1}\n",
    "- {id: a, config: {command: [sh, -c, \"echo 'x'\"]}}\n",
    "url: \"{{ a }}/b\"\nx: '{{ b }}'\n",
    "a: {b: 'c: d', e: \"f, g\"}  # end\n",
]


def expected(text: str) -> Any:
    """None where it is refused."""
    try:
        return {"value": json.loads(yaml_to_json(text.encode()))}
    except BadYaml:
        return None


def test_the_page_reads_yaml_as_the_command_line_does_or_refuses_it(page: Page) -> None:
    manual = re.findall(r"```yaml\n(.*?)```", MANUAL, re.DOTALL)
    assert len(manual) > 5
    page.goto("system")

    found = page.evaluate(READ, [*CASES, *manual])

    wrong = [
        (text, answer)
        for text, answer in zip([*CASES, *manual], found, strict=True)
        if "value" in answer and expected(text) != answer
    ]
    assert wrong == []
    # It may refuse more than the command line; of the manual, nothing but several documents.
    refused = {
        answer["wrong"]
        for text, answer in zip(manual, found[len(CASES) :], strict=True)
        if "wrong" in answer and expected(text)
    }
    assert refused <= {"here a second document begins; submit one workflow at a time"}
    assert sum("value" in one for one in found[: len(CASES)]) >= 16


@pytest.mark.parametrize(
    ("text", "line"), [("a: 1\nb: [1, 2\nc: 3\n", 2), ("a: 1\na: 2\n", 2), ("a: &x 1\n", 1)]
)
def test_a_refusal_names_its_line(page: Page, text: str, line: int) -> None:
    page.goto("system")

    (answer,) = page.evaluate(READ, [text])

    assert answer["line"] == line
