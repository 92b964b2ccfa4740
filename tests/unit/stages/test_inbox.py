"""What the inbox makes of messages, without servers."""

from __future__ import annotations

import json
from typing import Any

from pydantic import TypeAdapter

from ownership.domain.event import LedgerId, OrderKey, Transfer, manual_event
from ownership.domain.options import Request
from ownership.ledger.arrivals import Arrival, Origin
from ownership.platform.kafka import Message
from ownership.stages.inbox import MESSAGES_AT_ONCE, Accepted, _clash
from tests.fuzz.stored import Binding, Broker, inbox

CLOCK = 1_767_225_601_000
MINUTE_MS = 60_000


def taken(*messages: Message, **settings: Any) -> tuple[Accepted, list[dict[str, Any]]]:
    """What became of messages, and the rows of the events, by an acceptor whose clock shows `CLOCK`."""
    ledger = Binding()
    done = inbox(ledger, Broker(), clock=lambda: CLOCK, **settings).accept(messages)
    return done, ledger.of("event")


def message(offset: int = 0, *, at_ms: int = CLOCK, ets: Any = CLOCK, **edata: Any) -> Message:
    event = manual_event(mid=f"m{offset}", ets=ets, from_user="A", to_user="B", organisation_id="O", **edata)
    return Message("in", 0, offset, at_ms, json.dumps(event).encode())


def test_an_event_that_was_sent_ahead_of_the_clock_counts_as_accepted_now_and_is_noted() -> None:
    ahead = CLOCK + 50 * MINUTE_MS
    done, (first, second) = taken(message(0, at_ms=ahead, ets=ahead), message(1, ets=CLOCK - 200))
    assert (first["order_ms"], first["kafka_ms"], first["ets"]) == (CLOCK - 200, CLOCK, ahead)
    assert (second["order_ms"], second["kafka_ms"]) == (CLOCK - 200, CLOCK)
    assert done.notes == {
        "m0": "was sent by a clock that is 3000 s ahead; it counts as sent at its acceptance"
    }
    done, (row,) = taken(message(at_ms=CLOCK + 900, ets=CLOCK + 800))
    assert (row["order_ms"], row["kafka_ms"], done.notes) == (CLOCK, CLOCK, {})


def test_an_event_that_is_ahead_is_not_parted_from_the_next_one_of_its_partition() -> None:
    ahead = CLOCK + 50 * MINUTE_MS
    before = [message(n, ets=CLOCK - 9000) for n in range(MESSAGES_AT_ONCE - 1)]
    last, after = MESSAGES_AT_ONCE - 1, MESSAGES_AT_ONCE
    _, rows = taken(*before, message(last, at_ms=ahead, ets=ahead), message(after, ets=CLOCK - 5000))
    order = {row["mid"]: row["order_ms"] for row in rows}
    assert (order[f"m{last}"], order[f"m{after}"]) == (CLOCK - 5000, CLOCK - 5000)


def test_events_by_hand_keep_the_order_in_which_they_were_asked_for_however_late_their_runs_start() -> None:
    """As the runs of a DAG that was paused, which start at once and in any order."""
    ledger = Binding()
    accepting = inbox(ledger, Broker(), clock=lambda: CLOCK)
    for minutes in (59, 60):
        run_ms = CLOCK - minutes * MINUTE_MS
        event = manual_event(mid=f"m{minutes}", ets=run_ms, from_user="A", to_user="B", organisation_id="O")
        accepting.accept_manual([Request.of(event)], run_id=f"r{minutes}", at_ms=run_ms)
    assert [row["mid"] for row in sorted(ledger.of("event"), key=lambda row: row["order_ms"])] == [
        "m60",
        "m59",
    ]


def test_an_event_keeps_the_asset_that_it_names_only_where_the_setting_says_so() -> None:
    batch = {"objectType": "Course Batch", "identifier": "b1"}
    assert taken(message(assetInformation=batch))[1][0]["options"] is None
    _, (row,) = taken(message(assetInformation=batch), **{"transfer.scope": "asset"})
    assert row["options"] == {"asset": {"kind": "Course Batch", "batch_id": "b1"}}
    _, (row,) = taken(message(assetInformation={}), **{"transfer.scope": "asset"})
    assert row["options"] is None
    done, rows = taken(message(assetInformation=[]), **{"transfer.scope": "asset"})
    assert rows == []
    assert "edata.assetInformation: must be an object" in done.rejected[0][1]


def test_a_mid_that_was_there_before_is_rejected_under_the_timestamp_that_every_read_finds() -> None:
    ahead = CLOCK + 50 * MINUTE_MS
    repeated = message(0, at_ms=ahead, context="another payload")._replace(offset=1)
    ledger = Binding()
    inbox(ledger, Broker(), clock=lambda: CLOCK).accept([message(0), repeated])
    (row,) = ledger.of("rejected_message")
    assert (row["mid"], row["kafka_ms"], row["body"]) == ("rejected:in:0:1", ahead, repeated.value)


def test_the_longest_mid_given_by_hand_a_second_time_has_a_rejection_whose_name_a_conf_takes() -> None:
    mid = "m" * 300
    at_ms = 1_767_225_601_000
    transfer = Transfer(OrderKey(at_ms, -1, 999, mid), "a", "b")
    arrival = Arrival(transfer, Origin("manual", "", -1, 999, at_ms), b"{}", "org")
    _, rejection = _clash(Message("", -1, 999, at_ms, b"{}"), arrival)
    assert rejection.mid.startswith("rejected:manual:1767225601000:999:mmm")
    assert TypeAdapter(LedgerId).validate_python(rejection.mid) == rejection.mid
    assert rejection.message_mid == mid
