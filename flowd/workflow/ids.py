"""The ids of executions and of items: made here, and told from other text."""

from __future__ import annotations

import hashlib
import re
import secrets
from typing import Final

# What a node with `map` itself is run by; no workflow can name it.
MAP_HANDLER: Final = "flowd.map"
# What a node is run by that has a child.
WORKFLOW: Final = "workflow"
# These are steps of the engine itself, and use what only the worker has: none runs apart from it.
STEPS: Final = frozenset({MAP_HANDLER, WORKFLOW})
# The handlers that spend of a budget, or whose children may.
SPENDING: Final = frozenset({"llm", WORKFLOW})
# Where the nodes are queued that name no queue.
DEFAULT_QUEUE: Final = "default"
# Names that are parts of keys and paths: of saved definitions, and of what refers to them.
NAME_PATTERN: Final = r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$"
NAME_RULE: Final = "1 to 100 letters, digits, '_', '.' and '-', the first of them not '.' or '-'"
# What stands for a label in a list of values, and in one of `name=value`.
LABEL_VALUE_PATTERN: Final = r"^[^\x00-\x1f\x7f,]{1,100}$"
LABEL_VALUE_RULE: Final = "1 to 100 characters of text without commas"
_LABEL_VALUE = re.compile(LABEL_VALUE_PATTERN)
_NAME = re.compile(NAME_PATTERN)
_EXECUTION_ID = re.compile(r"[0-9a-f]{24}")


def new_execution_id(at_ms: int) -> str:
    """48 bits of wall time in ms, then 48 random bits, as 24 hex digits: ids sort by age."""
    return f"{at_ms:012x}{secrets.token_hex(6)}"


def scheduled_id(schedule: str, time_ms: int) -> str:
    """The execution that a schedule starts for this time. It is as old as that."""
    digest = hashlib.sha256(f"{schedule} {time_ms}".encode()).hexdigest()
    return f"{time_ms:012x}{digest[:12]}"


def time_of(execution_id: str) -> int:
    """How old an id is, Unix ms: when it was made, or the time that a schedule made it for."""
    return int(execution_id[:12], 16)


def child_id(parent_id: str, node_id: str, number: int) -> str:
    """What a node waits for in its wait of this number; it sorts beside its parent."""
    digest = hashlib.sha256(f"{parent_id} {node_id} {number}".encode()).hexdigest()
    return parent_id[:12] + digest[:12]


def is_execution_id(text: str) -> bool:
    return _EXECUTION_ID.fullmatch(text) is not None


def is_name(text: str) -> bool:
    return _NAME.fullmatch(text) is not None


def is_label_value(text: str) -> bool:
    return _LABEL_VALUE.fullmatch(text) is not None


def item_id(node_id: str, index: int | str) -> str:
    return f"{node_id}.{index}"


def split_item(node_id: str) -> tuple[str, str]:
    """The node an item belongs to and its index; the index is empty for what is none."""
    above, _, index = node_id.partition(".")
    return above, index if index.isascii() and index.isdecimal() else ""
