"""The watcher: fires when there is work, and sends gauges. It never commits an offset."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import structlog
from airflow.triggers.base import BaseEventTrigger, TriggerEvent

from ownership.edge.versions import missing

if TYPE_CHECKING:
    from ownership.domain.queue import QueuedEvent
    from ownership.platform.kafka import Span
else:
    __getattr__ = missing

log = structlog.get_logger(__name__)

T = TypeVar("T")

POLL_SECONDS = 0.5
"""Seconds between two looks, unless a message comes."""
RETRY_SECONDS = 15.0
"""Pause after an error; without it the triggerer would restart the trigger once a second."""
QUEUE_EVERY = 1.0
"""Seconds between two looks at the queue."""
LOOK_SHARE = 10
"""The pause after a look is at least so many times as long as the look took: a long queue is read less often."""
MAX_LOOK_INTERVAL = 15.0
"""Upper bound of that pause, seconds: a look that took long because PostgreSQL did not answer says nothing about the
queue."""
GAUGE_EVERY = 15.0
PACE_SECONDS = 4.0
"""Shortest time between two signals while the runs at work have an instance for each core.

A run costs about two CPU seconds of Airflow, however few events it has. At 50 events a second, runs that began as soon
as the one before had pulled took that from each other: three at a time were slower than one with three times the
events. At 4 s the cores were busy for 59 % of that stream, at 5 s for 55 % (docs/performance.md).
"""


class QueueLook(NamedTuple):
    """What a look at the queue found."""

    number: int = 0
    """Not every look at the topic reads the queue again."""
    claimable: frozenset[tuple[str, int]] = frozenset()
    """Mid and fencing token of every event that a run could claim."""
    at_work: int = 0
    """Mapped instances of the runs that hold events and do not wait for a retry."""
    unclaimed: bool = False
    """True if no run has claimed some event yet: one may be collecting, and take what comes now, too."""
    queued: Sequence[QueuedEvent] = ()


class WorkInSight(NamedTuple):
    """What one look found: offsets by partition, and the queue."""

    committed: tuple[int, ...]
    high: tuple[int, ...]
    queue: QueueLook

    @property
    def backlog(self) -> int:
        """Messages that the ledger has not read."""
        return sum(self.high) - sum(self.committed)


class Announcer:
    """Decides which looks are worth a signal. Pure: the caller passes the time."""

    def __init__(self, resignal_seconds: float, slots: int) -> None:
        """`slots` of the executor.

        A run has instances for half of them at most. So while the runs at work have no more than the other half,
        there is room for another; beyond that it would wait for slots until its claims have expired, and take over
        from others what they wait for slots with. What is left is more work for the next.

        A quarter of the slots is an instance for each core, as `[core] parallelism` is meant to be set.
        """
        self._resignal = resignal_seconds
        self._cores = max(1, slots // 4)
        self._max_at_work = slots // 2
        self._high: tuple[int, ...] = ()
        self._queue: frozenset[tuple[str, int]] = frozenset()
        self._before: frozenset[tuple[str, int]] = frozenset()
        self._steady: frozenset[tuple[str, int]] = frozenset()
        self._queue_look = -1
        self._at = float("-inf")

    def worth_a_signal(self, seen: WorkInSight, now: float) -> bool:
        """True if there is work that no signal has announced, or that stands still since the last signal."""
        queue = seen.queue
        if queue.number != self._queue_look:
            self._steady = queue.claimable & self._before
            self._before, self._queue_look = queue.claimable, queue.number
        since = now - self._at
        stands_still = since >= self._resignal and (seen.backlog > 0 or bool(self._steady))
        if self._no_room(queue, since) or not (stands_still or self._is_new(seen)):
            return False
        if seen.backlog > 0:
            self._high = seen.high
        self._queue, self._at = self._steady, now
        return True

    def _no_room(self, queue: QueueLook, since: float) -> bool:
        """True while the runs at work fill the executor.

        Also within `PACE_SECONDS` of the last signal while they keep the cores busy, or one may still be collecting.
        """
        busy = queue.unclaimed or queue.at_work >= self._cores
        return queue.at_work > self._max_at_work or (busy and since < PACE_SECONDS)

    def _is_new(self, seen: WorkInSight) -> bool:
        """True if no signal has announced the backlog, or what can be claimed.

        A backlog is announced once until the run that it started has committed: what arrives meanwhile is read by that
        run. An event in the queue counts once it was claimable in two looks at the queue: in one, its own run may be
        just about to claim it. Others are announced when a run has taken those that were.
        """
        pulled = all(c >= h for c, h in zip(seen.committed, self._high, strict=False))
        new_in_queue = bool(self._steady) and not self._steady & self._queue
        return (seen.backlog > 0 and pulled) or new_in_queue


def next_look(began: float, ended: float) -> float:
    """When to look at the queue again after a look that began and ended then, all in seconds. Pure."""
    pause = min(LOOK_SHARE * (ended - began), MAX_LOOK_INTERVAL)
    return max(began + QUEUE_EVERY, ended + pause)


class BacklogTrigger(BaseEventTrigger):
    """Fires when the topic has messages that the ledger has not read, or the queue has an event that can be claimed.

    The payload is for people; a run reads Kafka and the ledger itself.
    """

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Class path and arguments (none: everything is a setting)."""
        return "ownership.edge.triggers.BacklogTrigger", {}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look, signal, sleep. After an error: log it, close everything, open it again."""
        while True:
            with ExitStack() as stack:
                try:
                    watch = await _in_thread(partial(_Watch, stack))
                    announcer = Announcer(watch.resignal_seconds, watch.slots)
                    while True:
                        seen = await _in_thread(watch.look)
                        if announcer.worth_a_signal(seen, time.monotonic()):
                            found = {"backlog": seen.backlog, "claimable": len(seen.queue.claimable)}
                            log.info("work to do", **found)
                            yield TriggerEvent(found)
                        await _in_thread(watch.measure)  # after the signal: it may have to read a message
                        await _in_thread(watch.wait)
                except Exception as e:  # noqa: BLE001  # the watcher must come back after any error
                    log.warning(
                        "watcher cannot look", error=f"{type(e).__name__}: {e}", again_in=RETRY_SECONDS
                    )
            await asyncio.sleep(RETRY_SECONDS)


async def _in_thread(call: Callable[[], T]) -> T:
    """The result of a call in a thread. If this is cancelled, the call ends first: its clients are closed then."""
    running = asyncio.ensure_future(asyncio.to_thread(call))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise


class _Watch:
    """Open clients of the watcher."""

    def __init__(self, stack: ExitStack) -> None:
        from ownership.edge.hooks import executor_slots, load_settings
        from ownership.edge.kafka_hook import KafkaHook
        from ownership.edge.ledger_hook import opened_database
        from ownership.ledger.arrivals import Arrivals
        from ownership.ledger.queue import Queue

        settings = load_settings()
        self._settings = settings
        self.resignal_seconds = float(settings.resignal_seconds)
        self.slots = executor_slots()
        kafka = KafkaHook(settings)
        self._topic = kafka.topic()
        stack.callback(self._topic.close)
        self._backlog = kafka.backlog_gauge(self._topic, stack)
        self._dead_letters = self._topic.beside(settings.failed_topic)
        database = stack.enter_context(opened_database(connections=1))
        self._database, self._arrivals, self._queue = database, Arrivals(database), Queue(database)
        self._looked = QueueLook()
        self._spans: list[Span] = []
        self._consumed: dict[int, int] = {}
        self._next_look = self._measured_at = float("-inf")
        self._warned = False

    def look(self) -> WorkInSight:
        """The ledger's offsets against watermarks, and the queue."""
        now = time.monotonic()
        if now >= self._next_look:
            self._consumed = {p: c.next_offset for p, c in self._arrivals.consumed(self._topic.name).items()}
            self._looked = self._look_at_queue()
            self._next_look = next_look(now, time.monotonic())
        self._backlog.serve()
        self._spans = spans = self._topic.backlog(self._consumed)
        return WorkInSight(tuple(s.start for s in spans), tuple(s.end for s in spans), self._looked)

    def wait(self) -> None:
        """Return after `POLL_SECONDS`, or when a message comes to a topic that was read to its end."""
        if any(s.start < s.end for s in self._spans):
            time.sleep(POLL_SECONDS)
        else:
            self._topic.await_message(self._spans, POLL_SECONDS)

    def measure(self) -> None:
        """Send the gauges, if `GAUGE_EVERY` seconds have passed since the last ones."""
        from ownership.domain.backlog import queue_facts
        from ownership.domain.clock import now_ms
        from ownership.domain.errors import OwnershipError
        from ownership.domain.installation import HostKind
        from ownership.edge import metrics
        from ownership.edge.connections import leads_to
        from ownership.edge.hosts import report

        if time.monotonic() - self._measured_at < GAUGE_EVERY:
            return
        self._measured_at = time.monotonic()
        report(self._database, HostKind.TRIGGERER, leads_to())
        backlog = self._backlog.measure(self._consumed)
        try:
            dead_letters = sum(s.end - s.start for s in self._dead_letters.since(0))
        except OwnershipError:  # a pull reports what is wrong with that topic; the watcher must go on
            dead_letters = None
        now = now_ms()
        metrics.backlog(backlog, dead_letters, now)
        if backlog.retention_unread and not self._warned:
            self._warned = True
            log.warning(
                "the topic's retention cannot be read, so its gauge stays 0: allow DescribeConfigs on it",
                why=backlog.retention_unread,
            )
        facts = queue_facts(self._looked.queued, now_ms=now, deadline_ms=self._settings.deadline_ms)
        metrics.queue(facts, now)

    def _look_at_queue(self) -> QueueLook:
        from ownership.domain.clock import now_ms
        from ownership.domain.queue import choose, instances_at_work

        queued = self._queue.read()
        now = now_ms()
        choice = choose(
            queued, run_id="", now_ms=now, judged_ms=now, grace_ms=self._settings.grace_ms,
            limit=self._settings.max_events,
        )  # fmt: skip
        return QueueLook(
            self._looked.number + 1,
            frozenset((e.mid, e.fencing_token) for e in choice.take),
            instances_at_work(
                queued,
                now_ms=now,
                lease_ms=self._settings.claim_seconds * 1000,
                max_mapped=self._settings.max_mapped,
                slices=self._settings.parallelism,
            ),
            any(not e.fencing_token for e in queued),
            queued,
        )
