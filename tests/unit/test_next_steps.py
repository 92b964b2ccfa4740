"""The conf that an event's row holds ready can be pasted as it is."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ownership import states
from ownership.conf import orders, undo_order
from ownership.next_steps import next_conf, put_back

MID = "LP.1767225600000.6ba7b810"
DIGEST = "0123456789abcdef0123"


def given(state: str) -> dict[str, Any]:
    conf = next_conf(state, MID, DIGEST)
    assert conf is not None
    return dict(json.loads(conf))


@pytest.mark.parametrize("state", [states.FAILED, states.SKIPPED])
def test_a_failed_or_skipped_event_is_tried_again(state: str) -> None:
    assert orders(given(state)).redrive.mids == (MID,)  # type: ignore[union-attr]


def test_a_waiting_transfer_is_approved_with_its_digest() -> None:
    approve = orders(given(states.AWAITING_APPROVAL)).approve
    assert approve is not None
    assert (approve.mid, approve.digest) == (MID, DIGEST)


def test_a_dry_run_is_executed_with_its_digest() -> None:
    execute = orders(given(states.REHEARSED)).execute
    assert execute is not None
    assert (execute.execute_plan, execute.digest) == (MID, DIGEST)


def test_a_completed_event_is_taken_back_by_the_undo_s_dag_as_a_dry_run_at_first() -> None:
    undo = undo_order(given(states.COMPLETED)).undo
    assert undo is not None
    assert (undo.mids, undo.dry_run) == ((MID,), True)


@pytest.mark.parametrize(
    "state", [states.RECEIVED, states.PLANNED, states.APPLIED, states.ABANDONED, states.DECLINED]
)
def test_for_other_states_there_is_nothing_to_paste(state: str) -> None:
    assert next_conf(state, MID, DIGEST) is None


def test_a_dead_letter_is_put_back_from_its_place_and_says_where_to_mend_it() -> None:
    redrive = orders(json.loads(put_back(1, 7))).redrive
    assert redrive is not None
    letters = redrive.dead_letters
    assert letters is not None
    assert (letters.partition, letters.from_offset, letters.to_offset, letters.mend) == (1, 7, 7, {})
