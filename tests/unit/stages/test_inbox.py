"""What the inbox makes of messages, without servers."""

from __future__ import annotations

from pydantic import TypeAdapter

from ownership.domain.event import LedgerId, OrderKey, Transfer
from ownership.ledger.arrivals import Arrival, Origin
from ownership.stages.inbox import _clash


def test_the_longest_mid_given_by_hand_a_second_time_has_a_rejection_whose_name_a_conf_takes() -> None:
    mid = "m" * 300
    at_ms = 1_767_225_601_000
    transfer = Transfer(OrderKey(at_ms, -1, 999, mid), "a", "b")
    _, rejection = _clash(Arrival(transfer, Origin("manual", "", -1, 999, at_ms), b"{}", "org"))
    assert rejection.mid.startswith("rejected:manual:1767225601000:999:mmm")
    assert TypeAdapter(LedgerId).validate_python(rejection.mid) == rejection.mid
    assert rejection.message_mid == mid
