"""A random world: people, batches, messages in the order in which they are sent, and edits by the LMS meanwhile. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from random import Random
from typing import Any

from local.story import COMPLETED, REJECTED, SKIPPED, Message
from local.world import Batch, User, transfer_event

ORGANISATION = "org-chaos"
OTHER = "org-chaos-other"
LONGEST_CHAIN = 10


class Edit(StrEnum):
    """What the LMS does to a batch while it may be on the move; in the row first, then in the document."""

    NAME = "name"
    OWNER = "owner"
    COMPLETE = "complete"
    DELETE = "delete"


@dataclass(frozen=True)
class World:
    """Everything that a round begins with, and what happens in it."""

    tag: str
    users: Sequence[User]
    batches: Sequence[Batch]
    groups: Sequence[Sequence[Message]]
    """Messages, those of a group sent at once."""
    edits: Mapping[str, Edit]
    """By batch id."""

    @property
    def messages(self) -> list[Message]:
        """All messages in the order of their sending."""
        return [m for group in self.groups for m in group]

    @property
    def outsider(self) -> str:
        """Whom the LMS gives batches to: nobody in any transfer."""
        return f"lms-{self.tag}"


def random_world(seed: int, *, events: int | None = None) -> World:
    """The world of `seed`, always the same but for the times of its events; `events` if not 8 to 24."""
    rng = Random(seed)
    tag = f"c{seed}-{rng.randrange(16**6):06x}"
    people = [User(f"User-{n}-{tag}", ORGANISATION) for n in range(rng.randint(4, 9))]
    foreign = User(f"Foreign-{tag}", OTHER)
    batches = list(_batches(rng, tag, [*people, foreign]))
    messages = list(_messages(rng, tag, people, foreign, events or rng.randint(8, 24)))
    edited = rng.sample([b for b in batches if b.status < 2], k=min(4, len(batches) // 4))
    return World(
        tag,
        [*people, foreign],
        batches,
        list(_groups(rng, messages)),
        {b.batch_id: rng.choice(list(Edit)) for b in edited},
    )


def _batches(rng: Random, tag: str, people: Sequence[User]) -> Iterator[Batch]:
    courses = rng.randint(2, 8)
    for n in range(rng.randint(12, 60)):
        named = [u.user_id for u in rng.sample(people, k=rng.randint(0, 3))]
        if rng.random() < 0.2:
            named.insert(rng.randrange(len(named) + 1), f"mentor-{n}-{tag}")
        yield Batch(
            f"do_{tag}_{rng.randrange(courses)}",
            f"b{n}-{tag}",
            created_by=rng.choice(people).user_id,
            mentors=named or None,
            status=rng.choices((0, 1, 2), (3, 6, 1))[0],
        )


def _messages(rng: Random, tag: str, people: Sequence[User], foreign: User, count: int) -> Iterator[Message]:
    sent: list[Message] = []
    chain = rng.sample(people, k=min(len(people), rng.randint(2, LONGEST_CHAIN)))
    pairs = list(pairwise(chain))
    while len(pairs) < count:
        pairs.insert(rng.randrange(len(pairs) + 1), (rng.choice(people), rng.choice(people)))
    for n, (old, new) in enumerate(pairs):
        kind = rng.random()
        if kind < 0.05:
            message = Message("not an event", REJECTED, rng.choice(_NO_EVENTS))
        elif kind < 0.1 and sent:
            message = rng.choice(sent)  # sent twice: nothing more may come of it
        elif kind < 0.15:
            message = _transfer("to another organisation's", SKIPPED, old, foreign)
        elif kind < 0.18:
            message = _transfer("to nobody", SKIPPED, old, User(f"nobody-{n}-{tag}", ORGANISATION))
        else:
            message = _transfer("a transfer", SKIPPED if old == new else COMPLETED, old, new)
            if rng.random() < 0.3:
                message = _transfer("for many objects", message.expected, old, new)
        if message.expected != REJECTED:
            sent.append(message)
        yield message


def _transfer(what: str, expected: str, old: User, new: User) -> Message:
    return Message(what, expected, transfer_event(old, new, ORGANISATION), old.user_id, new.user_id)


_NO_EVENTS: Sequence[bytes] = (
    b"",
    b"not JSON",
    b'{"eid": "BE_JOB_REQUEST"}',
    b"\xff\xfe\x00",
    json.dumps({"edata": {"action": "something-else"}}).encode(),
    b"[" * 5000,
)


def _groups(rng: Random, messages: Sequence[Message]) -> Iterator[Sequence[Message]]:
    start = 0
    while start < len(messages):
        size = rng.choice((1, 2, 5, 20))
        yield messages[start : start + size]
        start += size


def event_of(message: Message) -> dict[str, Any]:
    """The event of a message that is one."""
    if not isinstance(message.value, Mapping):
        raise TypeError(f"{message.what} is no event")
    return dict(message.value)
