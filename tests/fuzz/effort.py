"""How much is tried, and what came of it.

`FUZZ_MESSAGES` (`make fuzz MESSAGES=100000`) is the number of messages; confs, settings and answers follow it. Without
it the tests take seconds and try the same things each time; with it everything is new each time.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable
from random import Random
from typing import Any, TypeVar

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

F = TypeVar("F", bound=Callable[..., Any])

SHORT = 1000
LONG = "FUZZ_MESSAGES" in os.environ
MESSAGES = int(os.environ.get("FUZZ_MESSAGES", str(SHORT)))

outcomes: dict[str, Counter[str]] = defaultdict(Counter)
"""By what was tried: how often each outcome was seen. Printed at the end of the tests."""


def fuzzed(part: float = 1.0) -> Callable[[F], F]:
    """A test of one argument, a source of choices; `part` is its share of the number of messages."""

    def made(test: F) -> F:
        effort = settings(
            max_examples=max(20, int(MESSAGES * part)),
            deadline=None,
            database=None,
            derandomize=not LONG,
            suppress_health_check=list(HealthCheck),
        )
        return effort(given(random=st.randoms(use_true_random=False))(test))  # type: ignore[return-value]  # it is called as the test is

    return made


def count(what: str, outcome: str) -> None:
    """One more of `outcome`."""
    outcomes[what][outcome] += 1


def table() -> list[str]:
    """The outcomes as lines of text."""
    lines = []
    for what, seen in outcomes.items():
        lines.append(f"{what}: {seen.total():,}")
        lines += [f"    {n:>9,}  {outcome}" for outcome, n in seen.most_common()]
    return lines


__all__ = ["LONG", "MESSAGES", "Random", "count", "fuzzed", "outcomes", "table"]
