"""What the inbox makes of messages, without servers."""

from __future__ import annotations

from pydantic import TypeAdapter

from ownership.events import LedgerId
from ownership.inbox import _clash
from ownership.ledger import Arrival, Origin


def test_the_longest_mid_given_by_hand_a_second_time_has_a_rejection_whose_name_a_conf_takes() -> None:
    mid = "m" * 300
    _, rejection = _clash(Arrival(mid, Origin("manual", "", -1, 999, 1_767_225_601_000), b"{}", None))
    assert rejection.mid.startswith("rejected:manual:1767225601000:999:mmm")
    assert TypeAdapter(LedgerId).validate_python(rejection.mid) == rejection.mid
    assert rejection.message_mid == mid
