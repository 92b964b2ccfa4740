"""A reconciliation, task by task, as plain functions: plan, the two looks by slices, the ledger, the report.

A part is done when its row is in `transfer_reconcile`. A task that is tried again, or a run that is cleared, goes on
with the parts that are not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Final, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ownership.conf import ConfError
from ownership.events import explain
from ownership.parts import Parts, now_ms
from ownership.reconcile.pace import Pace
from ownership.reconcile.proofs import sources, unproven
from ownership.reconcile.report import TREND, PartDone, Point, Report, Tally, report
from ownership.reconcile.scan import PATIENCE_S, Scan
from ownership.reconcile.store import Reconciliations
from ownership.ring import token_range
from ownership.schema import check as check_tables
from ownership.settings import Settings

RANGE, SHARD, LEDGER = "range", "shard", "ledger"
"""The sorts of parts."""
LEAST_A_SECOND = 10.0
"""Of a slice: at less, the index would forget its point in time between two pages."""


class Order(BaseModel):
    """What the conf of a run may say; a field that is null follows its setting."""

    model_config = ConfigDict(frozen=True, extra="forbid")

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
            return cls.model_validate(dict(conf or {}))
        except ValidationError as e:
            raise ConfError(
                f"Conf of ownership_reconcile: {explain(e)}; known are {', '.join(cls.model_fields)}."
            ) from None

    def following(self, settings: Settings) -> Self:
        """With the settings where it says nothing."""
        return self.model_copy(
            update={
                "rows_per_second": _first(self.rows_per_second, settings.reconcile_rows_per_second),
                "ranges": _first(self.ranges, settings.reconcile_ranges),
                "days": _first(self.days, settings.reconcile_days),
            }
        )


def _first(given: int | None, setting: int) -> int:
    return setting if given is None else given


class Share(BaseModel):
    """What one mapped instance of the looks works on: ranges of the ring, shards of the index."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    label: str
    run_id: str
    ranges: tuple[int, ...]
    of_ranges: int
    shards: tuple[int, ...]
    of_shards: int
    per_second: float
    repair: bool
    days: int


def plan(parts: Parts, run_id: str, order: Order) -> list[Share]:
    """Cut the ring into ranges, and deal them and the index's shards out. A run that was planned keeps its cut.

    :raises SettingsError: if a table or the index is missing.
    """
    check_tables(parts.cql, parts.settings)
    parts.index.check()
    order = order.following(parts.settings)
    slices = max(1, min(parts.settings.parallelism, parts.settings.max_mapped, order.ranges or 1))
    wanted = {RANGE: order.ranges or 1, SHARD: parts.index.shards()}
    _, stands = Reconciliations(parts.cql, parts.settings.ledger_keyspace).begin(run_id, wanted)
    of_ranges, of_shards = stands[RANGE], stands[SHARD]
    slices = min(slices, of_ranges)
    limit = order.rows_per_second or 0
    return [
        Share(
            label=f"slice {n + 1} of {slices}",
            run_id=run_id,
            ranges=tuple(range(n, of_ranges, slices)),
            of_ranges=of_ranges,
            shards=tuple(range(n, of_shards, slices)),
            of_shards=of_shards,
            per_second=max(limit / slices, LEAST_A_SECOND) if limit else 0.0,
            repair=order.repair,
            days=order.days or 0,
        )
        for n in range(slices)
    ]


def look_at_rows(parts: Parts, share: Share, *, patience_s: float = PATIENCE_S) -> dict[str, int]:
    """The ranges of a share that are not done. Returns how many were, and are, done.

    :raises Unavailable: if a store is; the ranges before are done.
    """
    todo = Parting(parts, share.run_id, [(RANGE, n, share.of_ranges) for n in share.ranges])
    if todo.left:
        scan = Scan(
            parts, Pace(share.per_second), share.repair, sources(parts, share.days), patience_s=patience_s
        )
        todo.each(lambda n, of: scan.rows(token_range(n, of)))
    return todo.told


def look_at_documents(parts: Parts, share: Share, *, patience_s: float = PATIENCE_S) -> dict[str, int]:
    """The shards of a share that are not done. Returns how many were, and are, done.

    :raises ConfError: if the index was replaced by one of other shards since the run was planned.
    :raises Unavailable: if a store is; the shards before are done.
    """
    todo = Parting(parts, share.run_id, [(SHARD, n, share.of_shards) for n in share.shards])
    if todo.left:
        if (now := parts.index.shards()) != share.of_shards:
            raise ConfError(f"The index has {now} shards by now, not {share.of_shards}: start another run.")
        scan = Scan(parts, Pace(share.per_second), patience_s=patience_s)
        todo.each(lambda n, _: scan.documents(n))
    return todo.told


def look_at_ledger(parts: Parts, run_id: str, order: Order) -> dict[str, int]:
    """Moves that nobody proved. Returns whether it was, and is, done."""
    order = order.following(parts.settings)
    todo = Parting(parts, run_id, [(LEDGER, 0, 1)])

    def look(_: int, __: int) -> Tally:
        tally = Tally()
        unproven(parts, order.days or 0, tally, Pace(float(order.rows_per_second or 0)))
        return tally

    todo.each(look)
    return todo.told


class Parting:
    """Parts of a run, each written down when it is done."""

    def __init__(self, parts: Parts, run_id: str, wanted: list[tuple[str, int, int]]) -> None:
        self._store = Reconciliations(parts.cql, parts.settings.ledger_keyspace)
        self._run_id = run_id
        done = self._store.done(run_id)
        self.left: Final = [part for part in wanted if name(*part) not in done]
        self.told = {"done before": len(wanted) - len(self.left), "done": 0}

    def each(self, look: Callable[[int, int], Tally]) -> None:
        """Look at each part that is left, and keep what was found."""
        for sort, n, of in self.left:
            began = now_ms()
            found = look(n, of)
            self._store.keep(self._run_id, name(sort, n, of), found.done(began, now_ms()))
            self.told["done"] += 1


def name(sort: str, n: int, of: int) -> str:
    """Of a part in the ledger. Another cut has other names."""
    return f"{sort} {n:05d} of {of}"


def put_together(parts: Parts, run_id: str, order: Order) -> tuple[Report, tuple[Point, ...]] | None:
    """Write the run's report. Returns it with the trend of the last runs, the oldest first; None without a plan."""
    store = Reconciliations(parts.cql, parts.settings.ledger_keyspace)
    planned = store.plan(run_id)
    if planned is None:
        return None
    began, cuts = planned
    wanted = set(_names(cuts))
    done: dict[str, PartDone] = {n: p for n, p in store.done(run_id).items() if n in wanted}
    told = report(
        run_id,
        began,
        done,
        planned=len(wanted),
        repair=order.repair,
        threshold=parts.settings.reconcile_alert,
    )
    store.tell(told)
    return told, tuple(r.point for r in reversed(store.last(TREND)))


def _names(cuts: Mapping[str, int]) -> Iterator[str]:
    for sort in (RANGE, SHARD):
        yield from (name(sort, n, cuts[sort]) for n in range(cuts[sort]))
    yield name(LEDGER, 0, 1)
