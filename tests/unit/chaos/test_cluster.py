"""The rounds on a cluster: which faults, when, and of which parts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from chaos import cluster
from chaos.cluster import BY_NAME, FAULTS, ClusterRound, drawn
from chaos.faults import STAGES
from chaos.ui import AirflowUi


def test_as_many_seeds_as_there_are_pairs_have_each_fault_at_each_moment_once() -> None:
    moments = len(STAGES) + 1
    drawn_pairs = Counter((fault.name, when) for fault, when in map(drawn, range(len(FAULTS) * moments)))
    assert set(drawn_pairs.values()) == {1}
    assert len(drawn_pairs) == len(FAULTS) * moments


def test_a_fault_that_missed_its_moment_is_told_and_does_not_count_for_the_pair() -> None:
    met, late = (
        ClusterRound(1, "worker killed", STAGES[0]),
        ClusterRound(2, "worker killed", STAGES[1], in_time=False),
    )

    assert f"worker killed at {STAGES[0]};" in cluster.line(met)
    assert f"worker killed too late for {STAGES[1]};" in cluster.line(late)
    title = str(cluster.table([met, met, late]).title)
    assert title == f"Faults; 1 of {len(FAULTS) * (len(STAGES) + 1)} pairs of fault and moment"


def test_a_part_of_which_there_is_one_comes_back() -> None:
    assert {fault.name for fault in FAULTS if not fault.for_good} == {
        "Redis killed",
        "Redis frozen",
        "Redis without its file",
    }


def test_two_parts_are_chosen_while_all_of_them_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    frozen: list[str] = []

    @contextmanager
    def freeze(name: str) -> Iterator[None]:
        frozen.append(name)
        yield

    def choice(name: str) -> cluster.Choose:
        def choose(_: Any, __: Random) -> str:
            assert not frozen, "Airflow is asked for the second part while the first one is frozen"
            return name

        return choose

    parts = {name: SimpleNamespace(frozen=lambda name=name: freeze(name)) for name in ("one", "other")}
    monkeypatch.setattr(cluster, "_PARTS", [(name, choice(name)) for name in parts])
    stack: Any = SimpleNamespace(servers=parts)

    with BY_NAME["two parts frozen"].during(stack, Random(1)):
        assert sorted(frozen) == ["one", "other"]


def test_a_proxys_error_page_is_an_error_that_is_tried_again() -> None:
    page = httpx.MockTransport(lambda _: httpx.Response(503, text="<html>No server is available</html>"))
    ui = AirflowUi(httpx.Client(transport=page, base_url="http://airflow"))

    for ask in (ui.hosts, ui.runs, lambda: ui.is_running("settle")):
        with pytest.raises(httpx.HTTPError):
            ask()
