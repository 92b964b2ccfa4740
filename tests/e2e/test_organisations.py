"""Two organisations with an admin each, on a real Airflow: what one starts the other neither sees nor changes.

Under both auth managers that come with the job: Airflow's simple one, and FAB's, the default of Airflow's chart.
"""

from __future__ import annotations

import html
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin

import httpx
import pytest
from playwright.sync_api import expect, sync_playwright

from local.demo.screenshots import ARGUMENTS
from local.paths import REPOSITORY
from local.servers.airflow import OPERATOR, USER, VIEWER
from ownership.page.entry import NAME
from tests.e2e.airflow_world import DAG, PAGE, UNDO, Airflow, Login, Story, one_each, opened_story, until
from tests.e2e.conftest import NORTH, SOUTH
from tests.e2e.fab_world import BOTH, CACHE_S, ELSEWHERE, NOBODY, Fab, opened_fab, sign_in
from tests.needs import needed

API = "api/v1"
FORMS: dict[str, dict[str, str]] = {
    "undo": {},
    "execute": {"digest": "0" * 20},
    "approve": {"digest": "0" * 20},
    "decline": {"reason": "r"},
    "redrive": {},
    "abandon": {"reason": "r"},
}
"""What each action of the API takes beside the transfer."""


@pytest.fixture(scope="module")
def fab(airflow: Airflow) -> Iterator[Fab]:
    """A second API server, with FAB's auth manager."""
    with opened_fab(airflow.stack) as fab:
        yield fab


@dataclass(frozen=True)
class People:
    """Clients of the page by user, and what an admin who has no right to the DAG of health gets for it."""

    client: dict[str, httpx.Client]
    health: int


@pytest.fixture(scope="module", params=["simple", "fab"])
def people(request: pytest.FixtureRequest, airflow: Airflow) -> Iterator[People]:
    """The two admins and an operator."""
    if request.param == "simple":
        opened, health = (
            dict.fromkeys((NORTH, SOUTH, OPERATOR), airflow.page),
            404,
        )  # its roles are for all DAGs
    else:
        fab: Fab = request.getfixturevalue("fab")
        opened, health = {NORTH: fab.page, SOUTH: fab.page_api, OPERATOR: fab.page}, 403
    with ExitStack() as stack:
        yield People({user: stack.enter_context(client(user)) for user, client in opened.items()}, health)


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


def test_an_admin_moves_and_sees_what_is_of_the_own_organisation_alone(story: Story, people: People) -> None:
    mids = {user: transferred(people.client[user], story, f"org-{user}") for user in (NORTH, SOUTH)}
    for user, other in ((NORTH, SOUTH), (SOUTH, NORTH)):
        mine, theirs = mids[user], mids[other]
        page = people.client[user]
        listed = page.get(f"{API}/transfers").json()
        assert {t["organisation_id"] for t in listed["transfers"]} == {f"org-{user}"}
        assert sum(listed["counts"].values()) == len(listed["transfers"])
        exported = page.get(f"{API}/exports/transfers").text
        assert mine in exported
        assert theirs not in exported
        assert theirs not in page.get("./").text
        assert page.get("transfer", params={"mid": mine}).status_code == 200
        assert page.get("transfer", params={"mid": theirs}).status_code == 404
        assert page.get(f"{API}/transfer", params={"mid": theirs}).status_code == 404
        assert page.get("confirm", params={"mid": theirs, "action": "undo"}).status_code == 404
        for action, more in FORMS.items():
            assert page.post(f"{API}/transfer/{action}", json={"mid": theirs, **more}).status_code == 404
        assert page.post(f"{API}/transfer/approve", json={"mid": mine, "digest": "0" * 20}).status_code == 409
        form = {"from_user": "a", "to_user": "b", "organisation_id": f"org-{other}"}
        assert page.post(f"{API}/transfers", json=form).status_code == 403
        assert page.get("reconciliations").status_code == 404
        assert page.get(f"{API}/health").status_code == people.health
    for mid in mids.values():
        shown = people.client[OPERATOR].get(f"{API}/transfer", params={"mid": mid})
        assert shown.json()["state"] == "completed"
        assert story.rows("SELECT 1 FROM event WHERE options ->> 'undo_of' = %(mid)s", mid=mid) == []


# -- FAB


@pytest.fixture(scope="module")
def mids(airflow: Airflow, fab: Fab) -> dict[str, str]:
    """A transfer of each of FAB's two admins."""
    found = {}
    with opened_story(airflow.stack) as story:
        for user in (NORTH, SOUTH):
            with fab.page_api(user) as page:
                found[user] = transferred(page, story, f"org-{user}")
    return found


@pytest.fixture(scope="module", params=["cookie", "token"])
def login(request: pytest.FixtureRequest, fab: Fab) -> Iterator[Login]:
    """A client of the page, logged in as one of FAB's users."""
    with one_each(fab.page if request.param == "cookie" else fab.page_api) as login:
        yield login


READS = (
    "./",
    "imports",
    "proven",
    "find?q=x",
    "api",
    f"{API}/transfers",
    f"{API}/imports",
    f"{API}/openapi.json",
)
WHOLE = ("reconciliations", f"{API}/health")
"""What belongs to no organisation."""


def test_what_users_of_fab_may_see(login: Login) -> None:
    def statuses(user: str, *addresses: str) -> list[int]:
        return [login(user).get(address).status_code for address in addresses]

    for user in (USER, OPERATOR, VIEWER):
        assert statuses(user, *READS, *WHOLE) == [200] * 10
    for user in (NORTH, BOTH):
        assert statuses(user, *READS, *WHOLE) == [200] * 8 + [404, 403]
    # FAB's own role lets them see all DAGs, and no right of ours names it.
    assert statuses(ELSEWHERE, *READS, *WHOLE) == [200] * 8 + [404, 404]
    assert login(ELSEWHERE).get(f"{API}/transfers").json()["transfers"] == []
    assert statuses(NOBODY, *READS, *WHOLE) == [403] * 10


def test_what_users_of_fab_may_do(login: Login, story: Story) -> None:
    one: dict[str, Any] = {
        "from_user": story.user("old", f"org-{SOUTH}"),
        "to_user": story.user("new", f"org-{SOUTH}"),
        "organisation_id": f"org-{SOUTH}",
        "dry_run": True,
    }
    file = f"from_user,to_user,organisation_id,reason\r\n{one['from_user']},{one['to_user']},{one['organisation_id']},\r\n"
    csv: dict[str, Any] = {"content": file, "headers": {"content-type": "text/csv"}}
    for user, status in ((VIEWER, 403), (NORTH, 403), (ELSEWHERE, 403), (NOBODY, 403), (BOTH, 202)):
        assert login(user).post(f"{API}/transfers", json=one).status_code == status, user
    # 422: the file is read, and its row is not among the user's organisations.
    for user, status in ((VIEWER, 403), (NORTH, 422), (NOBODY, 403), (BOTH, 202)):
        assert login(user).post(f"{API}/imports", **csv).status_code == status, user


def test_a_login_of_fab_leads_back_and_a_logout_ends_it(fab: Fab, story: Story) -> None:
    with httpx.Client(base_url=fab.url, timeout=60) as browser:
        asked = f"{PAGE}/transfer?mid=a%2Fb+c%26d"
        refused = browser.get(asked)
        assert refused.status_code == 401
        link = re.search(r'href="([^"]+)">Sign in<', refused.text)
        assert link
        address = urljoin(asked, html.unescape(link[1]))

        forged = sign_in(browser, address, NORTH, fab.password, csrf_token="forged")  # noqa: S106  # not a password
        assert forged.status_code == 400
        assert browser.get(asked).status_code == 401
        back = sign_in(browser, address, NORTH, fab.password)
        assert (back.status_code, back.headers["location"]) == (302, f"{fab.url}{asked}")
        assert browser.get(asked).status_code == 404

        form = re.search(r'name="token" value="([^"]+)"', browser.get(f"{PAGE}/imports").text)
        assert form
        sent: dict[str, Any] = {
            "data": {"token": html.unescape(form[1])},
            "files": {"file": ("a.csv", f"{story.name}\r\n")},
        }
        with fab.page(SOUTH) as other:
            assert other.post("imports", **sent).status_code == 403
        assert browser.post(f"{PAGE}/imports", **sent).status_code == 400  # it has other columns

        before = dict(browser.cookies)
        assert browser.get("/api/v2/auth/logout", follow_redirects=True).url.path == "/auth/login/"
        assert browser.get(f"{PAGE}/").status_code == 401
        assert httpx.get(f"{fab.url}{PAGE}/", cookies=before).status_code == 403


def test_airflow_s_own_api_shows_an_organisation_s_admin_no_more_than_the_manual_says(fab: Fab) -> None:
    with fab.airflow_api(NORTH) as api, fab.airflow_api(VIEWER) as viewer:
        dags = api.get("/dags").json()["dags"]
        assert {dag["dag_id"] for dag in dags} == {DAG, UNDO}
        hidden = (
            *(f"/dags/{DAG}/{what}" for what in ("dagRuns", "tasks", "dagVersions")),
            *(f"/dags/{DAG}/dagRuns/~/{what}" for what in ("taskInstances", "hitlDetails")),
            f"/dags/{DAG}/dagRuns/r/taskInstances/settle/xcomEntries",
            f"/dags/{DAG}/dagRuns/r/taskInstances/settle/logs/1",
            *("/connections", "/variables", "/eventLogs", "/importErrors", "/assets", "/pools", "/jobs"),
            f"/dagSources/{DAG}",
        )
        assert {path: s for path in hidden if (s := api.get(path).status_code) != 403} == {}
        assert api.patch("/dags/ownership_health", json={"is_paused": False}).status_code == 403
        assert api.patch(f"/dags/{DAG}", json={"is_paused": False}).status_code == 200
        assert viewer.patch(f"/dags/{DAG}", json={"is_paused": False}).status_code == 403
        # Where Airflow's navigation has the page from.
        assert "ownership-transfers/" in api.get("/plugins").text
        assert viewer.get("/plugins").status_code == 403


def test_airflow_s_navigation_leads_an_organisation_s_admin_of_fab_to_the_page(fab: Fab) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=needed("chromium"), args=list(ARGUMENTS))
        page = browser.new_page(viewport={"width": 1500, "height": 1000}, locale="en-GB")
        page.set_default_timeout(60_000)
        expect.set_options(timeout=60_000)
        page.goto(fab.url)
        page.locator("input[name=username]").fill(NORTH)
        page.locator("input[name=password]").fill(fab.password)
        page.keyboard.press("Enter")
        page.get_by_role("link", name=NAME, exact=True).click()
        frame = page.frame_locator(f"iframe[title='{NAME}']")
        expect(frame.get_by_role("heading", name="Ownership transfers")).to_be_visible()
        browser.close()


@pytest.mark.usefixtures("mids")
def test_roles_of_fab_add_up_and_one_that_is_taken_away_no_longer_counts(fab: Fab) -> None:
    def seen() -> set[str]:
        return {t["organisation_id"] for t in both.get(f"{API}/transfers").json()["transfers"]}

    with fab.page_api(BOTH) as both:
        assert seen() == {f"org-{NORTH}", f"org-{SOUTH}"}
        fab.give(BOTH, SOUTH)
        until("only the other role counts", lambda: seen() == {f"org-{SOUTH}"}, seconds=CACHE_S + 30)
        fab.give(BOTH, NORTH, SOUTH)
        until("both roles count again", lambda: len(seen()) == 2, seconds=CACHE_S + 30)


def test_the_command_line_signs_in_at_fab(fab: Fab, mids: dict[str, str]) -> None:
    def shell(*words: str) -> subprocess.CompletedProcess[str]:
        given = {"OWNERSHIP_URL": fab.url, "OWNERSHIP_USER": NORTH, "OWNERSHIP_PASSWORD": fab.password}
        return subprocess.run(
            [sys.executable, "-m", "ownership", *words],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY / "plugins"), **given},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    mine, theirs = mids[NORTH], mids[SOUTH]
    listed = shell("list", "--json")
    assert mine in listed.stdout, listed.stderr
    assert theirs not in listed.stdout
    assert (shell("show", mine).returncode, shell("show", theirs).returncode) == (0, 1)
    assert shell("undo", theirs).returncode == 1
    rehearsed = shell("undo", mine, "--wait")
    assert rehearsed.returncode == 0, rehearsed.stdout + rehearsed.stderr
