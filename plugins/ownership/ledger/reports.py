"""Reconciliations: which parts of a run are done, what they found, and the reports of all runs."""

from __future__ import annotations

from pydantic import ValidationError
from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert

from ownership.domain.clock import now_ms
from ownership.domain.reconciliation import PartDone, Report
from ownership.ledger.database import Database
from ownership.ledger.schema import reconciliation, reconciliation_part


class Reconciliations:
    """A row for each part of a run that is done, and one with the report for each run."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin(self, run_id: str, ranges: int) -> int:
        """Note into how many ranges a run cuts the ring, unless it has been noted. Returns the number that stands."""
        new = insert(reconciliation).values(run_id=run_id, cuts={"range": ranges}, began_at=now_ms())
        self._database.run(lambda c: c.execute(new.on_conflict_do_nothing()))
        found = self.plan(run_id)
        assert found is not None  # noqa: S101  # it was just written, or was there
        return found[1]

    def plan(self, run_id: str) -> tuple[int, int] | None:
        """When a run began (epoch ms), and its number of ranges; None if it was never planned."""
        query = select(reconciliation.c.began_at, reconciliation.c.cuts).where(
            reconciliation.c.run_id == run_id
        )
        row = self._database.run(lambda c: c.execute(query).first())
        return (row.began_at, row.cuts["range"]) if row else None

    def done(self, run_id: str) -> dict[str, PartDone]:
        """The parts of a run that are done."""
        query = select(reconciliation_part).where(reconciliation_part.c.run_id == run_id)
        found = self._database.run(lambda c: c.execute(query).all())
        return {
            r.part: PartDone(counts=r.counts, samples=r.samples, started_ms=r.began_at, ended_ms=r.ended_at)
            for r in found
        }

    def keep(self, run_id: str, part: str, done: PartDone) -> None:
        """Note that a part is done, and what it found; may be repeated."""
        values = {
            "counts": dict(done.counts),
            "samples": [s.model_dump(mode="json") for s in done.samples],
            "began_at": done.started_ms,
            "ended_at": done.ended_ms,
        }
        new = insert(reconciliation_part).values(run_id=run_id, part=part, **values)
        self._database.run(
            lambda c: c.execute(new.on_conflict_do_update(index_elements=["run_id", "part"], set_=values))
        )

    def save_report(self, report: Report) -> None:
        """Save a run's report, in place of an earlier one of the same run."""
        self._database.run(
            lambda c: c.execute(
                update(reconciliation)
                .where(reconciliation.c.run_id == report.run_id)
                .values(report=report.model_dump(mode="json"))
            )
        )

    def last(self, limit: int) -> list[Report]:
        """The reports of the last runs, the newest first. One of another version is left out."""
        query = (
            select(reconciliation.c.report)
            .where(func.jsonb_typeof(reconciliation.c.report) == "object")
            .order_by(reconciliation.c.began_at.desc())
            .limit(limit)
        )
        found = self._database.run(lambda c: c.scalars(query).all())
        return [r for value in found if (r := _report(value))]


def _report(value: object) -> Report | None:
    try:
        return Report.model_validate(value)
    except ValidationError:
        return None
