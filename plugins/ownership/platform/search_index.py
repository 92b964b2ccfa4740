"""The search index of course batches, on any server that `search_dialect` knows.

Only owner fields are ever written, from the row, under the sequence number that was read before the row. A missing
document is created from the row.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import tzinfo
from functools import cached_property
from typing import Any, Final, NamedTuple

import structlog
from elastic_transport import TransportError
from elasticsearch import ApiError, ConflictError, Elasticsearch, NotFoundError
from elasticsearch.helpers import streaming_bulk
from more_itertools import chunked

from ownership.domain.errors import Unavailable
from ownership.domain.event import folded
from ownership.domain.plan import LIVE_STATUSES, BatchId, Document
from ownership.platform.pools import prefetch
from ownership.platform.search_answers import (
    FIRST_PAUSE_S,
    OVERLOADED,
    PART,
    TRIES,
    Version,
    ask,
    hit_count,
    hits_of,
    index_errors,
    key_text,
    own_words,
    reason_of,
    version_of,
    whole_number,
)
from ownership.platform.search_check import check_index
from ownership.platform.search_documents import (
    NAMES,
    OWNERS,
    Hit,
    batch_named,
    document_from,
    row_key,
    users_named,
)

log = structlog.get_logger(__name__)

DOCS_PER_CALL = 1000
MAX_SHOWN: Final = 10_000
"""Hits that the index shows at once unless it is told otherwise."""
DOCS_PER_PAGE = 5000
"""Of a walk through the whole index: below the 10,000 hits that it shows at once unless it is told otherwise."""
SLICES = 2
"""Parts of a walk through the whole index: it reads one while the other's page is taken apart."""
USERS_PER_SEARCH = 500
CANNOT_TAKE: Final = (400, 413)
"""Statuses of a bulk that the index, or a proxy in front of it, refuses as a whole."""
_SCROLL_KEPT: Final = "5m"
"""How long the index keeps a scroll after each page."""
_HIT_FIELDS: Final = [*NAMES, "courseId", *OWNERS]
_ITEM: Final = ("_id", "status", "error", "_seq_no", "_primary_term")
"""What is wanted of a bulk's answer."""

_SEARCHABLE: Final = ("STARTED", "RELOCATING")
"""States of a copy of a shard that answers searches."""

Update = tuple[Document, str | None, tuple[str, ...]]
"""A document, and the creator and mentors that it is to name."""


class Seen(NamedTuple):
    """A document as a walk through the index shows it: its batch, and what stands in it, whatever that is."""

    batch_id: str
    course_id: Any
    created_by: Any
    mentors: Any


class RefusedDocument(NamedTuple):
    """A document that the index does not take, and why: another try would end the same."""

    batch_id: str
    document_id: str
    """Its ``_id``."""
    reason: str

    def __str__(self) -> str:
        """As an operator reads it."""
        return f"the index refuses document {self.document_id}: {self.reason}"


class Found(NamedTuple):
    """A part of what a question finds."""

    total: int
    documents: list[Document]


class Written(NamedTuple):
    """What became of documents that were to be written."""

    versions: dict[str, Version]
    """By ``_id``, the version that each write made. Not of documents that are gone or have changed meanwhile."""
    refused: list[RefusedDocument]


class SearchIndex:
    """Documents of one index."""

    def __init__(self, connect: Callable[[], Elasticsearch], index: str, *, zone: tzinfo) -> None:
        """`connect` is called when the index is first used. `zone`: the platform's, for dates of documents it creates."""
        self._connect = connect
        self._index = index
        self._zone = zone
        self._own_ids: dict[str, set[str]] = defaultdict(set)
        """By batch: where searches have shown documents that lie under another id than their batch's."""

    def connect(self) -> None:
        """Make the client, which else its first use does."""
        _ = self._es

    @cached_property
    def _es(self) -> Elasticsearch:
        # The client would ask an overloaded index again at once; `ask` and the bulk give it a pause first.
        return self._connect().options(retry_on_status=())

    def check(self) -> None:
        """`check_index` for this index."""
        check_index(self._es, self._index)

    def get(self, batch_ids: Collection[str], *, everywhere: bool = False) -> dict[str, tuple[Document, ...]]:
        """The documents of the batches that have some, with their sequence numbers, as the last refresh shows them.

        A document lies under its batch's id. Older platforms left some under ids of their own, also beside it. They
        are found if there is no other, if a search of this object has shown them, or with `everywhere`, which costs a
        third more.
        """
        found: dict[str, tuple[Document, ...]] = {}
        for part in chunked(sorted(batch_ids), DOCS_PER_CALL):
            known = {own_id: b for b in part for own_id in self._own_ids.get(b, ())}
            some = self._read({b: b for b in part} | known)
            unknown = part if everywhere else [b for b in part if b not in some]
            more = self._read({own_id: b for own_id, b in self._find(unknown) if own_id not in known})
            found |= {b: (*some.get(b, ()), *more.get(b, ())) for b in some.keys() | more.keys()}
        return found

    def _read(self, batch_of: Mapping[str, str]) -> dict[str, tuple[Document, ...]]:
        """The documents that exist under some ids (each with its batch), by batch."""
        found: dict[str, tuple[Document, ...]] = {}
        for hit in self._under(batch_of):
            with index_errors("search"):
                document = _document(batch_of[hit["_id"]], hit)
            found[document.batch_id] = (*found.get(document.batch_id, ()), document)
        return found

    def _under(self, ids: Iterable[str], **what: Any) -> Iterator[Mapping[str, Any]]:
        """The documents that exist under some ids, with their versions.

        By a search: to get a document by its id takes Elasticsearch three times as long (500 and 140 ms for 5,000).
        """
        for part in chunked(ids, DOCS_PER_CALL):
            query = {"bool": {"filter": [{"terms": {"_id": part}}]}}
            for hits in self._search(query, seq_no_primary_term=True, **what):
                yield from hits

    def _find(self, batch_ids: Sequence[str]) -> list[tuple[str, str]]:
        """``_id`` and batch of the documents that name one of `batch_ids` and lie under another id."""
        if not batch_ids:
            return []
        wanted = frozenset(batch_ids)
        found: list[tuple[str, str]] = []
        for hits in self._search(_any_of(NAMES, sorted({folded(b) for b in wanted})), source_includes=NAMES):
            with index_errors("search"):
                found += [(own_id, b) for own_id, b in self._named(hits) if b in wanted and own_id != b]
        return found

    def _named(self, hits: Iterable[Mapping[str, Any]]) -> list[tuple[str, str]]:
        """``_id`` and batch of each hit; where they differ, they are remembered."""
        named = [_ids(hit) for hit in hits]
        for own_id, batch_id in named:
            if own_id != batch_id:
                self._own_ids[batch_id].add(own_id)
        return named

    def unchanged(self, versions: Mapping[str, Version]) -> set[str]:
        """The ``_id`` of each document that every copy of the index shows in the version that is given for it.

        The version says what is in it, so nothing of it is read.
        """
        if not versions:
            return set()
        shown = [
            set.intersection(*(self._shown_by(copy, versions) for copy in copies))
            for copies in self._copies()
        ]
        return set().union(*shown)

    def _shown_by(self, copy: str, versions: Mapping[str, Version]) -> set[str]:
        with index_errors("search"):
            return {
                own_id
                for hit in self._under(versions, source=False, preference=copy)
                if version_of(hit) == versions[own_id := hit["_id"]]
            }

    def _copies(self) -> list[list[str]]:
        """The copies of each shard, as searches name them; where each shard has one, all of them by one name.

        A node that was cut off, or froze, answers from an old copy until it hears of the others: after a freeze of
        45 s, for up to 0.7 s (measured, with a refresh before). What every copy shows is no old news. A search that
        names no copy could meet that node also where another knows of one copy only: of its own copy, it does not.

        :raises Unavailable: if a shard has no copy that answers.
        """
        with index_errors("search_shards"):
            of_shards = [
                [(c["shard"], c["node"]) for c in copies if c["state"] in _SEARCHABLE]
                for copies in ask(self._es.search_shards, index=self._index)["shards"]
            ]
            if not all(of_shards):
                raise Unavailable(PART, "a shard of the index has no copy that answers searches")
            if all(len(copies) == 1 for copies in of_shards):
                nodes = sorted({node for copies in of_shards for _, node in copies})
                return [[f"_only_nodes:{','.join(nodes)}"]]
            return [[f"_shards:{shard}|_only_nodes:{node}" for shard, node in copies] for copies in of_shards]

    def write(self, updates: Iterable[Update], creates: Iterable[Mapping[str, Any]]) -> Written:
        """Owner fields under their sequence number, and missing documents from whole rows.

        A document is written whole, as it was read but for its owners: that costs the index half of an update in
        place, which reads it once more. No pipeline may change it. One that changed meanwhile refuses the write:
        callers read again before they believe.

        :raises Unavailable: on an outage, or if the index takes no writes.
        """
        batch_of: dict[str, str] = {}
        actions: list[dict[str, Any]] = []
        for d, created_by, mentors in updates:
            batch_of[d.document_id] = d.batch_id
            source = {**d.source, "createdBy": created_by, "mentors": list(mentors)}
            actions.append(
                {
                    "_op_type": "index",
                    "_id": d.document_id,
                    "if_seq_no": d.seq_no,
                    "if_primary_term": d.primary_term,
                    "pipeline": "_none",
                    "_source": json.dumps(source),
                    **({"routing": d.routing} if d.routing is not None else {}),
                }
            )
        for row in creates:
            batch_of[row["batchid"]] = row["batchid"]
            source = document_from(row, self._zone)
            actions.append({"_op_type": "create", "_id": row["batchid"], "_source": source})
        versions: dict[str, Version] = {}
        refused: list[RefusedDocument] = []
        for part in chunked(actions, DOCS_PER_CALL):
            for own_id, reason in self._write(part, versions):
                refused.append(RefusedDocument(batch_of[own_id], own_id, reason))
                log.warning("document refused", document=own_id, reason=reason)
        return Written(versions, refused)

    def _write(
        self, actions: Sequence[dict[str, Any]], versions: dict[str, Version]
    ) -> list[tuple[str, str]]:
        """One bulk; halves of it where the index refuses it as a whole, so that one document stops no other.

        Adds to `versions`. Returns the ``_id`` of each document that is refused, and why.
        """
        try:
            return self._bulk(actions, versions)
        except _RefusedBulk as e:
            if len(actions) == 1:
                return [(actions[0]["_id"], str(e))]
            middle = len(actions) // 2
            return self._write(actions[:middle], versions) + self._write(actions[middle:], versions)

    def _bulk(self, actions: Sequence[dict[str, Any]], versions: dict[str, Version]) -> list[tuple[str, str]]:
        """One bulk; what an overloaded index pushes back is sent again, and nothing else.

        :raises _RefusedBulk: if it is refused as a whole, for what is in it.
        """
        with index_errors("bulk", _RefusedBulk):
            try:
                answered = list(
                    streaming_bulk(
                        self._es,
                        actions,
                        index=self._index,
                        filter_path=[f"items.*.{name}" for name in _ITEM],
                        chunk_size=DOCS_PER_CALL,
                        raise_on_error=False,
                        max_retries=TRIES - 1,
                        initial_backoff=FIRST_PAUSE_S,
                        retry_on_status=OVERLOADED,
                    )
                )
            except ApiError as e:
                if e.meta.status in CANNOT_TAKE:
                    raise _RefusedBulk(f"HTTP {e.meta.status} {own_words(e)}") from None
                raise
            items = [(ok, next(iter(of_operation.values()))) for ok, of_operation in answered]
            if sorted(item["_id"] for _, item in items) != sorted(a["_id"] for a in actions):
                raise ValueError("not the documents that were sent")
            refused = []
            for ok, item in items:
                own_id = item["_id"]
                if ok:
                    versions[own_id] = version_of(item)
                    continue
                status, reason = whole_number(item["status"]), reason_of(item.get("error"))
                if status in OVERLOADED:
                    raise Unavailable(PART, f"{reason}, after {TRIES} tries")
                if status in (401, 403):  # no grant, or read-only by an operator or a full disk: it ends
                    raise Unavailable(PART, reason)
                if status not in (404, 409):  # gone, or written since: the next read tells
                    refused.append((own_id, reason))
            return refused

    def delete_created(self, batch_id: str) -> None:
        """Take a document back that was created for a row that has gone meanwhile."""
        gone = (NotFoundError, ConflictError)  # or written since, and so not ours any more
        self.refresh()
        for hit in self._under([batch_id], source=False):
            with suppress(*gone), index_errors("delete", *gone):
                seq_no, primary_term = version_of(hit)
                ask(
                    self._es.delete,
                    index=self._index,
                    id=batch_id,
                    if_seq_no=seq_no,
                    if_primary_term=primary_term,
                )

    def refresh(self) -> None:
        """Make everything written so far visible to searches.

        :raises Unavailable: also if a shard did not refresh: the proof must not miss its documents.
        """
        with index_errors("refresh"):
            answer = ask(self._es.indices.refresh, index=self._index)
            if failed := whole_number(answer["_shards"]["failed"]):
                raise Unavailable(PART, f"{failed} shards did not refresh")

    def live_batches(self, user_ids: Collection[str], *, every_copy: bool = False) -> Iterator[Hit]:
        """Every live batch whose document names one of `user_ids`, whatever their number.

        A document that names no batch is shown under its ``_id``: of such a batch there is no row. With `every_copy`
        also what only one copy of the index shows; a batch may come more than once.

        :raises Unavailable: also on a partial answer: a missing shard is no empty shard.
        """
        copies = [copy for of_shard in self._copies() for copy in of_shard] if every_copy else [None]
        for users in chunked(sorted({folded(u) for u in user_ids}), USERS_PER_SEARCH):
            query = {"bool": {"filter": [{"terms": {"status": list(LIVE_STATUSES)}}, _any_of(OWNERS, users)]}}
            for copy in copies:
                for hits in self._search(query, source_includes=_HIT_FIELDS, preference=copy):
                    with index_errors("search"):
                        page = [
                            _hit(hit, batch) for hit, (_, batch) in zip(hits, self._named(hits), strict=True)
                        ]
                    yield from page

    def owned_by(self, user: str, *, offset: int, limit: int) -> Found:
        """Documents of any status that name a user, by batch: a page of what people ask for.

        `offset` and `limit` together are at most `MAX_SHOWN`. One try, because a person waits.
        """
        query = {"bool": {"filter": [_any_of(OWNERS, [folded(user)])]}}
        return self._look(query, offset, limit)

    def matching(self, text: str, *, limit: int) -> Found:
        """The first documents of which an id is `text`, or the name has it somewhere, in any case."""
        literal = re.sub(r"([\\*?])", r"\\\1", folded(text))
        in_name = {"wildcard": {"name.raw": {"value": f"*{literal}*"}}}
        by_id = _any_of((*NAMES, "courseId", *OWNERS), [folded(text)])
        return self._look({"bool": {"should": [by_id, in_name], "minimum_should_match": 1}}, 0, limit)

    def _look(self, query: dict[str, Any], offset: int, limit: int) -> Found:
        with index_errors("search"):
            answer = self._es.search(
                index=self._index,
                query=query,
                from_=offset,
                size=limit,
                # Where it is not mapped, the order is the index's own.
                sort=[{"batchId.raw": {"order": "asc", "unmapped_type": "keyword"}}],
                track_total_hits=True,
                seq_no_primary_term=True,
                allow_partial_search_results=False,
            )
            return Found(hit_count(answer), [_document(_ids(hit)[1], hit) for hit in hits_of(answer)])

    def count(self) -> int:
        """Number of documents, as a search shows them."""
        with index_errors("count"):
            return whole_number(ask(self._es.count, index=self._index)["count"])

    def documents(self) -> Iterator[list[Seen]]:
        """Every document as it is at one point in time, in pages, in the index's own order.

        That order is what makes it quick: a document that is asked for by its id costs three times as much.

        :raises Unavailable: also on a partial answer.
        """
        walks = (
            self._scroll(
                {"match_all": {}}, DOCS_PER_PAGE, {"id": n, "max": SLICES}, source_includes=_HIT_FIELDS
            )
            for n in range(SLICES)
        )
        for hits in prefetch(*walks):
            with index_errors("search"):
                page = [_seen(hit) for hit in hits]
            yield page

    def _search(self, query: dict[str, Any], **what: Any) -> Iterator[list[Any]]:
        """All hits of a query, in pages. `what` is wanted of each, in the client's words."""
        with index_errors("search"):
            first = ask(
                self._es.search,
                index=self._index,
                query=query,
                size=DOCS_PER_CALL,
                sort=["_doc"],
                track_total_hits=True,
                allow_partial_search_results=False,
                **what,
            )
            shown, total = hits_of(first), hit_count(first)
            if total <= DOCS_PER_CALL and len(shown) != total:
                raise Unavailable(PART, f"counts {total} batches but shows {len(shown)}")
        if total <= DOCS_PER_CALL:
            yield shown
        else:
            yield from self._scroll(query, DOCS_PER_CALL, **what)

    def _scroll(
        self, query: dict[str, Any], size: int, part: dict[str, int] | None = None, **what: Any
    ) -> Iterator[list[Any]]:
        """All hits of a query, or of a `part` of them, as they are now, in pages of `size`.

        A page that is asked for again is the next one. So neither an end too early is believed, nor a page too many.
        """
        scroll_id, seen, total = "", 0, 0
        try:
            while True:
                with index_errors("search"):
                    if scroll_id:
                        page = ask(self._es.scroll, scroll_id=scroll_id, scroll=_SCROLL_KEPT)
                    else:
                        page = ask(
                            self._es.search,
                            index=self._index,
                            query=query,
                            size=size,
                            sort=["_doc"],
                            scroll=_SCROLL_KEPT,
                            slice=part,
                            allow_partial_search_results=False,
                            **what,
                        )
                        total = hit_count(page)
                    scroll_id = str(page["_scroll_id"])
                    shown = hits_of(page)
                    seen += len(shown)
                    if seen > total or (not shown and seen < total):
                        raise Unavailable(PART, f"counts {total} batches but shows {seen}")
                yield shown
                if seen == total:
                    return
        finally:
            if scroll_id:
                with suppress(ApiError, TransportError):  # it ends by itself
                    self._es.clear_scroll(scroll_id=scroll_id)


class _RefusedBulk(Exception):
    """A bulk that the index, or a proxy in front of it, refuses as a whole for what is in it."""


def _any_of(fields: Iterable[str], values: Sequence[str]) -> dict[str, Any]:
    """A query for documents of which one of `fields` has one of `values` (folded)."""
    return {
        "bool": {"should": [{"terms": {f"{f}.raw": list(values)}} for f in fields], "minimum_should_match": 1}
    }


def _document(batch_id: str, doc: Mapping[str, Any]) -> Document:
    source = doc.get("_source") or {}
    mentors = source.get("mentors") or []
    document_id = key_text(doc["_id"])
    return Document(
        batch_id,
        source.get("createdBy"),
        tuple(mentors) if isinstance(mentors, list) else (mentors,),
        *version_of(doc),
        row_key(source.get("courseId")) or None,
        document_id if document_id != batch_id else None,
        source,
        doc.get("_routing"),
    )


def _ids(hit: Mapping[str, Any]) -> tuple[str, str]:
    """The ``_id`` of a document, and the batch that it names; if it names none, the ``_id`` again."""
    own_id = key_text(hit["_id"])
    return own_id, batch_named(hit.get("_source") or {}) or own_id


def _hit(hit: Mapping[str, Any], batch_id: str) -> Hit:
    source = hit.get("_source") or {}
    return Hit(users_named(source), BatchId(row_key(source.get("courseId")), batch_id))


def _seen(hit: Mapping[str, Any]) -> Seen:
    source = hit.get("_source") or {}
    return Seen(_ids(hit)[1], source.get("courseId"), source.get("createdBy"), source.get("mentors"))
