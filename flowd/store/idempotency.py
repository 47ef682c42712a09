"""What was asked for under an Idempotency-Key: asking again is answered as the first time."""

from __future__ import annotations

import hashlib
from typing import Final, NamedTuple

from flowd.errors import IdempotencyMismatch
from flowd.store.redis import keys
from flowd.store.redis.client import RedisClient

KEPT_S: Final = 24 * 60 * 60


class Claimed(NamedTuple):
    """The execution that a key stands for, and the digest the key is kept under.

    Of one that `is_deleted` nothing is left but this: the work was done once, and is not again.
    """

    execution_id: str
    key_digest: str
    is_deleted: bool


class Idempotency:
    """Raises StoreUnavailable while Redis does not answer; every call may be repeated."""

    def __init__(self, client: RedisClient) -> None:
        self._client = client

    async def claim(self, key: str, request: bytes, execution_id: str) -> Claimed:
        """The execution that the first request under this key was about; this one's, if it is that.

        `request` is all that has to be equal. Raises IdempotencyMismatch when it is not.
        """
        digest, key_digest = _digest(request), _digest(key.encode())
        first = await self._client.execute(
            "SET",
            keys.idempotency(key_digest),
            f"{digest} {execution_id}",
            "NX",
            "GET",
            "EX",
            KEPT_S,
        )
        *deleted, first_digest, first_id = (first or f"{digest} {execution_id}").split(" ")
        if first_digest != digest:
            raise IdempotencyMismatch
        return Claimed(first_id, key_digest, bool(deleted))

    async def claimed(self, key: str) -> str | None:
        """The execution that this key stands for; None where nobody has claimed it."""
        claim: str | None = await self._client.execute(
            "GET", keys.idempotency(_digest(key.encode()))
        )
        return claim.rpartition(" ")[2] if claim else None


def _digest(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()
