"""Whatever a service or the index answers: a fact in contract, or an outage by name."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from hypothesis import note

from ownership.domain.errors import OwnershipError, SettingsError, Unavailable
from ownership.domain.plan import BatchId, Document
from ownership.platform.http_service import Service
from ownership.platform.lms import BatchSearch, IncompleteAnswer
from ownership.platform.search_index import SearchIndex
from ownership.platform.user_org import Refusal, Standing, User, Users
from tests.fuzz.effort import Random, count, fuzzed
from tests.fuzz.near_valid import PEOPLE, changed, pick, search_answer, spoiled, user_answer
from tests.unit.conftest import Request, Server
from tests.unit.fake_index import Answer, Asked, Node, fake_index


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    started = Server()
    yield started
    started.stop()


def check_error(e: OwnershipError) -> str:
    """Its text can be stored, logged and shown: no megabytes, no control characters, no names of people."""
    said = str(e)
    said.encode("utf-8")
    assert said.isprintable(), said
    assert len(said) <= 1500, len(said)
    assert not any(detail in said for detail in PEOPLE.values()), said
    return type(e).__name__


@pytest.fixture(scope="module")
def userorg(server: Server) -> Iterator[Users]:
    with Service("User-Org", lambda: server.url, tries=1) as service:
        yield Users(service, "/read/")


@pytest.fixture(scope="module")
def lms(server: Server) -> Iterator[BatchSearch]:
    with Service("LMS", lambda: server.url, tries=1) as service:
        yield BatchSearch(service, "/search")


@fuzzed(0.1)
def test_a_user_is_known_unknown_or_the_service_is_out(
    random: Random, server: Server, userorg: Users
) -> None:
    user = pick(random, ("A-1", "é中", "a/b"))
    status, body = user_answer(random, user)
    note(f"{status} {body[:2000]!r}")
    server.answer = lambda _request, _handler: (status, body)
    try:
        found = userorg.read(user)
    except Unavailable as e:
        count("answers of User-Org", check_error(e))
        return
    count("answers of User-Org", type(found).__name__)
    if isinstance(found, User):
        assert status == 200
        assert found.organisation_id
    else:
        assert isinstance(found, Refusal)
        if status == 200:
            assert found.standing is Standing.DELETED
            return
        assert 400 <= status < 500
        assert status not in (401, 403, 408, 429)
        said = json.loads(body)
        assert said["responseCode"]
        assert found.standing is Standing.UNKNOWN or said["params"]["err"]


@fuzzed(0.1)
def test_a_search_shows_all_that_it_counts_or_the_index_is_asked_or_the_service_is_out(
    random: Random, server: Server, lms: BatchSearch
) -> None:
    totals = (None,) * 6 + (0, 1, 2, 3, 6, 10, -1, 10_000)
    pages = [search_answer(random, random.randrange(4), pick(random, totals)) for _ in range(3)]
    note(repr(pages)[:3000])
    given: list[tuple[int, bytes]] = []

    def answer(_request: Request, _handler: BaseHTTPRequestHandler) -> tuple[int, bytes]:
        page = pages[min(len(given), 2)]
        given.append(page)  # creators and mentors are asked for at the same time
        return page

    server.answer = answer
    try:
        found = lms.live_batches(["A-1"])
    except IncompleteAnswer:
        count("answers of the LMS", "the index is asked")
        return
    except Unavailable as e:
        count("answers of the LMS", check_error(e))
        return
    count("answers of the LMS", "batches")
    for users, batch in found:
        assert isinstance(batch, BatchId)
        for part in batch:  # a row's key
            assert len(part.encode("utf-8")) <= 65_535
        assert all(isinstance(u, str) for u in users)
    counts = [json.loads(raw)["result"]["response"]["count"] for _, raw in given]
    assert all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in counts)


# --- the index

OWNER = {"createdBy": "A-1", "mentors": ["m", "A-1"]}


@pytest.fixture(scope="module")
def fake() -> Iterator[tuple[SearchIndex, type[Node]]]:
    with fake_index() as made:
        yield made


def shards() -> dict[str, int]:
    return {"total": 5, "successful": 5, "skipped": 0, "failed": 0}


def hits(n: int, total: int | None = None) -> dict[str, Any]:
    """A search's answer."""
    found = [
        {"_id": f"b{i}", "_score": None, "_seq_no": i, "_primary_term": 1, "_source": {"batchId": f"b{i}", "courseId": f"c{i}", **OWNER}, "sort": [i]}
        for i in range(n)
    ]  # fmt: skip
    return {
        "took": 1,
        "timed_out": False,
        "_shards": shards(),
        "_scroll_id": "s",
        "hits": {"total": {"value": n if total is None else total, "relation": "eq"}, "hits": found},
    }


def bulk(random: Random, ids: Sequence[str]) -> dict[str, Any]:
    """A bulk's answer: some items fail."""
    kinds = (
        "version_conflict_engine_exception",
        "es_rejected_execution_exception",
        "mapper_parsing_exception",
    )
    statuses = (200,) * 12 + (201, 404, 409, 429, 429, 400, 403, 503, 500)
    reason = "failed to parse field [name]"
    items: list[Any] = []
    for i in ids:
        status = pick(random, statuses)
        failed = {"error": {"type": pick(random, kinds), "reason": reason}}
        version = {"_seq_no": 7, "_primary_term": 1}
        items.append({"index": {"_id": i, "status": status, **(failed if status > 299 else version)}})
    return {"took": 1, "errors": True, "items": items}


def answered(random: Random, body: Any) -> Answer:
    """How the index answers with this, perhaps with something wrong."""
    kind = random.randrange(8)
    if kind >= 5:
        body = changed(random, body)
    raw = json.dumps(body).encode("utf-8", "surrogatepass")
    if kind == 7:
        raw = spoiled(random, raw)
    status = pick(random, (200,) * 30 + (400, 401, 403, 404, 409, 413, 429, 500, 503))
    if status != 200 and random.randrange(2):
        raw = json.dumps(
            {"error": changed(random, {"type": "t_exception", "reason": "r"}), "status": status}
        ).encode()
    mime = pick(
        random, ("application/json",) * 30 + ("text/html", "application/vnd.elasticsearch+json", "x/y", "")
    )
    note(f"{status} {mime} {raw[:2000]!r}")
    return Answer(status, raw, mime)


def outcome(what: str, call: Callable[[], Any]) -> Any:
    """What a call answers; None where it ends in an error by name."""
    try:
        return call()
    except (Unavailable, SettingsError) as e:
        count(f"answers of the index: {what}", check_error(e))
    return None


def answering(node: type[Node], answer: Callable[[Asked], Answer]) -> list[Answer]:
    """Let the node answer so; what it answered."""
    given: list[Answer] = []

    def kept(asked: Asked) -> Answer:
        given.append(answer(asked))
        return given[-1]

    node.asked, node.answer = [], staticmethod(kept)
    return given


Fake = tuple[SearchIndex, type[Node]]


@fuzzed(0.1)
def test_a_search_by_ids_gives_documents_or_the_index_is_out(random: Random, fake: Fake) -> None:
    index, node = fake
    asked = ["b0", "b1", "b2", "x"]
    # The second search is about documents of x under other ids.
    answering(node, lambda _: answered(random, hits(3 if len(node.asked) == 1 else 0)))
    found = outcome("search by ids", lambda: index.get(asked))
    if found is not None:
        count("answers of the index: search by ids", "documents")
        documents = [d for of_batch in found.values() for d in of_batch]
        assert all(isinstance(d, Document) and d in found[d.batch_id] for d in documents)
        assert all(isinstance(d.seq_no, int) and isinstance(d.primary_term, int) for d in documents)


@fuzzed(0.1)
def test_a_search_of_the_index_shows_all_that_it_counts_or_the_index_is_out(
    random: Random, fake: Fake
) -> None:
    index, node = fake
    given = answering(
        node, lambda _: answered(random, hits(random.randrange(4), pick(random, (None,) * 9 + (0, 2, 5))))
    )
    found = outcome("search", lambda: list(index.live_batches(["A-1"])))
    if found is not None:
        count("answers of the index: search", "batches")
        assert all(len(part.encode("utf-8")) <= 65_535 for _, batch in found for part in batch)
        assert len(found) == json.loads(given[-1].body)["hits"]["total"]["value"]


@fuzzed(0.1)
def test_a_bulk_is_written_or_the_index_is_out(random: Random, fake: Fake) -> None:
    index, node = fake
    documents = [Document(f"b{n}", "A-1", (), n, 1) for n in range(4)]
    given = answering(
        node,
        lambda asked: answered(random, bulk(random, [line["index"]["_id"] for line in asked.lines[::2]])),
    )

    def write() -> bool:
        index.write([(d, "b-2", ("m",)) for d in documents], [])
        return True

    if outcome("bulk", write):
        count("answers of the index: bulk", f"written, or to be read again, in {min(len(given), 4)} calls")
        statuses = [next(iter(item.values()))["status"] for item in json.loads(given[-1].body)["items"]]
        assert all(s not in (401, 403, 429, 502, 503, 504) for s in statuses)


@fuzzed(0.05)
def test_a_check_refresh_and_delete_end_or_are_refused_by_name(random: Random, fake: Fake) -> None:
    index, node = fake
    raw = {"fields": {"raw": {"type": "keyword"}}, "type": "text"}
    what = pick(random, ("check", "refresh", "delete"))
    given: Any = {"_shards": shards()}
    call: Callable[[], None] = index.refresh
    if what == "check":
        given = {"course-batch": {"mappings": {"properties": {"createdBy": raw, "mentors": raw}}}}
        call = index.check
    elif what == "delete":
        given = hits(1)
        call = partial(index.delete_created, "b0")
    answering(node, lambda _: answered(random, given))

    def done() -> bool:
        call()
        return True

    if outcome(what, done):
        count(f"answers of the index: {what}", "done")


@pytest.fixture(autouse=True, scope="module")
def no_waits() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("time.sleep", lambda *_: None)
        yield
