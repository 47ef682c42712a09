"""What a client may meet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class ClientError(Exception):
    """Base of what clients raise."""


class ConnectionFailed(ClientError):
    """No flowd answers there. What was asked may have been done or not: ask again."""


class ApiError(ClientError):
    """flowd refused the request. `code` never changes; `errors` lists every problem it found."""

    def __init__(
        self, status: int, code: str, detail: str, errors: Sequence[Mapping[str, str]] = ()
    ) -> None:
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = tuple(errors)
        super().__init__(detail)


class WorkflowFailed(ClientError):
    """The execution ended, and not well. `errors` has what its nodes failed with, by node id."""

    def __init__(self, execution_id: str, status: str, errors: Mapping[str, Any]) -> None:
        self.execution_id = execution_id
        self.status = status
        self.errors = dict(errors)
        first = next((f": {node_id}: {text}" for node_id, text in self.errors.items()), "")
        super().__init__(f"execution {execution_id} is {status}{first}")


class StillRunning(ClientError, TimeoutError):
    """The time to wait is over, and the execution is not: it runs on."""

    def __init__(self, execution_id: str, status: str, timeout_s: float | None) -> None:
        self.execution_id = execution_id
        self.status = status
        super().__init__(f"execution {execution_id} is {status} after {timeout_s or 0:g} s")
