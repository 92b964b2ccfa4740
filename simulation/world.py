"""A world: the stores, the actors, and what happens in it from its beginning to its end."""

from __future__ import annotations

import json
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from random import Random
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import Engine

from local.platform.world import User, transfer_event
from ownership.domain.clock import HOUR_MS
from ownership.domain.errors import Unavailable
from ownership.domain.plan import BatchId
from ownership.domain.queue import choose
from ownership.domain.settings import Settings
from ownership.ledger.arrivals import Arrivals
from ownership.ledger.changes import Changes, Image
from ownership.ledger.database import Database
from ownership.ledger.events import Events
from ownership.ledger.queue import Queue
from ownership.ledger.reports import Reconciliations
from ownership.platform import cassandra, search_answers
from ownership.platform.cassandra import Cql
from ownership.platform.course_batches import CourseBatches, RawRow
from ownership.platform.dead_letters import DeadLetters
from ownership.platform.kafka import Topic
from ownership.platform.lms import BatchSearch
from ownership.platform.ring import TokenRange, token
from ownership.platform.search_index import SearchIndex, Seen
from ownership.platform.user_org import Users
from ownership.stages.inbox import Inbox
from ownership.stages.intake import Intake, Window
from ownership.stages.parts import Parts
from simulation import seams
from simulation.airflow import Airflow, Run
from simulation.choosers import LEASE_MS
from simulation.scheduler import Actor, Call, Chooser, EndlessError, Scheduler
from simulation.setup import ORGANISATION, OTHER, OUTSIDERS, Edit, EditSpec, MessageSpec, OrderSpec, Setup
from simulation.stores.index import Index
from simulation.stores.ledger import SimulatedDatabase
from simulation.stores.rows import KEYSPACE, TABLE, Batch, Rows, Written
from simulation.stores.services import Lms, UserOrg
from simulation.stores.topic import Broker

START_MS = 1_800_000_000_000
"""The world's first moment, epoch ms."""
GRACE_MS = 1_000
PARTITIONS = 2
_ZONE = ZoneInfo("Asia/Kolkata")
_UNDECIDED = (
    "SELECT image, batch_id, mid FROM change JOIN event ON event.id = change.event_id WHERE outcome IS NULL"
)
_APPROVALS = (
    "SELECT mid, state FROM queue JOIN event ON event.id = event_id "
    "WHERE (awaits IS NOT NULL) <> (state = 'awaiting_approval')"
)


class World:
    """A world that has been set up; `run` lets it happen."""

    def __init__(self, setup: Setup, chooser: Chooser, engine: Engine, *, seed: int = 0) -> None:
        """`engine` is that of a ledger which nobody else uses; it is emptied. `seed` is for the product's own chance."""
        self.setup = setup
        self.seed = seed
        self.scheduler = Scheduler(chooser, start_ms=START_MS)
        self.database = SimulatedDatabase(engine, self.scheduler)
        self.database.months_upto = 1 << 30  # made when the ledger was created
        self.plain = Database(engine)
        """The same ledger, of which the world knows nothing."""
        self.settings = Settings.model_validate(
            {
                "env": "sim",
                "grace.ms": GRACE_MS,
                "claim.seconds": LEASE_MS // 1000,
                "approval.timeout.hours": 1,
                **setup.settings,
            }
        ).for_slots(32)
        self.broker = Broker(self.scheduler)
        self.broker.topics = {
            self.settings.input_topic: [[] for _ in range(PARTITIONS)],
            self.settings.failed_topic: [[]],
        }
        self.broker.on_commit = self._check_offsets
        self.rows = Rows(self.scheduler)
        self.rows.on_write = self._check_write
        self.batch_statement = Batch
        self.index = Index(self.scheduler)
        self.users = UserOrg(self.scheduler)
        self.lms = Lms(self.scheduler, self.index)
        self.airflow = Airflow(self)
        self.violations: list[str] = []
        self.permanent: list[str] = []
        """Errors that no try repairs: of orders that contradict the ledger."""
        self._recording: dict[Actor | None, list[Image]] = {}
        self._recorded: dict[str, list[Image]] = defaultdict(list)
        """By the name of a process, its images that are durable in the ledger."""
        self._recorded_at: dict[UUID, int] = {}
        """By image, the number of the call that made it durable."""
        self.written_ms: dict[UUID, int] = {}
        """By image, when its change was made, unless its answer was lost."""
        self.sent: dict[tuple[int, int], MessageSpec] = {}
        """By partition and offset."""
        self.edited: set[str] = set()
        """Batches that the LMS has edited."""
        self.edited_rows: dict[str, list[Edit]] = {}
        self._documents_due: list[tuple[BatchId, int]] = []
        self._rows_read: dict[EditSpec, tuple[int, Mapping[str, Any] | None]] = {}
        """By edit whose document follows a call: how many such calls there were, and the row as the LMS read it."""
        self._armed = {e: 0 for e in setup.edits if e.after}
        self.proven_at: dict[str, int] = {}
        """By completed event, when the try that completed it has refreshed the index last."""
        self.late_writes: set[BatchId] = set()
        """Rows that a process changed after its claim was lost: it froze before its compare-and-set."""
        self._scripts: list[Actor] = []
        self._replaced: dict[Actor, bool] = {}
        """By try, whether a later one was at work when it looked at its claim last."""
        self._looked: tuple[int, Any] = (-1, ())
        self.commits = 0
        self.scheduler.after_call += [self._check_fence, self._strike]
        self.database.after_commit.append(self._committed)
        self._fill()

    # -- for the job -----------------------------------------------------------------------------------------

    def parts(self) -> Parts:
        """What one process works with."""
        database, settings = self.database, self.settings
        parts = Parts(
            settings=settings,
            database=database,
            arrivals=Arrivals(database),
            events=Events(database),
            queue=self._queue(),
            changes=self._changes(),
            reconciliations=Reconciliations(database),
            rows=CourseBatches(Cql(self.rows.session), KEYSPACE, TABLE, batch_size=settings.batch_write_size),
            index=SearchIndex(lambda: self.index, settings.course_batch_index, zone=_ZONE),  # type: ignore[arg-type, return-value]  # a client of its own
            users=Users(self.users, settings.user_read_api),  # type: ignore[arg-type]  # a service of its own
            search=BatchSearch(self.lms, settings.batch_search_api),  # type: ignore[arg-type]  # the same
            cql=Cql(self.rows.session),
        )
        self._let_scan(parts)
        return parts

    def _let_scan(self, parts: Parts) -> None:
        """Give what a reconciliation reads of both stores."""
        s = self.scheduler

        def pages(tokens: TokenRange, *, rows: int) -> Iterator[list[RawRow]]:  # noqa: ARG001  # few rows
            def effect() -> list[RawRow]:
                return [
                    RawRow(key.course_id, key.batch_id, row["createdby"], row["mentors"], row["status"])
                    for key, row in sorted(self.rows.table.items())
                    if tokens.holds(token(key.course_id))
                ]

            yield s.call("rows", "page", effect, lambda: Unavailable(cassandra.PART, "no answer"))

        def documents() -> Iterator[list[Seen]]:
            def effect() -> list[Seen]:
                return [
                    Seen(i, d.source["courseId"], d.source.get("createdBy"), d.source.get("mentors"))
                    for i, d in sorted(self.index.visible.items())
                ]

            yield s.call("index", "walk", effect, lambda: Unavailable(search_answers.PART, "no answer"))

        replaced: Mapping[tuple[object, str], Callable[..., Any]] = {
            (parts.rows, "pages"): pages,
            (parts.index, "documents"): documents,
            (parts.index, "count"): lambda: len(self.index.visible),
            (parts.index, "check"): lambda: None,
        }
        for (part, name), stand_in in replaced.items():
            setattr(part, name, stand_in)

    def _queue(self) -> Queue:
        queue = Queue(self.database)
        held = queue.held

        def checked(claimed: Any) -> Any:
            found = held(claimed)
            actor = self.scheduler.current
            if actor and not found.lost and self._replaced.get(actor):
                self.broken(f"{actor.name} was replaced by a later try, and passed a fence")
            return found

        queue.held = checked  # type: ignore[method-assign]  # to know who passes it
        return queue

    def _is_replaced(self, actor: Actor) -> bool:
        """True if a later try of the same task is at work."""
        if actor.name not in self.scheduler.frozen:
            return False
        task, _, number = actor.name.partition("#")
        later = {f"{task}#{n}" for n in range(int(number) + 1, int(number) + 9)}
        replaced = False
        for line in self.scheduler.trace:
            if line.what != "Queue.claim_again":
                continue
            if line.actor in later and line.answer and not line.fate:
                replaced = True
            elif line.actor == actor.name:
                replaced = False  # it froze before it, and has taken the claim from its successor
        return replaced

    def _changes(self) -> Changes:
        changes = Changes(self.database)
        record = changes.record

        def recorded(images: Any) -> None:
            self._recording[self.scheduler.current] = list(images)
            record(images)

        changes.record = recorded  # type: ignore[method-assign]  # to know what becomes durable, and when
        return changes

    def intake(self) -> Intake:
        """Where a pull's events come from."""
        settings = self.settings
        topic = Topic(self.broker.consumer(), settings.input_topic)  # type: ignore[arg-type]  # a client of its own
        dead = DeadLetters(self.broker.producer(), settings.failed_topic)  # type: ignore[arg-type]  # the same
        inbox = Inbox(Events(self.database), Arrivals(self.database), dead, settings)
        return Intake(topic, inbox, topic.beside(settings.failed_topic))

    # -- from beginning to end ---------------------------------------------------------------------------------

    def run(self) -> None:
        """Let everything happen. What is wrong is in `violations`."""
        s = self.scheduler
        with seams.installed(self, self.seed):
            self._scripts = [s.spawn("producer", self._produce), s.spawn("lms", self._edit)]
            self._scripts += [s.spawn("operator", self._order)] if self.setup.orders else []
            s.spawn("watcher", self._watch)
            if self.settings.approval_batches:
                s.spawn("approver", self._approve)
            if self.setup.refreshes:
                s.spawn("index", self._refresh)
            try:
                s.run()
            except EndlessError as e:
                self.broken(str(e))

    def broken(self, what: str, error: BaseException | None = None) -> None:
        """Note a violation."""
        self.scheduler.remark(f"VIOLATION: {what}")
        if error is not None:
            what += "\n" + "".join(traceback.format_exception(error))
        self.violations.append(what)

    @property
    def played(self) -> bool:
        """True if everything has been sent, edited and ordered."""
        return all(a.finished for a in self._scripts)

    @property
    def pulls(self) -> int:
        """Tries of pulls: each may write a dead letter that another one writes, too."""
        return sum(r.tries.get("pull", 0) for r in self.airflow.runs)

    def _watch(self) -> None:
        """The watcher; and when all is done, the hourly run with its second proof."""
        self.airflow.watch(until=lambda: self.played, runs=self.setup.runs)
        self.scheduler.remark("all is done; the hourly run comes")
        self.before_second_proof()
        for _ in range(2):
            window = Window(START_MS - HOUR_MS, self.scheduler.now_ms + 1)
            self.airflow.start("scheduled", window=window)
            self.airflow.watch(until=lambda: True, runs=self.setup.runs)
        self.ended = True

    ended = False

    def before_second_proof(self) -> None:
        """Called when every event is final, before the second proof."""

    def work_in_sight(self) -> tuple[frozenset[object], bool]:
        """What a run could work on, by names; and whether nothing at all is left."""
        topic = self.settings.input_topic
        stamp = self.commits
        if self._looked[0] != stamp:
            queued = Queue(self.plain)
            current, self.scheduler.current = self.scheduler.current, None
            try:
                consumed = {p: c.next_offset for p, c in Arrivals(self.plain).consumed(topic).items()}
                self._looked = (stamp, (queued.read(), consumed))
            finally:
                self.scheduler.current = current
        events, consumed = self._looked[1]
        behind = [(p, len(r)) for p, r in enumerate(self.broker.topics[topic]) if consumed.get(p, 0) < len(r)]
        now = self.scheduler.now_ms
        choice = choose(events, run_id="", now_ms=now, judged_ms=now, grace_ms=GRACE_MS, limit=1000)
        claimable = {(e.mid, e.fencing_token) for e in choice.take}
        return frozenset({*claimable, *behind}), not events and not behind

    # -- actors ------------------------------------------------------------------------------------------------

    def _produce(self) -> None:
        s = self.scheduler
        for m in sorted(self.setup.messages):
            s.sleep(START_MS + m.at_ms - s.now_ms)
            s.call(
                "topic",
                f"send {m.mid} {m.from_user}→{m.to_user}{m.poison}",
                partial(self._send, m),
                KeyError,
            )

    def _send(self, m: MessageSpec) -> None:
        ets = self.scheduler.now_ms - m.behind_ms
        first = next((k for k, sent in self.sent.items() if sent.mid == m.mid), None)
        if first is not None:  # the same message once more
            records = self.broker.topics[self.settings.input_topic][first[0]]
            body = records[first[1]].body
        elif m.poison:
            body = m.poison.encode()
        else:
            old, new = User(m.from_user, ORGANISATION), User(m.to_user, ORGANISATION)
            asset = {"objectType": "Course Batch", "identifier": m.asset} if m.asset else None
            event = transfer_event(old, new, ORGANISATION, ets=ets, mid=m.mid, request_id=m.mid, asset=asset)
            body = json.dumps(event).encode()
        record = self.broker.append(self.settings.input_topic, m.partition, body)
        self.sent[record.number, record.place] = m

    def _edit(self) -> None:
        s = self.scheduler
        for e in sorted(self.setup.edits, key=lambda e: e.at_ms):
            while s.now_ms < START_MS + e.at_ms and (e in self._armed or not e.after):
                s.wait(lambda: bool(self._documents_due), ms=START_MS + e.at_ms - s.now_ms)
                self._follow()
            if e in self._armed or not e.after:
                self._armed.pop(e, None)
                s.call("lms", f"edits {e.batch}: {e.edit}", partial(self._edit_row, e), KeyError)
            self._follow()
        if self._rows_read:
            s.wait(lambda: not self._rows_read, ms=LEASE_MS)
        for e, (_, row) in list(self._rows_read.items()):
            s.call("lms", f"writes document {e.batch}", partial(self._put_late, e, row), KeyError)

    def _follow(self) -> None:
        """The LMS writes the documents of the rows that it has edited: it reads the row, then writes the document."""
        s = self.scheduler
        while self._documents_due:
            key, lag_ms = self._documents_due.pop(0)
            row = s.call("lms", f"reads row {key.batch_id}", partial(self.rows.table.get, key), KeyError)
            if lag_ms:
                s.sleep(lag_ms)
            s.call("lms", f"writes document {key.batch_id}", partial(self._put, key, row), KeyError)

    def _put(self, key: BatchId, row: Mapping[str, Any] | None) -> None:
        """Make the document what a row was."""
        if row is None:
            self.index.remove(key.batch_id)
        else:
            self.index.put(key.batch_id, self._document(key, row))

    def _put_late(self, e: EditSpec, row: Mapping[str, Any] | None) -> None:
        """Write the document of an edit whose row the LMS has read before."""
        if self._rows_read.pop(e, None):
            self._put(self._key(e.batch), row)
            if e.shown:
                self.index.show()

    def _key(self, batch: str) -> BatchId:
        return next(k for k in self._keys if k.batch_id == batch)

    def _edit_row(self, e: EditSpec) -> None:
        if e.edit is Edit.JOIN:
            self.users.organisation_of[e.batch] = ORGANISATION
            return
        key = self._key(e.batch)
        row = self.rows.table.get(key)
        if row is None:
            return
        if e.edit is Edit.SHOW:
            self._put(key, row)
            self.index.show()
            return
        self.edited.add(e.batch)
        self.edited_rows.setdefault(e.batch, []).append(e.edit)
        self._change_row(key, dict(row), e.edit)
        if e.then:
            self._rows_read[e] = (0, self.rows.table.get(key))
        elif e.lag_ms < 0:
            self._put(key, self.rows.table.get(key))
            if e.shown:
                self.index.show()
        else:
            self._documents_due.append((key, e.lag_ms))

    def _change_row(self, key: BatchId, row: dict[str, Any], edit: Edit) -> None:
        if edit is Edit.DELETE:
            del self.rows.table[key]
            self.rows.written_us.pop(key, None)
            return
        if edit is Edit.OWNER:
            row["createdby"] = OUTSIDERS[0]
            self.rows.written_us[key] = self.scheduler.now_ms * 1000
        elif edit is Edit.MENTOR:
            row["mentors"] = [*(row["mentors"] or ()), f"z{len(self.edited_rows[key.batch_id])}"]
        elif edit is Edit.COMPLETE:
            row["status"] = 2
        else:
            row["name"] = "renamed"
        self.rows.table[key] = row

    def _strike(self, call: Call) -> None:
        """The edits, and the documents of earlier ones, that come right after a call."""
        if not call.actor.mortal:
            return
        name = f"{call.store} {call.what}"
        names = (name, f"{call.actor.task} {name}")

        def strikes(begins: str) -> bool:
            return any(n.startswith(begins) for n in names)

        for e, (n, read) in [(e, r) for e, r in self._rows_read.items() if strikes(e.then)]:
            self._rows_read[e] = (n + 1, read)
            if n + 1 == e.then_n:
                self.scheduler.remark(f"the LMS writes document {e.batch}")
                self._put_late(e, read)
        for e in [e for e in self._armed if strikes(e.after)]:
            self._armed[e] += 1
            if self._armed[e] == e.n:
                del self._armed[e]
                self.scheduler.remark(f"the LMS edits {e.batch}: {e.edit}")
                self._edit_row(e)

    def _order(self) -> None:
        s = self.scheduler
        for order in self.setup.orders:
            s.sleep(START_MS + order.at_ms - s.now_ms)
            if order.wait:
                s.wait(self._is_idle, ms=HOUR_MS)
            self.carry_out(order)

    def _approve(self) -> None:
        """Answers what awaits an approval: mostly with yes, now and then not at all, twice, or hardly in time."""
        s, rng = self.scheduler, Random(f"approver:{self.seed}")
        pause_ms = Random(f"pause:{self.seed}").choice((3_000, 20_000, 20_000, HOUR_MS - 2_000))
        while not self.ended:
            s.sleep(pause_ms)
            waiting = "SELECT mid, digest FROM event WHERE state = 'awaiting_approval' ORDER BY mid LIMIT 1"
            for mid, digest in self.database.plainly(waiting):
                order = rng.choice(("approve", "approve", "decline", ""))
                conf = {"mid": mid} | ({"digest": digest} if order == "approve" else {"reason": "drawn"})
                if order:
                    self.airflow.start("manual", {order: conf})

    def carry_out(self, order: OrderSpec) -> Run | None:
        """Do what an operator does; the run that was started, if one was."""
        runs = self.airflow.runs
        if order.kind in ("clear", "fail"):
            wanted = [r for r in runs if r.ended is (order.kind == "clear")]
            if wanted:
                (self.airflow.clear if order.kind == "clear" else self.airflow.fail)(wanted[0])
            return None
        conf = dict(order.conf)
        by_hand = [r.run_id for r in runs if r.kind == "manual" and "from_user" in r.conf]
        if order.kind == "undo":
            undoes = [r.run_id for r in runs if r.kind == "undo"]
            latest = {"undo:run-*:0": undoes, "manual:run-*:0": by_hand}
            conf["mids"] = [m.replace("run-*", latest[m][-1]) if latest.get(m) else m for m in conf["mids"]]
        if plan := conf.get("execute_plan"):
            rehearsed = [r.run_id for r in runs if "dry_run" in r.conf and r.run_id in by_hand]
            conf["execute_plan"] = plan = plan.replace("run-*", rehearsed[-1] if rehearsed else "")
            found = self.database.plainly("SELECT digest FROM event WHERE mid = :mid", mid=plan)
            conf["digest"] = (found[0][0] if found else None) or "0" * 20
        window = Window(START_MS - HOUR_MS, self.scheduler.now_ms + 1) if order.kind == "scheduled" else None
        return self.airflow.start(order.kind, conf, window=window)

    def _is_idle(self) -> bool:
        return all(r.ended for r in self.airflow.runs) and self.work_in_sight()[1]

    def _refresh(self) -> None:
        while not self.ended:
            self.scheduler.sleep(1_000)
            self.index.show()

    # -- facts -------------------------------------------------------------------------------------------------

    def _fill(self) -> None:
        self.database.empty()
        self._keys = [BatchId(b.course, b.batch) for b in self.setup.batches]
        for b, key in zip(self.setup.batches, self._keys, strict=True):
            row = {
                "name": b.batch, "createdby": b.created_by, "mentors": list(b.mentors) or None, "status": b.status,
                "createdfor": list(b.created_for) or None,
            }  # fmt: skip
            self.rows.table[key] = row
            self.rows.written_us[key] = (START_MS - HOUR_MS) * 1000
            if b.document:
                self.index.put(b.batch, self._document(key, row))
        self.index.show()
        for user in (*self.setup.users, *OUTSIDERS):
            self.users.organisation_of[user] = OTHER if user in self.setup.foreign else ORGANISATION
        self.users.deleted = set(self.setup.deleted)

    @staticmethod
    def _document(key: BatchId, row: Mapping[str, Any]) -> dict[str, Any]:
        names = {
            "batchId": key.batch_id,
            "identifier": key.batch_id,
            "id": key.batch_id,
            "courseId": key.course_id,
        }
        return {
            **names, "name": row["name"], "createdBy": row["createdby"], "mentors": list(row["mentors"] or ()),
            "status": row["status"],
        }  # fmt: skip

    def _committed(self, name: str) -> None:
        self.commits += 1
        if self.settings.approval_batches:
            self._check_approvals()
        actor = self.scheduler.current
        if name == "Queue.held" and actor:
            self._replaced[actor] = self._is_replaced(actor)
        elif name == "Changes.record":
            images = self._recording.get(actor, [])
            self._recorded[actor.name if actor else ""] += images
            self._recorded_at |= dict.fromkeys((i.uuid for i in images), self.scheduler.calls)
        elif name == "Events.complete" and actor:
            self._check_completed(actor)

    def _check_approvals(self) -> None:
        """What awaits an approval can be given one: event and queue say the same."""
        for mid, state in self.database.plainly(_APPROVALS):
            what = f"{mid} is {state}, and the queue says otherwise"
            if what not in self.violations:
                self.broken(what)

    def _check_completed(self, by: Actor) -> None:
        """A completed event has no image without an outcome that an earlier try left."""
        refreshed_at = self.index.refreshed_at.get(by.name, 0)
        completed = {r.mid for r in self.database.plainly("SELECT mid FROM event WHERE state = 'completed'")}
        new = completed - self.proven_at.keys()
        self.proven_at |= dict.fromkeys(new, refreshed_at)
        for image, batch, mid in self.database.plainly(_UNDECIDED):
            if mid in new and self._recorded_at[image] < by.first_call:
                self.broken(f"{mid} was completed, and an earlier image of {batch} has no outcome")

    def _check_write(self, w: Written) -> None:
        """Each change of a row that the job makes is one that an image of the same process has announced."""
        if not w.before:
            self.broken(f"{w.by} created row {w.id.batch_id}")
            return
        before, after = _owners(w.before), _owners(w.after)
        for image in reversed(self._recorded[w.by]):
            i = image.before
            if (
                image.id == w.id
                and i.owners == before
                and i.status == w.before["status"]
                and image.after.owners == after
            ):
                if not w.late:  # else nobody can tell when it took effect
                    self.written_ms[image.uuid] = self.scheduler.now_ms
                if w.by in self.scheduler.frozen and not self._holds(image):
                    self.late_writes.add(w.id)
                return
        self.broken(
            f"{w.by} changed {w.id.batch_id} from {before} (status {w.before['status']}) to {after}: no image says so"
        )

    def _check_fence(self, call: Call) -> None:
        """Who has lost its claim writes a row only if it froze between its fence and the write."""
        actor = call.actor
        images = self._recording.get(actor)
        if call.store != "rows" or call.what in ("read", "page") or actor.name not in self.scheduler.frozen:
            return
        calls = [x.what for x in self.scheduler.trace if x.actor == actor.name and x.store == "ledger"]
        fenced = calls and calls[-1] in (
            "Queue.held",
            "Queue._write",
        )  # the fence, and its renewal of the lease
        if images and not fenced and not self._holds(images[0]):
            self.broken(f"{actor.name} has lost its claim, and wrote {call.what} without a fence")

    def _holds(self, image: Image) -> bool:
        """True if the token of an image is still that of its event's claim."""
        found = self.database.plainly(
            "SELECT FROM queue JOIN event ON event.id = event_id "
            "WHERE mid = :mid AND queue.fencing_token = :token",
            mid=image.hops[-1].mid,
            token=image.fencing_token,
        )
        return bool(found)

    def _check_offsets(self, offsets: Mapping[tuple[str, int], int]) -> None:
        if not any(offsets.values()):
            return
        rows = self.database.plainly("SELECT topic, kafka_partition, next_offset FROM consumed_offset")
        ledger = {(r[0], r[1]): r[2] for r in rows}
        for place, offset in offsets.items():
            if offset > ledger.get(place, 0):
                self.broken(f"offset {offset} of {place} is committed, the ledger has {ledger.get(place, 0)}")


def _owners(row: Mapping[str, Any]) -> tuple[str | None, tuple[str, ...]]:
    return row.get("createdby"), tuple(row.get("mentors") or ())
