"""Random worlds: users, batches, messages in the order of sending, and concurrent edits by the LMS. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise
from random import Random
from typing import Any

from local.demo.story import COMPLETED, REJECTED, SKIPPED, Message
from local.platform.world import Batch, User, transfer_event

ORGANISATION = "org-chaos"
OTHER = "org-chaos-other"
MAX_CHAIN = 10
MAX_EDITS = 6
MEETING_SHARE = 0.75
"""Share of a round's edits that meet a statement of the job."""
BAD_SHARE = 0.05
DUPLICATE_SHARE = 0.1
"""Shares of a load's messages."""


class Edit(StrEnum):
    """An edit of a batch by the LMS, concurrent with transfers: first of the row, then of the document."""

    NAME = "name"
    OWNER = "owner"
    MENTORS = "mentors"
    COMPLETE = "complete"
    DELETE = "delete"


@dataclass(frozen=True)
class World:
    """Initial state, messages and edits of a round."""

    tag: str
    users: Sequence[User]
    batches: Sequence[Batch]
    groups: Sequence[Sequence[Message]]
    """Messages; those of a group are sent together."""
    edits: Mapping[str, Edit]
    """By batch id."""
    meetings: Mapping[str, int] = field(default_factory=dict)
    """By batch id: the edit comes directly before the n-th statement by which the job reads or writes the row; of the
    other batches at a random time."""

    @property
    def messages(self) -> list[Message]:
        """All messages in the order of their sending."""
        return [m for group in self.groups for m in group]

    @property
    def outsider(self) -> str:
        """The user whom the LMS makes creator or mentor; not in any transfer."""
        return f"lms-{self.tag}"


def random_world(seed: int, *, events: int | None = None) -> World:
    """The world of `seed`, always the same except for the times of its events; `events` messages, by default 8 to 24."""
    rng = Random(seed)
    tag = f"c{seed}-{rng.randrange(16**6):06x}"
    people = [User(f"User-{n}-{tag}", ORGANISATION) for n in range(rng.randint(4, 9))]
    foreign, gone = User(f"Foreign-{tag}", OTHER), User(f"Gone-{tag}", ORGANISATION, deleted=True)
    batches = list(_batches(rng, tag, [*people, foreign, gone]))
    messages = list(_messages(rng, tag, [*people, gone], foreign, batches, events or rng.randint(8, 24)))
    edited = rng.sample([b for b in batches if b.status < 2], k=min(MAX_EDITS, len(batches) // 4))
    return World(
        tag,
        [*people, foreign, gone],
        batches,
        list(_groups(rng, messages)),
        {b.batch_id: rng.choice(list(Edit)) for b in edited},
        {b.batch_id: rng.randint(1, 4) for b in edited if rng.random() < MEETING_SHARE},
    )


def load_world(seed: int, count: int) -> World:
    """`count` messages: chains of up to 10 transfers, interleaved; 5 % are invalid, 10 % are sent twice.

    Every message is its own group, because the times of the events are set when they are sent.
    """
    rng = Random(seed)
    tag = f"l{seed}-{rng.randrange(16**6):06x}"
    people: list[User] = []
    batches: list[Batch] = []
    chains: list[list[Message]] = []
    transfers = round(count * (1 - BAD_SHARE - DUPLICATE_SHARE))
    while sum(map(len, chains)) < transfers:
        chain = [User(f"User-{len(people) + n}-{tag}", ORGANISATION) for n in range(rng.randint(2, 11))]
        people += chain
        batches += _held(rng, tag, chain, len(batches))
        chains.append([_transfer("a transfer", COMPLETED, old, new) for old, new in pairwise(chain)])
    sent = _mixed(rng, chains)[:transfers]
    for n in range(round(count * BAD_SHARE)):
        bad = (
            Message("not an event", REJECTED, rng.choice(_NO_EVENTS))
            if n % 5
            else _transfer("to nobody", SKIPPED, rng.choice(people), User(f"nobody-{n}-{tag}", ORGANISATION))
        )
        sent.insert(rng.randrange(len(sent) + 1), bad)
    for _ in range(round(count * DUPLICATE_SHARE)):
        at = rng.randrange(len(sent))
        sent.insert(rng.randint(at + 1, len(sent)), sent[at])
    return World(tag, people, batches, [[m] for m in sent], {})


def _held(rng: Random, tag: str, chain: Sequence[User], first: int) -> Iterator[Batch]:
    """One to three batches of each user of the chain, with up to two of the chain's users as mentors."""
    course = f"do_{tag}_{first}"
    for user in chain:
        for _ in range(rng.randint(1, 3)):
            mentors = [u.user_id for u in rng.sample(chain, k=min(rng.randint(0, 2), len(chain)))]
            yield Batch(course, f"b{first}-{tag}", created_by=user.user_id, mentors=mentors or None)
            first += 1


def _mixed(rng: Random, chains: Sequence[Sequence[Message]]) -> list[Message]:
    """The messages of all chains, interleaved; each chain keeps its order."""
    turns = [n for n, chain in enumerate(chains) for _ in chain]
    rng.shuffle(turns)
    todo = [iter(chain) for chain in chains]
    return [next(todo[n]) for n in turns]


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
            created_for=rng.choice(((), (ORGANISATION,), (OTHER,), (OTHER, ORGANISATION))),
            status=rng.choices((0, 1, 2), (3, 6, 1))[0],
        )


def _messages(
    rng: Random, tag: str, people: Sequence[User], foreign: User, batches: Sequence[Batch], count: int
) -> Iterator[Message]:
    sent: list[Message] = []
    chain = rng.sample(people, k=min(len(people), rng.randint(2, MAX_CHAIN)))
    pairs = list(pairwise(chain))
    while len(pairs) < count:
        pairs.insert(rng.randrange(len(pairs) + 1), (rng.choice(people), rng.choice(people)))
    for n, (old, new) in enumerate(pairs):
        kind = rng.random()
        if kind < 0.05:
            message = Message("not an event", REJECTED, rng.choice(_NO_EVENTS))
        elif kind < 0.1 and sent:
            message = rng.choice(sent)  # a duplicate, which must have no effect
        elif kind < 0.15:
            message = _transfer("to another organisation's", SKIPPED, old, foreign)
        elif kind < 0.18:
            message = _transfer("to nobody", SKIPPED, old, User(f"nobody-{n}-{tag}", ORGANISATION))
        else:
            end = SKIPPED if old == new or new.deleted else COMPLETED
            message = _transfer("a transfer", end, old, new)
            about = rng.random()
            if about < 0.3:
                asset = {"objectType": "Course Batch", "identifier": rng.choice(batches).batch_id}
                message = _transfer("of one batch", end, old, new, asset=asset)
            elif about < 0.35:
                asset = {"objectType": "Content", "identifier": "do_1"}
                message = _transfer("of another kind of asset", SKIPPED, old, new, asset=asset)
        if message.expected != REJECTED:
            sent.append(message)
        yield message


def _transfer(what: str, expected: str, old: User, new: User, **event: Any) -> Message:
    return Message(what, expected, transfer_event(old, new, ORGANISATION, **event), old.user_id, new.user_id)


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
    """The event of a message. Raises TypeError when the message is not an event."""
    if not isinstance(message.value, Mapping):
        raise TypeError(f"{message.what} is no event")
    return dict(message.value)
