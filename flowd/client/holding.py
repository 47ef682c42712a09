"""What both clients say of what holds nodes back, and of what spares them: limits, the cache."""

from __future__ import annotations

import builtins
from abc import ABC, abstractmethod
from typing import Any

from flowd.client import calls
from flowd.client.calls import Call, Json


class Holding(ABC):
    """Of a client that waits."""

    @abstractmethod
    def _send(self, call: Call) -> Any: ...

    def put_limit(
        self,
        name: str,
        *,
        max: int | None = None,
        per_s: float | None = None,
        burst: int | None = None,
    ) -> Json:
        """Make a limit, or change it; the answer says which."""
        rule = {"max": max, "per_s": per_s, "burst": burst}
        return dict(self._send(calls.put_limit(name, rule)))

    def limit(self, name: str) -> Json:
        """A limit: what it says, who holds its places and who waits for them."""
        return dict(self._send(calls.limits(name)))

    def limits(self) -> builtins.list[Json]:
        """The limits, by name."""
        return builtins.list((self._send(calls.limits()))["limits"])

    def delete_limit(self, name: str) -> None:
        """Lift a limit; everybody who waits for a place starts."""
        self._send(calls.limits(name, method="DELETE"))

    def cache(self) -> Json:
        """How much is kept for equal calls, by handler."""
        return dict(self._send(calls.cache()))

    def clear_cache(self, handler: str | None = None, key: str | None = None) -> int:
        """Forget what is kept, of all handlers, of one, or under its keys that begin so; how many
        outputs that was."""
        return int(self._send(calls.cache(method="DELETE", handler=handler, key=key))["removed"])


class AsyncHolding(ABC):
    """Of a client for an event loop."""

    @abstractmethod
    async def _send(self, call: Call) -> Any: ...

    async def put_limit(
        self,
        name: str,
        *,
        max: int | None = None,
        per_s: float | None = None,
        burst: int | None = None,
    ) -> Json:
        """Make a limit, or change it; the answer says which."""
        rule = {"max": max, "per_s": per_s, "burst": burst}
        return dict(await self._send(calls.put_limit(name, rule)))

    async def limit(self, name: str) -> Json:
        """A limit: what it says, who holds its places and who waits for them."""
        return dict(await self._send(calls.limits(name)))

    async def limits(self) -> list[Json]:
        """The limits, by name."""
        return list((await self._send(calls.limits()))["limits"])

    async def delete_limit(self, name: str) -> None:
        """Lift a limit; everybody who waits for a place starts."""
        await self._send(calls.limits(name, method="DELETE"))

    async def cache(self) -> Json:
        """How much is kept for equal calls, by handler."""
        return dict(await self._send(calls.cache()))

    async def clear_cache(self, handler: str | None = None, key: str | None = None) -> int:
        """Forget what is kept, of all handlers, of one, or under its keys that begin so; how many
        outputs that was."""
        call = calls.cache(method="DELETE", handler=handler, key=key)
        return int((await self._send(call))["removed"])
