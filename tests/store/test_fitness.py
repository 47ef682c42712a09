"""Whether flowd can work with a Redis, and whether that one may lose what it is given."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import redis as redis_py

import flowd
from flowd.config import Settings
from flowd.diagnosis import readiness
from flowd.diagnosis.doctor import examine
from flowd.errors import StoreUnavailable
from flowd.store import open_store
from flowd.store.fitness import _REPLICATED_RIGHTS, _RIGHTS, Fitness, examine_now, judge
from flowd.supervisor.embedded_server import choose_server, wait_for_external
from tests.manual import blocks
from tests.private_server import PrivateServer, free_port

SAFE = {"appendonly": "yes"}
NO_AOF = "it writes no append-only file: "


@contextmanager
def running(**options: str | tuple[str, ...]) -> Iterator[PrivateServer]:
    server = PrivateServer(**options)
    try:
        server.start()
        yield server
    finally:
        server.stop()


def as_external(server: PrivateServer, login: str = "", query: str = "") -> Settings:
    settings = server.settings()
    url = f"unix://{login}{server.socket_path}{query}"
    return replace(settings, redis=replace(settings.redis, socket_path=None, url=url))


async def found_everywhere(settings: Settings) -> Fitness:
    """What the start, /readyz and the doctor say, which is one thing."""
    at_start = examine_now(settings)
    store = open_store(settings)
    try:
        assert await store.health.metrics.fitness() == at_start
        checks, problems = await readiness.check(store)
        if checks:
            assert checks["redis"]["risks"] == at_start.risks
            assert [one.message for one in problems if one.path == "checks.redis"] == list(
                at_start.defects
            )
        examined = await examine(store, pause_s=0)
        assert examined.risks == at_start.risks
        assert examined.checks[0].violations == at_start.defects
    finally:
        await store.close()
    return at_start


async def test_a_server_that_keeps_everything_has_no_fault() -> None:
    with running(**SAFE) as server:
        found = await found_everywhere(as_external(server))

    assert (found.defects, found.risks) == ((), ())
    assert re.fullmatch(r"(Redis|Valkey) \d+\.\d+\.\d+", found.server)


async def test_commands_that_were_renamed_are_named() -> None:
    with running(**SAFE, rename_command=("XACK", "X1")) as server:
        found = await found_everywhere(settings := as_external(server))

        (defect,) = found.defects
        assert defect == (
            "it has no command XACK under this name; take its rename-command out of the "
            "configuration of this Redis"
        )
        refuse(settings, "cannot be used: it has no command XACK")
    with running(**SAFE, rename_command=("EVAL", "E1")) as server:
        refuse(as_external(server), "cannot be used: it has no command EVAL under")


@pytest.mark.parametrize(
    ("options", "risk"),
    [
        ({"maxmemory": "64mb", "maxmemory_policy": "allkeys-lru"}, "evicts executions without a"),
        ({"maxmemory": "64mb", "maxmemory_policy": "volatile-ttl"}, "evicts executions without a"),
        ({"appendonly": "no"}, NO_AOF + "everything is lost"),
        ({"appendonly": "no", "save": "3600 1"}, NO_AOF + "what came after its last snapshot"),
    ],
)  # fmt: skip
async def test_what_can_lose_work_is_a_risk(options: dict[str, str], risk: str) -> None:
    with running(**SAFE | options) as server:
        found = await found_everywhere(as_external(server))

    assert found.defects == ()
    assert len(found.risks) == 1
    assert risk in found.risks[0]


async def test_a_policy_that_evicts_is_none_where_memory_has_no_bound() -> None:
    with running(**SAFE, maxmemory_policy="allkeys-lru") as server:
        assert (await found_everywhere(as_external(server))).risks == ()


def test_a_cluster_is_refused() -> None:
    # By itself it takes port + 10,000 for its bus, which may be anybody's.
    ports = {"port": str(free_port()), "cluster_port": str(free_port())}
    with running(**SAFE, cluster_enabled="yes", **ports) as server:
        settings = as_external(server)
        found = examine_now(settings)

        (defect,) = found.defects
        assert "it is a cluster" in defect
        refuse(settings, r"cannot be used: it is a cluster")


@pytest.mark.parametrize("is_read_only", ["yes", "no"])
def test_a_replica_is_refused(is_read_only: str) -> None:
    """What is written to one that takes writes is gone with its next synchronisation."""
    with running(**SAFE, replica_read_only=is_read_only) as server:
        with redis_py.Redis(unix_socket_path=server.socket_path) as client:
            client.replicaof("127.0.0.1", 1)
        settings = as_external(server)

        assert examine_now(settings).defects == ("it is a replica; use its primary",)
        refuse(settings, "cannot be used: it is a replica; use its primary")


def test_a_database_there_is_not_is_refused() -> None:
    with running(**SAFE) as server:
        refuse(as_external(server, query="?db=99"), "no such database: DB index is out of range")


def refuse(settings: Settings, told: str) -> None:
    with pytest.raises(StoreUnavailable, match=rf"^the Redis at unix:.* {told}"):
        choose_server(settings)


# One user of a server for each way to have too few rights.
USERS: dict[str, tuple[str, str]] = {
    "reader": ("~* +@read +@connection +@scripting", "may not run "),
    "keyed": ("~workflow:* +@all", "may not run "),
    "scriptless": ("~* +@all -eval -evalsha", "may not run EVAL;"),
    "streamless": ("~* +@all -@stream", "XACK workflow:tasks"),
    "pushless": ("~* +@all -lpush", "may not run LPUSH workflow"),
}


@pytest.mark.parametrize("user", USERS)
def test_a_user_without_the_rights_is_refused_with_what_it_lacks(user: str) -> None:
    rights, told = USERS[user]
    with running(**SAFE) as server:
        with redis_py.Redis(unix_socket_path=server.socket_path) as client:
            client.execute_command("ACL", "SETUSER", user, "on", ">s3cret", *rights.split())
        settings = as_external(server, login=f"{user}:s3cret@")

        (defect,) = examine_now(settings).defects
        assert told in defect
        refuse(settings, r"cannot be used: its user may not run")


async def test_who_may_not_look_at_the_server_is_no_finding() -> None:
    with running() as server:
        with redis_py.Redis(unix_socket_path=server.socket_path) as client:
            rights = ("~*", "+@all", "-@dangerous", "-@admin")
            client.execute_command("ACL", "SETUSER", "ada", "on", ">s3cret", *rights)
        settings = as_external(server, login="ada:s3cret@")

        found = await found_everywhere(settings)

        assert (found.defects, found.risks) == ((), ())
        store = open_store(settings)
        snapshot = await store.health.metrics.snapshot()
        assert (snapshot.memory_used, snapshot.memory_max) == (None, None)
        assert not (await store.health.standing.cluster_state()).is_full
        await store.close()


@pytest.mark.parametrize("login", ["", ":wrong@", "ada:wrong@", ":s3cret@"])
def test_a_login_is_asked_for_refused_or_taken(login: str) -> None:
    with running(**SAFE, requirepass="s3cret") as server:
        settings = as_external(server, login=login)
        if "s3cret" in login:
            assert choose_server(settings) is None
            return
        with pytest.raises(StoreUnavailable, match="refused the login") as refused:
            choose_server(settings)
    assert "FLOWD_REDIS__URL" in str(refused.value)
    assert "wrong" not in str(refused.value)


def test_an_old_server_is_refused_by_its_version() -> None:
    greeting = ["server", "redis", "version", "6.2.14", "mode", "standalone", "role", "master"]
    error = redis_py.ResponseError("unknown command")

    assert judge(["PONG", greeting, error, error, error]).defects == (
        "it is version 6.2.14; flowd needs 7 or newer, or Valkey",
    )


@pytest.mark.parametrize(
    ("replicas", "told"),
    [
        (0, None),
        (1, "redis.replicas is 1, and it has 2 replicas: one that has not confirmed a change"),
        (2, None),
        (3, "redis.replicas is 3, and of its replicas are 2 online"),
    ],
)
def test_fewer_confirmations_than_replicas_are_a_risk(replicas: int, told: str | None) -> None:
    """One replica and a primary that lives acknowledge what the other, the new one, has not."""
    said = "ip=10.0.0.1,port=6379,state=online,offset=7,lag=0"
    info = f"role:master\r\nslave0:{said}\r\nslave1:{said}\r\nmaster_repl_offset:7\r\n"

    risks = judge(["PONG", [], info, [], [[], []]], replicas).risks

    assert [told in one for one in risks] == ([True] if told else [])


def test_where_nobody_answers_nothing_is_found(settings: Settings, tmp_path: Path) -> None:
    assert examine_now(settings.with_redis_socket(str(tmp_path / "no.sock"))) == Fitness()


def test_every_command_of_scripts_and_store_is_one_whose_right_is_asked_for() -> None:
    folder = Path(flowd.__file__).parent / "store"
    known = set(" ".join((_RIGHTS | _REPLICATED_RIGHTS).values()).split())
    scripts = "".join(path.read_text() for path in folder.rglob("*.lua"))
    python = "".join(path.read_text() for path in folder.rglob("*.py"))

    called = set(re.findall(r"redis\.p?call\(\s*'([A-Z]+)'", scripts))
    sent = set(re.findall(r"""(?:execute|converse)\(\s*\[?\(?"([A-Z]+)",""", python))
    sent |= set(re.findall(r"""[\[( ]\("([A-Z]{3,})", (?!"\w+ )""", python))
    words = set(re.findall(r'"([A-Z]{3,})"', python))

    # What a user may lack: it is asked for a number, or for what is known then.
    unknown = (called | sent) - known - {"INFO", "CONFIG", "HELLO", "EVAL"}
    assert unknown == set(), "name them in _RIGHTS of flowd/store/fitness.py"
    assert known - called - words == set(), "nothing needs them any more"


def test_the_manual_lists_each_right_and_no_other() -> None:
    rule = blocks("Users with few rights", "text")[0].split()
    listed = {one[1:].partition("|")[0].upper() for one in rule if one.startswith("+")}

    needed = set(" ".join((_RIGHTS | _REPLICATED_RIGHTS).values()).split())
    # The rights themselves are asked for by a script; it says of the last two what is without them.
    assert listed == needed | {"EVAL", "INFO", "SELECT"}


def test_auto_says_which_redis_it_took(capfd: pytest.CaptureFixture[str]) -> None:
    with running(**SAFE, port=(port := str(free_port()))) as server:
        settings = server.settings(**{"redis.port": int(port)})
        settings = replace(settings, redis=replace(settings.redis, socket_path=None))
        wait_for_external(settings.redis)
        assert choose_server(settings) is None
    assert f"localhost:{port}" in capfd.readouterr().err
