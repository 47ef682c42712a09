"""Read a request's body within bounds, and parse it as the strict JSON that flowd stores."""

from __future__ import annotations

import asyncio

from starlette.requests import ClientDisconnect, Request

from flowd.errors import FlowdError

BODY_S_MAX = 60.0
# A refused body is read on for this long: a client that only listens once it has sent everything
# would see a broken connection instead of the refusal.
REFUSED_BODY_S_MAX = 2.0


class BodyTooLarge(FlowdError):
    """The body is longer than flowd reads."""

    code = "body_too_large"

    def __init__(self, bytes_max: int, *, is_setting: bool = True) -> None:
        hint = "; the setting is api.body_max_mb" if is_setting else " for this request"
        super().__init__(f"the body is longer than the limit of {bytes_max:,} bytes{hint}")


class BodyTooSlow(FlowdError):
    """The body did not arrive in time."""

    code = "body_too_slow"

    def __init__(self) -> None:
        super().__init__(f"the body did not arrive within {BODY_S_MAX:g} seconds; send it again")


async def read_body(request: Request, bytes_max: int, *, is_setting: bool = True) -> bytes:
    """The whole body; `is_setting` says whose limit it is.

    Raises BodyTooLarge or BodyTooSlow; close the connection after these.
    """
    try:
        async with asyncio.timeout(BODY_S_MAX):
            return await _read_bounded(request, bytes_max, is_setting=is_setting)
    except TimeoutError:
        raise BodyTooSlow from None


async def _read_bounded(request: Request, bytes_max: int, *, is_setting: bool) -> bytes:
    if _announced_bytes(request) > bytes_max:
        # A client that asked first has sent nothing yet, and now will not.
        if "expect" not in request.headers:
            await _read_on(request)
        raise BodyTooLarge(bytes_max, is_setting=is_setting)
    chunks: list[bytes] = []
    length = 0
    has_more = True
    while has_more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunks.append(message.get("body", b""))
        length += len(chunks[-1])
        has_more = message.get("more_body", False)
        if length > bytes_max:
            chunks.clear()
            if has_more:
                await _read_on(request)
            raise BodyTooLarge(bytes_max, is_setting=is_setting)
    return b"".join(chunks)


def _announced_bytes(request: Request) -> int:
    announced = request.headers.get("content-length", "")
    return int(announced) if announced.isdigit() and len(announced) < 20 else 0


async def _read_on(request: Request) -> None:
    """Throw away what still arrives, until it ends or the time is up."""
    try:
        async with asyncio.timeout(REFUSED_BODY_S_MAX):
            while (await request.receive()).get("more_body", False):
                pass
    except TimeoutError:
        return
