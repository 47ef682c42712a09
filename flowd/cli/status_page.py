"""The page `flowd status` and `flowd top` show, from the supervisor's answer."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from typing import Any

from flowd.cli.times import span
from flowd.workflow.ids import DEFAULT_QUEUE

_COLUMNS = (
    "NAME",
    "ROLE",
    "PID",
    "STATE",
    "UPTIME",
    "RESTARTS",
    "MEMORY",
    "CPU",
    "IN FLIGHT",
    "DONE",
    "LAST EXIT",
)


def status_page(answer: dict[str, Any]) -> str:
    rows = [_COLUMNS, *map(_row, answer["processes"])]
    table = _table(rows)
    if sys.stdout.isatty() and max(map(len, table)) > shutil.get_terminal_size().columns:
        # So 80 columns do. A name says its role as well.
        table = _table([(name, *rest) for name, _, *rest in rows], gap=" ")
    return "\n".join([*_head(answer), "", *table])


def _head(answer: dict[str, Any]) -> list[str]:
    redis = answer["redis"]
    address = redis["address"] or redis["socket"]
    lines = [
        f"flowd (pid {answer['pid']}) is {answer['state']} for {span(1000 * answer['uptime_s'])}",
        f"API {answer['api']}, Redis {redis['mode']} at {address}, data in {answer['data_dir']}",
    ]
    if redis.get("primary") not in (None, redis["address"]) or redis.get("replicas"):
        lines.append(_replication(redis))
    lines += map(_down, down(answer["processes"]))
    lines += [f"flowd is not ready: {problem}" for problem in answer.get("problems", ())]
    overdue_s = max((one.get("redis_overdue_s") or 0 for one in answer["processes"]), default=0)
    if overdue_s > 0:
        lines.append(f"Redis does not answer: its answer is overdue by {span(1000 * overdue_s)}")
    lines += [
        f"{one['name']} has room and has asked for no work for {one['stalled_s']} s"
        for one in answer["processes"]
        if one.get("stalled_s")
    ]
    lines += _readers(answer["processes"])
    lines += map(_elsewhere, answer.get("elsewhere", ()))
    if answer.get("hindrance"):
        lines.append(answer["hindrance"])
    if answer["rolling"]:
        lines.append("being replaced: " + ", ".join(answer["rolling"]))
    return lines


def down(processes: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The Redis of this flowd while it does not run, other than at its first start."""
    return [
        one
        for one in processes
        if one["role"] == "server" and one["state"] != "RUNNING" and one["last_exit"]
    ]


def _down(server: dict[str, Any]) -> str:
    return f"the Redis of flowd is down and is started again: it {server['last_exit']}"


def _readers(processes: Sequence[dict[str, Any]]) -> list[str]:
    """Who reads what, unless it is the default queue alone."""
    readers: dict[tuple[str, ...], list[str]] = {}
    for one in processes:
        queues = tuple(one.get("queues") or (DEFAULT_QUEUE,))
        if queues != (DEFAULT_QUEUE,):
            readers.setdefault(queues, []).append(one["name"])
    return [
        f"{', '.join(names)} take{'s' if len(names) == 1 else ''} from {', '.join(queues)}"
        for queues, names in readers.items()
    ]


def _elsewhere(host: dict[str, Any]) -> str:
    count, queues = host["workers"], ", ".join(host["queues"])
    them = "1 worker, which takes" if count == 1 else f"{count:,} workers, which take"
    return f"not of this flowd: on {host['host']} {them} from {queues}"


def _replication(redis: dict[str, Any]) -> str:
    from flowd.replicas import Replica, describe

    replicas = describe(Replica(**one) for one in redis["replicas"])
    return f"The primary of this Redis is {redis['primary']}, replicas: {replicas}"


def _row(process: dict[str, Any]) -> tuple[str, ...]:
    return (
        process["name"],
        process["role"],
        _shown(process["pid"], "{}"),
        process["state"],
        "-" if process["uptime_s"] is None else span(1000 * process["uptime_s"]),
        str(process["restarts"]),
        _shown(process["memory_mb"], "{:.0f} MB"),
        _shown(process["cpu_percent"], "{:.0f}%"),
        _shown(process["in_flight"], "{}"),
        _shown(process["done"], "{:,}"),
        process["last_exit"] or "-",
    )


def _shown(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def _table(rows: Sequence[Sequence[str]], gap: str = "  ") -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [gap.join(map(str.ljust, row, widths)).rstrip() for row in rows]
