"""One actor moves at a time, on one clock, and faults strike where they are said to."""

from __future__ import annotations

from functools import partial

import pytest

from simulation.choosers import CrashAt, Drawn, Plain, Script, Scripted
from simulation.scheduler import Chooser, EndlessError, Fate, Fault, Scheduler, Switch


class LostError(Exception):
    pass


def played(chooser: Chooser) -> tuple[Scheduler, list[str], dict[str, object]]:
    """Two actors of three calls each; what took effect, and how they ended."""
    done: list[str] = []
    s = Scheduler(chooser, start_ms=1000)

    def body(name: str) -> str:
        for n in range(3):
            s.call("store", f"{name}{n}", partial(done.append, f"{name}{n}"), LostError)
            s.sleep(10)
        return "end"

    actors = [s.spawn(name, partial(body, name), mortal=True) for name in "ab"]
    s.run()
    return s, done, {a.name: a.result or a.error or ("died" if a.died else "") for a in actors}


def test_actors_take_turns_and_the_clock_goes_on() -> None:
    s, done, ends = played(Plain())
    assert sorted(done) == ["a0", "a1", "a2", "b0", "b1", "b2"]
    assert ends == {"a": "end", "b": "end"}
    assert s.now_ms >= 1000 + 30


def test_a_freeze_ends_right_after_another_ones_call_that_is_named() -> None:
    fault = Fault("a", 1, Fate.FREEZES_BEFORE, 60_000, until="store b", nth=2)
    s, done, _ = played(Scripted(Script(faults=(fault,))))
    assert done[:3] == ["b0", "b1", "a0"]
    assert s.now_ms < 2000


def test_a_freeze_ends_at_its_time_where_no_such_call_comes() -> None:
    fault = Fault("a", 1, Fate.FREEZES_BEFORE, 60_000, until="store c")
    s, done, _ = played(Scripted(Script(faults=(fault,))))
    assert done[:3] == ["b0", "b1", "b2"]
    assert s.now_ms > 60_000


@pytest.mark.parametrize(
    ("fate", "effect", "end"),
    [
        (Fate.DIES_BEFORE, False, "died"),
        (Fate.DIES_LATE, False, "died"),
        (Fate.DIES_AFTER, True, "died"),
        (Fate.LOST_BEFORE, False, "lost"),
        (Fate.LOST_AFTER, True, "lost"),
        (Fate.LOST_LATE, False, "lost"),
        (Fate.FREEZES_BEFORE, True, "end"),
        (Fate.FREEZES_AFTER, True, "end"),
        (Fate.TERMINATED, False, "died"),
    ],
)
def test_a_fault_strikes_the_call_that_it_names(fate: Fate, effect: bool, end: str) -> None:
    _, done, ends = played(Scripted(Script(faults=(Fault("a", 2, fate, 5),))))
    assert ("a1" in done) is effect
    assert ends["b"] == "end"
    ended = ends["a"]
    assert ("lost" if isinstance(ended, LostError) else ended) == end


def test_in_an_outage_a_store_answers_nobody() -> None:
    _, done, ends = played(Scripted(Script(faults=(Fault("a", 2, Fate.OUTAGE, 5),))))
    assert done == ["a0", "b0"]
    assert all(isinstance(end, LostError) for end in ends.values())


def test_a_frozen_actor_lets_the_others_go_on() -> None:
    s, done, _ = played(Scripted(Script(faults=(Fault("a", 1, Fate.FREEZES_BEFORE, 500),))))
    assert done == ["b0", "b1", "b2", "a0", "a1", "a2"]
    assert s.frozen == {"a"}


def test_a_switch_wakes_an_actor_that_sleeps() -> None:
    _, done, _ = played(Scripted(Script(switches=(Switch("b", 2, "b"),))))
    assert done[:3] == ["a0", "b0", "b1"]


def test_crashes_are_counted() -> None:
    chooser = CrashAt([4], Fate.DIES_AFTER)
    _, done, ends = played(chooser)
    assert len(done) == len(chooser.counted)
    assert list(ends.values()).count("died") == 1


@pytest.mark.parametrize("seed", range(30))
def test_a_seed_gives_the_same_trace_again_and_so_does_its_script(seed: int) -> None:
    drawn = Drawn(seed)
    first, *_ = played(drawn)
    again, *_ = played(Drawn(seed))
    scripted, *_ = played(Scripted(drawn.script))
    assert first.trace == again.trace == scripted.trace


def test_a_wait_ends_when_its_condition_holds() -> None:
    s = Scheduler(Plain(), start_ms=0)
    seen: list[tuple[bool, int]] = []
    slow = s.spawn("slow", lambda: s.sleep(100))

    def waiting() -> None:
        seen.append((s.wait(lambda: slow.finished, ms=50), s.now_ms))
        seen.append((s.wait(lambda: slow.finished), s.now_ms))

    s.spawn("waiting", waiting)
    s.run()
    assert seen == [(False, 50), (True, 100)]


def test_a_world_that_does_not_end_is_an_error() -> None:
    s = Scheduler(Plain(), start_ms=0)
    s.spawn("stuck", lambda: s.wait(lambda: False))
    with pytest.raises(EndlessError, match="stuck"):
        s.run()
