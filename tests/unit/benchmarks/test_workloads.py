"""The benchmark's loads: their sizes, and the tangle, which must be one lane of many phases, always the same."""

from __future__ import annotations

import pytest

from benchmarks.workloads import LANES, WORKLOADS, Load, Workload
from ownership.domain.event import OrderKey, Transfer
from ownership.domain.lanes import lanes

TANGLE = next(w for w in WORKLOADS if w.name == "tangle")


def transfers(load: Load) -> list[Transfer]:
    return [
        Transfer(
            OrderKey(e["ets"], 0, n, e["mid"]),
            e["edata"]["fromUserProfile"]["userId"],
            e["edata"]["toUserProfile"]["userId"],
        )
        for n, e in enumerate(load.events)
    ]


@pytest.mark.parametrize("workload", [w for w in (*WORKLOADS, *LANES) if not w.large], ids=lambda w: w.name)
def test_a_load_has_the_size_of_its_workload_and_an_owner_for_each_batch(workload: Workload):
    load = workload.load("t")
    assert len(load.batches) == workload.rows
    assert len(load.events) == (workload.tangled or workload.owners * workload.events)
    assert set(load.owners) == {b.batch_id for b in load.batches}
    named = {u for t in transfers(load) for u in (t.from_user, t.to_user)}
    assert named <= {u.user_id for u in load.users}


def test_each_owner_of_pairs_gives_all_batches_to_somebody_new():
    load = Workload("w", "", owners=2, batches=3).load("t")
    assert {b.created_by for b in load.batches} == {"old-t-0", "old-t-1"}
    assert {o.created_by for o in load.owners.values()} == {"new-t-0", "new-t-1"}


def test_the_tangle_is_one_lane():
    assert len(lanes(transfers(TANGLE.load("t")))) == 1


def test_the_tangle_is_the_same_in_every_measurement_but_for_its_ids():
    one, other = TANGLE.load("one"), TANGLE.load("two")
    renamed = {i.replace("one", "two"): o.created_by.replace("one", "two") for i, o in one.owners.items()}
    assert renamed == {i: o.created_by for i, o in other.owners.items()}


def test_batches_of_the_tangle_move_and_have_mentors():
    load = TANGLE.load("t")
    moved = [b for b in load.batches if load.owners[b.batch_id].created_by != b.created_by]
    assert len(moved) > len(load.batches) / 2
    assert all(b.mentors for b in load.batches)
