"""`flowd` as on a machine of its own: $SOAK_HOST is the name that it gives its machine.

Two on one machine would see each other's processes end; hosts do not.
"""

from __future__ import annotations

import os
import socket

import flowd
from flowd.cli.main import main

if __name__ == "__main__":
    name = os.environ["SOAK_HOST"]
    socket.gethostname = lambda: name  # type: ignore[assignment]
    print(f"this is flowd of {flowd.__path__[0]}", flush=True)
    main(prog_name="flowd")
