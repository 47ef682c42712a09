"""Where the `flowd` program begins: Ctrl-C ends it without a traceback, also while it loads."""

from __future__ import annotations

import contextlib
import os
import signal
import sys


def main() -> None:
    if os.getpid() == 1:
        from flowd.cli.first_process import leave_first_place

        leave_first_place()
    for stream in (sys.stdout, sys.stderr):
        # A character the terminal's encoding lacks must not end what has been done already.
        with contextlib.suppress(AttributeError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    asked = signal.getsignal(signal.SIGINT)
    # Python's own handler raises wherever it stands, and that is in the midst of an import now.
    # A SIGINT that is ignored, as in the background of a script, stays so.
    if asked is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from flowd.cli.main import main as commands

    signal.signal(signal.SIGINT, asked)
    commands(prog_name="flowd")


if __name__ == "__main__":
    main()
