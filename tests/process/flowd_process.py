"""A real `flowd` on free ports and temporary data, and the clients of what it serves."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import redis

from flowd.cli.private_flowd import clean_environment
from flowd.config import EMBEDDED_USER
from flowd.config.loading import load_settings
from flowd.store.primary import locate_primary
from flowd.supervisor.access import read_password
from tests.api_client import ApiClient
from tests.daemon import Daemon, wait_until

# Everything private: nothing here may meet a flowd or a Redis that runs beside the tests.
CONFIG = """
[api]
port = 0
[redis]
mode = "embedded"
port = 0
data_dir = "data"
[handlers.call_external_service]
allow = ["127.0.0.1"]
"""
ENDED = ("COMPLETED", "FAILED")


class Flowd(Daemon):
    """A `flowd` command under test, with the clients a user has."""

    module = "flowd.cli.main"

    def __init__(self, folder: Path, arguments: Sequence[str], **environ: str) -> None:
        config = folder / "flowd.toml"
        if not config.exists():
            config.write_text(CONFIG)
        command = [sys.executable, "-m", self.module, *arguments]
        self.environ = clean_environ() | environ
        self._redis_settings = load_settings(config, {}, {}).redis
        super().__init__(command, folder, self._redis_settings.data_dir, self.environ)

    @property
    def url(self) -> str:
        status = self.status()
        assert status is not None
        return str(status["api"])

    @property
    def api(self) -> ApiClient:
        return ApiClient(self.url)

    @property
    def redis(self) -> redis.Redis:
        if self._redis_settings.url is not None:
            url = locate_primary(self._redis_settings).url
            return redis.Redis.from_url(str(url), decode_responses=True)
        return redis.Redis(
            unix_socket_path=str(self.data_dir / "redis.sock"),
            username=EMBEDDED_USER,
            password=read_password(self.data_dir),
            decode_responses=True,
        )

    def submit_and_trigger(self, *nodes: dict[str, Any]) -> str:
        execution_id = self.api.submit_workflow(definition(*nodes))
        self.api.trigger_workflow(execution_id)
        return execution_id

    def wait_for_execution(self, execution_id: str) -> str:
        wait_until(
            lambda: self.api.execution_status(execution_id) in ENDED, f"{execution_id} to end"
        )
        return self.api.execution_status(execution_id)


def clean_environ() -> dict[str, str]:
    environ = clean_environment()
    if server := os.environ.get("FLOWD_TEST_REDIS_SERVER"):
        environ["FLOWD_REDIS__SERVER"] = server
    return environ


def definition(*nodes: dict[str, Any]) -> bytes:
    return json.dumps({"name": "test", "dag": {"nodes": nodes}}).encode()


def node(node_id: str, *dependencies: str, handler: str = "noop", **config: Any) -> dict[str, Any]:
    return {
        "id": node_id,
        "handler": handler,
        "dependencies": list(dependencies),
        "config": config,
    }
