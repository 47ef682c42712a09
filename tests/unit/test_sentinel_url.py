"""URLs that name the Sentinels of a Redis: what is read of them, and what is refused."""

from __future__ import annotations

import pytest

from flowd.config import RedisSettings
from flowd.config.readers import redis_url
from flowd.config.sentinel_url import parse_sentinel_url
from flowd.store.redis.sentinels import Address, announced


@pytest.mark.parametrize(
    ("text", "hosts", "server"),
    [
        (
            "redis+sentinel://one/p0",
            (("one", 26379),),
            "redis://h:1/?",
        ),
        (
            "redis+sentinel://:pw@one:1,two,[::1]:3/p0/7",
            (("one", 1), ("two", 26379), ("::1", 3)),
            "redis://:pw@h:1/7?",
        ),
        (
            "rediss+sentinel://u:p%2Fw@one,two/my.master-1/0?ssl_ca_certs=/dev/null&sentinel_password=x",
            (("one", 26379), ("two", 26379)),
            "rediss://u:p%2Fw@h:1/0?ssl_ca_certs=%2Fdev%2Fnull",
        ),
    ],
)
def test_sentinels_and_the_server_behind_them_are_told_apart(text, hosts, server):
    found = parse_sentinel_url(text)

    assert found.hosts == hosts
    assert found.server_url("h", 1) == server
    assert redis_url(text) == text


def test_the_login_of_the_sentinels_is_their_own():
    found = parse_sentinel_url(
        "redis+sentinel://u:pw@one/p0?sentinel_username=s&sentinel_password=q%26"
    )

    assert (found.username, found.password) == ("s", "q&")
    assert found.server_url("::1", 1) == "redis://u:pw@[::1]:1/?"


def test_a_url_of_another_kind_is_none_of_theirs():
    assert parse_sentinel_url("redis://one,two/p0") is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("redis+sentinel://one,two", "name of the master"),
        ("redis+sentinel://one/", "name of the master"),
        ("redis+sentinel://one/a%20b/0", "name of the master"),
        ("redis+sentinel:///p0", "hosts of the Sentinels"),
        ("redis+sentinel://one,,two/p0", "hosts of the Sentinels"),
        ("redis+sentinel://one:0/p0", "hosts of the Sentinels"),
        ("redis+sentinel://one:65536/p0", "hosts of the Sentinels"),
        ("redis+sentinel://one/p0/x", "number of a db"),
        ("redis+sentinel://one/p0?sentinal_password=x", "'sentinal_password' is none of them"),
        ("redis://one?sentinel_password=x", "'sentinel_password' is none of them"),
        ("redis+sentinels://one/p0", "starts with redis:// or rediss://"),
    ],
)
def test_what_cannot_be_meant_is_refused(text, told):
    with pytest.raises(ValueError, match=told):
        redis_url(text)


def test_people_are_shown_no_password():
    redis = RedisSettings(url="redis+sentinel://u:pw@one:1,two/p0?sentinel_password=q")

    assert redis.address == "p0 of the Sentinels one:1, two:26379"


@pytest.mark.parametrize(
    ("channel", "text", "told"),
    [
        ("+switch-master", "p0 10.0.0.1 6379 10.0.0.2 6380", ("10.0.0.2", 6380)),
        ("+switch-master", "p1 10.0.0.1 6379 10.0.0.2 6380", None),
        (
            "+promoted-slave",
            "slave 10.0.0.2:6380 10.0.0.2 6380 @ p0 10.0.0.1 6379",
            ("10.0.0.2", 6380),
        ),
        ("+promoted-slave", "slave 10.0.0.2:6380 10.0.0.2 6380 @ p1 10.0.0.1 6379", None),
        (
            "+failover-state-wait-promotion",
            "slave 10.0.0.2:6380 10.0.0.2 6380 @ p0 10.0.0.1 6379",
            ("10.0.0.2", 6380),
        ),
        ("+switch-master", "", None),
        ("+sdown", "slave 10.0.0.2:6380 10.0.0.2 6380 @ p0 10.0.0.1 6379", None),
    ],
)
def test_what_a_sentinel_announces_is_read(channel: str, text: str, told: Address | None) -> None:
    """The one that leads a failover says `+switch-master` a second or two after the others, and
    what it has told whom at once."""
    assert announced(channel, text, "p0") == told
