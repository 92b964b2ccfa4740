"""Which events of a slice go on after its first phases, and what is counted. The stages are pretended."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from ownership.domain.clock import now_ms
from ownership.domain.contracts import Phase, Slice, Work
from ownership.domain.errors import Unavailable
from ownership.domain.queue import ClaimedEvent, QueuedEvent
from ownership.stages.later_phases import apply_later_phases
from tests.unit.replay import transfers

TOKEN = 7


class Job:
    """A queue, and stages that carry out the first event of each call."""

    def __init__(self, *pairs: str) -> None:
        self.events = transfers(*pairs)
        self.queued = {e.mid: QueuedEvent(e, 0, TOKEN, "r", now_ms() + 60_000) for e in self.events}
        self.calls: list[tuple[str, list[str]]] = []
        self.errors: dict[str, Exception] = {}
        self.outcomes: dict[str, dict[str, Any]] = {}
        """By stage, what it ends with instead of going on."""

    def commit(self, *events: int) -> None:
        for n in events:
            self.queued.pop(self.events[n].mid, None)

    def change(self, event: int, **fields: Any) -> None:
        mid = self.events[event].mid
        self.queued[mid] = self.queued[mid]._replace(**fields)

    def attempt(self, stage: Any, given: Slice | Work) -> Work:
        name = stage.__name__.partition("_")[0]
        self.calls.append((name, [e.mid for e in given.claimed]))
        if name in self.errors:
            raise self.errors[name]
        if name in self.outcomes:
            return given.step((), **self.outcomes[name])
        if isinstance(given, Slice):
            first, rest = given.events[:1], given.events[1:]
            counts = {"planned": 1, "waiting": len(rest)}
            return given.step(
                [Phase(events=first, moves={})], events=counts, batches={"planned": 5}, waiting=rest
            )
        if name == "update":
            return given.step(given.phases, events={"applied": 1}, batches={"moved": 4, "unchanged": 1})
        self.commit(*(n for n, e in enumerate(self.events) if e.mid in {c.mid for c in given.claimed}))
        return given.step((), events={"completed": 1}, batches={"moved": 4})

    def go_on(self, *waiting: int) -> Work:
        done = Work(
            label="a → b",
            run_id="r",
            waiting=tuple(self.claimed(waiting)),
            events={"completed": 1},
            batches={"moved": 2},
        )
        parts: Any = SimpleNamespace(queue=SimpleNamespace(read=lambda: list(self.queued.values())))
        return apply_later_phases(parts, done, self.attempt)

    def claimed(self, numbers: Sequence[int]) -> list[ClaimedEvent]:
        return [ClaimedEvent(self.events[n], TOKEN) for n in numbers]

    def looked_up(self) -> list[list[str]]:
        return [mids for stage, mids in self.calls if stage == "lookup"]


def test_what_waits_goes_through_all_stages_phase_after_phase() -> None:
    job = Job("cb", "ac", "xa")
    job.commit(0)

    done = job.go_on(1, 2)

    assert job.calls == [
        ("lookup", ["m01", "m02"]), ("update", ["m01"]), ("reindex", ["m01"]),
        ("lookup", ["m02"]), ("update", ["m02"]), ("reindex", ["m02"]),
    ]  # fmt: skip
    assert (done.events, done.batches, done.waiting) == ({"completed": 3}, {"moved": 10}, ())


def test_a_slice_without_waiting_events_asks_nothing() -> None:
    job = Job("ab")
    job.commit(0)
    assert job.go_on().events == {"completed": 1}
    assert job.calls == []


@pytest.mark.parametrize(
    ("change", "why"),
    [
        pytest.param({}, "it failed, and the run holds it", id="not committed"),
        pytest.param({"holder": "another", "fencing_token": 9}, "it was taken over", id="taken over"),
        pytest.param(
            {"holder": None, "awaits": "approval", "next_try_ms": 9_999_999_999_999}, "", id="awaits approval"
        ),
        pytest.param({"holder": None, "fencing_token": 0}, "it came late", id="never claimed"),
    ],
)
def test_an_event_that_is_not_committed_holds_back_the_later_ones_of_its_users(
    change: dict[str, Any], why: str
) -> None:
    job = Job("cb", "ac", "xa", "yz")
    job.change(0, **change)

    done = job.go_on(1, 2, 3)

    assert job.looked_up() == [["m03"]], why
    assert done.waiting == tuple(job.claimed([1, 2]))


def test_an_event_that_was_taken_over_is_left_alone_with_what_comes_after_it() -> None:
    job = Job("cb", "ac", "xa")
    job.commit(0)
    # Another run had it, and has let go of it again.
    job.change(1, holder=None, fencing_token=8)
    assert job.go_on(1, 2).waiting == tuple(job.claimed([2]))
    assert job.calls == []


def test_a_claim_that_is_too_old_but_not_taken_over_is_good_enough() -> None:
    job = Job("cb", "ac")
    job.commit(0)
    job.change(1, lease_expires_ms=1)
    assert job.go_on(1).events == {"completed": 2}


def test_what_fails_for_good_ends_there_and_holds_back_the_rest_of_its_lane() -> None:
    job = Job("cb", "ac", "xa")
    job.commit(0)
    job.outcomes["update"] = {"events": {"failed": 1}, "failures": {"m01": "503"}}

    done = job.go_on(1, 2)

    assert job.calls == [("lookup", ["m01", "m02"]), ("update", ["m01"])]
    assert (done.events, done.failures) == ({"completed": 1, "failed": 1}, {"m01": "503"})
    assert done.waiting == tuple(job.claimed([2]))
    assert done.batches == {"moved": 2}


def test_an_exception_passes_through_and_a_repeated_call_goes_on_with_what_is_open() -> None:
    job = Job("cb", "ac", "xa")
    job.commit(0)
    job.errors["reindex"] = Unavailable("test", "down")
    with pytest.raises(Unavailable):
        job.go_on(1, 2)
    job.errors.clear()
    job.calls.clear()
    job.commit(1)  # another try got further

    done = job.go_on(1, 2)

    assert job.looked_up() == [["m02"]]
    assert (done.events, done.waiting) == ({"completed": 2}, ())
