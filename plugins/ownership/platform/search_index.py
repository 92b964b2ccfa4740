"""The search index of course batches: Elasticsearch 7.17 to 9.

Only owner fields are ever written, from the row, under the sequence number that was read before
the row. A missing document is created from the row.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple, TypeVar

import structlog
from elastic_transport import SerializationError, TransportError
from elasticsearch import (
    ApiError,
    AuthenticationException,
    AuthorizationException,
    ConflictError,
    Elasticsearch,
    NotFoundError,
)
from more_itertools import chunked

from ownership.domain.errors import SettingsError, Unavailable
from ownership.domain.event import folded
from ownership.domain.plan import LIVE_STATUSES, BatchId, Document
from ownership.platform.lms import Owners, owners, stored
from ownership.platform.pools import ahead

log = structlog.get_logger(__name__)

PART = "Elasticsearch"
DOCS_PER_CALL = 1000
DOCS_PER_PAGE = 5000
"""Of a walk through the whole index: below the 10,000 hits that it shows at once unless it is told otherwise."""
WALKS_AT_ONCE = 2
"""Parts of one point in time: the index reads one while the other's page is taken apart."""
USERS_PER_SEARCH = 500
TRIES = 4
"""Tries of what an overloaded index pushes back; waits of 0.5, 1, 2 s (± half) between them."""
OVERLOADED = (429, 502, 503, 504)
"""Statuses, of a call or of an item, that end by themselves when less is asked."""
_TOLD = 300
"""Most characters of the index's own words in an error: a proxy answers with a page."""

T = TypeVar("T")

# Column of course_batch -> field of the document, as the LMS writes it (Sunbird-Lern lms-service).
_FIELDS = {
    "courseid": "courseId",
    "batchid": "batchId",
    "name": "name",
    "description": "description",
    "createdby": "createdBy",
    "createddate": "createdDate",
    "createdfor": "createdFor",
    "mentors": "mentors",
    "enrollmenttype": "enrollmentType",
    "status": "status",
    "startdate": "startDate",
    "enddate": "endDate",
    "enrollmentenddate": "enrollmentEndDate",
    "updateddate": "updatedDate",
    "cert_templates": "cert_templates",
}


class _PointInTime(NamedTuple):
    """What names it, and how long it is kept after each page."""

    id: str
    keep_alive: str


class Seen(NamedTuple):
    """A document as a search shows it in passing: its id, and what stands in it, whatever that is."""

    batch_id: str
    course_id: Any
    created_by: Any
    mentors: Any


class SearchIndex:
    """Documents of one index."""

    def __init__(self, client: Elasticsearch, index: str) -> None:
        # The client would ask an overloaded index again at once; here it gets a pause first.
        self._es = client.options(retry_on_status=())
        self._index = index

    def check(self) -> None:
        """Verify that the index is there and can be searched by owner.

        :raises SettingsError: saying what is missing and what to set.
        """
        try:
            mappings = _call(lambda: self._es.indices.get_mapping(index=self._index), NotFoundError)
        except Unavailable as e:
            raise Unavailable(
                PART, f"{e}; is the host of Connection 'elasticsearch_default' right?"
            ) from None
        except NotFoundError:
            raise SettingsError(
                f"Elasticsearch has no index '{self._index}': set 'es.course_batch.index', "
                "or point Connection 'elasticsearch_default' to the platform's cluster."
            ) from None
        with _in_contract("mapping"):
            for name, body in mappings.items():
                properties = body["mappings"].get("properties", {})
                for field in ("createdBy", "mentors"):
                    if "raw" not in properties.get(field, {}).get("fields", {}):
                        raise SettingsError(
                            f"Index '{_cut(name)}' has no sub-field '{field}.raw', so nothing can be proven by it: "
                            "set 'es.course_batch.index' to the platform's course batches."
                        )

    def get(self, batch_ids: Collection[str]) -> dict[str, Document]:
        """The documents that exist, by batch id, with their sequence numbers."""
        found: dict[str, Document] = {}
        for some in chunked(sorted(batch_ids), DOCS_PER_CALL):
            answer = _call(
                lambda some=some: self._es.mget(  # type: ignore[misc]
                    index=self._index,
                    ids=list(some),
                    source_includes=["courseId", "createdBy", "mentors"],
                )
            )
            with _in_contract("mget"):
                for _, doc in zip(some, answer["docs"], strict=True):  # each that was asked for is answered
                    if "error" in doc:
                        raise Unavailable(PART, f"mget: {_reason(doc['error'])}")
                    if doc.get("found"):
                        document = _document(doc)
                        found[document.batch_id] = document
        return found

    def write(
        self,
        updates: Iterable[tuple[Document, str | None, tuple[str, ...]]],
        creates: Iterable[Mapping[str, Any]],
    ) -> None:
        """One bulk: owner fields under their sequence number, and missing documents from rows.

        A document that changed meanwhile refuses the write: callers read again before they believe.

        :raises Unavailable: if a document is refused for any other reason.
        """
        lines: list[tuple[dict[str, Any], dict[str, Any]]] = [
            (
                {"update": {"_id": d.batch_id, "if_seq_no": d.seq_no, "if_primary_term": d.primary_term}},
                {"doc": {"createdBy": created_by, "mentors": list(mentors)}},
            )
            for d, created_by, mentors in updates
        ]
        lines += [({"create": {"_id": row["batchid"]}}, document_of(row)) for row in creates]
        for some in chunked(lines, DOCS_PER_CALL):
            self._bulk(list(some))

    def _bulk(self, lines: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> None:
        """One bulk; what an overloaded index pushes back is sent again, and nothing else."""
        why = ""
        for attempt in range(TRIES):
            if attempt:
                _pause(attempt, why)
            operations = [part for line in lines for part in line]
            answer = _call(
                lambda ops=operations: self._es.bulk(  # type: ignore[misc]
                    index=self._index, operations=ops, filter_path=["items.*.status", "items.*.error"]
                )
            )
            with _in_contract("bulk"):
                results = [_item(item) for item in answer["items"]]
                again = []
                for line, (status, reason) in zip(lines, results, strict=True):
                    if status in OVERLOADED:
                        again.append(line)
                        why = reason
                    elif status >= 300 and status not in (404, 409):
                        raise Unavailable(PART, reason)
            if not again:
                return
            lines = again
        raise Unavailable(PART, f"{why}, for {len(lines)} documents after {TRIES} tries")

    def delete_created(self, batch_id: str) -> None:
        """Take a document back that was created for a row that has gone meanwhile."""
        doc = self.get([batch_id]).get(batch_id)
        if doc is None:
            return
        try:
            _call(
                lambda: self._es.delete(
                    index=self._index, id=batch_id, if_seq_no=doc.seq_no, if_primary_term=doc.primary_term
                ),
                NotFoundError,
                ConflictError,
            )
        except (NotFoundError, ConflictError):  # gone already, or changed since: not ours any more
            return

    def refresh(self) -> None:
        """Make everything written so far visible to searches.

        :raises Unavailable: also if a shard did not refresh: the proof must not miss its documents.
        """
        answer = _call(lambda: self._es.indices.refresh(index=self._index))
        with _in_contract("refresh"):
            if failed := _number(answer["_shards"]["failed"]):
                raise Unavailable(PART, f"{failed} shards did not refresh")

    def live_batches(self, user_ids: Collection[str]) -> Iterator[Owners]:
        """Every live batch whose document names one of `user_ids`, whatever their number.

        :raises Unavailable: also on a partial answer: a missing shard is no empty shard.
        """
        for some in chunked(sorted({folded(u) for u in user_ids}), USERS_PER_SEARCH):
            query = {
                "bool": {
                    "filter": [
                        {"terms": {"status": list(LIVE_STATUSES)}},
                        {
                            "bool": {
                                "should": [
                                    {"terms": {"createdBy.raw": list(some)}},
                                    {"terms": {"mentors.raw": list(some)}},
                                ],
                                "minimum_should_match": 1,
                            }
                        },
                    ]
                }
            }
            yield from self._all_hits(query)

    def _all_hits(self, query: dict[str, Any]) -> Iterator[Owners]:
        fields = ["batchId", "courseId", "createdBy", "mentors"]
        first = _call(
            lambda: self._es.search(
                index=self._index,
                query=query,
                size=DOCS_PER_CALL,
                source_includes=fields,
                track_total_hits=True,
                allow_partial_search_results=False,
            )
        )
        with _in_contract("search"):
            shown = _shown(first)
            total = _number(first["hits"]["total"]["value"])
            if total <= DOCS_PER_CALL and len(shown) != total:
                raise Unavailable(PART, f"counts {total} batches but shows {len(shown)}")
        if total <= DOCS_PER_CALL:
            yield from shown
            return
        with self._point_in_time("2m") as pit:
            for hits in self._pages(pit, query, fields, DOCS_PER_CALL):
                with _in_contract("search"):
                    found = [_hit(hit) for hit in hits]
                yield from found

    def count(self) -> int:
        """Number of documents, as a search shows them."""
        answer = _call(lambda: self._es.count(index=self._index))
        with _in_contract("count"):
            return _number(answer["count"])

    def documents(self) -> Iterator[list[Seen]]:
        """Every document as it is at one point in time, in pages, in the index's own order.

        That order is what makes it quick: a document that is asked for by its id costs three times as much.

        :raises Unavailable: also on a partial answer.
        """
        with self._point_in_time("5m") as pit:
            walks = (
                self._pages(pit, {"match_all": {}}, ["courseId", "createdBy", "mentors"], DOCS_PER_PAGE, n)
                for n in range(WALKS_AT_ONCE)
            )
            for hits in ahead(*walks):
                with _in_contract("search"):
                    page = [_seen(hit) for hit in hits]
                yield page

    @contextmanager
    def _point_in_time(self, keep_alive: str) -> Iterator[_PointInTime]:
        """The index as it is now; it is kept for `keep_alive` after each page."""
        with _in_contract("point in time"):
            opened = _call(lambda: self._es.open_point_in_time(index=self._index, keep_alive=keep_alive))
            pit = _text(opened["id"])
        try:
            yield _PointInTime(pit, keep_alive)
        finally:
            with suppress(ApiError, TransportError):  # it ends by itself after its keep-alive
                self._es.close_point_in_time(id=pit)

    def _pages(
        self, pit: _PointInTime, query: dict[str, Any], fields: list[str], size: int, part: int | None = None
    ) -> Iterator[list[Any]]:
        """All hits, or those of one of `WALKS_AT_ONCE` parts, in pages of `size`."""
        cut = None if part is None else {"id": part, "max": WALKS_AT_ONCE}
        name = pit.id
        after: list[Any] | None = None
        seen = total = 0
        while True:
            page = _call(
                lambda name=name, after=after: self._es.search(  # type: ignore[misc]
                    pit={"id": name, "keep_alive": pit.keep_alive},
                    query=query,
                    size=size,
                    source_includes=fields,
                    sort=[{"_shard_doc": "asc"}],
                    search_after=after,
                    track_total_hits=after is None,
                    allow_partial_search_results=False,
                    slice=cut,
                )
            )
            with _in_contract("search"):
                _whole(page)
                shown = list(page["hits"]["hits"])
                seen += len(shown)
                if after is None:
                    total = _number(page["hits"]["total"]["value"])
                last = len(shown) < size
                # Neither an end too early nor a page that comes again and again is believed.
                if seen > total or (last and seen != total):
                    raise Unavailable(PART, f"counts {total} batches but shows {seen}")
                if not last:
                    name, after = page.get("pit_id", name), shown[-1]["sort"]
            yield shown
            if last:
                return


def document_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """A document made from a whole row, with the fields that the LMS writes."""
    doc = {field: _plain(row[column]) for column, field in _FIELDS.items() if row.get(column) is not None}
    return {**doc, "id": row["batchid"], "identifier": row["batchid"]}


def _call(action: Callable[[], T], *wanted: type[ApiError]) -> T:
    """What the index answers; an overloaded one is asked again, a few times, ever later.

    `wanted`: errors that tell the caller something, and are raised as they are.

    :raises Unavailable: for any other error.
    :raises SettingsError: if the index refuses access.
    """
    for attempt in range(1, TRIES + 1):
        try:
            return action()
        except wanted:
            raise
        except (AuthenticationException, AuthorizationException) as e:
            if "cluster_block_exception" in str(
                e.message
            ):  # read-only, by an operator or a full disk: it ends
                raise Unavailable(PART, _said(e)) from None
            raise SettingsError(
                f"Elasticsearch refuses access: {_said(e)}. Check login and grants of Connection "
                "'elasticsearch_default'."
            ) from None
        except ApiError as e:
            why = f"HTTP {e.meta.status} {_said(e)}"
            if e.meta.status not in OVERLOADED:
                raise Unavailable(PART, why) from None
        except SerializationError:  # its text is the whole answer
            raise Unavailable(PART, "answers with something that is no JSON") from None
        except TransportError as e:
            raise Unavailable(PART, f"{type(e).__name__}: {_cut(e)}") from None
        except RecursionError:
            raise Unavailable(PART, "answers with JSON that is nested too deeply") from None
        if attempt < TRIES:
            _pause(attempt, why)
    raise Unavailable(PART, f"{why}, after {TRIES} tries")


def _pause(attempt: int, why: str) -> None:
    """Leave an overloaded index alone for a while. `attempt` counts from 1."""
    seconds = 0.5 * 2 ** (attempt - 1) * random.uniform(0.5, 1.5)
    log.warning("Elasticsearch pushes back", why=why, attempt=attempt, again_in=round(seconds, 1))
    time.sleep(seconds)


@contextmanager
def _in_contract(what: str) -> Iterator[None]:
    """An answer without the parts that it should have is an outage: a proxy's, or of another product.

    :raises Unavailable: naming `what` was answered.
    """
    try:
        yield
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, RecursionError) as e:
        raise Unavailable(PART, f"a {what} answer out of contract ({type(e).__name__})") from None


def _number(value: Any) -> int:
    """:raises TypeError: if it is no whole number."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError("no whole number")
    return value


def _text(value: Any) -> str:
    """:raises TypeError: if it is no text that the other store can hold."""
    if not isinstance(value, str) or not stored(value):
        raise TypeError("no text")
    return value


def _said(error: ApiError) -> str:
    """The index's own word for an error. Of anything else that answers in its place, no text is repeated."""
    body = error.body
    return _cut(error.message) if isinstance(body, Mapping) and "error" in body else "without a reason"


def _cut(words: object) -> str:
    """The first words of a reason, without the piece of the document that some end with."""
    return str(words).split("Preview of field's value", 1)[0].strip()[:_TOLD]


def _reason(error: Any) -> str:
    """What an item's error says: its kind, and the index's own words, cut."""
    if not isinstance(error, Mapping):
        return "no reason given"
    return f"{_cut(error.get('type'))}: {_cut(error.get('reason'))}"


def _item(item: Any) -> tuple[int, str]:
    """Status of one item of a bulk, and why it failed."""
    (result,) = item.values()
    return _number(result["status"]), _reason(result.get("error"))


def _shown(answer: Any) -> list[Owners]:
    """The hits of a search.

    :raises Unavailable: if it timed out or lost a shard: then it shows a part only, and proves nothing.
    """
    _whole(answer)
    return [_hit(hit) for hit in answer["hits"]["hits"]]


def _whole(answer: Any) -> None:
    """:raises Unavailable: if a search timed out or lost a shard."""
    if answer.get("timed_out") or _number(answer["_shards"]["failed"]):
        raise Unavailable(PART, "answered a search from a part of its shards only")


def _document(doc: Mapping[str, Any]) -> Document:
    source = doc.get("_source") or {}
    mentors = source.get("mentors") or []
    mentors = mentors if isinstance(mentors, list) else [mentors]
    course = source.get("courseId")
    return Document(
        _text(doc["_id"]),
        source.get("createdBy"),
        tuple(mentors),
        _number(doc["_seq_no"]),
        _number(doc["_primary_term"]),
        course if isinstance(course, str) else None,
    )


def _hit(hit: Mapping[str, Any]) -> Owners:
    source = hit.get("_source") or {}
    course = source.get("courseId")
    return owners(source), BatchId(course if stored(course) else "", _text(hit["_id"]))


def _seen(hit: Mapping[str, Any]) -> Seen:
    source = hit.get("_source") or {}
    return Seen(_text(hit["_id"]), source.get("courseId"), source.get("createdBy"), source.get("mentors"))


def _plain(value: Any) -> Any:
    """Driver's collection types as plain JSON values."""
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [_plain(v) for v in value]
    if hasattr(value, "items"):
        return {k: _plain(v) for k, v in value.items()}
    return value
