"""Rights by organisation on the page: whose roles, from which setting, and that no route forgets them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.routing import Mount

from ownership.domain.errors import SettingsError, Unavailable
from ownership.domain.organisations import EVERYTHING, VisibleOrganisations
from ownership.page import access, airflow_facts
from ownership.page.access import SeesEverything, visible_organisations
from ownership.page.api.requests import BoundedRoute
from ownership.page.app import app
from ownership.page.platform import process_platform
from ownership.page.settings import READ_AGAIN_S, CachedSettings

FILTERED = {"/find", "/batch", "/user", "/api/v1/batch/timeline", "/api/v1/user/batches"}
"""Addresses that ask the platform's stores, where rows and documents of all organisations lie, and leave some out."""
WITHOUT = {"/static/{name}", "/report", "/api", "/api/v1/openapi.json", "/api/v1/imports/template.csv"}
"""Addresses that tell nothing of any transfer."""


# -- routes


def routes(of: FastAPI, prefix: str = "") -> Iterator[tuple[str, APIRoute]]:
    for route in of.routes:
        if isinstance(route, Mount):
            assert isinstance(route.app, FastAPI), route.path
            yield from routes(route.app, prefix + route.path)
        else:
            assert isinstance(route, APIRoute), route
            yield prefix + route.path, route


def calls(dependant: Dependant) -> Iterator[Any]:
    yield dependant.call
    for below in dependant.dependencies:
        yield from calls(below)


def test_every_route_asks_what_the_user_may_see() -> None:
    found = list(routes(app))
    assert {"/", "/transfer", "/act", "/reconciliations", "/api/v1/transfers"} <= {path for path, _ in found}
    # Of an address each method by itself.
    assert {path for path, r in found if visible_organisations not in calls(r.dependant)} == WITHOUT


def test_every_route_that_tells_something_is_for_users_who_may_read() -> None:
    signed_in = access.User.__metadata__[0].dependency  # type: ignore[attr-defined]  # an Annotated
    found = list(routes(app))
    for check in (signed_in, access.MayRead.dependency):
        assert [path for path, r in found if check not in calls(r.dependant)] == [
            "/static/{name}",
            "/report",
        ]


def test_no_route_reads_a_body_of_somebody_who_may_not_read() -> None:
    reading = {path: route for path, route in routes(app) if route.body_field}
    assert {"/act", "/import", "/api/v1/transfers"} <= set(reading)
    # Nor more of it than it takes. What reads a file bounds it itself, and has no field for FastAPI to read.
    assert [path for path, route in reading.items() if not isinstance(route, BoundedRoute)] == []


def test_what_the_platform_s_stores_say_is_for_those_from_whom_nothing_is_hidden() -> None:
    asking = {
        path
        for path, route in routes(app)
        if process_platform in calls(route.dependant)
        and SeesEverything.dependency not in calls(route.dependant)
    }
    assert asking == FILTERED


# -- users


def seen(somebody: Any, settings: CachedSettings | None = None) -> VisibleOrganisations:
    return visible_organisations(somebody, settings or CachedSettings())


def user(**fields: Any) -> Any:
    return SimpleNamespace(get_id=lambda: "1", **fields)


def role(name: str) -> Any:
    return SimpleNamespace(name=name)


class Variable:
    """The setting as a backend of secrets has it."""

    def __init__(self) -> None:
        self.text: str | None = None
        self.error: Exception | None = None

    def get_variable(self, key: str) -> str | None:
        assert key == "user_ownership_transfer"
        if self.error:
            raise self.error
        return self.text


@pytest.fixture
def variable(monkeypatch: pytest.MonkeyPatch) -> Variable:
    made = Variable()
    monkeypatch.setattr(airflow_facts, "ensure_secrets_loaded", lambda: [Variable(), made])
    monkeypatch.setattr(airflow_facts, "_is_stored", lambda _: False)
    made.text = json.dumps(
        {
            "page.organisations": [
                {"role": "Admin", "organisations": "*"},
                {"role": "org-a", "organisations": ["a"]},
                {"team": "north", "organisations": ["n"]},
            ]
        }
    )
    return made


@pytest.mark.usefixtures("variable")
def test_the_roles_of_the_simple_auth_manager_and_of_fab_are_known() -> None:
    assert seen(user(role="org-a", teams=[])).ids == {"a"}
    assert seen(user(roles=[role("Viewer"), role("org-a")])).ids == {"a"}
    assert seen(user(roles=[role("org-a"), role("Admin")])) == EVERYTHING


@pytest.mark.usefixtures("variable")
@pytest.mark.parametrize(
    "nobody", [user(), user(role=None), user(role=""), user(roles=[]), user(name="Admin")]
)
def test_a_user_whose_roles_are_not_known_sees_nothing(nobody: Any) -> None:
    assert seen(nobody).ids == frozenset()


@pytest.mark.usefixtures("variable")
def test_teams_are_asked_of_the_auth_manager_where_airflow_has_teams(monkeypatch: pytest.MonkeyPatch) -> None:
    class Manager:
        def is_authorized_team(self, *, method: str, details: Any, user: Any) -> bool:
            assert method == "GET"
            return details.name in user.teams

    monkeypatch.setattr(access, "get_auth_manager", Manager)
    member = user(role="User", teams=["north"])
    assert seen(member).ids == frozenset()
    monkeypatch.setenv("AIRFLOW__CORE__MULTI_TEAM", "True")
    assert seen(member).ids == {"n"}
    assert seen(user(role="User", teams=["south"])).ids == frozenset()


# -- the setting


def test_a_setting_that_cannot_be_read_hides_everything(
    variable: Variable, monkeypatch: pytest.MonkeyPatch
) -> None:
    somebody = user(role="Admin")
    variable.error = ConnectionError("postgresql://airflow:s3cret@db")
    with pytest.raises(Unavailable, match="ConnectionError") as caught:
        seen(somebody)
    assert "s3cret" not in str(caught.value)
    variable.error, variable.text = None, '{"page.organisations": [{}]}'
    with pytest.raises(SettingsError, match=r"page\.organisations\.0"):
        seen(somebody)
    # A row that cannot be decrypted is read as none.
    variable.text = None
    monkeypatch.setattr(airflow_facts, "_is_stored", lambda _: True)
    with pytest.raises(SettingsError, match="decrypted"):
        seen(somebody)
    monkeypatch.setattr(airflow_facts, "_is_stored", lambda _: False)
    assert seen(somebody) == EVERYTHING


def test_a_change_of_the_setting_holds_after_a_moment(variable: Variable) -> None:
    now = [100.0]
    settings = CachedSettings(clock=lambda: now[0])
    somebody = user(role="org-a")
    assert seen(somebody, settings).ids == {"a"}
    variable.text = '{"page.organisations": [{"role": "org-a", "organisations": ["b"]}]}'
    now[0] += READ_AGAIN_S
    assert seen(somebody, settings).ids == {"a"}
    now[0] += 0.1
    assert seen(somebody, settings).ids == {"b"}
