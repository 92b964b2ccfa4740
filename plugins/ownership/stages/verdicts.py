"""Verdicts: whether a transfer may be carried out, from the service's own word about its two users."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ownership.domain.errors import Unavailable
from ownership.domain.queue import ClaimedEvent
from ownership.domain.settings import Settings
from ownership.domain.states import Decision
from ownership.ledger.events import EventRow, Verdict
from ownership.platform.user_org import Lookup, Refusal, Standing, User, same_id
from ownership.stages.claim import Claim
from ownership.stages.parts import Parts

VALID = Verdict(Decision.VALID)


class Judged(NamedTuple):
    """What was decided of a slice's events."""

    valid: list[ClaimedEvent]
    skipped: list[tuple[ClaimedEvent, str]]
    outages: list[tuple[ClaimedEvent, str]]
    """Events of which nothing is decided, each with the reason."""
    verdicts: Mapping[str, Verdict]
    """By mid, of all that are decided."""


def judge(
    parts: Parts, claim: Claim, events: Sequence[ClaimedEvent], rows: Mapping[str, EventRow], run_id: str
) -> Judged:
    """Decide every event that has no verdict yet, and record it; an outage decides nothing."""
    undecided = [e for e in events if rows[e.mid].verdict is None]
    verdicts = {e.mid: v for e in undecided if (v := without_asking(rows[e.mid]))}
    to_ask = [e for e in undecided if e.mid not in verdicts]
    found: dict[str, Lookup] = {}
    for user, answer in parts.users.read_all(
        {u for e in to_ask for u in (e.transfer.from_user, e.transfer.to_user)}
    ):
        found[user] = answer
        claim.keep_alive()
    outages: list[tuple[ClaimedEvent, str]] = []
    for e in to_ask:
        giver, receiver = found[e.transfer.from_user], found[e.transfer.to_user]
        said = by_answers(giver, receiver, rows[e.mid].organisation_id or "", parts.settings)
        if isinstance(said, Unavailable):
            outages.append((e, str(said)))
        else:
            verdicts[e.mid] = said
    new = [(e, verdicts[e.mid]) for e in undecided if e.mid in verdicts]
    before = {e.mid: v for e in events if (v := rows[e.mid].verdict) is not None}
    stands = before | parts.events.decide(new, run_id=run_id)
    decided = [(e, v) for e in events if (v := stands.get(e.mid)) is not None]
    return Judged(
        [e for e, v in decided if v.valid],
        [(e, v.reason or "") for e, v in decided if not v.valid],
        outages,
        stands,
    )


def without_asking(row: EventRow) -> Verdict | None:
    """The verdict that the event itself gives, None if User-Org must be asked."""
    if row.options.undo_of:  # it gives back what was, also to a user who has left since
        return VALID
    asset = row.options.asset
    if asset and asset.batch_id is None:
        why = f"names an asset of kind {asset.kind!r}, which is not this job's (transfer.scope = asset)"
        return Verdict(Decision.INVALID, why)
    if same_id(row.transfer.from_user, row.transfer.to_user):
        return Verdict(Decision.INVALID, "old and new user are the same")
    return None


def by_answers(
    giver: Lookup, receiver: Lookup, organisation: str, settings: Settings
) -> Verdict | Unavailable:
    """The verdict by what User-Org says of both users; the outage if that is not enough."""
    deleted = isinstance(giver, Refusal) and giver.standing is Standing.DELETED
    carried_out = deleted and settings.deleted_givers == "transfer"
    for answer in (receiver,) if carried_out else (giver, receiver):
        if why := _invalid(answer, organisation):
            ending = "; transfer.deleted.givers = skip" if deleted and answer is giver else ""
            return Verdict(Decision.INVALID, why + ending)
    if outage := next((a for a in (giver, receiver) if isinstance(a, Unavailable)), None):
        return outage
    if carried_out and isinstance(giver, Refusal):
        return Verdict(Decision.GIVER_DELETED, giver.words)
    return VALID


def _invalid(answer: Lookup, organisation: str) -> str | None:
    """Why a user cannot take part, None if the service says nothing against it."""
    if isinstance(answer, Refusal):
        name, words = f"user {answer.user_id!r}", answer.words
        if answer.standing is Standing.UNKNOWN:
            return f"{name} is unknown to User-Org"
        if answer.standing is Standing.DELETED:
            return f"{name} is deleted or blocked in User-Org ({words})"
        return f"User-Org refuses {name}: {words}"
    if isinstance(answer, User) and not same_id(answer.organisation_id, organisation):
        return f"user {answer.user_id!r} belongs to another organisation than the event's"
    return None
