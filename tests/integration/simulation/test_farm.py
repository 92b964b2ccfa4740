"""A farm takes its server with it, however it ends."""

from __future__ import annotations

import signal

import psutil
import pytest

from simulation.farm import opened_farm


def test_a_farm_that_gets_sigterm_leaves_no_server() -> None:
    before = set(psutil.Process().children())
    started: list[psutil.Process] = []

    with pytest.raises(KeyboardInterrupt), opened_farm(1):
        children = set(psutil.Process().children()) - before
        started += [p for p in children if p.name() == "postgres"]
        signal.raise_signal(signal.SIGTERM)

    assert started
    assert not [p for p in started if p.is_running()]
