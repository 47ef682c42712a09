"""Cursors: what was written is read, and nothing else."""

from __future__ import annotations

import pytest

from flowd.api.contract.cursor import read_cursor, write_cursor
from flowd.errors import InvalidRequest


@pytest.mark.parametrize("last", ["a", "0123456789abcdef01234567", "1700000000000-12", "a-b_c9"])
def test_what_was_written_is_read(last: str) -> None:
    cursor = write_cursor(last)
    assert cursor is not None
    assert read_cursor(cursor, lambda one: one == last) == last


def test_no_cursor_is_the_beginning() -> None:
    assert write_cursor(None) is None
    assert read_cursor(None, bool) is None
    assert read_cursor("", bool) is None


@pytest.mark.parametrize("cursor", ["!", "YQ===", "a", "é", "_w", "YQ\n", " YQ", "Yg", "=", "\0"])
def test_what_is_none_of_ours_is_refused(cursor: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read_cursor(cursor, lambda one: one == "a")
    assert refused.value.problems[0].path == "query.cursor"
