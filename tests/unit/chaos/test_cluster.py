"""The rounds on a cluster: which faults, when, and of which parts."""

from __future__ import annotations

from collections import Counter

from chaos.cluster import FAULTS, drawn
from chaos.faults import STAGES


def test_as_many_seeds_as_there_are_pairs_have_each_fault_at_each_moment_once() -> None:
    moments = len(STAGES) + 1
    drawn_pairs = Counter((fault.name, when) for fault, when in map(drawn, range(len(FAULTS) * moments)))
    assert set(drawn_pairs.values()) == {1}
    assert len(drawn_pairs) == len(FAULTS) * moments


def test_a_part_of_which_there_is_one_comes_back() -> None:
    assert {fault.name for fault in FAULTS if not fault.for_good} == {
        "Redis killed",
        "Redis frozen",
        "Redis without its file",
    }
