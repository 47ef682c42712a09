"""The supervisor's loop, with roles made for the purpose: no Redis, no HTTP."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.daemon import PATIENCE_S, Daemon, wait_until
from tests.unit.stub_daemon import SUSPECT

# Whoever waits for the grace period to end has waited in vain.
ENDLESS_S = 2 * PATIENCE_S
Boot = Callable[..., Daemon]


def is_back(restarts: int) -> Callable[[dict[str, Any]], bool]:
    return lambda one: one["state"] == "RUNNING" and one["restarts"] == restarts


def recoveries(daemon: Daemon) -> list[list[Any]]:
    path = daemon.folder / "recovered"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def wait_for_recoveries(daemon: Daemon, count: int) -> list[list[Any]]:
    wait_until(lambda: len(recoveries(daemon)) >= count, f"{count} recoveries")
    return recoveries(daemon)


ALL = ("api-1:api:serve", "scheduler:scheduler:serve", "worker-1:worker:serve")


def test_it_announces_itself_once_and_ends_cleanly_on_sigterm(boot: Boot) -> None:
    daemon = boot(*ALL)
    daemon.wait_until_running()

    daemon.signal(signal.SIGTERM)

    assert daemon.wait_for_end() == 0
    assert daemon.stdout == "announced\n"
    assert daemon.survivors() == []
    assert recoveries(daemon) == []


def test_without_workers_it_announces_itself_all_the_same(boot: Boot) -> None:
    daemon = boot("api-1:api:serve", "scheduler:scheduler:serve")

    daemon.wait_until_running()

    wait_until(lambda: daemon.stdout == "announced\n", "the announcement")


def test_children_carry_their_names_and_lead_their_own_groups(boot: Boot) -> None:
    daemon = boot(*ALL)
    status = daemon.wait_until_running()

    for one in status["processes"]:
        assert psutil.Process(one["pid"]).cmdline()[0] == f"flowd: {one['name']}"
        assert os.getpgid(one["pid"]) == one["pid"]
        assert psutil.Process(one["pid"]).ppid() == daemon.process.pid


def test_a_killed_worker_is_recovered_and_back_at_once(boot: Boot) -> None:
    daemon = boot(*ALL)
    daemon.wait_until_running()

    pid = daemon.kill("worker-1")
    back = daemon.wait_for_post("worker-1", is_back(restarts=1))

    assert back["pid"] != pid
    assert (back["restarts"], back["last_exit"]) == (1, "was killed by SIGKILL")
    assert wait_for_recoveries(daemon, 1) == [
        [pid, f"worker-1 (pid {pid}) was killed by SIGKILL", True]
    ]
    assert [line["restart_in_s"] for line in daemon.events("child.died")] == [0]


def test_workers_that_die_together_are_all_recovered(boot: Boot) -> None:
    names = [f"worker-{number}" for number in range(1, 8)]
    daemon = boot("api-1:api:serve", *(f"{name}:worker:serve" for name in names))
    daemon.wait_until_running()

    pids = {daemon.kill(name) for name in names}

    found = wait_for_recoveries(daemon, len(names))
    assert {pid for pid, _, _ in found} == pids
    assert len(found) == len(names)
    daemon.wait_until_running()


def test_only_a_workers_death_needs_recovery(boot: Boot) -> None:
    daemon = boot(*ALL)
    daemon.wait_until_running()

    daemon.kill("api-1")
    daemon.kill("scheduler")

    for name in ("api-1", "scheduler"):
        daemon.wait_for_post(name, is_back(restarts=1))
    assert recoveries(daemon) == []


def test_a_child_that_leaves_without_an_error_is_restarted_too(boot: Boot) -> None:
    daemon = boot("api-1:api:serve", "worker-1:worker:leave_quietly")

    died = daemon.wait_for_post("worker-1", lambda one: one["restarts"] >= 2)

    assert died["last_exit"] == "ended with exit code 0"
    assert len(wait_for_recoveries(daemon, 1)) >= 1


def test_p13_a_child_that_keeps_dying_is_slowed_down_and_the_daemon_stays(boot: Boot) -> None:
    daemon = boot("api-1:api:serve", "worker-1:worker:die_soon")

    slowed = daemon.wait_for_post(
        "worker-1", lambda one: one["state"] == "BACKOFF" and one["restarts"] >= 5
    )

    assert slowed["last_exit"] == "ended with exit code 7"
    assert slowed["pid"] is None
    pauses = [line["restart_in_s"] for line in daemon.events("child.died")]
    assert pauses[0] == 0
    # Half of the fifth pause at least, whatever the jitter took.
    assert max(pauses) >= 0.4
    assert daemon.post("api-1")["state"] == "RUNNING"


def test_p12_a_child_that_never_becomes_ready_is_given_up_with_its_reason(boot: Boot) -> None:
    daemon = boot("api-1:api:serve", "worker-1:worker:break_down")

    assert daemon.wait_for_end() == 70
    assert len(daemon.events("role.failed")) == 3
    assert daemon.stderr.count("RuntimeError: no such module: the reason to be seen") >= 3
    assert "worker-1 was started 3 times and never became ready" in daemon.stderr
    assert daemon.survivors() == []
    assert recoveries(daemon) == []


def test_p12_a_child_that_hangs_before_ready_is_killed_and_given_up(boot: Boot) -> None:
    daemon = boot("api-1:api:serve", "worker-1:worker:hang")

    assert daemon.wait_for_end() == 70
    assert len(daemon.events("child.slow")) == 3
    assert daemon.survivors() == []


def test_nothing_starts_before_the_server_and_the_server_stops_last(boot: Boot) -> None:
    daemon = boot(
        "redis:server:write_order",
        "api-1:api:write_order",
        "scheduler:scheduler:write_order",
        "worker-1:worker:write_order",
    )
    daemon.wait_for_post("redis", lambda one: one["state"] == "STARTING")
    assert {one["state"] for one in daemon.status()["processes"][1:]} == {"STOPPED"}  # type: ignore[index]

    (daemon.folder / "server_is_up").touch()
    status = daemon.wait_until_running()
    pids = {one["name"]: one["pid"] for one in status["processes"]}
    daemon.signal(signal.SIGINT)

    assert daemon.wait_for_end() == 0
    order = [int(line) for line in (daemon.folder / "order").read_text().splitlines()]
    assert set(order[:2]) == {pids["api-1"], pids["worker-1"]}
    assert order[2:] == [pids["scheduler"], pids["redis"]]


def test_a_stop_while_the_server_is_starting_ends_it(boot: Boot) -> None:
    daemon = boot("redis:server:serve", "worker-1:worker:serve")
    daemon.wait_for_post("redis", lambda one: one["state"] == "STARTING")

    daemon.signal(signal.SIGTERM)

    assert daemon.wait_for_end() == 0
    assert daemon.survivors() == []


def test_a_server_that_ends_before_it_answers_is_given_up_at_once(boot: Boot) -> None:
    daemon = boot("redis:server:break_down", "worker-1:worker:serve")

    assert daemon.wait_for_end() == 70
    assert len(daemon.events("role.failed")) == 1


def test_a_server_that_dies_is_restarted_and_nobody_else_is(boot: Boot) -> None:
    daemon = boot("redis:server:serve", "worker-1:worker:serve")
    (daemon.folder / "server_is_up").touch()
    before = daemon.wait_until_running()

    daemon.kill("redis")

    daemon.wait_for_post("redis", is_back(restarts=1))
    assert daemon.post("worker-1")["pid"] == before["processes"][1]["pid"]


def test_past_the_grace_period_a_worker_is_killed_and_recovered_without_blame(boot: Boot) -> None:
    daemon = boot("api-1:api:serve", "worker-1:worker:stubborn", grace_s=0.3)
    daemon.wait_until_running()
    pid = daemon.post("worker-1")["pid"]

    daemon.signal(signal.SIGTERM)

    assert daemon.wait_for_end() == 0
    assert recoveries(daemon) == [[pid, f"worker-1 (pid {pid}) was killed by SIGKILL", False]]
    assert len(daemon.events("child.killed")) == 1


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_everything_before_the_grace_period_is_over(
    boot: Boot, second: signal.Signals
) -> None:
    daemon = boot(
        "redis:server:stubborn",
        "api-1:api:stubborn",
        "scheduler:scheduler:stubborn",
        "worker-1:worker:stubborn",
        "worker-2:worker:stubborn",
        grace_s=ENDLESS_S,
    )
    (daemon.folder / "server_is_up").touch()
    daemon.wait_until_running()
    daemon.signal(signal.SIGTERM)
    daemon.wait_for_post("worker-1", lambda one: one["state"] == "STOPPING")

    daemon.signal(second)

    assert daemon.wait_for_end() == 0
    assert daemon.survivors() == []
    assert len(recoveries(daemon)) == 2


def test_sigquit_does_not_wait_for_anybody(boot: Boot) -> None:
    daemon = boot("api-1:api:stubborn", "worker-1:worker:stubborn", grace_s=ENDLESS_S)
    daemon.wait_until_running()

    daemon.signal(signal.SIGQUIT)

    assert daemon.wait_for_end() == 0


def test_ctrl_c_reaches_the_supervisor_alone(boot: Boot) -> None:
    daemon = boot("api-1:api:serve", "worker-1:worker:write_order")
    daemon.wait_until_running()

    # What a terminal does: to the whole foreground group.
    os.killpg(os.getpgid(daemon.process.pid), signal.SIGINT)

    assert daemon.wait_for_end() == 0
    # A worker that had got the signal itself would have died of it.
    assert (daemon.folder / "order").exists()
    assert recoveries(daemon) == []


def test_p05_when_the_supervisor_is_killed_every_child_goes_with_it(boot: Boot) -> None:
    daemon = boot("redis:server:serve", *ALL)
    (daemon.folder / "server_is_up").touch()
    daemon.wait_until_running()
    assert len(daemon.survivors()) == 5

    daemon.process.kill()

    wait_until(lambda: not daemon.survivors(), "every child to be gone")


def test_p11_what_a_worker_started_dies_with_the_worker(boot: Boot) -> None:
    daemon = boot("api-1:api:serve", "worker-1:worker:breed")
    daemon.wait_until_running()
    grandchild = int((daemon.folder / "grandchild").read_text())

    daemon.kill("worker-1")

    wait_until(lambda: not _is_alive(grandchild), "the grandchild to be gone")


def _is_alive(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def test_many_deaths_leave_no_descriptor_behind(boot: Boot) -> None:
    daemon = boot(*ALL, "worker-2:worker:serve")
    daemon.wait_until_running()
    supervisor = psutil.Process(daemon.process.pid)
    daemon.kill("worker-1")
    daemon.wait_for_post("worker-1", is_back(restarts=1))
    wait_until(lambda: len(supervisor.children()) == 4, "the recovery to end")
    before = supervisor.num_fds()

    for round_ in range(1, 4):
        daemon.kill("worker-2")
        daemon.wait_for_post("worker-2", is_back(restarts=round_))

    wait_until(lambda: supervisor.num_fds() <= before, "the descriptors of the dead to be closed")


def test_a_child_holds_none_of_the_supervisors_descriptors(boot: Boot) -> None:
    daemon = boot(*ALL)
    status = daemon.wait_until_running()

    for one in status["processes"]:
        held = {str(link.readlink()) for link in Path(f"/proc/{one['pid']}/fd").iterdir()}
        assert not any("eventpoll" in target or "pidfd" in target for target in held), held
        assert not any(target.endswith("control.sock") for target in held), held
        sockets = psutil.Process(one["pid"]).net_connections(kind="unix")
        assert [socket for socket in sockets if socket.laddr] == []


def test_a_start_that_takes_long_says_what_it_waits_for(boot: Boot) -> None:
    daemon = boot("api-1:api:serve", "worker-1:worker:need_a_file")

    wait_until(lambda: bool(daemon.events("supervisor.waiting")), "what it waits for")
    (daemon.folder / "allowed").touch()
    daemon.wait_until_running()

    line = daemon.events("supervisor.waiting")[0]
    assert line["waits_for"] == "worker-1"
    assert line["waited_s"] > 0


def test_a_slow_child_that_was_ready_once_is_waited_for(boot: Boot) -> None:
    daemon = boot("api-1:api:serve", "worker-1:worker:need_a_file")
    allowed = daemon.folder / "allowed"
    allowed.touch()
    daemon.wait_until_running()
    allowed.unlink()

    daemon.kill("worker-1")

    waiting = daemon.wait_for_post("worker-1", lambda one: one["restarts"] == 1)
    assert waiting["state"] in ("STARTING", "BACKOFF")
    allowed.touch()
    daemon.wait_until_running()


def test_p10_a_child_whose_loop_stands_still_shows_its_stacks_and_is_replaced(boot: Boot) -> None:
    daemon = boot("api-1:api:serve", "worker-1:worker:beat", hung_after_s=2)
    pid = daemon.wait_until_running()["processes"][1]["pid"]

    (daemon.folder / "freeze").touch()
    wait_until((daemon.folder / "frozen").exists, "the loop to stand still")
    (daemon.folder / "freeze").unlink()

    back = daemon.wait_for_post("worker-1", is_back(restarts=1))
    assert re.fullmatch(r"was hung for \d+ s and was killed by SIGKILL", back["last_exit"])
    assert re.search(r'stub_daemon.py", line \d+ in look', daemon.stderr)
    assert wait_for_recoveries(daemon, 1) == [
        [pid, f"worker-1 (pid {pid}) {back['last_exit']}", True, SUSPECT]
    ]
    (hung,) = daemon.events("child.hung")
    assert hung["child"] == "worker-1"
    assert hung["silent_s"] >= 2
    assert daemon.post("api-1")["restarts"] == 0


def test_p06_a_stopped_child_is_hung_too_and_cannot_put_off_its_end(boot: Boot) -> None:
    daemon = boot("api-1:api:serve", "worker-1:worker:beat", hung_after_s=2)
    daemon.wait_until_running()

    pid = daemon.kill("worker-1", signal.SIGSTOP)

    assert daemon.wait_for_post("worker-1", is_back(restarts=1))["pid"] != pid
    assert len(daemon.events("child.hung")) == 1


def test_each_child_of_a_slot_that_hangs_is_found_and_none_for_the_one_before(boot: Boot) -> None:
    """Where the first was remembered, the second could hang for ever, and what killed the third
    was looked for among the suspects of the others: nobody was to blame."""
    daemon = boot("api-1:api:serve", "worker-1:worker:beat", hung_after_s=2)
    daemon.wait_until_running()
    frozen = daemon.folder / "frozen"

    def recovered(pid: int) -> list[Any]:
        cause = f"worker-1 (pid {pid}) "
        daemon.wait_for_post(
            "worker-1", lambda one: one["state"] == "RUNNING" and one["pid"] != pid
        )
        (found,) = wait_until(
            lambda: [one for one in recoveries(daemon) if one[0] == pid], f"the recovery of {pid}"
        )
        return [found[1].removeprefix(cause), *found[2:]]

    for _ in range(2):
        (daemon.folder / "freeze").touch()
        pid = int(wait_until(lambda: frozen.exists() and frozen.read_text(), "the loop to stop"))
        (daemon.folder / "freeze").unlink()
        frozen.unlink()
        reason, *blamed = recovered(pid)
        assert re.fullmatch(r"was hung for \d+ s and was killed by SIGKILL", reason)
        assert blamed == [True, SUSPECT]
    pid = daemon.kill("worker-1")
    assert recovered(pid) == ["was killed by SIGKILL", True]


def test_a_child_that_is_long_in_coming_is_not_hung(boot: Boot) -> None:
    """Handlers that took longer to import than a loop may stand still never came to work."""
    daemon = boot("api-1:api:serve", "worker-1:worker:import_long", hung_after_s=2)
    daemon.wait_until_running()

    daemon.kill("worker-1")

    daemon.wait_for_post("worker-1", is_back(restarts=1))
    # Another one may be kept waiting by a loaded machine.
    assert [one for one in daemon.events("child.hung") if one["child"] == "worker-1"] == []


def test_children_are_not_hung_because_the_supervisor_was_away(boot: Boot) -> None:
    daemon = boot("api-1:api:serve", "worker-1:worker:beat", hung_after_s=4)
    before = daemon.wait_until_running()
    worker = before["processes"][1]["pid"]

    # As on a machine that is suspended: nobody runs, and the clock goes on.
    os.kill(worker, signal.SIGSTOP)
    daemon.signal(signal.SIGSTOP)
    time.sleep(4.5)
    daemon.signal(signal.SIGCONT)
    assert daemon.post("worker-1")["state"] == "RUNNING"
    os.kill(worker, signal.SIGCONT)

    daemon.wait_until_running()
    assert daemon.post("worker-1")["pid"] == worker
    assert daemon.events("child.hung") == []


def test_a_hung_child_does_not_use_up_the_grace_period(boot: Boot) -> None:
    daemon = boot("api-1:api:serve", "worker-1:worker:beat", hung_after_s=0.8, grace_s=ENDLESS_S)
    daemon.wait_until_running()
    (daemon.folder / "freeze").touch()
    wait_until((daemon.folder / "frozen").exists, "the loop to stand still")

    daemon.signal(signal.SIGTERM)

    assert daemon.wait_for_end() == 0
