"""What an operator does about events that stand still: abandon them, or try them again."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from ownership.domain.clock import now_ms
from ownership.domain.conf import ConfError
from ownership.domain.errors import Unavailable
from ownership.ledger.events import RejectedMessage
from ownership.stages.intake import Window
from tests.integration.stages.transfer_world import ORGANISATION, Faults, World, boom, replaced


def test_an_abandoned_event_is_final_and_frees_what_it_blocked(world: World, userorg: Faults) -> None:
    a, b, c = world.users("a", "b", "c")
    stays, moves = world.batch(created_by=a), world.batch(created_by=b)
    first, second = world.transfer(a, b), world.transfer(b, c)
    userorg.set("503", user=a)
    world.run().pull().lookup().settle()
    assert world.job.states([first, second]) == ["failed", "received"]

    run = world.run().pull(abandon={"mids": [first], "reason": "asked for by mistake"})

    assert run.pulled.notes == {first: f"was abandoned; it blocked {second}"}
    assert run.finish().events == {"completed": 1}
    assert world.job.states([first, second]) == ["abandoned", "completed"]
    assert world.read(first).reason == "abandoned: asked for by mistake"
    assert world.owners(stays) == (a, ())
    assert world.owners(moves) == (c, ())


def test_an_event_is_abandoned_also_under_a_live_holder_which_then_writes_nothing(world: World) -> None:
    a, b = world.users("a", "b")
    batch = world.batch(created_by=a)
    mid = world.transfer(a, b)
    holder = world.run().pull().lookup()

    other = world.run().pull(abandon={"mids": [mid], "reason": "no"})
    holder.update().reindex()

    assert other.pulled.notes == {mid: "was abandoned"}
    assert world.job.states([mid]) == ["abandoned"]
    assert world.owners(batch) == (a, ())
    ended = holder.settle()
    assert (ended.events, ended.notes) == ({"abandoned": 1}, {mid: "abandoned: no"})


def test_what_a_dead_process_changed_is_recorded_when_its_event_is_abandoned(world: World) -> None:
    """Afterwards a transfer back leaves the row as if nothing had been changed."""
    old, new = world.users("old", "new")
    batch = world.batch(created_by=old)
    mid = world.transfer(old, new)
    with replaced(world.job.parts.changes, "settle_images", boom):
        world.run().pull().lookup().update()
    world.run().pull(abandon={"mids": [mid], "reason": "half-way"}).finish()
    back = world.transfer(new, old)
    world.whole_run()

    assert world.owners(batch) == (old, ())
    assert [i.outcome for m in (mid, back) for i in world.changes(m)[1]] == ["applied", "applied"]


def test_an_event_is_abandoned_also_where_its_rows_cannot_be_read(world: World) -> None:
    old, new = world.users("old", "new")
    world.batch(created_by=old)
    mid = world.transfer(old, new)
    with replaced(world.job.parts.changes, "settle_images", boom):
        world.run().pull().lookup().update()
    with replaced(world.job.parts.rows, "decide", boom):
        run = world.run().pull(abandon={"mids": [mid], "reason": "half-way"})
    assert run.errors == []
    assert world.state(mid) == "abandoned"
    world.run().pull(window=Window(now_ms() - 1000, now_ms()))
    assert [i.outcome for i in world.changes(mid)[1]] == ["applied"]


def test_what_is_final_or_unknown_is_not_abandoned(world: World) -> None:
    a, b = world.users("a", "b")
    world.batch(created_by=a)
    mid = world.transfer(a, b)
    world.whole_run()

    run = world.run().pull(abandon={"mids": [mid, "nobody's"], "reason": "no"})

    assert run.pulled.notes == {mid: "is completed already", "nobody's": "is not in the ledger"}
    assert run.pulled.refused == run.settle().failures == run.pulled.notes
    assert world.job.states([mid]) == ["completed"]


def test_an_order_that_comes_too_late_fails_its_run_unless_all_is_as_it_was_ordered(world: World) -> None:
    a, b = world.users("a", "b")
    world.batch(created_by=a)
    ended = {
        "completed": world.transfer(a, b),
        "skipped": world.transfer(a, f"nobody-{a}"),
        "abandoned": world.transfer(b, a),
    }
    world.whole_run(abandon={"mids": [ended["abandoned"]], "reason": "no"})
    world.job.drain()
    dry = world.run().pull(form=world.form(b, a, dry_run=True))
    dry.finish()
    (ended["rehearsed"],) = dry.pulled.own
    world.platform.emit(b"no event")
    world.run().pull()
    ended["rejected"] = next(r.mid for r in _rejected_rows(world) if bytes(r.body) == b"no event")

    def refused(**conf: Any) -> set[str]:
        run = world.run().pull(**conf)
        why = run.finish().failures
        assert why == {m: run.pulled.notes[m] for m in why}
        return {state for state, mid in ended.items() if mid in why}

    assert world.job.states([m for s, m in ended.items() if s != "rejected"]) == list(ended)[:-1]
    mids = list(ended.values())
    assert refused(abandon={"mids": mids, "reason": "no"}) == {"completed"}
    assert refused(redrive={"mids": mids}) == {"abandoned", "rehearsed", "rejected"}
    for state, mid in ended.items():
        assert refused(decline={"mid": mid, "reason": "no"}) == {"completed"} & {state}
        assert refused(approve={"mid": mid, "digest": "0" * 20}) == {state} - {"completed"}


def test_a_skipped_event_is_redriven_as_a_new_one(world: World) -> None:
    a, b = world.users("a", "b")
    batch = world.batch(created_by=a)
    stranger = f"stranger-{b}"
    mid = world.transfer(a, stranger)
    world.whole_run()
    assert world.job.states([mid]) == ["skipped"]
    world.platform.add_user(stranger, ORGANISATION)

    run = world.run().pull(redrive={"mids": [mid]})

    new = f"redrive:{run.run_id}:0"
    assert run.pulled.notes == {mid: f"is tried again as {new}"}
    assert run.finish().events == {"completed": 1}
    assert world.job.states([mid, new]) == ["skipped", "completed"]
    assert world.owners(batch) == (stranger, ())
    # The same run pulled once more (a cleared task) adds nothing.
    again = world.job.run(run.run_id).pull(redrive={"mids": [mid]})
    assert (again.pulled.received, again.pulled.claimed) == (0, 0)


def test_a_failed_event_is_redriven_before_its_next_try_is_due(world: World, userorg: Faults) -> None:
    a, b = world.users("a", "b")
    batch = world.batch(created_by=a)
    mid = world.transfer(a, b)
    userorg.set("503", user=a)
    world.run().pull().lookup().settle()
    userorg.clear()
    assert world.run().pull().pulled.claimed == 0

    run = world.run().pull(redrive={"mids": [mid]}, patient=False)

    assert run.pulled.notes == {mid: "is failed, and is tried by this run if nothing blocks it"}
    assert run.finish().events == {"completed": 1}
    assert world.owners(batch) == (b, ())


@pytest.mark.parametrize(
    "conf",
    [
        pytest.param({"redrive": {"mids": ["LP.typo"]}}, id="redrive"),
        pytest.param({"approve": {"mid": "LP.typo", "digest": "0" * 20}}, id="approve"),
        pytest.param({"decline": {"mid": "LP.typo", "reason": "no"}}, id="decline"),
        pytest.param({"abandon": {"mids": ["LP.typo"], "reason": "no"}}, id="abandon"),
        pytest.param({"undo": {"mids": ["LP.typo"], "dry_run": False}}, id="undo"),
    ],
)
def test_an_order_about_an_event_that_is_not_there_fails_its_run(world: World, conf: dict[str, Any]) -> None:
    run = world.run().pull(**conf)
    assert run.pulled.slices == ()
    assert run.settle().failures == {"LP.typo": "is not in the ledger"}


@pytest.mark.parametrize(
    ("conf", "sentence"),
    [
        pytest.param({"abandon": {"mids": ["m"]}}, "abandon: reason: Field required", id="no reason"),
        pytest.param({"abandon": {"mids": [], "reason": "x"}}, "abandon: mids", id="no event"),
        pytest.param({"redrive": {"mid": "m"}}, "redrive: mid: Extra", id="a typing error"),
        pytest.param({"redrive": ["m"]}, "redrive: message: Input should be", id="no object"),
    ],
)
def test_an_order_that_cannot_be_read_is_refused(world: World, conf: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfError, match=sentence):
        world.run().pull(**conf)


def test_failed_and_skipped_events_of_a_time_are_redriven(world: World, userorg: Faults) -> None:
    a, b, c = world.users("a", "b", "c")
    batches = [world.batch(created_by=a), world.batch(created_by=c)]
    stranger = f"stranger-{b}"
    since = datetime.now(UTC).isoformat()
    skipped = world.transfer(a, stranger)
    world.whole_run()
    userorg.set("503", user=c)
    failed = world.transfer(c, b)
    world.run().pull().lookup().settle()
    userorg.clear()
    world.platform.add_user(stranger, ORGANISATION)

    none = world.run().pull(redrive={"states": ["failed"], "since": "2026-01-01", "until": since})
    assert none.settle().failures == {
        "redrive": f"found no event that is failed and was sent since 2026-01-01T00:00:00+00:00 and before {since}: "
        "look at the states and the time, or give mids"
    }
    run = world.run().pull(redrive={"states": ["failed", "skipped"], "since": since}, patient=False)

    assert set(run.pulled.notes) == {failed, skipped}
    assert run.finish().events == {"completed": 2}
    assert world.creators(batches) == [stranger, b]


def test_what_needs_somebody_carries_the_conf_to_paste(world: World, userorg: Faults) -> None:
    a, b = world.users("a", "b")
    world.batch(created_by=a)
    skipped = world.transfer(a, f"nobody-{a}")
    first = world.whole_run()
    userorg.set("503", user=a)
    failed = world.transfer(a, b)
    second = world.run().pull().lookup().settle()
    userorg.clear()

    for mid, to, summary in ((skipped, f"nobody-{a}", first), (failed, b, second)):
        assert json.loads(world.read(mid).next_conf or "") == {"redrive": {"mids": [mid]}}
        assert summary.next_conf == {mid: world.read(mid).next_conf}
        assert summary.users == {mid: f"{a} → {to}"}
    assert first.notes == {skipped: f"skipped: user 'nobody-{a}' is unknown to User-Org"}
    world.whole_run(**json.loads(world.read(failed).next_conf or ""), patient=False)
    assert json.loads(world.read(failed).next_conf or "") == {"mids": [failed], "dry_run": True}


def test_dead_letters_are_put_back_by_offset_once_they_are_mended(world: World) -> None:
    a, b, c = world.users("a", "b", "c")
    batches = world.batches(2, created_by=a)
    half = world.event(a, b)
    del half["edata"]["organisationId"]
    world.platform.emit(half)
    world.platform.emit(b"not JSON")
    accepted = world.run().pull()
    assert accepted.pulled.rejected == 2
    rejected = {str(row.body): row for row in _rejected_rows(world)}
    confs = [json.loads(row.next_conf or "")["redrive"]["dead_letters"] for row in rejected.values()]
    letters = {"partition": 0, "from_offset": min(c["from_offset"] for c in confs)}
    letters["to_offset"] = letters["from_offset"] + 1

    as_they_are = world.run().pull(redrive={"dead_letters": letters})
    assert as_they_are.pulled.claimed == 0
    assert sorted(as_they_are.pulled.notes.values()) == [
        "is no event yet: edata.organisationId: Field required",
        "is no event yet: not JSON: Expecting value: line 1 column 1 (char 0)",
    ]
    assert as_they_are.settle().failures == as_they_are.pulled.notes
    merge_patch = {"edata": {"organisationId": ORGANISATION, "toUserProfile": {"userId": c}}}
    run = world.run().pull(redrive={"dead_letters": {**letters, "merge_patch": merge_patch}})

    assert run.finish().events == {"completed": 1}
    assert world.creators(batches) == [c, c]
    assert sum("is tried as redrive:" in notes for notes in run.pulled.notes.values()) == 1
    # What was rejected stays for the record.
    assert {str(row.body): row for row in _rejected_rows(world)} == rejected


def test_offsets_that_the_dead_letter_topic_does_not_have_are_refused(world: World) -> None:
    with pytest.raises(ConfError, match=r"partition 0 of '.*\.failed' has the offsets \d+ to "):
        world.run().pull(redrive={"dead_letters": {"from_offset": 900, "to_offset": 901}})


@pytest.mark.parametrize("partition", [7, 2**40])
def test_a_partition_that_the_dead_letter_topic_does_not_have_is_refused(
    world: World, partition: int
) -> None:
    letters = {"partition": partition, "from_offset": 0, "to_offset": 0}
    with pytest.raises(ConfError, match=rf"\.failed' has no partition {partition}\."):
        world.run().pull(redrive={"dead_letters": letters})


def _rejected_rows(world: World) -> list[RejectedMessage]:
    mids = [r.mid for r in world.execute("SELECT mid FROM rejected_message")]
    return list(world.job.parts.events.rejected(mids).values())


def test_a_run_by_hand_does_without_kafka_and_any_other_does_not(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = world.users("a", "b")
    batch = world.batch(created_by=a)

    def down(*_: object) -> None:
        raise Unavailable("Kafka", "no broker answers")

    monkeypatch.setattr(world.job.topic, "backlog", down)
    with pytest.raises(Unavailable):
        world.run().pull()
    run = world.run().pull(form=world.form(a, b))

    assert run.pulled.notes == {"kafka": "was not read: Kafka unavailable: no broker answers"}
    assert run.finish().events == {"completed": 1}
    assert world.owners(batch) == (b, ())


def test_a_rejected_event_that_is_redriven_by_its_mid_is_reported_how_it_is_put_back(world: World) -> None:
    a, b = world.users("a", "b")
    bad = world.event(a, b)
    del bad["edata"]["organisationId"]
    world.platform.emit(bad, partition=0)
    run = world.run().pull()
    assert run.pulled.rejected == 1
    where = next(h for h, _ in world.dead_letters()[-1:])
    mid = f"rejected:{where['topic']}:{where['partition']}:{where['offset']}"

    notes = world.run().pull(redrive={"mids": [mid]}).pulled.notes

    assert notes == {mid: f"is rejected: put its dead letter back, mended: {world.rejected(mid).next_conf}"}
