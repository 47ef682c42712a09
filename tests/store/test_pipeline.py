"""Calls in flight together share a connection, and nothing else: not an error, not a reply."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import hiredis
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as bounds
from hypothesis import strategies as st

from flowd.errors import StoreAway, StoreError, StoreUnavailable
from flowd.store.redis import client as client_module
from flowd.store.redis import scripts
from flowd.store.redis.client import _SHARED_BYTES_MAX, RedisClient
from flowd.store.redis.connecting import _GREETING
from tests.daemon import PATIENCE_S


@pytest.fixture
def client(settings, runner):
    client = RedisClient(settings)
    yield client
    runner.run(client.close())


class SlowServer:
    """Takes commands, and answers ECHO, the oldest first, when it is told to."""

    def __init__(self, folder) -> None:
        self.path = str(folder / "slow.sock")
        self.asked: list[str] = []
        self.connections = 0
        self._lines: list[asyncio.StreamWriter] = []
        self._open: list[tuple[asyncio.StreamWriter, str]] = []
        self._came = asyncio.Condition()

    async def __aenter__(self):
        self._listener = await asyncio.start_unix_server(self._listen, self.path)
        return self

    async def __aexit__(self, *_error):
        self.hang_up()
        self._listener.close()

    async def _listen(self, reader, writer):
        self.connections += 1
        self._lines.append(writer)
        parser = hiredis.Reader(encoding="utf-8")
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readexactly(len(_GREETING))
            writer.write(b"*0\r\n$0\r\n\r\n")
            while data := await reader.read(1 << 16):
                parser.feed(data)
                while command := parser.gets():
                    self._open.append((writer, command[1]))
                    self.asked.append(command[1])
                async with self._came:
                    self._came.notify_all()

    async def wait_for(self, *asked: str) -> None:
        async with asyncio.timeout(PATIENCE_S), self._came:
            await self._came.wait_for(lambda: set(asked) <= set(self.asked))

    def answer(self, count: int = 1, reply: str = "") -> None:
        """Each with what it was asked, or with this."""
        for _ in range(count):
            writer, asked = self._open.pop(0)
            writer.write((reply or f"+{asked}").encode() + b"\r\n")

    def hang_up(self) -> None:
        self._open.clear()
        while self._lines:
            self._lines.pop().close()


@pytest.fixture
def slow(server, runner):
    slow = SlowServer(server.folder)
    runner.run(slow.__aenter__())
    yield slow
    runner.run(slow.__aexit__())


@pytest.fixture
def slow_client(slow, server, runner):
    client = RedisClient(server.settings().with_redis_socket(slow.path))
    yield client
    runner.run(client.close())


def ask(client: RedisClient, text: str) -> asyncio.Task[str]:
    return asyncio.create_task(client.execute("ECHO", text))


async def connect(slow: SlowServer, client: RedisClient) -> None:
    """From then on what is asked is sent at once, however soon it is given up."""
    first = ask(client, "first")
    await slow.wait_for("first")
    slow.answer()
    await replies_of(first)


async def replies_of(*calls: asyncio.Task[str]) -> list[object]:
    async with asyncio.timeout(PATIENCE_S):
        return await asyncio.gather(*calls, return_exceptions=True)


async def test_calls_in_flight_together_take_one_connection_and_few_reads(client, redis):
    await client.execute("PING")
    before = redis.info("stats")

    replies = await asyncio.gather(*(client.execute("ECHO", str(n)) for n in range(200)))

    after = redis.info("stats")
    assert replies == [str(n) for n in range(200)]
    assert after["total_connections_received"] == before["total_connections_received"]
    # The commands of INFO itself, and whoever else has a connection to this server.
    assert after["total_reads_processed"] - before["total_reads_processed"] < 20


async def test_an_error_reply_is_that_of_who_asked_for_it(client, redis):
    redis.set("text", "x")

    wrong, right = await asyncio.gather(
        client.converse_freely([("HGET", "text", "a")]), client.converse_freely([("GET", "text")])
    )

    assert isinstance(wrong[0], Exception)
    assert right == ["x"]


CALLS = st.lists(
    st.tuples(
        # How many commands; whether one of them is refused; in which turn it is cancelled, if ever.
        st.integers(1, 3),
        st.booleans(),
        st.none() | st.integers(0, 6),
    ),
    min_size=1,
    max_size=30,
)


@given(calls=CALLS, pause=st.integers(0, 3))
@bounds(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whoever_is_cancelled_nobody_gets_the_reply_of_another(client, runner, calls, pause):
    async def call(number: int, count: int, *, is_refused: bool) -> list[object]:
        commands = [("ECHO", f"{number} {at}") for at in range(count)]
        return await client.converse_freely([*commands, *([("ECHO",)] if is_refused else [])])

    async def all_of_them() -> list[object]:
        tasks = []
        for number, (count, is_refused, _) in enumerate(calls):
            tasks.append(asyncio.create_task(call(number, count, is_refused=is_refused)))
            if pause and number % pause == 0:
                await asyncio.sleep(0)
        for turn in range(7):
            for task, (*_, cancelled_in) in zip(tasks, calls, strict=True):
                if cancelled_in == turn:
                    task.cancel()
            await asyncio.sleep(0)
        return await replies_of(*tasks)

    for number, ((count, is_refused, cancelled_in), replies) in enumerate(
        zip(calls, runner.run(all_of_them()), strict=True)
    ):
        if isinstance(replies, asyncio.CancelledError):
            assert cancelled_in is not None
            continue
        assert replies[:count] == [f"{number} {at}" for at in range(count)]
        assert [isinstance(one, Exception) for one in replies[count:]] == [True] * is_refused
    assert runner.run(client.execute("ECHO", "fresh")) == "fresh"


async def test_a_call_whose_time_is_up_leaves_the_others_theirs(slow, slow_client, monkeypatch):
    await connect(slow, slow_client)
    monkeypatch.setattr(client_module, "REPLY_TIMEOUT_S", 0.05)
    impatient = ask(slow_client, "impatient")
    await slow.wait_for("impatient")
    monkeypatch.setattr(client_module, "REPLY_TIMEOUT_S", PATIENCE_S)
    patient = ask(slow_client, "patient")
    await slow.wait_for("patient")

    (given_up,) = await replies_of(impatient)
    late = ask(slow_client, "late")
    await slow.wait_for("late")
    slow.answer(3)

    assert isinstance(given_up, StoreUnavailable)
    assert await replies_of(patient, late) == ["patient", "late"]
    # What does not answer in time is not asked again.
    assert slow.connections == 2


async def test_a_connection_on_which_all_were_given_up_is_closed(slow, slow_client, monkeypatch):
    await connect(slow, slow_client)
    monkeypatch.setattr(client_module, "REPLY_TIMEOUT_S", 0.05)
    given_up = await replies_of(ask(slow_client, "a"), ask(slow_client, "b"))
    monkeypatch.setattr(client_module, "REPLY_TIMEOUT_S", PATIENCE_S)
    again = ask(slow_client, "again")
    await slow.wait_for("again")
    slow.answer(3)

    assert [type(one) for one in given_up] == [StoreAway] * 2
    assert await replies_of(again) == ["again"]
    assert slow.connections == 2


async def test_a_lost_connection_fails_what_is_in_flight_and_nothing_is_sent_again(
    slow, slow_client
):
    calls = [ask(slow_client, text) for text in "abc"]
    await slow.wait_for(*"abc")
    slow.answer()
    await replies_of(calls[0])
    slow.hang_up()

    lost = await replies_of(*calls[1:])
    again = ask(slow_client, "d")
    await slow.wait_for("d")
    slow.answer()

    assert [type(one) for one in lost] == [StoreAway] * 2
    assert lost[0] is not lost[1]
    assert await replies_of(again) == ["d"]
    assert slow.asked == ["a", "b", "c", "d"]


async def test_where_redis_is_away_everybody_hears_it_and_may_ask_again(settings, server):
    path = server.folder / "later.sock"
    client = RedisClient(settings.with_redis_socket(str(path)))

    told = await replies_of(*(ask(client, text) for text in "ab"))
    path.symlink_to(server.socket_path)
    found = await replies_of(*(ask(client, text) for text in "ab"))
    await client.close()

    assert [type(one) for one in told] == [StoreAway] * 2
    assert found == ["a", "b"]


async def test_who_is_cancelled_while_it_connects_takes_the_connection_from_nobody(
    slow, slow_client
):
    first, second = ask(slow_client, "first"), ask(slow_client, "second")
    await asyncio.sleep(0)
    first.cancel()
    await slow.wait_for("second")
    slow.answer()

    assert await replies_of(second) == ["second"]
    assert (slow.connections, slow.asked) == (1, ["second"])


async def test_a_reply_that_speaks_of_the_connection_ends_it_behind_the_others(slow, slow_client):
    loading, other = ask(slow_client, "loading"), ask(slow_client, "other")
    await slow.wait_for("loading", "other")
    slow.answer(1, "-LOADING Redis is loading the dataset in memory")
    (told,) = await replies_of(loading)
    later = ask(slow_client, "later")
    await slow.wait_for("later")
    slow.answer(2)

    assert isinstance(told, StoreUnavailable)
    assert await replies_of(other, later) == ["other", "later"]
    assert slow.connections == 2


@pytest.mark.parametrize("reply", ["+one\r\n+too many", "nonsense"])
async def test_what_nobody_asked_for_is_no_answer_to_the_next(slow, slow_client, reply):
    call = ask(slow_client, "a")
    await slow.wait_for("a")
    slow.answer(1, reply)
    await replies_of(call)
    again = ask(slow_client, "b")
    await slow.wait_for("b")
    slow.answer()

    assert await replies_of(again) == ["b"]
    assert slow.connections == 2


async def test_a_large_call_goes_alone(slow, slow_client):
    text = "x" * _SHARED_BYTES_MAX
    small, large = ask(slow_client, "small"), ask(slow_client, text)
    await slow.wait_for("small", text)
    slow.answer(2)

    assert await replies_of(small, large) == ["small", text]
    assert slow.connections == 2


async def test_a_client_that_is_closed_waits_for_what_is_in_flight(slow, slow_client):
    call = ask(slow_client, "last")
    await slow.wait_for("last")
    await slow_client.close()
    slow.answer()

    assert await replies_of(call) == ["last"]


async def test_a_script_that_the_server_has_forgotten_is_loaded(client, redis):
    redis.script_flush()
    arguments = (("none", "flowd:continuations"), "an execution", "", "")

    outcomes = await asyncio.gather(
        *(client.run(scripts.SETTLE_FOLLOW, *arguments) for _ in range(2))
    )

    assert outcomes == ["settled", "settled"]


async def test_an_error_of_the_caller_costs_nobody_else_the_connection(client):
    first = await client.execute("CLIENT", "ID")
    with pytest.raises(StoreError):
        await client.execute("NO_SUCH_COMMAND")

    assert await client.execute("CLIENT", "ID") == first
