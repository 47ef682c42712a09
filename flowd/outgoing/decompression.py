"""Undo the Content-Encoding of an answer: all of it, or a failure, never its beginning alone.

httpx2 has decoders of its own, which stop at the first gzip member, take a stream that was cut as
whole, and pass over an encoding they do not know.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from typing import Final, Protocol

from flowd.errors import HandlerFailed

# What a call asks for.
ACCEPTED: Final = "gzip, deflate"
# More than a server and its proxies have reason to put on top of one another.
ENCODINGS_MAX: Final = 5
_STEP_BYTES: Final = 1 << 20
# Written by servers that mean no encoding at all; S3 keeps the last one from the upload.
_PLAIN: Final = frozenset({"", "identity", "none", "binary", "utf-8", "aws-chunked"})
_GZIP_MAGIC: Final = b"\x1f\x8b"


class Decoder(Protocol):
    """Fed with an answer in pieces. Both raise HandlerFailed for what is damaged."""

    def decode(self, data: bytes) -> Iterator[bytes]: ...

    def check_end(self) -> None:
        """Called once there is no more; raises where more should have come."""
        ...


def decoders_for(content_encoding: str) -> list[Decoder]:
    """In the order they are to be applied; empty for an answer that is not encoded.

    Raises HandlerFailed for an encoding nobody asked for.
    """
    written = [name.strip().lower() for name in content_encoding.split(",")]
    names = [name for name in written if name not in _PLAIN]
    if len(names) > ENCODINGS_MAX:
        raise HandlerFailed(f"the answer has more than {ENCODINGS_MAX} encodings")
    for name in names:
        if name not in _DECODERS:
            raise HandlerFailed(
                f"the answer is encoded as {name[:40]!r}, and flowd takes {ACCEPTED}"
            )
    return [_DECODERS[name]() for name in reversed(names)]


def decode(decoders: Iterable[Decoder], data: bytes) -> Iterator[bytes]:
    """Through all of them, in pieces of bounded size."""
    pieces: Iterator[bytes] = iter((data,))
    for decoder in decoders:
        pieces = _through(decoder, pieces)
    return pieces


def _through(decoder: Decoder, pieces: Iterator[bytes]) -> Iterator[bytes]:
    for piece in pieces:
        yield from decoder.decode(piece)


class _Gzip:
    """RFC 1952: any number of members, one behind the other; zeros behind the last are padding."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(zlib.MAX_WBITS | 16)
        self._has_begun = False
        self._between = b""

    def decode(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self._member.eof:
                data = self._next_member(data)
                continue
            self._has_begun = True
            yield from _inflated(self._member, data)
            data = self._member.unused_data if self._member.eof else b""

    def _next_member(self, data: bytes) -> bytes:
        """What is to be decompressed of it; empty while its beginning has not come as a whole."""
        data = (self._between + data).lstrip(b"\0")
        self._between = b""
        if not data:
            return b""
        if not _GZIP_MAGIC.startswith(data[:2]):
            raise HandlerFailed("the answer cannot be decompressed: more follows the gzip stream")
        if len(data) < len(_GZIP_MAGIC):
            self._between = data
            return b""
        self._member = zlib.decompressobj(zlib.MAX_WBITS | 16)
        return data

    def check_end(self) -> None:
        if self._between or (self._has_begun and not self._member.eof):
            raise _cut("gzip")


class _Deflate:
    """RFC 9110 wants the zlib format; some servers send what is inside it."""

    def __init__(self) -> None:
        self._head = b""
        self._stream: zlib._Decompress | None = None

    def decode(self, data: bytes) -> Iterator[bytes]:
        if self._stream is None:
            self._head += data
            if len(self._head) < 2:
                return
            data, self._head = self._head, b""
            # RFC 1950: the method, and a check over both bytes.
            is_zlib = data[0] & 15 == 8 and int.from_bytes(data[:2], "big") % 31 == 0
            self._stream = zlib.decompressobj(zlib.MAX_WBITS if is_zlib else -zlib.MAX_WBITS)
        if not self._stream.eof:
            yield from _inflated(self._stream, data)
            data = self._stream.unused_data if self._stream.eof else b""
        if data.strip(b"\0"):
            message = "the answer cannot be decompressed: more follows the deflate stream"
            raise HandlerFailed(message)

    def check_end(self) -> None:
        if self._head or (self._stream is not None and not self._stream.eof):
            raise _cut("deflate")


def _inflated(stream: zlib._Decompress, data: bytes) -> Iterator[bytes]:
    try:
        while True:
            piece = stream.decompress(data, _STEP_BYTES)
            if piece:
                yield piece
            data = stream.unconsumed_tail
            # A full piece may have left something inside that needs no more input.
            if stream.eof or (not data and len(piece) < _STEP_BYTES):
                return
    except zlib.error as error:
        raise HandlerFailed(f"the answer cannot be decompressed: {_reason(error)}") from None


def _reason(error: zlib.error) -> str:
    """zlib's own words, without the wrapping Python has put around them."""
    return str(error).rpartition(": ")[2]


def _cut(name: str) -> HandlerFailed:
    return HandlerFailed(f"the answer is not complete: its {name} stream has no end")


_DECODERS: Final[dict[str, type[_Gzip] | type[_Deflate]]] = {
    "gzip": _Gzip,
    "x-gzip": _Gzip,
    "deflate": _Deflate,
}
