from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownership.domain.queue import (
    Choice,
    QueuedEvent,
    Wait,
    WaitKind,
    before_their_turn,
    choose,
    in_words,
    instances_at_work,
)
from tests.unit.replay import folded_event, in_any_case, transfer, users

NOW = 1_000_000
GRACE = 1000
OLD = NOW - 60_000
ME = "run-me"
HELD: dict[str, Any] = {"holder": "run-x", "lease_expires_ms": NOW + 1}
HELD_BY_X = Wait(WaitKind.HELD, "run-x", NOW + 1)
PARKED = Wait(WaitKind.APPROVAL, until_ms=NOW + 1)
NOT_WANTED = Wait(WaitKind.NOT_WANTED)


def queued(n: int, pair: str, **fields: Any) -> QueuedEvent:
    return QueuedEvent(transfer(n, *pair), **{"accepted_ms": OLD, **fields})


def chosen(*rows: QueuedEvent, **arguments: Any) -> Choice:
    given_: dict[str, Any] = {"run_id": ME, "now_ms": NOW, "judged_ms": NOW, "grace_ms": GRACE, "limit": 100}
    return choose(rows, **given_ | arguments)


def behind(mid: str) -> Wait:
    return Wait(WaitKind.BLOCKED, mid)


def taken(choice: Choice) -> list[str]:
    return [r.transfer.mid for r in choice.take]


held: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.fixed_dictionaries({}),
    st.fixed_dictionaries({"holder": st.sampled_from([ME, "run-other"]), "lease_expires_ms": st.sampled_from([NOW - 1, NOW + 9])}),
)  # fmt: skip
fields = st.builds(
    lambda one, other: one | other,
    held,
    st.fixed_dictionaries(
        {
            "accepted_ms": st.sampled_from([OLD, OLD, OLD, NOW - GRACE, NOW - GRACE + 1, NOW + 5]),
            "next_try_ms": st.sampled_from([0, 0, 0, NOW, NOW + 1]),
            "awaits": st.sampled_from([None, None, "approval"]),
            "begun": st.sampled_from([False, False, True]),
        }
    ),
)
queues = st.lists(st.tuples(in_any_case(users), in_any_case(users), fields), max_size=9).map(
    lambda specs: [queued(n, a + b, **f) for n, (a, b, f) in enumerate(specs)]
)


@given(queues, st.integers(0, 9), st.booleans(), st.none() | st.sets(st.integers(0, 8)))
def test_a_claim_takes_what_it_may_and_nothing_else(
    queue: list[QueuedEvent], limit: int, patient: bool, wanted: set[int] | None
) -> None:
    only = None if wanted is None else {f"m{n:02}" for n in wanted}
    choice = chosen(*reversed(queue), limit=limit, patient=patient, only=only)
    assert choice.take == sorted(choice.take, key=lambda r: r.turn)
    assert len(choice.take) <= limit
    assert {*taken(choice), *choice.waits} == {r.transfer.mid for r in queue}
    assert not set(taken(choice)) & set(choice.waits)
    left_behind: set[str] = set()
    left = []
    room = limit
    begun = [row for row in queue if row.begun]
    for row in [*begun, *(row for row in queue if not row.begun)]:
        late = any(b.transfer.users & row.transfer.users and row.key < b.key for b in begun if not row.begun)
        others = bool(row.holder == "run-other" and row.lease_expires_ms > NOW)
        parked = bool(row.awaits and row.next_try_ms > NOW)
        waiting = patient and row.next_try_ms > NOW and row.holder != ME
        young = NOW - row.accepted_ms < GRACE
        mid = row.transfer.mid
        busy = others or parked or waiting
        own = only is None or mid in only
        may = not (busy or late or young or row.transfer.users & left_behind) and own and room > 0
        assert (mid in taken(choice)) is may
        room -= may
        if not may:
            left_behind |= row.transfer.users
            left += [row] if row.holder == ME else []
    assert choice.unusable == left
    for wait in choice.waits.values():
        assert (wait.kind is WaitKind.BLOCKED) is (wait.blocker in {r.transfer.mid for r in queue})


@given(queues, st.integers(0, 9), st.booleans())
def test_the_case_of_users_changes_nothing(queue: list[QueuedEvent], limit: int, patient: bool) -> None:
    folded = [r._replace(transfer=folded_event(r.transfer)) for r in queue]
    choice, expected = (chosen(*q, limit=limit, patient=patient) for q in (queue, folded))
    assert taken(choice) == taken(expected)
    assert choice.waits == expected.waits
    assert choice.young_until_ms == expected.young_until_ms


@given(queues)
def test_what_is_young_is_waited_for_until_the_last_of_it_is_old(queue: list[QueuedEvent]) -> None:
    choice = chosen(*queue)
    young = {mid for mid, wait in choice.waits.items() if wait.kind is WaitKind.YOUNG}
    until = [r.accepted_ms + GRACE for r in queue if r.transfer.mid in young]
    assert choice.young_until_ms == max(until, default=0)
    assert choice.young_until_ms == 0 or choice.young_until_ms > NOW


@pytest.mark.parametrize(
    ("first", "reason"),
    [
        pytest.param(HELD, HELD_BY_X, id="held by a live run"),
        pytest.param({"next_try_ms": NOW + 5000}, Wait(WaitKind.RETRY, until_ms=NOW + 5000), id="failed"),
        pytest.param({"accepted_ms": NOW}, Wait(WaitKind.YOUNG, until_ms=NOW + GRACE), id="young"),
    ],
)
def test_an_open_event_blocks_every_later_event_that_shares_a_user(
    first: dict[str, Any], reason: Wait
) -> None:
    choice = chosen(queued(1, "AB", **first), queued(2, "BC"), queued(3, "CD"), queued(4, "EF"))
    assert taken(choice) == ["m04"]
    assert choice.waits == {"m01": reason, "m02": behind("m01"), "m03": behind("m02")}


@pytest.mark.parametrize(
    ("fields", "goes_on", "cause"),
    [
        pytest.param(HELD, [], HELD_BY_X, id="held by a live run"),
        pytest.param({"next_try_ms": NOW + 1}, [], Wait(WaitKind.RETRY, until_ms=NOW + 1), id="failed"),
        pytest.param({}, ["m02"], None, id="free"),
    ],
)
def test_an_event_that_came_late_waits_for_what_was_begun_with_its_users(
    fields: dict[str, Any], goes_on: list[str], cause: Wait | None
) -> None:
    rows = (queued(1, "AB"), queued(2, "bC", begun=True, **fields), queued(3, "AD"), queued(4, "EF"))
    choice = chosen(*rows)
    assert taken(choice) == [*goes_on, "m04"]
    assert (choice.waits["m01"], choice.waits["m03"]) == (behind("m02"), behind("m01"))
    assert choice.cause("m03") == cause
    again = chosen(*rows, mine={rows[1].key})
    assert (taken(again), again.waits["m01"]) == (["m04"], behind("m02"))


def test_events_go_after_the_first_earlier_one_of_others() -> None:
    others = [queued(1, "AB"), queued(2, "BC"), queued(7, "EF")]
    events = [queued(0, "AB"), queued(3, "cD"), queued(4, "BC"), queued(5, "EG")]
    assert before_their_turn(events, others, run_id="r") == {"m03": "m02", "m04": "m01"}
    assert before_their_turn(events, [], run_id="r") == {}
    own = [e._replace(holder="r") for e in others]
    assert before_their_turn(events, own, run_id="r") == {}


@pytest.mark.parametrize("holder", ["r", "x", None])
@pytest.mark.parametrize("n", [1, 7])
def test_an_event_that_passes_on_what_it_gives_goes_after_what_was_begun_with_those_users(
    holder: str | None, n: int
) -> None:
    late, other = queued(4, "CB", passes_to=frozenset("a")), queued(n, "AD", begun=True, holder=holder)
    assert before_their_turn([late], [other], run_id="r") == {"m04": other.mid}
    begun = late._replace(begun=True, holder=holder)
    assert before_their_turn([other._replace(begun=False)], [begun], run_id="r") == {other.mid: "m04"}
    apart = other._replace(transfer=transfer(n, "E", "F"))
    assert before_their_turn([late], [apart], run_id="r") == {}


def test_a_claim_leaves_alone_what_an_event_that_was_begun_passes_on_to() -> None:
    late = queued(1, "CB", passes_to=frozenset("a"), begun=True, **HELD)
    choice = chosen(late, queued(2, "AD"), queued(3, "EF"))
    assert (taken(choice), choice.waits["m02"]) == (["m03"], behind("m01"))


def test_age_is_judged_by_the_clock_before_the_watermarks() -> None:
    young = queued(1, "AB", accepted_ms=NOW - GRACE)
    assert taken(chosen(young, judged_ms=NOW - 1)) == []


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"holder": "run-dead", "lease_expires_ms": NOW, "fencing_token": 7}, id="of a dead run"),
        pytest.param(
            {"holder": ME, "lease_expires_ms": NOW + 99, "fencing_token": 7}, id="of this run itself"
        ),
        pytest.param({"holder": None, "lease_expires_ms": NOW + 99, "fencing_token": 7}, id="released"),
    ],
)
def test_a_claim_that_is_nobody_elses_is_taken_over(fields: dict[str, Any]) -> None:
    assert taken(chosen(queued(1, "AB", **fields), queued(2, "BC"))) == ["m01", "m02"]


def test_events_beyond_the_limit_wait_and_block() -> None:
    choice = chosen(queued(1, "AB"), queued(2, "CD"), queued(3, "DE"), limit=1)
    assert taken(choice) == ["m01"]
    assert choice.waits["m02"] == Wait(WaitKind.RUN_FULL)
    assert choice.waits["m03"] == behind("m02")


def test_what_this_run_took_before_blocks_nothing() -> None:
    mine = queued(1, "AB", holder=ME, lease_expires_ms=NOW + 99)
    choice = chosen(mine, queued(2, "BC"), mine=[mine.key])
    assert taken(choice) == ["m02"]
    assert choice.waits == {}


def test_what_is_only_blocked_is_not_waited_for() -> None:
    choice = chosen(
        queued(1, "AB", holder="run-x", lease_expires_ms=NOW + 1), queued(2, "BC", accepted_ms=NOW)
    )
    assert choice.young_until_ms == 0


def test_what_awaits_an_approval_is_nobody_s_until_its_time_is_over_and_blocks_its_users_only() -> None:
    parked = queued(1, "AB", awaits="approval", next_try_ms=NOW + 1)
    later, beside = queued(2, "BC"), queued(3, "DE")
    for patient in (True, False):
        choice = chosen(parked, later, beside, patient=patient)
        assert taken(choice) == ["m03"]
        assert choice.waits == {"m01": PARKED, "m02": behind("m01")}
    assert taken(chosen(parked._replace(next_try_ms=NOW), later, beside)) == ["m01", "m02", "m03"]


def test_a_run_of_its_own_events_leaves_the_others_and_waits_behind_those_of_its_users() -> None:
    choice = chosen(queued(1, "AB"), queued(2, "CD"), queued(3, "BE"), queued(4, "FG"), only=["m03", "m04"])
    assert taken(choice) == ["m04"]
    assert choice.waits["m01"] == choice.waits["m02"] == NOT_WANTED
    assert choice.waits["m03"] == behind("m01")


@pytest.mark.parametrize(
    ("first", "arguments", "reason"),
    [
        pytest.param(HELD, {}, HELD_BY_X, id="held"),
        pytest.param(
            {"next_try_ms": NOW + 1_600}, {}, Wait(WaitKind.RETRY, until_ms=NOW + 1_600), id="failed"
        ),
        pytest.param({"awaits": "approval", "next_try_ms": NOW + 1}, {"patient": False}, PARKED, id="parked"),
    ],
)
def test_an_event_waits_for_its_own_reason_first(
    first: dict[str, Any], arguments: dict[str, Any], reason: Wait
) -> None:
    row, blocker = queued(1, "AB", **first), queued(0, "AX", **HELD)
    assert chosen(row, **arguments).waits["m01"] == reason
    assert chosen(blocker, row, **arguments).waits["m01"] == reason
    assert chosen(row, **arguments, only=[]).waits["m01"] == reason


@pytest.mark.parametrize("pair", ["ac", "ca", "ad", "da", "bc", "cb", "bd", "db"])
def test_an_event_that_two_others_block_names_the_same_one_every_time(pair: str) -> None:
    choice = chosen(queued(1, "ab", **HELD), queued(2, "cd", **HELD), queued(3, pair))
    assert choice.waits["m03"] == behind("m01")


def test_what_the_run_holds_is_not_left_while_it_takes_it_or_took_it_before() -> None:
    one, other = (queued(n, "AB", holder=ME, lease_expires_ms=NOW + 9) for n in (1, 2))
    choice = chosen(one, other, mine=[one.key])
    assert taken(choice) == ["m02"]
    assert choice.unusable == []


def test_the_cause_of_a_blocked_event_is_why_the_first_of_its_line_waits() -> None:
    choice = chosen(queued(1, "AB", **HELD), queued(2, "BC"), queued(3, "CD"), queued(4, "EF"))
    assert choice.cause("m01") == choice.cause("m03") == HELD_BY_X
    assert choice.cause("m04") is None


def held_by(n: int, pair: str, holder: str, lease_expires_ms: int) -> QueuedEvent:
    return queued(n, pair, holder=holder, lease_expires_ms=lease_expires_ms, fencing_token=7)


AT_WORK = [
    held_by(1, "ab", "lives", NOW + 1),
    held_by(2, "cd", "lives", NOW + 120_000),
    held_by(3, "bx", "lives", NOW + 120_000),
    held_by(4, "ef", "dead", NOW),
    held_by(5, "gh", "waits for its retry", NOW + 120_001),
    queued(6, "kl"),
    held_by(7, "mn", "other", NOW + 1),
    queued(8, "op", holder="waits with what it brought", lease_expires_ms=NOW + 1),
]


@pytest.mark.parametrize(
    ("max_mapped", "slices", "instances"),
    [
        pytest.param(4, 2, 3, id="one for each lane"),
        pytest.param(1, 1, 2, id="one for each run"),
    ],
)
def test_a_run_is_at_work_while_its_claim_lives_and_is_not_kept_for_a_retry(
    max_mapped: int, slices: int, instances: int
) -> None:
    found = instances_at_work(AT_WORK, now_ms=NOW, lease_ms=120_000, max_mapped=max_mapped, slices=slices)
    assert found == instances


@pytest.mark.parametrize(
    ("wait", "words"),
    [
        pytest.param(HELD_BY_X, "is held by run run-x", id="held"),
        pytest.param(PARKED, "awaits approval", id="approval"),
        pytest.param(
            Wait(WaitKind.RETRY, until_ms=45_296_000), "failed and is tried again at 12:34:56 UTC", id="retry"
        ),
        pytest.param(Wait(WaitKind.BLOCKED, "{m}"), "waits for {m}", id="blocked"),
        pytest.param(NOT_WANTED, "is left to another run", id="not wanted"),
        pytest.param(Wait(WaitKind.YOUNG, until_ms=NOW), "is too young", id="young"),
        pytest.param(
            Wait(WaitKind.RUN_FULL), "waits for a later run: this one has max_events", id="run full"
        ),
    ],
)
def test_why_an_event_waits_is_said_in_words(wait: Wait, words: str) -> None:
    assert in_words(wait) == words
