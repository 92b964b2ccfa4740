from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from ownership.domain.errors import Unavailable
from ownership.domain.plan import BatchId
from ownership.platform import lms as module
from ownership.platform.http_service import Service
from ownership.platform.lms import BatchSearch, IncompleteAnswer
from tests.unit.conftest import Request, Server

PATH = "/v1/course/batch/search"


def shown(count: Any, content: Any) -> dict[str, Any]:
    return {"responseCode": "OK", "result": {"response": {"count": count, "content": content}}}


def document(n: int, created_by: str = "A", mentors: Any = ()) -> dict[str, Any]:
    return {"courseId": f"c{n}", "batchId": f"b{n}", "createdBy": created_by, "mentors": list(mentors)}


class Lms:
    """The LMS's search over a list of documents, as sunbird.md has it."""

    def __init__(self, server: Server, documents: list[dict[str, Any]]) -> None:
        self.documents = documents
        server.answer = self.answer

    def answer(self, request: Request, _: Any) -> tuple[int, Any]:
        asked = request.body["request"]
        wanted = asked["filters"]
        users = {u.lower() for f in ("createdBy", "mentors") for u in wanted.get(f, [])}
        field = "createdBy" if "createdBy" in wanted else "mentors"
        hits = [
            d for d in self.documents
            if users & {v.lower() for v in ([d[field]] if isinstance(d[field], str) else d[field] or [])}
        ]  # fmt: skip
        start = asked.get("offset", 0)
        limit = min(asked.get("limit", 30), 10_000 - start)
        return 200, shown(min(len(hits), 10_000), hits[start : start + limit])


@pytest.fixture
def search(server: Server) -> Iterator[BatchSearch]:
    with Service("LMS", lambda: server.url, tries=1) as service:
        yield BatchSearch(service, PATH)


def test_creators_and_mentors_are_found_each_batch_once(server: Server, search: BatchSearch) -> None:
    Lms(server, [document(1), document(2, "X", ["M", "A"]), document(3, "A", ["A"]), document(4, "X", ["Y"])])
    assert sorted(search.live_batches(["A"]), key=lambda hit: hit[1]) == [
        (frozenset("a"), BatchId("c1", "b1")),
        (frozenset("xma"), BatchId("c2", "b2")),
        (frozenset("a"), BatchId("c3", "b3")),
    ]


def test_only_live_batches_are_asked_for_with_an_explicit_limit(server: Server, search: BatchSearch) -> None:
    Lms(server, [])
    assert search.live_batches(["B", "A"]) == []
    assert [r.path for r in server.requests] == [PATH, PATH]
    for request, field in zip(server.requests, ("createdBy", "mentors"), strict=True):
        asked = request.body["request"]
        assert asked["filters"] == {field: ["A", "B"], "status": [0, 1]}
        assert asked["limit"] == module.PAGE > 30
        assert set(asked["fields"]) == {"batchId", "identifier", "id", "courseId", "createdBy", "mentors"}


@pytest.mark.parametrize("number", [29, 30, 31, 100, 149, 150, 151])
def test_more_batches_than_a_page_are_all_found(
    server: Server, search: BatchSearch, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(module, "PAGE", 50)
    Lms(server, [document(n) for n in range(number)])
    assert len(search.live_batches(["A"])) == number


def test_a_service_that_pages_in_smaller_steps_is_followed(server: Server, search: BatchSearch) -> None:
    lms = Lms(server, [document(n) for n in range(70)])

    def small(request: Request, handler: Any) -> tuple[int, Any]:
        request.body["request"]["limit"] = 30
        return lms.answer(request, handler)

    server.answer = small
    assert len(search.live_batches(["A"])) == 70


def test_many_users_go_into_several_searches(
    server: Server, search: BatchSearch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "USERS_PER_SEARCH", 3)
    Lms(server, [document(n, f"u{n}") for n in range(7)])
    assert len(search.live_batches([f"u{n}" for n in range(7)])) == 7
    assert len(server.requests) == 6


def test_nobody_asked_for_finds_nothing(server: Server, search: BatchSearch) -> None:
    assert search.live_batches([]) == []
    assert server.requests == []


@pytest.mark.parametrize("count", [10_000, 10_001, 250_000])
def test_a_count_that_reaches_the_window_may_hide_more(
    server: Server, search: BatchSearch, count: int
) -> None:
    server.answer = lambda request, _: (
        200, shown(count, [document(1)] if request.body["request"]["offset"] == 0 else [])
    )  # fmt: skip
    with pytest.raises(IncompleteAnswer):
        search.live_batches(["A"])


@pytest.mark.parametrize(
    ("status", "body"),
    [
        pytest.param(200, shown(2, []), id="a count without batches"),
        pytest.param(200, shown(2, None), id="a count without a list"),
        pytest.param(200, shown(None, []), id="no count"),
        pytest.param(200, shown("2", [document(1)]), id="a count in quotes"),
        pytest.param(200, shown(True, [document(1)]), id="a count that is true"),
        pytest.param(200, shown(-1, []), id="a count below zero"),
        pytest.param(200, shown(float("nan"), []), id="a count that is no number"),
        pytest.param(200, shown(1, {"0": document(1)}), id="batches that are no list"),
        pytest.param(200, shown(1, ["b1"]), id="a batch that is no object"),
        pytest.param(200, shown(1, ["b1"]), id="a hit that is no object"),
        pytest.param(200, {}, id="nothing"),
        pytest.param(400, shown(0, []), id="a client error"),
        pytest.param(200, shown(0, []) | {"responseCode": "SERVER_ERROR"}, id="200 with a server error"),
        pytest.param(
            200, shown(1, [document(1)]) | {"responseCode": "CLIENT_ERROR"}, id="200 with a client error"
        ),
        pytest.param(503, shown(0, []), id="503"),
    ],
)
def test_an_answer_out_of_contract_is_an_outage_and_no_empty_result(
    server: Server, search: BatchSearch, status: int, body: Any
) -> None:
    server.answer = lambda _request, _handler: (status, body)
    with pytest.raises(Unavailable, match=r"^LMS unavailable"):
        search.live_batches(["A"])


@pytest.mark.parametrize(
    "named",
    [
        pytest.param({}, id="no id"),
        pytest.param({"batchId": ""}, id="an empty one"),
        pytest.param({"batchId": True}, id="true"),
        pytest.param({"batchId": 1.5}, id="a fraction"),
        pytest.param({"batchId": "\ud800"}, id="no text"),
        pytest.param({"batchId": "b" * 70_000}, id="longer than any key"),
    ],
)
def test_a_document_that_names_no_batch_is_looked_up_in_the_index(
    server: Server, search: BatchSearch, named: dict[str, Any]
) -> None:
    server.answer = lambda _request, _handler: (200, shown(1, [{"courseId": "c", **named}]))
    with pytest.raises(IncompleteAnswer):
        search.live_batches(["A"])


@pytest.mark.parametrize(
    "named", [{"batchId": 17}, {"identifier": "17"}, {"id": "17"}, {"batchId": None, "identifier": 17}]
)
def test_an_old_document_names_its_batch_in_another_way(
    server: Server, search: BatchSearch, named: dict[str, Any]
) -> None:
    server.answer = lambda _request, _handler: (200, shown(1, [{"courseId": "c", "createdBy": "A", **named}]))
    assert search.live_batches(["A"]) == [({"a"}, BatchId("c", "17"))]


@pytest.mark.parametrize("bad", ["u0", "u3", "u6"])
def test_where_it_is_out_of_order_for_one_of_several_users_the_index_is_asked(
    server: Server, search: BatchSearch, bad: str
) -> None:
    lms = Lms(server, [])

    def answer(request: Request, handler: Any) -> tuple[int, Any]:
        asked = request.body["request"]["filters"]
        return (
            (500, {}) if bad in (asked.get("createdBy") or asked["mentors"]) else lms.answer(request, handler)
        )

    server.answer = answer
    with pytest.raises(IncompleteAnswer):
        search.live_batches([f"u{n}" for n in range(7)])
    with pytest.raises(Unavailable):
        search.live_batches([bad])


def test_where_it_answers_for_none_of_several_users_it_is_an_outage(
    server: Server, search: BatchSearch
) -> None:
    server.answer = lambda _request, _handler: (500, {})
    with pytest.raises(Unavailable, match="HTTP 500"):
        search.live_batches([f"u{n}" for n in range(7)])
    assert len(server.requests) == 3


def test_a_page_that_stops_short_is_an_outage(server: Server, search: BatchSearch) -> None:
    server.answer = lambda request, _: (
        200, shown(60, [document(n) for n in range(30)] if request.body["request"]["offset"] == 0 else [])
    )  # fmt: skip
    with pytest.raises(Unavailable, match="counts 60 batches but shows 30"):
        search.live_batches(["A"])


def test_pages_that_show_batches_twice_miss_others_and_the_index_is_asked(
    server: Server, search: BatchSearch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches of the same date have no order of their own: two copies of a shard may list them differently."""
    monkeypatch.setattr(module, "PAGE", 3)
    pages = {0: [document(1), document(2), document(3)], 3: [document(3), document(1), document(4)]}
    server.answer = lambda request, _: (200, shown(6, pages[request.body["request"]["offset"]]))
    with pytest.raises(IncompleteAnswer):
        search.live_batches(["A"])


@pytest.mark.parametrize(
    "course",
    [
        pytest.param({}, id="none"),
        pytest.param({"courseId": None}, id="null"),
        pytest.param({"courseId": ""}, id="empty"),
        pytest.param({"courseId": {"id": "c"}}, id="an object"),
        pytest.param({"courseId": "\ud800"}, id="half a surrogate"),
        pytest.param({"courseId": "c" * 70_000}, id="longer than any key"),
        pytest.param({"courseId": "\u00e9" * 32_768}, id="longer than any key in bytes"),
    ],
)
def test_a_batch_without_a_course_is_shown_as_one_that_can_have_no_row(
    server: Server, search: BatchSearch, course: dict[str, Any]
) -> None:
    stray = {"batchId": "b1", "createdBy": "A", **course}
    server.answer = lambda _request, _handler: (200, shown(2, [stray, document(2, "A")]))
    assert {batch: users for users, batch in search.live_batches(["A"])} == {
        BatchId("", "b1"): {"a"},
        BatchId("c2", "b2"): {"a"},
    }


def test_an_empty_result_may_leave_its_list_out(server: Server, search: BatchSearch) -> None:
    server.answer = lambda _request, _handler: (200, shown(0, None))
    assert search.live_batches(["A"]) == []
