from __future__ import annotations

import gzip
import socket
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from ownership.domain.errors import SettingsError, Unavailable
from ownership.platform import http_service
from ownership.platform.http_service import Answer, Endpoint, Service
from tests.unit.conftest import Request, Server

GOOD = {"result": {"response": {"ok": True}}}


@pytest.fixture
def service(server: Server) -> Iterator[Service]:
    with Service("LMS", lambda: server.url) as opened:
        yield opened


def test_a_json_object_is_an_answer_whatever_its_status_below_500(server: Server, service: Service) -> None:
    server.answer = lambda _request, _handler: (404, {"responseCode": "RESOURCE_NOT_FOUND"})
    assert service.call("GET", "/x") == Answer(404, {"responseCode": "RESOURCE_NOT_FOUND"})
    assert len(server.requests) == 1


def test_the_request_arrives_as_it_was_given(server: Server, service: Service) -> None:
    server.answer = lambda _request, _handler: (200, GOOD)
    service.call("POST", "/v1/search", {"request": {"filters": {"createdBy": ["Ä"]}}})
    assert server.requests == [Request("POST", "/v1/search", {"request": {"filters": {"createdBy": ["Ä"]}}})]


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        pytest.param(500, GOOD, "HTTP 500", id="500"),
        pytest.param(503, b"", "HTTP 503", id="503"),
        pytest.param(429, GOOD, "HTTP 429", id="429"),
        pytest.param(408, GOOD, "HTTP 408", id="408"),
        pytest.param(200, b"", "without a JSON body", id="an empty answer"),
        pytest.param(200, b"<html>", "without a JSON body", id="a proxy's page"),
        pytest.param(404, b"<html>", "HTTP 404 without a JSON body", id="a proxy's 404"),
        pytest.param(302, b"", "HTTP 302", id="a redirect"),
        pytest.param(200, b'{"a": ', "without a JSON body", id="JSON that is cut off"),
        pytest.param(200, b"\xff\xfe\xfd{}", "without a JSON body", id="not UTF-8"),
        pytest.param(200, b"[" * 100_000, "without a JSON body", id="nested too deeply"),
        pytest.param(200, b"[]", "no object", id="a list"),
        pytest.param(200, b"null", "no object", id="null"),
    ],
)
def test_anything_else_is_an_outage_and_tried_again(
    server: Server, service: Service, status: int, body: Any, reason: str
) -> None:
    server.answer = lambda _request, _handler: (status, body)
    with pytest.raises(Unavailable, match=f"^LMS unavailable: .*{reason}"):
        service.call("GET", "/x")
    assert len(server.requests) == 3


def test_a_service_that_recovers_has_answered(server: Server, service: Service) -> None:
    server.answer = lambda _request, _handler: (503, {}) if len(server.requests) < 3 else (200, GOOD)
    assert service.call("GET", "/x") == Answer(200, GOOD)


def test_a_connection_that_is_dropped_is_an_outage(server: Server, service: Service) -> None:
    server.answer = lambda _request, _handler: None
    with pytest.raises(Unavailable, match="ProtocolError"):
        service.call("GET", "/x")
    assert len(server.requests) == 3


def test_half_an_answer_is_an_outage(server: Server, service: Service) -> None:
    def half(_: Request, handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        handler.wfile.write(b'{"result": {}}')

    server.answer = half
    with pytest.raises(Unavailable, match="ProtocolError"):
        service.call("GET", "/x")


def test_an_answer_that_does_not_come_is_an_outage(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(_: Request, __: BaseHTTPRequestHandler) -> None:
        server.stopping.wait()

    server.answer = silent
    monkeypatch.setattr(http_service, "IDLE_SECONDS", 0.05)
    with (
        Service("LMS", lambda: server.url) as service,
        pytest.raises(Unavailable, match="ReadTimeoutError"),
    ):
        service.call("GET", "/x")


def test_an_answer_that_only_drips_is_given_up(server: Server) -> None:
    def drip(_: Request, handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000000")
        handler.end_headers()
        server.drip(handler.wfile.write, b" ")

    server.answer = drip
    with (
        Service("LMS", lambda: server.url, tries=1, call_seconds=0.1) as service,
        pytest.raises(Unavailable, match=r"did not finish its answer within 0\.1 s"),
    ):
        service.call("GET", "/x")


@pytest.mark.parametrize(
    "encoding",
    [pytest.param("identity", id="plain"), pytest.param("gzip", id="unpacking to more than it may")],
)
def test_an_answer_that_is_too_large_is_refused(server: Server, encoding: str) -> None:
    large = b'{"a": "' + b"x" * 10_000 + b'"}'

    def answer(_: Request, handler: BaseHTTPRequestHandler) -> None:
        body = gzip.compress(large) if encoding == "gzip" else large
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.send_header("Content-Encoding", encoding)
        handler.end_headers()
        handler.wfile.write(body)

    server.answer = answer
    with (
        Service("LMS", lambda: server.url, max_bytes=len(large) - 1) as strict,
        pytest.raises(Unavailable, match="more than"),
    ):
        strict.call("GET", "/x")
    with Service("LMS", lambda: server.url, max_bytes=len(large)) as service:
        assert service.call("GET", "/x").body == {"a": "x" * 10_000}


def test_nobody_listening_is_an_outage() -> None:
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (
        Service("User-Org", lambda: f"http://127.0.0.1:{port}") as alone,
        pytest.raises(Unavailable) as caught,
    ):
        alone.call("GET", "/x")
    assert str(caught.value).startswith("User-Org unavailable: NewConnectionError")
    assert caught.value.part == "User-Org"


@pytest.mark.parametrize("url", ["http://[::1", "http://h:port", "http://h:80:80"])
def test_an_address_that_is_no_url_is_a_setting_to_mend(url: str) -> None:
    with Service("LMS", lambda: url) as service, pytest.raises(SettingsError, match="URL of LMS"):
        service.call("GET", "/")


def test_a_service_that_nobody_calls_is_never_opened() -> None:
    def unwanted() -> str:
        raise AssertionError("nobody asked for the address")

    with Service("LMS", unwanted):
        pass


def test_a_proxy_of_the_environment_is_not_used(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    server.answer = lambda _request, _handler: (200, GOOD)
    with Service("LMS", lambda: server.url) as opened:
        assert opened.call("GET", "/x").status == 200


def test_login_and_headers_go_with_every_call(server: Server) -> None:
    seen: list[tuple[str | None, str | None]] = []

    def answer(_: Request, handler: BaseHTTPRequestHandler) -> tuple[int, Any]:
        seen.append((handler.headers["Authorization"], handler.headers["X-Channel"]))
        return 200, GOOD

    server.answer = answer
    known = Endpoint(server.url, login=("name", "ü"), headers={"X-Channel": "c"})
    with Service("LMS", lambda: known) as opened:
        opened.call("GET", "/x")
        opened.call("POST", "/x", {})
    assert seen == [("Basic bmFtZTrDvA==", "c")] * 2


@pytest.mark.parametrize(
    ("status", "body"), [(404, b"<html>"), (301, b""), (200, b"[]")], ids=["a page", "a redirect", "a list"]
)
def test_an_answer_that_is_no_service_s_says_where_to_look(server: Server, status: int, body: bytes) -> None:
    server.answer = lambda _request, _handler: (status, body)
    wrong = Endpoint(server.url, advice="look here")
    with (
        Service("LMS", lambda: wrong, tries=1) as opened,
        pytest.raises(Unavailable, match=rf"^LMS unavailable: HTTP {status} .*; look here$"),
    ):
        opened.call("GET", "/x")


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_login_is_an_outage_that_says_where_to_look(server: Server, status: int) -> None:
    server.answer = lambda _request, _handler: (status, GOOD)
    refused = Endpoint(server.url, login=("name", "s3cret"), advice="look here")
    with (
        Service("LMS", lambda: refused, tries=1) as opened,
        pytest.raises(Unavailable, match=rf"^LMS unavailable: refuses access \(HTTP {status}\); look here$"),
    ):
        opened.call("GET", "/x")


def test_a_url_that_holds_a_login_is_refused_and_not_shown() -> None:
    with (
        Service("LMS", lambda: "http://name:s3cret@h") as opened,
        pytest.raises(SettingsError, match="URL of LMS holds a login") as caught,
    ):
        opened.call("GET", "/x")
    assert "s3cret" not in str(caught.value)
