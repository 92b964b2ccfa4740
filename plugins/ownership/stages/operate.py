"""What an operator orders beside transfers: abandon open events, redrive ended ones."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence

import structlog

from ownership.conf import Abandon
from ownership.errors import Poison, Unavailable
from ownership.events import TransferEvent, event_from
from ownership.ledger import SKIPPED, EventRow
from ownership.open_list import OpenRow, choose
from ownership.parts import Parts, now_ms

log = structlog.get_logger(__name__)

_ROUNDS = 20


def abandon(parts: Parts, order: Abandon, *, run_id: str) -> dict[str, str]:
    """End open events for good. Returns by mid what became of each, with the events that it frees.

    The event is taken over first, even from a live holder: its stage finds the claim lost before its next
    write. What it moved until then stays moved, and is in the audit trail.
    """
    told: dict[str, str] = {}
    for mid in order.mids:
        told[mid] = _abandon(parts, mid, f"abandoned: {order.reason}", run_id)
        log.warning("transfer abandoned", mid=mid, run_id=run_id, why=order.reason, outcome=told[mid])
    return told


def _abandon(parts: Parts, mid: str, reason: str, run_id: str) -> str:
    for _ in range(_ROUNDS):
        event = parts.ledger.read([mid]).get(mid)
        if event is None:
            return "is not in the ledger"
        if event.final:
            return f"is {event.state} already"
        version, rows = parts.open_list.read()
        row = next((r for r in rows if r.transfer.mid == mid), None)
        if row is None or row.done:
            return "is just being completed"
        now = now_ms()
        taken = parts.open_list.claim([row], version, run_id=run_id, until_ms=now + 60_000)
        if taken and parts.ledger.abandon(taken[0], reason):
            parts.open_list.remove(taken)
            freed = _blocked_by(row, rows)
            return f"was abandoned; it blocked {', '.join(freed)}" if freed else "was abandoned"
    raise Unavailable("open list", f"others keep changing it; event {mid} was not abandoned")


def _blocked_by(row: OpenRow, rows: Sequence[OpenRow]) -> list[str]:
    """Mids of the events that wait for `row` alone or first of all."""
    standing = [r._replace(done=True) if r is row else r for r in rows]
    now = now_ms()
    choice = choose(
        standing, run_id="", now_ms=now, judged_ms=now, grace_ms=0, most=len(rows), patient=False
    )  # fmt: skip
    return sorted(m for m, why in choice.waits.items() if why == f"waits for {row.transfer.mid}")


def redriven(
    parts: Parts, mids: Collection[str], *, run_id: str, at_ms: int
) -> tuple[list[tuple[TransferEvent, bytes]], dict[str, str]]:
    """New events for those of `mids` that were skipped; the failed ones this run tries anyhow.

    Returns the events with their payloads, and by mid what happens to each.
    """
    rows = parts.ledger.read(mids)
    events: list[tuple[TransferEvent, bytes]] = []
    told: dict[str, str] = {}
    for n, mid in enumerate(mids):
        row = rows.get(mid)
        if row is None:
            told[mid] = "is not in the ledger"
        elif not row.final:
            told[mid] = f"is {row.state}, and is tried by this run if nothing blocks it"
        elif row.state != SKIPPED:
            told[mid] = f"is {row.state} already; only failed and skipped events can be redriven"
        else:
            new = f"redrive:{run_id}:{n}"
            told[mid] = f"is tried again as {new}"
            events.append(_again(row, new, at_ms))
    return events, told


def _again(row: EventRow, mid: str, at_ms: int) -> tuple[TransferEvent, bytes]:
    try:
        envelope = {**json.loads(row.payload), "mid": mid, "ets": at_ms, "redrive_of": row.mid}
        return event_from(envelope), json.dumps(envelope, sort_keys=True).encode()
    except (ValueError, Poison) as e:  # it was read once: only a damaged ledger gets here
        raise Unavailable("ledger", f"the payload of event {row.mid} cannot be read: {e}") from None
