"""The proxy of the tests: what it does to a message is what its table says."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import redis as redis_py

import tests.proxy
from tests.private_server import PrivateServer
from tests.proxy import FAULTS, Proxy, frame_end, take_frames


@pytest.fixture
def proxy(server: PrivateServer) -> Iterator[Proxy]:
    path = server.folder / "proxy.sock"
    with Proxy(path, server.socket_path) as proxy:
        yield proxy
    path.unlink(missing_ok=True)


def client(proxy: Proxy, timeout_s: float = 5.0) -> redis_py.Redis:
    return redis_py.Redis(
        unix_socket_path=proxy.path, decode_responses=True, socket_timeout=timeout_s, retry=None
    )


def test_frames_are_told_from_each_other():
    whole = (
        b"+OK\r\n",
        b":7\r\n",
        b"$3\r\na\r\n\r\n",
        b"$-1\r\n",
        b"*-1\r\n",
        b"*2\r\n$1\r\na\r\n*1\r\n:1\r\n",
        b"%1\r\n+a\r\n:1\r\n",
    )
    for one in whole:
        assert frame_end(one) == len(one)
        for size in range(len(one)):
            assert frame_end(one[:size]) is None
    data = bytearray(b"".join(whole) + b"+half")
    assert take_frames(data) == list(whole)
    assert data == b"+half"


def test_what_no_rule_is_for_passes(proxy, redis):
    through = client(proxy)
    assert through.set("a", "x" * 200_000)
    assert through.get("a") == redis.get("a")
    with through.pipeline(transaction=True) as pipe:
        pipe.incr("n").incr("n")
        assert pipe.execute() == [1, 2]
    assert proxy.connections == 1


@pytest.mark.parametrize(
    ("fault", "is_done"),
    [("lose_request", False), ("lose_reply", True), ("cut", False)],
)
def test_a_line_that_is_cut(proxy, redis, fault, is_done):
    rule = proxy.add(fault, "counted", nth=2)
    through = client(proxy)
    assert through.incr("counted") == 1

    with pytest.raises(redis_py.ConnectionError):
        through.incr("counted")

    assert redis.get("counted") == ("2" if is_done else "1")
    assert through.incr("counted") == (3 if is_done else 2)
    assert (rule.seen, rule.done) == (3, 1)


@pytest.mark.parametrize("fault", ["half_open", "black_hole"])
def test_a_line_that_goes_silent(proxy, redis, fault):
    proxy.add(fault, "counted")
    through = client(proxy, timeout_s=0.2)
    through.ping()
    before = len(redis.client_list())

    with pytest.raises(redis_py.TimeoutError):
        through.incr("counted")

    assert redis.get("counted") is None
    if fault == "half_open":
        assert len(redis.client_list()) < before
    assert through.incr("counted") == 1


def test_bytes_that_trickle_arrive(proxy):
    rule = proxy.add("trickle", "big", times=2)
    through = client(proxy)
    through.set("big", "x" * 2_000)
    assert through.get("big") == "x" * 2_000
    assert rule.done == 2


def test_a_delay_is_one(proxy):
    rule = proxy.add("delay", "slow", seconds=0.2)
    through = client(proxy)
    started_at = time.monotonic()
    through.get("quick")
    assert rule.done == 0
    through.get("slow")
    assert rule.done == 1
    assert time.monotonic() - started_at > 0.2


def test_a_partition_lets_nothing_through_until_it_is_healed(proxy, redis):
    through = client(proxy, timeout_s=0.1)
    through.ping()
    proxy.cut_off()
    for one in (through, client(proxy, timeout_s=0.1)):
        with pytest.raises((redis_py.TimeoutError, redis_py.ConnectionError)):
            one.incr("counted")
    assert redis.get("counted") is None
    proxy.heal()
    assert through.incr("counted") == 1


def test_every_fault_is_in_the_table():
    for fault in FAULTS:
        assert f"\n{fault} " in (tests.proxy.__doc__ or "")
