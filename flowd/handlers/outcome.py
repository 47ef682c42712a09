"""What is kept of a handler call: how large an output, and which words of an error."""

from __future__ import annotations

from typing import Final

from flowd.errors import FlowdError
from flowd.log import describe_error
from flowd.redaction import REDACTOR

OUTPUT_BYTES_MAX: Final = 16 * 1024 * 1024
ERROR_CHARS_MAX: Final = 2_000


def error_text(error: BaseException) -> str:
    """An exception for users: flowd's own say what happened, others need their type to be clear."""
    if isinstance(error, FlowdError):
        text = str(error)
    elif isinstance(error, SystemExit):
        text = f"the handler called sys.exit({error.code!r})"
    else:
        text = describe_error(error)
    text = REDACTOR.text(text)
    return text if len(text) <= ERROR_CHARS_MAX else text[:ERROR_CHARS_MAX] + "…"
