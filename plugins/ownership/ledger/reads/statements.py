"""How a statement for people takes its index, whatever the planner's statistics say.

The statistics are old just when many events arrive. The rows of a list come from one index, in the list's order, and
end with the page. Other conditions on these rows are written so that no index serves them (`residual`). The events of
a run, a course or a batch are read first (`read_first`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from sqlalchemy import CTE, ColumnElement, Connection, FromClause, Select, Text, false, literal, text
from sqlalchemy.dialects.postgresql import ARRAY

from ownership.domain.event import OrderKey
from ownership.domain.organisations import VisibleOrganisations
from ownership.ledger.database import Database
from ownership.ledger.schema import ORDER_KEY, among, event, rejected_message

T = TypeVar("T")
Columns = tuple[ColumnElement[Any], ...]

_BY_INDEX = text(
    # The page reads no table as a whole, and is done before a compiler would be.
    "SELECT set_config('enable_seqscan', 'off', true), set_config('jit', 'off', true)"
)
_NO_BITMAP = text(
    # A bitmap has no order: all rows that fit would be read and sorted.
    "SELECT set_config('enable_bitmapscan', 'off', true)"
)


class BoundedDatabase:
    """Runs reads by index, each of its statements bounded in time."""

    def __init__(self, database: Database, statement_ms: int) -> None:
        self._database = database
        self._statement_ms = statement_ms

    def run(self, work: Callable[[Connection], T], *, in_order: bool = False) -> T:
        """The result of `work` in one transaction; `in_order`: its rows come in the order of their index."""

        def by_index(connection: Connection) -> T:
            connection.execute(_BY_INDEX)
            if in_order:
                connection.execute(_NO_BITMAP)
            return work(connection)

        return self._database.run(by_index, statement_ms=self._statement_ms)


class Reader:
    """Reads of one subject, of what is visible to a person."""

    def __init__(self, database: BoundedDatabase, visible: VisibleOrganisations) -> None:
        self._database = database
        self._visible = visible
        self._of_visible = of_visible(visible)

    def _is_visible(self, table: FromClause) -> list[ColumnElement[bool]]:
        """Conditions on a table's rows, which are of events, or rejected messages."""
        conditions = self._of_visible
        if not conditions or table is event:
            return conditions
        return [false()] if table is rejected_message else [table.c.event_id == event.c.id, *conditions]


def residual(condition: ColumnElement[bool]) -> ColumnElement[bool]:
    """A condition for which the planner takes no index: rows come from another one, and this drops some."""
    return condition.is_(True)


def of_visible(visible: VisibleOrganisations) -> list[ColumnElement[bool]]:
    """The condition on events that their organisation is visible; none where everything is."""
    if visible.ids is None:
        return []
    return [residual(among(event.c.organisation_id, sorted(visible.ids)))]


def read_first(query: Select[Any]) -> CTE:
    """Rows that are all read before anything else is done with them."""
    return query.cte().prefix_with("MATERIALIZED")


def key_of(table: FromClause) -> Columns:
    """The columns of the order key in a subquery."""
    return tuple(table.c[column.name] for column in ORDER_KEY)


def newest_first(key: Columns) -> list[ColumnElement[Any]]:
    """The order of a list."""
    return [column.desc() for column in key]


def values(key: OrderKey) -> list[ColumnElement[Any]]:
    """An order key as parameters."""
    return [literal(value, column.type) for value, column in zip(key, ORDER_KEY, strict=True)]


def texts(strings: Sequence[str]) -> ColumnElement[Any]:
    """A `text[]` parameter."""
    return literal(list(strings), ARRAY(Text))
