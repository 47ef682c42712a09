"""Structured log events: text on a terminal, JSON lines otherwise, one write per line.

With a file, lines go there; stderr then gets errors, and what the file cannot take.

An event is `noun.past_verb` and stands in EVENTS with its sentence; facts are fields. DEBUG polls,
INFO moves of state, WARNING flowd healed itself, ERROR a person must look. No outputs, no secrets.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import traceback
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson

from flowd.log_output import LogFile, StandardError
from flowd.node_log import SPEAKER, say
from flowd.redaction import REDACTOR

# All an operator can be told. A test reads the source and finds events that are missing here.
EVENTS: dict[str, str] = {
    "supervisor.started": "the API answers and a worker is ready",
    "supervisor.stopping": "a signal asked for the end; children are stopped in order",
    "supervisor.reloaded": "every child runs with the new settings, or the reload was broken off",
    "supervisor.scaled": "the number of workers was changed",
    "supervisor.waiting": "the start waits for processes, or the end for what still runs",
    "supervisor.stop_forced": "a second signal: children are killed, only the server may finish",
    "supervisor.stopped": "every child has ended",
    "child.started": "a child process was forked",
    "child.fork_failed": "the machine refused a new process; it is tried again",
    "child.ready": "a child process said it is ready to serve",
    "child.slow": "a child did not become ready in time and is killed",
    "child.died": "a child process ended unasked; it is started again after `restart_in_s`",
    "child.ended": "a child process ended when it was asked to",
    "child.killed": "a child did not end in time and is killed",
    "child.hung": "a child's event loop stands still; it writes its stacks and is killed",
    "child.given_up": "a role never became ready; flowd stops, or goes on without a newcomer",
    "roll.began": "a child is replaced: its successor starts while it goes on",
    "roll.failed": "a successor did not become ready; the old children go on",
    "settings.refused": "a reload found settings or handlers that cannot be used; nothing changed",
    "settings.kept": "a reload found settings that take a restart; the old ones stay",
    "role.failed": "a role ended with an exception",
    "control.refused": "a request on the control socket made no sense, or came from a stranger",
    "folder.lost": "the data directory was taken away while flowd ran; flowd stops",
    "server.loading": "Redis reads its data; nothing can run before it is done",
    "redis.chosen": "flowd uses a Redis that is not its own",
    "redis.awaited": "no Redis answers there yet; the start waits for one, and says so every 5 s",
    "redis.risky": "that one may lose work; the reason says by what",
    "access.changed": "the port of flowd's own Redis asks for a password from now on, or no longer",
    "access.unchanged": "it should, and the server did not take it; tried again every second",
    "server.orphaned": "the server of a killed supervisor was still there and is ended first",
    "redis.lost": "Redis does not answer or refuses writes; this process waits for it",
    "redis.reconnected": "Redis answers again",
    "redis.filled": "Redis is at its memory limit: nothing new is accepted until it has room",
    "redis.freed": "Redis has room again, and everything goes on",
    "redis.emptied": "Redis has lost what it had: it was emptied, or came back without its past",
    "redis.failed_over": "another server is the primary now; fewer `entries` than before were lost",
    "group.recreated": "the consumer group was gone; it is there again, and what it had handed out",
    "key.quarantined": "a key that all share was no key of flowd's; it is kept under another name",
    "reads.paused": "Redis is full; this worker ends what it runs and takes no other",
    "reads.resumed": "Redis has room again; this worker takes new nodes",
    "request.authorized": "a token let its holder change something; `token_id` says whose",
    "request.refused": "a request had no valid token, or one that may not do this",
    "tokens.changed": "the tokens were read anew: one was made or revoked",
    "tokens.unreadable": "the file with the tokens is damaged; until it is not, nobody gets in",
    "request.failed": "a request was answered with a 5xx that nobody foresaw",
    "call.simulated": "in development: a name without a dot does not resolve; nobody is called",
    "worker.enrolled": "a worker took its lease and takes nodes from now on",
    "handlers.differ": "workers of two flowds share a Redis and do not know the same handlers",
    "worker.recovered": "what a dead or stopped worker held was given to others",
    "worker.stalled": "a worker has room and asks for no work; flowd start replaces it",
    "recycling.impossible": "a limit is below what a fresh worker uses, and is not kept to",
    "worker.abandoned": "a worker could not return what it held; its lease will run out",
    "worker.ended": "a worker ends its process: what it still runs is not its own any more",
    "lease.lost": "a worker could not renew its lease; it begins anew with nothing",
    "limit.changed": "a limit was made or changed",
    "limit.deleted": "a limit was lifted: whoever waited for a place runs",
    "limits.mended": "places of limits were held by nodes that run no more, and are free again",
    "cache.cleared": "what was kept for equal calls was forgotten, of a handler or of all",
    "queue.forgotten": "a queue was empty, and nobody read it or named it any more",
    "schedule.changed": "a schedule was made or changed, paused or resumed",
    "schedule.deleted": "a schedule was deleted",
    "schedule.fired": "a schedule has started an execution, for the time `scheduled_at`",
    "schedule.missed": "times of a schedule passed while no scheduler ran, and are not made up for",
    "schedule.skipped": "a time of a schedule was left out: the execution before has not ended",
    "places.settled": "executions waited for a place that was free, and were started",
    "schedule.readmitted": "a schedule was due and nobody looked at it; somebody does again",
    "schedule.failed": "a schedule could not start its execution; it is tried again",
    "node.completed": "a node ended well",
    "node.failed": "a node ended badly; what depends on it fails without running",
    "node.commit_rejected": "a late result was dropped: the node belongs to another attempt",
    "redis.clock_moved_back": "the clock of the Redis server was put back; nothing waits for it",
    "node.retrying": "an attempt failed; the node waits for its next one",
    "node.signalled": "a signal was recorded, which decides: `kind` is answered or rejected",
    "node.waiting": "a node waits outside of any worker until something wakes it",
    "node.log_dropped": "lines that a node said were not stored: Redis is full, or refused them",
    "node.requeued": "a node that was held by a dead worker waits for its next attempt",
    "node.poisoned": "a node that ended each process it ran in is failed and will not run again",
    "definition.saved": "a workflow was saved under a name, as a new version",
    "definition.deleted": "a saved workflow was deleted, with all its versions",
    "execution.completed": "every node of an execution ended well",
    "execution.failed": "an execution ended, and nodes of it have failed; the first, and why",
    "execution.cancelled": "somebody ended an execution before its time",
    "execution.cancelling": "somebody cancelled an execution whose `finally` is still to run",
    "execution.readmitted": "an execution that runs was missing among the active; it is not now",
    "children.orphaned": "executions ran that no node waits for any more; they are cancelled",
    "child.not_followed": "a child could not be brought to its parent's state: it has ended",
    "node.restored": "a node that waited without an entry in the stream got one",
    "continuation.finished": "somebody died between a node's end and its dependents; that is done",
    "continuation.failed": "work left for later cannot be carried on; the rest goes on without it",
    "duty.failed": "a duty of the scheduler failed or did not end; the others go on without it",
    "entry.buried": "an entry of the stream that makes no sense was set aside with its bytes",
    "executions.forgotten": "executions were deleted, their time after the end is over",
    "traces.dropped": "a collector never takes these spans of [traces](telemetry.md)",
    "traces.given_up": "older [traces](telemetry.md) are not sent: their collector was away",
    "callback.failed": "a receiver could not be told what it asked for, and will not be",
    "execution.corrupt": "the keys of an execution were damaged; it is failed visibly",
    "handler.logged": "a handler of your own had something to say",
    "library.logged": "a library had something to say",
    "setting.ignored": "a value of the environment was not taken; the line says why",
    "log.unopened": "the log file cannot be opened; lines go to stderr until it can",
    "log.dropped": "so many lines were lost: nobody read them, or the disk was full",
}

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
# What journald reads at the start of a line (sd-daemon(3)).
_PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3}


_encode = json.JSONEncoder(default=str, separators=(",", ":")).encode


class _Output:
    """Where lines go, and which; one per process, inherited by forked children."""

    def __init__(self) -> None:
        self.threshold = _LEVELS["info"]
        self.stderr = StandardError()
        self.file: LogFile | None = None
        self.has_color = False
        self.process = ""
        self.dropped = 0
        self.hears_nodes = False


_output = _Output()


def set_up_log(
    *,
    level: str = "info",
    process: str = "",
    file: Path | None = None,
    max_mb: float = 0,
    max_age_days: float = 0,
    keep: int = 0,
) -> None:
    """Begin to log; `process` is the name each line carries, the rest is the [log] section.

    May be called again, with other settings. Python's own logging is led here too, from WARNING
    up, so that what a library says is neither lost nor in another format.
    """
    _output.stderr.open()
    _output.threshold = _LEVELS[level]
    _output.has_color = _output.stderr.is_terminal and not os.environ.get("NO_COLOR")
    name_process(process)
    _take_over_library_logs()
    if _output.file:
        _output.file.close()
    _output.file = None
    if file:
        max_bytes, max_age_s = int(max_mb * 2**20), max_age_days * 86400
        _output.file = LogFile(file, max_bytes=max_bytes, max_age_s=max_age_s, keep=keep)
        reopen_log()


def listen_to_nodes() -> None:
    """From now on what Python's own logging is told by a handler, from INFO up, is in the log of
    its node too. For processes that run handlers."""
    import logging

    _output.hears_nodes = True
    logging.getLogger().setLevel(logging.INFO)


def keep_stderr() -> None:
    """Write to where stderr leads now, whatever descriptor 2 becomes."""
    _output.stderr.keep()


def reopen_log() -> None:
    """Take up the log file anew. Not needed when it was moved: the next line notices."""
    try:
        if _output.file:
            _output.file.reopen()
    except OSError as error:
        _logger.error("log.unopened", error=str(error))


def name_process(process: str) -> None:
    """Called by a forked child: its lines carry its own name."""
    _output.process = process


class Logger:
    """`log.info("node.completed", execution_id=..., node_id=...)`."""

    __slots__ = ()

    def debug(self, event: str, /, **facts: Any) -> None:
        if _output.threshold <= 10:
            _write("debug", event, facts)

    def info(self, event: str, /, **facts: Any) -> None:
        if _output.threshold <= 20:
            _write("info", event, facts)

    def warning(self, event: str, /, **facts: Any) -> None:
        if _output.threshold <= 30:
            _write("warning", event, facts)

    def error(self, event: str, /, **facts: Any) -> None:
        """A fact that is an exception is written with its traceback."""
        _write("error", event, facts)

    def is_debug(self) -> bool:
        """True when debug lines are written: ask before preparing costly facts."""
        return _output.threshold <= 10


_logger = Logger()


def get_logger(_module: str) -> Logger:
    """The logger of a module. One object serves all: events name their own noun."""
    return _logger


def _write(level: str, event: str, facts: dict[str, Any]) -> None:
    now = time.time()
    shown: dict[str, Any] = {}
    trace = ""
    for name, value in facts.items():
        if isinstance(value, BaseException):
            shown[name] = describe_error(value)
            if level == "error":
                trace = _trace(value)
        elif name == "traceback" and isinstance(value, str):
            # Of another process, or of an exception that is gone.
            trace = value
        elif value is not None:
            shown[name] = value
    if _output.dropped:
        if not _emit(now, "warning", "log.dropped", {"lines": _output.dropped}, ""):
            _output.dropped += 1
            return
        _output.dropped = 0
    _output.dropped += not _emit(now, level, event, shown, trace)


def _emit(now: float, level: str, event: str, facts: dict[str, Any], trace: str) -> bool:
    """Whether the line was taken by the file or by stderr."""
    line = (now, level, event, facts, trace)
    is_written = _output.file is not None and _output.file.write(_encoded(_json_line(*line)))
    if not is_written or level == "error":
        is_written = _output.stderr.write(_stderr_line(*line)) or is_written
    return is_written


def _stderr_line(now: float, level: str, event: str, facts: dict[str, Any], trace: str) -> bytes:
    if _output.stderr.is_terminal:
        return _encoded(_text_line(now, level, event, facts, trace))
    priority = f"<{_PRIORITIES[level]}>" if _output.stderr.is_journal else ""
    return _encoded(priority + _json_line(now, level, event, facts, trace))


def _encoded(line: str) -> bytes:
    return REDACTOR.text(line).encode("utf-8", "backslashreplace")


def write_plain(text: str) -> None:
    """To stderr as it is: what is for a person and no event, such as the stacks of a process."""
    _output.stderr.write(_encoded(text))


def describe_error(error: BaseException) -> str:
    """`ValueError: what it says`, also for an exception whose `__str__` raises."""
    # Of a group its first member says more than the number of them.
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    try:
        text = str(error)
    except BaseException:  # noqa: BLE001 - somebody else's __str__
        text = "(its text could not be read)"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _trace(error: BaseException) -> str:
    with contextlib.suppress(Exception):
        return "".join(traceback.format_exception(error)).rstrip()
    return ""


_COLORS = {"debug": "\x1b[2m", "info": "\x1b[32m", "warning": "\x1b[33m", "error": "\x1b[31m"}


def _text_line(now: float, level: str, event: str, facts: dict[str, Any], trace: str) -> str:
    clock = time.strftime("%H:%M:%S", time.localtime(now)) + f".{int(now % 1 * 1000):03d}"
    head = (clock, level, _output.process, event)
    return _text_of_line(*head, facts, trace, has_color=_output.has_color)


def text_of_record(record: Mapping[str, Any], *, has_color: bool) -> str:
    """A line of a log file as a terminal shows it, with its date."""
    facts = dict(record)
    stamp, level, process, event, trace = (
        str(facts.pop(name, "")) for name in ("time", "level", "process", "event", "traceback")
    )
    try:
        local = datetime.fromisoformat(stamp).astimezone()
        clock = f"{local:%Y-%m-%d %H:%M:%S}.{local.microsecond // 1000:03d}"
    except ValueError:
        clock = _plain(stamp)
    return _text_of_line(clock, level, process, _plain(event), facts, trace, has_color=has_color)


def _text_of_line(
    clock: str,
    level: str,
    process: str,
    event: str,
    facts: Mapping[str, Any],
    trace: str,
    *,
    has_color: bool,
) -> str:
    word = f"{level.upper():7}" if level in _LEVELS else f"{_plain(level):7}"
    if has_color and level in _COLORS:
        word = f"{_COLORS[level]}{word}\x1b[0m"
    pairs = "".join(f" {_plain(name)}={_plain(value)}" for name, value in facts.items())
    line = f"{clock} {word} {_plain(process or 'flowd'):12} {event}{pairs}\n"
    if trace:
        line += "".join(f"    {_harmless(part)}\n" for part in trace.splitlines())
    return line


def _harmless(text: str) -> str:
    """With nothing in it that a terminal would obey."""
    text = text.expandtabs()
    return text if text.isprintable() else text.encode("unicode_escape").decode()


def _json_line(now: float, level: str, event: str, facts: dict[str, Any], trace: str) -> str:
    stamp = f"{_second(int(now))}.{int(now % 1 * 1000):03d}Z"
    head: dict[str, Any] = {"time": stamp, "level": level, "event": event}
    if _output.process:
        head["process"] = _output.process
    # A handler names its facts as it likes.
    record = {**head, **facts, **head}
    if trace:
        record["traceback"] = trace
    try:
        # Ten times as fast, but it takes not all that is JSON, and leaves what terminals obey.
        line = orjson.dumps(record, default=str).decode()
        return (line if line.isascii() else _encode(record)) + "\n"
    except Exception:  # noqa: BLE001 - a fact may be anything, and a line must not fail its handler
        return _encode({name: _text_of(value) for name, value in record.items()}) + "\n"


@lru_cache(maxsize=1)
def _second(now: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))


def _text_of(value: Any) -> str:
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - somebody else's __str__
        return f"(a {type(value).__name__} whose text could not be read)"


def _plain(value: Any) -> str:
    """A value on one line: quoted when a space, a quote or a control character is in it."""
    text = value if isinstance(value, str) else _text_of(value)
    if text and text.isprintable() and not any(mark in text for mark in " \"'="):
        return text
    return json.dumps(text, ensure_ascii=not text.isprintable())


def _take_over_library_logs() -> None:
    import logging

    class LibraryLogs(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            level = record.levelname.lower()
            # What the HTTP client says has whole addresses; ours are without their secrets.
            if SPEAKER.get() is not None and not record.name.startswith("httpx2"):
                say(level if level in _LEVELS else "error", _whole_text(record))
            if record.levelno < logging.WARNING:
                return
            facts: dict[str, Any] = {"logger": record.name, "message": record.getMessage()}
            if record.exc_info and record.exc_info[1]:
                facts["error"] = record.exc_info[1]
            _write(level if level in _LEVELS else "error", "library.logged", facts)

    root = logging.getLogger()
    root.handlers = [LibraryLogs()]
    root.setLevel(logging.INFO if _output.hears_nodes else logging.WARNING)
    logging.raiseExceptions = False
    logging.captureWarnings(True)


def _whole_text(record: Any) -> str:
    """With its traceback, where it has one. Of Python's logging."""
    text: str = record.getMessage()
    if record.exc_info and record.exc_info[1]:
        text += "\n" + _trace(record.exc_info[1])
    return text


def spoken(message: object, facts: Mapping[str, Any]) -> str:
    """What a handler says, with its facts, as one text."""
    pairs = "".join(
        f" {_plain(name)}={_plain(describe_error(one) if isinstance(one, BaseException) else one)}"
        for name, one in facts.items()
    )
    traces = [_trace(one) for one in facts.values() if isinstance(one, BaseException)]
    return "\n".join([f"{_text_of(message)}{pairs}", *filter(None, traces)])
