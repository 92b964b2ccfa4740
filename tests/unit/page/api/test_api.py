"""The API: what it reads, what it starts, and what it refuses."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from ownership.domain.conf import orders, undo_order
from ownership.domain.organisations import VisibleOrganisations
from ownership.domain.states import EventState
from ownership.page.actions import TRANSFER_DAG, UNDO_DAG
from ownership.page.api.app import described
from ownership.page.cursors import BATCHES
from tests.unit.page.api.service import Service, looked
from tests.unit.page.rows import EVENT, MESSAGE, key

FORM = {"from_user": "old", "to_user": "new", "organisation_id": "org"}
MID = EVENT.mid
DIGEST = "0f" * 10
ON_TRANSFERS: dict[str, dict[str, Any]] = {
    "undo": {"mid": MID, "dry_run": False},
    "redrive": {"mid": MID},
    "approve": {"mid": MID, "digest": DIGEST},
    "decline": {"mid": MID, "reason": "no"},
    "execute": {"mid": MID, "digest": DIGEST},
    "abandon": {"mid": MID, "reason": "no"},
}


def state_is(service: Service, state: EventState, digest: str = DIGEST) -> None:
    service.events[MID] = EVENT._replace(state=state, digest=digest, counts={"moved": 1})


def refused(answer: httpx.Response, status: int, field: str | None = None) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert problem["status"] == status
    if field is not None:
        assert [e["field"] for e in problem["errors"]] == [field]
    return problem


# -- reads


def test_a_list_has_its_filters_and_goes_on_where_it_ended(service: Service) -> None:
    first = service.ask(
        "GET", "/transfers", params={"user": " u ", "state": "open", "since": "2026-11-23T08:00:00Z"}
    ).json()
    assert [t["state"] for t in first["transfers"]] == ["completed", "rejected"]
    assert first["counts"] == {"completed": 1}
    service.ask("GET", "/transfers", params={"after": first["next"]})
    (filters, none), (_, after) = service.asked_for
    assert (filters.user, filters.state, filters.since_ms, none) == ("u", "open", 1795420800000, None)
    assert after == key()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("state", "gone"), ("since", "yesterday"), ("after", "x"), ("user", "u" * 400), ("run", "\0"),
    ],
)  # fmt: skip
def test_a_filter_that_is_wrong_is_named(service: Service, field: str, value: str) -> None:
    problem = refused(service.ask("GET", "/transfers", params={field: value}), 422)
    assert {e["field"] for e in problem["errors"]} == {field}


@pytest.mark.parametrize(
    ("method", "address", "said"),
    [
        ("GET", "/transfers?form_user=u", "is no parameter; known are after, batch, before, course, request, run,"),
        ("GET", "/exports/transfers?format=csv&usr=u", "is no parameter; known are "),
        ("GET", "/transfer?mid=m&offset=2", "is no parameter; known are mid, run"),
        ("POST", "/imports?to_usr=u", "is no parameter; known are name, to_user"),
        ("GET", "/health?verbose=1", "is no parameter; known are none"),
        ("GET", "/transfers?user=a&user=b", "is given more than once"),
    ],
)  # fmt: skip
def test_a_parameter_that_would_have_no_effect_is_named(
    service: Service, method: str, address: str, said: str
) -> None:
    """Else the answer is everything, for a filter that was mistyped."""
    problem = refused(service.ask(method, address, content=b"", headers={"Content-Type": "text/csv"}), 422)
    (error,) = problem["errors"]
    assert error["field"] == address.rpartition("=")[0].rpartition("?")[2].rpartition("&")[2]
    assert said in error["detail"]
    assert service.asked_for == []


def test_a_transfer_is_shown_without_what_the_page_hides(service: Service) -> None:
    answer = service.ask("GET", "/transfer", params={"mid": MID})
    assert answer.status_code == 200
    found = answer.json()
    assert (found["mid"], found["state"], found["final"]) == (MID, "completed", True)
    assert found["followed_by"] == [MID]
    assert "555" not in answer.text


def test_a_rejected_message_is_a_transfer_that_is_final(service: Service) -> None:
    found = service.ask("GET", "/transfer", params={"mid": MESSAGE.mid}).json()
    assert (found["state"], found["final"], found["from_user"]) == ("rejected", True, None)


def test_a_transfer_is_coming_while_its_run_is_under_way(service: Service) -> None:
    service.runs[TRANSFER_DAG, "manual__1"] = {}
    answer = service.ask("GET", "/transfer", params={"mid": "manual:manual__1:0", "run": "manual__1"})
    assert (answer.status_code, answer.headers["retry-after"]) == (202, "1")
    assert answer.json()["started"]["state"] == "running"
    refused(service.ask("GET", "/transfer", params={"mid": "manual:manual__1:0"}), 404)


def test_changes_have_owners_before_and_after_and_go_on_where_they_ended(service: Service) -> None:
    first = service.ask("GET", "/transfer/changes", params={"mid": MID}).json()
    (change,) = first["changes"]
    assert change["before"] == {"created_by": "a", "mentors": ["m"]}
    assert change["after"]["created_by"] == "b"
    assert (change["outcome"], change["proven_at"] is None) == ("moved", False)
    last = service.ask("GET", "/transfer/changes", params={"mid": MID, "after": first["next"]}).json()
    assert last["next"] is None
    assert service.asked_for[-1][1] == ("c", "b")
    refused(service.ask("GET", "/transfer/changes", params={"mid": "none"}), 404)
    refused(service.ask("GET", "/transfer/changes", params={"mid": MID, "after": "x"}), 422, "after")


@pytest.mark.parametrize("text", ["", "x", "ImEi", "WyJhIl0", "WyJhIiwiXHUwMDAwIl0", "é", "W1tbW1tb"])
def test_what_is_no_cursor_is_none(text: str) -> None:
    assert BATCHES.key(text) is None


def test_health_is_what_the_watch_found_last(service: Service) -> None:
    assert service.ask("GET", "/health").json()["healthy"] is None
    for problems, healthy in ((None, False), ({}, True), ({"overdue": ["m"]}, False)):
        service.look = looked(problems)
        found = service.ask("GET", "/health").json()
        assert found["healthy"] is healthy
        assert (found["open"], found["awaiting_approval"], found["problems"]) == (3, 1, problems or {})


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("address", ["/transfers/", "/imports/", "/transfer/undo/"])
def test_an_address_with_a_slash_too_many_is_refused_and_not_sent_elsewhere(
    service: Service, method: str, address: str
) -> None:
    # A redirect's scheme is what the server hears: behind a proxy it would send a token without TLS.
    refused(service.ask(method, address, json=FORM if method == "POST" else None), 404)


# -- new transfers


def test_a_transfer_is_a_run_with_its_form_as_conf_and_is_seen_at_its_location(service: Service) -> None:
    answer = service.send("/transfers", {**FORM, "dry_run": True, "reason": " moves on ", "course_ids": []})
    assert answer.status_code == 202
    started = answer.json()
    conf = service.runs[TRANSFER_DAG, started["run_id"]]
    assert conf == {**FORM, "dry_run": True, "reason": "moves on", "course_ids": []}
    mid = f"manual:{started['run_id']}:0"
    assert started["transfers"] == [{"mid": mid, "href": answer.headers["location"]}]
    seen = urlsplit(answer.headers["location"])
    assert (seen.path, parse_qs(seen.query)["mid"]) == ("transfer", [mid])


def test_several_transfers_are_one_run_or_none(service: Service) -> None:
    answer = service.send("/transfers/batch", {"transfers": [FORM, {**FORM, "from_user": "old-2"}]})
    started = answer.json()
    assert [t["mid"] for t in started["transfers"]] == [f"manual:{started['run_id']}:{n}" for n in (0, 1)]
    assert answer.headers["location"].startswith("../transfer?")
    wrong = {"transfers": [FORM, {**FORM, "to_user": "a\u200bb"}, {"from_user": "x"}]}
    problem = refused(service.send("/transfers/batch", wrong), 422)
    assert [e["field"] for e in problem["errors"]] == [
        "transfers.1.to_user", "transfers.2.to_user", "transfers.2.organisation_id",
    ]  # fmt: skip
    refused(service.send("/transfers/batch", {"transfers": []}), 422, "transfers")
    refused(service.send("/transfers/batch", {"transfers": [FORM] * 1001}), 422, "transfers")
    assert len(service.runs) == 1


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"to_user": " OLD "}, "to_user"),
        ({"to_user": None}, "to_user"),
        ({"to_user": ""}, "to_user"),
        ({"to_user": 7}, "to_user"),
        ({"organisation_id": "o" * 257}, "organisation_id"),
        ({"from_user": "a\0b"}, "from_user"),
        ({"course_ids": ["c", " "]}, "course_ids.1"),
        ({"statuses": []}, "statuses"),
        ({"dry_run": "yes"}, "dry_run"),
        ({"reason": "r" * 501}, "reason"),
        ({"fromUser": "x"}, "fromUser"),
        ({"redrive": {"mids": ["m"]}}, "redrive"),
    ],
)
def test_a_field_of_a_transfer_that_is_wrong_is_named_and_nothing_starts(
    service: Service, wrong: dict[str, Any], field: str
) -> None:
    problem = refused(service.send("/transfers", {**FORM, **wrong}), 422, field)
    assert problem["detail"].startswith(field)
    assert not service.runs


def test_the_same_key_starts_one_run(service: Service) -> None:
    first, again = (service.send("/transfers", FORM, "k") for _ in range(2))
    assert first.json() == again.json()
    assert again.status_code == 202
    assert len(service.runs) == 1
    refused(service.send("/transfers", {**FORM, "to_user": "other"}, "k"), 422, "Idempotency-Key")
    service.user = "operator-2"
    assert service.send("/transfers", {**FORM, "to_user": "other"}, "k").status_code == 202
    assert service.send("/transfers/batch", {"transfers": [FORM]}, "k").status_code == 202
    assert len(service.runs) == 3


@pytest.mark.parametrize("wrong", ["", "k" * 201, "a b", "clé".encode()])
def test_a_key_that_cannot_be_one_is_refused(service: Service, wrong: Any) -> None:
    answer = service.ask("POST", "/transfers", json=FORM, headers={b"Idempotency-Key": wrong})
    refused(answer, 422, "Idempotency-Key")
    assert not service.runs


@pytest.mark.parametrize(("says", "status"), [(400, 400), (403, 403), (404, 404), (409, 409), (500, 502)])
def test_what_airflow_refuses_is_answered_as_it_says(service: Service, says: int, status: int) -> None:
    service.airflow_says = says
    problem = refused(service.send("/transfers", FORM), status)
    assert "not today" in problem["detail"]
    refused(service.send("/transfers", FORM, "k"), status)


# -- actions


@pytest.mark.parametrize(
    ("action", "state", "dag", "conf", "mid"),
    [
        ("undo", EventState.COMPLETED, UNDO_DAG, {"mids": [MID], "dry_run": False}, "undo:{run}:0"),
        ("redrive", EventState.FAILED, TRANSFER_DAG, {"redrive": {"mids": [MID]}}, MID),
        ("redrive", EventState.SKIPPED, TRANSFER_DAG, {"redrive": {"mids": [MID]}}, "redrive:{run}:0"),
        ("approve", EventState.AWAITING_APPROVAL, TRANSFER_DAG, {"approve": ON_TRANSFERS["approve"]}, MID),
        ("decline", EventState.AWAITING_APPROVAL, TRANSFER_DAG, {"decline": ON_TRANSFERS["decline"]}, MID),
        (
            "execute", EventState.REHEARSED, TRANSFER_DAG, {"execute_plan": MID, "digest": DIGEST},
            "execute:{run}",
        ),
        ("abandon", EventState.RECEIVED, TRANSFER_DAG, {"abandon": {"mids": [MID], "reason": "no"}}, MID),
    ],
)  # fmt: skip
def test_an_action_is_a_run_of_its_dag_and_says_where_the_outcome_is_seen(
    service: Service, action: str, state: EventState, dag: str, conf: dict[str, Any], mid: str
) -> None:
    state_is(service, state)
    answer = service.send(f"/transfer/{action}", ON_TRANSFERS[action])
    assert answer.status_code == 202, answer.text
    started = answer.json()
    assert service.runs == {(dag, started["run_id"]): conf}
    assert any(undo_order(conf) if dag == UNDO_DAG else orders(conf))  # as the run reads it
    assert [t["mid"] for t in started["transfers"]] == [mid.format(run=started["run_id"])]


def test_an_undo_is_a_dry_run_unless_it_says_otherwise(service: Service) -> None:
    state_is(service, EventState.COMPLETED)
    service.send("/transfer/undo", {"mid": MID, "reason": "why"})
    assert list(service.runs.values()) == [{"mids": [MID], "dry_run": True, "reason": "why"}]


@pytest.mark.parametrize("action", ON_TRANSFERS)
def test_an_action_that_does_not_apply_starts_nothing(service: Service, action: str) -> None:
    state_is(service, EventState.DECLINED)
    problem = refused(service.send(f"/transfer/{action}", ON_TRANSFERS[action]), 409)
    assert "declined" in problem["detail"]
    service.events.clear()
    refused(service.send(f"/transfer/{action}", ON_TRANSFERS[action]), 404)
    assert not service.runs


def test_a_plan_that_is_another_by_now_is_not_approved(service: Service) -> None:
    state_is(service, EventState.AWAITING_APPROVAL, "ab" * 10)
    refused(service.send("/transfer/approve", ON_TRANSFERS["approve"]), 409, "digest")


def test_an_action_that_was_sent_again_is_answered_as_before_though_it_no_longer_applies(
    service: Service,
) -> None:
    state_is(service, EventState.AWAITING_APPROVAL)
    first = service.send("/transfer/decline", ON_TRANSFERS["decline"], "k")
    state_is(service, EventState.DECLINED)
    again = service.send("/transfer/decline", ON_TRANSFERS["decline"], "k")
    assert (again.status_code, again.json()) == (202, first.json())
    other = {**ON_TRANSFERS["decline"], "reason": "another"}
    refused(service.send("/transfer/decline", other, "k"), 422, "Idempotency-Key")


@pytest.mark.parametrize(
    "address", ["/transfers", "/transfers/batch", *(f"/transfer/{a}" for a in ON_TRANSFERS)]
)
def test_who_may_not_start_the_dag_starts_nothing(service: Service, address: str) -> None:
    service.allowed = set()
    state_is(service, EventState.COMPLETED)
    body: Any = ON_TRANSFERS.get(address.rpartition("/")[2])
    body = body or ({"transfers": [FORM]} if address.endswith("batch") else FORM)
    refused(service.send(address, body), 403)
    assert not service.runs


# -- the description


def test_the_openapi_has_every_route_and_its_errors_as_problems() -> None:
    paths = described()["paths"]
    assert set(paths) >= {"/transfers", "/transfers/batch", "/transfer", "/transfer/changes", "/health"}
    for path in paths.values():
        for operation in path.values():
            assert operation["security"]
            errors = [a for status, a in operation["responses"].items() if int(status) >= 400]
            assert all(list(a["content"]) == ["application/problem+json"] for a in errors)


def test_the_openapi_has_a_body_for_every_write_because_none_is_refused() -> None:
    writes = {p: of["post"] for p, of in described()["paths"].items() if "post" in of}
    assert len(writes) >= 11
    assert [path for path, write in writes.items() if "requestBody" not in write] == []


def test_the_openapi_has_both_ways_to_send_a_file() -> None:
    body = described()["paths"]["/imports"]["post"]["requestBody"]
    assert set(body["content"]) == {"text/csv", "multipart/form-data"}


# -- organisations


def test_a_transfer_is_started_only_of_the_user_s_organisations(service: Service) -> None:
    service.visible = VisibleOrganisations(frozenset({"mine"}))
    own, other = ({"from_user": "a", "to_user": "b", "organisation_id": o} for o in ("mine", "theirs"))
    answer = service.send("/transfers", other)
    assert answer.status_code == 403
    assert answer.json()["errors"][0]["field"] == "organisation_id"
    answer = service.send("/transfers/batch", {"transfers": [own, other, own]})
    assert answer.status_code == 403
    assert [e["field"] for e in answer.json()["errors"]] == ["transfers.1.organisation_id"]
    assert service.runs == {}
    assert service.send("/transfers", own).status_code == 202


def test_the_whole_job_s_health_is_for_those_from_whom_nothing_is_hidden(service: Service) -> None:
    service.visible = VisibleOrganisations(frozenset({"mine"}))
    assert service.ask("GET", "/health").status_code == 404


# -- names


def test_names_of_the_event_stand_beside_the_ids(service: Service) -> None:
    listed = service.ask("GET", "/transfers").json()["transfers"]
    assert [(t["from_name"], t["to_name"]) for t in listed] == [(None, "Ada"), (None, None)]
    one = service.ask("GET", "/transfer", params={"mid": MID}).json()
    assert (one["from_name"], one["to_name"]) == (None, "Ada")
