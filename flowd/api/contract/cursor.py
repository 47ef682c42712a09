"""Cursors: where the next page begins, opaque to clients."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable

from flowd.errors import InvalidRequest, Problem


def write_cursor(last: str | None) -> str | None:
    if last is None:
        return None
    return base64.urlsafe_b64encode(last.encode()).decode().rstrip("=")


def read_cursor(cursor: str | None, is_known: Callable[[str], bool]) -> str | None:
    """What was written, None for none. Raises InvalidRequest when it is none of ours."""
    if not cursor:
        return None
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        last = base64.b64decode(padded, altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        last = ""
    if not last or not is_known(last):
        message = "this is no cursor of this list; take `next_cursor` of an answer as it is"
        raise InvalidRequest([Problem("query.cursor", "invalid_cursor", message)])
    return last
