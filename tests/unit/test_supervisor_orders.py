"""What the supervisor is told while it runs: reload, restart, scale, stop; and what it recycles."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from flowd.supervisor.asking import ask
from tests.daemon import PATIENCE_S, Daemon, is_all_running, wait_until

# Whoever waits for the grace period to end has waited in vain.
ENDLESS_S = 2 * PATIENCE_S
Boot = Callable[..., Daemon]

ALL = (
    "api-1:api:beat",
    "api-2:api:beat",
    "scheduler:scheduler:beat",
    "worker-1:worker:beat",
    "worker-2:worker:beat",
)


def pids(status: dict[str, Any]) -> dict[str, int]:
    return {one["name"]: one["pid"] for one in status["processes"]}


def is_settled(status: dict[str, Any]) -> bool:
    return is_all_running(status) and not status["rolling"]


def set_roles(daemon: Daemon, *roles: str) -> None:
    (daemon.folder / "roles").write_text(" ".join(roles))


def names(daemon: Daemon) -> list[str]:
    status = daemon.status()
    assert status is not None
    return [one["name"] for one in status["processes"]]


def test_sighup_replaces_every_child_one_after_the_other(boot: Boot) -> None:
    daemon = boot(*ALL)
    before = pids(daemon.wait_until_running())
    set_roles(daemon, *ALL)
    counts: list[int] = []

    daemon.signal(signal.SIGHUP)

    def is_rolled(status: dict[str, Any]) -> bool:
        counts.append(sum(one["state"] == "RUNNING" for one in status["processes"]))
        return is_settled(status) and not set(pids(status).values()) & set(before.values())

    after = daemon.wait_for_status(is_rolled, "every child to be another")
    assert list(pids(after)) == list(before)
    assert [one["restarts"] for one in after["processes"]] == [0] * 5
    assert {one["last_exit"] for one in after["processes"]} == {"was replaced: reload"}
    # Never fewer than were asked for, never more than one above.
    assert min(counts) >= 5
    assert max(counts) <= 6
    assert after["roll_failure"] is None
    assert len(daemon.events("supervisor.reloaded")) == 1


def test_a_reload_takes_roles_away_and_adds_others(boot: Boot) -> None:
    daemon = boot(*ALL)
    daemon.wait_until_running()
    set_roles(daemon, *ALL[:4], "worker-7:worker:beat", "worker-8:worker:beat")

    assert ask(daemon.data_dir, "reload") == {"ok": True, "kept": []}

    status = daemon.wait_for_status(
        lambda status: is_settled(status) and "worker-2" not in pids(status), "the new lineup"
    )
    assert list(pids(status)) == [
        "api-1", "api-2", "scheduler", "worker-1", "worker-7", "worker-8"
    ]  # fmt: skip


def test_settings_nobody_can_run_with_change_nothing(boot: Boot) -> None:
    daemon = boot(*ALL)
    before = pids(daemon.wait_until_running())
    set_roles(daemon)

    answer = ask(daemon.data_dir, "reload")
    daemon.signal(signal.SIGHUP)

    wait_until(lambda: len(daemon.events("settings.refused")) == 2, "both to be refused")
    assert answer == {"error": "roles: nothing would run", "code": "invalid_settings"}
    assert daemon.events("settings.refused")[0]["problems"] == "roles: nothing would run"
    assert pids(daemon.wait_until_running()) == before


def reload_with(daemon: Daemon, trial: str) -> dict[str, Any]:
    """The status at the end of a reload that has to pass this trial."""
    set_roles(daemon, *ALL, "worker-3:worker:beat")
    (daemon.folder / "trial").write_text(trial)
    assert ask(daemon.data_dir, "reload") == {"ok": True, "kept": []}
    status: dict[str, Any] = daemon.wait_for_status(
        lambda status: is_settled(status) and not status["reloading"], "the end of the reload"
    )
    return status


@pytest.mark.parametrize(
    ("trial", "problem"),
    [
        ("refuse", "handlers: no such module"),
        ("leave", "the process that tried your handlers ended with exit code 0"),
    ],
)
def test_a_reload_whose_trial_fails_changes_nothing(boot: Boot, trial: str, problem: str) -> None:
    """A module that could not be imported ended the daemon where the reload also added a worker."""
    daemon = boot(*ALL)
    before = pids(daemon.wait_until_running())

    status = reload_with(daemon, trial)

    assert pids(status) == before
    assert status["refused"] == problem
    assert [line["problems"] for line in daemon.events("settings.refused")] == [problem]
    assert not (daemon.folder / "set_up").exists()
    # The next one goes through.
    status = reload_with(daemon, "pass")
    assert (status["refused"], status["roll_failure"]) == (None, None)
    assert list(pids(status)) == [*before, "worker-3"]
    assert not set(before.values()) & set(pids(status).values())
    assert (daemon.folder / "set_up").exists()


def test_the_loop_goes_on_during_a_trial_and_a_newer_reload_ends_it(boot: Boot) -> None:
    daemon = boot(*ALL)
    before = pids(daemon.wait_until_running())
    set_roles(daemon, *ALL)
    (daemon.folder / "trial").write_text("hang")
    daemon.signal(signal.SIGHUP)
    daemon.wait_for_post("trial", lambda one: one["state"] == "STARTING")

    pid = daemon.kill("worker-1")
    daemon.wait_for_post("worker-1", lambda one: one["pid"] not in (None, pid))
    status = reload_with(daemon, "pass")

    assert not set(before.values()) & set(pids(status).values())
    assert daemon.events("settings.refused") == []


def test_a_stop_during_a_trial_waits_for_nobody(boot: Boot) -> None:
    daemon = boot(*ALL)
    daemon.wait_until_running()
    set_roles(daemon, *ALL)
    (daemon.folder / "trial").write_text("hang")
    daemon.signal(signal.SIGHUP)
    daemon.wait_for_post("trial", lambda one: one["state"] == "STARTING")

    daemon.signal(signal.SIGTERM)

    assert daemon.wait_for_end() == 0
    assert daemon.survivors() == []
    assert daemon.events("child.killed") == []


def test_a_newcomer_that_never_becomes_ready_is_given_up_and_flowd_goes_on(boot: Boot) -> None:
    """It ended the daemon, and everybody's work with it."""
    daemon = boot("api-1:api:beat", "worker-1:worker:beat")
    before = pids(daemon.wait_until_running())
    (daemon.folder / "newcomers_break_down").touch()

    ask(daemon.data_dir, "scale", workers=2)

    given_up = daemon.wait_for_post("worker-2", lambda one: one["state"] == "FATAL")
    assert (given_up["pid"], given_up["last_exit"]) == (None, "ended with exit code 1")
    assert len(daemon.events("role.failed")) == 3
    status = daemon.status()
    assert status is not None
    assert {**pids(status), "worker-2": 0} == {**before, "worker-2": 0}
    # It is taken away, or tried again when somebody says so.
    ask(daemon.data_dir, "restart", name="worker-2")
    wait_until(lambda: len(daemon.events("role.failed")) == 6, "three more tries")
    daemon.wait_for_post("worker-2", lambda one: one["state"] == "FATAL")
    ask(daemon.data_dir, "scale", workers=1)
    assert pids(daemon.wait_until_running()) == before


def test_a_successor_that_does_not_start_leaves_the_old_child_at_work(boot: Boot) -> None:
    daemon = boot(*ALL)
    before = pids(daemon.wait_until_running())
    set_roles(daemon, "api-1:api:break_down", *ALL[1:])

    daemon.signal(signal.SIGHUP)

    status = daemon.wait_for_status(lambda status: status["roll_failure"], "the roll to fail")
    assert status["roll_failure"] == ("a new api-1 did not become ready and ended with exit code 1")
    assert pids(status) == before
    assert is_settled(status)
    assert "no such module: the reason to be seen" in daemon.stderr
    # And the next one goes through.
    set_roles(daemon, *ALL)
    daemon.signal(signal.SIGHUP)
    daemon.wait_for_status(
        lambda status: is_settled(status) and not set(before.values()) & set(pids(status).values()),
        "every child to be another",
    )


def test_an_old_child_that_dies_before_its_successor_is_ready_is_not_missed(boot: Boot) -> None:
    daemon = boot("api-1:api:beat", "worker-1:worker:beat")
    old = daemon.wait_until_running()["processes"][1]["pid"]
    set_roles(daemon, "api-1:api:beat", "worker-1:worker:need_a_file")
    daemon.signal(signal.SIGHUP)

    def successors(status: dict[str, Any]) -> list[dict[str, Any]]:
        return [
            one for one in status["processes"] if one["name"] == "worker-1" and one["pid"] != old
        ]

    status = daemon.wait_for_status(successors, "the successor to start")
    os.kill(old, signal.SIGKILL)
    daemon.wait_for_status(lambda status: old not in pids(status).values(), "the old to be gone")
    # The successor has the post now, and is started again as any other.
    os.kill(successors(status)[0]["pid"], signal.SIGKILL)
    (daemon.folder / "allowed").touch()

    status = daemon.wait_for_status(is_settled, "the post to be filled")
    assert [name for name in names(daemon) if name != "recover"] == ["api-1", "worker-1"]


def test_a_stop_in_the_middle_of_a_roll_ends_everything(boot: Boot) -> None:
    daemon = boot(*ALL)
    daemon.wait_until_running()
    # One whose successor is not there yet, so that it goes no further.
    set_roles(daemon, *ALL[:3], "worker-1:worker:need_a_file", ALL[4])
    daemon.signal(signal.SIGHUP)
    daemon.wait_for_status(lambda status: len(status["rolling"]) == 2, "half of the roll")

    daemon.signal(signal.SIGTERM)

    assert daemon.wait_for_end() == 0
    assert daemon.survivors() == []


def test_one_child_is_restarted_alone(boot: Boot) -> None:
    daemon = boot(*ALL)
    before = pids(daemon.wait_until_running())

    assert ask(daemon.data_dir, "restart", name="worker-2") == {"ok": True}

    status = daemon.wait_for_status(
        lambda status: is_settled(status) and pids(status)["worker-2"] != before["worker-2"],
        "worker-2 to be another",
    )
    after = pids(status)
    assert [name for name in before if before[name] != after[name]] == ["worker-2"]
    assert status["processes"][-1]["last_exit"] == "was replaced: restart"
    assert ask(daemon.data_dir, "restart", name="nobody") == {
        "error": "there is no process 'nobody' to restart; "
        "there are api-1, api-2, scheduler, worker-1, worker-2"
    }


def test_a_restart_forgets_earlier_deaths(boot: Boot) -> None:
    daemon = boot("api-1:api:beat", "worker-1:worker:beat")
    daemon.wait_until_running()

    for round_ in range(1, 6):
        daemon.kill("worker-1")
        daemon.wait_for_post("worker-1", lambda one, n=round_: one["restarts"] == n)
        old = daemon.wait_until_running()["processes"][1]["pid"]
        ask(daemon.data_dir, "restart", name="worker-1")
        daemon.wait_for_status(
            lambda status, old=old: is_settled(status) and old not in pids(status).values(),
            "worker-1 to be another",
        )

    assert [line["restart_in_s"] for line in daemon.events("child.died")] == [0.0] * 5


def test_ttin_and_ttou_are_one_worker_more_and_one_less(boot: Boot) -> None:
    daemon = boot("api-1:api:beat", "worker-1:worker:serve")
    daemon.wait_until_running()

    for expected in (["worker-1", "worker-2"], ["worker-1", "worker-2", "worker-3"]):
        daemon.signal(signal.SIGTTIN)
        daemon.wait_for_status(
            lambda status, n=expected: is_settled(status) and list(pids(status))[1:] == n,
            f"{expected}",
        )
    for expected in (["worker-1", "worker-2"], ["worker-1"]):
        daemon.signal(signal.SIGTTOU)
        daemon.wait_for_status(
            lambda status, n=expected: is_settled(status) and list(pids(status))[1:] == n,
            f"{expected}",
        )
    # The last one stays: nobody takes a signal for "do nothing at all".
    daemon.signal(signal.SIGTTOU)
    wait_until(lambda: len(daemon.events("supervisor.scaled")) == 5, "the signal to be heard")
    assert names(daemon) == ["api-1", "worker-1"]
    assert not (daemon.folder / "recovered").exists()


def test_scale_takes_the_highest_and_fills_the_lowest_number(boot: Boot) -> None:
    daemon = boot("api-1:api:beat", "worker-2:worker:serve", "worker-10:worker:serve")
    daemon.wait_until_running()

    ask(daemon.data_dir, "scale", workers=4)
    daemon.wait_for_status(is_settled, "four workers")
    assert sorted(names(daemon)) == ["api-1", "worker-1", "worker-10", "worker-2", "worker-3"]

    ask(daemon.data_dir, "scale", workers=1)
    wait_until(lambda: names(daemon) == ["api-1", "worker-1"], "one worker")
    ask(daemon.data_dir, "scale", workers=0)
    wait_until(lambda: names(daemon) == ["api-1"], "no worker")
    for nonsense in (-1, 513, "many", None, True):
        assert (
            "there can be 0 to 512 workers"
            in ask(daemon.data_dir, "scale", workers=nonsense)["error"]
        )


def test_a_worker_that_has_done_its_share_is_replaced(boot: Boot) -> None:
    daemon = boot("api-1:api:serve", "worker-1:worker:beat", "worker-2:worker:serve", tasks_max=100)
    before = pids(daemon.wait_until_running())

    (daemon.folder / "done").write_text("99")
    daemon.wait_for_post("worker-1", lambda one: one["done"] == 99 and one["in_flight"] == 3)
    assert pids(daemon.wait_until_running()) == before
    (daemon.folder / "done").write_text("2")

    status = daemon.wait_for_status(
        lambda status: is_settled(status) and pids(status)["worker-1"] != before["worker-1"],
        "worker-1 to be another",
    )
    assert status["processes"][1]["last_exit"] == "was replaced: it had done 101 nodes"
    assert status["processes"][1]["done"] == 0
    assert pids(status)["worker-2"] == before["worker-2"]


def test_a_worker_that_has_grown_too_large_is_replaced(boot: Boot) -> None:
    daemon = boot("api-1:api:serve", "worker-1:worker:beat", memory_max_mb=150)
    before = pids(daemon.wait_until_running())
    assert daemon.wait_for_post("worker-1", lambda one: one["memory_mb"])["memory_mb"] < 150

    (daemon.folder / "ballast_mb").write_text("200")

    daemon.wait_for_status(
        lambda status: is_settled(status) and pids(status)["worker-1"] != before["worker-1"],
        "worker-1 to be another",
    )
    grown = re.match(
        r"was replaced: it had grown to (\d+) MB", daemon.post("worker-1")["last_exit"]
    )
    assert grown
    assert int(grown[1]) > 150


def test_a_worker_that_asks_for_no_work_is_seen_and_replaced(boot: Boot) -> None:
    daemon = boot("api-1:api:serve", "worker-1:worker:beat", "worker-2:worker:serve")
    before = pids(daemon.wait_until_running())

    (daemon.folder / "stalled_s").write_text("14")
    daemon.wait_for_post("worker-1", lambda one: one["stalled_s"] == 14)
    assert pids(daemon.wait_until_running()) == before
    (daemon.folder / "stalled_s").write_text("16")

    status = daemon.wait_for_status(
        lambda status: is_settled(status) and pids(status)["worker-1"] != before["worker-1"],
        "worker-1 to be another",
    )
    last_exit = status["processes"][1]["last_exit"]
    assert last_exit == "was replaced: it had room and asked for no work for 16 s"
    assert (status["processes"][1]["stalled_s"], pids(status)["worker-2"]) == (
        0,
        before["worker-2"],
    )


def test_a_memory_limit_below_a_fresh_worker_is_said_and_replaces_nobody(boot: Boot) -> None:
    """Each fresh one was replaced by another, and what took longer than the grace never ended."""
    daemon = boot("api-1:api:serve", "worker-1:worker:beat", memory_max_mb=1)
    before = pids(daemon.wait_until_running())

    status = daemon.wait_for_status(lambda status: status["hindrance"], "the reason")
    assert status["hindrance"].startswith("workers.memory_max_mb is 1, and a fresh worker uses ")
    (daemon.folder / "done").write_text("5")
    daemon.wait_for_post("worker-1", lambda one: one["done"] == 5)
    assert pids(daemon.wait_until_running()) == before
    assert daemon.stderr.count("recycling.impossible") == 1


def test_recycling_waits_for_what_runs_until_somebody_else_has_to_wait(boot: Boot) -> None:
    roles = ("api-1:api:serve", "worker-1:worker:end_late", "worker-2:worker:serve")
    daemon = boot(*roles, tasks_max=100, grace_s=0.2)
    old = pids(daemon.wait_until_running())["worker-1"]

    def states(status: dict[str, Any]) -> list[str]:
        return [one["state"] for one in status["processes"] if one["name"] == "worker-1"]

    (daemon.folder / "done").write_text("100")
    daemon.wait_for_status(lambda it: states(it) == ["STOPPING", "RUNNING"], "its successor")
    # Many graces later it is still there.
    time.sleep(1)
    assert psutil.pid_exists(old)
    ask(daemon.data_dir, "restart", name="worker-2")
    daemon.wait_for_status(is_settled, "all of it to be over")
    assert not psutil.pid_exists(old)


def test_a_stop_does_not_wait_for_what_recycling_waits_for(boot: Boot) -> None:
    daemon = boot("api-1:api:serve", "worker-1:worker:end_late", tasks_max=100, grace_s=0.2)
    daemon.wait_until_running()
    (daemon.folder / "done").write_text("100")
    daemon.wait_for_status(
        lambda it: [one["state"] for one in it["processes"]][1:] == ["STOPPING", "RUNNING"],
        "its successor",
    )

    daemon.signal(signal.SIGTERM)
    assert daemon.wait_for_end() == 0


def test_workers_are_recycled_one_at_a_time(boot: Boot) -> None:
    roles = [f"worker-{number}:worker:busy" for number in range(1, 5)]
    daemon = boot("api-1:api:serve", *roles, tasks_max=1)
    before = pids(daemon.wait_until_running())
    running: list[int] = []

    def are_all_replaced(status: dict[str, Any]) -> bool:
        workers = status["processes"][1:]
        running.append(sum(one["state"] == "RUNNING" for one in workers))
        return not set(pids(status).values()) & set(list(before.values())[1:])

    daemon.wait_for_status(are_all_replaced, "every worker to be replaced once")
    assert min(running) >= 4


def test_sigusr2_shows_the_stacks_of_everybody(boot: Boot) -> None:
    daemon = boot(*ALL)
    before = pids(daemon.wait_until_running())

    daemon.signal(signal.SIGUSR2)

    for name, pid in before.items():
        title = f"stacks of {name} (pid {pid}):\n"
        wait_until(lambda title=title: title in daemon.stderr, title)
    assert "in _wait" in daemon.stderr.partition("stacks of ")[0]
    assert len(re.findall(r"in run_forever$", daemon.stderr, re.MULTILINE)) == len(ALL)
    assert pids(daemon.wait_until_running()) == before


def test_sigusr1_disturbs_nobody(boot: Boot) -> None:
    daemon = boot(*ALL)
    before = pids(daemon.wait_until_running())

    for _ in range(3):
        daemon.signal(signal.SIGUSR1)

    assert pids(daemon.wait_until_running()) == before


def test_stop_ends_it_and_a_second_request_does_not_hurry(boot: Boot) -> None:
    daemon = boot("api-1:api:serve", "worker-1:worker:stubborn", grace_s=3)
    daemon.wait_until_running()

    asked_at = time.monotonic()
    assert ask(daemon.data_dir, "stop") == {"ok": True, "grace_s": 3.0}
    assert ask(daemon.data_dir, "stop")["ok"]
    assert ask(daemon.data_dir, "scale", workers=3) == {"error": "flowd is stopping"}

    assert daemon.wait_for_end() == 0
    assert time.monotonic() - asked_at > 2.9
    assert daemon.events("supervisor.stop_forced") == []


def test_a_quick_stop_waits_for_nobody(boot: Boot) -> None:
    daemon = boot("api-1:api:serve", "worker-1:worker:stubborn", grace_s=ENDLESS_S)
    daemon.wait_until_running()

    ask(daemon.data_dir, "stop", quick=True)

    assert daemon.wait_for_end() == 0


def test_an_end_that_takes_long_says_what_it_waits_for(boot: Boot) -> None:
    daemon = boot("worker-1:worker:serve", "worker-2:worker:stubborn", grace_s=ENDLESS_S)
    daemon.wait_until_running()

    daemon.signal(signal.SIGINT)
    wait_until(lambda: bool(daemon.events("supervisor.waiting")), "what it waits for")
    daemon.signal(signal.SIGINT)

    assert daemon.wait_for_end() == 0
    line = daemon.events("supervisor.waiting")[0]
    assert line["waits_for"] == "3 nodes on worker-2"
    assert 0 < line["killed_in_s"] < ENDLESS_S
    assert "second Ctrl-C" in line["hint"]


def test_the_status_says_what_each_child_uses(boot: Boot) -> None:
    daemon = boot("api-1:api:serve", "worker-1:worker:busy")
    daemon.wait_until_running()

    worker = daemon.wait_for_post("worker-1", lambda one: (one["cpu_percent"] or 0) > 0)

    assert worker["memory_mb"] is not None
    measured = psutil.Process(worker["pid"]).memory_info().rss / 2**20
    assert worker["memory_mb"] == pytest.approx(measured, rel=0.2)
    assert worker["own_memory_mb"] is None
    exact = ask(daemon.data_dir, "status", exact=True)["processes"][1]
    assert 0 < exact["own_memory_mb"] < exact["memory_mb"]
    api = daemon.post("api-1")
    assert (api["in_flight"], api["done"]) == (None, None)


def test_rolls_and_kills_leave_no_descriptor_behind(boot: Boot) -> None:
    daemon = boot(*ALL)
    daemon.wait_until_running()
    supervisor = psutil.Process(daemon.process.pid)
    before = supervisor.num_fds()
    set_roles(daemon, *ALL)

    for _ in range(2):
        known = pids(daemon.wait_until_running())
        daemon.signal(signal.SIGHUP)
        daemon.kill("worker-1")
        daemon.wait_for_status(
            lambda status, known=known: (
                is_settled(status) and not set(known.values()) & set(pids(status).values())
            ),
            "every child to be another",
        )

    wait_until(lambda: len(supervisor.children()) == 5, "the recoveries to end")
    wait_until(lambda: supervisor.num_fds() <= before, "the descriptors of the old to be closed")
