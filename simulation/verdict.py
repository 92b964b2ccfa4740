"""What must hold when a world has ended; see also the checks of `World` and the ledger's triggers."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from ownership.domain.event import OrderKey, Transfer
from ownership.domain.plan import BatchId
from ownership.domain.plan_report import PlanReport
from ownership.ledger.changes import Changes
from ownership.stages.lookup import JUST_NOW_MS
from simulation.replay import Event, TooManyOrdersError, finals, told
from simulation.setup import NEWCOMER, BatchSpec, Edit, MessageSpec
from simulation.world import GRACE_MS, World

_EVENTS = (
    "SELECT mid, state, from_user, to_user, options->>'undo_of' AS undo_of, options->>'plan_of' AS plan_of, options->'asset'->>'batch_id' AS asset, "
    "verdict, late, order_ms, ended_at FROM event ORDER BY order_ms, kafka_partition, kafka_offset, mid"
)
_IMAGES = (
    "SELECT image, course_id, batch_id, outcome, "
    "array_agg(before_created_by ORDER BY hop) AS before_by, array_agg(after_created_by ORDER BY hop) AS after_by, "
    "array_agg(array_to_string(before_mentors, ',') ORDER BY hop) AS before_mentors, "
    "array_agg(array_to_string(after_mentors, ',') ORDER BY hop) AS after_mentors "
    "FROM change GROUP BY image, course_id, batch_id, outcome"
)
_CHANGED = (
    "SELECT DISTINCT event.mid, change.batch_id FROM change JOIN event ON event.id = change.event_id "
    "WHERE change.outcome IS NULL OR change.outcome NOT IN ('refused', 'superseded')"
)
_PLANNED = (
    "SELECT plan.batch_id, event.mid FROM plan JOIN event ON event.id = plan.event_id "
    "WHERE event.state = 'completed'"
)

_AFTER_THE_END = (
    "SELECT change.image, change.batch_id, event.mid, 1000 * extract(epoch FROM event.ended_at) AS ended_ms "
    "FROM change JOIN event ON event.id = change.event_id "
    "WHERE event.state = 'abandoned' AND change.outcome = 'applied'"
)
_UNPLANNED = (
    "SELECT DISTINCT change.batch_id, event.mid FROM change JOIN event ON event.id = change.event_id "
    "WHERE event.state = 'completed' AND change.outcome = 'applied' AND NOT EXISTS ("
    "SELECT FROM plan WHERE plan.batch_id = change.batch_id AND plan.outcome = 'moved')"
)

Change = tuple[str, tuple[str | None, str], tuple[str | None, str]]
"""Batch id, owners before and after."""


class Verdict:
    """What is wrong with a world, found at its two ends: before the second proof, and after it."""

    def __init__(self, world: World) -> None:
        self.world = world
        world.before_second_proof = self.before_second_proof  # type: ignore[method-assign]  # a world's hook
        self.excused: list[str] = []
        """Why a world was not judged in full: what the docs name as not guaranteed."""

    def before_second_proof(self) -> None:
        """All events are final: the first proof alone must have been enough, but for documents that the LMS wrote late."""
        self._events()
        hours_apart = self._hours_apart()
        for batch in self.world.setup.batches:
            # What was given more than two hours ago is searched for: a document of the LMS hides it until the second proof.
            if not (hours_apart and batch.batch in self.world.edited):
                self._row(batch)
        self._documents(at_the_end=False)
        self._messages()

    def at_the_end(self) -> None:
        """After the second proof: everything."""
        if not self.world.ended:
            return
        self._events()
        for batch in self.world.setup.batches:
            self._row(batch)
        self._documents(at_the_end=True)
        self._audit()
        self._plans()
        self._rehearsed()
        self._late()
        self._messages()
        self._queue()

    # -- parts -------------------------------------------------------------------------------------------------

    def _events(self) -> None:
        world = self.world
        self.rows = world.database.plainly(_EVENTS)
        changed: dict[str, set[str]] = defaultdict(set)
        for mid, batch in world.database.plainly(_CHANGED):
            changed[mid].add(batch)
        self.events: list[Event] = []
        for r in self.rows:
            if r.ended_at is None:
                world.broken(f"event {r.mid} is {r.state} and not final")
            came_late = self._came_late(r)
            displaced = (
                came_late or (r.undo_of and r.undo_of not in {e.mid for e in self.events}) or r.plan_of
            )
            if r.state in ("completed", "abandoned"):
                self.events.append(
                    Event(
                        r.mid, r.from_user, r.to_user, r.undo_of or "", r.asset or "", r.verdict == "giver_deleted",
                        r.state == "abandoned", self._planned(r.plan_of) if r.plan_of else None,
                        self._overtaking(r) if displaced else frozenset(), frozenset(changed[r.mid]),
                    )
                )  # fmt: skip

    def _planned(self, mid: str) -> frozenset[str]:
        """What the plan of a dry run changes: an operator has looked at it."""
        query = (
            "SELECT batch_id FROM plan JOIN event ON event.id = plan.event_id "
            "WHERE event.mid = :mid AND after_mentors IS NOT NULL"
        )
        return frozenset(r.batch_id for r in self.world.database.plainly(query, mid=mid))

    def _overtaking(self, event: Any) -> frozenset[str]:
        """Events that come after one in the order of times, and ended before it."""
        return frozenset(
            r.mid
            for r in self.rows
            if r.order_ms >= event.order_ms and r.ended_at and event.ended_at and r.ended_at <= event.ended_at
        ) - {event.mid}

    def _came_late(self, event: Any) -> bool:
        """True if an event may have taken effect after later ones; and it is late only if it came too late."""
        world, orders = self.world, self.world.setup.orders
        topic = world.broker.topics[world.settings.input_topic]
        sent = [(topic[p][n].ms, m) for (p, n), m in world.sent.items() if not m.poison]
        sent_ms, own = next(((ms, m) for ms, m in sent if m.mid == event.mid), (0, None))
        too_late = own is not None and own.behind_ms > GRACE_MS
        if not event.late and not too_late:
            return False
        # A run by hand overtakes: it goes on without Kafka, and a plan or an undo comes with the time of its own run.
        if event.late and own and not orders:
            users = {own.from_user, own.to_user}
            before = [m for ms, m in sent if ms <= sent_ms - GRACE_MS and m.mid != own.mid]
            if not any(users & {m.from_user, m.to_user} for m in before):
                world.broken(f"event {event.mid} is late, and came within the grace")
        others = [r for r in self.rows if not r.mid.startswith(event.mid)]
        after = [r for r in others if r.order_ms > event.order_ms and r.state == "completed"]
        if not event.late and event.state == "completed" and not orders:
            users = {event.from_user, event.to_user}
            if any(users & {r.from_user, r.to_user} and _commute(event, r, before_ms=sent_ms) for r in after):
                world.broken(f"event {event.mid} came too late, and is not marked as late")
        # A batch that was completed before it came stays as it is, and in the order of times might have been moved.
        completes = any(e.edit is Edit.COMPLETE for e in world.setup.edits)
        in_order = own and not orders and not completes
        return not (event.late and in_order and all(_commute(event, r, before_ms=sent_ms) for r in others))

    def _hours_apart(self) -> bool:
        """True if more time lies between the ends of two events than a lookup counts as just now."""
        ended = [r.ended_at for r in self.rows if r.ended_at]
        return bool(ended) and max(ended) - min(ended) > timedelta(milliseconds=JUST_NOW_MS)

    def _shown_late(self, batch: BatchSpec) -> bool:
        """True if a proof cannot have seen the batch: the index had not shown it by then."""
        shown_at = self.world.index.shown_at.get(batch.batch, 0)
        return not batch.document and any(at < shown_at for at in self.world.proven_at.values())

    def _row(self, batch: BatchSpec) -> None:
        world = self.world
        if self._shown_late(batch):
            return
        key = next(k for k in world._keys if k.batch_id == batch.batch)  # noqa: SLF001  # the world's own judge
        row = world.rows.table.get(key)
        try:
            permitted = finals(batch, self.events, world.edited_rows.get(batch.batch, ()))
        except TooManyOrdersError:
            self.excused.append(f"of {batch.batch}, too many events came too late")
            return
        now = _row_now(row)
        may_be = [(r.exists, *r.owners) if r.exists else (False, None, ()) for r in permitted]
        # A late event that splits a mentor's place again puts the two one behind the other, wherever they had been; and
        # later events pass the places on.
        split = any(r.late for r in self.rows)
        if now in may_be or (
            split and (*now[:2], sorted(now[2])) in [(*one[:2], sorted(one[2])) for one in may_be]
        ):
            return
        if self._is_written_late(key):
            self.excused.append(f"{batch.batch} was written by a process that froze")
            return
        world.broken(f"row {batch.batch} is {_told(row)}, and should be {told(permitted)}")

    def _is_written_late(self, key: BatchId) -> bool:
        """True if a process that had frozen and lost its claim changed the row: what the docs name as not guaranteed."""
        return key in self.world.late_writes

    def _documents(self, *, at_the_end: bool) -> None:
        """Documents agree with their rows: before the second proof those that no LMS has written since the first."""
        world = self.world
        abandoned = any(e.abandoned for e in self.events)
        proven_at: dict[str, int] = {}
        for r in world.database.plainly(_PLANNED):
            proven_at[r.batch_id] = max(proven_at.get(r.batch_id, 0), world.proven_at.get(r.mid, 0))
        for key, row in world.rows.table.items():
            if key.batch_id not in proven_at or abandoned:
                continue
            stored = world.index.documents.get(key.batch_id)
            lately = stored is None or stored.at > proven_at[key.batch_id]
            if not at_the_end and lately and key.batch_id in world.edited:
                continue
            owners = stored and (stored.source.get("createdBy"), tuple(stored.source.get("mentors") or ()))
            if owners == (row["createdby"], tuple(row["mentors"] or ())):
                continue
            if not at_the_end and self._is_written_late(key):
                self.excused.append(f"row {key.batch_id} was written by a process that froze")
            else:
                world.broken(f"document {key.batch_id} has {owners}, its row {_told(row)}")

    def _audit(self) -> None:
        """The images that are applied are the changes that happened."""
        happened: Counter[Change] = Counter()
        for w in self.world.rows.job_writes:
            happened[w.id.batch_id, _owners(w.before), _owners(w.after)] += 1
        sure: Counter[Change] = Counter()
        maybe: Counter[Change] = Counter()
        for r in self.world.database.plainly(_IMAGES):
            change = (
                r.batch_id,
                (r.before_by[0], r.before_mentors[0] or ""),
                (r.after_by[-1], r.after_mentors[-1] or ""),
            )
            if r.outcome in ("applied", "late"):
                sure[change] += 1
            elif r.outcome in ("in_doubt", None):
                maybe[change] += 1
        for change, n in (sure - happened).items():
            self.world.broken(f"the audit trail says {n} times more than happened: {change}")
        for change, n in (happened - sure - maybe).items():
            self.world.broken(f"the audit trail lacks {n} times: {change}")

    def _messages(self) -> None:
        """Every message is an event in its state, or rejected with its dead letter."""
        world = self.world
        states = {r.mid: r.state for r in self.rows}
        rejected = world.database.plainly(
            "SELECT kafka_partition, kafka_offset FROM rejected_message WHERE topic <> ''"
        )
        poisoned = {(r[0], r[1]) for r in rejected}
        letters = Counter(
            (int(dict(r.labels)["partition"]), int(dict(r.labels)["offset"]))
            for r in world.broker.topics[world.settings.failed_topic][0]
        )
        for place, m in world.sent.items():
            if m.poison:
                if place not in poisoned or not letters[place]:
                    world.broken(f"message {place} is not rejected with a dead letter")
            elif states.get(m.mid) not in _expected(m, world):
                world.broken(f"event {m.mid} is {states.get(m.mid)}, and should be {_expected(m, world)}")
        for place, n in letters.items():
            if place not in poisoned or n > world.pulls:
                world.broken(f"message {place} has {n} dead letters")
        for p, records in enumerate(world.broker.topics[world.settings.input_topic]):
            found = world.database.plainly(
                "SELECT next_offset FROM consumed_offset WHERE kafka_partition = :p", p=p
            )
            if (found[0][0] if found else 0) != len(records):
                world.broken(f"the ledger has read partition {p} up to {found}, of {len(records)}")

    def _late(self) -> None:
        """A change that was made after its event had been abandoned is no plain *applied*."""
        for r in self.world.database.plainly(_AFTER_THE_END):
            if self.world.written_ms.get(r.image, 0) > r.ended_ms:
                self.world.broken(
                    f"{r.batch_id} was changed after {r.mid} was abandoned, and the image says applied"
                )

    def _plans(self) -> None:
        """What a completed event has moved stands in a plan as moved."""
        for r in self.world.database.plainly(_UNPLANNED):
            self.world.broken(f"{r.batch_id} was moved by {r.mid}, and no plan says so")

    def _rehearsed(self) -> None:
        """What stands in the plan of a dry run is what its digest names: people look at both."""
        changes = Changes(self.world.plain)
        for r in self.world.database.plainly("SELECT mid, digest FROM event WHERE state = 'rehearsed'"):
            report = PlanReport(Transfer(OrderKey(0, 0, 0, r.mid), "", ""))
            for planned in changes.read_plan(r.mid):
                if planned.hop:
                    report.add_change(planned.hop)
            if report.digest != r.digest:
                self.world.broken(f"{r.mid} has the digest {r.digest}, and its plan {report.digest}")

    def _queue(self) -> None:
        if left := self.world.database.plainly("SELECT event_id FROM queue"):
            self.world.broken(f"{len(left)} rows are left in the queue")


def _commute(late: Any, other: Any, *, before_ms: int) -> bool:
    """True if a late event ends as in the order of times, though the other had ended before it was sent.

    It gives its user's batches to whom the other passed them on, and the other's target keeps what that gave him.
    """
    ended = other.ended_at is not None and other.ended_at.timestamp() * 1000 < before_ms
    plain = not any((late.asset, other.asset, *(r.verdict == "giver_deleted" for r in (late, other))))
    return bool(ended and plain and other.from_user != late.from_user)


def _expected(m: MessageSpec, world: World) -> tuple[str, ...]:
    setup = world.setup
    known = {*setup.users}
    bad = (
        m.from_user == m.to_user
        or m.to_user in setup.deleted
        or m.to_user not in known
        or {m.from_user, m.to_user} & {*setup.foreign}
    )
    joins = m.to_user == NEWCOMER and any(e.edit is Edit.JOIN for e in setup.edits)
    states: tuple[str, ...] = ("skipped",) if bad else ("completed",)
    if joins and m.from_user not in setup.foreign:
        states = ("skipped", "completed")
    ordered = any(m.mid in o.conf.get("abandon", {}).get("mids", ()) for o in setup.orders)
    declined = ("declined",) if world.settings.approval_batches and "completed" in states else ()
    return (*states, *declined, *(("abandoned",) if ordered else ()))


def _row_now(row: Mapping[str, Any] | None) -> tuple[bool, str | None, tuple[str, ...]]:
    return (False, None, ()) if row is None else (True, row["createdby"], tuple(row["mentors"] or ()))


def _owners(row: Mapping[str, Any]) -> tuple[str | None, str]:
    return row.get("createdby"), ",".join(row.get("mentors") or ())


def _told(row: Mapping[str, Any] | None) -> str:
    return "gone" if row is None else f"{row['createdby']}/{','.join(row['mentors'] or ())}({row['status']})"
