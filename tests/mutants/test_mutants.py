"""Every promise of tests/README.md has a test that fails when the line that keeps it is broken."""

from __future__ import annotations

import re

import pytest

from tests.mutants.table import MUTANTS
from tests.mutants.tree import ROOT, defined_tests, notices, places

# These take a second or two each; the others wait for what never comes.
EACH_TIME = ("R6", "U8 source")


def test_the_line_of_every_mutant_is_in_flowd_once():
    assert {one.name: len(places(one)) for one in MUTANTS} == dict.fromkeys(
        (one.name for one in MUTANTS), 1
    )


def test_every_mutant_has_its_line_in_the_readme_and_its_test_exists():
    text = (ROOT / "tests/README.md").read_text()
    rows = re.findall(r"^\| ([PRIU]\d+(?: \w+)?) \| (.*) \| `(test_.*)` \|$", text, re.MULTILINE)
    assert rows == [(one.name, one.broken, one.test) for one in MUTANTS]
    tests = defined_tests()
    named = [one.test.partition("[")[0] for one in MUTANTS]
    # One that stands twice might be another.
    assert [name for name in named if len(tests.get(name, ())) != 1] == []


def test_every_row_of_the_faults_has_a_mutant():
    text = (ROOT / "tests/README.md").read_text()
    rows = set(re.findall(r"^\| ([PRI]\d+) \| [^|]* \| [^|]* \| `test_", text, re.MULTILINE))
    assert rows - {one.name.partition(" ")[0] for one in MUTANTS} == set()


@pytest.mark.parametrize(
    "mutant",
    [
        pytest.param(
            one, id=one.name, marks=[] if one.name in EACH_TIME else [pytest.mark.thorough]
        )
        for one in MUTANTS
    ],
)
def test_a_broken_line_is_noticed(mutant, tmp_path):
    is_noticed, said = notices(mutant, tmp_path)
    assert is_noticed, said
