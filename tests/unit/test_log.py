"""Log lines: one write each, never a crash, never a wait."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import flowd
from flowd.log import EVENTS, get_logger
from tests.daemon import PATIENCE_S

SOURCE = Path(flowd.__file__).parent
LEVELS = ("debug", "info", "warning", "error")


def run_logging(code: str, **streams: Any) -> subprocess.Popen[bytes]:
    program = f"from flowd.log import *\nlog = get_logger('x')\n{code}"
    return subprocess.Popen([sys.executable, "-c", program], **streams)


def lines_of(code: str) -> list[dict[str, Any]]:
    process = run_logging(code, stderr=subprocess.PIPE)
    _, text = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, text
    return [json.loads(line) for line in text.splitlines()]


def terminal_text_of(code: str) -> str:
    ours, theirs = os.openpty()
    process = run_logging(code, stderr=theirs, env={**os.environ, "NO_COLOR": "1"})
    os.close(theirs)
    text = b""
    try:
        while part := os.read(ours, 65536):
            text += part
    except OSError:
        # The other end of a terminal was closed.
        pass
    os.close(ours)
    assert process.wait(PATIENCE_S) == 0
    return text.decode().replace("\r\n", "\n")


def test_a_handler_may_log_facts_of_any_name_and_kind() -> None:
    code = """
set_up_log(process='worker-1')
from flowd.handlers import Context
circle = []
circle.append(circle)
facts = {'attempt': 7, 'event': 'x', 'level': 'y', 'self': 1, 'facts': {(1,): 2}}
Context('e1', 'A', 2).logger.warning('a line', circle=circle, **facts)
"""
    (line,) = lines_of(code)

    shown = [line[name] for name in ("event", "level", "message", "attempt", "node_id", "self")]
    assert shown == ["handler.logged", "warning", "a line", "2", "A", "1"]
    assert (line["circle"], line["facts"]) == ("[[...]]", "{(1,): 2}")


def test_a_line_off_the_terminal_is_json_with_its_facts() -> None:
    (line,) = lines_of(
        "set_up_log(process='worker-1')\n"
        "log.info('node.completed', node_id='A', attempt=2, error=None)"
    )

    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "info",
        "event": "node.completed",
        "process": "worker-1",
        "node_id": "A",
        "attempt": 2,
    }


def test_a_line_on_a_terminal_is_text_that_cannot_be_forged() -> None:
    text = terminal_text_of(
        "set_up_log(process='api-1')\nlog.info('child.died', reason='a b\\n12:00 ERROR', pid=7)"
    )

    assert text.count("\n") == 1
    assert 'INFO    api-1        child.died reason="a b\\n12:00 ERROR" pid=7\n' in text


def test_lines_below_the_level_are_not_written() -> None:
    events = [
        line["event"]
        for line in lines_of(
            "set_up_log(level='warning')\n"
            "log.debug('a.b'); log.info('c.d'); log.warning('e.f'); log.error('g.h')"
        )
    ]

    assert events == ["e.f", "g.h"]


def test_an_error_carries_its_traceback_and_a_warning_one_line() -> None:
    first, second = lines_of(
        "set_up_log()\n"
        "try: 1 / 0\n"
        "except ZeroDivisionError as error:\n"
        "    log.error('role.failed', error=error)\n"
        "    log.warning('role.failed', error=error)"
    )

    assert first["error"] == second["error"] == "ZeroDivisionError: division by zero"
    assert "Traceback (most recent call last)" in first["traceback"]
    assert "traceback" not in second


def test_an_exception_whose_text_raises_is_still_logged() -> None:
    (line,) = lines_of(
        "class Bad(Exception):\n"
        "    def __str__(self): raise ValueError\n"
        "set_up_log()\n"
        "log.warning('role.failed', error=Bad())"
    )

    assert line["error"] == "Bad: (its text could not be read)"


def test_what_a_library_logs_becomes_an_event() -> None:
    (line,) = lines_of(
        "import logging\nset_up_log()\n"
        "logging.getLogger('asyncio').info('chatter')\n"
        "logging.getLogger('asyncio').warning('took %s s', 3)"
    )

    assert (line["event"], line["level"]) == ("library.logged", "warning")
    assert (line["logger"], line["message"]) == ("asyncio", "took 3 s")


def test_a_full_pipe_costs_lines_and_never_stops_the_process() -> None:
    process = run_logging(
        "set_up_log()\nfor _ in range(5000): log.info('a.b', text='x' * 200)",
        stderr=subprocess.PIPE,
    )
    # Nobody reads. A megabyte does not fit into a pipe.
    assert process.wait(PATIENCE_S) == 0
    assert process.stderr is not None
    received = process.stderr.read()
    process.stderr.close()
    assert 0 < len(received) < 5000 * 200
    # What did get through are whole lines.
    assert all(json.loads(line) for line in received.splitlines())


def test_a_closed_stderr_is_no_reason_to_die() -> None:
    process = run_logging("import os\nos.close(2)\nset_up_log()\nlog.error('a.b')")

    assert process.wait(PATIENCE_S) == 0


def test_a_line_that_is_not_written_is_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    monkeypatch.setattr("flowd.log._write", lambda _level, event, _facts: made.append(event))
    log = get_logger(__name__)

    log.debug("node.completed", execution_id="x", node_id="y", attempt=1)
    log.error("node.failed", execution_id="x", node_id="y", attempt=1)

    assert made == ["node.failed"]


def test_every_event_in_the_source_has_its_sentence() -> None:
    used = {}
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in LEVELS
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id == "log"
                and isinstance(node.args[0], ast.Constant)
            ):
                used[node.args[0].value] = path.name
    missing = {event: file for event, file in used.items() if event not in EVENTS}

    assert len(used) > 10
    assert missing == {}


def test_every_event_is_a_noun_and_a_verb_and_a_sentence() -> None:
    for event, sentence in EVENTS.items():
        noun, _, verb = event.partition(".")
        assert noun.isalpha(), event
        assert verb.replace("_", "").isalpha(), event
        assert " " in sentence, event
