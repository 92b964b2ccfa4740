"""The expected result of a world, by a plain replay of its events that shares no code with the job. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from chaos.worlds import Edit, World, event_of
from local.demo.story import COMPLETED, REJECTED, Message
from local.platform.stores import Owners
from local.platform.world import LIVE, Batch


@dataclass(frozen=True)
class Expected:
    """The permitted final states of a batch, in both stores."""

    owners: Collection[Owners]
    """Permitted owners: several for a batch that the LMS completed during the round, wherever its events then were."""
    gone: bool = False


def expected(world: World) -> dict[str, Expected]:
    """The expected final state by batch id."""
    batches = {b.batch_id: b for b in world.batches}
    now = {b.batch_id: _first(b) for b in world.batches}
    of_user: dict[str, set[str]] = defaultdict(set)
    for batch in world.batches:
        if batch.status in LIVE:
            for user in _named(now[batch.batch_id]):
                of_user[user].add(batch.batch_id)
    for move in _transfers(world):
        held = of_user[move.from_user.lower()]
        concerned = {i for i in held if _concerns(move, batches[i], world)}
        held -= concerned
        for batch_id in concerned:
            now[batch_id] = _moved(now[batch_id], move.from_user, move.to_user)
            for user in _named(now[batch_id]):
                of_user[user].add(batch_id)
    return {i: _expected(b, now[i], world) for i, b in batches.items()}


def _first(batch: Batch) -> Owners:
    return Owners(batch.created_by, tuple(batch.mentors or ()))


def _on_the_way(batch: Batch, world: World) -> set[Owners]:
    """The owners that a batch may have when the LMS completes it.

    Only events that share a user have an order, so any others may have been carried out before it.
    """
    moves = _transfers(world)
    users = [{m.from_user.lower(), m.to_user.lower()} for m in moves]
    ahead = [{i for i in range(n) if users[i] & users[n]} for n in range(len(moves))]
    states: dict[frozenset[int], Owners] = {frozenset(): _first(batch)}
    waiting = list(states)
    while waiting:
        done = waiting.pop()
        for n, move in enumerate(moves):
            after = done | {n}
            if n in done or after in states or not ahead[n] <= done:
                continue
            owners = states[done]
            if move.from_user.lower() in _named(owners) and _concerns(move, batch, world):
                owners = _moved(owners, move.from_user, move.to_user)
            states[after] = owners
            waiting.append(after)
    return set(states.values())


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


def _expected(batch: Batch, now: Owners, world: World) -> Expected:
    """Permitted final owners; `now` are those after all transfers."""
    edit = world.edits.get(batch.batch_id)
    if edit is Edit.DELETE:
        return Expected((), gone=True)
    if edit is Edit.COMPLETE:
        return Expected(_on_the_way(batch, world))
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
