"""flowd's HTTP API, a connection for each call: what a test does to one call stays with it."""

from __future__ import annotations

import http.client
import json
from typing import Any
from urllib.parse import quote, urlsplit

_TIMEOUT_S = 120.0


class ApiError(Exception):
    """The API answered something else than 200, or nothing; the text says what."""


class ApiClient:
    def __init__(self, url: str) -> None:
        self.url = url
        self._host = urlsplit(url).hostname or ""
        self._port = urlsplit(url).port

    def submit_workflow(self, definition: bytes) -> str:
        """The new execution's id."""
        answer = self._call("POST", "/workflow", definition)
        return str(answer["execution_id"])

    def trigger_workflow(self, execution_id: str) -> None:
        self._call("POST", f"/workflow/trigger/{quote(execution_id, safe='')}")

    def execution_status(self, execution_id: str) -> str:
        answer = self._call("GET", f"/workflows/{quote(execution_id, safe='')}")
        return str(answer["status"])

    def execution_results(self, execution_id: str) -> dict[str, Any]:
        """The outputs by node id."""
        answer = self._call("GET", f"/workflows/{quote(execution_id, safe='')}/results")
        return dict(answer["results"])

    def _call(self, method: str, path: str, body: bytes | None = None) -> dict[str, Any]:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=_TIMEOUT_S)
        headers = {} if body is None else {"Content-Type": "application/json"}
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            answer = json.loads(response.read())
        except (OSError, http.client.HTTPException) as error:
            raise ApiError(f"{method} {self.url}{path}: {error}") from error
        except ValueError as error:
            raise ApiError(f"{method} {self.url}{path}: the answer is not JSON") from error
        finally:
            connection.close()
        if response.status != 200 or not isinstance(answer, dict):
            detail = answer.get("detail") if isinstance(answer, dict) else answer
            raise ApiError(f"{method} {self.url}{path}: answered {response.status}: {detail}")
        return answer
