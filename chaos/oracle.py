"""The expected result of a world, by a plain replay of its events that shares no code with the job. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from chaos.worlds import Edit, World, event_of
from local.demo.story import COMPLETED, REJECTED, Message
from local.platform.stores import Owners
from local.platform.world import LIVE, Batch


@dataclass(frozen=True)
class Expected:
    """The permitted final states of a batch, in both stores."""

    owners: Collection[Owners]
    """Permitted owners. A batch that the LMS completed during the round may have those after any of the events."""
    gone: bool = False


def expected(world: World) -> dict[str, Expected]:
    """The expected final state by batch id."""
    batches = {b.batch_id: b for b in world.batches}
    seen = {b.batch_id: [Owners(b.created_by, tuple(b.mentors or ()))] for b in world.batches}
    of_user: dict[str, set[str]] = defaultdict(set)
    for batch in world.batches:
        if batch.status in LIVE:
            for user in _named(seen[batch.batch_id][-1]):
                of_user[user].add(batch.batch_id)
    for move in _transfers(world):
        held = of_user[move.from_user.lower()]
        concerned = {i for i in held if _concerns(move, batches[i], world)}
        held -= concerned
        for batch_id in concerned:
            now = _moved(seen[batch_id][-1], move.from_user, move.to_user)
            seen[batch_id].append(now)
            for user in _named(now):
                of_user[user].add(batch_id)
    return {i: _expected(b, seen[i], world) for i, b in batches.items()}


def _concerns(move: Message, batch: Batch, world: World) -> bool:
    """False for a batch that the event does not name as its asset, or that is not for a deleted user's organisation."""
    edata = event_of(move)["edata"]
    asset = edata["assetInformation"]
    if asset and asset["identifier"] != batch.batch_id:
        return False
    deleted = any(u.deleted and u.user_id == move.from_user for u in world.users)
    return not deleted or not batch.created_for or edata["organisationId"] in batch.created_for


def _named(owners: Owners) -> set[str]:
    """The ids of all owners of a batch, in lower case."""
    return {u.lower() for u in (owners.created_by, *owners.mentors) if u}


def states(world: World) -> dict[str, str]:
    """The final state of every event, by mid."""
    return {str(event_of(m)["mid"]): m.expected for m in world.messages if m.expected != REJECTED}


def _transfers(world: World) -> list[Message]:
    valid = {
        str(event_of(m)["mid"]): m for m in world.messages if m.expected == COMPLETED
    }  # a message that was sent twice counts once
    return sorted(valid.values(), key=lambda m: event_of(m)["ets"])


def _expected(batch: Batch, seen: Sequence[Owners], world: World) -> Expected:
    """Permitted final owners; `seen` has the owners at first and after each transfer."""
    edit = world.edits.get(batch.batch_id)
    if edit is Edit.DELETE:
        return Expected((), gone=True)
    now = seen[-1]
    if edit is Edit.COMPLETE:
        return Expected(tuple(seen))
    if edit is Edit.OWNER:
        now = now._replace(created_by=world.outsider)
    if edit is Edit.MENTORS:
        now = now._replace(mentors=(world.outsider,))
    return Expected((now,))


def _moved(owners: Owners, old: str, new: str) -> Owners:
    """Owners after one transfer; ids are compared case-insensitively, and a mentor is not listed twice."""

    def successor(user: str) -> str:
        return new if user.lower() == old.lower() else user

    mentors = tuple(map(successor, owners.mentors))
    if mentors != owners.mentors:
        once: dict[str, str] = {}
        for mentor in mentors:
            once.setdefault(mentor.lower(), mentor)
        mentors = tuple(once.values())
    creator = owners.created_by
    return Owners(successor(creator) if creator else creator, mentors)


def wrong_owners(
    world: World, rows: Mapping[str, Owners | None], documents: Mapping[str, Owners | None]
) -> list[str]:
    """Deviations in the two stores, a sentence each."""
    found = []
    for batch, wanted in expected(world).items():
        for store, there in (("row", rows[batch]), ("document", documents[batch])):
            if wanted.gone and there is not None:
                found.append(f"the {store} of {batch} is back, with {there}")
            elif not wanted.gone and there not in wanted.owners:
                found.append(
                    f"the {store} of {batch} has {there}, not {' or '.join(map(str, wanted.owners))}"
                )
        if rows[batch] != documents[batch]:
            found.append(f"row and document of {batch} differ: {rows[batch]} and {documents[batch]}")
    return found
