"""A Redis server of a test process's own, on a unix socket, gone with the process."""

from __future__ import annotations

import contextlib
import random
import shutil
import socket
import tempfile
from pathlib import Path

from flowd.config import Settings
from flowd.config.loading import load_settings
from scripts.redis_server import RedisServer


class PrivateServer(RedisServer):
    """In a folder of its own, and ready to be asked for faults."""

    def __init__(self, **options: str | tuple[str, ...]) -> None:
        """`options` as in redis.conf, with `_` for `-`."""
        super().__init__(
            Path(tempfile.mkdtemp(prefix="flowd-test-")),
            enable_debug_command="local",
            enable_protected_configs="local",
            **options,
        )

    def stop(self) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def settings(self, **flags: object) -> Settings:
        """Settings of nobody's environment, with the store on this server."""
        config = self.folder / "flowd.toml"
        config.touch()
        settings = load_settings(config, flags, {})
        return settings.with_redis_socket(self.socket_path)


def free_port() -> int:
    """Below those the system gives out: nobody is given it by chance before it is bound."""
    while True:
        port = random.SystemRandom().randrange(12_000, 32_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
