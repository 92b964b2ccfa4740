"""Questions by the API: what is answered, and what is said where a store does not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from ownership.domain.errors import Unavailable
from ownership.domain.plan import BatchId, Document, Row
from ownership.domain.proven import ProvenCounts, RequestCounts
from ownership.domain.settings import Settings
from ownership.ledger.reads.batches import BatchStep, BatchTimeline
from ownership.page.api.app import api
from ownership.page.platform import process_platform
from ownership.page.settings import process_settings
from ownership.platform.search_index import Found
from tests.unit.page.api.service import CHANGE, Service
from tests.unit.page.rows import LISTED

BATCH = BatchId("c", "b")
ROW = Row(BATCH, "user-new", (), 1)
DOCUMENT = Document("b", "user-old", (), 1, 1, "c", None, {"status": 1, "name": "Algebra"})


class Store:
    """Answers every question from what it has, or with an outage."""

    def __init__(self, **answers: Any) -> None:
        self.answers = SimpleNamespace(**{name: self._answer(a) for name, a in answers.items()})

    @staticmethod
    def _answer(answer: Any) -> Callable[..., Any]:
        return lambda *_, **__: answer

    def ask(self, question: Callable[[Any], Any]) -> Any:
        if not vars(self.answers):
            raise Unavailable("The store", "frozen")
        return question(self.answers)


@pytest.fixture
def stores(service: Service, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The platform's stores, and a ledger that knows one batch."""
    given = SimpleNamespace(
        index=Store(get={"b": (DOCUMENT,)}, owned_by=Found(1, [DOCUMENT])), rows=Store(read={BATCH: ROW})
    )
    timeline = BatchTimeline([BatchStep(LISTED, CHANGE)], 7)
    more = {
        "questions": SimpleNamespace(given_to=lambda _: [BATCH]),
        "proven": SimpleNamespace(
            days=lambda n, **_: [ProvenCounts(in_time=9, late=1), *[ProvenCounts()] * (n - 1)],
            request=lambda r: RequestCounts(2 if r == "r" else 0, 2 if r == "r" else 0, 0, 0, 0),
        ),
    }
    reads = service.reads

    @contextmanager
    def with_more(*visible: Any) -> Iterator[Any]:
        with reads(*visible) as known:
            known.batches.timeline = lambda *_: timeline
            yield SimpleNamespace(**vars(known), **more)

    monkeypatch.setattr(service, "reads", with_more)
    settings = Settings.parse('{"deadline.minutes": 45}')
    for dependency, instead in (
        (process_platform, lambda: given),
        (process_settings, lambda: lambda: settings),
    ):
        monkeypatch.setitem(api.dependency_overrides, dependency, instead)
    return given


def test_a_batch_has_its_timeline_and_both_stores(service: Service, stores: Any) -> None:
    found = service.ask("GET", "/batch/timeline", params={"batch": "b"}).json()
    (step,) = found["steps"]
    assert (step["transfer"]["mid"], step["change"]["after"]["created_by"]) == (LISTED.mid, "b")
    (now,) = found["now"]
    assert (now["row"], now["document"]) == (["created by user-new"], ["created by user-old"])
    assert (now["differences"], now["name"]) == (["stale owner"], "Algebra")
    assert (found["next"], found["notices"]) == (7, [])
    assert service.ask("GET", "/batch/timeline", params={"batch": " b ", "course": " c\t"}).json()["now"] == [
        now
    ]
    assert service.ask("GET", "/batch/timeline", params={"batch": "  "}).status_code == 422


def test_what_a_user_holds_names_the_rows_that_the_index_does_not_show(service: Service, stores: Any) -> None:
    found = service.ask("GET", "/user/batches", params={"user": "user-new"}).json()
    assert (found["total"], [b["batch_id"] for b in found["only_rows"]]) == (1, ["b"])
    assert service.ask("GET", "/user/batches", params={"user": "u", "page": 201}).status_code == 422


def test_a_store_that_does_not_answer_is_a_notice(service: Service, stores: Any) -> None:
    stores.index = Store()
    found = service.ask("GET", "/user/batches", params={"user": "user-new"}).json()
    assert (found["total"], found["batches"]) == (None, [])
    assert set(found["notices"]) == {"The store unavailable: frozen"}
    stores.rows = Store()
    found = service.ask("GET", "/batch/timeline", params={"batch": "b"}).json()
    assert (found["now"], len(found["steps"]), len(found["notices"])) == ([], 1, 2)


def test_the_share_that_is_proven_is_by_day_and_by_request(service: Service, stores: Any) -> None:
    found = service.ask("GET", "/proven").json()
    assert (found["deadline_minutes"], len(found["days"])) == (45, 30)
    assert (found["days"][0]["share"], found["days"][1]["share"]) == (0.9, None)
    assert service.ask("GET", "/request", params={"request": "r"}).json()["complete"] is True
    assert service.ask("GET", "/request", params={"request": "x"}).json()["complete"] is False
