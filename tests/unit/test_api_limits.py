"""Hosts and rates: what is refused whoever asks."""

from __future__ import annotations

import pytest

from flowd.api.http import limits
from flowd.api.http.limits import Hosts, RateLimit, is_local

OWN = ("127.0.0.1", "machine.example")


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        (None, True),
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("::ffff:10.0.0.1", False),
        ("fe80::1%eth0", False),
        ("no address", False),
    ],
)
def test_loopback_and_files_are_of_this_machine(address: str | None, expected: bool) -> None:
    assert is_local(address) is expected


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        (b"localhost", True),
        (b"LOCALHOST:8000", True),
        (b"localhost.:80", True),
        (b"127.0.0.1:8000", True),
        (b"[::1]:8000", True),
        (b"[::1]", True),
        (b"machine.example:1", True),
        (b"evil.example", False),
        (b"localhost.evil.example", False),
        (b"evil.example:localhost", False),
        (b"127.0.0.1.evil.example", False),
        (b"[::1].evil.example", True),  # no address at all: nobody can lead it here
        (b"*", False),
        (b"", True),  # no browser sends that
        (b"\xff", False),
    ],
)
def test_on_loopback_without_tokens_only_names_of_this_machine_count(
    host: bytes, expected: bool
) -> None:
    hosts = Hosts((), OWN, is_open=False)

    for _ in range(2):
        assert hosts.accept(host, has_tokens=False) is expected
    assert hosts.accept(host, has_tokens=True)
    assert Hosts((), OWN, is_open=True).accept(host, has_tokens=False)


def test_a_list_of_hosts_counts_always() -> None:
    hosts = Hosts(("Flowd.example.com", "*.internal"), OWN, is_open=True)

    for host in (b"flowd.example.com:8000", b"a.internal", b"a.b.internal:1"):
        assert hosts.accept(host, has_tokens=True)
    for host in (b"", b"internal", b"localhost", b"xinternal", b"example.com", b"*.internal.x"):
        assert not hosts.accept(host, has_tokens=True)
    assert Hosts(("*",), OWN, is_open=False).accept(b"any", has_tokens=False)


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_a_bucket_holds_a_second_and_fills_again() -> None:
    clock = Clock()
    rate = RateLimit(5, clock)

    assert [rate.take("a") for _ in range(6)] == [0, 0, 0, 0, 0, 1]
    assert rate.take("b") == 0
    clock.now_s += 0.2
    assert [rate.take("a"), rate.take("a")] == [0, 1]
    clock.now_s += 100
    assert [rate.take("a") for _ in range(6)] == [0, 0, 0, 0, 0, 1]


def test_less_than_one_a_second_says_how_long_to_wait() -> None:
    clock = Clock()
    rate = RateLimit(0.1, clock)

    assert [rate.take("a"), rate.take("a")] == [0, 10]
    clock.now_s += 9
    assert rate.take("a") == 1
    clock.now_s += 1.001
    assert rate.take("a") == 0


def test_callers_without_number_take_no_memory_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "BUCKETS_MAX", 10)
    clock = Clock()
    rate = RateLimit(1, clock)

    for number in range(10):
        assert rate.take(f"idle {number}") == 0
    clock.now_s += 1
    assert [rate.take("busy"), rate.take("busy")] == [0, 1]
    assert len(rate._buckets) == 1
    for number in range(1000):
        rate.take(str(number))
    assert len(rate._buckets) <= 10
