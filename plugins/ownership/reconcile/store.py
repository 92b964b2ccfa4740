"""Rows of `transfer_reconcile`: which parts of a run are done, what they found, and the reports of all runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from ownership.cql import Cql
from ownership.parts import now_ms
from ownership.reconcile.report import PartDone, Report
from ownership.schema import RECONCILE
from ownership.settings import Settings

REPORTS = "# reports"
"""Key of the partition that lists the reports, by time; no run has such an id."""
PLAN = "plan"


class Reconciliations:
    """A row for each part of a run that is done, in the run's partition, and a report for each run."""

    def __init__(self, cql: Cql, keyspace: str) -> None:
        self._cql = cql
        self._table = f"{keyspace}.{RECONCILE}"

    def begin(self, run_id: str, plan: Mapping[str, int]) -> tuple[int, dict[str, int]]:
        """Write a run's plan down, unless it has one. Returns when it began (epoch ms) and the plan that stands."""
        self._cql.conditional(
            f"INSERT INTO {self._table} (run_id, part, counts, started_at) VALUES (?, ?, ?, ?) IF NOT EXISTS",
            (run_id, PLAN, dict(plan), _time(now_ms())),
        )
        found = self.plan(run_id)
        assert found is not None  # noqa: S101  # it was just written, or was there
        return found

    def plan(self, run_id: str) -> tuple[int, dict[str, int]] | None:
        """When a run began (epoch ms), and its plan; None if it has none."""
        rows = self._cql.select(
            f"SELECT counts, started_at FROM {self._table} WHERE run_id = ? AND part = ?",
            (run_id, PLAN),
            serial=True,
        )
        return (_ms(rows[0].started_at), dict(rows[0].counts or {})) if rows else None

    def done(self, run_id: str) -> dict[str, PartDone]:
        """The parts of a run that are done."""
        rows = self._cql.select(
            f"SELECT part, counts, samples, started_at, ended_at FROM {self._table} WHERE run_id = ?",
            (run_id,),
        )
        return {r.part: _part(r) for r in rows if r.part != PLAN and r.ended_at is not None}

    def keep(self, run_id: str, part: str, done: PartDone) -> None:
        """Note that a part is done, and what it found; may be repeated."""
        samples = json.dumps([s.model_dump(mode="json") for s in done.samples])
        cql = (
            f"INSERT INTO {self._table} (run_id, part, counts, samples, started_at, ended_at) "
            "VALUES (?, ?, ?, ?, ?, ?)"
        )
        times = (_time(done.started_ms), _time(done.ended_ms))
        self._cql.write([(run_id, (cql, (run_id, part, done.counts, samples, *times)))])

    def tell(self, report: Report) -> None:
        """Keep a run's report; a later one of the same run takes its place."""
        cql = f"INSERT INTO {self._table} (run_id, part, report) VALUES (?, ?, ?)"
        at = f"{report.started_ms:015d} {report.run_id}"
        self._cql.write([(REPORTS, (cql, (REPORTS, at, report.model_dump_json())))])

    def last(self, most: int) -> list[Report]:
        """The reports of the last runs, the newest first. One of another version is left out."""
        rows = self._cql.select(
            f"SELECT report FROM {self._table} WHERE run_id = ? ORDER BY part DESC LIMIT ?", (REPORTS, most)
        )
        return [told for r in rows if (told := _report(r.report))]


def last_reports(cql: Cql, settings: Settings, n: int) -> list[Report]:
    """The reports of the last `n` reconciliations, the newest first.

    :raises SettingsError: if the ledger has no such table.
    :raises Unavailable: if Cassandra is.
    """
    return Reconciliations(cql, settings.ledger_keyspace).last(n)


def _report(text: str | None) -> Report | None:
    try:
        return Report.model_validate_json(text or "")
    except ValidationError:
        return None


def _part(r: Any) -> PartDone:
    return PartDone(
        counts=dict(r.counts or {}),
        samples=json.loads(r.samples or "[]"),
        started_ms=_ms(r.started_at),
        ended_ms=_ms(r.ended_at),
    )


def _time(at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms / 1000, UTC)


def _ms(at: datetime | None) -> int:
    return int(at.replace(tzinfo=UTC).timestamp() * 1000) if at else 0
