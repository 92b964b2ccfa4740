"""One rejected message."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ownership.domain.states import EventState
from ownership.ledger.events import RejectedMessage
from ownership.page import payload
from ownership.page.actions import TRANSFER_DAG
from ownership.page.views.details import Fact, missing, source
from ownership.page.views.formats import STATE_NAMES, moment
from ownership.page.views.timeline import ProgressBar, Step


class MessageView(NamedTuple):
    """A rejected message."""

    mid: str
    sentence: str
    facts: Sequence[Fact]
    steps: Sequence[Step]
    event_text: str | None
    event_missing: str
    conf: str | None
    conf_dag: str = TRANSFER_DAG
    state: EventState = EventState.REJECTED
    final: bool = True
    bar: ProgressBar | None = None


def message_view(message: RejectedMessage) -> MessageView:
    """Everything about a rejected message."""
    announced = moment(message.kafka_ms)
    return MessageView(
        mid=message.mid,
        sentence="This message is no transfer event; a copy is on the dead-letter topic.",
        facts=[
            Fact("Announced", f"{announced.text} UTC" if announced else "–"),
            Fact("Source", source(message.origin, message.topic, message.partition, message.offset)),
            Fact("Mid in the message", message.message_mid or "–"),
        ],
        steps=[
            Step("announced", announced, "done"),
            Step(STATE_NAMES[EventState.REJECTED], moment(message.received_at), "bad", message.reason),
        ],
        event_text=payload.shown(message.body),
        event_missing=missing(message.body),
        conf=message.next_conf,
    )
