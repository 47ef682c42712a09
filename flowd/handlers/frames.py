"""Messages between a process and those it forked: four bytes of length, then so much data."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Final

_LENGTH: Final = struct.Struct("!I")


def framed(data: bytes) -> bytes:
    return _LENGTH.pack(len(data)) + data


# What a frame begins with that is a line: its stream and a space, then its text.
LINE: Final = b"line "


async def read_frame(reader: asyncio.StreamReader) -> bytes | None:
    """None when there is none to come."""
    try:
        (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
        return await reader.readexactly(length)
    except (asyncio.IncompleteReadError, ConnectionError):
        return None


def receive_frame(line: socket.socket) -> bytes | None:
    """As `read_frame`, for one who blocks."""
    head = _receive(line, _LENGTH.size)
    return _receive(line, _LENGTH.unpack(head)[0]) if head else None


def _receive(line: socket.socket, length: int) -> bytes | None:
    data = bytearray()
    while len(data) < length:
        chunk = line.recv(min(length - len(data), 1 << 20))
        if not chunk:
            return None
        data += chunk
    return bytes(data)
