"""The exit code of every error, by its public code. Numbers follow sysexits.h and the LSB."""

from __future__ import annotations

from flowd.errors import FlowdError

FAILED = 1
NOT_RUNNING = 3
UNKNOWN_STATE = 4
UNAVAILABLE = 69
NOT_PERMITTED = 77
BAD_SETTINGS = 78
# As timeout(1) and shells have them.
TIMED_OUT = 124
INTERRUPTED = 130

_BY_CODE = {
    "store_unavailable": 69,
    "server_failed": 69,
    "crash_loop": 70,
    "already_running": 75,
    "invalid_settings": BAD_SETTINGS,
    "bad_handlers": BAD_SETTINGS,
}


def exit_code_of(error: FlowdError) -> int:
    return exit_code_of_code(error.code)


def exit_code_of_code(code: str) -> int:
    """Of an error by its public code, as another process names it."""
    return _BY_CODE.get(code, FAILED)


def exit_code_of_status(status: int) -> int:
    """Of an answer of the API that is a refusal."""
    if status in (401, 403):
        return NOT_PERMITTED
    return UNAVAILABLE if status in (429, 503) else FAILED
