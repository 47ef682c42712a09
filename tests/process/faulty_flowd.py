"""`flowd` with the handlers of `fault_handlers`, and points where a test has something happen.

`FLOWD_TEST_FAILPOINTS` arms the points of `failpoints`, `FLOWD_TEST_LEASE_S` makes leases shorter,
`FLOWD_TEST_BROKEN_WORKER` workers that cannot be imported.
"""

from __future__ import annotations

import os
from typing import Any

from flowd import pulse
from flowd.cli.main import main
from flowd.handlers import process_pool, registry
from flowd.orchestrator import leases
from flowd.store import tasks
from tests.process.failpoints import arm


def _shorten_leases() -> None:
    if lease_s := float(os.environ.get("FLOWD_TEST_LEASE_S", "0")):
        # Before anybody has imported the numbers.
        constants: Any = leases
        constants.LEASE_S, constants.RENEW_EVERY_S = lease_s, lease_s / 6
        constants.LET_GO_AFTER_S = 0.7 * lease_s
        # A frozen worker's blocked read must be over before its lease is, as it is in earnest.
        constants = tasks
        constants.BLOCK_MS = int(lease_s / 6 * 1000)


def _beat_quickly() -> None:
    """So that one who waits for a core is not taken for one who hangs, however soon that counts."""
    constants: Any = pulse
    constants.BEAT_EVERY_S = 0.1


def add_handlers() -> None:
    """Also in the processes that calls have to themselves."""
    constants: Any = process_pool
    constants.MAIN = "tests.process.faulty_process"
    names = (
        "held",
        "sleep",
        "die",
        "exit",
        "devour",
        "block_loop",
        "block_thread",
        "ignore_cancel",
        "refuse",
        "fail_once",
        "hold_gil",
        "ignore_term",
        "talk",
        "breed",
    )
    modules = dict.fromkeys(names, "tests.process.fault_handlers")
    registry._BUILT_IN_MODULES = {**registry._BUILT_IN_MODULES, **modules}


def _break_worker() -> None:
    if "FLOWD_TEST_BROKEN_WORKER" in os.environ:
        from flowd.supervisor import roles

        def run_worker(*_: object) -> None:
            import the_module_that_is_missing  # type: ignore[import-not-found] # noqa: F401

        roles.run_worker = run_worker


if __name__ == "__main__":
    _break_worker()
    _shorten_leases()
    _beat_quickly()
    add_handlers()
    arm(os.environ.get("FLOWD_TEST_FAILPOINTS", ""))
    main(prog_name="flowd")
