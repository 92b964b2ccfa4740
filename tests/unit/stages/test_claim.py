"""A claim on events: what another run took over is reported until it is left out."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from ownership.domain.clock import now_ms
from ownership.domain.event import OrderKey, Transfer
from ownership.domain.queue import ClaimedEvent
from ownership.ledger.queue import Held
from ownership.stages.claim import Claim

LEASE_S = 60
EVENTS = [ClaimedEvent(Transfer(OrderKey(1, 0, n, f"m{n}"), f"a{n}", f"b{n}"), 7) for n in range(2)]


class Queue:
    """A queue from which another run took events over."""

    def __init__(self, *taken: str, lease_s: int = LEASE_S) -> None:
        self.taken = frozenset(taken)
        self.lease_ends_ms = now_ms() + lease_s * 1000
        self.renewed = 0

    def held(self, claimed: list[ClaimedEvent]) -> Held:
        lost = self.taken & {e.mid for e in claimed}
        return Held(lost, self.lease_ends_ms if len(lost) < len(claimed) else 0)

    def renew(self, claimed: list[ClaimedEvent], **_: Any) -> None:
        assert claimed
        self.renewed += 1


def claim_on(queue: Queue) -> Claim:
    parts: Any = SimpleNamespace(queue=queue, settings=SimpleNamespace(claim_seconds=LEASE_S))
    return Claim(parts, EVENTS, "run")


def test_what_a_look_in_between_finds_lost_is_reported_to_the_next_fence_until_it_is_left_out() -> None:
    claim = claim_on(Queue("m0"))
    claim.keep_alive()
    assert claim.check() == {"m0"}
    claim.restrict_to({"m1"})
    assert claim.check() == frozenset()
    assert claim.events == EVENTS[1:]


def test_a_lease_is_renewed_when_a_third_of_it_is_over_while_something_is_held() -> None:
    for queue, renewed in (
        (Queue(lease_s=LEASE_S * 2 // 3 + 5), 0),
        (Queue(lease_s=LEASE_S * 2 // 3 - 5), 1),
        (Queue("m0", lease_s=LEASE_S * 2 // 3 - 5), 1),
        (Queue("m0", "m1"), 0),
    ):
        claim_on(queue).check()
        assert queue.renewed == renewed
