"""call_external_service against real servers: what they receive, what the node's output holds."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import socket
import threading
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import uvloop

from flowd.config import Settings
from flowd.errors import Fail, HandlerFailed, Retry
from flowd.handlers.builtin import call_external_service
from flowd.handlers.context import HandlerContext, Resources
from flowd.handlers.registry import built_in_registry
from flowd.redaction import REDACTOR
from tests.handler_calls import LOCAL, run_handler, settings_with
from tests.local_services import Reply, Request, Service, json_reply, running_service

SIMULATED = "http://service-a"


def call(config: dict[str, Any], settings: Settings | None = None) -> dict[str, Any]:
    return run_handler("call_external_service", config, settings=settings)


def failure_of(config: dict[str, Any], settings: Settings | None = None) -> str:
    with pytest.raises(HandlerFailed) as failure:
        call(config, settings)
    return str(failure.value)


def answering(reply: Reply) -> Callable[[Request], Reply]:
    return lambda _request: reply


@pytest.fixture
def service() -> Iterator[Service]:
    with running_service(answering(json_reply({"n": 1}))) as running:
        yield running


@pytest.fixture
def settings() -> Settings:
    return LOCAL


def with_timeout(settings: Settings, timeout_s: float) -> Settings:
    section = replace(settings.handlers.call_external_service, timeout_s=timeout_s)
    return replace(settings, handlers=replace(settings.handlers, call_external_service=section))


def test_json_is_parsed_and_the_status_kept(service: Service) -> None:
    assert call({"url": service.url}) == {"data": {"n": 1}, "status_code": 200}


def test_the_default_is_a_get_that_carries_the_idempotency_key(service: Service) -> None:
    call({"url": f"{service.url}/path?q=1"})

    (request,) = service.requests
    assert (request.method, request.target, request.body) == ("GET", "/path?q=1", b"")
    assert request.headers["idempotency-key"] == "e1:A"
    assert request.headers["user-agent"].startswith("flowd/")


def test_json_is_sent_with_its_type(service: Service) -> None:
    call({"url": service.url, "method": "post", "json": {"a": [1, None]}})

    (request,) = service.requests
    assert (request.method, request.json) == ("POST", {"a": [1, None]})
    assert request.headers["content-type"] == "application/json"


def test_a_json_null_is_a_body_too(service: Service) -> None:
    call({"url": service.url, "method": "PUT", "json": None})

    assert service.requests[0].body == b"null"


def test_a_text_body_and_headers_are_sent_as_given(service: Service) -> None:
    headers = {"Content-Type": "text/csv", "X-Id": 7, "Idempotency-Key": "mine"}
    call({"url": service.url, "method": "PATCH", "body": "ä;b", "headers": headers})

    (request,) = service.requests
    assert (request.method, request.body) == ("PATCH", "ä;b".encode())
    assert request.headers["content-type"] == "text/csv"
    assert request.headers["x-id"] == "7"
    assert request.headers["idempotency-key"] == "mine"


def test_params_are_added_to_the_query_encoded(service: Service) -> None:
    params = {"q": "a b&c=d\r\n", "n": 1, "on": True, "tag": ["x", "y"]}
    call({"url": f"{service.url}/path?a=1#part", "params": params})

    expected = "/path?a=1&q=a%20b%26c%3Dd%0D%0A&n=1&on=true&tag=x&tag=y"
    assert service.requests[0].target == expected


def test_a_form_is_sent_encoded_with_its_type(service: Service) -> None:
    call({"url": service.url, "method": "POST", "form": {"a": "ä&b", "c": [1, 2.5]}})

    (request,) = service.requests
    assert request.body == b"a=%C3%A4%26b&c=1&c=2.5"
    assert request.headers["content-type"] == "application/x-www-form-urlencoded"


@pytest.mark.parametrize(
    ("auth", "header"),
    [
        ({"bearer": "key"}, "Bearer key"),
        ({"basic": {"username": "me", "password": "a:ü"}}, "Basic bWU6YTrDvA=="),
    ],
)
def test_auth_becomes_the_authorization_header(
    service: Service, auth: dict[str, Any], header: str
) -> None:
    call({"url": service.url, "auth": auth})

    assert service.requests[0].headers["authorization"] == header


def test_a_traceparent_is_passed_on_as_it_is(service: Service) -> None:
    traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    call({"url": service.url, "headers": {"traceparent": traceparent}})

    assert service.requests[0].headers["traceparent"] == traceparent


@pytest.mark.parametrize(
    ("expected", "status", "is_success"),
    [
        ("2xx", 204, True),
        (404, 404, True),
        ([200, 404], 404, True),
        ([200, "4xx"], 418, True),
        (404, 200, False),
        ("5xx", 404, False),
        (302, 302, True),
    ],
)
def test_the_expected_status_decides(expected: Any, status: int, is_success: bool) -> None:
    headers = {"Location": "/new"} if status == 302 else {}
    config = {"expected_status": expected, "follow_redirects": True}
    with running_service(answering(Reply(status, b"", headers))) as service:
        if is_success:
            assert call({"url": service.url, **config}) == {"data": "", "status_code": status}
        else:
            assert f"answered {status}" in failure_of({"url": service.url, **config})


def test_redirects_are_followed_when_the_node_says_so() -> None:
    def answer(request: Request) -> Reply:
        if request.target == "/old":
            return Reply(302, headers={"Location": "/new"})
        return json_reply({"method": request.method, "key": request.headers["x-key"]})

    with running_service(answer) as service:
        config = {"url": f"{service.url}/old", "method": "POST", "json": 1}
        config |= {"headers": {"X-Key": "k"}, "follow_redirects": True}
        assert call(config)["data"] == {"method": "GET", "key": "k"}


def test_a_redirect_to_another_host_takes_no_header_of_the_config_along(service: Service) -> None:
    with running_service(answering(Reply(307, headers={"Location": service.url}))) as first:
        config = {"url": first.url, "method": "POST", "json": 1, "auth": {"bearer": "secret"}}
        call({**config, "headers": {"X-Key": "secret"}, "follow_redirects": True})

    (request,) = service.requests
    assert request.json == 1
    assert "secret" not in str(request.headers)
    assert not {"authorization", "x-key", "idempotency-key"} & request.headers.keys()


def test_a_redirect_to_another_scheme_is_not_followed() -> None:
    elsewhere = Reply(302, headers={"Location": "gopher://127.0.0.1/"})
    with running_service(answering(elsewhere)) as service:
        text = failure_of({"url": service.url, "follow_redirects": True})
        assert text.endswith("redirected to what is neither http nor https")


def test_redirects_without_end_are_given_up() -> None:
    with running_service(answering(Reply(302, headers={"Location": "/again"}))) as service:
        text = failure_of({"url": service.url, "follow_redirects": True})

        assert text == f"GET {service.url}: redirected more than 5 times"
        assert len(service.requests) == 6


@pytest.mark.parametrize(
    ("status", "header", "after_s"),
    [
        (429, "7", 7.0),
        (408, "2", 2.0),
        (425, "2", 2.0),
        (503, "0", 0.0),
        (503, "999999999", 86400.0),
        (500, "", None),
        (429, "soon", None),
        (503, "Fri, 31 Dec 1999 23:59:59 GMT", 0.0),
    ],
)
def test_an_overloaded_server_says_when_to_come_back(
    status: int, header: str, after_s: float | None
) -> None:
    with running_service(answering(Reply(status, b"busy", {"Retry-After": header}))) as service:
        with pytest.raises(Retry) as failure:
            call({"url": service.url})

        assert failure.value.after_s == after_s
        assert str(failure.value) == f"GET {service.url}: answered {status}: busy"


def test_the_time_out_of_the_node_stands_over_the_setting(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        text = failure_of({"url": url, "timeout_s": 0.1}, with_timeout(settings, 60))

        assert text == f"GET {url}: no complete answer within 0.1 s"


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "2130706433",
        "0x7f000001",
        "017700000001",
        "127.1",
        "0",
        "localhost",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "user@127.0.0.1",
    ],
)
def test_this_machine_is_not_called_without_an_entry_however_it_is_written(
    host: str, service: Service
) -> None:
    with pytest.raises(Fail, match=r"the call is not allowed: .* address; an entry in"):
        call({"url": f"http://{host}:{service.server_port}"}, Settings())

    assert service.requests == []


def test_a_refusal_says_what_would_allow_the_call() -> None:
    text = failure_of({"url": "http://169.254.169.254/latest"}, Settings())

    assert text == (
        "GET http://169.254.169.254/latest: the call is not allowed: 169.254.169.254 is a "
        "link-local address; an entry in [handlers.call_external_service] allow allows it, such as "
        "'169.254.169.254:80'"
    )


@pytest.mark.parametrize("target", ["http://169.254.169.254/", "http://127.0.0.2:1/"])
def test_a_redirect_passes_the_same_gate(target: str) -> None:
    with running_service(answering(Reply(302, headers={"Location": target}))) as service:
        text = failure_of({"url": service.url, "follow_redirects": True})

    assert "the call is not allowed" in text


def test_an_entry_allows_its_port_and_no_other(service: Service) -> None:
    entry = f"127.0.0.1:{service.server_port}"
    settings = settings_with("call_external_service", allow=(entry,))

    assert call({"url": service.url}, settings)["status_code"] == 200
    assert "not allowed" in failure_of({"url": "http://127.0.0.1:1"}, settings)


def test_a_name_that_rebinds_is_resolved_once_and_the_checked_address_is_called(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    async def resolve(_loop: Any, host: str, port: int, **_options: Any) -> list[Any]:
        asked.append(host)
        address = "127.0.0.1" if len(asked) == 1 else "127.0.0.2"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr("asyncio.base_events.BaseEventLoop.getaddrinfo", resolve)
    monkeypatch.setattr("tests.handler_calls.run_loop", asyncio.run)

    url = f"http://rebind.example:{service.server_port}"
    assert call({"url": url})["status_code"] == 200
    assert "127.0.0.2 is a loopback address" in failure_of({"url": url})
    assert asked == ["rebind.example", "rebind.example"]


def test_through_a_proxy_a_host_that_is_an_address_is_checked(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", service.url)
    monkeypatch.setenv("no_proxy", "direct.example")

    assert call({"url": "http://name.example/x"}, Settings())["data"] == {"n": 1}
    assert service.requests[0].target == "http://name.example/x"
    for host in ("127.0.0.1", "0x7f.1", "127.1.", "[::1]"):
        assert "a loopback address" in failure_of({"url": f"http://{host}/"}, Settings())


def test_rendered_text_travels_percent_encoded(service: Service) -> None:
    call({"url": f"{service.url}/Simulated response for: 100% ä\n2/%41?q=a b&r=5%"})

    expected = "/Simulated%20response%20for:%20100%25%20%C3%A4%0A2/%41?q=a%20b&r=5%25"
    assert service.requests[0].target == expected


@pytest.mark.parametrize(
    ("reply", "data"),
    [
        (Reply(body=b"hello", headers={"Content-Type": "text/plain"}), "hello"),
        (Reply(body=b"12", headers={"Content-Type": "text/plain"}), "12"),
        (Reply(body=b"12"), 12),
        (Reply(body=b"hello"), "hello"),
        (Reply(body=b"[1]", headers={"Content-Type": "application/ld+json; x=y"}), [1]),
        (Reply(body=b"\xe4", headers={"Content-Type": "text/plain; charset=latin-1"}), "ä"),
        (Reply(body=b"a\xe4", headers={"Content-Type": "text/html"}), "a\ufffd"),
        (Reply(body=b"a", headers={"Content-Type": "text/plain; charset=no-such"}), "a"),
        (Reply(body=b"a", headers={"Content-Type": "text/plain; charset=hex"}), "a"),
        (Reply(body=b"", headers={"Content-Type": "application/json"}), ""),
        (
            Reply(
                body=gzip.compress(b'"zip"'),
                headers={"Content-Type": "application/json", "Content-Encoding": "gzip"},
            ),
            "zip",
        ),
    ],
)
def test_data_is_parsed_json_or_text(reply: Reply, data: Any) -> None:
    with running_service(answering(reply)) as service:
        assert call({"url": service.url}) == {"data": data, "status_code": 200}


def test_any_status_from_200_to_299_is_a_success() -> None:
    with running_service(answering(json_reply([], status=201))) as service:
        assert call({"url": service.url}) == {"data": [], "status_code": 201}


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (Reply(503, b"try\n later"), "answered 503: try later"),
        (Reply(404), "answered 404: (empty)"),
        (Reply(500, b"x" * 100_000), f"answered 500: {'x' * 200}"),
        (
            Reply(302, headers={"Location": "/new?token=s"}),
            "answered 302, a redirect to {url}/new; redirects are not followed",
        ),
        (
            Reply(302, headers={"Location": "http://h:x/"}),
            "answered 302, a redirect; redirects are not followed",
        ),
        (Reply(304), "answered 304: (empty)"),
        (
            Reply(200, b"{", {"Content-Type": "application/json"}),
            "answered 200 with application/json that is not JSON",
        ),
        (
            Reply(200, b"\xff\xfe\x00", {"Content-Type": "image/png"}),
            "answered 200 with 3 bytes of image/png, which is neither JSON nor text",
        ),
        (
            Reply(200, b"no gzip", {"Content-Encoding": "gzip"}),
            "the answer cannot be decompressed",
        ),
    ],
)
def test_a_useless_answer_fails_the_node_and_is_quoted(reply: Reply, text: str) -> None:
    with running_service(answering(reply)) as service:
        assert text.format(url=service.url) in failure_of({"url": service.url})


def test_an_error_names_method_and_address_but_no_secret() -> None:
    with running_service(answering(Reply(500, b"no"))) as service:
        url = service.url.replace("http://", "http://user:password@") + "/path?token=secret#part"
        text = failure_of({"url": url, "method": "POST"})

        assert text == f"POST {service.url}/path: answered 500: no"


def test_a_secret_is_hidden_before_an_error_is_cut_to_its_length() -> None:
    secret = "s3cret" * 100
    REDACTOR.learn(secret)
    answer = Reply(401, b"x" * 190 + secret.encode(), {"Content-Type": "text/plain"})
    with running_service(answering(answer)) as service:
        assert "s3" not in failure_of({"url": f"{service.url}/{secret}"})


def test_a_closed_port_is_a_failure_that_says_so() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"

        assert failure_of({"url": url}) == f"GET {url}: cannot connect: connection refused"


def test_a_connection_that_closes_without_an_answer_is_a_failure() -> None:
    with running_service(lambda _request: 1 / 0) as service:  # type: ignore[arg-type, return-value]
        service.handle_error = lambda *_: None  # type: ignore[method-assign]

        assert "the connection broke: server disconnected" in failure_of({"url": service.url})


def test_a_service_that_never_answers_is_given_up_at_the_deadline(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(HandlerFailed) as failure:
            call({"url": url}, with_timeout(settings, 0.1))

        assert str(failure.value) == f"GET {url}: no complete answer within 0.1 s"
        # What `retry.on` may name it by.
        assert failure.value.kinds == {"timeout"}


def test_an_answer_that_drips_is_given_up_at_the_deadline(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        dripping = threading.Thread(target=_drip, args=(listener,))
        dripping.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        text = failure_of({"url": url}, with_timeout(settings, 0.2))
        dripping.join()

        assert text == f"GET {url}: no complete answer within 0.2 s"


def _drip(listener: socket.socket) -> None:
    """One byte at a time, for as long as the client listens."""
    connection, _ = listener.accept()
    with connection, contextlib.suppress(OSError):
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        while True:
            connection.sendall(b"x")
            time.sleep(0.01)


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_an_answer_larger_than_the_limit_is_refused_however_it_is_packed(
    encoding: str,
) -> None:
    settings = settings_with("call_external_service", answer_max_mb=1.0)
    body = b"x" * (1024 * 1024 + 1)
    packed = gzip.compress(body) if encoding == "gzip" else body
    headers = {"Content-Encoding": encoding, "Content-Type": "text/plain"}

    with running_service(answering(Reply(200, packed, headers))) as service:
        text = failure_of({"url": service.url, "answer_max_bytes": 2 << 20}, settings)
        assert text.endswith("the answer is larger than 1 MiB")


def test_a_gzip_bomb_is_refused_after_the_limit_not_after_all_of_it() -> None:
    packer = zlib.compressobj(wbits=31)
    zeros = bytes(1 << 20)
    bomb = b"".join(packer.compress(zeros) for _ in range(256)) + packer.flush()
    headers = {"Content-Encoding": "gzip", "Content-Type": "text/plain"}

    with running_service(answering(Reply(200, bomb, headers))) as service:
        tracemalloc.start()
        text = failure_of({"url": service.url, "answer_max_bytes": 1 << 20})
        peak_bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()

    assert text.endswith("the answer is larger than 1 MiB")
    assert peak_bytes < 16 << 20


def test_no_cookie_passes_from_one_call_to_another() -> None:
    with running_service(answering(Reply(headers={"Set-Cookie": "a=b; Path=/"}))) as service:
        run_twice(service.url)

        assert ["cookie" in request.headers for request in service.requests] == [False, False]


def test_a_cookie_set_on_the_way_goes_along_with_the_rest_of_the_chain() -> None:
    def answer(request: Request) -> Reply:
        if "seen=1" in request.headers.get("cookie", ""):
            return json_reply({"in": True})
        return Reply(302, headers={"Set-Cookie": "seen=1; Path=/", "Location": "/wall"})

    with running_service(answer) as service:
        wanted = {"url": f"{service.url}/wall", "follow_redirects": True}
        assert call(wanted | {"headers": {"Cookie": "mine=2"}})["data"] == {"in": True}
        assert [one.headers["cookie"] for one in service.requests] == ["mine=2", "mine=2; seen=1"]


def test_no_cookie_passes_to_another_host() -> None:
    with running_service(answering(json_reply({}))) as other:
        location = other.url.replace("127.0.0.1", "localhost")
        reply = Reply(302, headers={"Set-Cookie": "seen=1; Path=/", "Location": location})
        with running_service(answering(reply)) as service:
            wanted = {"url": service.url, "follow_redirects": True, "headers": {"Cookie": "m=2"}}
            settings = settings_with(
                "call_external_service", allow=("127.0.0.1", "localhost", "::1")
            )
            call(wanted, settings)
        assert "cookie" not in other.requests[0].headers


class ClosingServer:
    """Answers each connection once, or not at all; what comes on it afterwards gets `last`, and the
    end."""

    def __init__(
        self, last: bytes = b"", *, has_reset: bool = False, answers_once: bool = True
    ) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.requests: list[bytes] = []
        self._last = last
        self._has_reset = has_reset
        self._answers_once = answers_once
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> ClosingServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self._thread.join()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                threading.Thread(target=self._exchange, args=(connection,), daemon=True).start()

    def _exchange(self, connection: socket.socket) -> None:
        with connection:
            if self._answers_once:
                self._note(connection)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
            self._note(connection)
            connection.sendall(self._last)
            if self._has_reset:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    def _note(self, connection: socket.socket) -> None:
        if data := connection.recv(65536):
            self.requests.append(data)


@pytest.mark.parametrize("has_reset", [False, True])
def test_a_call_on_a_kept_connection_that_closes_is_sent_once_more(has_reset: bool) -> None:
    with ClosingServer(has_reset=has_reset) as server:
        run_twice(server.url)

        keys = [request.partition(b"idempotency-key: ")[2][:4] for request in server.requests]
        assert keys == [b"e1:A", b"e1:B", b"e1:B"]


def test_a_kept_connection_to_a_proxy_may_close_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    with ClosingServer() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        run_twice("http://name.example/")

        assert len(proxy.requests) == 3


def test_a_part_that_nobody_asked_for_is_no_answer() -> None:
    reply = Reply(206, b"{}", {"Content-Type": "application/json", "Content-Range": "bytes 0-1/9"})
    with running_service(answering(reply)) as service:
        assert "answered 206, a part of an answer" in failure_of({"url": service.url})
        wanted = {"url": service.url, "headers": {"Range": "bytes=0-1"}}
        assert call(wanted) == {"data": {}, "status_code": 206}


@pytest.mark.parametrize("has_reset", [False, True])
def test_a_call_on_a_new_connection_that_closes_is_not_sent_again(has_reset: bool) -> None:
    """The service has taken it, and may have done what it was asked for."""
    with ClosingServer(has_reset=has_reset, answers_once=False) as server:
        assert "the connection broke" in failure_of({"url": server.url})

        assert len(server.requests) == 1


def test_a_call_is_not_sent_again_once_an_answer_has_begun() -> None:
    with ClosingServer(b"HTTP/1.1 2") as server:
        with pytest.raises(HandlerFailed, match="the connection broke"):
            run_twice(server.url)

        assert len(server.requests) == 2


def test_a_header_that_says_who_calls_stands_over_the_url(service: Service) -> None:
    url = service.url.replace("http://", "http://u:p@")
    for more in ({"auth": {"bearer": "t0ken"}}, {"headers": {"Authorization": "Bearer t0ken"}}):
        text = "auth and a user name in the url exclude each other"
        assert text in failure_of({"url": url, **more})
    call({"url": url})
    assert service.requests[0].headers["authorization"] == "Basic dTpw"


def test_a_redirect_cannot_change_who_calls() -> None:
    def answer(request: Request) -> Reply:
        if request.target == "/next":
            return json_reply({})
        return Reply(302, headers={"Location": service.url.replace("//", "//u:p@") + "/next"})

    with running_service(answer) as service:
        call({"url": service.url, "auth": {"bearer": "t0ken"}, "follow_redirects": True})

        assert [one.headers["authorization"] for one in service.requests] == ["Bearer t0ken"] * 2


@pytest.mark.parametrize("port", ["65536", "83726", "9" * 5000])
def test_a_port_that_there_is_not_is_refused(port: str, service: Service) -> None:
    assert "there is no port" in failure_of({"url": f"http://127.0.0.1:{port}/echo"})
    location = f"http://127.0.0.1:{service.server_port + 65536}/"
    reply = Reply(302, headers={"Location": location})
    with running_service(answering(reply)) as redirecting:
        text = failure_of({"url": redirecting.url, "follow_redirects": True})

    assert text.startswith(f"GET {redirecting.url}: ")
    assert "ports end at 65535" in text
    assert service.requests == []


def test_calls_of_one_worker_share_a_connection(service: Service) -> None:
    run_twice(service.url)

    assert (len(service.requests), service.connections) == (2, 1)


def run_twice(url: str) -> None:
    """Two calls through one worker's client."""

    async def both() -> None:
        resources = Resources()
        function = built_in_registry().load("call_external_service").function
        for node_id in ("A", "B"):
            await function({"url": url}, HandlerContext("e1", node_id, 1, LOCAL, resources))
        await resources.close()

    uvloop.run(both())


@pytest.mark.parametrize(
    "url",
    [
        "http://service-a",
        "http://SERVICE-A",
        "https://service-a:8443/path?q=1",
        "http://consumer/Simulated response for: Summarize Simulated call to http://service-a",
    ],
)
def test_a_listed_host_is_simulated_and_echoes_the_url_as_rendered(url: str) -> None:
    assert call({"url": url}) == {"data": f"Simulated call to {url}"}


NOWHERE = "a-service-that-nobody-has-made"


def test_in_development_a_bare_name_that_does_not_resolve_is_simulated_and_warned_of_once(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(call_external_service, "_WARNED_OF", set())
    for path in ("x?q=1", "y"):
        url = f"http://{NOWHERE.upper()}:8080/{path}"
        assert call({"url": url}, Settings()) == {"data": f"Simulated call to {url}"}

    assert capfd.readouterr().err.count("call.simulated") == 1


@pytest.mark.parametrize(
    ("settings", "url"),
    [
        (replace(Settings(), environment="production"), f"http://{NOWHERE}/"),
        (settings_with("call_external_service", simulated_hosts=()), f"http://{NOWHERE}/"),
        (Settings(), f"http://{NOWHERE}.invalid/"),
        (Settings(), f"http://{NOWHERE}./"),
        (Settings(), "http://99999999999/"),
        (Settings(), "http://0xfffffffff/"),
        (Settings(), "http://[fe80::1]:1/"),
        # One that resolves is called, though that is not allowed.
        (Settings(), "http://localhost:1/"),
    ],
)
def test_everything_else_is_really_called(settings: Settings, url: str) -> None:
    failure_of({"url": url}, settings)


def test_only_the_exact_host_is_simulated(settings: Settings) -> None:
    section = replace(settings.handlers.call_external_service, simulated_hosts=("127.0.0",))
    handlers = replace(settings.handlers, call_external_service=section)

    with running_service(answering(Reply(body=b"real"))) as service:
        output = call({"url": service.url}, replace(settings, handlers=handlers))

    assert output == {"data": "real", "status_code": 200}


def test_an_empty_list_simulates_nothing(settings: Settings) -> None:
    section = replace(settings.handlers.call_external_service, simulated_hosts=())
    handlers = replace(settings.handlers, call_external_service=section)

    text = failure_of({"url": "http://service-a.invalid"}, replace(settings, handlers=handlers))

    assert text.startswith("GET http://service-a.invalid: cannot connect: ")


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({}, "config.url is missing: give the address to call, such as http://service-a/path"),
        ({"url": 7}, "config.url: input should be a valid string"),
        ({"url": "service-a/x"}, "config.url: a url begins with http:// or https:// and a host"),
        ({"url": "ftp://h/x"}, "config.url: a url begins with http:// or https:// and a host"),
        ({"url": "http:///x"}, "config.url: a url begins with http:// or https:// and a host"),
        ({"url": "http://h:x/"}, "config.url is not a url: invalid port: 'x'"),
        ({"url": "http://0177.0.0.1/"}, "config.url is not a url: invalid IPv4 address"),
        ({"url": "http://[::1/"}, "config.url is not a url: Invalid IPv6 URL"),
        ({"url": "http://h\r\nX: y/"}, "config.url is not a url: invalid non-printable ASCII"),
        ({"url": SIMULATED, "method": "GET /"}, "config.method: string should match pattern"),
        ({"url": SIMULATED, "json": 1, "body": "x"}, "json, body and form exclude each other"),
        ({"url": SIMULATED, "body": 1}, "config.body: input should be a valid string"),
        ({"url": SIMULATED, "headers": {"a b": "x"}}, "header 'a b' holds a character"),
        ({"url": SIMULATED, "headers": {"a": "x\r\nb: c"}}, "header 'a' holds a character"),
        ({"url": SIMULATED, "headers": {"Content-Length": "1"}}, "is set by flowd from the body"),
        ({"url": SIMULATED, "form": {}, "body": "x"}, "json, body and form exclude each other"),
        ({"url": SIMULATED, "auth": {}}, "config.auth: give either basic or bearer"),
        ({"url": SIMULATED, "auth": {"bearer": "k\r\n"}}, "the token holds a character"),
        (
            {"url": SIMULATED, "auth": {"bearer": "k"}, "headers": {"Authorization": "x"}},
            "auth and an authorization header exclude each other",
        ),
        (
            {"url": SIMULATED, "auth": {"basic": {"username": "a:b", "password": ""}}},
            "config.auth.basic.username: a username of basic auth holds no colon",
        ),
        ({"url": SIMULATED, "expected_status": 99}, "config.expected_status"),
        ({"url": SIMULATED, "expected_status": "6xx"}, "config.expected_status"),
        ({"url": SIMULATED, "expected_status": []}, "config.expected_status"),
        ({"url": SIMULATED, "timeout_s": 0}, "config.timeout_s: input should be greater than 0"),
        ({"url": SIMULATED, "params": {"a": {}}}, "config.params.a"),
        ({"url": SIMULATED, "uri": "x"}, "config.uri is not known to this handler; did you mean"),
    ],
)
def test_a_wrong_config_fails_the_node_and_says_what_is_right(
    config: dict[str, Any], text: str
) -> None:
    assert text in failure_of(config)
