"""What does not go as it should: duties of schedulers that fail, continuations that cannot be
carried on, workers that ask for no work.

A report is gone when it is mended, or when nobody has repeated it for a while.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from flowd.store.redis import keys, scripts
from flowd.store.redis.client import RedisClient
from flowd.store.redis.text import readable

# Whoever fails says so again long before.
REPORT_EXPIRES_S: Final = 600
REASON_CHARS_MAX: Final = 300
# Of a storm of troubles the first few say enough.
REPORTS_MAX: Final = 1_000
_DUTY: Final = "duty "
_WORKER: Final = "worker "


class Trouble(NamedTuple):
    """`what` is the name of a duty, or a continuation: its verb, execution id and node id."""

    what: str
    reason: str

    def is_about(self, execution_id: str) -> bool:
        return self.what.split(" ")[1:2] == [execution_id]


class Troubles:
    """Raises StoreUnavailable while Redis does not answer; every call may be repeated."""

    def __init__(self, client: RedisClient) -> None:
        self._client = client

    async def report_duty(self, name: str, reason: str) -> None:
        await self._report(_DUTY + name, reason)

    async def clear_duty(self, name: str) -> None:
        await self._client.execute("HDEL", keys.TROUBLES, _DUTY + name)

    async def report_continuation(self, member: str, reason: str) -> None:
        await self._report(member, reason)

    async def clear_continuation(self, member: str) -> None:
        await self._client.execute("HDEL", keys.TROUBLES, member)

    async def duties(self) -> list[Trouble]:
        """The duties that fail, by name."""
        return [
            Trouble(what.removeprefix(_DUTY), reason)
            for what, reason in await self._all()
            if what.startswith(_DUTY)
        ]

    async def report_worker(self, consumer: str, reason: str) -> None:
        await self._report(_WORKER + consumer, reason)

    async def clear_worker(self, consumer: str) -> None:
        await self._client.execute("HDEL", keys.TROUBLES, _WORKER + consumer)

    async def workers(self) -> list[Trouble]:
        """The workers that live and ask for no work although they have room, by consumer."""
        said = [one for one in await self._all() if one.what.startswith(_WORKER)]
        found = [Trouble(one.what.removeprefix(_WORKER), one.reason) for one in said]
        live = await self._client.execute("HKEYS", keys.LEASES) if found else []
        return [one for one in found if one.what in live]

    async def continuations(self) -> list[Trouble]:
        """What was begun and cannot be carried on."""
        own = (_DUTY, _WORKER)
        return [one for one in await self._all() if not one.what.startswith(own)]

    async def _report(self, what: str, reason: str) -> None:
        await self._client.run(
            scripts.REPORT_TROUBLE,
            (keys.TROUBLES,),
            what,
            reason[:REASON_CHARS_MAX],
            REPORT_EXPIRES_S,
            REPORTS_MAX,
        )

    async def _all(self) -> list[Trouble]:
        flat = await self._client.execute("HGETALL", keys.TROUBLES)
        pairs = zip(flat[::2], flat[1::2], strict=True)
        return sorted(Trouble(readable(what), readable(reason)) for what, reason in pairs)
