"""The audit trail tells each change, before and after, event by event."""

from __future__ import annotations

from typing import Any

import pytest

from ownership.domain.plan import BatchId
from tests.integration.stages.transfer_world import World


def columns(world: World, mid: str, names: str) -> list[tuple[Any, ...]]:
    """Columns of an event's images, as they lie in the table."""
    return [
        tuple(r)
        for r in world.execute(
            f"SELECT {names} FROM change JOIN event ON id = event_id WHERE mid = :mid", mid=mid
        )
    ]


def test_a_plain_transfer_leaves_one_image_a_batch(world: World) -> None:
    old, new = world.users("old", "new")
    created = world.batch(created_by=old, mentors=("x",))
    mentored = world.batch(created_by="y", mentors=("x", old, old))
    both = world.batch(created_by=old, mentors=(old,), status=0)
    mid = world.transfer(old, new)
    world.whole_run()

    planned, images = world.changes(mid)

    assert {p.id.batch_id: p.outcome for p in planned} == dict.fromkeys(
        [created.batch_id, mentored.batch_id, both.batch_id], "moved"
    )
    assert {i.id: (i.before.owners, i.after.owners, i.before.status, i.outcome) for i in images} == {
        BatchId(created.course_id, created.batch_id): ((old, ("x",)), (new, ("x",)), 1, "applied"),
        BatchId(mentored.course_id, mentored.batch_id): (
            ("y", ("x", old, old)),
            ("y", ("x", new)),
            1,
            "applied",
        ),
        BatchId(both.course_id, both.batch_id): ((old, (old,)), (new, (new,)), 0, "applied"),
    }
    assert {i.fencing_token for i in images} == {world.read(mid).fencing_token}
    roles: dict[Any, Any] = dict(columns(world, mid, "batch_id, role"))
    assert roles == {
        created.batch_id: "created",
        mentored.batch_id: "mentored",
        both.batch_id: "created+mentored",
    }
    assert all(at is not None for (at,) in columns(world, mid, "change.applied_at"))


def test_a_composed_transfer_is_reported_hop_by_hop_and_as_a_whole(world: World) -> None:
    a, b, c = world.users("a", "b", "c")
    of_a = world.batch(created_by=a, mentors=(b, "x", a))
    of_b = world.batch(created_by=b)
    first, second = world.transfer(a, b), world.transfer(b, c)
    world.whole_run()

    assert world.owners(of_a) == (c, (c, "x"))
    assert world.trail(first) == {of_a.batch_id: [((a, (b, "x", a)), (b, (b, "x")))]}
    assert world.trail(second) == {
        of_a.batch_id: [((b, (b, "x")), (c, (c, "x")))],
        of_b.batch_id: [((b, ()), (c, ()))],
    }
    both = world.job.parts.changes.read([first, second])[1]
    whole = {i.id.batch_id: (i.before.owners, i.after.owners, len(i.hops)) for i in both}
    assert whole == {
        of_a.batch_id: ((a, (b, "x", a)), (c, (c, "x")), 2),
        of_b.batch_id: ((b, ()), (c, ()), 1),
    }
    (image,) = (i for i in both if i.id.batch_id == of_a.batch_id)
    assert [hop.mid for hop in image.hops] == [first, second]


def test_the_trail_of_one_event_of_a_chain_shows_the_whole_change_beside_its_hop(world: World) -> None:
    a, b, c = world.users("a", "b", "c")
    world.batch(created_by=a)
    first, second = world.transfer(a, b), world.transfer(b, c)
    world.whole_run()
    for mid, hop in ((first, (a, b)), (second, (b, c))):
        assert columns(world, mid, "before_created_by, after_created_by, hops, change.outcome") == [
            (*hop, 2, "applied")
        ]
        ((image,),) = [world.changes(mid)[1]]
        assert (image.before.created_by, image.after.created_by) == (a, c)


def test_the_trail_followed_back_leads_to_where_each_batch_began(world: World) -> None:
    a, b, c, d = world.users("a", "b", "c", "d")
    users = (a, b, c, d)
    batches = [world.batch(created_by=u, mentors=(d, u, "x")) for u in users]
    began = {x.batch_id: world.owners(x) for x in batches}
    pairs = [(a, b), (b, c), (c, a), (a, d), (d, b)]
    mids = []
    for n, pair in enumerate(pairs):
        mids.append(world.transfer(*pair))
        if n in (1, 3):
            world.job.drain()
    world.job.drain()

    ended = {x.batch_id: world.owners(x) for x in batches}
    assert {owners and owners[0] for owners in ended.values()} == {b}
    at = dict(ended)
    for mid in reversed(mids):
        for batch_id, hops in world.trail(mid).items():
            for before, after in reversed(hops):
                assert at[batch_id] == after
                at[batch_id] = before
    assert at == began


def test_what_an_event_did_is_found_by_its_users(world: World) -> None:
    a, b, c = world.users("a", "b", "c")
    first, second = world.transfer(a, b), world.transfer(b.upper(), c)
    world.whole_run()
    query = (
        "SELECT mid, from_user, to_user FROM event WHERE source_user = :user OR target_user = :user ORDER BY order_ms, "
        "kafka_partition, kafka_offset"
    )
    found = {user: [tuple(r) for r in world.execute(query, user=user)] for user in (a, b, b.upper(), c)}
    # The key is in lower case, the rest as the event spells it.
    by_b = [(first, a, b), (second, b.upper(), c)]
    assert found == {a: by_b[:1], b: by_b, b.upper(): [], c: by_b[1:]}


def test_an_image_is_durable_before_its_row_is_changed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = world.users("old", "new")
    batches = world.batches(12, created_by=old)
    mid = world.transfer(old, new)
    run = world.run().pull().lookup()
    compare_and_set = world.job.parts.rows.compare_and_set
    seen: list[dict[str, tuple[object, object]]] = []

    def looked_at_first(*args: object, **how: bool) -> list[bool | None]:
        images = world.changes(mid)[1]
        seen.append({i.id.batch_id: (i.before.owners, i.outcome) for i in images})
        return compare_and_set(*args, **how)  # type: ignore[arg-type]  # as they came

    monkeypatch.setattr(world.job.parts.rows, "compare_and_set", looked_at_first)
    run.update().reindex().settle()
    assert seen == [{b.batch_id: ((old, ()), None) for b in batches}]
    assert world.creators(batches) == [new] * 12
