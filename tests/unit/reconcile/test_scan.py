"""What the first look of a reconciliation makes of odd rows, without servers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from ownership.domain.reconciliation import DIFFERENT, ROWS
from ownership.platform.ring import TokenRange
from ownership.reconcile.pace import Pace
from ownership.reconcile.scan import Scan
from ownership.stages.parts import Parts


def test_a_course_that_has_static_columns_alone_is_no_batch_that_differs() -> None:
    """Cassandra shows such a partition as a row whose other columns, also of its key, are null."""
    row = SimpleNamespace(courseid="c", batchid=None, createdby=None, mentors=None, status=None)
    pages: list[list[Any]] = [[row]]
    parts = SimpleNamespace(rows=SimpleNamespace(pages=lambda *_, **__: iter([pages.pop()] if pages else [])))

    tally = Scan(cast("Parts", parts), Pace(0)).compare(TokenRange(0, -10, 10), {})

    assert (tally.counts[ROWS], tally.counts[DIFFERENT]) == (1, 0)
