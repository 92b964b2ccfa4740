"""Guards of the job that can be taken out, to see that the fault suite finds it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

CONDITION = " IF createdby = ? AND mentors = ? AND status = ?"


def without_compare_and_set(module: ModuleType) -> None:
    """Rows are changed whatever they are by then, if only they exist."""
    update = module.CourseBatches._update

    def blind(self: Any, before: Any, after: Any) -> tuple[str, tuple[Any, ...]]:
        cql, values = update(self, before, after)
        if not cql.endswith(CONDITION):
            raise AssertionError(f"no such condition in {cql}")
        return cql.removesuffix(CONDITION) + " IF EXISTS", values[:-3]

    module.CourseBatches._update = blind


def without_claim_lock(module: ModuleType) -> None:
    """Two claims may look at the queue at the same time."""
    from sqlalchemy import select

    head = module.queue_head
    vars(module)["_locked_head"] = lambda c: c.execute(select(head.c.fencing_token)).scalar_one()


GUARDS: Mapping[str, tuple[str, Callable[[ModuleType], None]]] = {
    "compare-and-set": ("ownership.platform.course_batches", without_compare_and_set),
    "claim-lock": ("ownership.ledger.queue", without_claim_lock),
}
"""By name, the module in which a guard is, and how it is taken out."""
