"""The ledger's tables, for queries: names and types of columns; a test compares them with the database's.

The migrations create them: keys, constraints, defaults and indexes are there alone.

| table | holds |
| --- | --- |
| `event` | an event: place in the order, users, verdict, state, counts, times |
| `payload` | the event's message, by month |
| `event_run` | which runs planned or skipped an event |
| `queue` | every event that is not final: fencing token, holder, lease |
| `queue_head` | one row, which a claim locks: the last fencing token |
| `plan` | a batch that an event concerns, and its outcome, by month |
| `change` | an event's share of one compare-and-set, before and after, by month |
| `rejected_message` | a message that is no event, and why |
| `consumed_offset` | the next offset to read of each partition |
| `reconciliation`, `reconciliation_part` | the parts of each reconciliation that are done, and its report |
| `import`, `import_row` | a file of transfers: who sent it, and each row with the mids of its dry run and its transfer |
| `host` | what each scheduler, worker, triggerer and API server has reported of itself |

An event's id begins with the month in which it arrived (`next_event_id()`). So the tables that are partitioned by
month hold all rows of an event in one partition, and retention drops a partition instead of deleting rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    DateTime,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    TypeDecorator,
    any_,
    literal,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, UUID
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeEngine

from ownership.domain.clock import from_ms, to_ms
from ownership.domain.event import OrderKey, Transfer

REVISION: Final = "0005"
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

    def process_bind_param(self, value: int | None, dialect: Dialect) -> Any:  # noqa: ARG002  # SQLAlchemy's signature
        """To the table."""
        return from_ms(value) if value else None

    def process_result_value(self, value: Any, dialect: Dialect) -> int | None:  # noqa: ARG002  # SQLAlchemy's signature
        """From the table."""
        return None if value is None else to_ms(value)


class TextArray(ARRAY[str]):
    """A `text[]` as the driver has it, a list: SQLAlchemy's own would copy each one in Python."""

    cache_ok = True

    def __init__(self) -> None:
        super().__init__(Text)

    def result_processor(self, dialect: Dialect, coltype: object) -> None:  # type: ignore[override]  # always None
        """Nothing is done with a value that is read."""


Time: Final = DateTime(timezone=True)
Texts: Final = TextArray()
_OWNERS: Final[dict[str, Any]] = {
    "before_created_by": Text, "before_mentors": Texts, "after_created_by": Text, "after_mentors": Texts,
}  # fmt: skip
"""Creator and mentors before and after a change."""


def _table(name: str, **columns: type[TypeEngine[Any]] | TypeEngine[Any]) -> Table:
    return Table(name, metadata, *(Column(column, type_) for column, type_ in columns.items()))


event = _table(
    "event",
    id=BigInteger, mid=Text, order_ms=BigInteger, kafka_partition=Integer, kafka_offset=BigInteger,
    from_user=Text, to_user=Text, source_user=Text, target_user=Text, organisation_id=Text,
    origin=Text, topic=Text, kafka_ms=BigInteger, ets=BigInteger,
    options=JSONB(none_as_null=True), follows=Texts, requested_by=Text, request_reason=Text,
    request_id=Text,
    state=Text, verdict=Text, verdict_reason=Text, reason=Text, waits_for=Text,
    fencing_token=BigInteger, run_id=Text, attempts=Integer, planned_with=Texts, counts=JSONB, late=Boolean,
    digest=Text, report=Text, approved_digest=Text, approved_by=Text, awaits_until=EpochMs, asked_run=Text,
    next_conf=Text,
    received_at=Time, planned_at=Time, applied_at=Time, completed_at=Time, ended_at=Time, reproved_at=Time,
)  # fmt: skip
ORDER_KEY = (event.c.order_ms, event.c.kafka_partition, event.c.kafka_offset, event.c.mid)
"""The one order of all events."""
TRANSFER = (*ORDER_KEY, event.c.from_user, event.c.to_user)
"""What an event transfers, and its place in the order."""

payload = _table("payload", event_id=BigInteger, body=LargeBinary)

event_run = _table("event_run", run_id=Text, event_id=BigInteger)

# claim_token: the fencing token with which the claim began; a retry of a stage gets a newer one within the claim.
queue = _table(
    "queue",
    event_id=BigInteger, claim_token=BigInteger, fencing_token=BigInteger, holder=Text, lease_expires_at=EpochMs,
    next_try_at=EpochMs, awaits=Text, accepted_at=EpochMs, begun=Boolean, passes_to=Texts,
)  # fmt: skip

queue_head = _table("queue_head", id=SmallInteger, fencing_token=BigInteger)

plan = _table(
    "plan",
    event_id=BigInteger, course_id=Text, batch_id=Text, role=Text, status=Integer, **_OWNERS, outcome=Text,
    proven_at=Time,
)  # fmt: skip

change = _table(
    "change",
    event_id=BigInteger, course_id=Text, batch_id=Text, image=UUID, hop=SmallInteger, hops=SmallInteger,
    fencing_token=BigInteger, role=Text, status=Integer, **_OWNERS, outcome=Text, recorded_at=Time,
    applied_at=Time,
)  # fmt: skip

rejected_message = _table(
    "rejected_message",
    mid=Text, origin=Text, topic=Text, kafka_partition=Integer, kafka_offset=BigInteger, kafka_ms=BigInteger,
    message_mid=Text, request_id=Text, body=LargeBinary, reason=Text, next_conf=Text, received_at=Time,
)  # fmt: skip

consumed_offset = _table(
    "consumed_offset",
    topic=Text, kafka_partition=Integer, next_offset=BigInteger, last_offset=BigInteger, last_digest=Text,
    updated_at=Time,
)  # fmt: skip

reconciliation = _table("reconciliation", run_id=Text, cuts=JSONB, began_at=EpochMs, report=JSONB)

reconciliation_part = _table(
    "reconciliation_part",
    run_id=Text, part=Text, counts=JSONB, samples=JSONB, began_at=EpochMs, ended_at=EpochMs,
)  # fmt: skip

imports = _table(
    "import",
    id=Text, created_by=Text, created_at=Time, file_name=Text, file_digest=Text, rows=Integer, wrong_rows=Integer,
    organisation_ids=Texts, started_by=Text, started_at=Time,
)  # fmt: skip

import_row = _table(
    "import_row",
    import_id=Text, number=Integer, from_user=Text, to_user=Text, organisation_id=Text, reason=Text, assets=Integer,
    error_column=Text, error=Text, dry_run_mid=Text, transfer_mid=Text,
)  # fmt: skip

host = _table(
    "host",
    kind=Text, hostname=Text, traits=JSONB, tries=JSONB, clock_ahead_ms=BigInteger, since=EpochMs, seen_at=EpochMs,
)  # fmt: skip


def month_of(at_ms: int) -> int:
    """The month of an epoch ms, as an event's id begins with it. Raises OverflowError beyond the calendar."""
    at = from_ms(at_ms)
    return at.year * 12 + at.month - 1


def among(column: ColumnElement[Any], values: Iterable[Any]) -> ColumnElement[bool]:
    """True where the column is one of `values`: one parameter, however many there are."""
    return column == any_(literal(list(values), ARRAY(column.type)))


_COLUMN_OF: Final = {"partition": "kafka_partition", "offset": "kafka_offset"}
"""Columns by field, where their names differ."""


def columns_of(table: Table, projection: type[NamedTuple]) -> list[ColumnElement[Any]]:
    """The columns of a projection's fields, each under its field's name: `projection(**row._asdict())`."""
    return [table.c[_COLUMN_OF.get(name, name)].label(name) for name in projection._fields]


def row_of(projected: NamedTuple, *, without: str = "") -> dict[str, Any]:
    """The values of a projection by column, to be written, but for the field that the database sets."""
    return {_COLUMN_OF.get(k, k): v for k, v in projected._asdict().items() if k != without}


def order_key_of(r: Any) -> OrderKey:
    """The place of an event, from a row with the columns of `ORDER_KEY`."""
    return OrderKey(r.order_ms, r.kafka_partition, r.kafka_offset, r.mid)


def transfer_of(r: Any) -> Transfer:
    """A transfer, from a row with the columns of `TRANSFER`."""
    return Transfer(order_key_of(r), r.from_user, r.to_user)
