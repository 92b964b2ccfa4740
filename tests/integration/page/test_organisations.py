"""Two organisations, an admin each: neither sees, counts, starts or ends anything of the other's.

Everything between the request and the ledger is real; Airflow's own checks let everyone do everything.
"""

from __future__ import annotations

import asyncio
import html
import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fastapi import Request

from ownership.domain.errors import MissingConnection, Unavailable
from ownership.domain.event import OrderKey, Transfer
from ownership.domain.settings import Settings
from ownership.domain.states import FINAL_STATES
from ownership.ledger.arrivals import Arrival, Arrivals, Origin
from ownership.ledger.database import Database
from ownership.ledger.events import RejectedMessage
from ownership.page import access, airflow_facts
from ownership.page import app as module
from ownership.page.actions import ACTIONS, TRANSFER_DAG, UNDO_DAG
from ownership.page.api import orders
from ownership.page.api.app import api
from ownership.page.names import process_names
from ownership.page.platform import process_platform
from ownership.page.routes import actions
from ownership.page.settings import CachedSettings, process_settings
from ownership.page.store import Store, process_store
from ownership.platform.name_search import FoundNames, Named
from ownership.platform.user_org import Lookup, Refusal, Standing, User
from tests.integration.page.conftest import opened

ORGANISATIONS = ("north", "south")
DIGEST = "0f" * 10
STATES = ("completed", "failed", "skipped", "awaiting_approval", "rehearsed", "received")
MESSAGE = "rejected:topic:0:77"
RIGHTS: list[dict[str, Any]] = [
    {"role": "Admin", "organisations": "*"},
    {"role": "north-admin", "organisations": ["north"]},
    {"role": "south-admin", "organisations": ["south"]},
]
API = "/api/v1"


def mid_of(organisation: str, state: str) -> str:
    return f"{organisation}.{state}"


def fill(database: Database) -> None:
    """For each organisation an event in each state; run, course and request are shared."""
    arrivals, n = Arrivals(database), 0
    for organisation in ORGANISATIONS:
        for state in STATES:
            n += 1
            key = OrderKey(1_700_000_000_000 + n, 0, n, mid_of(organisation, state))
            transfer = Transfer(key, f"old-{organisation}-{state}", f"new-{organisation}-{state}")
            origin = Origin("kafka", "topic", 0, n, key.t)
            body = json.dumps({"edata": {"fromUserProfile": {"firstName": f"Person{organisation}"}}}).encode()
            arrivals.store([Arrival(transfer, origin, body, organisation, request_id="request-shared")])
    arrivals.store([], [RejectedMessage(MESSAGE, "kafka", "topic", 0, 77, 1, None, b"{", "no JSON", None)])

    def finish(connection: Any) -> None:
        final = "', '".join(FINAL_STATES)
        connection.exec_driver_sql(
            "UPDATE event SET state = split_part(mid, '.', 2), run_id = 'run-shared', counts = '{\"moved\": 1}', "
            f"digest = '{DIGEST}', "
            f"ended_at = CASE WHEN split_part(mid, '.', 2) IN ('{final}') THEN now() END, "
            "completed_at = CASE split_part(mid, '.', 2) WHEN 'completed' THEN now() END"
        )
        connection.exec_driver_sql(
            "DELETE FROM queue USING event WHERE event_id = id AND ended_at IS NOT NULL"
        )
        connection.exec_driver_sql("INSERT INTO event_run SELECT 'run-shared', id FROM event")
        connection.exec_driver_sql(
            "INSERT INTO plan (event_id, course_id, batch_id, before_created_by, before_mentors, outcome) "
            "SELECT id, 'course-shared', 'batch-' || organisation_id, from_user, '{}', 'moved' FROM event"
        )

    database.run(finish)


class Page:
    """The page and its API, asked by users; the runs that they start are only noted."""

    def __init__(self) -> None:
        self.rights: list[dict[str, Any]] = RIGHTS
        self.runs: list[dict[str, Any]] = []

    def ask(self, who: str, method: str, address: str, **how: Any) -> httpx.Response:
        async def answered() -> httpx.Response:
            transport = httpx.ASGITransport(module.page)
            async with httpx.AsyncClient(
                transport=transport, base_url="http://page", headers={"x-role": who}
            ) as client:
                return await client.request(method, address, **how)

        return asyncio.run(answered())

    def get(self, who: str, address: str, **query: str) -> httpx.Response:
        return self.ask(who, "GET", address, params=query or None)

    async def trigger(self, _request: Any, _dag: str, _run: str, conf: dict[str, Any]) -> httpx.Response:
        self.runs.append(conf)
        return httpx.Response(200, json={})

    def settings(self) -> CachedSettings:
        return CachedSettings(lambda: Settings.parse(json.dumps({"page.organisations": self.rights})))


def down(_question: Any) -> Any:
    raise Unavailable("store", "not asked here")


class ByName:
    """A service that has something by name for each organisation."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def named(self, text: str, organisations: frozenset[str] | None, *, limit: int) -> FoundNames:
        all_named = [Named(f"{self.kind}-{o}-failed", f"Person {o}", o) for o in ORGANISATIONS]
        fit = [n for n in all_named if organisations is None or n.organisation_id in organisations]
        return FoundNames(fit[:limit] if text == "Person" else [], more=False)


class Users(ByName):
    """User-Org, where a user's organisation is the second part of the id, or the account is deleted."""

    def read_all(self, user_ids: list[str]) -> Iterator[tuple[str, Lookup]]:
        for user_id in user_ids:
            match user_id.split("-"):
                case [_, "down", *_]:
                    yield user_id, Unavailable("User-Org", "down")
                case [_, "deleted", *_]:
                    yield user_id, Refusal(user_id, Standing.DELETED, "blocked")
                case [_, organisation, *_]:
                    yield user_id, User(user_id, organisation)


def ask_users(question: Any) -> Any:
    return question(Users("old"))


def ask_courses(question: Any) -> Any:
    return question(ByName("course"))


@pytest.fixture(scope="module")
def ledger(server: dict[str, Any]) -> Iterator[dict[str, Any]]:
    database = opened(server, "organisations")
    fill(database)
    yield {k: v for k, v in server.items() if k != "socket"} | {"dbname": "organisations"}
    database.close()


@pytest.fixture
def page(ledger: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[Page]:
    made, store = Page(), Store(lambda: ledger)
    monkeypatch.setenv("AIRFLOW__API__SECRET_KEY", "a key of this test")
    monkeypatch.setattr(airflow_facts, "runs_of", lambda *_: {})
    monkeypatch.setattr(access, "may_start", lambda _: {TRANSFER_DAG, UNDO_DAG})
    monkeypatch.setattr(access, "check_start", lambda *_: None)
    monkeypatch.setattr(airflow_facts, "is_paused", lambda _: False)
    monkeypatch.setattr(airflow_facts, "last_look", lambda: None)
    monkeypatch.setattr(orders, "trigger", made.trigger)
    monkeypatch.setattr(actions, "trigger", made.trigger)

    def user(request: Request) -> Any:
        role = request.headers["x-role"]
        return SimpleNamespace(get_id=lambda: role, get_name=lambda: role, role=role)

    silent = SimpleNamespace(ask=down)
    names = SimpleNamespace(of=lambda *_: {}, pairs=lambda *_: {})
    given = {
        access.User.__metadata__[0].dependency: user,  # type: ignore[attr-defined]  # an Annotated
        access.MayRead.dependency: lambda: None,
        access.MayReadHealth.dependency: lambda: None,
        process_store: lambda: store,
        process_settings: made.settings,
        process_names: lambda: names,
        process_platform: lambda: SimpleNamespace(
            index=silent,
            rows=silent,
            users=SimpleNamespace(ask=ask_users),
            courses=SimpleNamespace(ask=ask_courses),
        ),
    }
    for app in (module.app, api):
        monkeypatch.setattr(app, "dependency_overrides", given)
    yield made
    store.close()


PAIRS = [pytest.param("north", "south", id="north"), pytest.param("south", "north", id="south")]


def lists(organisation: str) -> list[dict[str, str]]:
    """Filters of lists that concern an organisation, alone or among others."""
    return [
        {},
        *({"state": state} for state in (*STATES, "open", "rejected")),
        {"run": "run-shared"},
        {"course": "course-shared"},
        {"request": "request-shared"},
        {"batch": f"batch-{organisation}"},
        {"user": f"old-{organisation}-failed"},
        {"since": "2020-01-01T00:00"},
    ]


@pytest.mark.parametrize(("mine", "theirs"), PAIRS)
def test_lists_show_and_count_one_s_own_alone(page: Page, mine: str, theirs: str) -> None:
    for query in (*lists(theirs), *lists(mine)):
        answer = page.get(f"{mine}-admin", "/", **query)
        assert answer.status_code == 200
        shown = answer.text
        for value in query.values():  # the form repeats what was asked for
            shown = shown.replace(value, "")
        for word in (f"{theirs}.", f"-{theirs}", f"Person{theirs}", MESSAGE):
            assert word not in shown, query
    found = page.get(f"{mine}-admin", "/").text
    assert all(mid_of(mine, s) in found for s in STATES)
    assert "Rows and index" not in found
    every = page.get("Admin", "/").text
    assert all(mid_of(o, s) in every for o in ORGANISATIONS for s in STATES)
    assert MESSAGE in every.replace("%3A", ":")


@pytest.mark.parametrize(("mine", "theirs"), PAIRS)
def test_the_api_lists_and_counts_one_s_own_alone(page: Page, mine: str, theirs: str) -> None:
    for query in ({}, {"run": "run-shared"}, {"course": "course-shared"}, {"request": "request-shared"}):
        found = page.get(f"{mine}-admin", f"{API}/transfers", **query).json()
        assert {t["mid"] for t in found["transfers"]} == {mid_of(mine, s) for s in STATES}, query
        assert found["counts"] == dict.fromkeys(STATES, 1), query
    for query in ({"batch": f"batch-{theirs}"}, {"user": f"old-{theirs}-failed"}, {"state": "rejected"}):
        found = page.get(f"{mine}-admin", f"{API}/transfers", **query).json()
        assert (found["transfers"], found["counts"], found["cut"]) == ([], found["counts"], False)
    arrived = page.get(f"{mine}-admin", f"{API}/request", request="request-shared").json()
    assert (arrived["arrived"], arrived["rejected"]) == (len(STATES) - 1, 0)  # a dry run proves nothing
    days = page.get(f"{mine}-admin", f"{API}/proven").json()["days"]
    every = page.get("Admin", f"{API}/proven").json()["days"]
    assert days[0]["unproven"] * 2 == every[0]["unproven"] > 0


def everything_of(mid: str) -> list[tuple[str, str, dict[str, Any]]]:
    """Each request that names one transfer."""
    post = {
        "undo": {"mid": mid}, "execute": {"mid": mid, "digest": DIGEST}, "approve": {"mid": mid, "digest": DIGEST},
        "decline": {"mid": mid, "reason": "r"}, "redrive": {"mid": mid}, "abandon": {"mid": mid, "reason": "r"},
    }  # fmt: skip
    return [
        ("GET", "/transfer", {"params": {"mid": mid}}),
        ("GET", "/transfer", {"params": {"mid": mid, "part": "live"}}),
        ("GET", "/transfer", {"params": {"mid": mid, "started": "run-shared"}}),
        *(("GET", "/confirm", {"params": {"mid": mid, "action": a}}) for a in ACTIONS),
        ("GET", f"{API}/transfer", {"params": {"mid": mid}}),
        ("GET", f"{API}/transfer/changes", {"params": {"mid": mid}}),
        *(("POST", f"{API}/transfer/{name}", {"json": body}) for name, body in post.items()),
    ]


@pytest.mark.parametrize(("mine", "theirs"), PAIRS)
@pytest.mark.parametrize("state", [*STATES, "message"])
def test_a_transfer_of_the_other_organisation_is_answered_like_one_that_does_not_exist(
    page: Page, mine: str, theirs: str, state: str
) -> None:
    hidden = MESSAGE if state == "message" else mid_of(theirs, state)
    absent = "".join("x" if c.isalnum() else c for c in hidden)
    requests = zip(everything_of(hidden), everything_of(absent), strict=True)
    for (method, address, how), (_, _, of_absent) in requests:
        found = page.ask(f"{mine}-admin", method, address, **how)
        other = page.ask(f"{mine}-admin", method, address, **of_absent)
        assert found.status_code == other.status_code == 404, (address, how)
        assert found.text.replace(hidden, absent) == other.text, (address, how)
    assert page.runs == []


@pytest.mark.parametrize("mine", ORGANISATIONS)
def test_one_s_own_transfers_can_be_seen_and_acted_on(page: Page, mine: str) -> None:
    who = f"{mine}-admin"
    for state in STATES:
        assert page.get(who, "/transfer", mid=mid_of(mine, state)).status_code == 200
    of = {"undo": "completed", "redrive": "failed", "approve": "awaiting_approval", "execute": "rehearsed"}
    for action, state in of.items():
        assert page.get(who, "/confirm", mid=mid_of(mine, state), action=action).status_code == 200
        body = {"mid": mid_of(mine, state)} | ({"digest": DIGEST} if action in ("approve", "execute") else {})
        assert page.ask(who, "POST", f"{API}/transfer/{action}", json=body).status_code == 202
    assert len(page.runs) == len(of)


def test_a_form_that_was_opened_before_a_right_was_taken_starts_nothing(page: Page) -> None:
    mid = mid_of("south", "completed")
    page.rights = [{"role": "north-admin", "organisations": ["north", "south"]}]
    opened_form = page.get("north-admin", "/confirm", mid=mid, action="undo").text
    token = opened_form.split('name="token" value="')[1].split('"')[0]
    page.rights = RIGHTS
    assert page.ask("north-admin", "POST", "/act", data={"token": token}).status_code == 404
    assert page.runs == []
    page.rights = [{"role": "north-admin", "organisations": ["south"]}]
    assert page.ask("north-admin", "POST", "/act", data={"token": token}).status_code == 303
    assert len(page.runs) == 1


@pytest.mark.parametrize(("mine", "theirs"), PAIRS)
def test_transfers_are_started_of_one_s_own_organisation_only(page: Page, mine: str, theirs: str) -> None:
    own, other = ({"from_user": "a", "to_user": "b", "organisation_id": o} for o in (mine, theirs))
    for address, body in (("transfers", other), ("transfers/batch", {"transfers": [own, other]})):
        answer = page.ask(f"{mine}-admin", "POST", f"{API}/{address}", json=body)
        assert answer.status_code == 403
        assert "organisation_id" in answer.json()["errors"][0]["field"]
    assert page.runs == []
    assert page.ask(f"{mine}-admin", "POST", f"{API}/transfers", json=own).status_code == 202


@pytest.mark.parametrize(
    "address",
    ["/reconciliations", f"{API}/health"],
)
def test_what_belongs_to_no_organisation_is_for_those_who_see_everything(page: Page, address: str) -> None:
    assert page.get("Admin", address).status_code == 200
    assert page.get("north-admin", address).status_code == 404
    assert page.get("somebody", address).status_code == 404


@pytest.mark.parametrize(("mine", "theirs"), PAIRS)
def test_questions_are_answered_of_one_s_own(page: Page, mine: str, theirs: str) -> None:
    who = f"{mine}-admin"
    for text in (f"old-{theirs}-failed", f"batch-{theirs}", MESSAGE):
        answer = page.get(who, "/find", q=text)
        assert answer.status_code == 200
        assert answer.text.replace(text, "x" * 7) == page.get(who, "/find", q="x" * 7).text
    assert page.get(who, "/find", q=mid_of(theirs, "failed")).status_code == 200
    assert page.get(who, "/find", q=f" {mid_of(mine, 'failed')} ").status_code == 303
    assert page.get(who, "/find", q="m" * 320).status_code == 200  # as long as a mid may be
    assert "is known" not in page.get(who, "/find", q="  ").text
    assert "batch?" in page.get(who, "/find", q=f"batch-{mine}").text
    assert page.get(who, f"{API}/batch/timeline", batch=f"batch-{theirs}").json()["steps"] == []
    assert len(page.get(who, f"{API}/batch/timeline", batch=f"batch-{mine}").json()["steps"]) == len(STATES)


@pytest.mark.parametrize(("mine", "theirs"), PAIRS)
def test_users_and_courses_are_found_by_name_of_one_s_own_organisation(
    page: Page, mine: str, theirs: str
) -> None:
    found = page.get(f"{mine}-admin", "/find", q="Person").text
    assert f"./?user=old-{mine}-failed" in found
    assert f"./?course=course-{mine}-failed" in found
    # To those who see everything alone does a search for a course show its batches.
    assert "find?q=course" not in found
    assert theirs not in found
    everything = page.get("Admin", "/find", q="Person").text
    for o in (mine, theirs):
        assert f"user?user=old-{o}-failed" in everything
        assert f"find?q=course-{o}-failed" in everything
    assert "Person" not in page.get("somebody", "/find", q="Perso").text


def test_without_a_connection_to_the_optional_content_search_a_sentence_says_what_to_set(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    def named(*_: Any, **__: Any) -> FoundNames:
        raise MissingConnection("Connection 'x' is missing: add it.")

    monkeypatch.setattr(ByName, "named", named)
    found = html.unescape(page.get("Admin", "/find", q="Person").text)
    assert "Courses were not looked for by name. Connection 'x' is missing: add it." in found
    # User-Org is no such service.
    assert "Not everything could be asked: Connection 'x' is missing: add it." in found
    assert "Connection" not in page.get("Admin", "/find", q="P").text


@pytest.mark.parametrize(("mine", "theirs"), PAIRS)
@pytest.mark.parametrize("address", ["/user", f"{API}/user/batches"])
def test_what_a_user_holds_is_for_the_admin_of_the_user_s_organisation(
    page: Page, mine: str, theirs: str, address: str
) -> None:
    who = f"{mine}-admin"
    assert page.get(who, address, user=f"old-{mine}-failed").status_code == 200
    # By User-Org's word, not the ledger's: anybody may name their own organisation in an event.
    for other in (f"old-{theirs}-failed", "old-deleted"):
        assert page.get(who, address, user=other).status_code == 404
    assert page.get(who, address, user="old-down").status_code == 503
    assert page.get("somebody", address, user=f"old-{mine}-failed").status_code == 404
    assert page.get("Admin", address, user="old-deleted").status_code == 200


@pytest.mark.parametrize(("mine", "theirs"), PAIRS)
def test_exports_have_one_s_own_alone(page: Page, mine: str, theirs: str) -> None:
    for query in ({}, {"run": "run-shared"}, {"course": "course-shared"}, {"request": "request-shared"}):
        *rows, _count = page.get(
            f"{mine}-admin", f"{API}/exports/transfers", format="jsonl", **query
        ).text.splitlines()
        assert {json.loads(r)["mid"] for r in rows} == {mid_of(mine, s) for s in STATES}, query
    for kind in ("transfers", "changes"):
        of_one = page.get(f"{mine}-admin", f"{API}/exports/{kind}", mid=mid_of(theirs, "completed"))
        assert (of_one.status_code, len(of_one.text.splitlines())) == (200, 1)
        assert theirs not in page.get(f"{mine}-admin", f"{API}/exports/{kind}").text
    assert MESSAGE in page.get("Admin", f"{API}/exports/transfers").text


def test_a_user_without_a_right_sees_nothing(page: Page) -> None:
    found = page.get("somebody", f"{API}/transfers").json()
    assert (found["transfers"], found["counts"]) == ([], {})
    assert page.get("somebody", f"{API}/transfer", mid=mid_of("north", "failed")).status_code == 404
    page.rights = [{"role": "north-admin"}]
    assert page.get("north-admin", "/").status_code == 503
    assert page.get("north-admin", f"{API}/transfers").status_code == 503
