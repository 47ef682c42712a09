"""A fan of language model calls stays within its execution's budget, whatever the order."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from flowd.config import HandlersSettings, LlmSettings, SecretsSettings
from flowd.diagnosis.observer import Observer
from flowd.errors import StoreFull, StoreUnavailable
from flowd.handlers.registry import built_in_registry
from flowd.orchestrator.plans import Plans
from flowd.store.redis import keys
from flowd.store.saved import About
from flowd.workflow.graph import plan_digest
from tests.flow.engine import Engine, node, until, workflow
from tests.local_services import completion, running_service

BUDGET = 10_000


class Model:
    """Answers at random length up to what it may, and adds up what it has given out."""

    def __init__(self):
        self.lock = threading.Lock()
        self.total = 0
        self.calls = 0

    def __call__(self, request):
        asked = request.json
        with self.lock:
            self.calls += 1
            used = 20 + (self.calls * 37) % asked["max_tokens"]
            self.total += used
        usage = {"prompt_tokens": 20, "completion_tokens": used - 20, "total_tokens": used}
        return completion("fine", usage=usage)


def using(settings, url):
    return replace(settings, handlers=HandlersSettings(llm=LlmSettings(base_url=url, model="m")))


async def test_a_hundred_calls_at_once_do_not_overshoot_the_budget(settings):
    model = Model()
    nodes = [node(f"n{number}", handler="llm", prompt="x", max_tokens=300) for number in range(100)]
    with running_service(model) as service:
        own = using(settings, service.url)
        async with Engine(own, registry=built_in_registry()) as engine, engine.ticking():
            execution_id = await engine.run(workflow(*nodes, budget={"tokens": BUDGET}))

            states = await engine.states(execution_id)
            usage = await engine.store.budgets.usage(execution_id)
            results = await engine.results(execution_id)
    assert 0 < model.total <= BUDGET
    assert (usage.total, usage.spent, usage.reserved) == (model.total, model.total, 0)
    assert usage.calls == model.calls == sum(state == "COMPLETED" for state in states.values())
    refused = [one["error"] for one in results.values() if "error" in one]
    # Whoever came too late was told why, and what was left would not have been enough for it.
    assert refused
    assert all(error.startswith("the budget is exhausted") for error in refused)
    assert BUDGET - model.total < 300 + 150


@pytest.mark.parametrize("error", [StoreUnavailable("nobody is there"), StoreFull("full")])
async def test_an_answer_that_was_paid_for_survives_a_redis_that_does_not_take_it(
    settings, monkeypatch, error
):
    # Whether the budget can be asked at that moment says nothing of the node.
    away = {"reserve": 2, "settle": 2}

    def refusing(name, call):
        async def refuse(*arguments, **named):
            if away[name]:
                away[name] -= 1
                raise error
            return await call(*arguments, **named)

        return refuse

    model = Model()
    with running_service(model) as service:
        own = using(settings, service.url)
        async with Engine(own, registry=built_in_registry()) as engine:
            for worker in engine.workers:
                budgets = worker._resources.budgets
                for name in away:
                    monkeypatch.setattr(budgets, name, refusing(name, getattr(budgets, name)))
            node_a = node("A", handler="llm", prompt="x", max_tokens=50)
            execution_id = await engine.run(workflow(node_a, budget={"tokens": BUDGET}))
            usage = await engine.store.budgets.usage(execution_id)
            assert (await engine.results(execution_id))["A"]["answer"] == "fine"
    assert away == {"reserve": 0, "settle": 0}
    assert (model.calls, usage.spent, usage.reserved) == (1, model.total, 0)


async def test_a_model_that_cannot_be_reached_costs_nothing(settings):
    own = using(settings, "http://127.0.0.1:1")
    async with Engine(own, registry=built_in_registry()) as engine:
        node_a = node("A", handler="llm", prompt="x")
        execution_id = await engine.run(workflow(node_a, budget={"tokens": BUDGET}))
        usage = await engine.store.budgets.usage(execution_id)
    assert (usage.spent, usage.reserved) == (0, 0)


async def test_a_call_that_is_refused_before_it_is_made_costs_nothing(settings, monkeypatch):
    monkeypatch.setenv("FLOWD_SECRET_KEY", "a secret")
    model = Model()
    with running_service(model) as service:
        bound = SecretsSettings(bound=("KEY@elsewhere.example",))
        own = replace(using(settings, service.url), secrets=bound)
        async with Engine(own, registry=built_in_registry()) as engine:
            node_a = node("A", handler="llm", prompt={"$secret": "KEY"}, max_tokens=50)
            execution_id = await engine.run(workflow(node_a, budget={"tokens": BUDGET}))
            usage = await engine.store.budgets.usage(execution_id)
            assert "bound to other hosts" in (await engine.results(execution_id))["A"]["error"]
    assert (model.calls, usage.spent, usage.reserved) == (0, 0, 0)


async def test_an_answer_that_is_of_no_use_was_paid_for(settings):
    # No double holds that number, so the node fails for good. Nobody believes its usage either.
    def model(_request):
        return completion("fine", created=10**40, usage={"total_tokens": 30})

    with running_service(model) as service:
        own = using(settings, service.url)
        async with Engine(own, registry=built_in_registry()) as engine:
            node_a = node("A", handler="llm", prompt="x", max_tokens=50)
            execution_id = await engine.run(workflow(node_a, budget={"tokens": BUDGET}))
            usage = await engine.store.budgets.usage(execution_id)
            assert (await engine.states(execution_id))["A"] == "FAILED"
    assert usage.spent >= 50
    assert usage.reserved == 0


async def test_usage_is_summed_without_a_budget_too(settings):
    model = Model()
    nodes = [node(f"n{number}", handler="llm", prompt="x", max_tokens=50) for number in range(5)]
    with running_service(model) as service:
        own = using(settings, service.url)
        async with Engine(own, registry=built_in_registry()) as engine:
            execution_id = await engine.run(workflow(*nodes))
            usage = await engine.store.budgets.usage(execution_id)
    assert (usage.calls, usage.total) == (5, model.total)


async def test_a_wait_for_the_budget_is_no_failure_and_no_attempt(settings):
    # Each may take most of the budget, so one waits for the other: RUNNING, and once.
    going, first = threading.Event(), threading.Event()

    def model(_request):
        first.set()
        going.wait(600)
        usage = {"prompt_tokens": 20, "completion_tokens": 10, "total_tokens": 30}
        return completion("fine", usage=usage)

    nodes = [node(name, handler="llm", prompt="x", max_tokens=300) for name in "AB"]
    with running_service(model) as service:
        own = using(settings, service.url)
        async with Engine(own, registry=built_in_registry()) as engine, engine.ticking():
            execution_id = await engine.start(workflow(*nodes, budget={"tokens": 500}))

            async def are_running():
                states = await engine.states(execution_id)
                return first.is_set() and set(states.values()) == {"RUNNING"}

            await until(are_running, "both nodes RUNNING, one of them in its call")
            going.set()
            await engine.end(execution_id)
            records = await engine.store.nodes.records(execution_id, ["A", "B"])
            assert [record.attempt for record in records.values()] == [1, 1]
            assert await engine.states(execution_id) == {"A": "COMPLETED", "B": "COMPLETED"}


async def test_what_waits_for_the_budget_is_explained_as_waiting(settings):
    """It was said to run on its worker, as if its call were under way."""
    going, first = threading.Event(), threading.Event()

    def model(_request):
        first.set()
        going.wait(600)
        return completion("fine")

    nodes = [node(name, handler="llm", prompt="x", max_tokens=300) for name in "AB"]
    with running_service(model) as service:
        own = using(settings, service.url)
        async with Engine(own, registry=built_in_registry()) as engine, engine.ticking():
            execution_id = await engine.start(workflow(*nodes, budget={"tokens": 500}))
            observer = Observer(engine.store, Plans(engine.store))

            async def reasons():
                found = await observer.explain(execution_id)
                return sorted([reason.code for reason in one.reasons] for one in found.nodes)

            async def are_running():
                return await reasons() == [["running"], ["waiting_for_budget", "running"]]

            await until(first.is_set, "the first call")
            await until(are_running, "one in its call, and one that waits for it")
            going.set()
            await engine.end(execution_id)
            assert await reasons() == []


async def test_usage_in_an_unknown_form_counts_with_all_that_was_set_aside(settings):
    with running_service(lambda _request: completion("fine", usage={"cost": 1})) as service:
        own = using(settings, service.url)
        chain = [
            node(f"n{number}", [f"n{number - 1}"] if number else [], handler="llm", prompt="x")
            for number in range(6)
        ]
        async with Engine(own, registry=built_in_registry()) as engine:
            execution_id = await engine.run(workflow(*chain, budget={"tokens": 2600}))
            usage = await engine.store.budgets.usage(execution_id)
            results = await engine.results(execution_id)
    # 1,024 of an answer and what bounds the prompt, twice.
    assert sum("answer" in one for one in results.values()) == 2
    assert 2048 < usage.spent <= 2600


async def test_the_calls_of_a_whole_tree_spend_the_budget_at_its_root(settings):
    model = Model()
    asks = [node(f"n{number}", handler="llm", prompt="x", max_tokens=300) for number in range(20)]
    with running_service(model) as service:
        own = using(settings, service.url)
        async with Engine(own, registry=built_in_registry()) as engine, engine.ticking():
            for name, nodes in (
                ("leaf", asks),
                # A budget of its own says nothing below one that has one.
                ("middle", [node("call", handler="workflow", name="leaf"), *asks]),
            ):
                saved = workflow(*nodes, name=name, budget={"tokens": 1_000_000}).to_json()
                await engine.store.saved.put(name, saved, plan_digest(saved), About(0, 1, ""))
            calls = [node(f"c{at}", handler="workflow", name="middle") for at in range(3)]
            execution_id = await engine.run(workflow(*calls, *asks, budget={"tokens": BUDGET}))

            usage = await engine.store.budgets.usage(execution_id)
            children = await engine.redis("HKEYS", keys.children(execution_id))
            of_children = [await engine.store.budgets.usage(one) for one in children]
    assert 0 < model.total <= BUDGET
    assert (usage.total, usage.spent, usage.reserved) == (model.total, model.total, 0)
    assert usage.calls == model.calls
    assert sum(one.calls for one in of_children) > 0
    assert all((one.spent, one.reserved) == (0, 0) for one in of_children)
    assert BUDGET - model.total < 300 + 150
