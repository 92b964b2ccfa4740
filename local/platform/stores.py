"""A snapshot of both stores: rows, documents and their owners; and the difference of two snapshots."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from local.platform.schema import BATCH_INDEX
from local.platform.world import Batch, Platform

DOCUMENTS_A_READ = 1000
"""Documents in one request."""


class Owners(NamedTuple):
    """Who creates and who mentors a batch."""

    created_by: str | None
    mentors: tuple[str, ...]


@dataclass(frozen=True)
class Stores:
    """Rows and documents by batch id; None where one is missing."""

    rows: Mapping[str, Mapping[str, Any] | None]
    documents: Mapping[str, Mapping[str, Any] | None]

    @property
    def row_owners(self) -> dict[str, Owners | None]:
        """The owners that the rows name."""
        return {batch: _owners(row, "createdby") for batch, row in self.rows.items()}

    @property
    def document_owners(self) -> dict[str, Owners | None]:
        """The owners that the documents name."""
        return {batch: _owners(document, "createdBy") for batch, document in self.documents.items()}


def _owners(stored: Mapping[str, Any] | None, creator: str) -> Owners | None:
    return None if stored is None else Owners(stored.get(creator), tuple(stored.get("mentors") or ()))


def both_stores(platform: Platform, batches: Iterable[Batch]) -> Stores:
    """Read the rows and documents of `batches`."""
    batches = list(batches)
    ids = [batch.batch_id for batch in batches]
    rows = {
        row["batchid"]: row
        for course in sorted({batch.course_id for batch in batches})
        for row in platform.rows(course)
    }
    documents = {
        hit["_id"]: hit["_source"]
        for start in range(0, len(ids), DOCUMENTS_A_READ)
        for hit in platform.search.mget(index=BATCH_INDEX, ids=ids[start : start + DOCUMENTS_A_READ])["docs"]
        if hit.get("found")
    }
    return Stores({batch: rows.get(batch) for batch in ids}, {batch: documents.get(batch) for batch in ids})


def changes(before: Stores, now: Stores, batches: Collection[str]) -> list[str]:
    """One sentence for each field of these batches that differs."""
    return [
        sentence
        for store, then, found in (
            ("row", before.rows, now.rows),
            ("document", before.documents, now.documents),
        )
        for batch in batches
        for sentence in _changes(f"the {store} of {batch}", then[batch], found[batch])
    ]


def _changes(what: str, then: Mapping[str, Any] | None, now: Mapping[str, Any] | None) -> Iterator[str]:
    if then is None or now is None:
        if then is not now:
            yield f"{what} is {'gone' if now is None else 'new'}"
        return
    for name in dict.fromkeys([*then, *now]):
        if then.get(name) != now.get(name):
            yield f"{what} has {name} {now.get(name)!r}, not {then.get(name)!r}"
