"""The ledger for people: bounded reads, each one short transaction.

| module | reads |
| --- | --- |
| `lists` | events and rejected messages, a page at a time, newest first; counts |
| `details` | one event or rejected message, and the events that belong to it |
| `batches` | what one event planned and changed |
| `proven` | how many of the accepted events are proven, of the last days and of one request |
| `questions` | what an id is known as |
| `exports` | all events or changes that fit, a page at a time |
| `statements` | how each statement takes its index |
"""

from __future__ import annotations

from ownership.domain.organisations import VisibleOrganisations
from ownership.domain.reconciliation import Report
from ownership.ledger.database import STATEMENT_MS, Database
from ownership.ledger.imports import Imports
from ownership.ledger.reads.batches import Batches
from ownership.ledger.reads.details import Details
from ownership.ledger.reads.exports import Exports
from ownership.ledger.reads.lists import Lists
from ownership.ledger.reads.proven import Proven
from ownership.ledger.reads.questions import Questions
from ownership.ledger.reads.statements import BoundedDatabase
from ownership.ledger.reports import Reconciliations


class Reads:
    """What a person reads, by subject: only of the organisations that are visible to them."""

    def __init__(
        self, database: Database, visible: VisibleOrganisations, *, statement_ms: int = STATEMENT_MS
    ) -> None:
        """`statement_ms`: the server ends a statement after this."""
        bounded = BoundedDatabase(database, statement_ms)
        self.lists = Lists(bounded, visible)
        self.details = Details(bounded, visible)
        self.batches = Batches(bounded, visible)
        self.proven = Proven(bounded, visible)
        self.questions = Questions(bounded, visible)
        self.exports = Exports(bounded, visible)
        self.imports = Imports(database, visible)
        self._visible = visible
        self._reconciliations = Reconciliations(database)

    def reports(self, limit: int) -> list[Report]:
        """The reports of the last reconciliations, the newest first; none where anything is hidden."""
        return self._reconciliations.last(limit) if self._visible.every else []
