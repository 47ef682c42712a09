"""`flowd` as on a machine of its own: $SOAK_HOST is the name that it gives its machine.

Two on one machine would see each other's processes end; hosts do not.
"""

from __future__ import annotations

import os
import socket

from flowd.cli.main import main

if __name__ == "__main__":
    name = os.environ["SOAK_HOST"]
    socket.gethostname = lambda: name  # type: ignore[assignment]
    main(prog_name="flowd")
