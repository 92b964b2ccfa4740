"""The relays of the fault suite: what is lost and what is spoilt, and what arrives nevertheless."""

from __future__ import annotations

import json
import socket
import socketserver
import threading
from collections.abc import Iterator
from random import Random

import httpx
import pytest

from chaos.faults import FAULTS, MOMENTS, drawn
from chaos.relays import CommitRelay, Cut, Relay, SearchRelay, StatementRelay, Statements
from local.servers.processes import await_condition
from tests.unit.conftest import Request, Server


def test_a_relay_hands_requests_and_answers_on(server: Server) -> None:
    server.answer = lambda request, _: (200, {"got": request.body})
    relay = Relay(server.url.removeprefix("http://"))
    try:
        answer = httpx.post(f"http://{relay.address}/", json={"a": 1}, timeout=10, trust_env=False)
        assert answer.json() == {"got": {"a": 1}}
    finally:
        relay.close()


def test_while_answers_are_lost_requests_arrive_all_the_same(server: Server) -> None:
    server.answer = lambda *_: (200, {})
    relay = Relay(server.url.removeprefix("http://"))
    try:
        with relay.answers_lost(), pytest.raises(httpx.ReadTimeout):
            httpx.post(f"http://{relay.address}/", json={"a": 1}, timeout=0.5, trust_env=False)
        await_condition(lambda: bool(server.requests), timeout_s=30, what="the request at the server")
        assert [r.body for r in server.requests] == [{"a": 1}]
        assert httpx.post(f"http://{relay.address}/", json={}, timeout=10, trust_env=False).status_code == 200
    finally:
        relay.close()


def test_a_connection_whose_answers_have_a_gap_is_closed(server: Server) -> None:
    server.answer = lambda *_: (200, {})
    relay = Relay(server.url.removeprefix("http://"))
    host, _, port = relay.address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            with relay.answers_lost():
                connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
                connection.settimeout(0.3)
                with pytest.raises(TimeoutError):
                    connection.recv(1)
            connection.settimeout(10)
            assert connection.recv(1) == b""
    finally:
        relay.close()


def test_a_relay_that_points_elsewhere_closes_what_is_open(server: Server) -> None:
    server.answer = lambda *_: (200, {})
    relay = Relay("127.0.0.1:9")  # nothing listens on the discard port
    try:
        with pytest.raises(httpx.HTTPError):
            httpx.post(f"http://{relay.address}/", json={}, timeout=10, trust_env=False)
        relay.point_to(server.url.removeprefix("http://"))
        with httpx.Client(base_url=f"http://{relay.address}", timeout=10, trust_env=False) as client:
            assert client.post("/", json={}).status_code == 200
            relay.point_to("127.0.0.1:9")
            with pytest.raises(httpx.HTTPError):
                client.post("/", json={})
    finally:
        relay.close()


def test_something_happens_directly_before_the_nth_request_that_names_a_row(server: Server) -> None:
    server.answer = lambda *_: (200, {})
    relay = StatementRelay(server.url.removeprefix("http://"))
    arrived: list[int] = []
    relay.before_request("batch-7", 2, lambda: arrived.append(len(server.requests)))
    try:
        for named in ("batch-7", "batch-8", "batch-7", "batch-7"):
            httpx.post(f"http://{relay.address}/", json={"of": named}, timeout=10, trust_env=False)
    finally:
        relay.close()
    assert arrived == [2]  # of four requests
    assert len(server.requests) == 4


START = (8).to_bytes(4) + (80877103).to_bytes(4) + (9).to_bytes(4) + (3 << 16).to_bytes(4) + b"\0"
"""A request for TLS, and the start-up after it was refused."""


def message(kind: bytes, body: bytes) -> bytes:
    return kind + (4 + len(body)).to_bytes(4) + body


@pytest.mark.parametrize(
    ("sent", "commits"),
    [
        pytest.param(message(b"Q", b"COMMIT\0"), True, id="a simple query"),
        pytest.param(message(b"Q", b"commit;\0"), True, id="in lower case"),
        pytest.param(message(b"P", b"\0COMMIT\0\0\0"), True, id="a query to be parsed"),
        pytest.param(message(b"Q", b"BEGIN\0") + message(b"Q", b"COMMIT\0"), True, id="after another"),
        pytest.param(message(b"Q", b"ROLLBACK\0"), False, id="a rollback"),
        pytest.param(message(b"Q", b"SELECT 'COMMIT'\0"), False, id="a word in a statement"),
        pytest.param(message(b"d", b"COMMIT\0"), False, id="data of a COPY"),
        pytest.param(message(b"P", b"COMMIT\0SELECT 1\0\0\0"), False, id="a statement's name"),
    ],
)
def test_a_commit_is_recognised_however_it_is_cut_into_pieces(sent: bytes, commits: bool) -> None:
    assert Statements().commits(START + sent) is commits
    bytewise = Statements()
    found = [bytewise.commits(bytes([byte])) for byte in START + sent]
    assert any(found) is commits
    assert found[-1] is commits


class Database(socketserver.ThreadingTCPServer):
    """Keeps what it gets, and answers every piece."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        self.got = b""
        super().__init__(("127.0.0.1", 0), Session)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"


class Session(socketserver.BaseRequestHandler):
    server: Database

    def handle(self) -> None:
        while piece := self.request.recv(1 << 16):
            self.server.got += piece
            self.request.sendall(b"done")


@pytest.fixture
def database() -> Iterator[Database]:
    with Database() as made:
        threading.Thread(target=made.serve_forever, args=(0.01,), daemon=True).start()
        yield made
        made.shutdown()


class Always(Random):
    """Cuts every commit, each at this moment."""

    def __init__(self, cut: Cut) -> None:
        self.cut = cut
        super().__init__()

    def random(self) -> float:
        return 0.0

    def choice(self, seq: object) -> Cut:  # type: ignore[override]  # noqa: ARG002  # cuts are all that is chosen
        return self.cut


COMMIT = message(b"Q", b"COMMIT\0")


@pytest.mark.parametrize("cut", list(Cut))
def test_a_commit_that_is_cut_is_in_doubt_and_has_arrived_or_not(database: Database, cut: Cut) -> None:
    relay = CommitRelay(database.address)
    host, _, port = relay.address.rpartition(":")
    arrives = cut is not Cut.BEFORE
    try:
        with (
            socket.create_connection((host, int(port)), timeout=10) as client,
            relay.commits_cut(Always(cut), 0.5),
        ):
            client.sendall(START + message(b"Q", b"BEGIN\0"))
            assert client.recv(4) == b"done"
            client.sendall(COMMIT)
            assert client.recv(1) == b""
        await_condition(
            lambda: database.got.endswith(COMMIT) is arrives, timeout_s=10, what="the commit at the server"
        )
        assert relay.cuts == {cut: 1}
    finally:
        relay.close()


def test_commits_are_left_alone_when_the_fault_is_over(database: Database) -> None:
    relay = CommitRelay(database.address)
    host, _, port = relay.address.rpartition(":")
    try:
        with relay.commits_cut(Always(Cut.AFTER), 0.5):
            pass
        with socket.create_connection((host, int(port)), timeout=10) as client:
            client.sendall(START + COMMIT)
            assert client.recv(4) == b"done"
        assert not relay.cuts
    finally:
        relay.close()


def test_some_items_of_a_bulk_are_rejected_and_never_arrive(server: Server) -> None:
    def answer(request: Request, _: object) -> tuple[int, object]:
        kept = len(request.body.splitlines()) // 2
        return 200, {"took": 1, "errors": False, "items": [{"update": {"status": 200}}] * kept}

    server.answer = answer
    relay = SearchRelay(server.url)
    lines: list[dict[str, dict[str, str]]] = []
    for n in range(40):
        lines += [{"update": {"_id": str(n)}}, {"doc": {}}]
    body = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    headers = {"content-type": "application/x-ndjson"}
    try:
        with relay.items_rejected(Random(1)):
            response = httpx.post(
                f"{relay.address}/i/_bulk", content=body, headers=headers, timeout=10, trust_env=False
            )
        statuses = [i["update"]["status"] for i in response.json()["items"]]
        assert len(statuses) == 40
        assert statuses.count(429) == relay.rejected
        assert 5 < relay.rejected < 35
        assert response.json()["errors"] is True
    finally:
        relay.close()


def test_every_fault_comes_at_every_moment_when_seeds_go_on_long_enough() -> None:
    pairs = [drawn(seed) for seed in range(1000, 1000 + len(FAULTS) * len(MOMENTS))]
    assert len({(fault.name, moment) for fault, moment in pairs}) == len(FAULTS) * len(set(MOMENTS))
