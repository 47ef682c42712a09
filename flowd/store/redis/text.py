"""Text from Redis: bytes that are no UTF-8 come as surrogates, which JSON does not take."""

from __future__ import annotations


def raw_bytes(text: str) -> bytes:
    """The bytes as they stand in Redis."""
    return text.encode("utf-8", "surrogateescape")


def count_of(text: object) -> int:
    """The number a field says; 0 where it is none that flowd wrote."""
    is_count = isinstance(text, str) and text.isascii() and text.isdecimal() and len(text) <= 15
    return int(str(text)) if is_count else 0


def readable(text: str) -> str:
    """The text with whatever is no UTF-8 escaped."""
    return raw_bytes(text).decode(errors="backslashreplace")
