"""What the unit tests share: a profile for hypothesis, no waits between tries, a tiny HTTP server."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

import pytest
import stamina
from hypothesis import HealthCheck, settings

settings.register_profile(
    "unit", max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None
)
settings.load_profile("unit")


class Request(NamedTuple):
    """A request as the server got it."""

    method: str
    path: str
    body: Any


Answering = Callable[[Request, BaseHTTPRequestHandler], "tuple[int, Any] | None"]


def _decoded(content: bytes) -> Any:
    """JSON as what it says, anything else as it is."""
    try:
        return json.loads(content) if content else None
    except ValueError:
        return content


class Server:
    """Answers with what `answer` says: status and JSON (or bytes); None if it wrote the answer itself."""

    def __init__(self) -> None:
        self.answer: Answering = lambda _request, _handler: (500, {})
        self.requests: list[Request] = []
        self.stopping = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # head and body are two writes: the second would wait 40 ms

            def _any(self) -> None:
                content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                request = Request(self.command, self.path, _decoded(content))
                outer.requests.append(request)
                answered = outer.answer(request, self)
                if answered is None:
                    self.close_connection = True
                    return
                status, body = answered
                raw = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            do_GET = do_POST = _any  # noqa: N815  # the base class calls them so

            def handle(self) -> None:
                with suppress(ConnectionError, ValueError):  # the client gave up, as some tests want
                    super().handle()

            def log_message(self, *_: Any) -> None: ...

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def drip(self, write: Callable[[bytes], Any], part: bytes, *, every: float = 0.02) -> None:
        """Write `part` again and again, until the client has gone or the test is over."""
        with suppress(OSError):
            while not self.stopping.wait(every):
                write(part)

    def stop(self) -> None:
        self.stopping.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    started = Server()
    yield started
    started.stop()


@pytest.fixture(autouse=True)
def no_waits_between_tries() -> Iterator[None]:
    with stamina.set_testing(True, attempts=100, cap=True):
        yield
