"""`make simulate`: play seeds, or show one as a story."""

from __future__ import annotations

import argparse
import sys
import time

from simulation.campaign import Totals, outcome_of, run_seeds, smallest_of
from simulation.farm import Farm, opened_farm
from simulation.story import story


def main() -> int:
    """The exit code: 1 if a world has a violation."""
    parser = argparse.ArgumentParser(prog="simulation", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    parser.add_argument("--seeds", type=int, default=2000, help="how many")
    parser.add_argument("--processes", type=int, default=None)
    parser.add_argument("--story", action="store_true", help="print what happens in the world of each seed")
    parser.add_argument("--shrink", action="store_true", help="print the smallest world that still fails")
    given = parser.parse_args()
    seeds = range(given.seed, given.seed + given.seeds)
    with opened_farm(given.processes) as farm:
        if given.story or given.shrink:
            return _stories(farm, seeds, shrink=given.shrink)
        totals = run_seeds(farm, seeds, progress=_Progress())
        for report in totals.failed:
            print(f"\nseed {report.seed}: {report.violations[0]}")
        if totals.failed:
            print()
            _stories(farm, [totals.failed[0].seed], shrink=True)
        print(totals.line())
        return 1 if totals.failed else 0


def _stories(farm: Farm, seeds: range | list[int], *, shrink: bool) -> int:
    wrong = False
    for seed, outcome in zip(seeds, farm.map(smallest_of if shrink else outcome_of, seeds), strict=True):
        print(f"seed {seed}, {outcome.calls} calls, trace {outcome.digest}")
        print(story(outcome))
        wrong |= bool(outcome.violations)
    return 1 if wrong else 0


class _Progress:
    """A line now and then."""

    def __init__(self) -> None:
        self._at = time.monotonic()

    def __call__(self, totals: Totals) -> None:
        if time.monotonic() - self._at > 10:
            self._at = time.monotonic()
            print(totals.line(), flush=True)


if __name__ == "__main__":
    sys.exit(main())
