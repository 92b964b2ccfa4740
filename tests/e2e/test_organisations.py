"""Two organisations with an admin each, on a real Airflow: what one starts the other neither sees nor changes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

from local.servers.airflow import OPERATOR
from tests.e2e.airflow_world import Airflow, Story, until
from tests.e2e.conftest import NORTH, SOUTH

API = "api/v1"


@pytest.fixture(scope="module")
def people(airflow: Airflow) -> Iterator[dict[str, httpx.Client]]:
    """Clients of the page by user."""
    with ExitStack() as stack:
        yield {user: stack.enter_context(airflow.page(user)) for user in (NORTH, SOUTH, OPERATOR)}


def transferred(client: httpx.Client, story: Story, organisation: str) -> str:
    """A transfer that a user has started by the API, once it is proven: its mid."""
    old, new = (
        story.user(f"old-{organisation}", organisation),
        story.user(f"new-{organisation}", organisation),
    )
    story.batches(old, 1, prefix=organisation)
    form = {"from_user": old, "to_user": new, "organisation_id": organisation}
    answer = client.post(f"{API}/transfers", json=form)
    assert answer.status_code == 202, answer.text
    (started,) = answer.json()["transfers"]

    def completed() -> Any:
        return (
            client.get(f"{API}/transfer", params={"mid": started["mid"]}).json().get("state") == "completed"
        )

    until(f"{started['mid']} is completed", completed, seconds=120)
    return str(started["mid"])


def test_an_admin_moves_and_sees_what_is_of_the_own_organisation_alone(
    story: Story, people: dict[str, httpx.Client]
) -> None:
    mids = {user: transferred(people[user], story, f"org-{user}") for user in (NORTH, SOUTH)}
    for user, other in ((NORTH, SOUTH), (SOUTH, NORTH)):
        mine, theirs = mids[user], mids[other]
        page = people[user]
        listed = page.get(f"{API}/transfers").json()
        assert {t["organisation_id"] for t in listed["transfers"]} == {f"org-{user}"}
        assert sum(listed["counts"].values()) == len(listed["transfers"])
        assert theirs not in page.get("./").text
        assert page.get("transfer", params={"mid": mine}).status_code == 200
        assert page.get("transfer", params={"mid": theirs}).status_code == 404
        assert page.get(f"{API}/transfer", params={"mid": theirs}).status_code == 404
        assert page.get("confirm", params={"mid": theirs, "action": "undo"}).status_code == 404
        assert page.post(f"{API}/transfer/undo", json={"mid": theirs}).status_code == 404
        form = {"from_user": "a", "to_user": "b", "organisation_id": f"org-{other}"}
        assert page.post(f"{API}/transfers", json=form).status_code == 403
        assert page.get("reconciliations").status_code == 404
        assert page.get(f"{API}/health").status_code == 404
    for mid in mids.values():
        assert people[OPERATOR].get(f"{API}/transfer", params={"mid": mid}).json()["state"] == "completed"
        assert story.rows("SELECT 1 FROM event WHERE options ->> 'undo_of' = %(mid)s", mid=mid) == []
