"""Whether a history of operations on one key is linearizable: the algorithm of Wing and Gong, with Lowe's memo. Pure.

An operation has an effect at one instant between its begin and its end. A history is linearizable if the operations
can be put into one order that agrees with these times and with what each of them answered.
http://www.cs.ox.ac.uk/people/gavin.lowe/LinearizabiltyTesting/paper.pdf
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

S = TypeVar("S", bound=Hashable)
"""State of a key."""


@dataclass(frozen=True)
class Operation(Generic[S]):
    """An operation on a key. Times are of one clock."""

    begin: int
    end: int | None
    """None if nobody knows whether it took effect: then at any time after its begin, or never."""
    after: Callable[[S], S | None]
    """The state after it, or None if it cannot have answered as it did in that state."""
    text: str
    reads: bool = False
    """Whether it never changes the state."""


@dataclass(frozen=True)
class Stuck(Generic[S]):
    """How far a history can be explained at best."""

    order: Sequence[str]
    """The operations in an order that explains their answers."""
    state: S
    """The state after them."""
    next: Sequence[str]
    """Those of which one had to come next, and none can."""

    def __str__(self) -> str:
        """The last operations that can be explained, and those that cannot."""
        return f"after {'; '.join(self.order[-3:]) or 'nothing'} it is {self.state}, and not possible are: {'; '.join(self.next)}"


def explain(initial: S, operations: Sequence[Operation[S]]) -> Stuck[S] | None:
    """None if the history is linearizable, else how far it can be explained."""
    history = sorted(operations, key=lambda o: o.begin)
    known = sum(1 << n for n, o in enumerate(history) if o.end is not None)
    seen: set[tuple[int, S]] = set()
    todo: list[tuple[int, S, tuple[int, ...]]] = [(0, initial, ())]
    best = todo[0]
    while todo:
        done, state, order = todo.pop()
        if done & known == known:
            return None
        if (done, state) in seen:
            continue
        seen.add((done, state))
        if (done & known).bit_count() > (best[0] & known).bit_count():
            best = (done, state, order)
        todo += ((done | 1 << n, new, (*order, n)) for n, new in _steps(history, done, state))
    done, state, order = best
    return Stuck([history[n].text for n in order], state, [history[n].text for n in _next(history, done)])


def _steps(history: Sequence[Operation[S]], done: int, state: S) -> Iterator[tuple[int, S]]:
    """The operations that may come next, each with the state after it."""
    possible = [(n, new) for n in _next(history, done) if (new := history[n].after(state)) is not None]
    for n, new in possible:
        # A read may as well come now; the orders in which it comes later need no look.
        if history[n].reads:
            yield n, new
            return
    yield from ((n, new) for n, new in possible if new != state or history[n].end is not None)


def _next(history: Sequence[Operation[S]], done: int) -> list[int]:
    """Those that began before any other of the rest ended."""
    rest = [n for n in range(len(history)) if not done >> n & 1]
    ends = [end for n in rest if (end := history[n].end) is not None]
    first_end = min(ends, default=None)
    return [n for n in rest if first_end is None or history[n].begin <= first_end]
