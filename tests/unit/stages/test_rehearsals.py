"""What became of a batch of a dry run, by its plan, its row and its document."""

from __future__ import annotations

from typing import Any

import pytest

from ownership.domain.plan import BatchId, Document, Hop, Row
from ownership.ledger.changes import Planned, PlanRow
from ownership.stages.rehearsals import Outcome, outcome_of

BATCH = BatchId("c", "b")
BEFORE = Row(BATCH, "old", ("m",), 1)
AFTER = Row(BATCH, "new", ("m",), 1)
THIRD = Row(BATCH, "third", ("m",), 1)
MOVES = PlanRow(Planned("e", BATCH), BEFORE, Hop("e", BEFORE, AFTER))
LEAVES = PlanRow(Planned("e", BATCH), THIRD, None)
GONE = PlanRow(Planned("e", BATCH), None, None)


def document(row: Row) -> Document:
    return Document("b", row.created_by, row.mentors, 1, 1, "c")


@pytest.mark.parametrize(
    ("plan", "row", "documents", "outcome"),
    [
        pytest.param(MOVES, AFTER, [AFTER], Outcome.AS_PLANNED, id="moved"),
        pytest.param(MOVES, AFTER, [BEFORE], Outcome.STALE_DOCUMENT, id="moved, but not in the index"),
        pytest.param(MOVES, AFTER, [], Outcome.STALE_DOCUMENT, id="moved, without a document"),
        pytest.param(MOVES, BEFORE, [BEFORE], Outcome.NOT_MOVED, id="left"),
        pytest.param(MOVES, THIRD, [THIRD], Outcome.OTHERWISE, id="somebody else's"),
        pytest.param(MOVES, AFTER._replace(mentors=()), [AFTER], Outcome.OTHERWISE, id="a mentor is lost"),
        pytest.param(MOVES, None, [], Outcome.OTHERWISE, id="deleted"),
        pytest.param(LEAVES, THIRD, [BEFORE], Outcome.LEFT_ALONE, id="another owner's, left"),
        pytest.param(LEAVES, AFTER, [AFTER], Outcome.OVERWRITTEN, id="another owner's, overwritten"),
        pytest.param(GONE, None, [BEFORE], Outcome.LEFT_ALONE, id="no row, none made"),
        pytest.param(GONE, AFTER, [AFTER], Outcome.OVERWRITTEN, id="a row made of a document"),
    ],
)
def test_what_became_of_a_batch(
    plan: PlanRow, row: Row | None, documents: list[Any], outcome: Outcome
) -> None:
    assert outcome_of(plan, row, tuple(map(document, documents))) == outcome
