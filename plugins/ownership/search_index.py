"""The search index of course batches: Elasticsearch 7.17 to 9.

Only owner fields are ever written, from the row, under the sequence number that was read before
the row. A missing document is created from the row.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

from elastic_transport import TransportError
from elasticsearch import (
    ApiError,
    AuthenticationException,
    AuthorizationException,
    Elasticsearch,
    NotFoundError,
)

from ownership.batches import Owners, owners
from ownership.chunks import chunks
from ownership.errors import SettingsError, Unavailable
from ownership.events import folded
from ownership.plan import LIVE_STATUSES, BatchId

PART = "Elasticsearch"
DOCS_PER_CALL = 1000
USERS_PER_SEARCH = 500

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


class Document(NamedTuple):
    """The owner fields of a document, and the sequence number they were read at."""

    batch_id: str
    created_by: str | None
    mentors: tuple[str, ...]
    seq_no: int
    primary_term: int

    @property
    def owners(self) -> tuple[str | None, tuple[str, ...]]:
        """The two fields that a transfer may change."""
        return self.created_by, self.mentors


class SearchIndex:
    """Documents of one index."""

    def __init__(self, client: Elasticsearch, index: str) -> None:
        self._es = client
        self._index = index

    def check(self) -> None:
        """Verify that the index is there and can be searched by owner.

        :raises SettingsError: saying what is missing and what to set.
        """
        try:
            mappings = _call(lambda: self._es.indices.get_mapping(index=self._index))
        except Unavailable as e:
            raise Unavailable(
                PART, f"{e}; is the host of Connection 'elasticsearch_default' right?"
            ) from None
        except NotFoundError:
            raise SettingsError(
                f"Elasticsearch has no index '{self._index}': set 'es.course_batch.index', "
                "or point Connection 'elasticsearch_default' to the platform's cluster."
            ) from None
        for name, body in mappings.items():
            properties = body["mappings"].get("properties", {})
            for field in ("createdBy", "mentors"):
                if "raw" not in properties.get(field, {}).get("fields", {}):
                    raise SettingsError(
                        f"Index '{name}' has no sub-field '{field}.raw', so nothing can be proven by it: "
                        "set 'es.course_batch.index' to the platform's course batches."
                    )

    def get(self, batch_ids: Collection[str]) -> dict[str, Document]:
        """The documents that exist, by batch id, with their sequence numbers."""
        found: dict[str, Document] = {}
        for some in chunks(sorted(batch_ids), DOCS_PER_CALL):
            answer = _call(
                lambda some=some: self._es.mget(  # type: ignore[misc]
                    index=self._index, ids=list(some), source_includes=["createdBy", "mentors"]
                )
            )
            for doc in answer["docs"]:
                if "error" in doc:
                    raise Unavailable(PART, doc["error"].get("reason", "mget failed"))
                if doc.get("found"):
                    found[doc["_id"]] = _document(doc)
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
        for some in chunks(lines, DOCS_PER_CALL):
            operations = [part for line in some for part in line]
            answer = _call(lambda ops=operations: self._es.bulk(index=self._index, operations=ops))  # type: ignore[misc]
            for item in answer["items"]:
                (result,) = item.values()
                if result["status"] >= 300 and result["status"] not in (404, 409):
                    error = result.get("error", {})
                    raise Unavailable(PART, f"{error.get('type')}: {error.get('reason')}")

    def delete_created(self, batch_id: str) -> None:
        """Take a document back that was created for a row that has gone meanwhile."""
        doc = self.get([batch_id]).get(batch_id)
        if doc is None:
            return
        try:
            _call(
                lambda: self._es.delete(
                    index=self._index, id=batch_id, if_seq_no=doc.seq_no, if_primary_term=doc.primary_term
                )
            )
        except (NotFoundError, ConflictSeen):
            return

    def refresh(self) -> None:
        """Make everything written so far visible to searches.

        :raises Unavailable: also if a shard did not refresh: the proof must not miss its documents.
        """
        answer = _call(lambda: self._es.indices.refresh(index=self._index))
        if answer["_shards"]["failed"]:
            raise Unavailable(PART, f"{answer['_shards']['failed']} shards did not refresh")

    def live_batches(self, user_ids: Collection[str]) -> Iterator[Owners]:
        """Every live batch whose document names one of `user_ids`, whatever their number.

        :raises Unavailable: also on a partial answer: a missing shard is no empty shard.
        """
        for some in chunks(sorted({folded(u) for u in user_ids}), USERS_PER_SEARCH):
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
        _whole(first)
        if first["hits"]["total"]["value"] <= DOCS_PER_CALL:
            yield from map(_hit, first["hits"]["hits"])
            return
        pit = _call(lambda: self._es.open_point_in_time(index=self._index, keep_alive="2m"))["id"]
        try:
            after: list[Any] | None = None
            while True:
                page = _call(
                    lambda pit=pit, after=after: self._es.search(  # type: ignore[misc]
                        pit={"id": pit, "keep_alive": "2m"},
                        query=query,
                        size=DOCS_PER_CALL,
                        source_includes=fields,
                        sort=[{"_shard_doc": "asc"}],
                        search_after=after,
                        track_total_hits=False,
                        allow_partial_search_results=False,
                    )
                )
                _whole(page)
                hits = page["hits"]["hits"]
                yield from map(_hit, hits)
                if len(hits) < DOCS_PER_CALL:
                    return
                pit, after = page.get("pit_id", pit), hits[-1]["sort"]
        finally:
            with suppress(ApiError, TransportError):  # it ends by itself after its keep-alive
                self._es.close_point_in_time(id=pit)


def document_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """A document made from a whole row, with the fields that the LMS writes."""
    doc = {field: _plain(row[column]) for column, field in _FIELDS.items() if row.get(column) is not None}
    return {**doc, "id": row["batchid"], "identifier": row["batchid"]}


class ConflictSeen(Exception):
    """A sequence number that was read is no longer the document's."""


def _call(action: Callable[[], T]) -> T:
    try:
        return action()
    except NotFoundError:
        raise
    except (AuthenticationException, AuthorizationException) as e:
        if "cluster_block_exception" in str(e.message):  # read-only, by an operator or a full disk: it ends
            raise Unavailable(PART, e.message) from None
        raise SettingsError(
            f"Elasticsearch refuses access: {e.message}. Check login and grants of Connection "
            "'elasticsearch_default'."
        ) from None
    except ApiError as e:
        if e.meta.status == 409:
            raise ConflictSeen from None
        raise Unavailable(PART, f"HTTP {e.meta.status} {e.message}") from None
    except TransportError as e:
        raise Unavailable(PART, f"{type(e).__name__}: {str(e)[:200]}") from None


def _whole(answer: Any) -> None:
    """A search that timed out or lost a shard shows a part only, and proves nothing."""
    if answer.get("timed_out") or answer["_shards"]["failed"]:
        raise Unavailable(PART, "answered a search from a part of its shards only")


def _document(doc: Mapping[str, Any]) -> Document:
    source = doc.get("_source") or {}
    mentors = source.get("mentors") or []
    mentors = mentors if isinstance(mentors, list) else [mentors]
    return Document(doc["_id"], source.get("createdBy"), tuple(mentors), doc["_seq_no"], doc["_primary_term"])


def _hit(hit: Mapping[str, Any]) -> Owners:
    source = hit.get("_source") or {}
    course = source.get("courseId")
    return owners(source), BatchId(course if isinstance(course, str) else "", hit["_id"])


def _plain(value: Any) -> Any:
    """Driver's collection types as plain JSON values."""
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [_plain(v) for v in value]
    if hasattr(value, "items"):
        return {k: _plain(v) for k, v in value.items()}
    return value
