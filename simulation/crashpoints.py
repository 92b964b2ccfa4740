"""`make crashpoints`: small worlds, with a death of the process before and after each of their calls.

Nothing is drawn: each world is played once as it is, which says how many calls its tasks make. Then it is played again
for each call, in four ways: the process dies before the call or after it, and either Airflow tries the task again, or
the whole run is lost with it. Each time the world must end as without a death, and the verdict must hold. The smallest
worlds are played for each pair of calls, too.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from sqlalchemy import Engine

from simulation.airflow import Run
from simulation.choosers import CrashAt
from simulation.farm import Farm, opened_farm
from simulation.marks import CRASH_POINTS, crash_points
from simulation.scheduler import Call, Fate, Fault
from simulation.small_worlds import WORLDS, AttendedWorld, End, ended

SMALLEST = 2
"""How many of the worlds `--smallest` plays: those that CI has time for."""


class Repair(StrEnum):
    """What went on after a death."""

    RETRY = "next try"
    """Airflow tried the task again."""
    READ_AGAIN = "read again"
    """The run was lost before the message was in the ledger: the next run reads it from the topic."""
    CLAIM = "next claim"
    """The run was lost, and held nothing: the next run claims the event."""
    TAKEOVER = "lease"
    """The run was lost with its claim: the next run takes it over when the lease has expired."""
    ORDERED_AGAIN = "cleared"
    """A run that an operator or the clock had started was lost: it is cleared, or comes again."""
    NOTHING = "nothing left"
    """The run was lost after its last effect."""


class Point(NamedTuple):
    """Where processes die."""

    world: int
    """Index in `WORLDS`."""
    calls: tuple[int, ...]
    """Numbers of the calls, from 1; of a pair, the second is counted in the world with the first death."""
    fate: Fate
    with_run: bool
    """True if the whole run is lost."""


class Found(NamedTuple):
    """What came of a point."""

    point: Point
    died: int
    """How many processes did die: after the first death there may be fewer calls."""
    repair: Repair | None
    end: End
    reached: frozenset[str]
    """Lines of the crash-point table to which the deaths belong."""
    calls: int
    """How many calls there were."""


class Deaths(CrashAt):
    """Strikes as `CrashAt`, and takes the whole run with it if it is told so."""

    def __init__(self, point: Point) -> None:
        super().__init__(point.calls, point.fate)
        self._with_run = point.with_run
        self._world: AttendedWorld | None = None
        self.died = 0
        """How many processes died."""
        self.repair: Repair | None = None
        """What had to go on after the last death, by what the ledger had then."""
        self._dead: Run | None = None

    def watch(self, world: AttendedWorld) -> None:
        """Strike in this world."""
        self._world = world
        world.scheduler.before_move.append(self._look)

    def fate(self, call: Call) -> Fault | None:
        """The fate of the n-th call."""
        found = super().fate(call)
        if found and self._world:
            run_id = call.actor.name.partition(".")[0]
            self._dead = next(r for r in self._world.airflow.runs if r.run_id == run_id)
            self.died += 1
            if self._with_run:
                self._world.airflow.fail(self._dead)
        return found

    def _look(self) -> None:
        """Right after a death: what stands in the ledger says what repairs it."""
        dead, world = self._dead, self._world
        if dead is None or world is None:
            return
        self._dead = None
        if not self._with_run:
            self.repair = Repair.RETRY
        elif dead.kind != "asset":
            self.repair = Repair.ORDERED_AGAIN
        else:
            self.repair = _left_to_do(world, dead)


def _left_to_do(world: AttendedWorld, dead: Run) -> Repair:
    """What goes on after a run of the watcher was lost."""
    read = {
        r[0]: r[1] for r in world.database.plainly("SELECT kafka_partition, next_offset FROM consumed_offset")
    }
    records = world.broker.topics[world.settings.input_topic]
    if any(len(of) > read.get(p, 0) for p, of in enumerate(records)):
        return Repair.READ_AGAIN
    holders = [r[0] for r in world.database.plainly("SELECT holder FROM queue WHERE awaits IS NULL")]
    if dead.run_id in holders:
        return Repair.TAKEOVER
    return Repair.CLAIM if holders else Repair.NOTHING


def calls_of(engine: Engine, world: int) -> tuple[int, End]:
    """How many calls the tasks of a world make, and how it ends without a death."""
    chooser = CrashAt()
    end = ended(WORLDS[world].world(chooser, engine))
    return len(chooser.counted), end


def play_point(engine: Engine, point: Point) -> Found:
    """Play a world with its deaths."""
    chooser = Deaths(point)
    world = WORLDS[point.world].world(chooser, engine)
    chooser.watch(world)
    end = ended(world)
    reached = frozenset(crash_points(world.scheduler.trace))
    return Found(point, chooser.died, chooser.repair, end, reached, len(chooser.counted))


def single_points(_: Farm, world: int, calls: int) -> Iterator[Point]:
    """A death before and after each call, alone and with its run."""
    for n in range(1, calls + 1):
        for fate in (Fate.DIES_BEFORE, Fate.DIES_AFTER):
            for with_run in (False, True):
                yield Point(world, (n,), fate, with_run)


def pairs(farm: Farm, world: int, calls: int) -> Iterator[Point]:
    """Two deaths: at each call of a world, and at each that follows in the world with the first one.

    Before the call only: between its calls a process changes nothing, so a death after one is a death before the next.
    """
    firsts = [p for p in single_points(farm, world, calls) if p.fate is Fate.DIES_BEFORE]
    for found in farm.map(play_point, firsts):
        (first,) = found.point.calls
        for second in range(first + 1, found.calls + 1):
            yield found.point._replace(calls=(first, second))


@dataclass
class Row:
    """A line of the table."""

    name: str
    calls: int
    plain: End
    played: int = 0
    repairs: Counter[Repair] = field(default_factory=Counter)
    reached: set[str] = field(default_factory=set)
    wrong: list[tuple[Point, str]] = field(default_factory=list)

    def count(self, found: Found) -> None:
        """Add what came of a point."""
        if not found.died:
            return
        self.played += 1
        self.reached |= found.reached
        if found.repair:
            self.repairs[found.repair] += 1
        violations = list(found.end.violations)
        if (found.end.states, found.end.owners) != (self.plain.states, self.plain.owners):
            violations.append(
                f"ends with {found.end.states} {found.end.owners}, "
                f"and without a death with {self.plain.states} {self.plain.owners}"
            )
        self.wrong += [(found.point, v) for v in violations]

    def __str__(self) -> str:
        """As a row of a table in Markdown."""
        counts = " | ".join(str(self.repairs[r]) for r in Repair)
        return f"| {self.name} | {self.calls} | {self.played} | {counts} | {len(self.wrong)} |"


HEAD = f"| world | calls | deaths | {' | '.join(Repair)} | violations |"


class Job(NamedTuple):
    """A row of the table that is to be made."""

    world: int
    points: Callable[[Farm, int, int], Iterator[Point]]
    name: str


SINGLE = [Job(n, single_points, w.name) for n, w in enumerate(WORLDS)]
JOBS = {
    "smallest": SINGLE[:SMALLEST],
    "single": SINGLE,
    "pairs": [Job(n, pairs, f"{WORLDS[n].name}, two deaths") for n in reversed(range(SMALLEST))],
}
"""By what the command is told to play."""


def rows_of(farm: Farm, jobs: Sequence[Job]) -> Iterator[Row]:
    """The table, row by row."""
    for job, (calls, plain) in zip(jobs, farm.map(calls_of, [j.world for j in jobs]), strict=True):
        row = Row(job.name, calls, plain)
        row.wrong += [(Point(job.world, (), Fate.DIES_BEFORE, with_run=False), v) for v in plain.violations]
        yield _played(farm, row, job.points(farm, job.world, calls))


def _played(farm: Farm, row: Row, points: Iterator[Point]) -> Row:
    progress = time.monotonic()
    for found in farm.map(play_point, points):
        row.count(found)
        if time.monotonic() - progress > 10:
            progress = time.monotonic()
            print(
                f"  {row.name}: {row.played} deaths, {len(row.wrong)} violations", file=sys.stderr, flush=True
            )
    return row


def main() -> int:
    """The exit code: 1 if a world has a violation, or if all worlds leave out a line of the crash-point table."""
    parser = argparse.ArgumentParser(prog="simulation.crashpoints", description=__doc__)
    parser.add_argument("what", nargs="?", choices=("all", *JOBS), default="all")
    parser.add_argument("--world", help="only worlds with these words in their name")
    parser.add_argument("--processes", type=int, default=None)
    given = parser.parse_args()
    jobs = JOBS[given.what] if given.what in JOBS else [*JOBS["single"], *JOBS["pairs"]]
    began = time.monotonic()
    print(f"{HEAD}\n{'| --- ' * HEAD.count(' | ')}| --- |")
    wrong: list[tuple[Point, str]] = []
    missed = set(CRASH_POINTS) if given.what in ("all", "single") and not given.world else set()
    played = 0
    with opened_farm(given.processes) as farm:
        for row in rows_of(farm, [j for j in jobs if (given.world or "") in j.name]):
            print(row, flush=True)
            wrong += row.wrong
            missed -= row.reached
            played += row.played
    for point, violation in wrong[:20]:
        print(f"\n{WORLDS[point.world].name}: {point}\n{violation}")
    print(f"\n{played} deaths, {len(wrong)} violations; {time.monotonic() - began:.0f} s")
    print(f"never reached: {', '.join(sorted(missed))}" if missed else "")
    return 1 if wrong or missed else 0


if __name__ == "__main__":
    sys.exit(main())
