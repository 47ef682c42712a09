"""`flowd logs`: which lines it shows, and as what."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from flowd.cli.main import main
from flowd.log import text_of_record


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flowd.toml").write_text('[log]\nfile = "flowd.log"\n')
    return tmp_path / "flowd.log"


def write(path: Path, *records: dict[str, Any]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def shown(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["logs", *arguments], env={"FLOWD_CONFIG": ""})


def events(*arguments: str) -> list[str]:
    ended = shown(*arguments)
    assert ended.exit_code == 0, ended.output
    return [json.loads(line)["event"] for line in ended.stdout.splitlines()]


def test_an_execution_and_a_node_are_filters(log: Path) -> None:
    write(
        log,
        {"event": "a", "process": "w", "execution_id": "abc1", "node_id": "A"},
        {"event": "b", "process": "v", "execution_id": "abc1", "node_id": "B"},
        {"event": "c", "process": "w", "execution_id": "abd1", "node_id": "A"},
        {"event": "d", "process": "w"},
    )

    assert events("--execution", "abc") == ["a", "b"]
    assert events("--execution", "abc", "--node", "A") == ["a"]
    assert events("--node", "A", "w") == ["a", "c"]
    assert events("--execution", "ff") == []


def test_what_the_new_file_lacks_is_in_the_old_ones(log: Path) -> None:
    write(log, {"event": "e"})
    write(log.with_name("flowd.log.1"), {"event": "c"}, {"event": "d"})
    write(log.with_name("flowd.log.2"), {"event": "a"}, {"event": "b"})

    assert events() == ["a", "b", "c", "d", "e"]
    assert events("-n", "4") == ["b", "c", "d", "e"]
    assert events("-n", "1") == ["e"]
    assert events("-n", "0") == []


def test_as_text_a_line_reads_as_on_a_terminal_and_nothing_is_obeyed(log: Path) -> None:
    write(
        log,
        {"time": "x", "level": "error", "event": "node.failed", "process": "worker-1",
         "error": "a \x1b[31m", "traceback": "Traceback\n  \x1b[2Jat line 1"},
        ["no", "record"],  # type: ignore[arg-type]
    )  # fmt: skip

    assert shown("-o", "text").stdout == (
        'x ERROR   worker-1     node.failed error="a \\u001b[31m"\n'
        "    Traceback\n"
        "      \\x1b[2Jat line 1\n"
        '["no", "record"]\n'
    )


def test_a_time_is_shown_with_its_date_in_the_zone_of_the_reader() -> None:
    text = text_of_record(
        {"time": "2026-01-02T03:04:05.678Z", "level": "info", "event": "e"}, has_color=True
    )

    assert text.startswith("2026-01-0")
    assert text.endswith(":05.678 \x1b[32mINFO   \x1b[0m flowd        e\n")
