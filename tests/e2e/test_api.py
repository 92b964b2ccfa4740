"""The API and the command line on a real Airflow: who may what, one run a key, and everything that its OpenAPI says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from local.paths import REPOSITORY
from local.servers.airflow import OPERATOR, USER, VIEWER
from tests.e2e.airflow_world import (
    DAG,
    ORGANISATION,
    PAGE,
    UNDO,
    Airflow,
    Login,
    Story,
    form,
    one_each,
    opened_story,
    until,
)

API = f"{PAGE}/api/v1"
CHECKS = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance", "response_headers_conformance",
    "response_schema_conformance", "unsupported_method", "ignored_auth",
)  # fmt: skip


@pytest.fixture(scope="module")
def login(airflow: Airflow) -> Iterator[Login]:
    """A client of the API with the token of one of the stack's users."""
    with one_each(airflow.page_api) as login:
        yield login


def refused(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert problem["status"] == status
    return problem


def outcome(api: httpx.Client, answer: httpx.Response) -> dict[str, Any]:
    """What is at the location of a request, once it is final."""
    assert answer.status_code == 202, answer.text
    place = answer.request.url.join(answer.headers["location"])

    def final() -> dict[str, Any] | None:
        seen = api.get(place)
        assert seen.status_code in (200, 202), seen.text
        found: dict[str, Any] = seen.json()
        return found if found.get("final") else None

    return dict(until(f"{place} is final", final, seconds=90))


def run_ids(airflow: Airflow, dag: str) -> set[str]:
    """Of what was started by hand or by the API: the watcher and the schedule start runs at any time."""
    return {r["dag_run_id"] for r in airflow.of(dag).runs(limit=100) if r["run_type"] == "manual"}


@contextmanager
def paused(airflow: Airflow) -> Iterator[None]:
    """Runs wait meanwhile; those that were made are gone afterwards."""
    for dag in (DAG, UNDO):
        airflow.http.patch(f"/dags/{dag}", json={"is_paused": True}).raise_for_status()
    before = {dag: run_ids(airflow, dag) for dag in (DAG, UNDO)}
    try:
        yield
    finally:
        for dag, known in before.items():
            while made := run_ids(airflow, dag) - known:
                for run_id in made:
                    airflow.http.delete(airflow.of(dag)._url(run_id)).raise_for_status()
            airflow.http.patch(f"/dags/{dag}", json={"is_paused": False}).raise_for_status()


@pytest.fixture(scope="module")
def moved(airflow: Airflow) -> str:
    """Mid of a completed transfer."""
    with opened_story(airflow.stack) as story:
        old, new = story.user("old"), story.user("new")
        story.batches(old, 2)
        run_id, _ = airflow.done(form(old, new))
    return f"manual:{run_id}:0"


def with_example(described: dict[str, Any], mid: str) -> dict[str, Any]:
    """The OpenAPI with a mid that the ledger has: requests get beyond "no such transfer"."""
    for schema in described["components"]["schemas"].values():
        if "mid" in schema.get("properties", {}):
            schema["properties"]["mid"]["examples"] = [mid]
    for path in described["paths"].values():
        for operation in path.values():
            for parameter in operation.get("parameters", ()):
                if parameter["name"] == "mid":
                    parameter["schema"]["examples"] = [mid]
    return described


@pytest.mark.timeout(900)
def test_every_answer_is_as_the_openapi_says(airflow: Airflow, login: Login, moved: str, tmp_path: Path):
    api = login(OPERATOR)
    described = tmp_path / "openapi.json"
    described.write_text(json.dumps(with_example(api.get("openapi.json").json(), moved)))
    with paused(airflow):
        # One worker: where two threads parse at once, Python up to 3.11.7 ends in a SystemError (cpython 106905).
        done = subprocess.run(
            [
                sys.executable, "-m", "schemathesis.cli", "run", described, "--url", str(api.base_url),
                "--header", f"Authorization: {api.headers['authorization']}", "--checks", ",".join(CHECKS),
                "--phases", "examples,coverage,fuzzing", "--max-examples", "5", "--seed", "7", "--workers", "1",
                "--suppress-health-check", "all", "--no-color",
            ],
            cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]


def test_without_a_user_or_with_a_forged_one_there_is_no_answer_but_401_and_403(airflow: Airflow):
    url = f"{airflow.stack.addresses.airflow}{API}"
    for address in ("/transfers", "/transfer?mid=m", "/transfer/changes?mid=m", "/health", "/openapi.json"):
        refused(httpx.get(url + address), 401)
        refused(httpx.get(url + address, headers={"authorization": "Bearer forged"}), 403)
    for address in ("/transfers", "/transfers/batch", "/transfer/undo", "/transfer/abandon"):
        for kind in ("application/json", "text/plain"):
            refused(httpx.post(url + address, content=b"{", headers={"content-type": kind}), 401)


def test_a_viewer_reads_and_starts_nothing(airflow: Airflow, login: Login):
    viewer, before = login(VIEWER), run_ids(airflow, DAG)
    assert viewer.get("transfers").status_code == 200
    assert viewer.get("health").json()["open"] >= 0
    refused(viewer.post("transfers", json=form("a", "b"), headers={"idempotency-key": "k"}), 403)
    refused(viewer.post("transfers/batch", json={"transfers": [form("a", "b")]}), 403)
    refused(viewer.post("transfer/undo", json={"mid": "m"}), 403)
    refused(viewer.post("transfer/abandon", json={"mid": "m", "reason": "r"}), 403)
    assert run_ids(airflow, DAG) == before


def test_with_a_browser_s_cookie_only_json_is_taken(airflow: Airflow):
    with airflow.page(OPERATOR) as browser:
        assert browser.get("/api/v1/transfers").status_code == 200
        for kind in ("text/plain", "application/x-www-form-urlencoded"):
            body = json.dumps(form("a", "b"))
            refused(browser.post("/api/v1/transfers", content=body, headers={"content-type": kind}), 415)


def test_a_transfer_is_rehearsed_carried_out_once_and_taken_back(
    airflow: Airflow, story: Story, login: Login
):
    api = login(OPERATOR)
    old, new = story.user("old"), story.user("new")
    batches = story.batches(old, 3)
    rehearsed = outcome(api, api.post("transfers", json=form(old, new, dry_run=True)))
    assert (rehearsed["state"], rehearsed["plan"]["batches"]) == ("rehearsed", 3)

    key = {"idempotency-key": story.name}
    first, again = (
        api.post("transfers", json=form(old, new, reason="moves on"), headers=key) for _ in range(2)
    )
    assert first.json() == again.json()
    problem = refused(api.post("transfers", json=form(new, old), headers=key), 422)
    assert problem["errors"][0]["field"] == "Idempotency-Key"
    theirs = login(USER).post("transfers", json=form(old, new, dry_run=True), headers=key)
    assert outcome(api, theirs)["mid"] != first.json()["transfers"][0]["mid"]
    done = outcome(api, again)
    assert (done["state"], done["counts"]["moved"], done["request_reason"]) == ("completed", 3, "moves on")
    assert done["requested_by"] == OPERATOR
    mid = done["mid"]

    found = api.get("transfers", params={"user": new, "state": "completed"}).json()
    assert [t["mid"] for t in found["transfers"]] == [mid]
    changed = api.get("transfer/changes", params={"mid": mid}).json()["changes"]
    assert {(c["batch_id"], c["before"]["created_by"], c["after"]["created_by"]) for c in changed} == {
        (b.batch_id, old, new) for b in batches
    }
    refused(api.post("transfer/redrive", json={"mid": mid}), 409)
    back = outcome(api, api.post("transfer/undo", json={"mid": mid, "dry_run": False}))
    assert (back["state"], back["options"]["undo_of"]) == ("completed", mid)
    assert story.owners(batches) == {(old, old)}


def test_several_transfers_are_one_run_with_an_outcome_each(airflow: Airflow, story: Story, login: Login):
    api = login(OPERATOR)
    old, new = story.user("old"), story.user("new")
    batches = story.batches(old, 1)
    answer = api.post("transfers/batch", json={"transfers": [form(old, new), form(f"nobody-{old}", new)]})
    assert outcome(api, answer)["state"] == "completed"
    mids = [t["mid"] for t in answer.json()["transfers"]]
    story.completed(mids[0])
    assert api.get("transfer", params={"mid": mids[1]}).json()["state"] == "skipped"
    assert story.owners(batches) == {(new, new)}


# -- the command line


def shell(airflow: Airflow, user: str, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    a = airflow.stack.addresses
    given = {"OWNERSHIP_URL": a.airflow, "OWNERSHIP_USER": user, "OWNERSHIP_PASSWORD": a.airflow_password}
    return subprocess.run(
        [sys.executable, "-m", "ownership", *words],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY / "plugins"), **given, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def printed(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def test_the_command_line_moves_shows_and_takes_back(airflow: Airflow, story: Story):
    old, new = story.user("old"), story.user("new")
    batches = story.batches(old, 2)
    words = (old, new, ORGANISATION, "--reason", "moves on", "--wait", "--json")
    done = printed(shell(airflow, OPERATOR, "transfer", *words))
    assert (done["state"], done["counts"]["moved"]) == ("completed", 2)
    assert [t["mid"] for t in printed(shell(airflow, VIEWER, "list", "--user", new, "--json"))] == [
        done["mid"]
    ]
    changed = printed(shell(airflow, VIEWER, "show", done["mid"], "--changes", "--json"))
    assert {c["batch_id"] for c in changed} == {b.batch_id for b in batches}
    assert shell(airflow, VIEWER, "undo", done["mid"], "--apply").returncode == 1
    assert (
        printed(shell(airflow, OPERATOR, "undo", done["mid"], "--apply", "--wait", "--json"))["state"]
        == "completed"
    )
    assert story.owners(batches) == {(old, old)}


def test_a_plan_is_approved_declined_executed_abandoned_and_tried_again(
    airflow: Airflow, story: Story, login: Login
):
    """By the API and by the command line, five orders after one run."""
    api, viewer, new = login(OPERATOR), login(VIEWER), story.user("new")
    approved, declined, abandoned, planned = (story.user(f"{n}-large") for n in "abcd")
    batches = {user: story.batches(user, 2, user) for user in (approved, declined, abandoned, planned)}
    unknown = f"late-{story.name}"
    forms = [
        *(form(user, story.user(f"new-of-{user}")) for user in (approved, declined, abandoned)),
        form(planned, new, dry_run=True),
        form(unknown, story.user("new-of-late")),
    ]
    with airflow.settings(approval_batches=1):
        answer = api.post("transfers/batch", json={"transfers": forms})
        assert answer.status_code == 202, answer.text
        mids = [t["mid"] for t in answer.json()["transfers"]]
        airflow.ended(answer.json()["run_id"])
        found = [api.get("transfer", params={"mid": mid}).json() for mid in mids]
        assert [f["state"] for f in found] == [*["awaiting_approval"] * 3, "rehearsed", "skipped"]

        orders = {
            "approve": {"mid": mids[0], "digest": found[0]["digest"]},
            "decline": {"mid": mids[1], "reason": "they stay"},
            "abandon": {"mid": mids[2], "reason": "no longer needed"},
            "execute": {"mid": mids[3], "digest": found[3]["digest"]},
            "redrive": {"mid": mids[4]},
        }
        for what, body in orders.items():
            refused(viewer.post(f"transfer/{what}", json=body), 403)
        for what in ("approve", "execute"):
            refused(api.post(f"transfer/{what}", json={**orders[what], "digest": "0f" * 10}), 409)
        refused(api.post("transfer/approve", json=orders["approve"] | {"mid": mids[3]}), 409)

        story.platform.add_user(unknown, ORGANISATION)
        by_api = {what: api.post(f"transfer/{what}", json=orders[what]) for what in ("decline", "redrive")}
        words = ("--wait", "--json")
        done = printed(shell(airflow, OPERATOR, "approve", mids[0], found[0]["digest"], *words))
        assert (done["state"], done["approved_by"]) == ("completed", OPERATOR)
        done = printed(shell(airflow, OPERATOR, "abandon", mids[2], "--reason", "no longer needed", *words))
        assert (done["mid"], done["state"]) == (mids[2], "abandoned")
        assert "no longer needed" in done["reason"]
    done = printed(shell(airflow, OPERATOR, "execute", mids[3], found[3]["digest"], *words))
    assert (done["state"], done["counts"]["moved"]) == ("completed", 2)
    ended = outcome(api, by_api["decline"])
    assert (ended["state"], "they stay" in ended["reason"]) == ("declined", True)
    again = outcome(api, by_api["redrive"])
    assert (again["state"], again["mid"] != mids[4]) == ("completed", True)
    assert {user: story.owners(of) for user, of in batches.items()} == {
        approved: {(forms[0]["to_user"],) * 2},
        declined: {(declined,) * 2},
        abandoned: {(abandoned,) * 2},
        planned: {(new, new)},
    }
    # What has ended takes no more orders.
    for what in ("decline", "abandon"):
        refused(api.post(f"transfer/{what}", json=orders[what]), 409)


def test_the_command_line_s_exit_code_says_what_went_wrong(airflow: Airflow, story: Story):
    skipped = shell(
        airflow, OPERATOR, "transfer", f"nobody-{story.name}", story.user("new"), ORGANISATION, "--wait"
    )
    assert skipped.returncode == 1, skipped.stderr
    assert "skipped" in skipped.stdout
    wrong = shell(airflow, OPERATOR, "transfer", "a", "a\u200bb", ORGANISATION)
    assert (wrong.returncode, "to_user" in wrong.stderr) == (1, True)
    assert shell(airflow, OPERATOR, "health", OWNERSHIP_PASSWORD="wrong").returncode == 1  # noqa: S106  # is refused
    assert shell(airflow, OPERATOR, "health", OWNERSHIP_URL="http://127.0.0.1:9").returncode == 3
    assert shell(airflow, OPERATOR, "health", OWNERSHIP_URL="").returncode == 2


def test_the_command_line_carries_a_file_out_and_writes_what_was_done(
    airflow: Airflow, story: Story, tmp_path: Path
):
    old, new = story.user("old"), story.user("new")
    batches = story.batches(old, 2)
    file, failed, done = (tmp_path / name for name in ("leavers.csv", "failed.csv", "done.jsonl"))
    rows = [f"{user},{new},{ORGANISATION},has left" for user in (old, f"nobody-{story.name}")]
    file.write_text("\n".join(["from_user,to_user,organisation_id,reason", *rows]))
    moved = shell(
        airflow, OPERATOR, "import", str(file), "--go", "good", "--wait", "--failed", str(failed), "--json"
    )
    assert moved.returncode == 1, moved.stderr  # one row cannot be carried out
    found = json.loads(moved.stdout)
    assert (found["state"], found["moved"], found["failures"]) == ("done", 2, 1)
    assert f"nobody-{story.name}" in failed.read_text()
    assert story.owners(batches) == {(new, new)}
    words = ("export", "changes", "--user", new, "--format", "jsonl", "--output", str(done))
    assert shell(airflow, VIEWER, *words).returncode == 0
    lines = [json.loads(line) for line in done.read_text().splitlines()]
    assert {line["batch_id"] for line in lines[:-1]} == {b.batch_id for b in batches}
    assert lines[-1] == {"end": True, "rows": 2}
