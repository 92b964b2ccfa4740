"""What a world begins with, and what comes into it: batches, messages, edits of the LMS, orders of operators."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from random import Random
from typing import Any, NamedTuple

ORGANISATION, OTHER = "org", "org-2"
OUTSIDERS = ("x", "y")
"""Users to whom the LMS gives batches; in no transfer."""


class BatchSpec(NamedTuple):
    """A batch, in both stores."""

    course: str
    batch: str
    created_by: str | None
    mentors: tuple[str, ...] = ()
    status: int = 1
    created_for: tuple[str, ...] = ()
    document: bool = True
    """False: the index has none."""


class MessageSpec(NamedTuple):
    """A message on the topic: a transfer, or bytes that are none."""

    at_ms: int
    """When it is sent, after the world's beginning."""
    mid: str
    from_user: str = ""
    to_user: str = ""
    partition: int = 0
    behind_ms: int = 0
    """How far its `ets` lies before its sending."""
    poison: str = ""
    """Sent instead of a transfer."""
    asset: str = ""
    """The one batch that it is about."""


class Edit(StrEnum):
    """An edit of a row by the LMS, whose document follows."""

    OWNER = "owner"
    """Another creator, an outsider."""
    MENTOR = "mentor"
    """One more mentor, an outsider."""
    COMPLETE = "complete"
    DELETE = "delete"
    NAME = "name"
    SHOW = "show"
    """None: the batch's document is written only now."""
    JOIN = "join"
    """None: `batch` is a user, whom User-Org knows from now on."""


class EditSpec(NamedTuple):
    """An edit, at a time or right after a call of a stage."""

    batch: str
    edit: Edit
    at_ms: int
    after: str = ""
    """Store and beginning of the call, as in ``rows read`` or, of one task's, ``update rows read``: the edit comes right
    after the `n`-th such call, if there is one before `at_ms`."""
    n: int = 1
    lag_ms: int = 0
    """Between the LMS's read of the row and its write of the document; negative: row and document at once."""
    then: str = ""
    """The LMS reads the row at once, and writes the document right after the `then_n`-th such call that follows."""
    then_n: int = 1
    shown: bool = False
    """True if a refresh comes right after the document: the index refreshes by itself at any moment."""


class OrderSpec(NamedTuple):
    """A run that an operator starts: its kind and conf, `wait`: not before no event is open."""

    at_ms: int
    kind: str
    conf: Mapping[str, Any]
    wait: bool = False


class Setup(NamedTuple):
    """A world before it begins."""

    batches: tuple[BatchSpec, ...]
    messages: tuple[MessageSpec, ...]
    edits: tuple[EditSpec, ...] = ()
    orders: tuple[OrderSpec, ...] = ()
    users: tuple[str, ...] = ("a", "b", "c", "d")
    deleted: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()
    """Users of another organisation."""
    runs: int = 2
    """Runs of the watcher at once, at most."""
    settings: Mapping[str, Any] = {}
    refreshes: bool = False
    """True if the index refreshes by itself now and then."""


MOMENTS = (
    "ledger Changes.record", "ledger Changes.record", "ledger Changes.record", "rows read", "index read", "rows b", "index read", "index write", "index refresh", "index search",
    "ledger Queue.held", "ledger Events._write", "lms search", "ledger Changes.settle_images",
    *["reindex rows read", "reindex index read", "reindex index write", "reindex index refresh"] * 3,
)  # fmt: skip
"""Calls, of any task or of one that is named, after which an edit strikes."""
_EDITS = (
    *[Edit.OWNER, Edit.MENTOR] * 3,
    Edit.COMPLETE,
    Edit.COMPLETE,
    Edit.DELETE,
    Edit.NAME,
    Edit.SHOW,
    Edit.SHOW,
)
BUSY = 1_000_000
"""Seeds from here on are worlds with several orders each; others have none, or what one operator wants."""
LATE = 2_000_000
"""Seeds from here on are worlds with several late events at once, beside one order at most."""
NEWCOMER = "nobody"
"""User-Org does not know him, at first or at all."""
_POISON = ("not JSON", "{}", '{"eid": "BE_JOB_REQUEST"}')


def drawn_setup(seed: int) -> Setup:
    """The world of a seed."""
    rng = Random(f"setup:{seed}")
    users = ("a", "b", "c", "d")[: rng.choice((2, 3, 3, 4))]
    batches = tuple(_batches(rng, users))
    messages = tuple(_late_messages(rng, users) if seed >= LATE else _messages(rng, users, batches))
    edits = tuple(_edits(rng, batches)) if rng.random() < 0.7 else ()
    late = {e.batch for e in edits if e.edit is Edit.SHOW}
    batches = tuple(b._replace(document=b.batch not in late) for b in batches)
    if any(m.to_user == NEWCOMER for m in messages) and rng.random() < 0.7:
        edits += (EditSpec(NEWCOMER, Edit.JOIN, 60_000, f"users read {NEWCOMER}", rng.choice((1, 2))),)
    span = max((m.at_ms for m in messages), default=0)
    return Setup(
        batches,
        messages,
        edits,
        (*_ordered(seed, rng, messages, users, span), *_by_the_clock(seed, span)),
        users=users,
        deleted=("d",) if "d" in users and rng.random() < 0.1 else (),
        foreign=("c",) if "c" in users and rng.random() < 0.1 else (),
        runs=rng.choice((1, 2, 2, 3)),
        settings=rng.choice(
            (
                {},
                {},
                {"threshold.batch.write.size": 1},
                {"parallelism": 1},
                *[{"parallelism": 1}] * (4 if seed >= LATE else 0),
                {"transfer.scope": "asset"},
                {"approval.batches": 1},
            )
        ),
        refreshes=rng.random() < 0.3,
    )


def _batches(rng: Random, users: tuple[str, ...]) -> list[BatchSpec]:
    people = (*users, *users, "x")
    return [
        BatchSpec(
            f"k{rng.randrange(2)}",
            f"b{n}",
            rng.choice(people),
            tuple(rng.sample((*users, "y"), k=rng.choice((0, 0, 1, 2)))),
            rng.choice((0, 1, 1, 1, 1, 2)),
            created_for=rng.choice(((), (), (ORGANISATION,), (OTHER,))),
        )
        for n in range(rng.randint(1, 6))
    ]


def _messages(rng: Random, users: tuple[str, ...], batches: tuple[BatchSpec, ...]) -> list[MessageSpec]:
    found: list[MessageSpec] = []
    at_ms = 0
    spread = rng.choice((1, 300, 2_000, 20_000))
    for n in range(rng.choice((1, 2, 2, 3, 3, 4, 5))):
        at_ms += rng.randint(1, spread)
        kind = rng.random()
        if kind < 0.05:
            found.append(MessageSpec(at_ms, f"m{n}", partition=rng.randrange(2), poison=rng.choice(_POISON)))
        elif kind < 0.12 and found:
            found.append(rng.choice(found)._replace(at_ms=at_ms, partition=rng.randrange(2)))
        else:
            old, new = rng.sample(users, k=2) if rng.random() < 0.92 else (rng.choice(users), NEWCOMER)
            about = rng.choice(batches).batch if rng.random() < 0.1 else ""
            behind = rng.choice((0, 0, rng.randint(0, 300), *[rng.randint(300, 900)] * 2))
            behind = rng.randint(2_000, 40_000) if rng.random() < 0.03 else behind
            found.append(MessageSpec(at_ms, f"m{n}", old, new, rng.randrange(2), behind, asset=about))
            if rng.random() < 0.12:
                found.append(_overtaken(rng, found[-1], users, f"e{n}"))
    return found


def _late_messages(rng: Random, users: tuple[str, ...]) -> list[MessageSpec]:
    """Transfers on time; when they have ended, several at once that come between them in order, or before."""
    on_time = rng.randint(1, 4)
    found = []
    for n in range(on_time + rng.randint(2, 4)):
        late = n >= on_time
        at_ms = 60_000 + 10 * n if late else 300 * n
        behind = at_ms - rng.randint(-300, 300 * on_time) if late and rng.random() < 0.8 else 0
        old, new = rng.sample(users, k=2)
        found.append(MessageSpec(at_ms, f"m{n}", old, new, rng.randrange(2), behind))
    return found


def _edits(rng: Random, batches: tuple[BatchSpec, ...]) -> list[EditSpec]:
    live = [b for b in batches if b.status < 2]
    chosen = rng.sample(live, k=min(len(live), rng.choice((1, 1, 2))))
    return [
        _aimed(rng, b.batch)
        if rng.random() < 0.4
        else EditSpec(
            b.batch,
            rng.choice(_EDITS),
            rng.choice((rng.randint(0, 5_000), 20_000, 60_000)),
            rng.choice(MOMENTS) if rng.random() < 0.8 else "",
            rng.choice((1, 1, 1, 2, 3, 4, 5)),
            rng.choice((-1, -1, 0, 200, 30_000)),
            rng.choice(MOMENTS) if rng.random() < 0.4 else "",
            rng.choice((1, 2, 3, 5, 8)),
            shown=rng.random() < 0.5,
        )
        for b in chosen
    ]


def _aimed(rng: Random, batch: str) -> EditSpec:
    """An edit in a moment that chance hardly meets."""
    if rng.random() < 0.4:  # between what a proof reads and what it writes
        edit = rng.choice((Edit.OWNER, Edit.MENTOR))
        return EditSpec(batch, edit, 60_000, "reindex rows read", rng.choice((1, 1, 2)), -1, shown=True)
    # The LMS has read the row before a transfer changes it, and writes the document while a later one is at work.
    then, n = rng.choice((("lookup users read", 1), ("reindex index write", 2), ("reindex index read", 4)))
    return EditSpec(
        batch, Edit.NAME, 60_000, "update rows read", rng.choice((1, 1, 2)), then=then, then_n=n, shown=True
    )


def _overtaken(rng: Random, later: MessageSpec, users: tuple[str, ...], mid: str) -> MessageSpec:
    """A message that comes after `later`, and is earlier by its own time: within the grace, or too late."""
    gap = rng.choice((rng.randint(200, 900), rng.randint(3_000, 20_000)))
    behind = gap + rng.randint(20, 90)
    giver = rng.choice([u for u in users if u != later.from_user])
    return MessageSpec(later.at_ms + gap, mid, giver, later.from_user, 1 - later.partition, behind)


def _ordered(
    seed: int, rng: Random, messages: tuple[MessageSpec, ...], users: tuple[str, ...], span: int
) -> list[OrderSpec]:
    if BUSY <= seed < LATE:
        return _many_orders(rng, messages, users, span)
    return _in_earnest(seed, _orders(rng, messages, users, span))


def _many_orders(
    rng: Random, messages: tuple[MessageSpec, ...], users: tuple[str, ...], span: int
) -> list[OrderSpec]:
    """Two to five orders, mostly undos that take back, of transfers and of undos, beside transfers and after them."""
    known = [*(m.mid for m in messages if not m.poison), "undo:run-*:0", "manual:run-*:0"]
    found: list[OrderSpec] = []
    for at_ms in sorted(rng.randint(0, span + 30_000) for _ in range(rng.randint(2, 5))):
        mids = rng.sample(known, k=rng.choice((1, 1, 1, min(2, len(known)))))
        old, new = rng.sample(users, k=2)
        by_hand: dict[str, Any] = {"from_user": old, "to_user": new, "organisation_id": ORGANISATION}
        undo: dict[str, Any] = {"mids": mids, "dry_run": rng.random() < 0.15}
        kind, conf = rng.choice(
            (
                *[("undo", undo)] * 5,
                *[("manual", by_hand)] * 2,
                ("manual", {**by_hand, "dry_run": True}),
                ("manual", {"execute_plan": "manual:run-*:0", "digest": "*"}),
                ("manual", {"abandon": {"mids": [mids[0]], "reason": "drawn"}}),
                ("manual", {"redrive": {"mids": [mids[0]]}}),
                ("clear", {}),
                ("fail", {}),
            )
        )
        found.append(OrderSpec(at_ms, kind, conf, wait=rng.random() < 0.6))
    return found


def _orders(
    rng: Random, messages: tuple[MessageSpec, ...], users: tuple[str, ...], span: int
) -> list[OrderSpec]:
    mids = [m.mid for m in messages if not m.poison]
    if rng.random() < 0.6 or not mids:
        return []
    at_ms, mid = rng.randint(0, span + 5_000), rng.choice(mids)
    old, new = rng.sample(users, k=2)
    by_hand = {"from_user": old, "to_user": new, "organisation_id": ORGANISATION}
    undo = OrderSpec(at_ms, "undo", {"mids": [mid]}, wait=True)
    return rng.choice(
        (
            [undo],
            [undo],
            [undo, OrderSpec(at_ms, "undo", {"mids": ["undo:run-*:0"]}, wait=True)],
            [OrderSpec(at_ms, "manual", {"abandon": {"mids": [mid], "reason": "drawn"}})],
            [OrderSpec(at_ms, "manual", {"abandon": {"mids": [mid], "reason": "drawn"}})],
            [OrderSpec(at_ms, "manual", {"redrive": {"mids": [mid]}})],
            [OrderSpec(at_ms, "manual", by_hand, wait=rng.random() < 0.5)],
            [
                OrderSpec(at_ms, "manual", {**by_hand, "dry_run": True}, wait=True),
                OrderSpec(at_ms, "manual", {"execute_plan": "manual:run-*:0", "digest": "*"}, wait=True),
            ],
            [OrderSpec(at_ms, "clear", {})],
            [OrderSpec(at_ms, "fail", {})],
        )
    )


def _in_earnest(seed: int, orders: list[OrderSpec]) -> list[OrderSpec]:
    """Undos are dry runs, or take back, also beside transfers; so may one what an abandoned event has moved."""
    rng = Random(f"in earnest:{seed}")
    dry_run = rng.random() < 0.4
    wait = dry_run or rng.random() < 0.7
    found = [
        o._replace(conf={**o.conf, "dry_run": dry_run}, wait=wait) if o.kind == "undo" else o for o in orders
    ]
    abandoned = [mid for o in orders if "abandon" in o.conf for mid in o.conf["abandon"]["mids"]]
    if abandoned and rng.random() < 0.5:
        found.append(OrderSpec(orders[-1].at_ms, "undo", {"mids": abandoned, "dry_run": False}, wait=True))
    return found


def _by_the_clock(seed: int, span: int) -> list[OrderSpec]:
    """Runs that the clock starts while others are at work. They are drawn for themselves: other worlds stay as they are."""
    rng = Random(f"clock:{seed}")
    kind = rng.random()
    at_ms = rng.randint(0, span + 5_000)
    if kind < 0.06:
        return [OrderSpec(at_ms, "scheduled", {})]
    if kind < 0.12:
        return [OrderSpec(at_ms, "reconcile", {"repair": True, "ranges": rng.choice((1, 2)), "days": 1})]
    return []
