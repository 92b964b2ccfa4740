"""Any message is an event that can be stored and handed on, or rejected with a reason that names what is wrong."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator

import pytest
from hypothesis import note
from pydantic import TypeAdapter

from ownership.domain.contracts import Slice
from ownership.domain.decoding import MAX_EVENT_BYTES, same_payload
from ownership.domain.event import (
    LedgerId,
    TransferEvent,
    follow_ups,
    legible,
    parse_event,
    unnamed_mid,
)
from ownership.domain.lanes import label, lanes
from ownership.domain.queue import ClaimedEvent
from ownership.ledger.arrivals import message_digest
from ownership.platform.kafka import Message
from ownership.stages import inbox as inbox_module
from ownership.stages.inbox import STORED_BYTES, Accepted
from tests.fuzz.effort import Random, count, fuzzed
from tests.fuzz.near_valid import PEOPLE, message, pick
from tests.fuzz.stored import Binding, Broker, inbox

FIELDS = (
    "eid", "ets", "mid", "edata", "edata.action", "edata.organisationId", "edata.fromUserProfile",
    "edata.fromUserProfile.userId", "edata.toUserProfile", "edata.toUserProfile.userId",
)  # fmt: skip
NOT_READ = (
    "the message is empty", "the message has ", "not UTF-8: ", "not JSON: ", "the JSON is nested too deeply",
    "the message is ", "the key ",
)  # fmt: skip
LEDGER_ID = TypeAdapter(LedgerId)


def kind_of(reason: str) -> str:
    """What a rejection says, without what differs from message to message."""
    for start in NOT_READ:
        if reason.startswith(start):
            return f"rejected: {start.rstrip(': ')}"
    return f"rejected: {re.split('; |: ', reason)[0]}"


def check_reason(reason: str) -> None:
    """It names what is wrong, on one line of bounded length, and repeats no value of the message."""
    assert reason.isprintable(), reason
    assert len(reason) <= 1500
    assert not any(detail in reason for detail in PEOPLE.values())
    if not reason.startswith(NOT_READ):
        assert {part.split(": ")[0] for part in reason.split("; ")} <= set(FIELDS), reason


def accepted(value: bytes, partition: int, offset: int, now: int) -> tuple[Accepted, Binding, Broker]:
    """What the inbox does with one message."""
    ledger, broker = Binding(), Broker()
    return inbox(ledger, broker).accept([Message("in", partition, offset, now, value)]), ledger, broker


@pytest.fixture(autouse=True, scope="module")
def no_log() -> Iterator[None]:
    """A hundred thousand warnings are of no use."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inbox_module.log, "warning", lambda *_, **__: None, raising=False)
        yield


@fuzzed()
def test_a_message_is_stored_as_an_event_or_rejected_with_its_reason_and_a_dead_letter(
    random: Random,
) -> None:
    value = message(random)
    note(repr(value))
    partition, offset = pick(random, (0, 1, 2**31 - 1)), pick(random, (0, 7, 2**63 - 2))

    now = int(time.time() * 1000)

    done, ledger, broker = accepted(value, partition, offset, now)

    assert len(done.received) + len(done.rejected) == 1
    assert done.known == []
    (place,) = ledger.of("consumed_offset")
    assert (place["kafka_partition"], place["last_offset"]) == (partition, offset)
    assert place["next_offset"] == offset + 1
    if done.rejected:
        ((mid, reason),) = done.rejected
        check_reason(reason)
        count("messages", kind_of(reason))
        (row,) = ledger.of("rejected_message")
        assert LEDGER_ID.validate_python(mid) == row["mid"] == f"rejected:in:{partition}:{offset}"
        assert (row["reason"], row["body"]) == (reason, value[:STORED_BYTES])
        ((letter, headers),) = broker.dead_letters
        assert letter == value
        assert dict(headers)["error_message"].decode() == reason[:1000]
        assert ledger.of("event") == ledger.of("queue") == ledger.of("payload") == []
        assert json.loads(row["next_conf"])["redrive"]["dead_letters"]["from_offset"] == 0
        assert (row["message_mid"], row["request_id"]) == legible(value)
        return
    count("messages", "accepted")
    event = parse_event(value, unnamed=unnamed_mid("in", partition, offset, message_digest(now, value)))
    (transfer,) = done.received
    assert (transfer.mid, transfer.from_user, transfer.to_user) == (event.mid, event.from_user, event.to_user)
    (row,) = ledger.of("event")
    assert (row["state"], row["verdict"], row["ets"]) == ("received", None, event.ets)
    assert {row["source_user"], row["target_user"]} == transfer.users
    assert [p["body"] for p in ledger.of("payload")] == [value]
    assert len(ledger.of("queue")) == 1
    assert broker.dead_letters == []
    assert ledger.of("rejected_message") == []
    assert same_payload(value, value)
    # As it crosses to the next task: JSON that PostgreSQL takes, and the same again behind it.
    (lane,) = lanes([transfer])
    work = Slice(label=label(lane), run_id="r", events=(ClaimedEvent(transfer, 1),))
    crossing = json.dumps(work.model_dump(mode="json"), allow_nan=False)
    assert "\\u0000" not in crossing
    crossing.encode("utf-8")
    assert Slice.model_validate(json.loads(crossing)) == work
    # Its follow-ups' mids are names of the ledger, too, and its payload can be read again from there.
    assert [LEDGER_ID.validate_python(mid) for mid in follow_ups(event.mid)]
    assert isinstance(event, TransferEvent)
    assert len(value) <= MAX_EVENT_BYTES
