"""An API server that says what a test has it say of Airflow's parts."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


def healthy() -> dict[str, Any]:
    """The answer of an Airflow of which every part runs."""
    parts = ("metadatabase", "scheduler", "dag_processor", "triggerer")
    return {part: {"status": "healthy"} for part in parts}


class FakeApiServer:
    """Answers each request with `answer`."""

    def __init__(self) -> None:
        self.answer: Any = healthy()
        self.asked: list[str] = []
        self.missing = ""
        """A path that is answered as Airflow does any that it does not know: with its own start page."""
        self.url = ""


@contextmanager
def fake_api_server() -> Iterator[FakeApiServer]:
    """Serve until the block ends."""
    fake = FakeApiServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            fake.asked.append(self.path)
            known = self.path != fake.missing
            body = json.dumps(fake.answer).encode() if known else b"<!doctype html>"
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        fake.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield fake
        finally:
            server.shutdown()
            thread.join()
