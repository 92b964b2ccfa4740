"""The API with a user who may do everything."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from ownership.page import access
from ownership.page.api import orders
from ownership.page.api.app import api
from ownership.page.store import process_store
from ownership.page.views.links import RunLink
from tests.unit.page.api.service import Service


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Service:
    """The API for a user who may do everything."""
    made = Service()
    monkeypatch.setattr(orders, "trigger", made.trigger)
    monkeypatch.setattr(access, "check_start", made.check_start)
    monkeypatch.setattr(access, "may_start", lambda _: made.allowed)
    monkeypatch.setattr(access, "run_conf", lambda dag, run: made.runs.get((dag, run)))
    monkeypatch.setattr(access, "is_paused", lambda _: False)
    monkeypatch.setattr(access, "last_look", lambda: made.look)
    monkeypatch.setattr(
        access,
        "runs_of",
        lambda ids, *_: {r: RunLink(r, d, "running", "") for d, r in made.runs if r in list(ids)},
    )
    signed_in = access.User.__metadata__[0].dependency  # type: ignore[attr-defined]  # an Annotated

    def user() -> Any:
        return SimpleNamespace(get_id=lambda: made.user, get_name=lambda: made.user)

    given = {
        signed_in: user,
        access.MayRead.dependency: lambda: None,
        access.MayReadHealth.dependency: lambda: None,
        process_store: lambda: made,
    }
    monkeypatch.setattr(api, "dependency_overrides", given)
    return made
