"""Exports over real HTTP: a whole one ends, a broken one is seen to be broken, and no more than a few at a time."""

from __future__ import annotations

import csv
import io
import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from starlette.middleware.gzip import GZipMiddleware

from local.servers.ports import HOST
from local.servers.processes import await_condition
from ownership.domain.errors import Unavailable
from ownership.page import exporting
from ownership.page.exporting import AT_ONCE, ExportResponse

COLUMNS = ("mid", "late", "mentors", "at")
AT = datetime(2026, 11, 27, 5, 30, tzinfo=timezone(timedelta(hours=5, minutes=30)))
"""As the driver has a time whose server is in another time zone."""
ROWS = [("=m1", True, ["a", "b"], AT), ("m2", False, [], None)]


class Exported:
    """An app that exports pages of a test's own."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.app = FastAPI()
        self.app.add_middleware(GZipMiddleware, minimum_size=100)  # as Airflow's own
        self.app.add_api_route("/{what}", self.export, response_model=None)
        self.url = ""

    def export(self, what: str) -> Any:
        file_format: Any = "jsonl" if what == "lines" else "csv"
        rows = getattr(self, f"_{what}")()
        return ExportResponse(what, COLUMNS, rows, file_format)

    def _whole(self) -> Iterator[Sequence[Any]]:
        yield ROWS
        yield []

    _lines = _whole

    def _broken(self) -> Iterator[Sequence[Any]]:
        yield ROWS * 1000
        raise Unavailable("PostgreSQL", "gone")

    def _slow(self) -> Iterator[Sequence[Any]]:
        yield ROWS
        self.gate.wait(30)
        yield ROWS

    def _endless(self) -> Iterator[Sequence[Any]]:
        while True:
            yield ROWS * 10_000


class Turns:
    """Turns of this test's own, and how many are taken: one is given back after its client has read the end."""

    def __init__(self) -> None:
        self.taken = 0

    def acquire(self, *, blocking: bool) -> bool:
        assert not blocking
        if self.taken == AT_ONCE:
            return False
        self.taken += 1
        return True

    def release(self) -> None:
        self.taken -= 1

    def await_all(self) -> None:
        """Until each is given back."""
        await_condition(lambda: self.taken == 0, timeout_s=30, what="every turn to be given back")


@pytest.fixture(autouse=True)
def turns(monkeypatch: pytest.MonkeyPatch) -> Turns:
    made = Turns()
    monkeypatch.setattr(exporting, "_turns", made)
    return made


@pytest.fixture
def exported() -> Iterator[Exported]:
    made = Exported()
    server = uvicorn.Server(uvicorn.Config(made.app, HOST, 0, log_level="critical"))
    started = threading.Event()
    startup = server.startup

    async def noted(*given: Any, **more: Any) -> None:
        await startup(*given, **more)
        started.set()

    server.startup = noted  # type: ignore[method-assign]  # tells when it listens
    thread = threading.Thread(target=server.run)
    thread.start()
    assert started.wait(30)
    made.url = f"http://{HOST}:{server.servers[0].sockets[0].getsockname()[1]}"
    yield made
    made.gate.set()
    server.should_exit = True
    thread.join(30)


@contextmanager
def begun(exported: Exported, what: str) -> Iterator[httpx.Response]:
    # Unpacked, so that what the client does not take fills the socket.
    headers = {"accept-encoding": "identity"}
    with httpx.stream("GET", f"{exported.url}/{what}", timeout=30, headers=headers) as answer:
        yield answer


def test_a_whole_export_is_csv_that_no_spreadsheet_carries_out(exported: Exported) -> None:
    answer = httpx.get(f"{exported.url}/whole")
    assert answer.headers["content-disposition"].startswith('attachment; filename="whole-')
    assert list(csv.reader(io.StringIO(answer.text, newline=""))) == [
        [*COLUMNS],
        ["'=m1", "true", '["a", "b"]', "2026-11-27T00:00:00+00:00"],
        ["m2", "false", "[]", ""],
    ]


def test_whole_json_lines_end_with_their_number(exported: Exported) -> None:
    lines = [json.loads(line) for line in httpx.get(f"{exported.url}/lines").text.splitlines()]
    assert lines == [
        {"mid": "=m1", "late": True, "mentors": ["a", "b"], "at": "2026-11-27T00:00:00+00:00"},
        {"mid": "m2", "late": False, "mentors": [], "at": None},
        {"end": True, "rows": 2},
    ]


def test_a_client_sees_that_an_export_is_broken(exported: Exported) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.get(f"{exported.url}/broken")


def test_a_few_exports_are_sent_at_the_same_time_and_others_are_told(
    exported: Exported, turns: Turns
) -> None:
    for _ in range(2):  # each gives its turn back
        others = [begun(exported, "slow") for _ in range(AT_ONCE)]
        answers = [o.__enter__() for o in others]
        assert [a.status_code for a in answers] == [200] * AT_ONCE
        assert httpx.get(f"{exported.url}/whole").status_code == 503
        exported.gate.set()
        for answer, other in zip(answers, others, strict=True):
            assert len(answer.read().splitlines()) == 1 + 2 * len(ROWS)
            other.__exit__(None, None, None)
        exported.gate.clear()
        turns.await_all()


def test_a_client_that_takes_nothing_gives_its_turn_back(
    exported: Exported, turns: Turns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "STALLED_S", 0.2)
    with begun(exported, "endless") as answer:
        assert answer.status_code == 200
        turns.await_all()
