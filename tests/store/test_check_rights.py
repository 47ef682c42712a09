"""check_rights: what the user who asks may not run."""

from __future__ import annotations

import redis as redis_py

from flowd.store.redis import scripts

COMMANDS = ("GET a", "SET a x", "XADD s * x y", "CONFIG GET save", "GET b")


def ask(client: redis_py.Redis) -> list[str]:
    refused, unknown = client.eval(scripts.CHECK_RIGHTS.text, 0, *COMMANDS, "NEVER heard of")
    assert unknown == ["NEVER"]
    return list(refused)


def test_what_is_refused_comes_back_as_it_was_asked(redis: redis_py.Redis) -> None:
    assert ask(redis) == []
    redis.acl_setuser(
        "ada", enabled=True, nopass=True, keys=["a"], categories=["+@read", "+@scripting"]
    )
    try:
        redis.execute_command("AUTH", "ada", "x")
        names = ask(redis)
        assert names == ["SET a x", "XADD s * x y", "CONFIG GET save", "GET b"]
    finally:
        redis.connection_pool.disconnect()
        redis.acl_deluser("ada")


def test_nothing_is_changed_by_asking(redis: redis_py.Redis) -> None:
    ask(redis)

    assert redis.dbsize() == 0
