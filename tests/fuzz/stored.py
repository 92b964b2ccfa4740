"""The inbox over a ledger that binds every value as Cassandra's driver does, and keeps nothing."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

from cassandra.cqltypes import lookup_casstype

from ownership.cql import Conditional, Statement
from ownership.inbox import Inbox
from ownership.ledger import Ledger
from ownership.open_list import OpenList
from ownership.schema import _TABLES
from ownership.topic import DeadLetters

_INSERT = re.compile(r"INSERT INTO \w+\.(\w+) \(([^)]*)\)")
_KINDS = {
    "text": "UTF8Type", "bigint": "LongType", "int": "Int32Type", "blob": "BytesType", "boolean": "BooleanType",
    "timestamp": "DateType",
}  # fmt: skip
MOST_BYTES_OF_A_KEY = 65_535


class Binding:
    """Takes every statement of `Cql`; what Cassandra could not store raises."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, dict[str, Any]]] = []

    def write(self, statements: Iterable[tuple[Hashable, Statement]]) -> None:
        for _, statement in statements:
            self._bound(statement)

    def conditionals(self, statements: Iterable[Statement]) -> list[Conditional]:
        return [self._bound(s) for s in statements]

    def conditional_batch(self, statements: Sequence[Statement]) -> Conditional:
        answers = [self._bound(s) for s in statements]
        return answers[0]

    def select(self, _cql: str, _values: Sequence[Any] = (), *, serial: bool = False) -> list[Any]:  # noqa: ARG002
        return []

    def select_each(self, _cql: str, values: Iterable[Sequence[Any]]) -> list[list[Any]]:
        return [[] for _ in values]

    def _bound(self, statement: Statement) -> Conditional:
        cql, values = statement
        if found := _INSERT.match(cql):
            columns, key = _TABLES[found[1]]
            names = found[2].split(", ")
            assert len(names) == len(values)
            for name, value in zip(names, values, strict=True):
                if value is not None:
                    kind = columns[name].removesuffix(" static")
                    raw = lookup_casstype(_KINDS[kind]).to_binary(value, 4)
                    assert name not in key or len(raw) <= MOST_BYTES_OF_A_KEY, name
                else:
                    assert name not in key, name
            self.rows.append((found[1], dict(zip(names, values, strict=True))))
        return Conditional(applied=True, rows=[])

    def of(self, table: str) -> list[dict[str, Any]]:
        """Rows that were inserted into a table, by column."""
        return [row for name, row in self.rows if name == table]


class Broker:
    """Confluent's producer, as far as dead letters use it."""

    def __init__(self) -> None:
        self.letters: list[tuple[bytes, list[tuple[str, bytes]]]] = []

    def produce(
        self, _topic: str, *, value: bytes, headers: list[tuple[str, bytes]], on_delivery: Any
    ) -> None:
        assert isinstance(value, bytes)
        assert all(isinstance(k, str) and isinstance(v, bytes) for k, v in headers)
        self.letters.append((value, headers))
        on_delivery(None, self)

    def flush(self, _seconds: float) -> None: ...

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return len(self.letters) - 1


def inbox(cql: Binding, broker: Broker) -> Inbox:
    """The real inbox, ledger, open list and dead letters over these."""
    return Inbox(
        Ledger(cql, "k"),  # type: ignore[arg-type]
        OpenList(cql, "k"),  # type: ignore[arg-type]
        DeadLetters(broker, "failed"),  # type: ignore[arg-type]
        retention_ms=400 * 24 * 3_600_000,
    )
