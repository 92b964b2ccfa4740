"""The ledger's tables, for queries. The migrations create them; a test compares the two.

| table | holds |
| --- | --- |
| `event` | an event: place in the order, users, verdict, state, counts, times |
| `payload` | the event's message, by month |
| `event_run` | which runs planned or skipped an event |
| `queue` | every event that is not final: fencing token, holder, lease |
| `queue_head` | one row, which a claim locks: the last fencing token |
| `plan` | a batch that an event concerns, and what became of it, by month |
| `change` | an event's share of one compare-and-set, before and after, by month |
| `rejected_message` | a message that is no event, and why |
| `consumed_offset` | the next offset to read of each partition |
| `reconciliation`, `reconciliation_part` | the parts of each reconciliation that are done, and its report |

An event's id begins with the month in which it arrived (`next_event_id()`). So the tables that are partitioned by
month hold all rows of an event in one partition, and retention drops a partition instead of deleting rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Computed,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    TypeDecorator,
    any_,
    literal,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, UUID
from sqlalchemy.engine import Dialect

from ownership.clock import from_ms, to_ms

REVISION: Final = "0001"
"""The migration that this code works with."""
MONTH_SHIFT: Final = 40
"""Bits of an event's id below its month: (year * 12 + month - 1) << 40, plus a number from a sequence."""
PARTITIONED: Final = ("payload", "plan", "change")
"""Tables with a partition for each month, named like `change_2026_11`."""

metadata = MetaData()


class EpochMs(TypeDecorator[int]):
    """A `timestamptz` in the table, epoch ms in the code. 0 and None are both null."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: int | None, dialect: Dialect) -> Any:  # noqa: ARG002
        """To the table."""
        return from_ms(value) if value else None

    def process_result_value(self, value: Any, dialect: Dialect) -> int | None:  # noqa: ARG002
        """From the table."""
        return None if value is None else to_ms(value)


class Texts(ARRAY[str]):
    """A `text[]` as the driver has it, a list: SQLAlchemy's own would copy each one in Python."""

    cache_ok = True

    def __init__(self) -> None:
        super().__init__(Text)

    def result_processor(self, dialect: Dialect, coltype: object) -> None:  # type: ignore[override]
        """Nothing is done with a value that is read."""


def _time(name: str) -> Column[Any]:
    return Column(name, DateTime(timezone=True))


def _owners() -> list[Column[Any]]:
    """Creator and mentors before and after a change."""
    return [
        Column("before_created_by", Text),
        Column("before_mentors", Texts()),
        Column("after_created_by", Text),
        Column("after_mentors", Texts()),
    ]


EVENT_ID = "event.id"

event = Table(
    "event",
    metadata,
    Column("id", BigInteger, primary_key=True, server_default=text("next_event_id()")),
    Column("mid", Text, nullable=False, unique=True),
    Column("order_ms", BigInteger, nullable=False),
    Column("kafka_partition", Integer, nullable=False),
    Column("kafka_offset", BigInteger, nullable=False),
    Column("from_user", Text, nullable=False),
    Column("to_user", Text, nullable=False),
    Column("source_user", Text, nullable=False),
    Column("target_user", Text, nullable=False),
    Column("organisation_id", Text),
    Column("origin", Text, nullable=False),
    Column("topic", Text, nullable=False),
    Column("kafka_ms", BigInteger, nullable=False),
    Column("ets", BigInteger),
    Column("options", JSONB(none_as_null=True)),
    Column(
        "follows",
        Texts(),
        Computed("array_remove(ARRAY[options ->> 'undo_of', options ->> 'plan_of'], NULL)"),
    ),
    Column("requested_by", Text),
    Column("request_reason", Text),
    Column("state", Text, nullable=False),
    Column("verdict", Text),
    Column("verdict_reason", Text),
    Column("reason", Text),
    Column("fencing_token", BigInteger, nullable=False, server_default=text("0")),
    Column("run_id", Text),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("planned_with", Texts(), nullable=False, server_default=text("'{}'")),
    Column("counts", JSONB, nullable=False, server_default=text("'{}'")),
    Column("late", Boolean, nullable=False, server_default=text("false")),
    Column("digest", Text),
    Column("report", Text),
    Column("approved_digest", Text),
    Column("approved_by", Text),
    Column("awaits_until", EpochMs),
    Column("asked_run", Text),
    Column("next_conf", Text),
    Column("received_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
    _time("planned_at"),
    _time("applied_at"),
    _time("completed_at"),
    _time("ended_at"),
    _time("reproved_at"),
)
ORDER_KEY = (event.c.order_ms, event.c.kafka_partition, event.c.kafka_offset, event.c.mid)
"""The one order of all events."""
Index("event_order", *ORDER_KEY)
Index("event_source_user", event.c.source_user, *ORDER_KEY)
Index("event_target_user", event.c.target_user, *ORDER_KEY)
Index("event_state", event.c.state, *ORDER_KEY)
Index("event_kafka_ms", event.c.kafka_ms, event.c.id)
Index("event_follows", event.c.follows, postgresql_using="gin", postgresql_where=event.c.options.isnot(None))

payload = Table(
    "payload",
    metadata,
    Column("event_id", BigInteger, ForeignKey(EVENT_ID), primary_key=True),
    Column("body", LargeBinary, nullable=False),
    postgresql_partition_by="RANGE (event_id)",
)

event_run = Table(
    "event_run",
    metadata,
    Column("run_id", Text, primary_key=True),
    Column("event_id", BigInteger, ForeignKey(EVENT_ID), primary_key=True),
    Index("event_run_event", "event_id"),
)

queue = Table(
    "queue",
    metadata,
    Column("event_id", BigInteger, ForeignKey(EVENT_ID), primary_key=True),
    Column("fencing_token", BigInteger, nullable=False, server_default=text("0")),
    Column("holder", Text),
    Column("lease_expires_at", EpochMs),
    Column("next_try_at", EpochMs),
    Column("awaits", Text),
    Column("accepted_at", EpochMs, nullable=False),
)

queue_head = Table(
    "queue_head",
    metadata,
    Column("id", SmallInteger, primary_key=True, autoincrement=False, server_default=text("1")),
    Column("fencing_token", BigInteger, nullable=False),
)

plan = Table(
    "plan",
    metadata,
    Column("event_id", BigInteger, ForeignKey(EVENT_ID), primary_key=True),
    Column("course_id", Text, primary_key=True),
    Column("batch_id", Text, primary_key=True),
    Column("role", Text),
    Column("status", Integer),
    *_owners(),
    Column("outcome", Text),
    _time("proven_at"),
    postgresql_partition_by="RANGE (event_id)",
)
Index("plan_course", plan.c.course_id, plan.c.event_id)
Index("plan_batch", plan.c.batch_id, plan.c.event_id)

change = Table(
    "change",
    metadata,
    Column("event_id", BigInteger, ForeignKey(EVENT_ID), primary_key=True),
    Column("course_id", Text, primary_key=True),
    Column("batch_id", Text, primary_key=True),
    Column("image", UUID, primary_key=True),
    Column("hop", SmallInteger, nullable=False),
    Column("hops", SmallInteger, nullable=False),
    Column("fencing_token", BigInteger, nullable=False),
    Column("role", Text, nullable=False),
    Column("status", Integer),
    *_owners(),
    Column("outcome", Text),
    Column("recorded_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
    _time("applied_at"),
    postgresql_partition_by="RANGE (event_id)",
)
Index("change_course", change.c.course_id, change.c.event_id)
Index("change_batch", change.c.batch_id, change.c.event_id)
Index("change_image", change.c.image, postgresql_where=change.c.hops > 1)

rejected_message = Table(
    "rejected_message",
    metadata,
    Column("mid", Text, primary_key=True),
    Column("origin", Text, nullable=False),
    Column("topic", Text, nullable=False),
    Column("kafka_partition", Integer, nullable=False),
    Column("kafka_offset", BigInteger, nullable=False),
    Column("kafka_ms", BigInteger, nullable=False),
    Column("message_mid", Text),
    Column("body", LargeBinary, nullable=False),
    Column("reason", Text, nullable=False),
    Column("next_conf", Text),
    Column("received_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
)
Index(
    "rejected_message_order",
    rejected_message.c.kafka_ms,
    rejected_message.c.kafka_partition,
    rejected_message.c.kafka_offset,
    rejected_message.c.mid,
)

consumed_offset = Table(
    "consumed_offset",
    metadata,
    Column("topic", Text, primary_key=True),
    Column("kafka_partition", Integer, primary_key=True, autoincrement=False),
    Column("next_offset", BigInteger, nullable=False),
    Column("last_offset", BigInteger),
    Column("last_digest", Text),
    Column("updated_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
)

reconciliation = Table(
    "reconciliation",
    metadata,
    Column("run_id", Text, primary_key=True),
    Column("cuts", JSONB, nullable=False),
    Column("began_at", EpochMs, nullable=False),
    Column("report", JSONB),
)
Index("reconciliation_began", reconciliation.c.began_at)

reconciliation_part = Table(
    "reconciliation_part",
    metadata,
    Column("run_id", Text, ForeignKey("reconciliation.run_id"), primary_key=True),
    Column("part", Text, primary_key=True),
    Column("counts", JSONB, nullable=False),
    Column("samples", JSONB, nullable=False),
    Column("began_at", EpochMs, nullable=False),
    Column("ended_at", EpochMs, nullable=False),
)


def among(column: ColumnElement[Any], values: Iterable[Any]) -> ColumnElement[bool]:
    """True where the column is one of `values`: one parameter, however many there are."""
    return column == any_(literal(list(values), ARRAY(column.type)))
