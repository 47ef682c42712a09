"""Dead letters: entries no worker could make sense of, and nodes that were given up."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from flowd.errors import CorruptStore, UnknownDeadLetter, WrongType
from flowd.store.attempt_records import AttemptRecord, parse_record
from flowd.store.redis import keys
from flowd.store.redis.client import Argument, RedisClient
from flowd.store.redis.text import raw_bytes, readable
from flowd.workflow.ids import is_execution_id

RAW_FIELDS_MAX: Final = 100
RAW_CHARS_MAX: Final = 1_000

_LETTER_ID = re.compile(r"\d{1,15}-\d{1,15}", re.ASCII)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """`fields` are those of an entry that was buried, bytes that are no text escaped.

    Execution, node and attempt are None where the entry did not name any.
    """

    letter_id: str
    reason: str
    entry_id: str | None
    execution_id: str | None
    node_id: str | None
    attempt: AttemptRecord | None
    fields: list[tuple[str, str]] | None

    @property
    def at_ms(self) -> int:
        return int(self.letter_id.partition("-")[0])


class DeadLetterPage(NamedTuple):
    letters: list[DeadLetter]
    next_id: str | None


def is_letter_id(text: str) -> bool:
    return _LETTER_ID.fullmatch(text) is not None


class DeadLetters:
    """Raises StoreUnavailable while Redis does not answer, CorruptStore when the key is none."""

    def __init__(self, client: RedisClient) -> None:
        self._client = client

    async def page(self, count_max: int, after_id: str | None = None) -> DeadLetterPage:
        """Up to `count_max` behind this one, the newest first."""
        start = f"({after_id}" if after_id else "+"
        rows = await self._execute(
            "XREVRANGE", keys.DEAD_LETTERS, start, "-", "COUNT", count_max + 1
        )
        letters = [_letter(*row) for row in rows[:count_max]]
        return DeadLetterPage(letters, letters[-1].letter_id if len(rows) > count_max else None)

    async def count(self) -> int:
        count: int = await self._execute("XLEN", keys.DEAD_LETTERS)
        return count

    async def letter(self, letter_id: str) -> DeadLetter:
        """Raises UnknownDeadLetter."""
        rows = await self._execute("XRANGE", keys.DEAD_LETTERS, letter_id, letter_id)
        if not rows:
            raise UnknownDeadLetter(letter_id)
        return _letter(*rows[0])

    async def delete(self, letter_id: str) -> None:
        """Raises UnknownDeadLetter."""
        if await self._execute("XDEL", keys.DEAD_LETTERS, letter_id) == 0:
            raise UnknownDeadLetter(letter_id)

    async def purge(self) -> int:
        """Delete all; how many there were. The stream is capped, so one command is enough."""
        deleted: int = await self._execute("XTRIM", keys.DEAD_LETTERS, "MAXLEN", 0)
        return deleted

    async def _execute(self, *command: Argument) -> Any:
        try:
            return await self._client.execute(*command)
        except WrongType as error:
            raise CorruptStore(keys.DEAD_LETTERS) from error


def _letter(letter_id: str, flat: Sequence[str]) -> DeadLetter:
    named = dict(zip(flat[::2], flat[1::2], strict=False))
    raw = named.get("raw")
    fields = None if raw is None else _pairs(unpack_texts(raw_bytes(raw)))
    inside = dict(fields or ())
    execution_id = named.get("execution_id") or inside.get("execution_id", "")
    return DeadLetter(
        letter_id,
        readable(named.get("reason", "")),
        _readable(named.get("entry_id")),
        execution_id if is_execution_id(execution_id) else None,
        _readable(named.get("node_id")) or inside.get("node_id"),
        parse_record(named.get("attempt")),
        fields,
    )


def _readable(text: str | None) -> str | None:
    return None if text is None else readable(text)


def _pairs(texts: Sequence[bytes]) -> list[tuple[str, str]]:
    shown = [_shown(text) for text in texts[: 2 * RAW_FIELDS_MAX]]
    return list(zip(shown[::2], [*shown[1::2], ""], strict=False))


def _shown(raw: bytes) -> str:
    text = raw.decode(errors="backslashreplace")
    return text if len(text) <= RAW_CHARS_MAX else text[:RAW_CHARS_MAX] + "…"


def unpack_texts(packed: bytes) -> list[bytes]:
    """The strings of one flat msgpack list, which is all that bury_entry.lua writes.

    Reading stops where anything else begins (https://github.com/msgpack/msgpack, spec.md).
    """
    count, at = _array_head(packed)
    texts: list[bytes] = []
    while len(texts) < count and at < len(packed):
        size, at = _text_head(packed, at)
        if size is None:
            break
        texts.append(packed[at : at + size])
        at += size
    return texts


def _array_head(packed: bytes) -> tuple[int, int]:
    """How many items a list has, and where the first begins."""
    head = packed[0] if packed else 0
    if 0x90 <= head <= 0x9F:
        return head & 0x0F, 1
    width = {0xDC: 2, 0xDD: 4}.get(head, 0)
    return int.from_bytes(packed[1 : 1 + width], "big"), 1 + width


def _text_head(packed: bytes, at: int) -> tuple[int | None, int]:
    """The length of a string and where it begins; None for what is no string."""
    head = packed[at]
    if 0xA0 <= head <= 0xBF:
        return head & 0x1F, at + 1
    width = {0xD9: 1, 0xDA: 2, 0xDB: 4, 0xC4: 1, 0xC5: 2, 0xC6: 4}.get(head)
    if width is None:
        return None, at
    return int.from_bytes(packed[at + 1 : at + 1 + width], "big"), at + 1 + width
