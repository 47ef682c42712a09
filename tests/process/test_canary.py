"""A secret goes out in the call it is for, and is found nowhere else."""

from __future__ import annotations

import base64
import json
import signal
import urllib.request
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import redis as redis_py

from tests.daemon import PATIENCE_S, wait_until
from tests.local_services import Reply, Request, json_reply, running_service
from tests.process.flowd_process import CONFIG, Flowd, node

CANARY = "c4n/ry+s\"e cret'\u00fc"
KEY = {"$secret": "CANARY"}
OF_A_NODE = ("attempts", "logs")
HANDLERS = """
import base64, logging, os, urllib.parse
from flowd.handlers import Context, Retry, handler

@handler("tell")
async def tell(config: dict, context: Context) -> dict:
    key = config["key"]
    context.logger.info("told", key=key, url=urllib.parse.quote(key))
    context.logger.error("raised", error=ValueError(key))
    return {"key": key, "repr": repr(key), "url": urllib.parse.quote_plus(key),
            "base64": base64.b64encode(f"user:{key}".encode()).decode(), key: 1}

@handler("speak")
def speak(config: dict, context: Context) -> dict:
    print("spoken", config["key"])
    print(config["key"][:4], end="")
    print(config["key"][4:])
    logging.getLogger(__name__).warning("logged %s", config["key"])
    return {}

@handler("speak_apart", isolation="process")
def speak_apart(config: dict, context: Context) -> dict:
    speak(config, context)
    os.write(2, config["key"].encode() + b" written at the end")
    return {}

@handler("blow_up")
def blow_up(config: dict) -> dict:
    raise RuntimeError(f"it was {config['key']!r}")

@handler("come_again")
async def come_again(config: dict) -> dict:
    raise Retry(f"with {config['key']}", after_s=0)
"""


def forms() -> list[bytes]:
    plain = CANARY.encode()
    texts = [CANARY, json.dumps(CANARY)[1:-1], json.dumps(CANARY, ensure_ascii=False)[1:-1]]
    texts += [quote(CANARY), quote(CANARY, safe=""), repr(CANARY)[1:-1]]
    found = [text.encode() for text in texts]
    found += [base64.b64encode(plain)[:-4], base64.b64encode(b"user:" + plain)[8:-4]]
    return found


def assert_silent(where: str, data: bytes) -> None:
    for form in forms():
        assert form not in data, f"the canary is in {where}, as {form!r}"
    # However often it was escaped, and not half of it either.
    assert CANARY[:6].encode() not in data.replace(b"\\", b""), f"a part of it is in {where}"


def answer(request: Request) -> Reply:
    """Says back all it was told."""
    body = request.body.decode(errors="replace")
    told = {"headers": request.headers, "target": request.target, "body": body}
    return json_reply(told, status=418 if "teapot" in request.target else 200)


def test_a_canary_is_found_in_the_outgoing_call_and_nowhere_else(
    run_flowd: Callable[..., Flowd], tmp_path: Path
) -> None:
    (tmp_path / "flowd.toml").write_text(
        CONFIG + '[handlers]\nmodules = ["leaky"]\n[handlers.shell]\nenabled = true\n'
    )
    (tmp_path / "leaky.py").write_text(HANDLERS)
    with running_service(answer) as service:
        call = {"handler": "call_external_service", "url": service.url}
        nodes = [
            node("bearer", **call, auth={"bearer": {"$secret": "ASCII"}}),
            node("basic", **call, auth={"basic": {"username": "user", "password": KEY}}),
            node("query", **{**call, "url": f"{service.url}/teapot"}, params={"key": KEY}),
            node("body", **call, method="POST", json={"key": KEY}),
            node("tell", handler="tell", key=KEY),
            node("blow_up", handler="blow_up", key=KEY),
            node("speak", handler="speak", key=KEY),
            node("speak_apart", handler="speak_apart", key=KEY),
            {**node("again", handler="come_again", key=KEY), "retry": {"max_attempts": 2}},
            node("shell", handler="shell", command=["sh", "-c", "echo $K; exit 3"], env={"K": KEY}),
            node("next", "tell", handler="tell", key="{{ tell.key }}"),
        ]
        flowd = run_flowd(
            "start",
            FLOWD_SECRET_CANARY=CANARY,
            FLOWD_SECRET_ASCII="ascii-canary",
            FLOWD_TELEMETRY__OTLP_ENDPOINT=service.url,
        )
        flowd.wait_until_running()
        execution_id = flowd.submit_and_trigger(*nodes)
        flowd.wait_for_execution(execution_id)

        told = b"".join(
            (one.target + json.dumps(one.headers)).encode() + one.body for one in service.requests
        )
        for form in (b"Bearer ascii-canary", quote(CANARY, safe="").encode()):
            assert form in told, "the call itself has to carry it"
        trace = wait_until(lambda: trace_in(service.requests), "the trace")
        assert trace.count(b"********") >= 3
        assert_silent("the trace", trace)
        parts = (
            "",
            "/results",
            "/definition",
            "/summary",
            "/nodes",
            "/timeline",
            "/explain",
            "/logs",
        )
        paths = [*parts, *(f"/nodes/{name}" for name in ("tell", "blow_up", "query", "shell"))]
        paths += [f"/nodes/{name}/{what}" for name in ("again", "speak") for what in OF_A_NODE]
        answers = b"".join(read(f"{flowd.url}/workflows/{execution_id}{path}") for path in paths)
        answers += read(f"{flowd.url}/overview")
        assert answers.count(b"********") > 10
        logs = read(f"{flowd.url}/workflows/{execution_id}/logs").decode()
        for said in ("speak#1 stdout spoken ****", "speak#1 stdout ****", "speak#1 warning logged"):
            assert said in logs
            assert said.replace("speak", "speak_apart") in logs
        assert "speak_apart#1 stderr ******** written at the end" in logs
        assert f"query#1 call GET {service.url}/teapot in " in logs
        assert_silent("an answer", answers)
        with flowd.redis as redis:
            assert_silent("Redis", everything(redis))
        for process in flowd.survivors():
            assert_silent("an argument list", " ".join(process.cmdline()).encode())
        flowd.signal(signal.SIGTERM)
        flowd.wait_for_end()
        assert_silent("the log", (flowd.stdout + flowd.stderr).encode())
        assert flowd.stderr.count("********") > 5
        assert "ascii-canary" not in flowd.stderr


def trace_in(requests: list[Request]) -> bytes:
    """What the collector of traces was sent; nothing before that."""
    return b"".join(one.body for one in requests if one.target == "/v1/traces")


def read(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=PATIENCE_S) as response:
        answer: bytes = response.read()
    return answer


def everything(redis: redis_py.Redis) -> bytes:
    """All keys with all that is in them, as text."""
    readers: dict[str, Callable[[str], object]] = {
        "string": redis.get,
        "hash": redis.hgetall,
        "set": redis.smembers,
        "zset": lambda key: redis.zrange(key, 0, -1),
        "list": lambda key: redis.lrange(key, 0, -1),
        "stream": redis.xrange,
    }
    found = [(key, readers[redis.type(key)](key)) for key in redis.scan_iter("*")]
    # As Python writes it and as it is: `repr` would escape what it finds.
    return "\n".join(_flat(found)).encode()


def _flat(value: object) -> list[str]:
    if isinstance(value, dict):
        return [text for pair in value.items() for text in _flat(pair)]
    if isinstance(value, list | tuple | set):
        return [text for one in value for text in _flat(one)]
    return [str(value)]
