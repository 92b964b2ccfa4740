from __future__ import annotations

import json
from typing import Any

import pytest

from ownership.domain.decoding import MAX_EVENT_BYTES
from ownership.domain.errors import Poison
from ownership.domain.event import manual_event, parse_event
from ownership.domain.options import Request


def envelope(**edata: Any) -> dict[str, Any]:
    return manual_event(mid="m", ets=1, from_user="a", to_user="b", organisation_id="O", **edata)


@pytest.mark.parametrize("text", ["plain", "ünï क 🙂", "half \ud83d a pair", "\x00"])
def test_the_payload_of_an_event_given_by_hand_is_its_json_and_reads_like_a_message(text: str) -> None:
    given = envelope(context=text)
    request = Request.of(given)
    assert json.loads(request.payload) == given
    assert parse_event(request.payload) == request.event


def test_an_event_given_by_hand_is_no_larger_than_one_from_the_topic() -> None:
    fits = MAX_EVENT_BYTES - len(Request.of(envelope(context="")).payload)
    # As long as in the message, whatever the script.
    assert len(Request.of(envelope(context="क" * (fits // 3))).payload) > MAX_EVENT_BYTES - 3
    with pytest.raises(Poison, match="bytes, at most"):
        Request.of(envelope(context="a" * (fits + 1)))
