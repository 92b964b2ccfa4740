"""Where reading a partition goes on: the ledger's offset counts, the consumer group's only says where to go back to."""

from __future__ import annotations

from collections import deque
from types import SimpleNamespace
from typing import Any, cast

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from ownership.domain.errors import OwnershipError, Unavailable
from ownership.platform.kafka import STALL_SECONDS, Span, Topic, _message, position
from ownership.platform.kafka_errors import ClientErrors, admin_errors

NONE = -1001
"""What Kafka's client says of a group without an offset."""


@pytest.mark.parametrize(
    ("low", "high", "committed", "consumed", "start", "rest"),
    [
        # Without a row of the ledger: the first run of an installation, or one that follows the old job.
        pytest.param(0, 10, NONE, None, 0, {}, id="no row and no group: from the beginning"),
        pytest.param(4, 10, NONE, None, 4, {}, id="no row and no group: from the oldest that is there"),
        pytest.param(0, 10, 7, None, 7, {}, id="no row: where the old job ended"),
        pytest.param(0, 10, 10, None, 10, {}, id="no row: the old job read all"),
        pytest.param(4, 10, 4, None, 4, {}, id="no row: the old job ended at the oldest that is there"),
        pytest.param(4, 10, 1, None, 4, {"deleted": 3}, id="no row: what the old job did not read was deleted"),
        pytest.param(0, 10, 11, None, 0, {}, id="no row: the group is beyond the end"),
        pytest.param(0, 0, NONE, None, 0, {}, id="no row: an empty partition"),
        # With one: the ledger and the group say the same after each run.
        pytest.param(0, 10, 7, 7, 7, {}, id="equal"),
        pytest.param(0, 10, 10, 10, 10, {}, id="equal: all is read"),
        pytest.param(0, 10, 0, 0, 0, {}, id="equal: nothing is read"),
        pytest.param(0, 10, 3, 7, 3, {}, id="the group was set back: it is followed"),
        pytest.param(5, 10, 3, 7, 5, {}, id="the group was set back to what is deleted"),
        pytest.param(0, 10, 9, 7, 7, {"ignored": 9}, id="the group was set forward: it is not followed"),
        pytest.param(0, 10, 10, 7, 7, {"ignored": 10}, id="the group was set to the end: it is not followed"),
        pytest.param(0, 10, NONE, 7, 0, {}, id="the group's offset is lost: all is read again"),
        pytest.param(4, 10, NONE, 7, 4, {}, id="the group's offset is lost: what is there is read again"),
        pytest.param(0, 10, 11, 7, 0, {}, id="the group is beyond the end: all is read again"),
        pytest.param(9, 20, 7, 7, 9, {"deleted": 2}, id="messages were deleted before they were read"),
        pytest.param(9, 20, 3, 7, 9, {"deleted": 2}, id="deleted, and the group was set back"),
        pytest.param(9, 20, 12, 7, 9, {"deleted": 2, "ignored": 12}, id="deleted, and the group was set forward"),
        pytest.param(9, 20, NONE, 7, 9, {"deleted": 2}, id="deleted, and the group's offset is lost"),
        pytest.param(20, 20, 20, 7, 20, {"deleted": 13}, id="all was deleted, the group was set to it: followed"),
        # The ledger has read further than the topic goes.
        pytest.param(0, 3, 7, 7, 0, {"created_again": True}, id="created again: shorter than it was"),
        pytest.param(0, 3, NONE, 7, 0, {"created_again": True}, id="created again: without a group"),
        pytest.param(0, 3, 2, 7, 0, {"created_again": True}, id="created again: the group has read of the new one"),
        pytest.param(0, 0, 7, 7, 0, {"created_again": True}, id="created again: still empty"),
        pytest.param(0, 7, 7, 7, 7, {}, id="created again and as long as it was: only its last message tells"),
    ],
)  # fmt: skip
def test_reading_goes_on_where_the_ledger_ends(
    low: int, high: int, committed: int, consumed: int | None, start: int, rest: dict[str, Any]
) -> None:
    assert position(2, low, high, committed, consumed) == Span(2, start, high, **rest, oldest=low)


offsets = st.integers(0, 12)


@given(offsets, offsets, st.integers(-1, 15), st.none() | st.integers(0, 15))
def test_no_message_that_is_there_and_not_read_is_left_out(
    low: int, more: int, committed: int, consumed: int | None
) -> None:
    high = low + more
    span = position(0, low, high, committed, consumed)
    assert low <= span.start <= span.end == high
    if consumed is not None:
        assert span.start <= max(consumed, low)
        assert span.created_again == (consumed > high)
    if span.ignored is not None:
        assert span.ignored == committed
        assert span.start < committed


# --- what the client says


class FailingClient:
    """A client whose every call fails with this error."""

    def __init__(self, code: int) -> None:
        self.code = code

    def list_topics(self, *_: Any, **__: Any) -> Any:
        raise KafkaException(KafkaError(self.code))

    def assignment(self) -> list[Any]:
        return []

    def poll(self, _: float) -> None:
        """Nothing."""


def said(code: int, *heard: int) -> str:
    """What the job says of a failed call, of a client that has reported `heard` before."""
    errors: ClientErrors = deque(KafkaError(e) for e in heard)
    with pytest.raises(OwnershipError) as caught:
        Topic(cast("Consumer", FailingClient(code)), "in", errors).partitions()
    return str(caught.value)


@pytest.mark.parametrize(
    "code", [KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION, KafkaError.UNKNOWN_TOPIC_OR_PART]
)
def test_a_client_that_is_not_let_in_any_more_does_not_say_that_there_is_no_topic(code: int) -> None:
    assert "Kafka refuses access to 'in'" in said(
        code, KafkaError._ALL_BROKERS_DOWN, KafkaError._AUTHENTICATION
    )
    assert "Kafka refuses access to 'in'" in said(code, KafkaError.SASL_AUTHENTICATION_FAILED)
    assert "Kafka has no topic 'in'" in said(code)
    assert "Kafka has no topic 'in'" in said(code, KafkaError._TRANSPORT)


@pytest.mark.parametrize("code", [KafkaError._TRANSPORT, KafkaError._TIMED_OUT])
def test_a_client_that_gives_up_says_what_it_met(code: int) -> None:
    assert "Kafka refuses access to 'in'" in said(code, KafkaError._TRANSPORT, KafkaError._AUTHENTICATION)
    for heard in (KafkaError._SSL, KafkaError._RESOLVE):
        met = f"{KafkaError(heard).str()}; is 'bootstrap.servers' of Connection 'kafka_default' right?"
        assert met in said(code, heard, KafkaError._ALL_BROKERS_DOWN)


class PartlyFailingClient(FailingClient):
    """A client whose broker answers, but not for the partition that it is asked about."""

    def list_topics(self, *_: Any, **__: Any) -> Any:
        return SimpleNamespace(topics={"in": SimpleNamespace(error=None, partitions={0: None})})

    def get_watermark_offsets(self, *_: Any, **__: Any) -> tuple[int, int]:
        return 0, 5

    def committed(self, *_: Any, **__: Any) -> list[Any]:
        return [SimpleNamespace(partition=0, offset=NONE, error=KafkaError(self.code))]

    offsets_for_times = committed


@pytest.mark.parametrize("code", [KafkaError._TIMED_OUT, KafkaError._TRANSPORT, None])
def test_an_admin_client_that_gives_up_says_what_to_look_at(code: int | None) -> None:
    """Its own time-out and ours are the same: either may end first."""
    error = TimeoutError() if code is None else KafkaException(KafkaError(code))
    with pytest.raises(Unavailable, match="Connection 'kafka_default' right"), admin_errors():
        raise error


def test_a_partition_that_the_broker_does_not_answer_for_is_none_without_offset_or_messages() -> None:
    """Taken for one, it would be read from its beginning, or not at all."""
    topic = Topic(cast("Consumer", PartlyFailingClient(KafkaError.NOT_LEADER_FOR_PARTITION)), "in")
    for ask in (lambda: topic.backlog({}), lambda: topic.since(0)):
        with pytest.raises(Unavailable, match="Kafka"):
            ask()


def test_a_message_without_a_timestamp_is_the_same_at_every_read() -> None:
    """By its digest the job knows it again, and a topic that was created anew."""
    raw = SimpleNamespace(
        topic=lambda: "in", partition=lambda: 0, offset=lambda: 7, timestamp=lambda: (0, -1), value=lambda: None,
        headers=lambda: None,
    )  # fmt: skip
    assert _message(raw) == ("in", 0, 7, -1, b"", {})


@pytest.mark.parametrize(
    "error",
    [SystemError("returned a result with an exception set"), UnicodeDecodeError("utf-8", b"\xff", 0, 1, "")],
)
def test_a_header_whose_name_is_no_text_does_not_keep_its_message_from_being_read(error: Exception) -> None:
    """A name may be any bytes; the client fails when it is asked for the headers, each time."""

    def headers() -> Any:
        raise error

    raw = SimpleNamespace(
        topic=lambda: "in", partition=lambda: 0, offset=lambda: 7, timestamp=lambda: (1, 5), value=lambda: b"v",
        headers=headers,
    )  # fmt: skip
    assert _message(raw) == ("in", 0, 7, 5, b"v", {})


# --- how long a read may take


class Client:
    """A client that gives some messages, two at a time, then waits for more in vain."""

    def __init__(self, messages: int, clock: list[float]) -> None:
        self.end = messages
        self.next = 0
        self.clock = clock

    def assignment(self) -> list[Any]:
        return [self]

    def assign(self, places: list[TopicPartition]) -> None:
        self.next = places[0].offset

    def unassign(self) -> None:
        """Nothing."""

    def consume(self, count: int, timeout: float) -> list[Any]:
        first, self.next = self.next, min(self.next + min(count, 2), self.end)
        if first == self.next:
            self.clock[0] += timeout
        return [
            SimpleNamespace(
                topic=lambda: "in", partition=lambda: 0, offset=lambda n=n: n, timestamp=lambda: (1, 5),
                value=lambda: b"v", headers=lambda: None, error=lambda: None,
            )
            for n in range(first, self.next)
        ]  # fmt: skip

    def position(self, _: Any) -> list[TopicPartition]:
        return [TopicPartition("in", 0, self.next)]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, in seconds: it passes when somebody moves it."""
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


def test_a_caller_that_takes_long_over_messages_is_no_broker_that_stopped(clock: list[float]) -> None:
    topic = Topic(cast("Consumer", Client(5, clock)), "in")
    found = []
    for message in topic.read([Span(0, 0, 5)]):
        clock[0] += 2 * STALL_SECONDS  # as when PostgreSQL fails over
        found.append(message.offset)
    assert found == [0, 1, 2, 3, 4]


def test_a_broker_that_stops_below_the_end_is_an_outage(clock: list[float]) -> None:
    topic = Topic(cast("Consumer", Client(3, clock)), "in")
    with pytest.raises(Unavailable, match="stops at offset 3 of partition 0"):
        list(topic.read([Span(0, 0, 5)]))
    assert STALL_SECONDS <= clock[0] <= STALL_SECONDS + 1
