"""What must have become of a world, by a plain replay of its events; it knows nothing of how the job works. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from chaos.worlds import Edit, World, event_of
from local.story import COMPLETED, REJECTED, Message, Owners
from local.world import LIVE, Batch


@dataclass(frozen=True)
class Expected:
    """What a batch may look like in the end, in both stores."""

    owners: Collection[Owners]
    """Any of these; where the LMS completed the batch meanwhile, as it was after any of the events."""
    gone: bool = False


def expected(world: World) -> dict[str, Expected]:
    """By batch id."""
    moves = [(m.from_user, m.to_user) for m in _transfers(world)]
    return {b.batch_id: _expected(b, moves, world) for b in world.batches}


def states(world: World) -> dict[str, str]:
    """The final state of every event, by mid."""
    return {str(event_of(m)["mid"]): m.expected for m in world.messages if m.expected != REJECTED}


def _transfers(world: World) -> list[Message]:
    valid = {
        str(event_of(m)["mid"]): m for m in world.messages if m.expected == COMPLETED
    }  # a message that was sent twice counts once
    return sorted(valid.values(), key=lambda m: event_of(m)["ets"])


def _expected(batch: Batch, moves: Iterable[tuple[str, str]], world: World) -> Expected:
    edit = world.edits.get(batch.batch_id)
    if edit is Edit.DELETE:
        return Expected((), gone=True)
    now = Owners(batch.created_by, tuple(batch.mentors or ()))
    if batch.status not in LIVE:
        return Expected((now,))
    seen = [now]
    for old, new in moves:
        now = _moved(now, old, new)
        seen.append(now)
    if edit is Edit.COMPLETE:
        return Expected(tuple(seen))
    if edit is Edit.OWNER:
        now = now._replace(created_by=world.outsider)
    return Expected((now,))


def _moved(owners: Owners, old: str, new: str) -> Owners:
    """One transfer; ids are compared without their case, and a mentor is not listed twice."""

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
    """What is not as it must be in the two stores, a sentence each."""
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
