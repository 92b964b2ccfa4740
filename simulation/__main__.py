"""`make simulate`: play seeds, or show one as a story."""

from __future__ import annotations

import argparse
import sys
import time

from simulation.ablations import ABLATIONS, NEEDLESS, Ablated, report_without
from simulation.campaign import Totals, outcome_of, run_seeds, smallest_of
from simulation.farm import Farm, opened_farm
from simulation.marks import MARKS
from simulation.own_worlds import OWN_WORLDS, violations_in_own_world
from simulation.story import story

ALL_MARKS = 10_000
"""A campaign of so many seeds must reach every mark."""


def main() -> int:
    """The exit code: 1 if a world has a violation."""
    parser = argparse.ArgumentParser(prog="simulation", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    parser.add_argument("--seeds", type=int, default=2000, help="how many")
    parser.add_argument("--processes", type=int, default=None)
    parser.add_argument(
        "--ablate", nargs="*", metavar="GUARD", help="take guards out instead, all if none is named"
    )
    parser.add_argument("--story", action="store_true", help="print what happens in the world of each seed")
    parser.add_argument("--shrink", action="store_true", help="print the smallest world that still fails")
    given = parser.parse_args()
    seeds = range(given.seed, given.seed + given.seeds)
    with opened_farm(given.processes) as farm:
        if given.ablate is not None:
            return _ablate(farm, seeds, given.ablate or list(ABLATIONS))
        if given.story or given.shrink:
            return _stories(farm, seeds, shrink=given.shrink)
        totals = run_seeds(farm, seeds, progress=_Progress())
        if totals.failed:
            _stories(farm, [totals.failed[0].seed], shrink=True)
        for mark in MARKS:
            print(f"{totals.marks[mark]:7} {mark}")
        print(totals.line())
        return 1 if totals.failed or (given.seeds >= ALL_MARKS and totals.missed()) else 0


def _ablate(farm: Farm, seeds: range, guards: list[str]) -> int:
    """For each guard, how many seeds it takes until a world without it goes wrong, or else its own world.

    1 if a guard is not missed.
    """
    missed = 0
    for guard in guards:
        for n, report in enumerate(farm.map(report_without, (Ablated(guard, s) for s in seeds)), 1):
            if report.violations:
                print(f"| {guard} | {n} | {report.violations[0].splitlines()[0]} |", flush=True)
                break
        else:
            missed += _without_seeds(farm, guard, len(seeds))
    return 1 if missed else 0


def _without_seeds(farm: Farm, guard: str, seeds: int) -> bool:
    """Tell of a guard that no seed misses; True if its own world does not miss it, and no reason is known."""
    if guard in OWN_WORLDS:
        ((_, violations),) = farm.map(violations_in_own_world, [guard])
        if violations:
            print(f"| {guard} | its own world | {violations[0].splitlines()[0]} |", flush=True)
            return False
    print(f"| {guard} | {NEEDLESS.get(guard, 'never')} in {seeds} | |", flush=True)
    return guard not in NEEDLESS


def _stories(farm: Farm, seeds: range | list[int], *, shrink: bool) -> int:
    wrong = False
    for seed, outcome in zip(seeds, farm.map(smallest_of if shrink else outcome_of, seeds), strict=True):
        print(f"seed {seed}, {outcome.calls} calls, trace {outcome.digest}")
        print(story(outcome))
        wrong |= bool(outcome.violations)
    return 1 if wrong else 0


class _Progress:
    """A line now and then, and one for each violation."""

    def __init__(self) -> None:
        self._at = time.monotonic()
        self._failed = 0

    def __call__(self, totals: Totals) -> None:
        """Called after each world."""
        for report in totals.failed[self._failed :]:
            print(f"seed {report.seed}: {report.violations[0]}", flush=True)
        self._failed = len(totals.failed)
        if time.monotonic() - self._at > 10:
            self._at = time.monotonic()
            print(totals.line(), flush=True)


if __name__ == "__main__":
    sys.exit(main())
