"""Text from Redis: bytes that are no UTF-8 come as surrogates, which JSON does not take."""

from __future__ import annotations


def raw_bytes(text: str) -> bytes:
    """The bytes as they stand in Redis."""
    return text.encode("utf-8", "surrogateescape")


def readable(text: str) -> str:
    """The text with whatever is no UTF-8 escaped."""
    return raw_bytes(text).decode(errors="backslashreplace")
