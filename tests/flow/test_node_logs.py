"""What nodes say: whoever says it, it is in the log of the attempt, and no secret is."""

from __future__ import annotations

import asyncio
import logging
import re
import sys
from dataclasses import replace

import pytest

from flowd.config import LogsSettings, ShellSettings, ShutdownSettings
from flowd.errors import Fail
from flowd.handlers import handler
from flowd.handlers.registry import Registry, bind, built_in_registry, marks_of
from flowd.log import listen_to_nodes, set_up_log
from flowd.node_log import SpokenStream
from flowd.redaction import REDACTOR
from flowd.store.logs import ATTEMPTS_KEPT, LogName
from tests.daemon import PATIENCE_S
from tests.flow.engine import Engine, node, until, workflow

CANARY = "canary-7f3a91c2d4"
GO = asyncio.Event()


@handler("say_inline", inline=True)
def say_inline(_config, context):
    print("printed inline")
    context.logger.info("logged inline", rows=3)
    return {}


@handler("say_in_thread")
def say_in_thread(_config, _context):
    print("printed in a thread")
    print("to stderr", file=sys.stderr)
    logging.getLogger("mine").info("by %s", "logging")
    logging.getLogger("mine").debug("too fine")
    print("no line break", end="")
    return {}


@handler("say_async")
async def say_async(_config, context):
    await asyncio.gather(*(_say_later(f"task {number}") for number in range(2)))
    context.logger.warning("logged")
    return {}


async def _say_later(text):
    await asyncio.sleep(0)
    print(text)


@handler("say_nothing", inline=True)
def say_nothing(_config):
    return {}


@handler("raise_it")
def raise_it(config, context):
    print(f"attempt {context.attempt}")
    if context.attempt <= config.get("times", 1):
        raise ValueError(f"it broke, {config.get('more', 'really')}")
    return {}


@handler("fail_it")
def fail_it(_config):
    raise Fail("on purpose")


@handler("say_and_hold")
async def say_and_hold(_config):
    print("begun")
    await GO.wait()
    print("done")
    return {}


@handler("say_to_the_end")
async def say_to_the_end(_config):
    try:
        await asyncio.sleep(3600)
    finally:
        print("cut off")


@handler("say_much")
def say_much(config):
    for number in range(config["lines"]):
        print(f"line {number} " + "x" * 90)
    return {}


@handler("say_rubbish")
def say_rubbish(_config):
    sys.stdout.write("\x1b[2J\x00\r\n")
    sys.stdout.write("\ud800 lone\n")
    sys.stdout.write("y" * 200_000)
    return {}


@pytest.fixture
def registry() -> Registry:
    return built_in_registry([bind(mark) for mark in marks_of(sys.modules[__name__])])


@pytest.fixture
def talking(settings, registry, monkeypatch):
    """`async with talking() as engine`: one whose process hears what its handlers say."""
    level, handlers = logging.root.level, logging.root.handlers[:]
    shell = ShellSettings(enabled=True, output_max_mb=8.0)
    settings = replace(settings, handlers=replace(settings.handlers, shell=shell))

    def open_engine(**changes):
        GO.clear()
        set_up_log()
        listen_to_nodes()
        for name in ("stdout", "stderr"):
            monkeypatch.setattr(sys, name, SpokenStream(getattr(sys, name), name))
        return Engine(replace(settings, **changes), workers=1, registry=registry)

    yield open_engine
    logging.root.setLevel(level)
    logging.root.handlers[:] = handlers


async def log_of(engine, execution_id, node_id, attempt=1):
    """As (stream, text), with the number of lines that are gone."""
    found, after = [], 0
    while True:
        some = await engine.store.nodes.logs.read(execution_id, LogName(node_id, attempt), after)
        found += [(line.stream, line.text) for line in some.lines]
        if some.is_last:
            return found, some.dropped
        after = some.last


async def test_what_a_handler_prints_or_logs_is_in_the_log_of_its_attempt(talking):
    async with talking() as engine:
        handlers = {"a": "say_inline", "b": "say_in_thread", "c": "say_async", "d": "say_nothing"}
        execution_id = await engine.run(
            workflow(*(node(node_id, handler=name) for node_id, name in handlers.items()))
        )

        assert await log_of(engine, execution_id, "a") == (
            [("stdout", "printed inline"), ("info", "logged inline rows=3")],
            0,
        )
        assert await log_of(engine, execution_id, "b") == (
            [
                ("stdout", "printed in a thread"),
                ("stderr", "to stderr"),
                ("info", "by logging"),
                ("stdout", "no line break"),
            ],
            0,
        )
        assert await log_of(engine, execution_id, "c") == (
            [("stdout", "task 0"), ("stdout", "task 1"), ("warning", "logged")],
            0,
        )
        assert await log_of(engine, execution_id, "d") == ([], 0)
        names = await engine.redis("ZRANGE", f"workflow:{execution_id}:logs", 0, -1)
        assert sorted(names) == ["a 1", "b 1", "c 1"]


async def test_each_attempt_has_a_log_of_its_own_that_ends_with_its_traceback(talking):
    async with talking() as engine, engine.ticking():
        retry = {"max_attempts": 3, "delay_s": 0.01}
        execution_id = await engine.run(
            workflow({**node("a", handler="raise_it", times=2), "retry": retry})
        )

        for attempt in (1, 2):
            lines, _ = await log_of(engine, execution_id, "a", attempt)
            assert lines[0] == ("stdout", f"attempt {attempt}")
            assert lines[1] == ("traceback", "Traceback (most recent call last):")
            assert __file__ in lines[2][1]
            assert lines[-1] == ("traceback", "ValueError: it broke, really")
        assert await log_of(engine, execution_id, "a", 3) == ([("stdout", "attempt 3")], 0)
        attempts = await engine.store.nodes.logs.attempts(execution_id, "a")
        assert [(one.record.attempt, one.error, one.has_log) for one in attempts] == [
            (1, "attempt 1 of 3: ValueError: it broke, really", True),
            (2, "attempt 2 of 3: ValueError: it broke, really", True),
            (3, None, True),
        ]
        assert all(one.record.finished_ms and one.record.worker for one in attempts)


async def test_a_failure_on_purpose_has_no_log(talking):
    async with talking() as engine:
        execution_id = await engine.run(workflow(node("a", handler="fail_it")))

        assert await engine.redis("KEYS", f"workflow:{execution_id}:log*") == []


async def test_of_more_than_is_kept_both_ends_stay_and_the_number_that_went(talking):
    async with talking(logs=LogsSettings(node_max_kb=16)) as engine:
        execution_id = await engine.run(workflow(node("a", handler="say_much", lines=20_000)))

        lines, dropped = await log_of(engine, execution_id, "a")
        numbers = [int(text.split()[1]) for _, text in lines]
        gap = next(at for at, number in enumerate(numbers) if number != at)
        assert len(numbers) + dropped == 20_000
        assert numbers[gap:] == list(range(20_000 - len(numbers) + gap, 20_000))
        assert gap > 50
        assert len(numbers) - gap > 50
        used = await engine.redis("MEMORY", "USAGE", f"workflow:{execution_id}:log:a:1")
        assert used < 40 * 1024


async def test_rubbish_is_kept_as_text_and_a_line_without_end_in_pieces(talking):
    async with talking() as engine:
        execution_id = await engine.run(workflow(node("a", handler="say_rubbish")))

        lines, dropped = await log_of(engine, execution_id, "a")
        assert lines[:2] == [("stdout", "\x1b[2J\x00"), ("stdout", "\\ud800 lone")]
        assert all(set(text) == {"y"} for _, text in lines[2:])
        assert dropped > 0


async def test_what_a_program_writes_is_heard_while_it_runs(talking, tmp_path):
    async with talking() as engine:
        go = tmp_path / "go"
        script = f"echo begun; echo trouble >&2; until [ -e {go} ]; do sleep 0.02; done; printf end"
        command = ["sh", "-c", script]
        execution_id = await engine.start(workflow(node("a", handler="shell", command=command)))

        async def has_begun():
            lines, _ = await log_of(engine, execution_id, "a")
            return sorted(lines) == [("stderr", "trouble"), ("stdout", "begun")]

        await until(has_begun, "the first lines")
        go.touch()
        await engine.end(execution_id)

        lines, _ = await log_of(engine, execution_id, "a")
        assert lines[2:] == [("stdout", "end")]


@pytest.mark.usefixtures("secret")
async def test_a_secret_is_in_no_log_whoever_says_it(talking):
    async with talking() as engine:
        script = f"echo {CANARY}; printf %s {CANARY[:9]}; sleep 0.2; echo {CANARY[9:]}"
        execution_id = await engine.run(
            workflow(
                node("a", handler="shell", command=["sh", "-c", script]),
                node("b", handler="raise_it", more=CANARY),
                node("c", handler="call_external_service", url=f"http://127.0.0.1:9/?k={CANARY}"),
            )
        )

        for node_id in "abc":
            assert (await log_of(engine, execution_id, node_id))[0] != []
        for key in await engine.redis("KEYS", "workflow:*:log:*"):
            assert CANARY not in str(await engine.redis("XRANGE", key, "-", "+"))
        ((stream, call),) = (await log_of(engine, execution_id, "c"))[0]
        assert stream == "call"
        assert re.match(r"GET http://127\.0\.0\.1:9/ in \d+ ms: ", call)


@pytest.fixture
def secret():
    with REDACTOR.hiding(CANARY):
        yield CANARY


async def test_logs_go_with_their_execution_and_what_comes_later_is_not_kept(talking):
    async with talking() as engine, engine.ticking():
        retry = {"max_attempts": 2, "delay_s": 0.01}
        gone = await engine.run(workflow({**node("a", handler="raise_it"), "retry": retry}))
        assert await engine.redis("EXISTS", f"workflow:{gone}:history") == 1

        await engine.store.finished.delete_execution(gone)
        assert await engine.redis("KEYS", f"workflow:{gone}*") == []


async def test_only_the_last_attempts_of_a_node_keep_their_logs(talking):
    async with talking() as engine, engine.ticking():
        retry = {"max_attempts": ATTEMPTS_KEPT + 3, "delay_s": 0, "jitter": 0}
        execution_id = await engine.run(
            workflow({**node("a", handler="raise_it", times=99), "retry": retry})
        )

        numbers = list(range(4, ATTEMPTS_KEPT + 4))
        attempts = await engine.store.nodes.logs.attempts(execution_id, "a")
        assert [one.record.attempt for one in attempts if one.has_log] == numbers
        logs = await engine.redis("KEYS", f"workflow:{execution_id}:log:*")
        assert sorted(int(key.rpartition(":")[2]) for key in logs) == numbers
        kept = await engine.redis("HKEYS", f"workflow:{execution_id}:history")
        # The first says when the node began.
        assert sorted(kept) == sorted(f"a {one}" for one in (1, *range(4, ATTEMPTS_KEPT + 3)))


async def test_a_full_redis_costs_lines_and_no_node(talking):
    async with talking() as engine:
        execution_id = await engine.start(workflow(node("a", handler="say_and_hold")))

        async def has_begun():
            return (await log_of(engine, execution_id, "a"))[0]

        await until(has_begun, "the first line")
        await engine.redis("CONFIG", "SET", "maxmemory", "1")
        try:
            GO.set()
            await until(
                lambda: engine.redis("GET", f"workflow:{execution_id}:node:a:output"), "its end"
            )
        finally:
            await engine.redis("CONFIG", "SET", "maxmemory", "0")

        assert await log_of(engine, execution_id, "a") == ([("stdout", "begun")], 0)
        assert await engine.states(execution_id) == {"a": "COMPLETED"}


async def test_an_execution_whose_logs_are_too_many_keeps_the_first_and_counts_the_rest(talking):
    async with talking(logs=LogsSettings(node_max_kb=4096, execution_max_mb=1)) as engine:
        nodes = [node("a", handler="say_much", lines=20_000)]
        nodes += [node(one, ["a"], handler="say_much", lines=10) for one in "bc"]
        execution_id = await engine.run(workflow(*nodes))

        assert (await log_of(engine, execution_id, "b"))[0] == []
        assert await engine.store.nodes.logs.dropped(execution_id) >= 20
        assert set((await engine.states(execution_id)).values()) == {"COMPLETED"}


async def test_what_a_call_says_as_it_is_cut_off_by_a_drain_is_kept(talking, monkeypatch):
    monkeypatch.setattr("flowd.workers.shift.LAST_LINES_S", PATIENCE_S)
    async with talking(shutdown=ShutdownSettings(grace_s=0.05)) as engine:
        one = await engine.start(workflow(node("A", handler="say_to_the_end")))

        async def running():
            return (await engine.states(one))["A"] == "RUNNING"

        await until(running, "the call")
        await engine.stop_worker(engine.workers[0])

        assert await log_of(engine, one, "A") == ([("stdout", "cut off")], 0)


@pytest.mark.parametrize("lines_said", [16_384, pytest.param(131_072, marks=pytest.mark.thorough)])
async def test_a_program_may_write_without_end_and_redis_grows_by_what_is_kept(talking, lines_said):
    """Lines of 8 KiB: 128 MiB of them, or 1 GiB."""
    command = ["sh", "-c", f"yes {'x' * 8191} | head -c $((8192 * {lines_said})); echo the end"]
    async with talking(logs=LogsSettings(node_max_kb=64)) as engine:
        before = await engine.redis("INFO", "memory")
        one = await engine.run(workflow(node("A", handler="shell", command=command, output="end")))

        output = (await engine.results(one))["A"]
        assert (output["exit_code"], len(output["stdout"])) == (0, 8_000)
        assert output["stdout"].endswith("x\nthe end\n")
        lines, dropped = await log_of(engine, one, "A")
        assert lines[-1] == ("stdout", "the end")
        assert len(lines) + dropped == lines_said + 1
        kept = int(await engine.redis("HGET", f"workflow:{one}:run", "log_bytes"))
        assert kept <= 64 * 1024
        grown = memory_in(await engine.redis("INFO", "memory")) - memory_in(before)
        # Of the log, the output, and what one execution costs besides.
        assert grown < 1024 * 1024


def memory_in(info):
    return int(re.search(r"used_memory:(\d+)", info)[1])
