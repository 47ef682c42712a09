"""The process that calls of a faulty flowd are forked from: it knows the same handlers."""

from __future__ import annotations

from flowd.handlers.process_main import main
from tests.process.faulty_flowd import add_handlers

if __name__ == "__main__":
    add_handlers()
    main()
