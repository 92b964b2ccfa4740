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
    """What the page reads, by subject."""

    def __init__(self, database: Database, *, statement_ms: int = STATEMENT_MS) -> None:
        """`statement_ms`: the server ends a statement after this."""
        bounded = BoundedDatabase(database, statement_ms)
        self.lists = Lists(bounded)
        self.details = Details(bounded)
        self.batches = Batches(bounded)
        self.proven = Proven(bounded)
        self.questions = Questions(bounded)
        self.exports = Exports(bounded)
        self.imports = Imports(database)
        self.reconciliations = Reconciliations(database)
