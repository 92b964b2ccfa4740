"""Ids of events, by which the ledger's tables name them, from their mids."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Connection, select

from ownership.ledger.schema import among, event


class EventIds:
    """Ids by mid, each read once: while the ledger is not restored from a backup they never change."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}

    def of(self, connection: Connection, mids: Collection[str]) -> dict[str, int]:
        """Ids of those of `mids` that the ledger has."""
        if unknown := [m for m in mids if m not in self._known]:
            rows = connection.execute(select(event.c.mid, event.c.id).where(among(event.c.mid, unknown)))
            self._known |= {r.mid: r.id for r in rows}
        return {m: self._known[m] for m in mids if m in self._known}

    def forget(self) -> None:
        """Read all again."""
        self._known.clear()
