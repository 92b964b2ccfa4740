from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from ownership.domain.conf import ConfError
from ownership.edge import tasks as edge_tasks
from ownership.health import tasks

CONF = {"days": 1, "dry_run": True}
WORDS = "Conf 'days', 'dry_run': has no effect, because ownership_x takes none"


@pytest.fixture
def pushed(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a task of a run with a conf leaves in XCom; every part is well."""
    pushed: dict[str, Any] = {}
    ti = SimpleNamespace(
        task_id="check",
        run_id="r",
        xcom_push=lambda key, value: pushed.update({key: value}),
        xcom_pull=lambda **_: None,
    )
    run = SimpleNamespace(conf=CONF, dag_id="ownership_x")
    facts = SimpleNamespace(proven=None, backlog=None)
    for module in (tasks, edge_tasks):
        monkeypatch.setattr(module, "get_current_context", lambda: {"ti": ti, "dag_run": run})
    monkeypatch.setattr(tasks, "load_settings", lambda: SimpleNamespace(deadline_minutes=60))
    monkeypatch.setattr(tasks, "look", lambda *_, **__: facts)
    monkeypatch.setattr(tasks, "problems", lambda *_, **__: [])
    monkeypatch.setattr(tasks, "sentence", lambda *_: "All is well.")
    return pushed


@pytest.mark.parametrize("task", [tasks.remove_old, edge_tasks.approvals_wanted])
@pytest.mark.usefixtures("pushed")
def test_a_task_of_a_dag_that_takes_no_conf_refuses_one(task: Callable[[], object]) -> None:
    with pytest.raises(ConfError, match=WORDS):
        task()


def test_a_look_with_a_conf_is_refused_when_its_verdict_is_there_for_the_page(pushed: dict[str, Any]) -> None:
    with pytest.raises(ConfError, match=WORDS):
        tasks.check()
    assert pushed == {"news": False, "known": {}, "verdict": "All is well."}
