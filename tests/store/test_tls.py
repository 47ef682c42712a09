"""TLS to the servers and their Sentinels: an own CA, client certificates, a name of the server.

On a server that has it, as Debian's Redis has: flowd's own is built without.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from flowd.config import Settings
from flowd.config.loading import load_settings
from flowd.errors import StoreUnavailable
from flowd.store.fitness import examine_now
from flowd.store.primary import reach_primary
from flowd.store.redis.client import RedisClient
from flowd.supervisor.embedded_server import look_at
from scripts.replica_set import ReplicaSet
from tests.daemon import PATIENCE_S

pytestmark = pytest.mark.skipif(
    "FLOWD_TEST_REDIS_SERVER" not in os.environ, reason="flowd's own server knows no TLS"
)
NAME = "redis.internal"
_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


@dataclass(frozen=True, slots=True)
class Authority:
    """Signs certificates, as one of the house does."""

    folder: Path

    @property
    def certificate(self) -> Path:
        return self.folder / "ca.crt"

    def begin(self) -> None:
        self.folder.mkdir()
        self._openssl("req", "-x509", *_NEW_KEY, "-keyout", "ca.key", "-out", "ca.crt",
                      "-subj", "/CN=the house", "-days", "30")  # fmt: skip

    def sign(self, name: str) -> tuple[str, str]:
        """The files of a new certificate for this name, and of its key."""
        (self.folder / "names").write_text(f"subjectAltName=DNS:{name}\n")
        self._openssl("req", *_NEW_KEY, "-keyout", f"{name}.key", "-out", "request",
                      "-subj", f"/CN={name}")  # fmt: skip
        self._openssl("x509", "-req", "-in", "request", "-CA", "ca.crt", "-CAkey", "ca.key",
                      "-CAcreateserial", "-days", "30", "-extfile", "names",
                      "-out", f"{name}.crt")  # fmt: skip
        return str(self.folder / f"{name}.crt"), str(self.folder / f"{name}.key")

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self.folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    authority = Authority(tmp_path_factory.mktemp("tls") / "house")
    authority.begin()
    return authority


@pytest.fixture(scope="module")
def known(house: Authority) -> dict[str, str]:
    """What a client of the house has in its URL."""
    certificate, key = house.sign("client")
    return {
        "ssl_ca_certs": str(house.certificate),
        "ssl_certfile": certificate,
        "ssl_keyfile": key,
        "ssl_server_name": NAME,
    }


@pytest.fixture(scope="module")
def servers(house: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReplicaSet]:
    certificate, key = house.sign(NAME)
    tls = {
        "tls-cert-file": certificate,
        "tls-key-file": key,
        "tls-ca-cert-file": str(house.certificate),
        "tls-auth-clients": "yes",
    }
    with ReplicaSet(tmp_path_factory.mktemp("tls"), 1, sentinels=3, tls=tls) as servers:
        yield servers


def at(url: str, query: dict[str, str], tmp_path: Path) -> Settings:
    config = tmp_path / "flowd.toml"
    config.touch()
    written = "&".join(f"{name}={value}" for name, value in query.items())
    return load_settings(config, {}, {"FLOWD_REDIS__URL": f"{url}?{written}"})


def sentinel_url(servers: ReplicaSet) -> str:
    return servers.url.replace("redis+", "rediss+")


def server_url(servers: ReplicaSet) -> str:
    return f"rediss://127.0.0.1:{servers.primary.port}/0"


@contextlib.asynccontextmanager
async def client_of(settings: Settings):
    client = RedisClient(settings)
    try:
        yield client
    finally:
        await client.close()


async def test_a_failover_is_followed_by_who_knows_the_house_and_is_known_there(
    servers, known, tmp_path
):
    settings = at(sentinel_url(servers), known, tmp_path)
    reach_primary(settings.redis)
    assert look_at(settings).server.startswith("Redis 7")
    async with client_of(settings) as client:
        assert await client.execute("SET", "x", "1") == "OK"
        servers.wait_until_whole()
        old = servers.primary
        old.kill()

        async with asyncio.timeout(PATIENCE_S):
            while True:
                with contextlib.suppress(StoreUnavailable):
                    assert await client.execute("GET", "x") == "1"
                    break
                await asyncio.sleep(0.01)

        # Whoever is slow may be replaced again.
        assert client.lineage.failovers >= 1
    servers.mend()


@pytest.mark.parametrize(
    ("left_out", "told"),
    [
        ("ssl_ca_certs", "unable to get local issuer certificate|self-signed certificate"),
        ("ssl_server_name", "IP address mismatch, certificate is not valid for '127.0.0.1'"),
    ],
)
async def test_who_does_not_know_the_house_is_told_so(servers, known, tmp_path, left_out, told):
    """Before it starts, as waiting does not mend it."""
    query = {name: value for name, value in known.items() if name != left_out}
    settings = at(server_url(servers), query, tmp_path)

    async with client_of(settings) as client:
        with pytest.raises(StoreUnavailable, match=f"TLS: .*({told})"):
            await client.execute("PING")
    with pytest.raises(StoreUnavailable, match=f"TLS: .*({told})"):
        examine_now(settings)
    with pytest.raises(StoreUnavailable, match=told):
        reach_primary(at(sentinel_url(servers), query, tmp_path).redis)


async def test_who_has_no_certificate_is_not_served(servers, known, tmp_path):
    query = {name: known[name] for name in ("ssl_ca_certs", "ssl_server_name")}

    async with client_of(at(server_url(servers), query, tmp_path)) as client:
        with pytest.raises(StoreUnavailable):
            await client.execute("PING")
    for url in (server_url(servers), sentinel_url(servers)):
        with pytest.raises(StoreUnavailable):
            reach_primary(at(url, query, tmp_path).redis)


async def test_a_name_that_is_not_checked_need_not_be_known(servers, known, tmp_path):
    query = {**known, "ssl_check_hostname": "false"}
    del query["ssl_server_name"]

    async with client_of(at(server_url(servers), query, tmp_path)) as client:
        assert await client.execute("PING") == "PONG"
