"""The demo's messages, and the owners that every batch must have afterwards.

The expectation is a plain replay of the valid transfers, one after the other, over the sample's batches. It shares
no code with the job.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from local.demo.sample import SampleWorld
from local.platform.stores import Owners
from local.platform.world import LIVE, Batch, Offset, User, transfer_event

COMPLETED: Final = "completed"
SKIPPED: Final = "skipped"
REJECTED: Final = "rejected"
FINAL: Final = (COMPLETED, SKIPPED, REJECTED, "abandoned")

OBJECTS: Final = 20
"""Objects of one request; the platform sends an event for each."""


@dataclass(frozen=True)
class Message:
    """One message of the story. `value` is an event, or bytes that are not an event (None: a null value)."""

    what: str
    expected: str
    value: Mapping[str, Any] | bytes | None
    from_user: str = ""
    to_user: str = ""

    def mid(self, place: Offset) -> str:
        """The ledger's key of this message at offset `place`: its mid, or its offset if it is rejected."""
        if self.expected == REJECTED or not isinstance(self.value, Mapping):
            return f"rejected:{place.topic}:{place.partition}:{place.offset}"
        return str(self.value["mid"])


def story(world: SampleWorld) -> list[Message]:
    """Valid and invalid messages, mixed, in the order of sending."""
    messages = list(_good(world))
    for number, message in enumerate(_bad(world)):
        messages.insert(3 * number + 2, message)
    return messages


def _good(world: SampleWorld) -> Iterator[Message]:
    first, second, third = world.chain
    # Before the valid one of the same two users: it must move nothing and must not block the next one.
    yield _transfer(
        "asked by another organisation",
        world.owner,
        world.owner_successor,
        world.other_organisation,
        SKIPPED,
    )
    one = _transfer("owner of 45 batches", world.owner, world.owner_successor, world.organisation)
    yield one
    yield _transfer("mentor of 8 batches", world.mentor, world.mentor_successor, world.organisation)
    yield _transfer("chain, A → B", first, second, world.organisation)
    yield _transfer("chain, B → C", second, third, world.organisation)
    request = str(uuid.uuid4())
    for number in range(1, OBJECTS + 1):
        yield _transfer(
            f"object {number} of one request",
            world.administrator,
            world.mentor_successor,
            world.organisation,
            request_id=request,
            asset={"objectType": "Content", "identifier": f"do_sample_object_{number}"},
        )
    yield replace(one, what=f"{one.what}, sent twice")


def _bad(world: SampleWorld) -> Iterator[Message]:
    unknown = User(world.unknown_user, world.other_organisation)
    yield _transfer("unknown user", world.outsider, unknown, world.other_organisation, SKIPPED)
    yield _transfer("from = to", world.outsider, world.outsider, world.other_organisation, SKIPPED)
    yield Message("not JSON", REJECTED, b"ownership of a54a0001 goes to fa410001, please")
    yield Message("wrong shape", REJECTED, json.dumps([{"from": "a54a0001", "to": "fa410001"}]).encode())
    null_user = transfer_event(
        world.owner, world.owner_successor, world.organisation, edata={"toUserProfile": {"userId": None}}
    )
    yield Message("null user", REJECTED, null_user, world.owner.user_id)
    yield Message("empty", REJECTED, None)


def _transfer(
    what: str, source: User, target: User, organisation: str, expected: str = COMPLETED, **event: Any
) -> Message:
    value = transfer_event(source, target, organisation, **event)
    return Message(what, expected, value, source.user_id, target.user_id)


def expected_owners(batches: Iterable[Batch], messages: Sequence[Message]) -> dict[str, Owners]:
    """Owners by batch id after the valid transfers of `messages`, one after the other."""
    final: dict[str, Owners] = {}
    for batch in batches:
        owners = begun = Owners(batch.created_by, tuple(batch.mentors or ()))
        for message in messages:
            if message.expected == COMPLETED:
                owners = _passed_on(owners, message.from_user, message.to_user)
        final[batch.batch_id] = owners if batch.status in LIVE else begun
    return final


def _passed_on(owners: Owners, source: str, target: str) -> Owners:
    created_by = target if owners.created_by == source else owners.created_by
    if source not in owners.mentors:
        return Owners(created_by, owners.mentors)
    # The order is kept, and no user is named twice.
    named = dict.fromkeys(target if mentor == source else mentor for mentor in owners.mentors)
    return Owners(created_by, tuple(named))
