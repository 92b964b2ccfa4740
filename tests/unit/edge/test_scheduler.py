"""When a scheduler reports itself, and how long it waits for it."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from airflow.listeners.listener import ListenerManager
from airflow.listeners.spec import dagrun

from ownership.edge.scheduler import SchedulerListener
from ownership.ledger.hosts import EVERY_SECONDS


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def answered() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


def test_a_scheduler_reports_once_a_minute_however_many_runs_begin() -> None:
    clock, reports = Clock(), list[float]()
    listener = SchedulerListener(lambda: reports.append(clock.now), clock)
    for seconds in (0, 1, EVERY_SECONDS - 0.5, EVERY_SECONDS, EVERY_SECONDS + 1):
        clock.now = 1000.0 + seconds
        listener.on_dag_run_running()
    assert reports == [1000.0, 1000.0 + EVERY_SECONDS]


def test_a_ledger_that_does_not_answer_holds_the_scheduler_up_for_a_moment_and_only_once(
    answered: threading.Event,
) -> None:
    clock, begun = Clock(), list[str]()

    def report() -> None:
        begun.append(threading.current_thread().name)
        answered.wait()

    listener = SchedulerListener(report, clock, patience_s=0.01)
    for _ in range(3):
        listener.on_dag_run_running()
        clock.now += EVERY_SECONDS
    assert begun == ["ownership-report"]
    assert not answered.is_set()


def test_airflow_calls_it_when_a_run_begins() -> None:
    reports: list[str] = []
    manager = ListenerManager()
    manager.add_hookspecs(dagrun)
    manager.add_listener(SchedulerListener(lambda: reports.append("reported")))
    manager.hook.on_dag_run_running(dag_run=None, msg="started")
    assert reports == ["reported"]
