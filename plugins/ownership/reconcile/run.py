"""A reconciliation, task by task, as plain functions: plan, compare slices of the ring, check the ledger, report.

A part is done when the ledger has its row. A task that is tried again, or a run that is cleared, goes on with the parts
that are not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple, Self

from pydantic import Field, ValidationError

from ownership.domain.clock import now_ms
from ownership.domain.conf import ConfError
from ownership.domain.contracts import Contract
from ownership.domain.errors import SettingsError
from ownership.domain.event import explain
from ownership.domain.reconciliation import TREND, Point, Report, report_of
from ownership.domain.settings import Settings
from ownership.ledger.check import check as check_ledger
from ownership.platform.course_batches import check_table
from ownership.platform.ring import token_range
from ownership.reconcile.pace import Pace
from ownership.reconcile.scan import PATIENCE_S, Scan
from ownership.reconcile.transfers import sources, unproven
from ownership.stages.parts import Parts

LEDGER = "ledger 00000 of 1"
"""The part that looks at the ledger; the others are ranges of the ring."""
MIN_ROWS_PER_SECOND = 100.0
"""Of a slice: at less, the index would drop its scroll between two pages."""
DOCUMENTS_A_RANGE = 20_000
"""Documents in memory at once: a large index is cut into more ranges than the setting says."""
MAX_RANGES = 4096


class ReconcileConf(Contract):
    """The conf of a run; a field that is null follows its setting."""

    repair: Annotated[bool, Field(strict=True)] = False
    rows_per_second: Annotated[int, Field(strict=True, ge=0, le=1_000_000)] | None = None
    ranges: Annotated[int, Field(strict=True, ge=1, le=4096)] | None = None
    days: Annotated[int, Field(strict=True, ge=0, le=400)] | None = None

    @classmethod
    def of(cls, conf: Mapping[str, Any] | None) -> Self:
        """From a run's conf.

        :raises ConfError: naming each field that is wrong or unknown.
        """
        try:
            return cls.model_validate({k: v for k, v in (conf or {}).items() if v is not None})
        except ValidationError as e:
            raise ConfError(
                f"Conf of ownership_reconcile: {explain(e)}; known are {', '.join(cls.model_fields)}."
            ) from None

    def following(self, settings: Settings) -> Self:
        """The same with the settings in place of null."""
        unset = (name for name in ("rows_per_second", "ranges", "days") if getattr(self, name) is None)
        return self.model_copy(update={name: getattr(settings, f"reconcile_{name}") for name in unset})


class Share(Contract):
    """The ranges that one mapped instance compares."""

    label: str
    run_id: str
    ranges: tuple[int, ...]
    of_ranges: int
    per_second: float
    repair: bool
    days: int


class Progress(NamedTuple):
    """How many parts an earlier try did, and how many this one."""

    done_before: int
    done: int


def plan(parts: Parts, run_id: str, conf: ReconcileConf) -> list[Share]:
    """Cut the ring into ranges, and deal them out to slices. A run that was planned before keeps its cut.

    :raises SettingsError: if a table or the index is missing, or Cassandra's partitioner is another one.
    """
    check_table(parts.cql, parts.settings)
    check_ledger(parts.database)
    _check_partitioner(parts)
    parts.index.check()
    conf = conf.following(parts.settings)
    large = -(-parts.index.count() // DOCUMENTS_A_RANGE)
    wanted = max(conf.ranges or 1, min(large, MAX_RANGES))
    of = parts.reconciliations.begin(run_id, wanted)
    slices = min(parts.settings.reconcile_slices, of)
    limit = conf.rows_per_second or 0
    return [
        Share(
            label=f"slice {n + 1} of {slices}",
            run_id=run_id,
            ranges=tuple(range(n, of, slices)),
            of_ranges=of,
            per_second=max(limit / slices, MIN_ROWS_PER_SECOND) if limit else 0.0,
            repair=conf.repair,
            days=conf.days or 0,
        )
        for n in range(slices)
    ]


def _check_partitioner(parts: Parts) -> None:
    partitioner = str(parts.cql.session.cluster.metadata.partitioner or "")
    if not partitioner.endswith("Murmur3Partitioner"):
        raise SettingsError(
            f"Cassandra's partitioner is {partitioner or 'not known'}: only the ring of Murmur3Partitioner can be "
            "reconciled."
        )


def look_at_ranges(parts: Parts, share: Share, *, patience_s: float = PATIENCE_S) -> Progress:
    """Compare the ranges of a share that are not done: read the whole index once, then go range by range.

    :raises Unavailable: if a store is; the ranges before are done.
    """
    store, of = parts.reconciliations, share.of_ranges
    done = store.done(share.run_id)
    todo = [n for n in share.ranges if _range(n, of) not in done]
    if todo:
        pace, gave = Pace(share.per_second), sources(parts, share.days)
        scan = Scan(parts, pace, share.repair, gave, patience_s=patience_s)
        with scan.read_index(of, todo) as index:
            for n in todo:
                began = now_ms()
                found = scan.compare(token_range(n, of), index.take(n))
                store.keep(share.run_id, _range(n, of), found.done(began, now_ms()))
    return Progress(len(share.ranges) - len(todo), len(todo))


def look_at_ledger(parts: Parts, run_id: str, conf: ReconcileConf) -> Progress:
    """Find moves that were never proven, unless an earlier try did."""
    store, conf = parts.reconciliations, conf.following(parts.settings)
    if LEDGER in store.done(run_id):
        return Progress(1, 0)
    began = now_ms()
    found = unproven(parts, conf.days or 0, Pace(float(conf.rows_per_second or 0)))
    store.keep(run_id, LEDGER, found.done(began, now_ms()))
    return Progress(0, 1)


def _range(n: int, of: int) -> str:
    """The name of a range's part in the ledger. Another cut has other names."""
    return f"range {n:05d} of {of}"


def put_together(parts: Parts, run_id: str, conf: ReconcileConf) -> tuple[Report, tuple[Point, ...]] | None:
    """Keep the run's report in the ledger.

    Returns it with the trend of the last runs, the oldest first; None if the run was never planned.
    """
    store = parts.reconciliations
    planned = store.plan(run_id)
    if planned is None:
        return None
    began, ranges = planned
    names = {LEDGER, *(_range(n, ranges) for n in range(ranges))}
    done = {name: part for name, part in store.done(run_id).items() if name in names}
    report = report_of(
        run_id, began, done, planned=len(names), repair=conf.repair, threshold=parts.settings.reconcile_alert
    )
    store.save_report(report)
    return report, tuple(r.point for r in reversed(store.last(TREND)))
