"""What the index may answer: its documents, a push-back that ends, or anything that is neither."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from ownership.domain.errors import SettingsError, Unavailable
from ownership.domain.plan import BatchId, Document
from ownership.platform.search_answers import TRIES
from ownership.platform.search_index import DOCS_PER_CALL, RefusedDocument, SearchIndex, Written
from tests.unit.fake_index import Answer, Asked, Node, answers, json_answer, refused

VERSION = {"_seq_no": 7, "_primary_term": 1}
OWNERS = {"createdBy": "A", "mentors": ["m"]}
RAW = {"type": "text", "fields": {"raw": {"type": "keyword"}}}
MAPPINGS = {"properties": {"createdBy": RAW, "mentors": RAW}}
SHARDS = {"total": 5, "successful": 5, "failed": 0}


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long was waited between tries; no time passes."""
    waited: list[float] = []
    monkeypatch.setattr("time.sleep", waited.append)
    return waited


def documents(n: int) -> list[tuple[Document, str, tuple[str, ...]]]:
    return [(Document(f"b{i}", "A", (), i, 1), "B", ("m",)) for i in range(n)]


def bulk_of(statuses: dict[str, list[int]]) -> Callable[[Asked], Answer]:
    """Answers bulks: the statuses of each document, one a try; 200 where there is none left."""

    def answer(asked: Asked) -> Answer:
        items = []
        for line in asked.lines[::2]:
            ((operation, action),) = line.items()
            left = statuses.get(action["_id"], [])
            status = left.pop(0) if left else 200
            error = {"error": {"type": "es_rejected_execution_exception", "reason": "queue is full"}}
            item = error if status > 299 else VERSION
            items.append({operation: {"_id": action["_id"], "status": status, **item}})
        return json_answer({"took": 1, "errors": True, "items": items})

    return answer


def sent(node: type[Node]) -> list[list[str]]:
    """Ids in each bulk that was sent."""
    return [[next(iter(line.values()))["_id"] for line in a.lines[::2]] for a in node.asked]


def hit(n: int) -> dict[str, Any]:
    return {"_id": f"b{n}", "_source": {"courseId": f"c{n}", **OWNERS}, "sort": [n]}


def page(hits: list[Any], total: Any) -> Answer:
    body = {"_shards": SHARDS, "timed_out": False, "hits": {"total": {"value": total}, "hits": hits}}
    return json_answer({"_scroll_id": "s", **body})


def asked_for(asked: Asked) -> list[str]:
    """The ids that a search is about; none where it is about something else."""
    (condition,) = json.loads(asked.body)["query"].get("bool", {}).get("filter", [{}])
    return list(condition.get("terms", {}).get("_id", ()))


# --- an index that pushes back


def test_only_the_documents_that_an_overloaded_index_pushes_back_are_sent_again(
    index: SearchIndex, node: type[Node], waits: list[float]
) -> None:
    node.answer = staticmethod(bulk_of({"b1": [429], "b3": [429, 503]}))

    index.write(documents(5), [])

    assert sent(node) == [["b0", "b1", "b2", "b3", "b4"], ["b1", "b3"], ["b3"]]
    assert len(waits) == 2
    assert waits == [0.5, 1.0]


def test_an_index_that_keeps_pushing_back_is_unavailable_after_a_few_tries(
    index: SearchIndex, node: type[Node], waits: list[float]
) -> None:
    node.answer = staticmethod(bulk_of({"b1": [429] * 99}))

    with pytest.raises(Unavailable, match=r"es_rejected_execution_exception: queue is full, after"):
        index.write(documents(3), [])

    assert len(node.asked) == TRIES
    assert len(waits) == TRIES - 1
    assert sum(waits) < 6


@pytest.mark.parametrize("status", [400, 413, 500])
def test_a_document_that_is_refused_for_good_is_reported_and_stops_no_other(
    index: SearchIndex, node: type[Node], status: int
) -> None:
    node.answer = staticmethod(bulk_of({"b0": [429], "b1": [status]}))
    assert index.write(documents(3), []).refused == [
        RefusedDocument("b1", "b1", "es_rejected_execution_exception: queue is full")
    ]
    assert sent(node) == [["b0", "b1", "b2"], ["b0"]]


@pytest.mark.parametrize("status", [401, 403])
def test_an_index_that_takes_no_writes_is_unavailable(
    index: SearchIndex, node: type[Node], status: int
) -> None:
    node.answer = staticmethod(bulk_of({"b1": [status]}))
    with pytest.raises(Unavailable):
        index.write(documents(2), [])


@pytest.mark.parametrize("status", [400, 413])
def test_a_bulk_that_is_refused_as_a_whole_is_halved_until_the_document_is_found(
    index: SearchIndex, node: type[Node], status: int
) -> None:
    written: list[str] = []

    def answer(asked: Asked) -> Answer:
        ids = [line["index"]["_id"] for line in asked.lines[::2]]
        if "b5" in ids:
            return refused(status, "id_too_long")
        written.extend(ids)
        return json_answer({"items": [{"index": {"_id": i, "status": 200, **VERSION}} for i in ids]})

    node.answer = staticmethod(answer)
    assert index.write(documents(9), []).refused == [
        RefusedDocument("b5", "b5", f"HTTP {status} id_too_long")
    ]
    assert sorted(written) == [f"b{n}" for n in range(9) if n != 5]


def test_a_document_is_unchanged_only_in_the_very_version_that_is_asked_for(
    index: SearchIndex, node: type[Node]
) -> None:
    shown = [
        {"_id": "b0", "_seq_no": 7, "_primary_term": 1},
        {"_id": "b1", "_seq_no": 8, "_primary_term": 1},
        {"_id": "b2", "_seq_no": 7, "_primary_term": 2},
    ]
    answers(node, copies({"n1": [0]}), page(shown, 3))
    assert index.unchanged(dict.fromkeys(["b0", "b1", "b2", "b3"], (7, 1))) == {"b0"}


def preferences(node: type[Node]) -> list[str]:
    """The copies that searches named, after the question which there are."""
    return [parse_qs(urlsplit(a.target).query)["preference"][0] for a in node.asked[1:]]


def copies(shards_of_node: dict[str, list[int]]) -> Answer:
    """Which shards have a copy on which node."""
    shards = sorted({s for shards in shards_of_node.values() for s in shards})
    return json_answer(
        {
            "shards": [
                [
                    {"shard": s, "node": n, "state": "STARTED"}
                    for n, held in shards_of_node.items()
                    if s in held
                ]
                for s in shards
            ]
        }
    )


def test_a_document_is_unchanged_only_if_every_copy_of_its_shard_says_so(
    index: SearchIndex, node: type[Node]
) -> None:
    def shows(*names: str) -> Answer:
        return page([{"_id": n, "_seq_no": 7, "_primary_term": 1} for n in names], len(names))

    answers(
        node,
        copies({"n1": [0, 1], "n2": [0], "n3": [1]}),
        shows("a0", "b0"), shows("a0"), shows("a1"), shows("a1", "b1"),
    )  # fmt: skip
    assert index.unchanged(dict.fromkeys(["a0", "b0", "a1", "b1"], (7, 1))) == {"a0", "a1"}
    assert preferences(node) == [
        "_shards:0|_only_nodes:n1",
        "_shards:0|_only_nodes:n2",
        "_shards:1|_only_nodes:n1",
        "_shards:1|_only_nodes:n3",
    ]


def test_what_one_copy_shows_alone_is_a_live_batch_of_the_index(index: SearchIndex, node: type[Node]) -> None:
    answers(node, copies({"n1": [0], "n2": [0]}), page([], 0), page([hit(1)], 1))
    assert [batch.batch_id for _, batch in index.live_batches({"A"}, every_copy=True)] == ["b1"]


def test_a_copy_that_is_not_yet_complete_is_not_asked(index: SearchIndex, node: type[Node]) -> None:
    two = [
        {"shard": 0, "node": "n1", "state": "STARTED"},
        {"shard": 0, "node": "n2", "state": "INITIALIZING"},
    ]
    answers(node, json_answer({"shards": [two]}), page([], 0))
    assert list(index.live_batches({"A"}, every_copy=True)) == []
    assert preferences(node) == ["_only_nodes:n1"]


def test_where_each_shard_has_one_copy_a_single_search_names_the_nodes_that_have_them(
    index: SearchIndex, node: type[Node]
) -> None:
    # A node that wakes and was given up still takes its own old copy for one; the search may be sent to it.
    answers(node, copies({"n2": [0, 2], "n1": [1]}), page([], 0))
    assert list(index.live_batches({"A"}, every_copy=True)) == []
    assert preferences(node) == ["_only_nodes:n1,n2"]


@pytest.mark.parametrize(
    "copies_of_the_other",
    [
        pytest.param([], id="no copy"),
        pytest.param([{"shard": 1, "node": "n1", "state": "INITIALIZING"}], id="none that is complete"),
    ],
)
def test_a_shard_that_no_copy_answers_for_is_no_empty_shard(
    index: SearchIndex, node: type[Node], copies_of_the_other: list[Any]
) -> None:
    two = [{"shard": 0, "node": n, "state": "STARTED"} for n in ("n1", "n2")]
    for ask in (
        lambda: list(index.live_batches({"A"}, every_copy=True)),
        lambda: index.unchanged({"b0": (7, 1)}),
    ):
        answers(node, json_answer({"shards": [two, copies_of_the_other]}), page([], 0))
        with pytest.raises(Unavailable, match="a shard of the index has no copy that answers searches"):
            ask()


def test_a_bulk_whose_answer_leaves_an_item_out_is_an_outage(index: SearchIndex, node: type[Node]) -> None:
    answers(node, json_answer({"items": [{"index": {"_id": "b0", "status": 200, **VERSION}}]}))
    with pytest.raises(Unavailable, match="a bulk answer out of contract"):
        index.write(documents(2), [])


def test_a_conflict_and_a_missing_document_are_left_to_the_next_read(
    index: SearchIndex, node: type[Node], waits: list[float]
) -> None:
    node.answer = staticmethod(bulk_of({"b0": [409], "b1": [404]}))
    assert index.write(documents(3), []) == Written({"b2": (7, 1)}, [])
    assert len(node.asked) == 1
    assert waits == []


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_call_that_is_pushed_back_is_made_again_after_a_pause(
    index: SearchIndex, node: type[Node], waits: list[float], status: int
) -> None:
    answers(node, refused(status), refused(status), json_answer({"count": 7}))
    assert index.count() == 7
    assert len(node.asked) == 3
    assert len(waits) == 2


def test_a_call_that_is_pushed_back_again_and_again_is_unavailable(
    index: SearchIndex, node: type[Node], waits: list[float]
) -> None:
    answers(node, refused(429))
    with pytest.raises(Unavailable, match="HTTP 429 es_rejected_execution_exception"):
        list(index.live_batches(["A"]))
    assert len(node.asked) == TRIES
    assert len(waits) == TRIES - 1


@pytest.mark.parametrize("status", [400, 404, 409, 413, 500])
def test_any_other_error_is_not_waited_for(
    index: SearchIndex, node: type[Node], waits: list[float], status: int
) -> None:
    answers(node, refused(status, "some_exception"))
    with pytest.raises(Unavailable, match=f"HTTP {status} some_exception"):
        index.get(["b1"])
    assert waits == []


# --- errors that had no name


def calls() -> dict[str, Callable[[SearchIndex], Any]]:
    return {
        "get": lambda i: i.get(["b1"]),
        "search": lambda i: list(i.live_batches(["A"])),
        "bulk": lambda i: i.write(documents(1), []),
        "refresh": lambda i: i.refresh(),
        "delete": lambda i: i.delete_created("b1"),
        "check": lambda i: i.check(),
    }


@pytest.mark.parametrize("name", calls())
@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(json_answer([]), id="a list"),
        pytest.param(json_answer(None), id="null"),
        pytest.param(json_answer(7), id="a number"),
        pytest.param(json_answer("text"), id="text in JSON"),
        pytest.param(json_answer({"docs": {}, "items": {}, "_shards": [], "hits": []}), id="other types"),
        pytest.param(json_answer({"docs": [1], "items": [1], "_shards": 1, "hits": 1, "x": 1}), id="numbers"),
        pytest.param(json_answer({"docs": [{"found": True}], "items": [{}], "x": {}}), id="half of it"),
        pytest.param(Answer(200, b'{"docs": ' + b"[" * 5000), id="cut off, nested too deeply"),
        pytest.param(Answer(200, b"<html>busy</html>", "text/html"), id="a page"),
        pytest.param(Answer(200, b"{", "application/json"), id="no JSON"),
        pytest.param(Answer(200, b"{}", "image/png"), id="a picture"),
    ],
)
def test_an_answer_out_of_contract_is_an_outage(
    index: SearchIndex, node: type[Node], name: str, answer: Answer
) -> None:
    answers(node, answer)
    with pytest.raises(Unavailable, match=r"^Elasticsearch unavailable: "):
        calls()[name](index)


@pytest.mark.parametrize("name", [n for n in calls() if n != "check"])
def test_an_index_that_is_deleted_meanwhile_is_an_outage(
    index: SearchIndex, node: type[Node], name: str
) -> None:
    answers(node, refused(404, "index_not_found_exception"))
    with pytest.raises(Unavailable, match="HTTP 404 index_not_found_exception"):
        calls()[name](index)


@pytest.mark.parametrize("status", [404, 409])
def test_a_document_that_is_gone_or_was_written_since_is_not_deleted(
    index: SearchIndex, node: type[Node], status: int
) -> None:
    answers(node, json_answer({"_shards": SHARDS}), page([{"_id": "b1", **VERSION}], 1), refused(status, "x"))
    index.delete_created("b1")
    assert [a.method for a in node.asked] == ["POST", "POST", "DELETE"]


def test_no_page_of_a_proxy_and_no_piece_of_a_document_is_repeated_in_an_error(
    index: SearchIndex, node: type[Node]
) -> None:
    answers(node, Answer(502, b"<html>" + b"Jane Doe " * 10_000, "text/html"))
    with pytest.raises(Unavailable) as caught:
        index.get(["b1"])
    assert "Jane" not in str(caught.value)
    assert len(str(caught.value)) < 200

    reason = "failed to parse field [name] of type [date]. Preview of field's value: 'Jane Doe'"
    failed = {"type": "document_parsing_exception", "reason": reason}
    answers(node, json_answer({"items": [{"index": {"_id": "b0", "status": 400, "error": failed}}]}))
    (document,) = index.write(documents(1), []).refused
    assert str(document) == (
        "the index refuses document b0: document_parsing_exception: failed to parse field [name] of type [date]."
    )


def test_refused_access_says_what_to_check(index: SearchIndex, node: type[Node]) -> None:
    answers(node, refused(403, "security_exception"))
    with pytest.raises(SettingsError, match=r"refuses access: security_exception\. Check login and grants"):
        index.get(["b1"])


def test_an_index_of_any_name_is_reported_cut(index: SearchIndex, node: type[Node]) -> None:
    answers(node, json_answer({"x" * 9000: {"mappings": {}}}))
    with pytest.raises(SettingsError, match=r"has no sub-field 'createdBy.raw'") as caught:
        index.check()
    assert len(str(caught.value)) < 600


# --- counts that lie


@pytest.mark.parametrize(("shown", "total"), [(0, 2), (1, 2), (3, 2)])
def test_a_search_that_does_not_show_what_it_counts_proves_nothing(
    index: SearchIndex, node: type[Node], shown: int, total: int
) -> None:
    answers(node, page([hit(n) for n in range(shown)], total))
    with pytest.raises(Unavailable, match=f"counts {total} batches but shows {shown}"):
        list(index.live_batches(["A"]))


def paged(node: type[Node], pages: list[list[Any]], total: int) -> None:
    """A search of more than a page: the first look, then the pages of a scroll."""
    answers(
        node,
        page([hit(n) for n in range(DOCS_PER_CALL)], total),
        *(page(some, total) for some in pages),
    )


def test_all_pages_of_a_large_search_are_shown(index: SearchIndex, node: type[Node]) -> None:
    everything = [hit(n) for n in range(2 * DOCS_PER_CALL + 5)]
    paged(
        node, [everything[:DOCS_PER_CALL], everything[DOCS_PER_CALL:-5], everything[-5:], []], len(everything)
    )
    assert {b.batch_id for _, b in index.live_batches(["A"])} == {h["_id"] for h in everything}


def test_a_large_search_that_ends_too_early_proves_nothing(index: SearchIndex, node: type[Node]) -> None:
    everything = [hit(n) for n in range(2 * DOCS_PER_CALL)]
    paged(node, [everything[:DOCS_PER_CALL], everything[-5:], []], len(everything))
    with pytest.raises(Unavailable, match="counts 2000 batches but shows 1005"):
        list(index.live_batches(["A"]))
    assert (node.asked[-1].method, node.asked[-1].target) == ("DELETE", "/_search/scroll")


def test_a_page_that_comes_again_and_again_ends(index: SearchIndex, node: type[Node]) -> None:
    paged(node, [[hit(n) for n in range(DOCS_PER_CALL)]], 1500)
    with pytest.raises(Unavailable, match="counts 1500 batches but shows 2000"):
        list(index.live_batches(["A"]))


# --- what a document may hold


@pytest.mark.parametrize(
    "course",
    ["\ud800", "c" * 70_000, True, None, ["c", "d"]],
    ids=["surrogate", "long", "true", "null", "list"],
)
def test_a_course_that_no_row_can_have_is_none(index: SearchIndex, node: type[Node], course: Any) -> None:
    answers(node, page([{"_id": "b1", "_source": {**OWNERS, "courseId": course}}], 1))
    assert list(index.live_batches(["A"])) == [(frozenset(("a", "m")), BatchId("", "b1"))]


def test_a_course_is_read_as_a_search_and_a_read_by_id_see_it(index: SearchIndex, node: type[Node]) -> None:
    source = {**OWNERS, "courseId": [7]}
    answers(node, page([{"_id": "b1", **VERSION, "_source": source}], 1))
    assert [batch for _, batch in index.live_batches(["A"])] == [BatchId("7", "b1")]
    assert index.get(["b1"])["b1"][0].course_id == "7"


def test_owners_of_any_type_differ_from_the_rows_and_break_nothing(
    index: SearchIndex, node: type[Node]
) -> None:
    odd = {"createdBy": ["A"], "mentors": {"a": 1}}
    answers(node, page([{"_id": "b1", **VERSION, "_source": odd}], 1))
    (document,) = index.get(["b1"])["b1"]
    found: Any = document.owners
    assert found == (["A"], ({"a": 1},))


def test_documents_that_lie_under_ids_of_their_own_are_found_by_the_batch_that_they_name(
    index: SearchIndex, node: type[Node]
) -> None:
    def answer(asked: Asked) -> Answer:
        if ids := asked_for(asked):
            own = [i for i in ids if i.startswith("own")]
            return page([{"_id": i, **VERSION, "_source": OWNERS} for i in own], len(own))
        return page(
            [{"_id": "own-1", "_source": {"identifier": "b1"}}, {"_id": "own-2", "_source": {"id": "B1"}}], 2
        )

    node.answer = staticmethod(answer)
    (document,) = index.get(["b1"])["b1"]
    assert (document.batch_id, document.document_id) == ("b1", "own-1")

    node.asked = []
    assert index.get(["b1"])["b1"] == (document,)
    assert [sorted(asked_for(a)) for a in node.asked] == [["b1", "own-1"]]


@pytest.mark.parametrize(
    ("found", "says"),
    [
        ({"a": {}, "b": {}}, r"'course-batch' stands for a, b: set 'es\.course_batch\.index'.* one index"),
        ({}, "stands for no index"),
        ({"a": {"filter": {"term": {"status": 1}}}}, r"Alias 'course-batch' of index 'a' has filter"),
        ({"a": {"is_write_index": False}}, "has is_write_index"),
        ({"a": {"index_routing": "1", "search_routing": "1"}}, "has index_routing, search_routing"),
    ],
)
def test_an_alias_that_is_not_one_whole_index_is_refused(
    index: SearchIndex, node: type[Node], found: dict[str, Any], says: str
) -> None:
    answers(
        node,
        json_answer({n: {"aliases": {"course-batch": a}, "mappings": MAPPINGS} for n, a in found.items()}),
    )
    with pytest.raises(SettingsError, match=says):
        index.check()


@pytest.mark.parametrize("alias", [{}, {"is_write_index": True}, {"is_hidden": True}])
def test_an_alias_of_one_index_is_as_good_as_the_index(
    index: SearchIndex, node: type[Node], alias: dict[str, Any]
) -> None:
    answers(
        node,
        json_answer(
            {"batches-1": {"aliases": {"course-batch": alias, "x": {"filter": {}}}, "mappings": MAPPINGS}}
        ),
    )
    index.check()


@pytest.mark.parametrize(
    ("of_roles", "hidden"),
    [
        ([{"names": ["course-*"], "field_security": [{"grant": ["createdBy"]}]}], "field security"),
        ([{"names": ["course-batch"], "query": ['{"term": {"status": 1}}']}], "query for documents"),
        ([{"names": ["course-batch"], "field_security": [{"grant": ["a"]}]}, {"names": ["*"]}], ""),
        ([{"names": ["course-batch"], "query": ["{}"]}, {"names": ["*"]}], ""),
        ([{"names": ["other"], "field_security": [{"grant": ["a"]}]}], ""),
        ([], ""),
    ],
    ids=[
        "fields",
        "documents",
        "fields by another role",
        "documents by another role",
        "another index",
        "none",
    ],
)
def test_a_role_that_sees_a_part_of_the_documents_is_refused(
    index: SearchIndex, node: type[Node], of_roles: list[Any], hidden: str
) -> None:
    answers(
        node,
        json_answer({"batches-1": {"aliases": {}, "mappings": MAPPINGS}}),
        json_answer({"indices": of_roles}),
    )
    if hidden:
        with pytest.raises(SettingsError, match=rf"sees a part of the documents .* take its {hidden} away"):
            index.check()
    else:
        index.check()
    assert node.asked[-1].target == "/_security/user/_privileges"


def test_a_document_is_written_as_it_was_read_but_for_its_owners(
    index: SearchIndex, node: type[Node]
) -> None:
    source = {**OWNERS, "name": "\ud800 é", "n": 12345678901234567890, "x": 1.0, "deep": {"a": [None, True]}}
    node.answer = staticmethod(bulk_of({}))
    read = Document("b1", "A", ("m",), 3, 2, "c", None, source)
    index.write([(read, None, ("M", "n"))], [])
    operation, document = node.asked[-1].lines
    assert operation == {"index": {"_id": "b1", "if_seq_no": 3, "if_primary_term": 2, "pipeline": "_none"}}
    assert document == {**source, "createdBy": None, "mentors": ["M", "n"]}
