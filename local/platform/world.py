"""The platform as tests, demo and benchmarks see it: users, course batches in both stores, events.

    with Platform(cassandra="127.0.0.1:9042", elasticsearch="http://127.0.0.1:9200",
                  kafka="127.0.0.1:9092") as platform:
        platform.add_user("user-a", "org-1")
        platform.add_batches([Batch("course-1", "batch-1", created_by="user-a")])
        platform.emit(platform.event("user-a", "user-b", "org-1"))

It writes what the platform's own services would write, and never runs a transfer itself.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Final, Self
from zoneinfo import ZoneInfo

from cassandra.concurrent import execute_concurrent
from cassandra.query import BatchStatement, BatchType, PreparedStatement
from confluent_kafka import KafkaError, Message, Producer
from elasticsearch import NotFoundError, helpers

from local.platform.schema import (
    BATCH_INDEX,
    COLUMNS,
    COURSE_INDEX,
    KEYSPACE,
    TABLE,
    TIMEOUT_SECONDS,
    USER_INDEX,
    connect_cassandra,
    connect_elasticsearch,
    create_platform,
    failed_topic,
    input_topic,
)

__all__ = [
    "COMPLETED",
    "LIVE",
    "ONGOING",
    "UPCOMING",
    "Batch",
    "Offset",
    "Owned",
    "Platform",
    "User",
    "create_platform",
    "transfer_event",
]

TIME_ZONE: Final = ZoneInfo("Asia/Kolkata")
"""In which the platform turns timestamps into dates."""
UPCOMING: Final = 0
ONGOING: Final = 1
COMPLETED: Final = 2
LIVE: Final = (UPCOMING, ONGOING)

CONCURRENT_WRITES: Final = 32
ROWS_A_WRITE: Final = 10
"""Rows of one partition in one request: five times as quick as one by one, and below the 5 KiB at which
Cassandra warns."""


@dataclass(frozen=True)
class User:
    """A user as User-Org knows them. `status` 1 is active; who is `deleted` or blocked is not shown any more."""

    user_id: str
    organisation: str
    """Empty for a record without one, as some old ones are."""
    user_name: str = ""
    first_name: str = ""
    last_name: str = ""
    status: int = 1
    deleted: bool = False

    def document(self) -> dict[str, Any]:
        """The document of the index `user`."""
        return {
            "identifier": self.user_id,
            "id": self.user_id,
            "userId": self.user_id,
            "rootOrgId": self.organisation or None,
            "userName": self.user_name or self.user_id,
            "firstName": self.first_name,
            "lastName": self.last_name,
            "status": self.status,
            "isDeleted": self.deleted,
        }


@dataclass(frozen=True)
class Batch:
    """A course batch. Dates are the platform's texts, `YYYY-MM-DD`; mentors None is a null column."""

    course_id: str
    batch_id: str
    created_by: str | None = None
    mentors: Sequence[str] | None = ()
    status: int = ONGOING
    name: str = "A batch"
    description: str = ""
    enrollment_type: str = "open"
    created_for: Sequence[str] = ()
    start_date: str = "2026-01-05"
    end_date: str = "2026-12-18"
    enrollment_end_date: str = "2026-11-30"
    created_date: str = "2026-01-02 14:30:00:000+0530"
    updated_date: str | None = None
    cert_templates: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def row(self) -> dict[str, Any]:
        """The row of `course_batch`, by column; a list without elements is null there, as in Cassandra."""
        return {
            "courseid": self.course_id,
            "batchid": self.batch_id,
            "cert_templates": {key: dict(value) for key, value in self.cert_templates.items()} or None,
            "createdby": self.created_by,
            "createddate": self.created_date,
            "createdfor": list(self.created_for) or None,
            "description": self.description,
            "enddate": self.end_date,
            "enrollmentenddate": self.enrollment_end_date,
            "enrollmenttype": self.enrollment_type,
            "mentors": list(self.mentors or ()) or None,
            "name": self.name,
            "startdate": self.start_date,
            "status": self.status,
            "updateddate": self.updated_date,
            "created_date": _timestamp(self.created_date),
            "end_date": _end_of_day(self.end_date),
            "enrollment_enddate": _end_of_day(self.enrollment_end_date),
            "start_date": _timestamp(self.start_date),
            "updated_date": _timestamp(self.updated_date),
        }

    def document(self) -> dict[str, Any]:
        """The document of the index `course-batch`, as the LMS writes it."""
        return {
            "batchId": self.batch_id,
            "courseId": self.course_id,
            "id": self.batch_id,
            "identifier": self.batch_id,
            "name": self.name,
            "description": self.description,
            "createdBy": self.created_by,
            "createdDate": self.created_date,
            "createdFor": list(self.created_for),
            "mentors": None if self.mentors is None else list(self.mentors),
            "enrollmentType": self.enrollment_type,
            "status": self.status,
            "startDate": self.start_date,
            "endDate": self.end_date,
            "enrollmentEndDate": self.enrollment_end_date,
            "updatedDate": self.updated_date,
            "cert_templates": {key: dict(value) for key, value in self.cert_templates.items()},
        }


def _timestamp(text: str | None) -> datetime | None:
    """One of the platform's date texts, with or without a time of day, as the newer columns have it."""
    if not text:
        return None
    if len(text) == len("YYYY-MM-DD"):
        return datetime.fromisoformat(text).replace(tzinfo=TIME_ZONE)
    return datetime.strptime(text, "%Y-%m-%d %H:%M:%S:%f%z")


def _end_of_day(text: str | None) -> datetime | None:
    day = _timestamp(text)
    return day + timedelta(days=1, milliseconds=-1) if day else None


@dataclass(frozen=True)
class Owned:
    """How many batches a user creates and mentors, in each store."""

    rows_created: int = 0
    rows_mentored: int = 0
    documents_created: int = 0
    documents_mentored: int = 0

    @property
    def nothing(self) -> bool:
        """True when neither store names the user."""
        return self == Owned()


@dataclass(frozen=True)
class Offset:
    """The position of a message in Kafka."""

    topic: str
    partition: int
    offset: int

    def __iter__(self) -> Iterator[Any]:
        """Unpack as (topic, partition, offset)."""
        return iter((self.topic, self.partition, self.offset))


class _Clock:
    """Strictly increasing epoch milliseconds, never ahead of the machine's clock: no two events have the same time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0

    def next(self) -> int:
        with self._lock:
            # A time ahead of the acceptor's clock would count as that: several would be the same, in another order.
            while (now := time.time_ns() // 1_000_000) <= self._last:
                time.sleep(0.0002)
            self._last = now
            return now


_clock = _Clock()


def transfer_event(
    from_user: str | User,
    to_user: str | User,
    organisation: str,
    *,
    ets: int | None = None,
    mid: str | None = None,
    request_id: str | None = None,
    reason: str = "Ownership Transfer",
    asset: Mapping[str, Any] | None = None,
    **overrides: Any,
) -> dict[str, Any]:
    """The event that the platform emits for one transfer.

    `ets` is epoch milliseconds (default: now, and always later than the last call's), `reason` becomes
    `edata.context`, `asset` becomes `edata.assetInformation`. `overrides` name top-level fields; objects
    among them are merged into what is there: `edata={"organisationId": "x"}` changes that one field.
    """
    source, target = _profile(from_user), _profile(to_user)
    ets = _clock.next() if ets is None else ets
    event: dict[str, Any] = {
        "eid": "BE_JOB_REQUEST",
        "ets": ets,
        "mid": f"LP.{ets}.{uuid.uuid4()}" if mid is None else mid,
        "actor": {"id": "ownership-transfer", "type": "System"},
        "context": {
            "pdata": {"id": "org.sunbird.platform", "ver": "1.0"},
            "cdata": {"id": request_id or str(uuid.uuid4()), "type": "Request"},
        },
        "object": {"id": source["userId"], "type": "User"},
        "edata": {
            "action": "ownership-transfer",
            "organisationId": organisation,
            "context": reason,
            "actionBy": {"userId": "5a587cc1-e018-4859-a0a8-e842650b9d64", "userName": "orgadmin"},
            "fromUserProfile": {key: source[key] for key in ("userId", "userName", "roles")},
            "toUserProfile": target,
            "assetInformation": dict(asset or {}),
            "iteration": 1,
        },
    }
    return _merged(event, overrides)


def _profile(user: str | User) -> dict[str, Any]:
    known = user if isinstance(user, User) else User(user, "")
    return {
        "userId": known.user_id,
        "userName": known.user_name or f"user-{known.user_id[:8]}",
        "firstName": known.first_name or "First",
        "lastName": known.last_name or "Last",
        "roles": ["COURSE_MENTOR", "CONTENT_CREATOR"],
    }


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        present = merged.get(key)
        if isinstance(present, dict) and isinstance(value, Mapping):
            merged[key] = _merged(present, value)
        else:
            merged[key] = value
    return merged


class Platform:
    """The platform's stores and its topic, open until `close()` or the end of a `with`.

    `cassandra` and `kafka` are `host:port`, `elasticsearch` is a URL; `create_platform` must have run.
    Every call has a time-out of 30 seconds; failures are the client libraries' exceptions. Writes to the
    index are refreshed before they return, so that the next search sees them.
    """

    def __init__(self, *, cassandra: str, elasticsearch: str, kafka: str, env: str = "dev") -> None:
        self.env = env
        self.input_topic = input_topic(env)
        self.failed_topic = failed_topic(env)
        self._prepared: dict[str, PreparedStatement] = {}
        self._cluster = connect_cassandra(cassandra)
        try:
            self.session = self._cluster.connect(KEYSPACE)
            self.search = connect_elasticsearch(elasticsearch)
        except BaseException:
            self._cluster.shutdown()
            raise
        self._producer = Producer(
            {
                "bootstrap.servers": kafka,
                "acks": "all",
                "message.max.bytes": 8 << 20,
                "message.timeout.ms": int(TIMEOUT_SECONDS * 1000),
                "socket.timeout.ms": 10_000,
                "log_level": 0,  # else a line for each new try, 20 a second, while the fault suite has Kafka away
            }
        )

    def __enter__(self) -> Self:
        """Return itself; the constructor has opened the connections."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close all connections."""
        self.close()

    def close(self) -> None:
        """Flush the producer and close all connections."""
        self._producer.flush(TIMEOUT_SECONDS)
        self._producer.close()
        self.search.close()
        self._cluster.shutdown()

    # --- users

    def add_user(self, user_id: str, organisation: str, **names: Any) -> User:
        """Add or replace one user; `names` are further fields of `User`."""
        user = User(user_id, organisation, **names)
        self.add_users([user])
        return user

    def add_users(self, users: Iterable[User]) -> None:
        """Add or replace users. Their key is the lower-cased id, because the platform ignores case."""
        self._bulk(
            {"_index": USER_INDEX, "_id": user.user_id.lower(), "_source": user.document()} for user in users
        )

    def add_course(self, course_id: str, organisation: str, name: str, **fields: Any) -> None:
        """Add or replace a course in the content search."""
        course = {"identifier": course_id, "channel": organisation, "name": name, "objectType": "Collection"}
        course |= {"primaryCategory": "Course", "status": "Live", **fields}
        self._bulk([{"_index": COURSE_INDEX, "_id": course_id, "_source": course}])

    # --- batches

    def add_batches(self, batches: Iterable[Batch], *, rows: bool = True, documents: bool = True) -> None:
        """Add or replace batches: the row, the document, or both."""
        batches = list(batches)
        if rows:
            statements = ((statement, None) for statement in self._inserts(batches))
            execute_concurrent(self.session, statements, concurrency=CONCURRENT_WRITES)
        if documents:
            self._bulk(
                {"_index": BATCH_INDEX, "_id": batch.batch_id, "_source": batch.document()}
                for batch in batches
            )

    def _inserts(self, batches: Iterable[Batch]) -> Iterator[BatchStatement]:
        insert = self._prepare(
            f"INSERT INTO {TABLE} ({', '.join(COLUMNS)}) VALUES ({', '.join('?' for _ in COLUMNS)})"
        )
        courses: dict[str, list[dict[str, Any]]] = {}
        for batch in batches:
            courses.setdefault(batch.course_id, []).append(batch.row())
        for rows in courses.values():
            for start in range(0, len(rows), ROWS_A_WRITE):
                statement = BatchStatement(BatchType.UNLOGGED)
                for row in rows[start : start + ROWS_A_WRITE]:
                    statement.add(insert, [row[column] for column in COLUMNS])
                yield statement

    def row(self, course_id: str, batch_id: str) -> dict[str, Any] | None:
        """The row of one batch by column, or None. An empty list reads as None."""
        found: dict[str, Any] | None = self.session.execute(
            self._prepare(f"SELECT * FROM {TABLE} WHERE courseid = ? AND batchid = ?"), (course_id, batch_id)
        ).one()
        return found

    def rows(self, course_id: str) -> list[dict[str, Any]]:
        """All rows of one course, by batch id."""
        select = self._prepare(f"SELECT * FROM {TABLE} WHERE courseid = ?")
        return list(self.session.execute(select, (course_id,)))

    def update_row(self, course_id: str, batch_id: str, **columns: Any) -> None:
        """Write columns of one row, as another writer would. Raises ValueError for an unknown column."""
        unknown = columns.keys() - COLUMNS.keys()
        if unknown or not columns:
            raise ValueError(f"not columns of {TABLE}: {', '.join(sorted(unknown)) or '(none given)'}")
        assignments = ", ".join(f"{column} = ?" for column in columns)
        update = self._prepare(f"UPDATE {TABLE} SET {assignments} WHERE courseid = ? AND batchid = ?")
        self.session.execute(update, (*columns.values(), course_id, batch_id))

    def delete_row(self, course_id: str, batch_id: str) -> None:
        """Delete one row; its document stays."""
        delete = self._prepare(f"DELETE FROM {TABLE} WHERE courseid = ? AND batchid = ?")
        self.session.execute(delete, (course_id, batch_id))

    def document(self, batch_id: str) -> dict[str, Any] | None:
        """The document of one batch as it was last written, or None."""
        try:
            found: dict[str, Any] = self.search.get(index=BATCH_INDEX, id=batch_id)["_source"]
        except NotFoundError:
            return None
        return found

    def put_document(self, batch_id: str, **fields: Any) -> None:
        """Set fields of one document; the document is created when it is missing."""
        self.search.update(index=BATCH_INDEX, id=batch_id, doc=fields, doc_as_upsert=True, refresh=True)

    def delete_document(self, batch_id: str) -> None:
        """Delete one document; its row stays. Nothing happens when it is missing."""
        try:
            self.search.delete(index=BATCH_INDEX, id=batch_id, refresh=True)
        except NotFoundError:
            return

    def delete_batches(self) -> None:
        """Delete every row and every document; not by a query, of which Elasticsearch 9's bare server has none."""
        self.session.execute(f"TRUNCATE {TABLE}", timeout=60)
        self.refresh()
        found = helpers.scan(self.search, index=BATCH_INDEX, _source=False)
        self._bulk({"_op_type": "delete", "_index": BATCH_INDEX, "_id": hit["_id"]} for hit in found)

    def as_written(self, batches: Iterable[Batch]) -> dict[str, tuple[Any, ...]]:
        """State of batches by id, with the write time of each row and the version of each document."""
        batches = list(batches)
        select = self._prepare(
            f"SELECT createdby, mentors, status, writetime(createdby) FROM {TABLE} "
            "WHERE courseid = ? AND batchid = ?"
        )
        found = (
            self.search.mget(index=BATCH_INDEX, ids=[b.batch_id for b in batches])["docs"] if batches else []
        )
        documents = [tuple(hit.get(name) for name in ("_version", "_seq_no", "_source")) for hit in found]
        return {
            b.batch_id: (self.session.execute(select, (b.course_id, b.batch_id)).one(), *document)
            for b, document in zip(batches, documents, strict=True)
        }

    def refresh(self) -> None:
        """Make every write to the indexes visible to searches."""
        self.search.indices.refresh(index=[BATCH_INDEX, USER_INDEX, COURSE_INDEX])

    def owned(self, user_id: str, *, live_only: bool = True) -> Owned:
        """What one user owns; see `owned_by`."""
        return self.owned_by([user_id], live_only=live_only)[user_id]

    def owned_by(self, user_ids: Iterable[str], *, live_only: bool = True) -> dict[str, Owned]:
        """How many batches each of the users creates and mentors, in each store, ignoring case.

        Rows are counted by one scan of the whole table, documents by searches: neither trusts the other.
        """
        ids = list(user_ids)
        created = {user.lower(): 0 for user in ids}
        mentored = dict(created)
        scan = self._prepare(f"SELECT createdby, mentors, status FROM {TABLE}")
        for row in self.session.execute(scan):
            if live_only and row["status"] not in LIVE:
                continue
            if (creator := (row["createdby"] or "").lower()) in created:
                created[creator] += 1
            for mentor in {name.lower() for name in row["mentors"] or ()} & mentored.keys():
                mentored[mentor] += 1
        return {
            user: Owned(
                created[user.lower()],
                mentored[user.lower()],
                self._count("createdBy", user, live_only=live_only),
                self._count("mentors", user, live_only=live_only),
            )
            for user in ids
        }

    def _count(self, field_name: str, user_id: str, *, live_only: bool) -> int:
        terms: list[dict[str, Any]] = [{"term": {f"{field_name}.raw": user_id.lower()}}]
        if live_only:
            terms.append({"terms": {"status": list(LIVE)}})
        return int(self.search.count(index=BATCH_INDEX, query={"bool": {"filter": terms}})["count"])

    def _bulk(self, actions: Iterable[Mapping[str, Any]]) -> None:
        helpers.bulk(self.search, (dict(action) for action in actions), chunk_size=2_000, refresh=True)

    def _prepare(self, statement: str) -> PreparedStatement:
        if statement not in self._prepared:
            self._prepared[statement] = self.session.prepare(statement)
        return self._prepared[statement]

    # --- events

    def event(
        self, from_user: str | User, to_user: str | User, organisation: str, **overrides: Any
    ) -> dict[str, Any]:
        """The event of one transfer; `overrides` as in `transfer_event`."""
        return transfer_event(from_user, to_user, organisation, **overrides)

    def emit(
        self,
        event: Mapping[str, Any] | bytes | None,
        *,
        partition: int | None = None,
        timestamp: int | None = None,
    ) -> Offset:
        """Send one message and wait until the broker has it; see `emit_all`."""
        (offset,) = self.emit_all([event], partition=partition, timestamp=timestamp)
        return offset

    def emit_all(
        self,
        events: Iterable[Mapping[str, Any] | bytes | None],
        *,
        partition: int | None = None,
        timestamp: int | None = None,
    ) -> list[Offset]:
        """Send messages to the input topic, without a key, and wait until the broker has them all.

        Bytes are sent as they are, None as a null value, events as UTF-8 JSON. `timestamp` is epoch
        milliseconds (default: now); without `partition` the producer chooses. Returns the offset of each
        message, in the order of `events`. Raises RuntimeError when one is not delivered in 30 seconds.
        """
        delivered: dict[int, Offset] = {}
        errors: list[str] = []

        def note(position: int) -> Callable[[KafkaError | None, Message], None]:
            def on_delivery(error: KafkaError | None, message: Message) -> None:
                if error is not None:
                    errors.append(error.str())
                    return
                delivered[position] = Offset(
                    self.input_topic, int(message.partition() or 0), int(message.offset() or 0)
                )

            return on_delivery

        count = 0
        for position, event in enumerate(events):
            count += 1
            self._producer.produce(
                self.input_topic,
                value=json.dumps(event).encode() if isinstance(event, Mapping) else event,
                partition=-1 if partition is None else partition,
                timestamp=timestamp or 0,
                on_delivery=note(position),
            )
            self._producer.poll(0)
        self._producer.flush(TIMEOUT_SECONDS)
        if len(delivered) != count:
            reason = errors[0] if errors else f"no answer in {TIMEOUT_SECONDS:.0f} s"
            raise RuntimeError(f"{count - len(delivered)} of {count} messages were not delivered: {reason}")
        return [delivered[position] for position in range(count)]
