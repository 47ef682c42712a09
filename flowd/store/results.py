"""The outputs of an execution as one JSON object, read and passed on piece by piece.

What all outputs together may be is far more than a process should hold for one reader: it holds a
piece at a time, however large they are.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Final, NamedTuple

import orjson

from flowd.errors import CorruptExecution, ResultsTooLarge
from flowd.store.executions import NODES_PER_CALL_MAX, Executions
from flowd.store.redis import keys
from flowd.store.redis.client import RedisClient
from flowd.store.redis.text import raw_bytes

RESULTS_BYTES_MAX: Final = 64 * 1024 * 1024
# Of one piece, but for the last output in it, which may be of any length below this as well.
PIECE_BYTES_MAX: Final = 256 * 1024


class _Stored(NamedTuple):
    node_id: str
    size: int


class StoredResults:
    """The outputs that stood when it was opened; `size` is the length of `pieces` together.

    `sizes` are those of the outputs in bytes, by node id. Raises ResultsTooLarge.
    """

    def __init__(
        self,
        client: RedisClient,
        executions: Executions,
        execution_id: str,
        sizes: Mapping[str, int],
    ) -> None:
        stored = [_Stored(*one) for one in sizes.items() if one[1]]
        if (size := sum(one.size for one in stored)) > RESULTS_BYTES_MAX:
            raise ResultsTooLarge(execution_id, size, RESULTS_BYTES_MAX)
        self._client = client
        self._executions = executions
        self._execution_id = execution_id
        self._stored = stored
        names = sum(len(orjson.dumps(one.node_id)) + 2 for one in stored)
        self.size = size + names + (1 if stored else 2)

    async def read(self) -> bytes:
        """All pieces at once, for those who may hold them."""
        found = b"".join([piece async for piece in self.pieces()])
        # Behind them: what was deleted meanwhile is unknown, and its outputs are not half of them.
        await self._executions.execution_status(self._execution_id)
        return found

    async def pieces(self) -> AsyncIterator[bytes]:
        """The object, `{"A":{…},"B":{…}}`. Raises CorruptExecution at an output that is none."""
        opening = b"{"
        for group in _groups(self._stored):
            if group[0].size > PIECE_BYTES_MAX:
                yield opening + orjson.dumps(group[0].node_id) + b":"
                async for piece in self._slices(*group[0]):
                    yield piece
            else:
                yield opening + b",".join(await self._outputs(group))
            opening = b","
        yield b"}" if self._stored else b"{}"

    async def _outputs(self, group: Sequence[_Stored]) -> list[bytes]:
        key, execution_id = keys.output, self._execution_id
        texts = await self._client.execute("MGET", *(key(execution_id, one[0]) for one in group))
        found = []
        for one, text in zip(group, texts, strict=True):
            data = raw_bytes(text or "")
            try:
                orjson.loads(data)
            except ValueError as error:
                await self._executions.execution_status(execution_id)
                raise CorruptExecution(execution_id, f"an output is not JSON: {error}") from None
            await self._check(one.node_id, one.size, len(data))
            found.append(orjson.dumps(one.node_id) + b":" + data)
        return found

    async def _slices(self, node_id: str, size: int) -> AsyncIterator[bytes]:
        """An output that is too large to be looked at as a whole."""
        key, read = keys.output(self._execution_id, node_id), 0
        while read < size:
            text = await self._client.execute("GETRANGE", key, read, read + PIECE_BYTES_MAX - 1)
            data = raw_bytes(text)
            read += len(data)
            if not data or read > size:
                await self._check(node_id, size, read)
            yield data

    async def _check(self, node_id: str, size: int, read: int) -> None:
        if read != size:
            await self._executions.execution_status(self._execution_id)
            reason = f"the output of {node_id!r} was replaced while it was read"
            raise CorruptExecution(self._execution_id, reason)


def _groups(stored: Sequence[_Stored]) -> list[list[_Stored]]:
    """What is read in one call: a large output is alone in its group."""
    groups: list[list[_Stored]] = []
    size = 0
    for one in stored:
        size += one.size
        if not groups or size > PIECE_BYTES_MAX or len(groups[-1]) == NODES_PER_CALL_MAX:
            groups.append([])
            size = one.size
        groups[-1].append(one)
    return groups
