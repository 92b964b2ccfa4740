"""Many seeds, and what came of them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from sqlalchemy import Engine

from simulation.choosers import Scripted
from simulation.farm import Farm
from simulation.marks import MARKS
from simulation.shrink import Case, shrunk
from simulation.trial import Outcome, play, play_seed


class Report(NamedTuple):
    """What came of one seed."""

    seed: int
    violations: tuple[str, ...]
    excused: tuple[str, ...]
    calls: int
    digest: str
    marks: frozenset[str]


@dataclass
class Totals:
    """What came of many."""

    worlds: int = 0
    calls: int = 0
    seconds: float = 0
    excused: int = 0
    failed: list[Report] = field(default_factory=list)
    marks: Counter[str] = field(default_factory=Counter)
    """Worlds that reached each mark."""

    def missed(self) -> list[str]:
        """Marks that no world reached."""
        return [m for m in MARKS if not self.marks[m]]

    def line(self) -> str:
        """In one line."""
        pace = self.worlds / self.seconds * 60 if self.seconds else 0
        return (
            f"{self.worlds} worlds, {self.calls} calls, {len(self.failed)} with a violation, {self.excused} not judged in "
            f"full; {self.seconds:.0f} s, {pace:.0f} worlds a minute"
        )


def run_seeds(
    farm: Farm,
    seeds: Iterable[int],
    *,
    progress: Callable[[Totals], None] = lambda _: None,
    most_failures: int = 10,
) -> Totals:
    """Play the seeds; ends early after some failures."""
    totals, began = Totals(), time.monotonic()
    for report in farm.map(report_of, seeds):
        totals.worlds += 1
        totals.calls += report.calls
        totals.excused += bool(report.excused)
        totals.marks.update(report.marks)
        totals.seconds = time.monotonic() - began
        totals.failed += [report] if report.violations else []
        progress(totals)
        if len(totals.failed) >= most_failures:
            break
    return totals


def report_of(engine: Engine, seed: int) -> Report:
    """Play one seed."""
    o = play_seed(seed, engine)
    return Report(seed, o.violations, o.excused, o.calls, o.digest, o.marks)


def outcome_of(engine: Engine, seed: int) -> Outcome:
    """The same, with the whole trace."""
    return play_seed(seed, engine)


def smallest_of(engine: Engine, seed: int) -> Outcome:
    """The seed's world, made as small as it still fails. Of a seed that does not fail, the world as it is."""
    found = play_seed(seed, engine)
    kind = kinds(found)

    def fails(case: Case) -> bool:
        return bool(kinds(play(case.setup, Scripted(case.script), engine, seed=seed)) & kind)

    case = Case(found.setup, found.script)
    if not kind or not fails(case):
        return found
    small = shrunk(case, fails)
    return play(small.setup, Scripted(small.script), engine, seed=seed)


def kinds(outcome: Outcome) -> set[str]:
    """Kinds of violations: their first words, without names."""
    return {" ".join(v.split()[:1]) for v in outcome.violations}
