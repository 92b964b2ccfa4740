"""The relays of the fault suite: what is lost and what is spoilt, and what arrives nevertheless."""

from __future__ import annotations

import json
import socket
from random import Random

import httpx
import pytest

from chaos.between import Relay, SearchRelay
from chaos.faults import FAULTS, MOMENTS, drawn
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


def test_some_items_of_a_bulk_are_rejected_and_never_arrive(server: Server) -> None:
    def answer(request: Request, _: object) -> tuple[int, object]:
        kept = len(request.body.splitlines()) // 2
        return 200, {"took": 1, "errors": False, "items": [{"update": {"status": 200}}] * kept}

    server.answer = answer
    relay = SearchRelay(server.url)
    body = b"".join(
        json.dumps(line).encode() + b"\n"
        for n in range(40)
        for line in ({"update": {"_id": str(n)}}, {"doc": {}})
    )
    headers = {"content-type": "application/x-ndjson"}
    try:
        with relay.items_rejected(Random(1)):
            told = httpx.post(
                f"{relay.address}/i/_bulk", content=body, headers=headers, timeout=10, trust_env=False
            )
        statuses = [i["update"]["status"] for i in told.json()["items"]]
        assert len(statuses) == 40
        assert statuses.count(429) == relay.rejected
        assert 5 < relay.rejected < 35
        assert told.json()["errors"] is True
    finally:
        relay.close()


def test_every_fault_comes_at_every_moment_when_seeds_go_on_long_enough() -> None:
    pairs = [drawn(seed) for seed in range(1000, 1000 + len(FAULTS) * len(MOMENTS))]
    assert len({(fault.name, moment) for fault, moment in pairs}) == len(FAULTS) * len(set(MOMENTS))
