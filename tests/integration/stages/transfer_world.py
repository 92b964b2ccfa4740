"""What the transfer tests share: people and batches of their own, one job, both stores compared at the end."""

from __future__ import annotations

import itertools
import json
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NoReturn

import httpx
import pytest
from confluent_kafka import Consumer, TopicPartition
from psycopg.conninfo import make_conninfo

from local.platform.schema import failed_topic
from local.platform.world import Batch, Platform, User, create_platform
from ownership.domain.clock import now_ms
from ownership.domain.contracts import Summary
from ownership.domain.errors import Unavailable
from ownership.domain.queue import QueuedEvent
from ownership.domain.states import ChangeOutcome
from ownership.ledger.changes import Image, Planned
from ownership.ledger.events import EventRow, RejectedMessage
from ownership.platform.kafka import Span
from ownership.stages.intake import Window
from tests.harness import Job, Run, execute, ledger_name, opened_job, opened_ledger

Owners = tuple[str | None, tuple[str, ...]]

ORGANISATION = "0126796199493140480"
BATCHES_A_COURSE = 7

_names = itertools.count(1)


def _decoded(headers: Any) -> dict[str, str]:
    """A message's headers as text."""
    return {name: value.decode() for name, value in headers}


class World:
    """One platform and one job, with a topic, a consumer group and a ledger of their own."""

    def __init__(self, platform: Platform, job: Job, kafka: str, ledger: str) -> None:
        self.ledger = ledger
        self.platform = platform
        self.job = job
        self.env = job.settings.env
        self.kafka = kafka
        self.made: list[Batch] = []
        self.hidden: set[str] = set()
        """Batches whose document may differ: nothing of what the job sees tells of them."""

    # --- people and batches

    def users(self, *names: str, organisation: str = ORGANISATION) -> list[str]:
        """New users, known to User-Org."""
        ids = [f"{name}-{self.env}-{next(_names)}" for name in names]
        self.platform.add_users([User(i, organisation) for i in ids])
        return ids

    def make(self, count: int = 1, **fields: Any) -> list[Batch]:
        """Batches that are not stored yet."""
        group = next(_names)
        return [
            Batch(
                f"course-{self.env}-{group}-{n // BATCHES_A_COURSE}",
                f"batch-{self.env}-{group}-{n}",
                **fields,
            )
            for n in range(count)
        ]

    def batches(
        self, count: int = 1, *, rows: bool = True, documents: bool = True, **fields: Any
    ) -> list[Batch]:
        """Batches in both stores."""
        made = self.make(count, **fields)
        self.platform.add_batches(made, rows=rows, documents=documents)
        self.made += made
        return made

    def batch(self, **fields: Any) -> Batch:
        """One batch in both stores."""
        (made,) = self.batches(**fields)
        return made

    def row(self, batch: Batch) -> Owners | None:
        """Creator and mentors in Cassandra."""
        row = self.platform.row(batch.course_id, batch.batch_id)
        return (row["createdby"], tuple(row["mentors"] or ())) if row else None

    def document(self, batch: Batch) -> Owners | None:
        """Creator and mentors in the index."""
        found = self.platform.document(batch.batch_id)
        return (found.get("createdBy"), tuple(found.get("mentors") or ())) if found else None

    def owners(self, batch: Batch) -> Owners | None:
        """Creator and mentors, on which both stores agree."""
        row = self.row(batch)
        assert self.document(batch) == row, f"{batch.batch_id}: document and row differ"
        return row

    def creators(self, batches: Sequence[Batch]) -> list[str | None]:
        """The creators on which both stores agree."""
        return [owners[0] if (owners := self.owners(b)) else None for b in batches]

    def edit(self, batch: Batch, **columns: Any) -> None:
        """Change the row as the LMS would; the document is not written."""
        self.platform.update_row(batch.course_id, batch.batch_id, **columns)

    def check_stores(self) -> None:
        """Every live batch of the test has a document that agrees with its row."""
        for batch in self.made:
            if batch.batch_id not in self.hidden and self.row(batch) is not None:
                self.owners(batch)

    # --- events

    def transfer(self, from_user: str, to_user: str, **overrides: Any) -> str:
        """Announce a transfer; its mid."""
        event = self.event(from_user, to_user, **overrides)
        self.platform.emit(event)
        return str(event["mid"])

    def event(self, from_user: str, to_user: str, **overrides: Any) -> dict[str, Any]:
        """A transfer that is not announced yet."""
        return self.platform.event(from_user, to_user, ORGANISATION, **overrides)

    # --- runs

    def run(self) -> Run:
        """A new run."""
        return self.job.run()

    def pull_one_slice(self) -> Run:
        """A new run that has pulled everything into one slice, as in a large burst."""
        settings = self.job.parts.settings.model_copy(update={"max_mapped": 1, "parallelism": 1})
        with replaced(self.job, "parts", replace(self.job.parts, settings=settings)):
            run = self.run().pull()
        assert len(run.pulled.slices) == 1
        return run

    def whole_run(self, **pull: Any) -> Summary:
        """One run from its pull to its end."""
        return self.run().pull(**pull).finish()

    def undo(self, *mids: str, dry_run: bool = False, **conf: Any) -> tuple[Run, Summary]:
        """A run of `ownership_undo` from its pull to its end."""
        run = self.run().pull(undo={"mids": list(mids), "dry_run": dry_run, **conf})
        return run, run.finish()

    def form(self, from_user: str, to_user: str, **fields: Any) -> dict[str, Any]:
        """The conf of a run by hand."""
        return {"from_user": from_user, "to_user": to_user, "organisation_id": ORGANISATION, **fields}

    def state(self, mid: str) -> str:
        """An event's state."""
        return self.read(mid).state

    def read(self, mid: str) -> EventRow:
        """An event's row."""
        return self.job.event(mid)

    def rejected(self, mid: str) -> RejectedMessage:
        """A rejected message."""
        return self.job.parts.events.rejected([mid])[mid]

    def queued(self, mid: str) -> QueuedEvent:
        """An event in the queue."""
        return next(e for e in self.job.parts.queue.read() if e.mid == mid)

    def expire(self, *mids: str) -> None:
        """Let the claims on events end now, as if their run had been silent for long."""
        # An event that no run holds has no lease.
        self._set_queued("lease_expires_at = CASE WHEN holder IS NOT NULL THEN to_timestamp(1) END", mids)

    def make_due(self, *mids: str) -> None:
        """Let the delay before the next try of events be over."""
        self._set_queued("next_try_at = to_timestamp(1)", mids)

    def _set_queued(self, assignment: str, mids: Sequence[str]) -> None:
        for mid in mids:
            past = f"UPDATE queue SET {assignment} FROM event WHERE event_id = id AND mid = :mid"
            assert len(self.execute(f"{past} RETURNING id", mid=mid)) == 1

    def execute(self, statement: str, **values: Any) -> list[Any]:
        """The rows of a statement in the ledger, if it returns any."""
        return execute(self.job.parts.database, statement, **values)

    def lead_to_ledger(self, environment: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
        """Let the Connection of this process lead to the world's own ledger."""
        own = environment["AIRFLOW_CONN_OWNERSHIP_LEDGER"] | {"schema": ledger_name(self.env)}
        monkeypatch.setenv("AIRFLOW_CONN_OWNERSHIP_LEDGER", json.dumps(own))

    def lose(self, mid: str) -> None:
        """The ledger forgets an event."""
        for table in ("payload", "event_run", "queue", "plan", "change"):
            self.execute(f"DELETE FROM {table} USING event WHERE event_id = id AND mid = :mid", mid=mid)
        self.execute("DELETE FROM event WHERE mid = :mid", mid=mid)

    def rewind(self) -> None:
        """Set the consumer group back to the beginning of the topic."""
        self.job.topic.commit([Span(p, 0, 0) for p in self.job.topic.partitions()])

    def window(self) -> Window:
        """All hours that messages of this session may lie in."""
        now = now_ms()
        return Window(now - 3 * 3_600_000, now + 3_600_000)

    # --- audit trail and dead letters

    def changes(self, mid: str) -> tuple[list[Planned], list[Image]]:
        """Plan and images of an event."""
        return self.job.parts.changes.read([mid])

    def outcomes(self, mid: str) -> dict[str, str | None]:
        """What became of an event's planned batches, by batch id."""
        return {p.id.batch_id: p.outcome for p in self.changes(mid)[0]}

    def trail(self, mid: str) -> dict[str, list[tuple[Owners, Owners]]]:
        """The event's own applied hops, before and after, by batch id."""
        found: dict[str, list[tuple[Owners, Owners]]] = {}
        for image in self.changes(mid)[1]:
            assert image.outcome == ChangeOutcome.APPLIED, image
            for hop in image.hops:
                if hop.mid == mid:
                    found.setdefault(image.id.batch_id, []).append((hop.before.owners, hop.after.owners))
        return found

    def change_rows(self) -> int:
        """Number of rows of the audit trail."""
        return self._count("plan") + self._count("change")

    def event_rows(self) -> int:
        """Number of events and rejected messages in the ledger."""
        return self._count("event") + self._count("rejected_message")

    def _count(self, table: str) -> int:
        (row,) = self.execute(f"SELECT count(*) FROM {table}")
        return int(row[0])

    def dead_letters(self) -> list[tuple[dict[str, str], bytes]]:
        """Headers and value of every message on the dead-letter topic."""
        consumer = Consumer({"bootstrap.servers": self.kafka, "group.id": f"look-{uuid.uuid4().hex}"})
        try:
            at = TopicPartition(failed_topic(self.env), 0, 0)
            _, high = consumer.get_watermark_offsets(at, timeout=10)
            consumer.assign([at])
            found: list[tuple[dict[str, str], bytes]] = []
            while len(found) < high:
                messages = consumer.consume(high - len(found), timeout=10)
                assert messages, "the dead-letter topic stopped answering"
                found += [(_decoded(m.headers() or []), m.value() or b"") for m in messages]
            return found
        finally:
            consumer.close()


class Faults:
    """The fault switches of one stand-in."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def set(self, mode: str, **fault: Any) -> None:
        """Add a fault: `user`, `seconds`, `times`."""
        self._client.put("/_faults", json={"mode": mode, **fault}).raise_for_status()

    def clear(self) -> None:
        """All is well again."""
        self._client.delete("/_faults").raise_for_status()

    def requests(self) -> dict[str, int]:
        """How often each path was called since the last reset."""
        found: dict[str, int] = self._client.get("/_requests").json()
        return found

    def reset(self) -> None:
        """Forget the counts."""
        self._client.delete("/_requests").raise_for_status()


def boom(*_: object, **__: object) -> NoReturn:
    """Takes the place of what a process did not do any more."""
    raise Unavailable("test", "the process died here")


@contextmanager
def replaced(owner: object, name: str, by: object) -> Iterator[None]:
    """`by` takes the place of an attribute meanwhile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, by)
        yield


@contextmanager
def opened_faults(url: str) -> Iterator[Faults]:
    """The switches of the stand-in at `url`; healthy before and after."""
    with httpx.Client(base_url=url, timeout=10, trust_env=False) as client:
        faults = Faults(client)
        faults.clear()
        yield faults
        faults.clear()


@contextmanager
def opened_world(addresses: Any, **settings: Any) -> Iterator[World]:
    """A world on these servers; `settings` may have a `service`, see `opened_job`."""
    env = f"t{uuid.uuid4().hex[:8]}"
    servers = {name: getattr(addresses, name) for name in ("kafka", "cassandra", "elasticsearch")}
    services = {name: getattr(addresses, name) for name in ("lms", "userorg")}
    create_platform(**servers, env=env)
    ledger = make_conninfo(addresses.ledger, dbname=ledger_name(env))
    with (
        Platform(**servers, env=env) as platform,
        opened_ledger(addresses.ledger, ledger_name(env)),
        opened_job(**servers, **services, ledger=ledger, env=env, **settings) as job,
    ):
        yield World(platform, job, addresses.kafka, ledger)
