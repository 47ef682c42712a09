"""A trace of each execution that has ended, sent to a collector of OpenTelemetry by its own SDK."""

from __future__ import annotations

import asyncio
import gzip
import threading
from contextlib import asynccontextmanager, closing

import orjson
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from flowd.orchestrator.executor import submit_workflow, trigger_workflow
from flowd.scheduler import otlp
from flowd.scheduler import traces as duty_file
from flowd.scheduler.duty import DutyFailed
from flowd.scheduler.otlp import Sender, traces_url
from flowd.scheduler.spans import Context, Span, parse_traceparent, span_id
from flowd.scheduler.traces import ExportTraces, TraceExport
from flowd.store.executions import now_ms
from flowd.store.traces import TracePosition
from flowd.workflow.ids import child_id, new_execution_id
from tests.flow.engine import Engine, node, until, workflow
from tests.flow.test_children import call, engine_of, save
from tests.local_services import Reply, running_service

ERROR = 2
CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    """What has ended is exported in milliseconds."""
    monkeypatch.setattr(duty_file, "SETTLED_MS", 2)
    monkeypatch.setattr(duty_file, "LOOK_EVERY_S", 0.01)


class Collector:
    """`status` is what it answers from now on; what it has taken are `spans`, by name."""

    def __init__(self, service):
        self.service = service
        self.status = 200
        service.answer = lambda _: Reply(self.status)

    def calls(self):
        return len(self.service.requests)

    @property
    def spans(self):
        return {one.name: one for one in self.all()}

    def all(self):
        found = []
        for request in self.service.requests:
            assert request.target == "/v1/traces"
            body = request.body
            if request.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            message = ExportTraceServiceRequest.FromString(body)
            for resource in message.resource_spans:
                (self.resource,) = [attributes_of(resource.resource)]
                for scope in resource.scope_spans:
                    found += scope.spans
        return found


@pytest.fixture
def collector():
    with running_service(lambda _: Reply()) as service:
        yield Collector(service)


@asynccontextmanager
async def exporting(engine, collector):
    """From the beginning on, beside the engine."""
    await engine.store.finished.traces.note(TracePosition(0, ""))
    ends = []
    export = TraceExport(engine.store, Sender(collector.service.url))
    export.start(on_end=lambda: ends.append(True))
    try:
        yield export
        assert not ends
    finally:
        await export.stop()


async def exported(engine, collector, *execution_ids):
    """The spans by name, once the ends of these executions are among them."""
    wanted = {span_id(one).to_bytes(8) for one in execution_ids}
    async with exporting(engine, collector):
        await until(lambda: wanted <= {one.span_id for one in collector.all()}, "the traces")
    return collector.spans


def attributes_of(owner):
    return {
        one.key: one.value.int_value if one.value.HasField("int_value") else one.value.string_value
        for one in owner.attributes
    }


async def test_an_execution_is_a_trace_with_a_span_of_each_node(settings, collector):
    async with Engine(settings) as engine:
        one = await engine.run(
            workflow(
                node("A"),
                node("B", ["A"], handler="fail", text="no luck today"),
                node("C", ["B"]),
                name="night",
                labels={"team": "ops"},
            )
        )

        spans = await exported(engine, collector, one)

        assert sorted(spans) == ["A", "B", "night"]
        top = spans["night"]
        assert {span.trace_id for span in spans.values()} == {int(one, 16).to_bytes(16)}
        assert (top.parent_span_id, top.status.code) == (b"", ERROR)
        assert "no luck today" in top.status.message
        assert attributes_of(top) == {
            "flowd.execution_id": one, "flowd.workflow": "night", "flowd.status": "FAILED",
            "flowd.nodes": 3, "flowd.label.team": "ops",
        }  # fmt: skip
        a, b = spans["A"], spans["B"]
        assert {a.parent_span_id, b.parent_span_id} == {top.span_id}
        assert (a.status.code, b.status.code, b.status.message) == (
            0,
            ERROR,
            "RuntimeError: no luck today",
        )
        told = attributes_of(a)
        assert told.pop("flowd.worker").startswith("worker-")
        assert told.pop("flowd.waited_ms") >= 0
        assert told == {
            "flowd.execution_id": one, "flowd.node_id": "A", "flowd.handler": "echo",
            "flowd.state": "COMPLETED", "flowd.attempts": 1,
        }  # fmt: skip
        record = (await engine.store.nodes.records(one, ["A"]))["A"]
        times = (a.start_time_unix_nano // 10**6, a.end_time_unix_nano // 10**6)
        assert times == (record.started_ms, record.finished_ms)
        assert collector.resource["service.name"] == "flowd"


async def test_the_attempts_of_a_node_are_inside_it(settings, collector):
    async with Engine(settings) as engine, engine.ticking():
        retry = {"max_attempts": 3, "delay_s": 0}
        one = await engine.run(
            workflow({**node("A", handler="fail_first", times=2), "retry": retry}, name="again")
        )

        spans = await exported(engine, collector, one)

        assert sorted(spans) == ["A", "A #1", "A #2", "A #3", "again"]
        attempts = [spans[f"A #{number}"] for number in (1, 2, 3)]
        assert {span.parent_span_id for span in attempts} == {spans["A"].span_id}
        assert [span.status.code for span in attempts] == [ERROR, ERROR, 0]
        assert "not yet" in attempts[0].status.message
        assert (spans["A"].status.code, attributes_of(spans["A"])["flowd.attempts"]) == (0, 3)
        begins = [span.start_time_unix_nano for span in attempts]
        assert begins == sorted(begins)
        assert spans["A"].start_time_unix_nano == begins[0]
        assert spans["A"].end_time_unix_nano == attempts[-1].end_time_unix_nano


async def test_the_items_of_a_map_are_inside_its_node(settings, collector):
    async with Engine(settings) as engine:
        fan = {"id": "fan", "handler": "echo", "map": {"over": "{{ input.xs }}"}}
        one = await engine.run(workflow(fan, name="wide"), orjson.dumps({"xs": [1, 2]}))

        spans = await exported(engine, collector, one)

        assert {"fan.0", "fan.1"} <= spans.keys()
        assert {spans[f"fan.{at}"].parent_span_id for at in (0, 1)} == {spans["fan"].span_id}
        assert attributes_of(spans["fan.0"])["flowd.handler"] == "echo"


async def test_a_child_is_inside_the_node_that_waits_for_it(settings, collector):
    async with engine_of(settings) as engine, engine.ticking():
        await save(engine, node("deep"), name="report")
        one = await engine.run(workflow(call(), name="above"))
        child = child_id(one, "call", 1)

        spans = await exported(engine, collector, one, child)

        assert {span.trace_id for span in spans.values()} == {int(one, 16).to_bytes(16)}
        assert spans["report"].parent_span_id == spans["call"].span_id
        assert spans["deep"].parent_span_id == spans["report"].span_id
        assert attributes_of(spans["report"])["flowd.parent"] == one


async def test_the_trace_of_a_caller_goes_on(settings, collector):
    async with engine_of(settings) as engine, engine.ticking():
        await save(engine, node("deep"), name="report")
        definition = workflow(call(), name="above")
        one = await _triggered(engine, definition)

        spans = await exported(engine, collector, one, child_id(one, "call", 1))

        assert {one.trace_id.hex() for one in spans.values()} == {CALLER[3:35]}
        assert spans["above"].parent_span_id.hex() == CALLER[36:52]


async def test_what_a_caller_does_not_record_is_not_exported(settings, collector):
    async with Engine(settings) as engine:
        unseen = await _triggered(engine, workflow(node("A"), name="unseen"), CALLER[:-2] + "00")
        seen = await engine.run(workflow(node("B"), name="seen"))

        assert sorted(await exported(engine, collector, seen)) == ["B", "seen"]
        assert unseen


async def _triggered(engine, definition, traceparent=CALLER):
    execution_id = await submit_workflow(engine.store, definition)
    await trigger_workflow(engine.store, execution_id, b"", traceparent)
    await engine.end(execution_id)
    return execution_id


async def test_a_second_export_is_the_same_trace(settings, collector):
    async with Engine(settings) as engine:
        one = await engine.run(workflow(node("A"), node("B", ["A"]), name="twice"))
        first = await exported(engine, collector, one)
        collector.service.requests.clear()

        assert await exported(engine, collector, one) == first


async def test_each_is_exported_once_however_many_schedulers_there_are(settings, collector):
    async with Engine(settings) as engine:
        ids = [await engine.run(workflow(node("A"), name="one")) for _ in range(5)]
        async with exporting(engine, collector), exporting(engine, collector):
            await until(lambda: len(collector.all()) == 10, "all spans")
            last = await engine.run(workflow(node("A"), name="last"))
            await until(lambda: len(collector.all()) == 12, "those of the last")

        tops = [one.span_id for one in collector.all() if one.name != "A"]
        assert sorted(tops) == sorted(span_id(one).to_bytes(8) for one in [*ids, last])


async def test_many_that_end_in_one_millisecond_are_all_found(settings):
    async with Engine(settings, workers=0) as engine:
        ids = sorted(new_execution_id(now_ms()) for _ in range(7))
        for one in ids:
            await engine.redis("ZADD", "flowd:finished", 5, one)
        position, found = TracePosition(0, ""), []
        while some := await engine.store.finished.traces.ended(position, 9, 3):
            found += [one.execution_id for one in some]
            position = some[-1]

        assert found == ids


async def test_a_collector_that_is_away_is_told_and_gets_all_when_it_is_back(settings, collector):
    async with Engine(settings) as engine:
        collector.status = 503
        ids = [await engine.run(workflow(node("A"), name="x")) for _ in range(3)]
        async with exporting(engine, collector):

            async def told():
                return await engine.store.health.troubles.duties()

            (trouble,) = await until(told, "the trouble")
            assert trouble.what == "traces"
            assert "takes no traces" in trouble.reason
            assert (await engine.store.health.metrics.snapshot()).counts["traces failed"] >= 1
            collector.service.requests.clear()
            collector.status = 200
            wanted = {span_id(one).to_bytes(8) for one in ids}
            await until(lambda: wanted <= {one.span_id for one in collector.all()}, "the traces")

            async def well():
                return not await told()

            await until(well, "the trouble to be over")


async def test_what_a_collector_never_takes_is_given_up_and_the_rest_goes_on(
    settings, collector, lines
):
    async with Engine(settings) as engine:
        collector.status = 400
        await engine.run(workflow(node("A"), name="refused"))
        async with exporting(engine, collector):
            await until(collector.calls, "a call")

            async def dropped():
                counts = (await engine.store.health.metrics.snapshot()).counts
                return counts.get("traces dropped") == 2

            await until(dropped, "the spans to be given up")
            collector.service.requests.clear()
            collector.status = 200
            one = await engine.run(workflow(node("B"), name="taken"))
            wanted = span_id(one).to_bytes(8)
            await until(lambda: wanted in {span.span_id for span in collector.all()}, "the next")
        assert sorted(collector.spans) == ["B", "taken"]
    assert [(level, said["spans"]) for level, said in lines.of("traces.dropped")] == [("error", 2)]


async def test_a_collector_that_hangs_holds_nothing_up(settings, collector, monkeypatch):
    monkeypatch.setattr(otlp, "PATIENCE_S", 0.3)
    monkeypatch.setattr(otlp, "TIMEOUT_S", 0.2)
    release = threading.Event()
    collector.service.answer = lambda _: (release.wait(60), Reply())[1]
    async with Engine(settings) as engine:
        try:
            async with exporting(engine, collector), engine.ticking():
                await engine.run(workflow(node("A"), name="first"))
                await until(collector.calls, "the call that hangs")
                retry = {"max_attempts": 2, "delay_s": 0}
                again = {**node("B", handler="fail_first", times=1), "retry": retry}
                assert await engine.run(workflow(again, name="second"))

                async def told():
                    return await engine.store.health.troubles.duties()

                (trouble,) = await until(told, "the trouble")
                assert "does not answer" in trouble.reason
        finally:
            release.set()


async def test_a_call_that_has_not_come_back_is_not_joined_by_another(collector, monkeypatch):
    monkeypatch.setattr(otlp, "PATIENCE_S", 0.05)
    monkeypatch.setattr(otlp, "TIMEOUT_S", 60)
    release = threading.Event()
    collector.service.answer = lambda _: (release.wait(60), Reply())[1]
    spans = [Span("x", Context(1, 1), None, 1, 2, {})]
    with closing(Sender(collector.service.url)) as sender:
        try:
            for _ in range(3):
                with pytest.raises(DutyFailed, match="does not answer"):
                    await sender.send(spans)
            assert collector.calls() == 1
        finally:
            release.set()
        monkeypatch.setattr(otlp, "PATIENCE_S", 60)
        await until(lambda: not sender._under_way.is_alive(), "its end")
        await sender.send(spans)
        assert collector.calls() == 2


async def test_more_nodes_than_one_call_bears_come_in_several(settings, collector, monkeypatch):
    monkeypatch.setattr(duty_file, "SPANS_PER_CALL", 4)
    async with Engine(settings) as engine:
        names = [f"n{number}" for number in range(9)]
        await engine.run(workflow(*map(node, names), name="wide"))

        async with exporting(engine, collector):
            await until(lambda: len(collector.all()) == 10, "all spans")

        assert sorted(collector.spans) == sorted([*names, "wide"])
        assert collector.calls() == 3


async def test_what_is_too_old_is_given_up_while_the_collector_is_away(
    settings, monkeypatch, lines
):
    monkeypatch.setattr(duty_file, "BACKLOG_MS", 0)

    class Away:
        async def send(self, _spans):
            raise DutyFailed("away")

    async with Engine(settings) as engine:
        await engine.store.finished.traces.note(TracePosition(0, ""))
        await engine.run(workflow(node("A")))
        await asyncio.sleep(0.01)
        duty = ExportTraces(engine.store, Away())
        with pytest.raises(DutyFailed, match="away"):
            await duty.run(0.0)

        assert await duty.run(0.0) is None
    assert [level for level, _ in lines.of("traces.given_up")] == ["error"]


async def test_deleted_executions_are_passed_over(settings, collector):
    async with Engine(settings) as engine:
        gone = await engine.run(workflow(node("A"), name="gone"))
        await engine.redis("DEL", f"workflow:{gone}:status")
        damaged = await engine.run(workflow(node("D"), name="damaged"))
        await engine.redis("SET", f"workflow:{damaged}", "{")
        await engine.redis("DEL", f"workflow:{damaged}:attempts")
        await engine.redis("SET", f"workflow:{damaged}:attempts", "x")
        kept = await engine.run(workflow(node("B"), name="kept"))

        assert {"B", "kept"} <= (await exported(engine, collector, kept)).keys()
        assert "gone" not in collector.spans


async def test_a_worker_that_died_leaves_an_attempt_up_to_the_next(settings, collector):
    async with Engine(settings) as engine:
        one = await engine.run(workflow(node("A"), name="x"))
        await engine.redis("HSET", f"workflow:{one}:attempts", "A", "2 3000 1 5 w-2")
        await engine.redis("HSET", f"workflow:{one}:history", "A 1", "1 1000 - - w-1\nit died")

        spans = await exported(engine, collector, one)

        lost = spans["A #1"]
        assert (lost.start_time_unix_nano, lost.end_time_unix_nano) == (10**9, 3 * 10**9)
        assert (lost.status.code, lost.status.message) == (ERROR, "it died")


async def test_what_is_new_is_exported_not_the_past(settings, collector):
    async with Engine(settings) as engine:
        await engine.run(workflow(node("A"), name="past"))
        await asyncio.sleep(0.01)
        export = TraceExport(engine.store, Sender(collector.service.url))
        export.start(on_end=lambda: None)
        try:

            async def begun():
                return await engine.redis("EXISTS", "flowd:traced")

            await until(begun, "the first look")
            one = await engine.run(workflow(node("B"), name="new"))
            wanted = span_id(one).to_bytes(8)
            await until(lambda: wanted in {span.span_id for span in collector.all()}, "the new")
        finally:
            await export.stop()
        assert sorted(collector.spans) == ["B", "new"]


def test_an_endpoint_is_a_base_or_the_whole_address():
    assert traces_url("http://c:4318") == "http://c:4318/v1/traces"
    assert traces_url("http://c:4318/") == "http://c:4318/v1/traces"
    assert traces_url("https://c/otlp/v1/traces") == "https://c/otlp/v1/traces"
    assert traces_url("https://c/otlp?x=1") == "https://c/otlp/v1/traces?x=1"


def test_a_traceparent_is_read_as_its_standard_says():
    assert parse_traceparent(CALLER) == Context(
        0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331, True
    )
    assert parse_traceparent(CALLER[:-2] + "00").is_sampled is False
    no_trace, no_span = f"00-{'0' * 32}-b7ad6b7169203331-01", f"00-{'1' * 32}-{'0' * 16}-01"
    broken = CALLER + "-more", "ff" + CALLER[2:], CALLER.upper()
    for wrong in ("", "x", *broken, no_trace, no_span):
        assert parse_traceparent(wrong) is None, wrong
    assert parse_traceparent("01" + CALLER[2:] + "-more") is not None
