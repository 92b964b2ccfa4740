"""One world, run and judged."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from sqlalchemy import Engine

from simulation.choosers import Drawn, Script
from simulation.marks import marks_of
from simulation.scheduler import Chooser, Line
from simulation.setup import Setup, drawn_setup
from simulation.verdict import Verdict
from simulation.world import World


@dataclass(frozen=True)
class Outcome:
    """How a world ended."""

    violations: tuple[str, ...]
    excused: tuple[str, ...]
    trace: tuple[Line, ...]
    calls: int
    setup: Setup
    marks: frozenset[str]
    """See `simulation.marks`."""
    script: Script
    """What was decided, if it was drawn."""

    @property
    def digest(self) -> str:
        """Names the trace: two worlds with the same have gone the same way."""
        return hashlib.sha256(repr(self.trace).encode()).hexdigest()[:16]


def play(setup: Setup, chooser: Chooser, engine: Engine, *, seed: int = 0) -> Outcome:
    """Run a world on an opened ledger, and judge it."""
    world = World(setup, chooser, engine, seed=seed)
    verdict = Verdict(world)
    world.run()
    verdict.at_the_end()
    script = chooser.script if isinstance(chooser, Drawn) else Script()
    return Outcome(
        tuple(world.violations),
        tuple(dict.fromkeys(verdict.excused)),
        tuple(world.scheduler.trace),
        world.scheduler.calls,
        setup,
        marks_of(world),
        script,
    )


def play_seed(seed: int, engine: Engine) -> Outcome:
    """The world of a seed."""
    return play(drawn_setup(seed), Drawn(seed), engine, seed=seed)
