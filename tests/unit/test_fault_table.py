"""The table of tests/README.md names tests and a figure for every fault, and the tests exist."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
ROWS = re.findall(
    r"^\| ([PRIU]\d+) \|.*\| (`test_\w+`(?:, `test_\w+`)*) \| (.*) \|$",
    (TESTS / "README.md").read_text(),
    re.MULTILINE,
)


def test_every_fault_has_its_row() -> None:
    wanted = [f"P{number}" for number in range(1, 18)]
    wanted += [f"R{number}" for number in range(1, 13)]
    wanted += [f"I{number}" for number in range(1, 10)]
    assert [fault for fault, _, _ in ROWS if fault[0] != "U"] == wanted
    numbers = [int(fault[1:]) for fault, _, _ in ROWS if fault[0] == "U"]
    assert numbers == sorted(set(numbers))
    assert len(numbers) >= 10


def test_every_test_it_names_exists() -> None:
    text = "".join(path.read_text() for path in TESTS.rglob("test_*.py"))
    known = set(re.findall(r"def (test_\w+)", text))
    named = [name for _, names, _ in ROWS for name in re.findall(r"test_\w+", names)]
    assert [name for name in named if name not in known] == []


def test_every_row_says_what_was_measured() -> None:
    assert [fault for fault, _, measured in ROWS if not re.search(r"\d", measured)] == []
