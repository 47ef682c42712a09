"""What the commands share that speak to flowd: ids, exit codes, tables; and how `diff` compares."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
from click.testing import CliRunner

from flowd.api.routers import schedules as schedule_routes
from flowd.cli.commands import schedules as schedule_commands
from flowd.cli.commands.diff import differences, first_difference
from flowd.cli.exit_codes import exit_code_of_status
from flowd.cli.main import _COMMANDS, _MEANT, main
from flowd.cli.node_tree import parents_of, run_order
from flowd.cli.remote import connected, find_id, plain, show_json, show_rows, why
from flowd.cli.status_page import status_page
from flowd.cli.times import clock, span
from flowd.client import ApiError, ConnectionFailed
from flowd.client.calls import base_url
from flowd.replicas import Replica
from flowd.supervisor.asking import ControlUnavailable
from tests.daemon import PATIENCE_S

A, B, C = "0a" * 12, "0b" + "0" * 22, "0b" + "1" * 22


class Listed:
    """A client of a flowd that has these executions, the newest first."""

    def __init__(self, *execution_ids: str, children: tuple[str, ...] = ()) -> None:
        self._ids = execution_ids
        self._children = children
        self.asked = 0

    def list(
        self, *, count_max: int | None, roots: bool | None = None, **_filters: str
    ) -> Iterator[dict[str, Any]]:
        listed = [one for one in self._ids if not (roots and one in self._children)]
        for one in listed[:count_max]:
            self.asked += 1
            yield {"execution_id": one}


def test_a_whole_id_is_taken_as_it_is() -> None:
    client = Listed()
    assert find_id(client, A) == A  # type: ignore[arg-type]
    assert client.asked == 0


@pytest.mark.parametrize(
    ("text", "expected"), [("@latest", C), ("0a", A), (B[:3], B), (B[:23], B), (C[:3], C)]
)
def test_an_id_is_found_by_its_beginning(text: str, expected: str) -> None:
    assert find_id(Listed(C, B, A), text) == expected  # type: ignore[arg-type]


def test_the_latest_is_the_child_of_no_other() -> None:
    """Children begin as their parent does, and one of them at random was the latest."""
    client: Any = Listed(C, B, A, children=(C,))

    assert find_id(client, "@latest") == B
    assert find_id(client, C[:3]) == C


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("0b", f"begins more than one id: {C}, {B}"),
        ("ff", "no execution has an id that begins with 'ff'"),
        ("", "no execution has an id"),
        ("zzz", "no execution has an id"),
        ("0B", "no execution has an id"),
    ],
)
def test_an_id_that_is_none_or_several_is_refused(text: str, told: str) -> None:
    with pytest.raises(click.ClickException, match=told):
        find_id(Listed(C, B, A), text)  # type: ignore[arg-type]


def test_no_further_id_is_looked_at_than_could_begin_so() -> None:
    client = Listed(C, B, A, *("00" * 12 for _ in range(100)))
    assert find_id(client, "0a") == A  # type: ignore[arg-type]
    assert client.asked == 4


def test_the_latest_of_nothing_is_refused() -> None:
    with pytest.raises(click.ClickException, match="there is no execution yet"):
        find_id(Listed(), "@latest")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (ApiError(404, "unknown", "no such", [{"path": "", "message": "x"}]), 1, "no such"),
        (
            ApiError(400, "invalid", "2 problems", [
                {"path": "dag.nodes[0]", "message": "bad"}, {"path": "", "message": "a cycle"},
            ]),
            1,
            "flowd: refused (invalid):\n  dag.nodes[0]: bad\n  a cycle\n",
        ),
        (ApiError(401, "unauthenticated", "a token"), 77, "a token; give it in FLOWD_TOKEN"),
        (ApiError(403, "forbidden", "more"), 77, "more"),
        (ApiError(503, "store_unavailable", "down"), 69, "down"),
        (ConnectionFailed("nobody"), 69, "is it running?"),
        (TimeoutError("late"), 124, "late"),
        (KeyboardInterrupt(), 130, ""),
    ],
)  # fmt: skip
def test_what_goes_wrong_is_told_and_has_its_exit_code(
    error: BaseException, code: int, told: str
) -> None:
    @click.command()
    def command() -> None:
        with connected("http://127.0.0.1:1"):
            raise error

    ended = CliRunner().invoke(command)
    assert ended.exit_code == code
    assert told in ended.stderr
    assert ended.stdout == ""


def test_other_refusals_are_failures() -> None:
    assert [exit_code_of_status(one) for one in (400, 404, 409, 422, 429, 500)] == [
        1,
        1,
        1,
        1,
        69,
        1,
    ]


@pytest.mark.parametrize(
    ("ms", "shown"),
    [
        (None, "-"), (0, "0ms"), (999, "999ms"), (1_000, "1.0s"), (59_940, "59.9s"),
        (60_000, "1m00s"), (125_000, "2m05s"), (11_220_000, "3h07m"),
    ],
)  # fmt: skip
def test_a_span_is_short(ms: int | None, shown: str) -> None:
    assert span(ms) == shown


def test_a_time_that_is_not_known_is_a_dash() -> None:
    assert clock(None) == "-"


@pytest.mark.parametrize(
    ("output", "shown"),
    [
        ("table", "ID  N\na   1\nb   -\n"),
        ("id", "a\nb\n"),
    ],
)
def test_rows_go_to_stdout_as_they_are_wanted(
    output: str, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"execution_id": "a", "n": 1}, {"execution_id": "b", "n": None}]
    show_rows(
        rows, output, {"ID": lambda row: row["execution_id"], "N": lambda row: str(row["n"] or "-")}
    )
    assert capsys.readouterr().out == shown


def test_what_cannot_be_meant_is_wrong_usage_and_no_token_is_shown() -> None:
    for arguments, said in (
        (["--url", "ftp://there"], "'ftp://there' is no address of a flowd"),
        (["--token", "secret\nx"], "the token holds characters that no token has"),
    ):
        ended = CliRunner().invoke(
            main, ["ls", *arguments], env={"FLOWD_URL": "http://127.0.0.1:9"}
        )
        assert (ended.exit_code, said in ended.output) == (2, True), ended.output
        assert "secret" not in ended.output


def test_what_a_terminal_would_obey_is_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    assert plain("a \x1b[31m\x9b\r\u2067 ä\u3000語") == r"a \x1b[31m\x9b\r\u2067 ä" + "\u3000語"

    show_json({"a": "\x1b\x9b\u202eä"})

    assert capsys.readouterr().out == '{\n  "a": "\\u001b\\u009b\\u202eä"\n}\n'


def nodes(**dependencies: str) -> list[dict[str, Any]]:
    return [{"id": one, "dependencies": list(above)} for one, above in dependencies.items()]


def test_a_node_comes_behind_all_it_depends_on() -> None:
    assert run_order(nodes(D="BC", B="A", C="A", A="")) == ["A", "B", "C", "D"]


def test_a_node_hangs_under_the_dependency_furthest_from_the_roots() -> None:
    found = parents_of(nodes(A="", B="A", C="B", D="AC", E=""))
    assert found == {"A": None, "E": None, "B": "A", "C": "B", "D": "C"}


def test_a_chain_of_ten_thousand_nodes_is_ordered_at_once() -> None:
    chain: list[dict[str, Any]] = [{"id": "0", "dependencies": []}]
    chain += [{"id": str(at), "dependencies": [str(at - 1)]} for at in range(1, 10_000)]
    assert run_order(chain[::-1]) == [one["id"] for one in chain]
    assert len(parents_of(chain)) == 10_000


def test_differences_name_their_places() -> None:
    one = {"a": [1, {"b": 2}], "c": None, "d": 1}
    other = {"a": [1, {"b": 3}, 4], "d": 1.0, "e": {}}
    assert list(differences(one, other)) == [
        {"path": "a[1].b", "a": 2, "b": 3},
        {"path": "a[2]", "a": "(missing)", "b": 4},
        {"path": "c", "a": None, "b": "(missing)"},
        {"path": "e", "a": "(missing)", "b": {}},
    ]
    assert list(differences(one, one)) == []


def test_the_first_difference_is_the_one_nearest_the_roots() -> None:
    definition = {"dag": {"nodes": nodes(C="B", B="A", A="")}}
    longer = {"dag": {"nodes": nodes(A="", B="A", C="B", Z="C")}}
    before = {"A": 1, "B": 2, "C": 3}
    assert first_difference([definition, definition], before, before) is None
    assert first_difference([definition, definition], before, {"A": 1, "B": 9, "C": 9}) == "B"
    assert first_difference([definition, definition], before, {"A": 1}) == "B"
    assert first_difference([definition, longer], before, {**before, "Z": 1}) == "Z"


@pytest.mark.parametrize(
    ("count", "said"), [(2, ""), (3, "these are the first 2; -n shows more\n")]
)
def test_a_list_that_was_cut_says_so(
    capsys: pytest.CaptureFixture[str], count: int, said: str
) -> None:
    rows = [{"id": str(number)} for number in range(count)]

    show_rows(iter(rows), "table", {"ID": lambda row: row["id"]}, "id", limit=2)
    shown = capsys.readouterr()
    show_rows(iter(rows), "id", {}, "id", limit=2)

    assert (shown.out, shown.err) == ("ID\n0\n1\n", said)
    assert capsys.readouterr() == ("0\n1\n", "")


def test_a_command_that_is_not_there_is_answered_with_the_nearest() -> None:
    ended = CliRunner().invoke(main, ["strat"])

    assert ended.exit_code == 2
    assert "No such command 'strat'. Did you mean 'start'?" in ended.stderr
    assert "Did you mean 'rerun'?" in CliRunner().invoke(main, ["retry"]).stderr
    assert "Did you mean" not in CliRunner().invoke(main, ["zzz"]).stderr
    assert _MEANT.keys().isdisjoint(_COMMANDS)
    assert set(_MEANT.values()) <= _COMMANDS.keys()


@pytest.mark.parametrize("url", ["http://[::1", "rubbish://x", "http://localhost:99999", "http://"])
def test_an_address_nobody_can_call_is_wrong_usage(url: str) -> None:
    ended = CliRunner().invoke(main, ["ls", "--url", url])

    assert ended.exit_code == 2
    assert "is no address of a flowd, such as http://127.0.0.1:8000" in ended.stderr


def test_an_address_may_leave_the_scheme_out() -> None:
    assert base_url("flowd.example.com:80/") == "http://flowd.example.com:80"
    assert base_url("https://flowd.example.com") == "https://flowd.example.com"


@pytest.mark.parametrize(("columns", "has_role"), [("80", False), ("120", True)])
def test_the_processes_fit_into_a_terminal_of_80_columns(
    columns: str, has_role: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = {
        "name": "scheduler", "role": "scheduler", "pid": 1234567, "state": "STARTING",
        "uptime_s": 59.9, "restarts": 0, "memory_mb": 110.0, "cpu_percent": 100,
        "in_flight": None, "done": None, "last_exit": None,
    }  # fmt: skip
    answer = {
        "pid": 1, "state": "RUNNING", "uptime_s": 1, "redis": {"mode": "x", "address": "y"},
        "api": "", "data_dir": "", "rolling": [], "processes": [process],
    }  # fmt: skip
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)

    head, row = status_page(answer).splitlines()[-2:]
    assert max(len(head), len(row)) <= int(columns)
    assert ("ROLE" in head) is has_role
    assert row.count("scheduler") == 1 + has_role


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({}, []),
        ({"primary": "y", "replicas": []}, []),
        (
            {"primary": "y", "replicas": [("r", True, 7, 0), ("s", False, 9, 3)]},
            ["The primary of this Redis is y, replicas: 1 online, up to 7 bytes behind"],
        ),
        (
            {"primary": "z:1", "replicas": []},
            ["The primary of this Redis is z:1, replicas: none online"],
        ),
    ],
)
def test_the_page_says_who_the_primary_is_and_what_its_replicas_lack(
    said: dict[str, Any], told: list[str]
) -> None:
    replicas = [Replica(*one)._asdict() for one in said.get("replicas", ())]
    redis = {"mode": "external", "address": "y"} | said | ({"replicas": replicas} if said else {})
    answer = {
        "pid": 1, "state": "RUNNING", "uptime_s": 1, "redis": redis,
        "api": "", "data_dir": "", "rolling": [], "processes": [],
    }  # fmt: skip

    assert status_page(answer).splitlines()[2:-2] == told


def test_the_page_says_who_takes_from_other_queues_than_the_default() -> None:
    said = {
        "worker-1": ["default"],
        "gpu-1": ["gpu"],
        "gpu-2": ["gpu"],
        "low-1": ["low", "default"],
    }
    process = {
        "role": "worker", "pid": 1, "state": "RUNNING", "uptime_s": 1, "restarts": 0,
        "memory_mb": 1, "cpu_percent": 0, "in_flight": 0, "done": 0, "last_exit": None,
    }  # fmt: skip
    answer = {
        "pid": 1, "state": "RUNNING", "uptime_s": 1, "redis": {"mode": "x", "address": "y"},
        "api": "", "data_dir": "", "rolling": [],
        "processes": [process | {"name": name, "queues": one} for name, one in said.items()],
    }  # fmt: skip

    assert status_page(answer).splitlines()[2:4] == [
        "gpu-1, gpu-2 take from gpu",
        "low-1 takes from low, default",
    ]


def daemon(**server: object) -> dict[str, Any]:
    """What a supervisor says whose only process is its server."""
    process = {
        "name": "redis", "role": "server", "pid": 1, "state": "RUNNING", "uptime_s": 1,
        "restarts": 0, "memory_mb": 1, "cpu_percent": 0, "in_flight": None, "done": None,
        "last_exit": None, "queues": None,
    }  # fmt: skip
    return {
        "pid": 1, "state": "RUNNING", "uptime_s": 1, "redis": {"mode": "embedded", "address": "y"},
        "api": "http://localhost:1", "data_dir": "", "rolling": [], "processes": [process | server],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("server", "code", "line"),
    [
        ({}, 0, None),
        # Its first start is no fault.
        ({"state": "STARTING"}, 0, None),
        (
            {"state": "BACKOFF", "last_exit": "ended with exit code 1: full"},
            69,
            "the Redis of flowd is down and is started again: it ended with exit code 1: full",
        ),
    ],
)
def test_a_server_that_is_down_is_said_and_is_no_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: dict[str, Any], code: int, line: str
) -> None:
    """`flowd status` exited with 0 and only said that a process had ended with exit code 1."""
    monkeypatch.setattr("flowd.supervisor.asking.ask", lambda *_, **__: daemon(**server))
    ended = CliRunner().invoke(main, ["status", "--data-dir", str(tmp_path)])

    assert ended.exit_code == code, ended.output
    assert line is None or line in ended.stdout.splitlines()


FULL = "redis is at its memory limit; raise maxmemory or delete old executions"


def test_status_says_that_flowd_is_not_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = json.dumps({"status": 503, "errors": [{"path": "", "code": "x", "message": FULL}]})
    monkeypatch.setattr("flowd.supervisor.asking.ask", lambda *_, **__: daemon())
    monkeypatch.setattr(
        "flowd.client.connections.Connections.send", lambda *_: (503, body.encode())
    )
    ended = CliRunner().invoke(main, ["status", "--data-dir", str(tmp_path)])

    assert f"flowd is not ready: {FULL}" in ended.stdout.splitlines()


def test_the_time_of_a_coming_attempt_is_not_called_a_beginning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    row = dict.fromkeys(("execution_id", "node_id", "name", "text", "letter_id"), "x")
    attention = [
        {"kind": kind, "count": count, "sample": [row | {"at_ms": 0}]}
        for kind, count in (("failed", 2), ("retrying", 1), ("dead_letter", None))
    ]
    overview = {"health": {"ok": True, "sentence": "flowd works."}, "attention": attention}
    client = SimpleNamespace(overview=lambda: overview)
    monkeypatch.setattr("flowd.cli.commands.now.connected", lambda _: nullcontext(client))

    lines = CliRunner().invoke(main, ["now"]).stdout.splitlines()
    assert [line for line in lines if "shows all" in line] == [
        "these are the first 1; `flowd ls --status failed` shows all",
        "these are the first 1; `flowd dlq list` shows all",
    ]
    heads = [line for line in lines if "TEXT" in line]
    assert [" ".join(one.split()) for one in heads] == [
        "ID NODE NAME SINCE TEXT",
        "ID NODE NAME NEXT ATTEMPT TEXT",
        "ID NODE NAME SINCE TEXT",
    ]


@pytest.mark.parametrize("kinds", [["health"], []])
def test_now_says_that_nothing_is_needed_only_where_flowd_works(
    monkeypatch: pytest.MonkeyPatch, kinds: list[str]
) -> None:
    """It said "nothing needs you" right below "flowd is not ready"."""
    overview = {
        "health": {"ok": False, "sentence": f"flowd is not ready: {FULL}."},
        "attention": [{"kind": kind, "count": 1, "sample": []} for kind in kinds],
    }
    client = SimpleNamespace(overview=lambda: overview)
    monkeypatch.setattr("flowd.cli.commands.now.connected", lambda _: nullcontext(client))
    ended = CliRunner().invoke(main, ["now"])
    assert ended.stdout == f"flowd is not ready: {FULL}.\n"

    overview |= {"health": {"ok": True, "sentence": "flowd works."}, "attention": []}
    assert "nothing needs you" in CliRunner().invoke(main, ["now"]).stdout


def test_who_may_not_ask_is_not_told_that_flowd_does_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another user's `flowd status` said so, with exit code 3."""

    def ask(folder: Path, _command: str, **_: object) -> None:
        raise ControlUnavailable(str(folder)) from PermissionError()

    monkeypatch.setattr("flowd.supervisor.asking.ask", ask)
    ended = CliRunner().invoke(main, ["status", "--data-dir", str(tmp_path)])

    assert ended.exit_code == 4
    assert "only root and the user of flowd may ask" in ended.stderr


def test_what_the_help_says_of_a_command_is_what_the_command_says() -> None:
    with click.Context(main) as context:
        for name, text in _COMMANDS.items():
            command = main.get_command(context, name)
            assert command is not None
            assert " ".join((command.help or "").split()).startswith(text), name
            assert len(text) <= 60
        assert main.list_commands(context) == list(_COMMANDS)


# What takes long to import, and who can do without it.
HEAVY = ("httpx2", "redis", "pydantic", "rich", "yaml", "starlette", "asyncio")


@pytest.mark.parametrize(
    "statement", ["import flowd", "from flowd.cli.main import main; main(['--help'], 'flowd')"]
)
def test_the_help_and_the_package_load_nothing_heavy(statement: str) -> None:
    asked = (
        "import atexit, sys\n"
        f"atexit.register(lambda: print(set({HEAVY}) & sys.modules.keys(), file=sys.stderr))\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", asked + statement],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert (ended.returncode, ended.stderr) == (0, "set()\n")


@pytest.mark.parametrize(
    ("waiting", "shown"),
    [
        ({"text": "", "until_ms": None}, None),
        ({"text": "Ship it?", "until_ms": None}, "Ship it?"),
        ({"text": "", "until_ms": 0}, None),
        (
            {"waits_for": "slot", "text": "api/a", "until_ms": None, "before": 3},
            "waits for limit api/a: 3 before it",
        ),
        (
            {"waits_for": "slot", "text": "api", "until_ms": None, "before": 0},
            "waits for limit api, the next",
        ),
        (
            {"waits_for": "slot", "text": "api", "until_ms": None, "before": None},
            "waits for limit api",
        ),
        ({"text": "", "until_ms": 86_400_000}, f"until {clock(86_400_000)}"),
        ({"text": "Ship it?", "until_ms": 86_400_000}, f"Ship it?; until {clock(86_400_000)}"),
    ],
)
def test_a_node_that_waits_is_shown_with_what_it_asks_and_until_when(waiting, shown) -> None:
    assert why({"error": None, "waiting": waiting}) == shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", ""], "'' is neither a FILE nor the NAME of a saved workflow"),
        (["run", "a.yaml", "--local", "--url", "http://x"], "--url names another one"),
        (["run", "a.yaml", "--with", "."], "--with is for --local"),
        (["schedules", "next", "nightly", "-n", "1000"], "1000 is not in the range 1<=x<=100"),
    ],
)
def test_what_cannot_be_meant_is_wrong_usage(arguments, said):
    ended = CliRunner().invoke(main, arguments)
    assert ended.exit_code == 2
    assert said in ended.output


def test_as_many_next_times_may_be_asked_for_as_are_answered():
    assert schedule_commands._NEXT_MAX == schedule_routes.NEXT_MAX
