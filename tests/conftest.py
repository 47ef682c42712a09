"""What every test may use: a Redis server of this test process's own, settings, an event loop.

A test that is a coroutine function runs on `runner`'s loop, under a deadline.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import redis as redis_py
import uvloop

from flowd.config import Settings
from flowd.config.loading import load_settings
from flowd.store import Store, open_store
from scripts.replica_set import MovingAddress, ReplicaSet
from tests.private_server import PrivateServer

# A test that hangs is a failure with a traceback, not a suite that never ends.
ASYNC_TEST_TIMEOUT_S = 900.0
# Begun first: at the end of a run the others would wait for it.
LONGEST = "test_every_answer_is_a_documented_one"
# What one run of a duty may take before it leaves the rest to the next.
DUTY_S_MAX = 180.0
# No example is judged by the clock, and an ordinary run tries the same ones every time.
REPEATABLE = hypothesis.settings(
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)


def pytest_configure(config: pytest.Config) -> None:
    hypothesis.settings.register_profile("repeatable", REPEATABLE)
    hypothesis.settings.register_profile("thorough", REPEATABLE, derandomize=False)
    is_thorough = config.option.markexpr.startswith("thorough")
    hypothesis.settings.load_profile("thorough" if is_thorough else "repeatable")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.name != LONGEST)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    if not inspect.iscoroutinefunction(pyfuncitem.function):
        return None
    names = inspect.signature(pyfuncitem.function).parameters
    arguments = {name: pyfuncitem.funcargs[name] for name in names}
    runner: asyncio.Runner = pyfuncitem._request.getfixturevalue("runner")
    runner.run(asyncio.wait_for(pyfuncitem.function(**arguments), ASYNC_TEST_TIMEOUT_S))
    return True


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """`figure("3 of 3 in 40 ms")`: what this run has measured, told behind the last test."""
    return lambda text: record_property("figure", text)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    told = [
        f"{report.nodeid.rpartition('::')[2]}: {text}"
        for report in terminalreporter.stats.get("passed", [])
        for name, text in report.user_properties
        if name == "figure"
    ]
    if told:
        terminalreporter.section("measured")
        terminalreporter.write_line("\n".join(sorted(told)))


class Lines(list[tuple[str, str, dict[str, Any], str]]):
    """What was logged: level, event, facts and traceback of each line."""

    def of(self, event: str) -> list[tuple[str, dict[str, Any]]]:
        """Level and facts of each line about this."""
        return [(level, facts) for level, said, facts, _ in self if said == event]


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Lines:
    """What is logged in this process."""
    written = Lines()

    def emit(_now: float, level: str, event: str, facts: dict[str, Any], trace: str) -> bool:
        written.append((level, event, facts, trace))
        return True

    monkeypatch.setattr("flowd.log._emit", emit)
    return written


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    """The event loop of one test: `runner.run(coroutine)`, also from fixtures."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        yield runner


@pytest.fixture(scope="session")
def running_server() -> Iterator[PrivateServer]:
    server = PrivateServer()
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
def server(running_server: PrivateServer, monkeypatch: pytest.MonkeyPatch) -> PrivateServer:
    """The one server of this process, empty at the beginning of every test.

    A duty that is run once in this process comes to its end, however slow the machine is.
    """
    for duty in ("continuations", "reconciler", "repairs", "retention"):
        monkeypatch.setattr(f"flowd.scheduler.{duty}.BUDGET_S", DUTY_S_MAX)
    with redis_py.Redis(unix_socket_path=running_server.socket_path) as client:
        client.flushall()
    return running_server


@pytest.fixture
def redis(server: PrivateServer) -> Iterator[redis_py.Redis]:
    """The server as redis-cli would show it; it keeps bytes that are no text."""
    with redis_py.Redis(
        unix_socket_path=server.socket_path,
        decode_responses=True,
        encoding_errors="surrogateescape",
    ) as client:
        yield client


@pytest.fixture
def settings(server: PrivateServer) -> Settings:
    """Settings of nobody's environment, on the empty server."""
    return server.settings()


@pytest.fixture
def store(settings: Settings, runner: asyncio.Runner) -> Iterator[Store]:
    store = open_store(settings)
    yield store
    runner.run(store.close())


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[ReplicaSet]:
    """A primary and its replica."""
    with ReplicaSet(tmp_path) as servers:
        yield servers


@pytest.fixture
def address(pair: ReplicaSet) -> Iterator[MovingAddress]:
    """Leads to the primary, until its `target` is another."""
    with MovingAddress(pair.servers[0].address) as address:
        yield address


@pytest.fixture
def moving(address: MovingAddress, tmp_path: Path) -> Settings:
    """Of a flowd that goes by that address."""
    config = tmp_path / "flowd.toml"
    config.touch()
    return load_settings(config, {}, {"FLOWD_REDIS__URL": address.url})
