"""Tell systemd how the daemon is: ready, reloading, stopping, still alive.

The protocol of sd_notify(3): one datagram per message to the socket that NOTIFY_SOCKET names.
Nothing here raises or waits. Without that variable every call does nothing.
"""

from __future__ import annotations

import os
import socket
import time
from collections import deque
from collections.abc import MutableMapping

# More changes of state than this cannot wait for systemd at once; the oldest would be stale.
_KEPT_MAX = 8
_VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


class Notifier:
    """One per daemon, used by its main process only (`NotifyAccess=main`).

    `watchdog_every_s` is how often `watchdog` has to be called, half of what systemd allows;
    None when nobody watches.
    """

    def __init__(self, address: str | None = None, watchdog_every_s: float | None = None) -> None:
        self._address = address
        self.watchdog_every_s = watchdog_every_s
        self._kept: deque[str] = deque(maxlen=_KEPT_MAX)

    @classmethod
    def from_environ(cls, environ: MutableMapping[str, str] = os.environ) -> Notifier:
        """Takes the variables out of `environ`: no child may speak in our name."""
        path, usec, pid = (environ.pop(name, "") for name in _VARIABLES)
        # Anything else, such as vsock:2:1234, is for virtual machines.
        if not path.startswith(("/", "@")):
            return cls()
        is_ours = pid in ("", str(os.getpid()))
        watchdog_every_s = int(usec) / 2e6 if is_ours and usec.isdecimal() else 0.0
        address = "\0" + path[1:] if path.startswith("@") else path
        return cls(address, watchdog_every_s or None)

    def ready(self, status: str) -> None:
        """Start-up or a reload is complete."""
        self._send_state(f"READY=1\nSTATUS={_one_line(status)}")

    def status(self, text: str) -> None:
        """The sentence `systemctl status` shows."""
        self._send(f"STATUS={_one_line(text)}")

    def reloading(self) -> None:
        """`ready` must follow, whether the new settings were taken or not."""
        now_usec = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send_state(f"RELOADING=1\nMONOTONIC_USEC={now_usec}")

    def stopping(self) -> None:
        self._send_state("STOPPING=1")

    def extend_timeout(self, seconds: float) -> None:
        """The start or stop that is under way may take this long from now on."""
        self._send(f"EXTEND_TIMEOUT_USEC={round(seconds * 1e6)}")

    def watchdog(self) -> None:
        self._send("WATCHDOG=1")

    def _send_state(self, message: str) -> None:
        # Without a READY the start would time out, so a message like it is kept until it fits;
        # a status or a sign of life is soon followed by the next.
        self._kept.append(message)
        self._send_kept()

    def _send_kept(self) -> bool:
        while self._kept:
            if not self._deliver(self._kept[0]):
                return False
            self._kept.popleft()
        return True

    def _send(self, message: str) -> None:
        if self._send_kept():
            self._deliver(message)

    def _deliver(self, message: str) -> bool:
        """False when systemd has not read what it was sent before: this may be tried again."""
        if self._address is None:
            return True
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.setblocking(False)
                sender.sendto(message.encode("utf-8", "replace"), self._address)
        except OSError:
            # A full queue, or a systemd that starts itself anew: the next call tries again.
            return False
        return True


def _one_line(text: str) -> str:
    return " ".join(text.splitlines())
