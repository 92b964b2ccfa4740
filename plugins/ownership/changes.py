"""The audit trail: which batches an event concerns, and the image of every change before it is made.

Two kinds of rows of `transfer_change`, told apart by their token. A *plan row* (token 0) says
that the event's batch was found, and in the end what became of it. An *image* (the claim's token
and a time-UUID of its own, so never overwritten) holds a row before and after one
compare-and-set. A change that several events of a lane share has an image under each of them: the
event's own hop, beside the change of the row as a whole.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID, uuid1
from zlib import crc32

from cassandra.query import UNSET_VALUE

from ownership.cql import Cql, some_keys
from ownership.plan import BatchId, Hop, Row, changed_role, role
from ownership.schema import CHANGE

ROWS_PER_BUCKET = 5000
"""Planned rows in one partition of `transfer_change`, about."""

APPLIED, REFUSED, SUPERSEDED, IN_DOUBT, LATE = "applied", "refused", "superseded", "in_doubt", "late"
"""What became of an image: the compare-and-set applied, did not, was another try's, cannot be
told because the row was edited since, applied after the claim was lost."""

_UNSET = (UNSET_VALUE, UNSET_VALUE)
"""For columns that stay empty: a null would be a tombstone each."""

_NO_IMAGE = UUID(int=0x1000 << 64 | 0x8000 << 48)  # the smallest time-UUID: plan rows sort first


class Place(NamedTuple):
    """Partition of `transfer_change` that holds a batch's rows for an event."""

    mid: str
    bucket: int


class Planned(NamedTuple):
    """A batch that an event concerns, and what became of it so far."""

    place: Place
    id: BatchId
    outcome: str | None = None


class PlanRow(NamedTuple):
    """A planned batch with its row as it was found, and the event's change to it, if it has one."""

    planned: Planned
    row: Row | None
    hop: Hop | None


class Image(NamedTuple):
    """One compare-and-set on a row, as it is recorded before it is made."""

    id: BatchId
    token: int
    uuid: UUID
    before: Row
    after: Row
    hops: tuple[tuple[Place, Hop], ...]
    outcome: str | None = None


def buckets_for(rows: int) -> int:
    """Number of partitions for an event with `rows` planned batches."""
    return max(1, -(-rows // ROWS_PER_BUCKET))


def place(mid: str, batch: BatchId, buckets: int) -> Place:
    """Where the event's rows about `batch` are."""
    return Place(mid, crc32(batch.course_id.encode()) % max(buckets, 1))


def new_image(
    batch: BatchId, token: int, before: Row, after: Row, steps: Iterable[Hop], buckets: Mapping[str, int]
) -> Image:
    """An image of its own for this try."""
    hops = tuple((place(h.mid, batch, buckets.get(h.mid, 1)), h) for h in steps)
    return Image(batch, token, uuid1(), before, after, hops)


class Changes:
    """Rows of `transfer_change`."""

    def __init__(self, cql: Cql, keyspace: str) -> None:
        self._cql = cql
        self._table = f"{keyspace}.{CHANGE}"

    def read(self, buckets: Mapping[str, int]) -> tuple[list[Planned], list[Image]]:
        """Plan rows and images of the events in `buckets` (mid -> number of buckets)."""
        return self._read(_partitions(buckets))

    def read_by_bucket(
        self, mids: Collection[str], buckets: int
    ) -> Iterator[tuple[list[Planned], list[Image]]]:
        """The same for events that all have that many buckets, one bucket after the other.

        A batch is in the same bucket of each, so whatever belongs together comes together.
        """
        for bucket in range(max(buckets, 1)):
            yield self._read(some_keys(sorted(mids), bucket))

    def _read(self, partitions: Sequence[tuple[Any, ...]]) -> tuple[list[Planned], list[Image]]:
        cql = f"SELECT * FROM {self._table} WHERE mid IN ? AND bucket = ?"
        planned: list[Planned] = []
        parts: dict[tuple[BatchId, UUID], list[tuple[Place, Any]]] = defaultdict(list)
        for rows in self._cql.select_each(cql, partitions):
            for r in rows:
                at, batch = Place(r.mid, r.bucket), BatchId(r.courseid, r.batchid)
                if r.claim_token:
                    parts[batch, r.image].append((at, r))
                else:
                    planned.append(Planned(at, batch, r.outcome))
        images = [_image(batch, uuid, rows) for (batch, uuid), rows in parts.items()]
        return planned, sorted(images, key=lambda i: (i.token, i.uuid.time))

    def batches(self, buckets: Mapping[str, int]) -> set[BatchId]:
        """The planned batches of the events in `buckets`, without what became of them."""
        cql = f"SELECT courseid, batchid, claim_token FROM {self._table} WHERE mid IN ? AND bucket = ?"
        found = self._cql.select_each(cql, _partitions(buckets))
        return {BatchId(r.courseid, r.batchid) for rows in found for r in rows if not r.claim_token}

    def has_planned(self, mid: str, batch: BatchId, buckets: int) -> bool:
        """True if an event has a plan row for the batch."""
        cql = (
            f"SELECT mid FROM {self._table} WHERE mid = ? AND bucket = ? AND courseid = ? AND batchid = ? "
            "AND claim_token = 0 LIMIT 1"
        )
        return bool(self._cql.select(cql, (*place(mid, batch, buckets), *batch)))

    def read_plan(self, mid: str, buckets: int) -> Iterator[PlanRow]:
        """The plan rows of one event, with owners before and after as they were planned; by partition."""
        cql = f"SELECT * FROM {self._table} WHERE mid = ? AND bucket = ?"
        for at in (Place(mid, b) for b in range(max(buckets, 1))):
            yield from (_plan_row(at, r) for r in self._cql.select(cql, at) if not r.claim_token)

    def plan(self, planned: Iterable[PlanRow], users: Mapping[str, frozenset[str]]) -> None:
        """Insert plan rows; `users` are each event's (by mid) sources, for the role of unchanged rows."""
        cql = (
            f"INSERT INTO {self._table} (mid, bucket, courseid, batchid, claim_token, image, role, status, "
            "before_createdby, before_mentors, after_createdby, after_mentors, outcome) "
            "VALUES (?, ?, ?, ?, 0, ?, ?, ?, ?, ?, ?, ?, ?)"
        )
        self._cql.write((r.planned.place, (cql, _plan_values(r, users))) for r in planned)

    def record(self, images: Iterable[Image]) -> None:
        """Write images; durable when this returns, so the rows may be changed."""
        cql = (
            f"INSERT INTO {self._table} (mid, bucket, courseid, batchid, claim_token, image, role, status, hop, hops, "
            "before_createdby, before_mentors, after_createdby, after_mentors, "
            "row_before_createdby, row_before_mentors, row_after_createdby, row_after_mentors) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        )
        self._cql.write(
            (
                at,
                (
                    cql,
                    (
                        *at,
                        *i.id,
                        i.token,
                        i.uuid,
                        changed_role(h),
                        i.before.status,
                        n,
                        len(i.hops),
                        *_columns(h.before),
                        *_columns(h.after),
                        *(_columns(i.before) if len(i.hops) > 1 else _UNSET),
                        *(_columns(i.after) if len(i.hops) > 1 else _UNSET),
                    ),
                ),
            )
            for i in images
            for n, (at, h) in enumerate(i.hops)
        )

    def settle_images(self, outcomes: Iterable[tuple[Image, str]]) -> None:
        """Write what became of images."""
        cql = (
            f"UPDATE {self._table} SET outcome = ?, row_at = ? "
            "WHERE mid = ? AND bucket = ? AND courseid = ? AND batchid = ? AND claim_token = ? AND image = ?"
        )
        now = datetime.now(UTC)
        self._cql.write(
            (at, (cql, (outcome, now if outcome == APPLIED else None, *at, *i.id, i.token, i.uuid)))
            for i, outcome in outcomes
            for at, _ in i.hops
        )

    def settle_plan(self, outcomes: Iterable[tuple[Planned, str]], *, proven_at: datetime) -> None:
        """Write what became of planned batches and when row and document were seen to agree."""
        cql = (
            f"UPDATE {self._table} SET outcome = ?, document_at = ? "
            "WHERE mid = ? AND bucket = ? AND courseid = ? AND batchid = ? AND claim_token = 0 AND image = ?"
        )
        self._cql.write(
            (p.place, (cql, (outcome, proven_at, *p.place, *p.id, _NO_IMAGE))) for p, outcome in outcomes
        )


def _partitions(buckets: Mapping[str, int]) -> list[tuple[Any, ...]]:
    """The partitions of some events, as values of a query for a few mids and one bucket."""
    mids_of: dict[int, list[str]] = defaultdict(list)
    for mid, n in sorted(buckets.items()):
        for b in range(max(n, 1)):
            mids_of[b].append(mid)
    return [some for b, mids in mids_of.items() for some in some_keys(mids, b)]


def _plan_values(r: PlanRow, users: Mapping[str, frozenset[str]]) -> tuple[Any, ...]:
    p, row, hop = r
    unchanged = role(row, users.get(p.place.mid, frozenset())) if row else ""
    return (
        *p.place,
        *p.id,
        _NO_IMAGE,
        changed_role(hop) if hop else unchanged,
        row.status if row else UNSET_VALUE,
        *(_columns(hop.before if hop else row) if row else _UNSET),
        *(_columns(hop.after) if hop else _UNSET),
        UNSET_VALUE if p.outcome is None else p.outcome,
    )


def _plan_row(at: Place, r: Any) -> PlanRow:
    planned = Planned(at, BatchId(r.courseid, r.batchid), r.outcome)
    if r.status is None:
        return PlanRow(planned, None, None)
    before = Row(planned.id, r.before_createdby, tuple(r.before_mentors or ()), r.status)
    after = before._replace(created_by=r.after_createdby, mentors=tuple(r.after_mentors or ()))
    # Somebody is always named after a change; without one the columns were never written.
    return PlanRow(planned, before, Hop(at.mid, before, after) if after.named else None)


def _columns(row: Row) -> tuple[str | None, list[str]]:
    return row.created_by, list(row.mentors)


def _image(batch: BatchId, uuid: UUID, parts: Sequence[tuple[Place, Any]]) -> Image:
    def row(r: Any, name: str) -> Row:
        mentors = tuple(getattr(r, f"{name}_mentors") or ())
        return Row(batch, getattr(r, f"{name}_createdby"), mentors, r.status)

    parts = sorted(parts, key=lambda part: part[1].hop or 0)
    first = parts[0][1]
    whole = "row_" if (first.hops or 1) > 1 else ""
    return Image(
        batch,
        first.claim_token,
        uuid,
        row(first, f"{whole}before"),
        row(first, f"{whole}after"),
        tuple((at, Hop(at.mid, row(r, "before"), row(r, "after"))) for at, r in parts),
        first.outcome,
    )
