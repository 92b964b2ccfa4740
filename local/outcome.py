"""What became of the demo's messages: read from the ledger, both stores, the dead-letter topic and Airflow."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

import httpx
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka import Message as KafkaMessage

from local import airflow
from local.processes import NotReadyError, await_condition
from local.schema import BATCH_INDEX, KEYSPACE
from local.stack import Addresses
from local.story import FINAL, Message, Owners
from local.world import Batch, Offset, Platform

UNSEEN: Final = "on the topic"
"""State of a message that no run has read yet."""


@dataclass(frozen=True)
class EventRow:
    """An event in the ledger."""

    state: str = UNSEEN
    reason: str = ""
    run_id: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)
    completed_at: datetime | None = None

    @property
    def final(self) -> bool:
        """Whether nothing will happen to it any more."""
        return self.state in FINAL


@dataclass(frozen=True)
class DeadLetter:
    """A copy of a rejected message, and why it was rejected. `source` is where the original stands."""

    offset: int
    source: Offset
    error_class: str
    error_message: str


@dataclass(frozen=True)
class TransferRun:
    """A run of the DAG, as Airflow knows it."""

    run_id: str
    run_type: str
    state: str
    seconds: float | None
    url: str


@dataclass(frozen=True)
class Standing:
    """How things are at one moment."""

    events: Mapping[str, EventRow]
    rows: Mapping[str, Owners | None]
    documents: Mapping[str, Owners | None]

    @property
    def states(self) -> Counter[str]:
        """Events by state."""
        return Counter(event.state for event in self.events.values())

    @property
    def final(self) -> bool:
        """Whether nothing will happen to any event."""
        return all(event.final for event in self.events.values())


def standing(platform: Platform, mids: Collection[str], batches: Iterable[Batch]) -> Standing:
    """Events, rows and documents as they are now."""
    batches = list(batches)
    rows = {
        row["batchid"]: Owners(row["createdby"], tuple(row["mentors"] or ()))
        for course in sorted({batch.course_id for batch in batches})
        for row in platform.rows(course)
    }
    ids = [batch.batch_id for batch in batches]
    found = platform.search.mget(index=BATCH_INDEX, ids=ids, source_includes=["createdBy", "mentors"])
    documents = {
        hit["_id"]: Owners(hit["_source"].get("createdBy"), tuple(hit["_source"].get("mentors") or ()))
        for hit in found["docs"]
        if hit.get("found")
    }
    return Standing(
        _events(platform, mids),
        {batch: rows.get(batch) for batch in ids},
        {batch: documents.get(batch) for batch in ids},
    )


def _events(platform: Platform, mids: Collection[str]) -> dict[str, EventRow]:
    statement = platform.session.prepare(
        f"SELECT mid, state, reason, run_id, counts, completed_at FROM {KEYSPACE}.transfer_event WHERE mid IN ?"
    )
    events = dict.fromkeys(mids, EventRow())
    for row in platform.session.execute(statement, (list(mids),)):
        completed = row["completed_at"]
        events[row["mid"]] = EventRow(
            row["state"] or "",
            row["reason"] or "",
            row["run_id"] or "",
            dict(row["counts"] or {}),
            completed.replace(tzinfo=UTC) if completed else None,
        )
    return events


def dead_letters(kafka: str, topic: str, places: Collection[Offset]) -> list[DeadLetter]:
    """The copies of the messages at `places` on the dead-letter topic, in its order."""
    wanted = set(places)
    consumer = Consumer(
        {"bootstrap.servers": kafka, "group.id": "demo-reader", "enable.auto.commit": False}
    )  # assigned by hand: nothing is committed, nobody's offsets move
    letters = []
    try:
        low, high = consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=30)
        consumer.assign([TopicPartition(topic, 0, low)])
        deadline = time.monotonic() + 30
        at = low
        while at < high and time.monotonic() < deadline:
            for message in consumer.consume(500, timeout=1):
                if message.error() is None:
                    at = (message.offset() or 0) + 1
                    letters.append(_letter(message))
    finally:
        consumer.close()
    return [letter for letter in letters if letter.source in wanted]


def _letter(message: KafkaMessage) -> DeadLetter:
    headers: dict[str, str] = {
        name: value.decode() if isinstance(value, bytes) else str(value)
        for name, value in dict(message.headers() or ()).items()
    }
    source = Offset(headers["topic"], int(headers["partition"]), int(headers["offset"]))
    return DeadLetter(message.offset() or 0, source, headers["error_class"], headers["error_message"])


@contextmanager
def opened_api(addresses: Addresses) -> Iterator[httpx.Client]:
    """Airflow's REST API at the job's DAG. Raises httpx.HTTPError when it does not let us in."""
    token = airflow.token(addresses.airflow, addresses.airflow_user, addresses.airflow_password)
    with httpx.Client(
        base_url=f"{addresses.airflow}/api/v2/dags/{airflow.DAG_ID}",
        headers={"Authorization": f"Bearer {token}"},
        timeout=30,
    ) as client:
        yield client


def ended_runs(addresses: Addresses, run_ids: Collection[str], *, timeout_s: float = 60) -> list[TransferRun]:
    """These runs in the order of their start, as soon as they have ended.

    After `timeout_s` seconds they are returned as they are: the events are what counts.
    """
    runs: list[TransferRun] = []

    def ended() -> bool:
        runs[:] = [_run(client, addresses, run_id) for run_id in run_ids]
        return all(run.state in {"success", "failed"} for run in runs)

    with opened_api(addresses) as client:
        with suppress(NotReadyError):
            await_condition(ended, timeout_s=timeout_s, what="the runs to end", poll_s=0.5)
        order = client.get("/dagRuns", params={"order_by": "start_date", "limit": 100}).json()["dag_runs"]
    place = {run["dag_run_id"]: number for number, run in enumerate(order)}
    return sorted(runs, key=lambda run: place.get(run.run_id, len(place)))


def run_url(addresses: Addresses, run_id: str) -> str:
    """Where Airflow shows a run."""
    return f"{addresses.airflow}/dags/{airflow.DAG_ID}/runs/{quote(run_id, safe=':')}"


def _run(client: httpx.Client, addresses: Addresses, run_id: str) -> TransferRun:
    answer = client.get(f"/dagRuns/{quote(run_id, safe='')}")
    answer.raise_for_status()
    known: dict[str, Any] = answer.json()
    begun, ended = (
        known[name] and datetime.fromisoformat(known[name]) for name in ("start_date", "end_date")
    )
    return TransferRun(
        run_id,
        known["run_type"],
        known["state"],
        (ended - begun).total_seconds() if begun and ended else None,
        run_url(addresses, run_id),
    )


def differences(
    now: Standing, sent: Mapping[str, Message], owners: Mapping[str, Owners], letters: Collection[DeadLetter]
) -> list[str]:
    """What is not as expected, a sentence each."""
    wrong = [
        f"{message.what} ({mid}) is {now.events[mid].state}, not {message.expected}: {now.events[mid].reason}"
        for mid, message in sent.items()
        if now.events[mid].state != message.expected
    ]
    for store, found in (("row", now.rows), ("document", now.documents)):
        wrong += [
            f"the {store} of {batch} has {found[batch]}, not {expected}"
            for batch, expected in owners.items()
            if found[batch] != expected
        ]
    rejected = sum(message.expected == "rejected" for message in sent.values())
    if len(letters) != rejected:
        wrong.append(f"{len(letters)} dead letters, not {rejected}")
    return wrong
