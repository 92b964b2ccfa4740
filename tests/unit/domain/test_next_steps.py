"""The conf that an event's row holds ready can be pasted as it is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from ownership.domain.conf import (
    Approve,
    ConfError,
    ExecutePlan,
    Orders,
    Redrive,
    Undo,
    manual_events,
    orders,
    undo_order,
)
from ownership.domain.event import follow_ups
from ownership.domain.next_steps import dead_letter_conf, next_conf
from ownership.domain.plan import Hop
from ownership.domain.plan_report import PlanReport
from ownership.domain.states import EventState
from tests.unit.replay import row, transfer

MID = "LP.1767225600000.6ba7b810"
DIGEST = "0123456789abcdef0123"
ORDER_OF: dict[EventState, object] = {
    EventState.FAILED: Redrive(mids=(MID,)),
    EventState.SKIPPED: Redrive(mids=(MID,)),
    EventState.AWAITING_APPROVAL: Approve(mid=MID, digest=DIGEST),
    EventState.REHEARSED: ExecutePlan(execute_plan=MID, digest=DIGEST),
    EventState.COMPLETED: Undo(mids=(MID,), dry_run=True),
}

mids = (
    st.text(st.characters(categories=["L", "N", "P"], codec="latin-1"), min_size=1, max_size=300)
    | st.text("é中😀 .:+", min_size=1, max_size=300).map(str.strip)
).filter(lambda mid: mid not in ("", ".", "..") and not mid.startswith("rejected:"))
digests = st.from_regex(r"[0-9a-f]{20}", fullmatch=True)


def given(state: EventState) -> dict[str, Any]:
    conf = next_conf(state, MID, DIGEST)
    assert conf is not None
    return dict(json.loads(conf))


def read(state: EventState, conf: dict[str, Any]) -> Orders:
    """The conf as the DAG reads it for which it is meant."""
    if state == EventState.COMPLETED:
        return undo_order(conf)
    assert manual_events(conf, run_id="manual__1", at_ms=1) == []
    return orders(conf)


@for_all(st.sampled_from(sorted(ORDER_OF)), mids, digests)
def test_what_is_to_be_pasted_is_one_order_about_the_event_whatever_its_mid(
    state: EventState, mid: str, digest: str
) -> None:
    conf = json.loads(next_conf(state, mid, digest) or "")
    (order,) = (order for order in read(state, conf) if order is not None)
    said = order.model_dump()
    assert mid in (said.get("mid"), said.get("execute_plan"), *said.get("mids", ()))
    if state in (EventState.AWAITING_APPROVAL, EventState.REHEARSED):
        assert said["digest"] == digest
    else:
        assert said["mids"] == (mid,)


def test_what_one_dag_is_to_be_given_the_other_refuses() -> None:
    for state in ORDER_OF.keys() - {EventState.COMPLETED}:
        with pytest.raises(ConfError, match="Unknown conf"):
            undo_order(given(state))
    with pytest.raises(ConfError, match="Unknown conf 'mids'"):
        manual_events(given(EventState.COMPLETED), run_id="manual__1", at_ms=1)


def test_only_states_with_a_plan_need_a_digest() -> None:
    for state in (EventState.FAILED, EventState.SKIPPED, EventState.COMPLETED):
        assert next_conf(state, MID) == next_conf(state, MID, DIGEST)


def test_the_digest_of_a_report_is_one_that_can_be_approved_and_executed() -> None:
    report = PlanReport(transfer(1, "a", "b"))
    for n in range(2):
        for state in (EventState.AWAITING_APPROVAL, EventState.REHEARSED):
            found = read(state, json.loads(next_conf(state, MID, report.digest) or ""))
            assert (found.approve or found.execute).digest == report.digest  # type: ignore[union-attr]  # None fails the test
        report.add_change(Hop("m01", row("a", n=n), row("b", n=n)))


@pytest.mark.parametrize("state", ORDER_OF)
def test_what_is_to_be_pasted_is_the_order_that_goes_on_from_the_state(state: EventState) -> None:
    assert [order for order in read(state, given(state)) if order is not None] == [ORDER_OF[state]]


@pytest.mark.parametrize("state", [s for s in EventState if s not in ORDER_OF])
def test_for_other_states_there_is_nothing_to_paste(state: EventState) -> None:
    assert next_conf(state, MID, DIGEST) is None


@for_all(st.integers(0, 2**31), st.integers(0, 2**62))
def test_a_dead_letter_at_any_place_is_put_back_alone_and_its_conf_can_be_mended(
    partition: int, offset: int
) -> None:
    conf = json.loads(dead_letter_conf(partition, offset))
    conf["redrive"]["dead_letters"]["merge_patch"] |= {"edata": {"organisationId": "O"}, "iteration": None}
    (order,) = (order for order in read(EventState.REJECTED, conf) if order is not None)
    assert order.model_dump()["dead_letters"] == {
        "partition": partition,
        "from_offset": offset,
        "to_offset": offset,
        "merge_patch": {"edata": {"organisationId": "O"}, "iteration": None},
    }


def test_the_longest_mid_that_the_ledger_can_have_is_taken() -> None:
    longest = follow_ups("m" * 300)[-1]
    for state in (EventState.FAILED, EventState.AWAITING_APPROVAL, EventState.REHEARSED):
        conf = next_conf(state, longest, DIGEST)
        assert conf is not None
        assert any(orders(json.loads(conf)))
    assert undo_order(json.loads(next_conf(EventState.COMPLETED, longest) or "")).undo
