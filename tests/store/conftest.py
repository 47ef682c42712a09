"""What the store's tests may use: an engine without handlers, and an ear on every script."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import redis as redis_py

from flowd.orchestrator.plans import Plans
from flowd.scheduler.reconciler import Reconciler
from flowd.store import Store
from flowd.store.redis import scripts
from tests.conftest import DUTY_S_MAX
from tests.redis_calls import Ask, listen_to_calls
from tests.store.engine import ScriptedEngine


@pytest.fixture(autouse=True)
def patient_lanes(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a tick has begun has ended when the tick has."""
    monkeypatch.setattr("flowd.scheduler.lane.PATIENCE_S", DUTY_S_MAX)


@pytest.fixture
def engine(store: Store, redis: redis_py.Redis, runner: asyncio.Runner) -> Iterator[ScriptedEngine]:
    engine = ScriptedEngine(store, redis)
    yield engine
    runner.run(engine.close())


@pytest.fixture
def plans(store: Store) -> Plans:
    return Plans(store)


@pytest.fixture
def outcomes(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    """What each script has answered in this test, by its name."""
    names = {script.sha: script.name for script in scripts.ALL}
    heard: dict[str, list[Any]] = defaultdict(list)

    async def listener(commands: Sequence[Any], ask: Ask) -> list[Any]:
        replies = await ask()
        is_transaction = commands[0] == ("MULTI",)
        for command, reply in zip(
            commands[1:-1] if is_transaction else commands,
            replies[-1] if is_transaction else replies,
            strict=True,
        ):
            if command[0] == "EVALSHA" and not isinstance(reply, Exception):
                heard[names[command[1]]].append(reply)
        return replies

    listen_to_calls(monkeypatch, listener)
    return heard


@pytest.fixture(params=[60.0, 0.0], ids=["at once", "step by step"])
def reconciler(store, plans, monkeypatch, request) -> Reconciler:
    """One whose rounds are whole in one slice, and one that is interrupted wherever it may be."""
    monkeypatch.setattr("flowd.scheduler.reconciler.BUDGET_S", request.param)
    return Reconciler(store, plans)
