"""What a worker asks about the nodes it is to run, many of them in one call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

import orjson

from flowd.store.executions import NODES_PER_CALL_MAX, slices
from flowd.store.redis import keys
from flowd.store.redis.client import Command, RedisClient, is_wrong_type
from flowd.store.redis.text import raw_bytes, readable
from flowd.workflow.ids import split_item
from flowd.workflow.states import ExecutionState


class Fact(NamedTuple):
    """One thing to know: the `status` or the `input` of an execution, what it `ends` as before its
    `finally` (a JSON object of status and error, and of scheduled_at where it has that), or of a
    node its `state`, its `output`, the number of what has `arrived` at it, the `decision` that
    ended its newest wait, or the `item` it runs for; or the `payer` whose budget a child spends,
    or the execution of which it is a `rerun`.
    """

    kind: Literal[
        "status",
        "input",
        "ends",
        "state",
        "output",
        "arrived",
        "decision",
        "item",
        "payer",
        "rerun",
    ]
    execution_id: str
    node_id: str = ""


_KEY_OF: Final[Mapping[str, Callable[[Fact], str]]] = {
    "status": lambda fact: keys.status(fact.execution_id),
    "input": lambda fact: keys.given_input(fact.execution_id),
    "state": lambda fact: keys.node(fact.execution_id, fact.node_id),
    "output": lambda fact: keys.output(fact.execution_id, fact.node_id),
}
# What stands in a field of a hash.
_FIELD_OF: Final[Mapping[str, Callable[[Fact], tuple[str, ...]]]] = {
    "arrived": lambda fact: (keys.run(fact.execution_id), f"arrived:{fact.node_id}"),
    "decision": lambda fact: (keys.decisions(fact.execution_id), fact.node_id),
    "item": lambda fact: _item_field(*split_item(fact.node_id), fact.execution_id),
    "payer": lambda fact: (keys.run(fact.execution_id), "payer"),
    "rerun": lambda fact: (keys.run(fact.execution_id), "rerun_of"),
    "ends": lambda fact: (keys.run(fact.execution_id), "ends_as", "failure", "scheduled_at"),
}
# What is of any size; the other strings are words.
_UNBOUNDED: Final = frozenset({"input", "output"})


class Facts:
    """Raises StoreUnavailable while Redis does not answer."""

    def __init__(self, client: RedisClient) -> None:
        self._client = client

    async def find(
        self, wanted: Sequence[Fact], bytes_max: int
    ) -> tuple[dict[Fact, str | None], dict[Fact, int]]:
        """What is stored of each, in one write; None where there is nothing of the right type.

        Of an input or output with more than `bytes_max` the beginning, and its size in the second
        answer.
        """
        texts = [fact for fact in wanted if fact.kind in _UNBOUNDED]
        fields = [fact for fact in wanted if fact.kind in _FIELD_OF]
        words = [fact for fact in wanted if fact.kind not in _UNBOUNDED | _FIELD_OF.keys()]
        commands: list[Command] = [("GETRANGE", _key(fact), 0, bytes_max) for fact in texts]
        if words:
            commands.append(("MGET", *map(_key, words)))
        # Those that stand in one hash are asked for together.
        hashes: dict[str, list[str]] = {}
        places: list[tuple[Fact, str, int]] = []
        for fact in fields:
            key, *names = _FIELD_OF[fact.kind](fact)
            asked = hashes.setdefault(key, [])
            places.append((fact, key, len(asked)))
            asked += names
        commands += (("HMGET", key, *names) for key, names in hashes.items())
        replies = iter(await self._client.converse_freely(commands))
        found: dict[Fact, str | None] = {fact: _text(next(replies)) or None for fact in texts}
        if words:
            found.update(_values(words, next(replies)))
        values = {key: next(replies) for key in hashes}
        for fact, key, at in places:
            found[fact] = _of_fields(fact, values[key], at)
        large = [fact for fact in texts if _is_longer(found[fact] or "", bytes_max)]
        if not large:
            return found, {}
        sizes = await self._client.converse([("STRLEN", _key(fact)) for fact in large])
        return found, dict(zip(large, sizes, strict=True))

    async def read_whole(self, wanted: Sequence[Fact]) -> dict[Fact, str | None]:
        """All of these inputs and outputs; None where there is none."""
        found: dict[Fact, str | None] = {}
        for some in slices(wanted, NODES_PER_CALL_MAX):
            texts = await self._client.execute("MGET", *map(_key, some))
            found.update(zip(some, texts, strict=True))
        return found


def _item_field(node_id: str, index: str, execution_id: str) -> tuple[str, str]:
    return keys.map_items(execution_id, node_id), index


def _key(fact: Fact) -> str:
    return _KEY_OF[fact.kind](fact)


def _of_fields(fact: Fact, reply: Any, at: int) -> str | None:
    """The fact whose fields begin `at` this place of the reply."""
    if is_wrong_type(reply):
        return None
    first: str | None = reply[at]
    if fact.kind != "ends":
        return first
    failure, scheduled_at = reply[at + 1 : at + 3]
    # What fails in `finally` is no error of what that comes after.
    error = readable(failure) if first == ExecutionState.FAILED and failure else None
    said = {"status": first, "error": error}
    if scheduled_at:
        said["scheduled_at"] = readable(scheduled_at)
    return orjson.dumps(said).decode()


def _text(reply: Any) -> str | None:
    return None if is_wrong_type(reply) else reply


def _values(facts: Sequence[Fact], reply: Any) -> dict[Fact, str | None]:
    if is_wrong_type(reply):
        return dict.fromkeys(facts)
    return dict(zip(facts, reply, strict=True))


def _is_longer(text: str, bytes_max: int) -> bool:
    # A character has at most four bytes.
    return len(text) * 4 > bytes_max and len(raw_bytes(text)) > bytes_max
