"""Schedules that fire all through a soak, and what has to hold of their times."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

import redis as redis_py

from flowd.store.redis import keys
from flowd.workflow.ids import scheduled_id
from scripts.soaking.clients import Clients, NoHost

WORKFLOW: Final = "soaked"
_DEFINITION: Final = {
    "name": "Scheduled",
    "dag": {
        "nodes": [
            {"id": "A", "handler": "ledger_sleepy"},
            {"id": "B", "handler": "ledger_quick", "dependencies": ["A"]},
        ]
    },
}
_SAID: Final[Mapping[str, Mapping[str, Any]]] = {
    "skips": {"every_s": 1},
    "queues": {"every_s": 1, "overlap": "queue", "catch_up": "all"},
    "replaces": {"every_s": 2, "overlap": "replace"},
    "allows": {"every_s": 1, "overlap": "allow", "catch_up": "none"},
}


def put_schedules(clients: Clients, client: redis_py.Redis) -> dict[str, int]:
    """Make them; the first time of each, ms, by name."""
    _ask(clients, "PUT", f"/definitions/{WORKFLOW}", _DEFINITION)
    for name, said in _SAID.items():
        _ask(clients, "PUT", f"/schedules/{name}", {"workflow": WORKFLOW, **said})
    return {name: _first_ms(client, name) for name in _SAID}


def pause_schedules(clients: Clients) -> None:
    for name in _SAID:
        _ask(clients, "POST", f"/schedules/{name}/pause")


def _ask(clients: Clients, method: str, path: str, body: Any = None) -> None:
    content = None if body is None else json.dumps(body).encode()
    try:
        status, answer = clients.insist(method, path, content, of_this_version=True)
    except NoHost:
        return
    if status >= 300:
        raise RuntimeError(f"{method} {path} was answered {status}: {answer}")


def _first_ms(client: redis_py.Redis, name: str) -> int:
    """The time that everything which has become of its times goes back to."""
    found = client.hmget(keys.schedule(name), "next_ms", "queued_ms", "fired", "missed", "skipped")
    next_ms, queued_ms, *counts = found
    passed = sum(int(one or 0) for one in counts) + (queued_ms is not None)
    return int(next_ms or 0) - 1000 * _SAID[name]["every_s"] * passed


def check_times(client: redis_py.Redis, firsts: Mapping[str, int]) -> Iterator[str]:
    """That each time has run once, or counts as missed or skipped."""
    for name, first_ms in firsts.items():
        if (found_ms := _first_ms(client, name)) != first_ms:
            every_ms = 1000 * _SAID[name]["every_s"]
            lost = (found_ms - first_ms) // every_ms
            yield f"schedule {name}: {lost} times are not accounted for"


def check_runs(client: redis_py.Redis, firsts: Mapping[str, int]) -> Iterator[str]:
    """That each execution of a schedule is of a time of its own, and was counted."""
    runs: dict[str, int] = dict.fromkeys(firsts, 0)
    for execution_id in client.zrange(keys.EXECUTIONS, 0, -1):
        name = client.hget(keys.run(execution_id), "schedule")
        if name in runs:
            runs[name] += 1
            time_ms = int(execution_id[:12], 16)
            if execution_id != scheduled_id(name, time_ms) or time_ms % 1000:
                yield f"schedule {name}: execution {execution_id} is of no time of it"
    for name, count in runs.items():
        fired = int(client.hget(keys.schedule(name), "fired") or 0)
        if fired != count:
            yield f"schedule {name}: it has fired {fired} times, and there are {count} executions"
        if not fired:
            yield f"schedule {name}: it has never fired"
