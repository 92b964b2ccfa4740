"""`settle`: what the run leaves behind is released, and the run's summary is drawn from the ledger."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from datetime import UTC

from ownership.contracts import Slice, Summary
from ownership.ledger import FAILED, RECEIVED
from ownership.open_list import Held
from ownership.parts import Parts, now_ms
from ownership.stages.lookup import WAITS
from ownership.stages.working import batches_of

FIRST_DELAY_MS = 10_000
LAST_DELAY_MS = 900_000


def next_try_ms(attempts: int) -> int:
    """Delay (ms) before a failed event is tried again by another run: doubling, with jitter."""
    delay = min(LAST_DELAY_MS, FIRST_DELAY_MS * 2 ** min(max(attempts - 1, 0), 10))
    return int(delay * random.uniform(0.75, 1.25))


def settle(parts: Parts, slices: Sequence[Slice], waits: dict[str, str]) -> tuple[Summary, list[float]]:
    """Release the events that this run still holds; count how its events ended.

    An event that is open without a recorded reason was in a stage that died: it failed. One that
    only waits for an earlier event of its lane may be claimed at once. Returns the summary and,
    for each completed event, the time (ms) from its message to its proof.
    """
    held = [h for s in slices for h in s.held]
    mine = {h.mid for h in parts.open_list.held(held)}
    rows = parts.ledger.read([h.mid for h in held])
    events: Counter[str] = Counter()
    batches: Counter[str] = Counter()
    failures: dict[str, str] = {}
    ended: list[Held] = []
    waiting: list[Held] = []
    failed: list[Held] = []
    lags: list[float] = []
    for h in held:
        row = rows.get(h.mid)
        if row is None:
            continue  # older than the ledger's retention
        if row.final:
            ended.append(h)
            events[row.state] += 1
            batches.update(batches_of([row.counts]))
            if row.completed_at:
                lags.append(row.completed_at.replace(tzinfo=UTC).timestamp() * 1000 - row.kafka_ms)
        elif h.mid not in mine:
            events["taken_over"] += 1
        elif row.state == RECEIVED and (row.reason or "").startswith(WAITS):
            events["waiting"] += 1
            waiting.append(h)
        else:
            events[FAILED] += 1
            failures[h.mid] = row.reason or "its stage ended without a result: see the task's log"
            failed.append(h)
    unsaid = [h for h in failed if rows[h.mid].state != FAILED]
    parts.ledger.fail([(h, failures[h.mid], rows[h.mid].attempts + 1) for h in unsaid])
    # Their rows are gone, unless a stage died between the event's last state and its open row.
    parts.open_list.remove([h for h in ended if h.mid in mine])
    parts.open_list.release(waiting, next_try_ms=0)
    now = now_ms()
    by_attempts: dict[int, list[Held]] = {}
    for h in failed:
        by_attempts.setdefault(rows[h.mid].attempts, []).append(h)
    for attempts, some in by_attempts.items():
        parts.open_list.release(some, next_try_ms=now + next_try_ms(attempts))
    summary = Summary(
        events=dict(events),
        batches=dict(batches),
        failures=dict(list(failures.items())[:50]),
        waits=waits,
    )
    return summary, lags
