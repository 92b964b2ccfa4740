"""A steady stream of events, and the age of the oldest message that waits, sampled every second."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.bench import Bench
from benchmarks.machine import Meter
from benchmarks.waiting import Look, Waiting
from benchmarks.workloads import Workload

EVENTS_A_SECOND = 50
BATCHES = 2
"""Batches of each event, whose users no other event names."""
MAX_AGE_S = 10.0
"""Limit of the age of the oldest message that waits."""
SEND_EVERY_S = 0.1
SAMPLE_EVERY_S = 1.0
FINAL_WITHIN_S = 900.0
"""Wait for the last event to be final."""
SLICES = 20
"""Lines of the picture."""


@dataclass(frozen=True)
class Slice:
    """A part of the time, seconds since the first message: the largest age and number of waiting messages in it."""

    from_s: float
    age_s: float
    messages: int


@dataclass(frozen=True)
class Stream:
    """The result of a stream of `minutes`."""

    minutes: float
    events: int
    sent_s: float
    """Seconds from the first message to the last."""
    final_s: float | None
    """Seconds from the last message until every event was final; None if that took longer than `FINAL_WITHIN_S`."""
    looks: list[Look]
    runs: int
    cpu: dict[str, float]
    rest_of_machine_cpu: float

    @property
    def max_age_s(self) -> float:
        """The largest age of a waiting message, seconds."""
        return max(look.age_s for look in self.looks)

    @property
    def hit(self) -> bool:
        """Whether every event became final, and no message waited for longer than the limit."""
        return self.final_s is not None and self.max_age_s <= MAX_AGE_S

    @property
    def slices(self) -> list[Slice]:
        """The looks in `SLICES` parts of equal size at most."""
        size = -(-len(self.looks) // SLICES)
        parts = [self.looks[n : n + size] for n in range(0, len(self.looks), size)]
        return [
            Slice(p[0].at_s, max(look.age_s for look in p), max(look.messages for look in p)) for p in parts
        ]

    def summary(self) -> dict[str, Any]:
        """Figures and verdict, as JSON."""
        return {
            "minutes": self.minutes,
            "events": self.events,
            "events_a_second": round(self.events / self.sent_s, 1),
            "batches_each": BATCHES,
            "max_age_s": self.max_age_s,
            "final_s": self.final_s,
            "runs": self.runs,
            "must_reach": f"no message waits for longer than {MAX_AGE_S:g} s",
            "hit": self.hit,
            "cpu": self.cpu,
            "rest_of_machine_cpu": self.rest_of_machine_cpu,
            "over_time": [asdict(part) for part in self.slices],
        }


def measure(bench: Bench, minutes: float) -> Stream:
    """Send for `minutes`, then wait for the last event. Raises RuntimeError when the stores are wrong at the end."""
    load = bench.loaded(Workload("stream", "", round(minutes * 60 * EVENTS_A_SECOND), BATCHES))
    bench.wait_quiet()
    runs = bench.runs_so_far()
    looks: list[Look] = []
    with bench.waiting() as waiting, Meter(bench.stack.servers) as meter:
        begun = time.monotonic()
        sent_s = 0.0
        final_s: float | None = None
        sent = 0
        while final_s is None and time.monotonic() - begun < minutes * 60 + FINAL_WITHIN_S:
            due = int((time.monotonic() - begun) * EVENTS_A_SECOND) + 1
            if part := load.events[sent:due]:
                _send(bench, waiting, part)
                sent += len(part)
                sent_s = time.monotonic() - begun
            if time.monotonic() - begun >= len(looks) * SAMPLE_EVERY_S:
                looks.append(waiting.look())
                if sent == len(load.events) and not looks[-1].messages:
                    final_s = time.monotonic() - begun - sent_s
            time.sleep(SEND_EVERY_S)
    if final_s is not None:
        bench.wait_quiet()
        bench.check(load)
    return Stream(
        minutes,
        sent,
        round(sent_s, 1),
        None if final_s is None else round(final_s, 1),
        looks,
        bench.runs_so_far() - runs,
        meter.cpu,
        meter.rest_of_machine,
    )


def _send(bench: Bench, waiting: Waiting, events: Sequence[dict[str, Any]]) -> None:
    """Send events with the time of now: in Kafka, in the events themselves, and for their age."""
    now = time.time_ns() // 1_000_000
    for event in events:
        event["ets"] = now
    waiting.sent(bench.platform.emit_all(events, timestamp=now), timestamp=now)
