"""Guards of the job, each taken out from outside, to see that the worlds need it.

The product has no switch for any of them. `ablated` patches the modules of this process; a guard that can be taken out
without a violation is needless, or stands behind another one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, NamedTuple
from unittest.mock import patch

from sqlalchemy import Connection, Engine, select, text

from ownership.domain.plan import BatchId, Row
from ownership.domain.queue import Choice, ClaimedEvent, QueuedEvent, choose
from ownership.edge import tasks
from ownership.ledger import events, queue
from ownership.ledger.arrivals import Arrivals
from ownership.ledger.changes import Changes, Image
from ownership.ledger.events import Events
from ownership.ledger.schema import among, event
from ownership.ledger.schema import queue as queue_table
from ownership.platform.course_batches import CourseBatches
from ownership.platform.kafka import Span, Topic
from ownership.stages import lookup, phases, pull, reindex, update
from ownership.stages.claim import Claim
from simulation.campaign import Report, report_of
from simulation.stores.index import Index

CONDITIONS = ("createdby", "mentors", "status")

Patches = Iterable[tuple[object, str, Any]]
"""What is patched: where, under which name, by what."""


def _no_fence() -> Patches:
    yield Claim, "check", lambda _: frozenset()


def _no_token() -> Patches:
    def lock_any(connection: Connection, claimed: Iterable[ClaimedEvent]) -> dict[str, int]:
        rows = connection.execute(
            select(event.c.mid, queue_table.c.event_id)
            .join_from(queue_table, event, queue_table.c.event_id == event.c.id)
            .where(among(event.c.mid, [e.mid for e in claimed]))
        )
        return {r.mid: r.event_id for r in rows}

    yield queue, "lock", lock_any
    yield events, "lock", lock_any


def _no_new_token() -> Patches:
    yield tasks, "take_again", lambda _, given: given


def _without_condition(*left_out: str) -> Callable[[], Patches]:
    def patches() -> Patches:
        original = CourseBatches._update  # noqa: SLF001  # what it patches

        def blind(self: CourseBatches, before: Row, after: Row) -> tuple[str, tuple[Any, ...]]:
            cql, values = original(self, before, after)
            kept = [n for n, c in enumerate(CONDITIONS) if c not in left_out]
            conditions = " AND ".join(f"{CONDITIONS[n]} = ?" for n in kept) or "EXISTS"
            own = values[len(values) - len(CONDITIONS) :]
            values = (*values[: len(values) - len(CONDITIONS)], *(own[n] for n in kept))
            return f"{cql.partition(' IF ')[0]} IF {conditions}", values

        yield CourseBatches, "_update", blind

    return patches


def _image_afterwards() -> Patches:
    record, settle = Changes.record, Changes.settle_images
    kept: dict[str, list[Image]] = {}

    def later(_: Changes, images: Sequence[Image]) -> None:
        kept.update({str(i.uuid): [i] for i in images})

    def settled(self: Changes, outcomes: Sequence[tuple[Image, Any]], **more: Any) -> None:
        record(self, [i for image, _ in outcomes for i in kept.pop(str(image.uuid), ())])
        settle(self, outcomes, **more)

    yield Changes, "record", later
    yield Changes, "settle_images", settled


class _ReadBefore:
    """Rows of which the first read gives what was read before."""

    def __init__(self, rows: Any, read: Mapping[BatchId, Row]) -> None:
        self._rows, self._read = rows, read

    def read(self, _: Iterable[BatchId]) -> Mapping[BatchId, Row]:
        return self._read

    def __getattr__(self, name: str) -> Any:
        return getattr(self._rows, name)


def _row_before_sequence_number() -> Patches:
    original = reindex._sync_wave  # noqa: SLF001  # what it patches

    def swapped(parts: Any, book: Any, ids: Sequence[BatchId], *more: Any) -> Any:
        rows: Any = _ReadBefore(parts.rows, parts.rows.read(ids))
        return original(replace(parts, rows=rows), book, ids, *more)

    yield reindex, "_sync_wave", swapped


def _no_sequence_number() -> Patches:
    original = Index._write  # noqa: SLF001  # the stand-in compares it

    def blind(self: Index, action: Mapping[str, Any]) -> Any:
        there = self.documents.get(action["_id"])
        return original(self, {**action, "if_seq_no": there.seq_no if there else 0})

    yield Index, "_write", blind


def _ends_with_a_write() -> Patches:
    yield reindex, "_changed_since", lambda *_: set()
    original = reindex.sync

    def believed(*args: Any) -> Any:
        return original(*args)._replace(doubtful=set())

    yield reindex, "sync", believed


def _no_search() -> Patches:
    yield reindex, "_unexplained", lambda *_: set()


def _verdict_each_time() -> Patches:
    original = events._update  # noqa: SLF001  # what it patches
    yield events, "_update", lambda c, ids, writes, **_: original(c, ids, writes)


def _any_phase() -> Patches:
    yield phases, "idempotent", lambda _: True


def _no_grace() -> Patches:
    yield pull, "choose", lambda queued, **given: choose(queued, **{**given, "grace_ms": 0})


def _no_order() -> Patches:
    def unordered(queued: Iterable[QueuedEvent], **given: Any) -> Choice:
        whole = Choice()
        for one in queued:
            own = choose([one], **given)
            whole.take += own.take
            whole.waits |= own.waits
            whole.unusable += own.unusable
        return whole

    yield pull, "choose", unordered


def _nothing_begun() -> Patches:
    yield queue.Queue, "begin", lambda *_, **__: {}


def _no_second_proof() -> Patches:
    yield pull, "second_proof", lambda *_: 0


def _plans_forgotten() -> Patches:
    original = lookup._plan  # noqa: SLF001  # what it patches
    delete = text("DELETE FROM plan USING event WHERE plan.event_id = event.id AND event.mid = ANY(:mids)")

    def forgetful(parts: Any, claimed: Any) -> Any:
        mids = list(claimed.mids_with_plans(claimed.book.phases))
        parts.database.run(lambda c: c.execute(delete, {"mids": mids}))
        return original(parts, claimed)

    yield lookup, "_plan", forgetful


def _nothing_recent() -> Patches:
    yield Events, "given_to", lambda *_, **__: []


def _nothing_later() -> Patches:
    yield Events, "later_ended", lambda *_: []


def _reaches_nobody() -> Patches:
    yield lookup, "_beyond", lambda _: frozenset()


def _offsets_first() -> Patches:
    def commit_all(self: Topic, spans: Sequence[Span]) -> None:
        self.commit(spans)

    yield Topic, "claim_offsets", commit_all


def _offsets_apart() -> Patches:
    original = Arrivals.store

    def apart(self: Arrivals, arrivals: Any, rejected: Any = (), consumed: Any = (), **more: Any) -> Any:
        if consumed:
            original(self, [], [], consumed)
        return original(self, arrivals, rejected, (), **more)

    yield Arrivals, "store", apart


def _undecided_forgotten() -> Patches:
    yield update, "settle_undecided", lambda *_: None
    yield reindex, "settle_undecided", lambda *_: None


def _left_open() -> Patches:
    yield CourseBatches, "decide", lambda *_: None


def _no_second_fence() -> Patches:
    yield update, "_still_wanted", lambda _parts, _claimed, wave: wave.images


def _events_apart() -> Patches:
    original = Events.complete

    def one_by_one(self: Events, phases: Any) -> list[ClaimedEvent]:
        return [done for p in phases for pair in p for done in original(self, [[pair]])]

    yield Events, "complete", one_by_one


ABLATIONS: Mapping[str, Callable[[], Patches]] = {
    "fence before each wave": _no_fence,
    "fence between image and row": _no_second_fence,
    "fencing token in ledger writes": _no_token,
    "fence and token": lambda: [*_no_fence(), *_no_token()],
    "new token for each try": _no_new_token,
    "creator in the condition": _without_condition("createdby"),
    "mentors in the condition": _without_condition("mentors"),
    "status in the condition": _without_condition("status"),
    "the whole condition": _without_condition(*CONDITIONS),
    "image before the change": _image_afterwards,
    "undecided images are judged": _undecided_forgotten,
    "open changes are decided first": _left_open,
    "sequence number before the row": _row_before_sequence_number,
    "sequence number in the write": _no_sequence_number,
    "the proof ends with a read": _ends_with_a_write,
    "the proof searches": _no_search,
    "verdict once": _verdict_each_time,
    "verdict once, and token": lambda: [*_verdict_each_time(), *_no_token()],
    "idempotent phases": _any_phase,
    "order of the queue": _no_order,
    "what was begun goes first": _nothing_begun,
    "grace": _no_grace,
    "planned rows are kept": _plans_forgotten,
    "rows that were just given": _nothing_recent,
    "later transfers are folded in": _nothing_later,
    "whom a late event reaches": _reaches_nobody,
    "second proof": _no_second_proof,
    "offsets after the ledger": _offsets_first,
    "events and offset in one transaction": _offsets_apart,
    "a phase is one commit": _events_apart,
}
"""By guard, what takes it out."""


NEEDLESS: Mapping[str, str] = {
    "verdict once": "only the holder of the token decides, and one try reads no verdict twice",
}
"""Guards that no world is known to miss, with the reason."""


class Ablated(NamedTuple):
    """A seed, without a guard."""

    guard: str
    seed: int


@contextmanager
def ablated(guard: str) -> Iterator[None]:
    """The product in this process without a guard."""
    with ExitStack() as stack:
        for where, name, by in list(ABLATIONS[guard]()):
            stack.enter_context(patch.object(where, name, by))
        yield


def report_without(engine: Engine, case: Ablated) -> Report:
    """Play a seed without a guard."""
    with ablated(case.guard):
        return report_of(engine, case.seed)
