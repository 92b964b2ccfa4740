"""A farm takes its server with it, however it ends."""

from __future__ import annotations

import signal

import psutil
import pytest

from simulation.farm import opened_farm


def end_one(started: list[psutil.Process]) -> None:
    before = set(psutil.Process().children())
    with opened_farm(1):
        children = set(psutil.Process().children()) - before
        started += [p for p in children if p.name() == "postgres"]
        signal.raise_signal(signal.SIGTERM)


def test_a_farm_that_gets_sigterm_leaves_no_server() -> None:
    started: list[psutil.Process] = []

    with pytest.raises(KeyboardInterrupt):
        end_one(started)

    assert started
    assert not [p for p in started if p.is_running()]
