"""Makes a failing world smaller, as long as it still fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from simulation.choosers import Script
from simulation.setup import NEWCOMER, Setup


class Case(NamedTuple):
    """A world and what happens in it."""

    setup: Setup
    script: Script


def shrunk(case: Case, fails: Callable[[Case], bool], *, tries: int = 400) -> Case:
    """The smallest case found that still fails; `fails` is asked at most `tries` times."""
    left = tries
    smaller = True
    while smaller:
        smaller = False
        for candidate in _candidates(case):
            if left == 0:
                return case
            left -= 1
            if fails(candidate):
                case, smaller = candidate, True
                break
    return case


def _candidates(case: Case) -> Iterator[Case]:
    """Smaller cases, the boldest first."""
    setup, script = case
    for name in ("orders", "edits", "messages", "batches"):
        for kept in _fewer(getattr(setup, name)):
            changed: dict[str, Any] = {name: kept}
            yield case._replace(setup=_fitting(setup._replace(**changed)))
    for switches in _fewer(script.switches):
        yield case._replace(script=script._replace(switches=switches))
    for faults in _fewer(script.faults):
        yield case._replace(script=script._replace(faults=faults))
    for name, plain in (
        ("refreshes", False),
        ("runs", 1),
        ("settings", {}),
        ("deleted", ()),
        ("foreign", ()),
    ):
        if getattr(setup, name) != plain:
            changed = {name: plain}
            yield case._replace(setup=setup._replace(**changed))


def _fitting(setup: Setup) -> Setup:
    """Without edits of batches that are not there."""
    there = {NEWCOMER, *(b.batch for b in setup.batches)}
    return setup._replace(edits=tuple(e for e in setup.edits if e.batch in there))


def _fewer(items: Sequence[Any]) -> Iterator[tuple[Any, ...]]:
    """The items without some of them: all, halves, quarters, …, single ones."""
    size = len(items)
    while size:
        for start in range(0, len(items), size):
            yield (*items[:start], *items[start + size :])
        size //= 2
