"""Saved definitions: each version as it was saved, under a name, until the name is deleted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import orjson

from flowd.errors import CorruptStore, DefinitionInUse, UnknownDefinition, WrongType
from flowd.store.redis import keys, scripts
from flowd.store.redis.client import Command, RedisClient, is_wrong_type
from flowd.store.redis.text import raw_bytes
from flowd.store.sets import Sets

_ABOUT: Final = "about:"
_PAGE: Final = 1_000
NO_LABELS: Final[Mapping[str, str]] = MappingProxyType({})


class About(NamedTuple):
    """What is said about a version: when it was saved, the `handlers` it was checked against (a
    digest), and the names of the saved workflows that its nodes run.
    """

    saved_ms: int
    nodes: int
    handlers: str
    labels: Mapping[str, str] = NO_LABELS
    calls: Sequence[str] = ()

    def to_json(self) -> bytes:
        said = {**self._asdict(), "labels": dict(self.labels)}
        if not self.calls:
            # A flowd that does not know the field reads the others.
            del said["calls"]
        return orjson.dumps(said)


class Version(NamedTuple):
    version: int
    about: About


class SavedRow(NamedTuple):
    """A saved definition in a list: its latest version."""

    name: str
    latest: Version | None


class Saved(NamedTuple):
    """One version as a whole; `latest` is the number of the newest one."""

    name: str
    version: int
    latest: int
    definition: bytes
    digest: str
    about: About


class SavedDefinitions:
    """Raises StoreUnavailable while Redis does not answer, CorruptStore for what flowd did not
    write; every call may be repeated.
    """

    def __init__(self, client: RedisClient) -> None:
        self._client = client
        self.sets = Sets(client)

    async def put(
        self, name: str, definition: bytes, digest: str, about: About
    ) -> tuple[int, bool]:
        """The number of the version, and whether it is new: what equals the latest is that."""
        outcome, *rest = await self._run(
            scripts.PUT_DEFINITION,
            (keys.DEFINITIONS, keys.saved_definition(name)),
            *(name, definition, digest, about.to_json()),
        )
        if outcome == "corrupt":
            raise CorruptStore(keys.saved_definition(name))
        return int(rest[0]), outcome == "saved"

    async def find(self, name: str, version: int | None = None) -> Saved:
        """One version, or the latest. Raises UnknownDefinition."""
        key = keys.saved_definition(name)
        latest = _number(await self._read(key, "HGET", key, "latest"), key)
        number = version or latest
        if not latest or number > latest:
            raise UnknownDefinition(name, version, latest)
        fields = [f"{one}:{number}" for one in ("definition", "digest", "about")]
        written, digest, about = await self._read(key, "HMGET", key, *fields)
        if written is None:
            # Deleted since, or never saved.
            raise UnknownDefinition(name, version)
        return Saved(name, number, latest, raw_bytes(written), digest, _about(about, key))

    async def page(
        self, after: str | None, count_max: int, labels: Mapping[str, str] = NO_LABELS
    ) -> tuple[list[SavedRow], str | None]:
        """By name those whose latest version has these labels, and behind which the next page
        begins; it may be short before the last. What is damaged says nothing, and has no labels."""
        start = f"({after}" if after else "-"
        names = await self._read(
            keys.DEFINITIONS,
            *("ZRANGE", keys.DEFINITIONS, start, "+", "BYLEX", "LIMIT", 0, count_max + 1),
        )
        shown = names[:count_max]
        latest = await self._fields(shown, ["latest"] * len(shown))
        abouts = await self._fields(shown, [f"{_ABOUT}{number}" for number in latest])
        rows = [
            SavedRow(name, _version(name, number, about))
            for name, number, about in zip(shown, latest, abouts, strict=True)
        ]
        passing = [row for row in rows if not labels or _has(row.latest, labels)]
        return passing, shown[-1] if len(names) > count_max else None

    async def _fields(self, names: Sequence[str], fields: Sequence[str]) -> list[str | None]:
        """One field of each definition."""
        commands: list[Command] = [
            ("HGET", keys.saved_definition(name), field)
            for name, field in zip(names, fields, strict=True)
        ]
        replies = await self._client.converse_freely(commands) if commands else []
        return [None if is_wrong_type(one) else one for one in replies]

    async def versions(
        self, name: str, before: int | None, count_max: int
    ) -> tuple[list[Version], int | None]:
        """The newest first, and before which the next page begins. Raises UnknownDefinition."""
        key = keys.saved_definition(name)
        latest = _number(await self._read(key, "HGET", key, "latest"), key)
        if not latest:
            raise UnknownDefinition(name)
        first = min(latest, before - 1 if before else latest)
        numbers = range(first, max(first - count_max, 0), -1)
        found: Sequence[Any] = ()
        if numbers:
            found = await self._read(key, "HMGET", key, *(f"{_ABOUT}{one}" for one in numbers))
        shown = [
            Version(number, _about(about, key))
            for number, about in zip(numbers, found, strict=True)
        ]
        return shown, shown[-1].version if shown and shown[-1].version > 1 else None

    async def delete(self, name: str) -> None:
        """All versions. Raises UnknownDefinition, and DefinitionInUse while schedules run it, or
        the latest version of another calls it."""
        if callers := await self._callers(name):
            # What is not saved is called in vain, and unknown.
            await self.find(name)
            raise DefinitionInUse(name, (), callers)
        outcome, *users = await self._run(
            scripts.DELETE_DEFINITION,
            (keys.DEFINITIONS, keys.saved_definition(name), keys.schedules_of(name)),
            name,
        )
        if outcome == "used":
            raise DefinitionInUse(name, sorted(users))
        if outcome == "unknown":
            raise UnknownDefinition(name)

    async def _callers(self, name: str) -> list[str]:
        callers: list[str] = []
        after: str | None = None
        while True:
            rows, after = await self.page(after, _PAGE)
            about = ((row.name, row.latest.about) for row in rows if row.latest)
            callers += [one for one, said in about if name in said.calls and one != name]
            if after is None:
                return callers

    async def _run(self, script: scripts.Script, names: Sequence[str], *arguments: Any) -> Any:
        try:
            return await self._client.run(script, names, *arguments)
        except WrongType as error:
            raise CorruptStore(names[0]) from error

    async def _read(self, key: str, *command: Any) -> Any:
        try:
            return await self._client.execute(*command)
        except WrongType as error:
            raise CorruptStore(key) from error


def _has(version: Version | None, labels: Mapping[str, str]) -> bool:
    return version is not None and labels.items() <= version.about.labels.items()


def _version(name: str, number: str | None, about: str | None) -> Version | None:
    key = keys.saved_definition(name)
    try:
        return Version(_number(number, key), _about(about, key))
    except CorruptStore:
        return None


def _number(text: str | None, key: str) -> int:
    """0 where there is none."""
    if text is None:
        return 0
    if not (text.isascii() and text.isdecimal() and len(text) <= 9):
        raise CorruptStore(key)
    return int(text)


def _about(text: str | None, key: str) -> About:
    try:
        said = orjson.loads(raw_bytes(text or ""))
        return About(**{one: said[one] for one in said.keys() & set(About._fields)})
    except (ValueError, TypeError, AttributeError) as error:
        raise CorruptStore(key) from error
