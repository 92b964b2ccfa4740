"""Rights by organisation: what a role or team sees, and what no right can be."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ownership.domain.errors import SettingsError
from ownership.domain.organisations import EVERYTHING, VisibleOrganisations, visible
from ownership.domain.settings import Settings

GIVEN = [
    {"role": "Admin", "organisations": "*"},
    {"role": "org-a", "organisations": ["a", " a2 "]},
    {"role": "org-b", "organisations": ["b"]},
    {"team": "north", "organisations": ["a", "n"]},
]


def rights(given: Any) -> Any:
    return Settings.parse(json.dumps({"page.organisations": given})).organisation_rights


def seen(roles: set[str], *teams: str) -> VisibleOrganisations:
    return visible(rights(GIVEN), roles, lambda team: team in teams)


def test_without_any_right_everybody_sees_everything() -> None:
    assert visible(Settings.parse(None).organisation_rights, set(), lambda _: False) == EVERYTHING
    assert visible(rights([]), {"anything"}, lambda _: False) == EVERYTHING


def test_a_user_sees_what_their_roles_and_teams_name_together() -> None:
    assert seen({"org-a"}).ids == {"a", "a2"}
    assert seen({"org-a", "org-b", "other"}).ids == {"a", "a2", "b"}
    assert seen({"org-b"}, "north").ids == {"b", "a", "n"}
    assert seen({"org-b", "Admin"}) == EVERYTHING


@pytest.mark.parametrize("roles", [set(), {"User"}, {"admin"}, {"north"}, {""}])
def test_a_user_without_a_right_sees_nothing(roles: set[str]) -> None:
    found = seen(roles)
    assert not found.every
    assert not any(found.has(o) for o in ("a", "b", "*", "", None))


def test_what_belongs_to_no_organisation_is_for_those_who_see_everything() -> None:
    assert EVERYTHING.has(None)
    assert not seen({"org-a"}).has(None)
    assert seen({"org-a"}).has("a")
    assert not seen({"org-a"}).has("A")


@pytest.mark.parametrize(
    ("right", "named"),
    [
        pytest.param({"organisations": ["a"]}, "page.organisations.0: give one of role", id="nobody's"),
        pytest.param(
            {"role": "r", "team": "t", "organisations": ["a"]}, "give one of role and team", id="both"
        ),
        pytest.param({"role": "r"}, "page.organisations.0.organisations", id="no organisations"),
        pytest.param({"role": "r", "organisations": []}, "page.organisations.0.organisations", id="none"),
        pytest.param({"role": "r", "organisations": "a"}, "page.organisations.0.organisations", id="a text"),
        pytest.param(
            {"role": "r", "organisations": ["a", 7]}, "page.organisations.0.organisations", id="a number"
        ),
        pytest.param(
            {"role": "", "organisations": ["a"]}, "page.organisations.0.role", id="a role without a name"
        ),
        pytest.param(
            {"role": "r", "organisation": ["a"]}, "page.organisations.0.organisation", id="an unknown field"
        ),
        pytest.param("r", "page.organisations.0", id="no object"),
    ],
)
def test_a_wrong_right_is_named(right: Any, named: str) -> None:
    with pytest.raises(SettingsError) as caught:
        rights([right])
    assert named in str(caught.value)


def test_the_star_stands_for_itself_in_a_list() -> None:
    found = visible(rights([{"role": "r", "organisations": ["*"]}]), {"r"}, lambda _: False)
    assert found.ids == {"*"}
