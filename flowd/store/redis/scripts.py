"""The Lua transitions: one file each, with the fragments they share put in front.

A file names its fragments in its head: `--- @use open_node`. A fragment lives in `lua/shared/`, and
may use others. The server makes a script's functions anew at each call: one that most calls have no
need of is used `lazily`, and made, with all it uses itself, when it is called. What scripts have in
common from some line on is no function, as one that uses many others costs more than it does: they
go on with it, `--- @then end_nodes`, behind their own text.

The server keeps what it has compiled, and its collector of garbage walks over all of that again and
again: so a script has each of its fragments as seldom as it can, and is loaded when it is called.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from itertools import chain
from typing import Final, NamedTuple

_USE = re.compile(r"^--- @use (\w+)( lazily)?$", re.MULTILINE)
_THEN = re.compile(r"^--- @then (\w+)$", re.MULTILINE)
_COMMENT = re.compile(r"^ *--.*\n", re.MULTILINE)
_LUA = resources.files("flowd.store") / "lua"


@dataclass(frozen=True, slots=True)
class Script:
    """Its text is kept as the pieces that it has in common with others: they are most of it."""

    name: str
    pieces: tuple[str, ...]
    sha: str

    @property
    def text(self) -> str:
        return "\n".join(self.pieces)


class _File(NamedTuple):
    """A file without its comments, and what the head of it names."""

    text: str
    uses: list[tuple[str, str]]
    then: list[str]


def _load(name: str) -> Script:
    """The first line (`#!lua …`) has to stay first, so fragments go in behind it."""
    file = _read(f"{name}.lua")
    shebang, _, body = file.text.partition("\n")
    rest = [_fragment(one) for one in file.then]
    lazy: dict[str, list[str]] = {}
    fragments = _used_by([use for one in (file, *rest) for use in one.uses], lazy)
    making = _making(lazy) if lazy else []
    pieces = (shebang, *making, *fragments.values(), body, *(one.text for one in rest))
    text = "\n".join(pieces).encode()
    return Script(name, pieces, hashlib.sha1(text, usedforsecurity=False).hexdigest())


def _read(path: str) -> _File:
    text = (_LUA / path).read_text("utf-8")
    return _File(_COMMENT.sub("", text), _USE.findall(text), _THEN.findall(text))


@cache
def _fragment(name: str) -> _File:
    return _read(f"shared/{name}.lua")


def _used_by(uses: Sequence[tuple[str, str]], lazy: dict[str, list[str]]) -> dict[str, str]:
    """The texts of these fragments, each behind those it uses itself.

    In place of one that is used lazily stands one that has it made; what makes it is put into
    `lazy`, once for the whole script.
    """
    fragments: dict[str, str] = {}
    for name, lazily in uses:
        if lazily:
            if name not in lazy:
                # Known before its text is looked at: it may be used by what it uses.
                lazy[name] = []
                fragment = _fragment(name)
                own = _used_by(fragment.uses, lazy).values()
                lazy[name] += [*own, fragment.text, f"return {name}"]
            fragments.setdefault(name, f"local function {name}(...) return made('{name}')(...) end")
        elif name not in fragments:
            fragment = _fragment(name)
            for one, used in _used_by(fragment.uses, lazy).items():
                fragments.setdefault(one, used)
            fragments[name] = fragment.text
    return fragments


def _making(lazy: Mapping[str, Sequence[str]]) -> list[str]:
    """The function that makes each of these when it is called for."""
    branches = ((f"if name == '{name}' then", *texts, "end") for name, texts in lazy.items())
    return ["local function made(name)", *chain.from_iterable(branches), "end"]


STAGE_MAP: Final = _load("stage_map")
STAGE_NODES: Final = _load("stage_nodes")
SUBMIT_WORKFLOW: Final = _load("submit_workflow")
CLOSE_SUBMISSION: Final = _load("close_submission")
TRIGGER_WORKFLOW: Final = _load("trigger_workflow")
RUN_WORKFLOW: Final = _load("run_workflow")
START_CHILDREN: Final = _load("start_children")
SETTLE_FOLLOW: Final = _load("settle_follow")
PUT_DEFINITION: Final = _load("put_definition")
DELETE_DEFINITION: Final = _load("delete_definition")
DUE_SCHEDULES: Final = _load("due_schedules")
FIRE_SCHEDULE: Final = _load("fire_schedule")
POSTPONE_SCHEDULE: Final = _load("postpone_schedule")
PUT_SCHEDULE: Final = _load("put_schedule")
DELETE_SCHEDULE: Final = _load("delete_schedule")
CLAIM_NODES: Final = _load("claim_nodes")
COMPLETE_NODES: Final = _load("complete_nodes")
SKIP_NODES: Final = _load("skip_nodes")
ALLOW_FAILURES: Final = _load("allow_failures")
FAIL_NODE: Final = _load("fail_node")
FAIL_DOWNSTREAM: Final = _load("fail_downstream")
ADVANCE_NODE: Final = _load("advance_node")
RETRY_NODE: Final = _load("retry_node")
WAIT_NODES: Final = _load("wait_nodes")
WAKE_NODE: Final = _load("wake_node")
STAGE_ITEMS: Final = _load("stage_items")
EXPAND_NODE: Final = _load("expand_node")
COMPLETE_ITEMS: Final = _load("complete_items")
FAIL_ITEMS: Final = _load("fail_items")
RETRY_ITEM: Final = _load("retry_item")
CANCEL_ITEMS: Final = _load("cancel_items")
DISPATCH_RETRIES: Final = _load("dispatch_retries")
ADMIT_NODES: Final = _load("admit_nodes")
SETTLE_LIMITS: Final = _load("settle_limits")
PUT_LIMIT: Final = _load("put_limit")
CHECK_LIMITS: Final = _load("check_limits")
DROP_ENDED: Final = _load("drop_ended")
PRUNE_QUEUES: Final = _load("prune_queues")
KEEP_OUTPUTS: Final = _load("keep_outputs")
FIND_OUTPUTS: Final = _load("find_outputs")
DROP_OUTPUTS: Final = _load("drop_outputs")
KEEP_CLOCK: Final = _load("keep_clock")
PAUSE_EXECUTION: Final = _load("pause_execution")
PARK_NODE: Final = _load("park_node")
RESUME_EXECUTION: Final = _load("resume_execution")
CANCEL_EXECUTION: Final = _load("cancel_execution")
CANCEL_NODES: Final = _load("cancel_nodes")
REQUEUE_ENTRY: Final = _load("requeue_entry")
RESTORE_NODE: Final = _load("restore_node")
BURY_ENTRY: Final = _load("bury_entry")
SETTLE_PLACES: Final = _load("settle_places")
FAIL_EXECUTION: Final = _load("fail_execution")
DELETE_EXECUTIONS: Final = _load("delete_executions")
CLAIM_CALLBACKS: Final = _load("claim_callbacks")
POSTPONE_CALLBACK: Final = _load("postpone_callback")
SETTLE_CALLBACK: Final = _load("settle_callback")
APPEND_LOG: Final = _load("append_log")
RESERVE_TOKENS: Final = _load("reserve_tokens")
SETTLE_TOKENS: Final = _load("settle_tokens")
ENROLL_WORKER: Final = _load("enroll_worker")
RENEW_LEASE: Final = _load("renew_lease")
TAKE_ENTRIES: Final = _load("take_entries")
RETIRE_WORKER: Final = _load("retire_worker")
READMIT_EXECUTIONS: Final = _load("readmit_executions")
STRIKE_NAMES: Final = _load("strike_names")
SET_ASIDE: Final = _load("set_aside")
REPORT_TROUBLE: Final = _load("report_trouble")
NOTE_TICK: Final = _load("note_tick")
CHECK_RIGHTS: Final = _load("check_rights")

ALL: Final = tuple(value for value in list(globals().values()) if isinstance(value, Script))
