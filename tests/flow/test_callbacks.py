"""A receiver is told once that an execution has ended, however badly it listens."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import threading
import time
from contextlib import asynccontextmanager

import orjson
import pytest
import yaml

from flowd.errors import HandlerFailed, StoreUnavailable
from flowd.orchestrator.schedules import read_schedule
from flowd.outgoing.secrets import Secrets
from flowd.redaction import REDACTOR
from flowd.scheduler import webhooks as callbacks
from flowd.scheduler.receivers import PER_RECEIVER_MAX, Receivers
from flowd.scheduler.webhooks import Deliverer, pause_s, sign
from flowd.store.callbacks import CallbackState
from flowd.store.executions import now_ms
from flowd.store.redis import keys
from flowd.workflow.ids import new_execution_id
from flowd.workflow.schedule import ScheduleDefinition
from tests.daemon import PATIENCE_S
from tests.flow.api_server import api_server
from tests.flow.engine import until
from tests.local_services import Reply, running_service
from tests.manual import blocks
from tests.store.schedules import HOUR_MS, NAME, schedule

SECRET = "a secret"


def ended(redis, url, **callback):
    """An execution as the scripts leave it when it has ended."""
    execution_id = new_execution_id(now_ms())
    definition = {"name": "orders", "dag": {"nodes": []}, "callback": {"url": url, **callback}}
    redis.set(keys.definition(execution_id), json.dumps(definition))
    redis.set(keys.status(execution_id), "COMPLETED")
    redis.hset(keys.run(execution_id), "finished_ms", 1764000000000)
    redis.zadd(keys.CALLBACKS, {execution_id: 1764000000000})
    return execution_id


@asynccontextmanager
async def delivering(store, *allow, schedulers=1, resolve=str):
    ends = []
    deliverers = [Deliverer(store, allow, resolve) for _ in range(schedulers)]
    for one in deliverers:
        one.start(on_end=lambda: ends.append(True))
    try:
        yield
        assert not ends
    finally:
        for one in deliverers:
            await one.stop()


async def settled(store, execution_id, state):
    async def is_settled():
        return (await store.callbacks.delivery(execution_id)).state is state

    await until(is_settled, f"{state} of {execution_id}")
    return await store.callbacks.delivery(execution_id)


@pytest.fixture
def hurry(monkeypatch):
    """Pauses of milliseconds between attempts."""
    monkeypatch.setattr(callbacks, "PAUSE_S", 0.001)
    monkeypatch.setattr(callbacks, "PAUSE_S_MAX", 0.02)


@pytest.mark.usefixtures("hurry")
async def test_a_receiver_that_fails_first_is_told_in_the_end_with_a_good_signature(store, redis):
    began_s = int(time.time())
    with running_service(lambda _: Reply(503 if len(service.requests) < 4 else 204)) as service:
        execution_id = ended(redis, f"{service.url}/hook?x=1", secret=SECRET)
        async with delivering(store, "127.0.0.1"):
            delivery = await settled(store, execution_id, CallbackState.DELIVERED)
        assert (delivery.attempts, delivery.last_status, delivery.last_error) == (4, 204, None)
        assert redis.zcard(keys.CALLBACKS) == 0
        for request in service.requests:
            assert (request.method, request.target) == ("POST", "/hook?x=1")
            assert request.json == {
                "execution_id": execution_id,
                "name": "orders",
                "status": "COMPLETED",
                "finished_ms": 1764000000000,
            }
            assert request.headers["content-type"] == "application/json"
            assert request.headers["idempotency-key"] == execution_id
            assert request.headers["x-flowd-delivery"] == execution_id
            stamp, _, mac = request.headers["x-flowd-signature"].partition(",v1=")
            signed = stamp.removeprefix("t=").encode() + b"." + request.body
            assert mac == hmac.new(SECRET.encode(), signed, hashlib.sha256).hexdigest()
            assert began_s <= int(stamp.removeprefix("t=")) <= time.time()


@pytest.mark.usefixtures("hurry")
async def test_after_twelve_tries_it_is_given_up_and_anyone_can_see_why(store, settings, redis):
    with running_service(lambda _: Reply(500)) as service:
        execution_id = ended(redis, service.url)
        async with api_server(settings) as api, delivering(store, "127.0.0.1"):
            await settled(store, execution_id, CallbackState.FAILED)
            status, _, body = await api.get(f"/workflows/{execution_id}/callback")
        assert status == 200
        assert orjson.loads(body) == {
            "execution_id": execution_id,
            "url": service.url,
            "state": "FAILED",
            "attempts": 12,
            "next_ms": None,
            "last_status": 500,
            "last_error": "answered 500",
            "delivered_ms": None,
        }
        assert len(service.requests) == 12
        assert "x-flowd-signature" not in service.requests[0].headers


async def test_an_address_that_may_not_be_called_is_refused_at_once(store, redis):
    with running_service(lambda _: Reply(200)) as service:
        execution_id = ended(redis, service.url)
        async with delivering(store):
            delivery = await settled(store, execution_id, CallbackState.FAILED)
        assert delivery.attempts == 1
        assert "127.0.0.1 is a loopback address" in delivery.last_error
        assert "[callbacks] allow" in delivery.last_error
        assert service.requests == []


@pytest.mark.usefixtures("hurry")
async def test_a_redirect_is_a_failure_and_is_not_followed(store, redis):
    with running_service(lambda _: Reply(302, headers={"Location": "/other"})) as service:
        execution_id = ended(redis, service.url)
        async with delivering(store, "127.0.0.1"):
            delivery = await settled(store, execution_id, CallbackState.FAILED)
        assert delivery.last_status == 302
        assert {request.target for request in service.requests} == {"/"}


async def test_two_schedulers_tell_each_receiver_once(store, redis):
    with running_service(lambda _: Reply(200)) as service:
        ids = {ended(redis, service.url) for _ in range(40)}
        async with delivering(store, "127.0.0.1", schedulers=2):
            await until(lambda: redis.zcard(keys.CALLBACKS) == 0, "all deliveries")
        told = [request.json["execution_id"] for request in service.requests]
        assert sorted(told) == sorted(ids)


async def test_a_slow_receiver_holds_up_no_other(store, redis):
    gate = threading.Event()

    def answer(request):
        if request.target == "/slow":
            gate.wait(600)
        return Reply(200)

    with running_service(answer) as service:
        slow = ended(redis, f"{service.url}/slow")
        async with delivering(store, "127.0.0.1"):
            await until(lambda: service.requests, "the slow one")
            quick = ended(redis, f"{service.url}/quick")
            await settled(store, quick, CallbackState.DELIVERED)
            assert (await store.callbacks.delivery(slow)).state is CallbackState.PENDING
            gate.set()
            await settled(store, slow, CallbackState.DELIVERED)


async def test_a_silent_receiver_holds_up_no_other_however_many_wait_for_it(
    store, redis, monkeypatch
):
    """Its calls took all the places there are, each for ten seconds."""
    monkeypatch.setattr(callbacks, "DEADLINE_S", 1_000.0)
    gate = threading.Event()

    def never(_request):
        gate.wait(600)
        return Reply(200)

    with running_service(never) as silent, running_service(lambda _: Reply(200)) as service:
        waiting = [ended(redis, silent.url) for _ in range(3 * callbacks.AT_ONCE_MAX)]
        async with delivering(store, "127.0.0.1"):
            await until(lambda: len(silent.requests) >= PER_RECEIVER_MAX, "the silent one")
            told = [ended(redis, service.url) for _ in range(5)]
            for execution_id in told:
                await settled(store, execution_id, CallbackState.DELIVERED)
            assert len(silent.requests) == PER_RECEIVER_MAX
            gate.set()
            await until(lambda: redis.zcard(keys.CALLBACKS) == 0, "all deliveries")
        assert len(silent.requests) == len(waiting)
        for execution_id in waiting:
            assert (await store.callbacks.delivery(execution_id)).attempts == 1


async def test_only_so_many_calls_are_under_way_however_many_receivers_wait(
    store, redis, monkeypatch
):
    gate, begun = asyncio.Event(), []

    async def hang(_deliverer, due):
        begun.append(due.subject)
        await gate.wait()

    monkeypatch.setattr(Deliverer, "_deliver", hang)
    monkeypatch.setattr(callbacks, "AT_ONCE_MAX", 4)
    waiting = {ended(redis, f"http://127.0.0.{at}") for at in range(1, 8)}
    deliverer = Deliverer(store, (), str)
    for _ in range(3):
        await deliverer.deliver_due()
        await asyncio.sleep(0)
    assert len(begun) == 4

    gate.set()
    await until(lambda: not deliverer._calls, "the end of the calls")
    await deliverer.deliver_due()
    await until(lambda: set(begun) == waiting, "the others")
    await deliverer.stop()


def test_a_receiver_that_never_answered_is_tried_by_one_call_at_a_time():
    receivers = Receivers()
    one = receivers.at("a:1", "x")
    assert one.calls_max == PER_RECEIVER_MAX
    one.is_silent = True
    assert (one.calls_max, receivers.known("x")) == (1, one)
    receivers.settle("x")
    assert receivers.at("a:1", "y") is one
    one.is_silent = False
    receivers.settle("y")
    assert receivers.at("a:1", "z") is not one


@pytest.mark.usefixtures("hurry")
async def test_a_receiver_that_was_silent_and_answers_is_called_by_several_at_once_again(
    store, redis, monkeypatch
):
    """One that was away for a moment was told one by one until its scheduler ended."""
    calls, gate = [], asyncio.Event()

    async def call(_deliverer, notice, _hidden):
        execution_id = notice.key
        calls.append(execution_id)
        if len(calls) == 1:
            raise HandlerFailed("no complete answer")
        if execution_id != first:
            await gate.wait()
        return 200

    monkeypatch.setattr(Deliverer, "_call", call)
    async with delivering(store):
        first = ended(redis, "http://127.0.0.1:1")
        await settled(store, first, CallbackState.DELIVERED)
        assert calls == [first, first]
        more = [ended(redis, "http://127.0.0.1:1") for _ in range(PER_RECEIVER_MAX)]
        await until(lambda: len(calls) == 2 + PER_RECEIVER_MAX, "as many calls as are allowed")
        gate.set()
        for execution_id in more:
            await settled(store, execution_id, CallbackState.DELIVERED)


@pytest.mark.parametrize("has_length", [True, False])
async def test_a_large_answer_is_an_answer(store, redis, has_length):
    """One of more than 10 MB was a failure, and the receiver was told twelve times."""
    headers = {} if has_length else {"Transfer-Encoding": "chunked"}
    body = b"x" * 20_000_000 if has_length else b"1\r\nx\r\n0\r\n\r\n"
    with running_service(lambda _: Reply(200, body, headers)) as service:
        execution_id = ended(redis, service.url)
        async with delivering(store, "127.0.0.1"):
            delivery = await settled(store, execution_id, CallbackState.DELIVERED)
        assert (delivery.attempts, delivery.last_status, delivery.last_error) == (1, 200, None)


async def test_a_secret_of_a_workflow_is_forgotten_when_its_receiver_was_told(
    store, settings, redis
):
    """Each was looked for in every text for ever, and the scheduler got slower with each."""
    resolve = Secrets(settings).resolve_written
    before = list(REDACTOR._forms)
    hidden = []

    def answer(_request):
        hidden.append(REDACTOR.text("said: a secret of one workflow"))
        return Reply(200)

    with running_service(answer) as service:
        execution_id = ended(redis, service.url, secret="a secret of one workflow")
        async with delivering(store, "127.0.0.1", resolve=resolve):
            await settled(store, execution_id, CallbackState.DELIVERED)
    assert hidden == ["said: ********"]
    assert list(REDACTOR._forms) == before


@pytest.mark.usefixtures("hurry")
@pytest.mark.parametrize(
    "spoil",
    [
        lambda redis, one: redis.delete(keys.definition(one)),
        lambda redis, one: redis.set(keys.definition(one), "{"),
        lambda redis, one: redis.set(keys.definition(one), '{"callback": {"url": "nowhere"}}'),
        lambda redis, one: redis.set(
            keys.definition(one),
            '{"callback": {"url": "http://127.0.0.1:1", "secret": {"$secret": "X"}}}',
        ),
    ],
)
async def test_what_can_never_be_told_is_given_up(store, redis, spoil):
    execution_id = ended(redis, "http://127.0.0.1:1")
    spoil(redis, execution_id)
    async with delivering(store, "127.0.0.1"):
        assert (await settled(store, execution_id, CallbackState.FAILED)).last_error


async def test_the_key_goes_with_the_execution(store, redis):
    with running_service(lambda _: Reply(200)) as service:
        execution_id = ended(redis, service.url)
        async with delivering(store, "127.0.0.1"):
            await settled(store, execution_id, CallbackState.DELIVERED)
    waiting = ended(redis, "http://127.0.0.1:1")
    await store.finished.delete([execution_id, waiting])
    assert redis.keys() == []


async def test_a_workflow_without_a_callback_says_so(settings, redis):
    execution_id = new_execution_id(now_ms())
    redis.set(keys.definition(execution_id), '{"name": "x", "dag": {"nodes": []}}')
    redis.set(keys.status(execution_id), "PENDING")
    async with api_server(settings) as api:
        status, media_type, body = await api.get(f"/workflows/{execution_id}/callback")
        assert (status, media_type) == (404, "application/problem+json")
        assert b'"code":"no_callback"' in body
        assert (await api.get(f"/workflows/{'0' * 24}/callback"))[0] == 404


def test_pauses_grow_from_a_second_to_ten_minutes():
    assert [pause_s(attempt) for attempt in range(1, 13)] == [
        *(1, 2, 4, 8, 16, 32, 64, 128, 256, 512),
        *(600, 600),
    ]


def test_a_signature_is_what_the_documentation_says():
    body = b'{"a":1}'
    wanted = hmac.new(b"key", b'1764000000.{"a":1}', hashlib.sha256).hexdigest()
    assert sign("key", body, 1764000000) == f"t=1764000000,v1={wanted}"


async def test_a_damaged_queue_is_said_once_and_work_goes_on_when_it_is_mended(
    store, redis, monkeypatch
):
    lines = []
    monkeypatch.setattr(callbacks, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(
        callbacks.log.__class__, "error", lambda _, *line, **_facts: lines.append(line)
    )
    looks = []
    claim = store.callbacks.claim

    async def counted(*arguments, **named):
        looks.append(1)
        return await claim(*arguments, **named)

    monkeypatch.setattr(store.callbacks, "claim", counted)
    redis.set(keys.CALLBACKS, "x")
    with running_service(lambda _: Reply(200)) as service:
        async with delivering(store, "127.0.0.1"):
            await until(lambda: len(looks) > 3, "some looks")
            assert lines == [("callback.failed",)]
            redis.delete(keys.CALLBACKS)
            await settled(store, ended(redis, service.url), CallbackState.DELIVERED)
            await until(lambda: redis.zcard(keys.CALLBACKS) == 0, "the end of it")
            looks.clear()
            redis.set(keys.CALLBACKS, "x")
            await until(lambda: len(looks) > 3, "some looks")
            assert lines == [("callback.failed",)] * 2


async def test_a_redis_that_goes_away_before_the_call_costs_no_attempt(store, redis, monkeypatch):
    async def away(_execution_id):
        raise StoreUnavailable("nobody is there")

    execution_id = ended(redis, "http://127.0.0.1:1")
    monkeypatch.setattr(store.executions, "definition", away)
    deliverer = Deliverer(store, (), str)
    await deliverer.deliver_due()
    await asyncio.gather(*deliverer._calls)

    # Its claim runs out, and that is when it is tried again.
    delivery = await store.callbacks.delivery(execution_id)
    assert (delivery.state, delivery.last_error) == (CallbackState.PENDING, None)
    assert redis.zscore(keys.CALLBACKS, execution_id) > 1000 * redis.time()[0] + 20_000


async def test_a_stop_waits_for_nobody(store, monkeypatch):
    monkeypatch.setattr(callbacks, "LOOK_EVERY_S", 10 * PATIENCE_S)
    async with asyncio.timeout(PATIENCE_S), delivering(store):
        await asyncio.sleep(0)


def test_the_check_the_manual_shows_takes_what_is_signed_and_nothing_else():
    (shown,) = blocks("Callbacks", "python")
    names = {"hmac": hmac, "hashlib": hashlib, "time": time}
    exec(shown, names)
    is_genuine, now_s = names["is_genuine"], int(time.time())

    assert is_genuine("key", sign("key", b"{}", now_s), b"{}")
    assert not is_genuine("other", sign("key", b"{}", now_s), b"{}")
    assert not is_genuine("key", sign("key", b"{}", now_s), b"{ }")
    assert not is_genuine("key", sign("key", b"{}", now_s - 3600), b"{}")


async def missed(store, redis, url, **callback):
    """A schedule that has missed three times, and skipped one."""
    telling = {"callback": {"url": url, **callback}, "timezone": "Europe/Berlin"}
    nightly = await schedule(store, redis, **telling)
    await nightly.attend(nightly.first_ms + 3 * HOUR_MS)
    await nightly.attend(nightly.first_ms + 4 * HOUR_MS)
    return nightly


def test_a_schedule_with_a_callback_is_taken_as_it_is_shown():
    (text,) = blocks("Told of what did not run", "yaml")
    shown = ScheduleDefinition.model_validate(yaml.safe_load(text))
    assert shown.callback is not None and shown.callback.secret == "shared"


async def told_of_schedule(store, state=CallbackState.DELIVERED):
    return await settled(store, keys.about_schedule(NAME), state)


@pytest.mark.usefixtures("hurry")
async def test_who_is_to_know_of_it_is_told_what_a_schedule_missed(store, redis):
    with running_service(lambda _: Reply(503 if len(service.requests) < 3 else 204)) as service:
        nightly = await missed(store, redis, f"{service.url}/hook", secret=SECRET)
        async with delivering(store, "127.0.0.1", schedulers=2):
            delivery = await told_of_schedule(store)
        assert (delivery.attempts, delivery.last_status, delivery.next_ms) == (3, 204, None)
        last_ms = nightly.first_ms + 4 * HOUR_MS
        iso = read_schedule(NAME, (await nightly.row()).said).timetable.iso(last_ms)
        for request in service.requests:
            assert (request.method, request.target) == ("POST", "/hook")
            assert request.json == {
                "schedule": NAME,
                "workflow": "report",
                "missed": 3,
                "skipped": 1,
                "scheduled_at": iso,
            }
            key = f"{NAME}:{last_ms}:3:1"
            assert request.headers["idempotency-key"] == key
            assert request.headers["x-flowd-delivery"] == key
            stamp, _, mac = request.headers["x-flowd-signature"].partition(",v1=")
            signed = stamp.removeprefix("t=").encode() + b"." + request.body
            assert mac == hmac.new(SECRET.encode(), signed, hashlib.sha256).hexdigest()
        assert iso.endswith(("+01:00", "+02:00"))


@pytest.mark.usefixtures("hurry")
async def test_what_a_receiver_never_hears_is_given_up_after_as_many_tries_each_time(store, redis):
    with running_service(lambda _: Reply(500)) as service:
        nightly = await missed(store, redis, service.url)
        async with delivering(store, "127.0.0.1"):
            await told_of_schedule(store, CallbackState.FAILED)
            assert len(service.requests) == callbacks.ATTEMPTS_MAX
            await nightly.attend(nightly.first_ms + 5 * HOUR_MS)
            await until(
                lambda: len(service.requests) == 2 * callbacks.ATTEMPTS_MAX, "as many tries again"
            )
            delivery = await told_of_schedule(store, CallbackState.FAILED)
        assert (delivery.attempts, delivery.last_error) == (12, "answered 500")
        assert service.requests[-1].json["skipped"] == 1


async def test_what_is_missed_while_a_receiver_hears_of_it_is_told_next(store, redis):
    gate = threading.Event()

    def answer(_request):
        if len(service.requests) == 1:
            gate.wait(600)
        return Reply(200)

    with running_service(answer) as service:
        nightly = await missed(store, redis, service.url)
        async with delivering(store, "127.0.0.1"):
            await until(lambda: service.requests, "the first call")
            for hours in (5, 6):
                await nightly.attend(nightly.first_ms + hours * HOUR_MS)
            gate.set()
            await until(lambda: len(service.requests) == 2, "the second call")
            await told_of_schedule(store)
        told = [(one.json["missed"], one.json["skipped"]) for one in service.requests]
        assert told == [(3, 1), (0, 2)]


@pytest.mark.usefixtures("hurry")
@pytest.mark.parametrize(
    "spoil",
    [
        lambda redis: redis.hset(keys.schedule(NAME), "said", "{"),
        lambda redis: redis.hset(keys.schedule(NAME), "said", '{"workflow": "x", "every_s": 9}'),
        lambda redis: redis.hdel(keys.callback(keys.about_schedule(NAME)), "missed", "skipped"),
    ],
)
async def test_what_can_never_be_told_of_a_schedule_is_given_up(store, redis, spoil):
    await missed(store, redis, "http://127.0.0.1:1")
    spoil(redis)
    async with delivering(store, "127.0.0.1"):
        assert (await told_of_schedule(store, CallbackState.FAILED)).last_error


async def test_of_a_schedule_anyone_sees_how_telling_it_goes(store, settings, redis):
    with running_service(lambda _: Reply(204)) as service:
        await missed(store, redis, service.url)
        async with api_server(settings) as api:
            before = orjson.loads((await api.get(f"/schedules/{NAME}/callback"))[2])
            async with delivering(store, "127.0.0.1"):
                await told_of_schedule(store)
            status, _, body = await api.get(f"/schedules/{NAME}/callback")
            assert (await api.get("/schedules/other/callback"))[0] == 404
            await schedule(store, redis, name="quiet")
            refused, _, problem = await api.get("/schedules/quiet/callback")
    assert (refused, orjson.loads(problem)["code"]) == (404, "no_callback")
    assert (before["state"], before["missed"], before["skipped"]) == ("PENDING", 3, 1)
    after = orjson.loads(body)
    assert (status, after.pop("delivered_ms") > 0) == (200, True)
    assert after == {
        "name": NAME,
        "url": service.url,
        "state": "DELIVERED",
        "attempts": 1,
        "next_ms": None,
        "last_status": 204,
        "last_error": None,
        "missed": 0,
        "skipped": 0,
    }
