"""The page over HTTP on a real Airflow: who may what, what it shows, what its buttons start."""

from __future__ import annotations

import html
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import psycopg
import pytest

from local.platform.schema import BATCH_INDEX
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

REPOSITORY = Path(__file__).parents[2]
HOSTILE = "\"><script>alert('x')</script>&amp;%2F?#"


@pytest.fixture(scope="session")
def login(airflow: Airflow) -> Iterator[Login]:
    """A client of the page, logged in as one of the stack's users."""
    with one_each(airflow.page) as login:
        yield login


@pytest.fixture
def page(login: Login) -> httpx.Client:
    """The page for somebody who may act, and is no administrator."""
    return login(OPERATOR)


def seen(page: httpx.Client, address: str, **params: str) -> str:
    answer = page.get(address, params=params)
    assert answer.status_code == 200, answer.text
    return answer.text


def confirmed(page: httpx.Client, action: str, mid: str) -> str:
    """The token of an action's confirmation."""
    found = re.search(r'name="token" value="([^"]+)"', seen(page, "/confirm", action=action, mid=mid))
    assert found
    return html.unescape(found[1])


def acted(page: httpx.Client, action: str, mid: str, reason: str = "") -> tuple[str, str]:
    """Confirm and send an action: the mid by which its outcome is seen, and the run."""
    answer = page.post("/act", data={"token": confirmed(page, action, mid), "reason": reason})
    assert answer.status_code == 303, answer.text
    body = httpx.URL(answer.headers["location"]).params
    return body["mid"], body["started"]


def a_transfer(airflow: Airflow, story: Story, count: int = 3) -> tuple[str, str, str, list[Any], str]:
    """A completed one: its mid, both users, its batches, its run."""
    old, new = story.user("old"), story.user("new")
    batches = story.batches(old, count)
    run_id, _ = airflow.done(form(old, new, reason="moves on", requested_by="an-admin"))
    return f"manual:{run_id}:0", old, new, batches, run_id


@pytest.fixture(scope="module")
def looked_at(airflow: Airflow) -> Iterator[tuple[str, str, str, list[Any], str]]:
    """The same for tests that leave it as it is."""
    with opened_story(airflow.stack) as story:
        yield a_transfer(airflow, story)


def acted_or_done(page: httpx.Client, mid: str) -> None:
    """Hurry a failed transfer, unless its stage has tried again by itself."""
    if page.get("/confirm", params={"action": "redrive", "mid": mid}).status_code == 200:
        acted(page, "redrive", mid)


@contextmanager
def read_only_index(airflow: Airflow) -> Iterator[None]:
    """Documents cannot be written meanwhile."""
    url = f"{airflow.stack.addresses.elasticsearch}/{BATCH_INDEX}/_settings"
    httpx.put(url, json={"index.blocks.write": True}).raise_for_status()
    try:
        yield
    finally:
        httpx.put(url, json={"index.blocks.write": None}).raise_for_status()


# -- who may what


@pytest.mark.parametrize("address", ["/", "/transfer?mid=m", "/confirm?mid=m&action=undo", "/api"])
def test_nobody_sees_anything_without_signing_in(airflow: Airflow, address: str):
    url = f"{airflow.stack.addresses.airflow}{PAGE}{address}"
    for headers in ({}, {"Cookie": "_token=forged"}, {"Authorization": "Bearer forged"}):
        answer = httpx.get(url, headers=headers)
        assert answer.status_code in ((401,) if not headers else (401, 403))
        assert "<table" not in answer.text
    assert httpx.post(f"{airflow.stack.addresses.airflow}{PAGE}/act").status_code == 401


def test_the_page_that_asks_to_sign_in_has_its_style_sheet(airflow: Airflow):
    url = f"{airflow.stack.addresses.airflow}{PAGE}"
    refused = httpx.get(f"{url}/imports")
    assert refused.status_code == 401
    files = re.findall(r'(?:href|src)="(static/[^"]+)"', refused.text)
    assert {f.partition("?")[0] for f in files} == {"static/icon.svg", "static/page.css", "static/page.js"}
    assert [httpx.get(f"{url}/{f}").status_code for f in files] == [200, 200, 200]


def test_a_viewer_sees_a_transfer_and_may_do_nothing_about_it(
    airflow: Airflow, story: Story, login: Login, looked_at: Any
):
    mid, old, *_ = looked_at
    viewer, operator = login(VIEWER), login(OPERATOR)
    body = seen(viewer, "/transfer", mid=mid)
    assert old in body
    assert "confirm?action" not in body
    assert viewer.get("/confirm", params={"action": "undo", "mid": mid}).status_code == 403
    # Not even with somebody else's form.
    stolen = confirmed(operator, "undo", mid)
    assert viewer.post("/act", data={"token": stolen}).status_code == 403
    assert story.state(mid) == "completed"
    assert airflow.of(UNDO).runs(limit=100) == [
        r for r in airflow.of(UNDO).runs(limit=100) if mid not in str(r["conf"])
    ]


def test_each_part_of_airflow_reports_itself_and_airflow_knows_the_worker_by_the_same_name(
    airflow: Airflow, story: Story, looked_at: Any
):
    # Without a login, as health does.
    asked = httpx.get(f"{airflow.stack.addresses.airflow}/ownership-transfers/report")
    assert (asked.status_code, asked.json()) == (200, {})

    def hosts() -> list[dict[str, Any]]:
        found = story.rows("SELECT kind, hostname, traits, clock_ahead_ms FROM host ORDER BY kind")
        return found if len(found) > 3 else []

    api_server, scheduler, triggerer, worker = found = until("all four have reported", hosts)
    assert [h["kind"] for h in found] == ["api_server", "scheduler", "triggerer", "worker"]
    assert scheduler["traits"].items() < api_server["traits"].items()
    assert {"[api] secret_key", "[api_auth] jwt_secret"} < api_server["traits"].keys()
    assert worker["traits"].items() >= (triggerer["traits"].items() - api_server["traits"].items())
    program = (
        "import json; from ownership.page.airflow_facts import tries_by_worker as t; print(json.dumps(t(0)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**airflow.stack.airflow_env, "PYTHONPATH": str(REPOSITORY / "plugins")},
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    ((name, (succeeded, _)),) = json.loads(done.stdout.splitlines()[-1]).items()
    assert (name, succeeded > 0) == (worker["hostname"], True)


def test_a_form_is_refused_that_this_page_did_not_make_for_this_user(login: Login, looked_at: Any):
    mid, *_ = looked_at
    page = login(OPERATOR)
    made = confirmed(page, "undo", mid)
    for token_ in ("", "forged", made[:-3] + "xyz", "A" * 5000):
        assert page.post("/act", data={"token": token_}).status_code in (403, 422)
    assert page.post("/act", data={"action": "undo", "mid": mid}).status_code == 403
    answer = login(USER).post("/act", data={"token": made})
    assert answer.status_code == 403
    assert "opened by another user" in answer.text
    assert page.get("/act", params={"token": made}).status_code == 405


def test_every_answer_has_a_content_security_policy_and_nothing_inline(page: httpx.Client, airflow: Airflow):
    answers = [
        page.get("/"),
        page.get("/transfer", params={"mid": "no such"}),
        page.get("/static/page.js"),
        page.get("/api"),
        page.get("/no/such/page"),
        httpx.get(f"{airflow.stack.addresses.airflow}{PAGE}/"),
    ]
    assert [a.status_code for a in answers] == [200, 404, 200, 200, 404, 401]
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        for part in (
            "default-src 'none'",
            "frame-ancestors 'self'",
            "form-action 'self'",
            "script-src 'self'",
        ):
            assert part in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        if answer.headers["content-type"].startswith("text/html"):
            assert not re.search(r"<script(?! src)|<style| style=| on\w+=", answer.text)


def test_hostile_ids_are_shown_as_text(airflow: Airflow, story: Story, page: httpx.Client):
    old, new = f"{HOSTILE}-{story.name}", story.user("new")
    run_id = airflow.trigger(form(old, new, reason=HOSTILE, requested_by=HOSTILE))
    airflow.ended(run_id)
    mid = f"manual:{run_id}:0"
    for body in (
        seen(page, "/transfer", mid=mid),
        seen(page, "/", user=old),
        seen(page, "/", run=run_id),
        page.get("/transfer", params={"mid": HOSTILE, "started": HOSTILE, "dag": HOSTILE}).text,
        page.get("/", params={"user": HOSTILE, "run": HOSTILE, "since": HOSTILE, "after": HOSTILE}).text,
        page.get("/confirm", params={"action": HOSTILE, "mid": HOSTILE}).text,
    ):
        assert "<script>alert" not in body
        assert "alert(" not in re.sub(r"&#39;|&#34;|&lt;|&gt;", "", body) or "&lt;script&gt;" in body
    assert html.escape("<script>") in seen(page, "/", user=old)


# -- what it shows


def test_a_transfer_is_found_by_user_run_and_event_with_everything_about_it(
    page: httpx.Client, looked_at: Any
):
    mid, old, new, batches, run_id = looked_at
    batch = batches[0]
    for filters in (
        {"user": old}, {"user": new.upper()}, {"run": run_id}, {"course": batch.course_id},
        {"batch": batch.batch_id, "user": new},
    ):  # fmt: skip
        body = seen(page, "/", **filters)
        assert body.count('class="row"') == 1
        assert old in body
    body = seen(page, "/", user=old, state="failed")
    assert "has no transfer from or to this user that fits" in body
    assert page.get("/find", params={"q": mid}).headers["location"].startswith("transfer?mid=")
    # A task's link leads to the run's only transfer at once.
    assert page.get("/", params={"run": run_id, "one": "1"}).status_code == 303

    body = html.unescape(seen(page, "/transfer", mid=mid))
    for words in ("3 batches moved", "an-admin", "moves on", ORGANISATION, run_id, f'{{"mids": ["{mid}"]'):
        assert words in body
    for batch in batches:
        assert batch.course_id in body
        assert batch.batch_id in body
    assert f"created by {old}" in body
    assert f"created by {new}" in body


def test_a_batch_and_what_a_user_holds_are_found_with_what_row_and_document_say(
    airflow: Airflow, story: Story, page: httpx.Client
):
    mid, old, new, (batch, stale), _ = a_transfer(airflow, story, 2)
    story.platform.put_document(stale.batch_id, createdBy="somebody-else")

    body = html.unescape(seen(page, "/find", q=batch.batch_id.upper()))
    assert f"batch?batch={batch.batch_id.upper()}" in body
    assert f"course={batch.course_id}" in body
    assert f"user?user={old}" in seen(page, "/find", q=old)
    surname = f"Rao{story.name}"
    story.platform.add_user(old, ORGANISATION, first_name="Asha", last_name=surname)
    body = html.unescape(seen(page, "/find", q=f"ASH {surname[1:]}"))
    assert f"Asha {surname}" in body
    assert f"./?user={old}" in body
    story.platform.add_course(batch.course_id, ORGANISATION, f"Intro to {surname} (2026)")
    story.platform.add_course(f"{batch.course_id}-unit", ORGANISATION, surname, primaryCategory="Course Unit")
    body = html.unescape(seen(page, "/find", q=f"TO {surname} (20"))
    assert f"Intro to {surname} (2026)" in body
    assert f"./?course={batch.course_id}" in body
    assert f"find?q={batch.course_id}" in body
    assert "-unit" not in body

    body = html.unescape(seen(page, "/batch", batch=stale.batch_id, course=stale.course_id))
    assert f'href="transfer?{urlencode({"mid": mid})}"' in body
    assert "row changed" in body
    assert "stale owner" in body
    api = page.get("/api/v1/batch/timeline", params={"batch": stale.batch_id}).json()
    assert [(s["transfer"]["mid"], s["change"]["after"]["created_by"]) for s in api["steps"]] == [(mid, new)]
    (now,) = api["now"]
    assert (now["row"], now["document"]) == ([f"created by {new}"], ["created by somebody-else"])

    # The index shows one of the two; that the other is theirs too, a transfer and its row say.
    held = page.get("/api/v1/user/batches", params={"user": new}).json()
    assert (held["total"], [b["batch_id"] for b in held["batches"]]) == (1, [batch.batch_id])
    assert [b["batch_id"] for b in held["only_rows"]] == [stale.batch_id]
    assert held["notices"] == []
    assert "Given by a transfer" in seen(page, "/user", user=new)


def test_every_hop_of_a_chain_that_was_planned_as_one_is_shown(
    airflow: Airflow, story: Story, page: httpx.Client
):
    a, b, c = (story.user(letter) for letter in ("a", "b", "c"))
    story.batches(a, 2)
    run_id, _ = airflow.done({"events": [form(a, b), form(b, c)]})
    for n in range(2):
        body = seen(page, "/transfer", mid=f"manual:{run_id}:{n}")
        lane = re.search(r'(?s)<ol class="lane">(.*?)</ol>', body)
        assert lane
        assert lane[1].count("<li") == 2
        assert f"hop {n + 1} of 2" in body
        # Also where the plan stands under the chain's first event.
        changes = re.search(r'(?s)<table class="changes">.*?</table>', body)
        assert changes
        assert changes[0].count("<time") == 4
    assert f"created by {b}" in seen(page, "/transfer", mid=f"manual:{run_id}:1")


def test_a_rejected_message_is_listed_with_its_reason_and_not_with_what_it_carries(
    story: Story, page: httpx.Client
):
    place = story.platform.emit(b'\xff{"email": "private"}')
    mid = f"rejected:{story.platform.input_topic}:{place.partition}:{place.offset}"
    until("it is rejected", lambda: story.state(mid) == "rejected")
    assert mid in seen(page, "/", state="rejected")
    body = html.unescape(seen(page, "/transfer", mid=mid))
    assert "not UTF-8" in body
    assert "redrive" in body
    assert "private" not in body


def test_a_task_instance_has_a_link_to_the_transfers_of_its_run(airflow: Airflow, looked_at: Any):
    *_, run_id = looked_at
    url = airflow._url(run_id)
    for task, index in (("settle", -1), ("transfer.update_course_batches", 0)):
        answer = airflow.http.get(f"{url}/taskInstances/{task}/links", params={"map_index": index})
        link = answer.json()["extra_links"]["Ownership transfers"]
        assert link.startswith("/plugin/ownership-transfers/ownership-transfers/?run=manual__")


def test_a_transfer_under_way_shows_a_bar_that_moves(airflow: Airflow, story: Story, page: httpx.Client):
    old, new = story.user("old"), story.user("new")
    story.batches(old, 4)
    with airflow.userorg_fails(old), read_only_index(airflow):
        run_id = airflow.trigger(form(old, new))
        mid = f"manual:{run_id}:0"

        def bar() -> int:
            answer = page.get("/transfer", params={"mid": mid, "part": "live"})
            found = re.search(r'<progress max="100" value="(\d+)"', answer.text)
            assert not found or "data-poll" in answer.text
            return int(found[1]) if found else 0

        assert until("there is a bar", bar) == 3
        assert old in seen(page, "/", state="open")
        until("User-Org has failed it", lambda: story.state(mid) == "failed")
        assert old in seen(page, "/", state="failed")
        airflow.http.delete(f"{airflow.stack.addresses.userorg}/_faults")
        until("its rows are moved", lambda: bar() == 70, seconds=120)
        body = seen(page, "/transfer", mid=mid, part="live")
        assert "4 of 4 rows moved, 0 proven in both stores" in body
    acted_or_done(page, mid)
    story.completed(mid)
    body = seen(page, "/transfer", mid=mid, part="live")
    assert "<progress" not in body
    assert "data-poll" not in body


# -- what its buttons start


def test_an_undo_is_rehearsed_its_plan_is_shown_and_it_is_taken_back_in_the_user_s_name(
    airflow: Airflow, story: Story, page: httpx.Client
):
    mid, old, new, batches, _ = a_transfer(airflow, story)
    undo = airflow.of(UNDO)

    rehearsed, run_id = acted(page, "rehearse_undo", mid)

    assert rehearsed == f"undo:{run_id}:0"
    until(
        "there is a page meanwhile",
        lambda: page.get("/transfer", params={"mid": rehearsed, "started": run_id}),
    )
    assert undo.ended(run_id) == "success"
    run = undo.run(run_id)
    assert (run["triggering_user_name"], run["conf"]["dry_run"]) == (OPERATOR, True)
    body = seen(page, "/transfer", mid=rehearsed)
    assert "3 batches would change" in body
    assert "confirm?action=execute" in body
    assert story.owners(batches) == {(new, new)}
    body = seen(page, "/confirm", action="undo", mid=mid)
    assert "What its newest dry run found" in body
    assert all(b.batch_id in body for b in batches)

    undone, run_id = acted(page, "undo", mid, "wrong person")

    assert undo.ended(run_id) == "success"
    assert story.owners(batches) == {(old, old)}
    row = story.event(undone)
    assert (row["requested_by"], row["request_reason"]) == (OPERATOR, "wrong person")
    body = seen(page, "/transfer", mid=mid)
    assert "already taken back" in body
    assert "What followed" in body


def test_a_form_that_is_sent_twice_starts_one_run(airflow: Airflow, page: httpx.Client, looked_at: Any):
    mid, *_ = looked_at
    token_ = confirmed(page, "rehearse_undo", mid)
    answers = [page.post("/act", data={"token": token_}) for _ in range(2)]
    assert [a.status_code for a in answers] == [303, 303]
    assert len({a.headers["location"] for a in answers}) == 1
    assert len([r for r in airflow.of(UNDO).runs() if mid in str(r["conf"])]) == 1


def test_a_plan_is_applied_and_a_skipped_transfer_tried_again(
    airflow: Airflow, story: Story, page: httpx.Client
):
    old, new, late = story.user("old"), story.user("new"), f"late-{story.name}"
    batches = story.batches(old, 2)
    run_id, _ = airflow.done(form(old, new, dry_run=True))
    applied, run_id = acted(page, "execute", f"manual:{run_id}:0", "as it was shown")
    assert airflow.ended(run_id) == "success"
    assert story.state(applied) == "completed"
    assert story.owners(batches) == {(new, new)}

    run_id = airflow.trigger(form(new, late))
    airflow.ended(run_id)
    mid = f"manual:{run_id}:0"
    assert story.state(mid) == "skipped"
    story.platform.add_user(late, ORGANISATION)
    again, run_id = acted(page, "redrive", mid)
    assert airflow.ended(run_id) == "success"
    assert story.state(again) == "completed"
    assert story.owners(batches) == {(late, late)}


def test_a_large_transfer_is_approved_and_another_declined(
    airflow: Airflow, story: Story, page: httpx.Client
):
    with airflow.settings(approval_batches=2):
        old, new, kept = story.user("old"), story.user("new"), story.user("kept")
        batches, theirs = story.batches(old, 3, "one"), story.batches(kept, 3, "two")
        run_id, _ = airflow.done({"events": [form(old, new), form(kept, story.user("other"))]})
        mid, other = f"manual:{run_id}:0", f"manual:{run_id}:1"
        assert "await approval" in seen(page, "/")
        assert "3" in seen(page, "/confirm", action="approve", mid=mid)

        acted(page, "approve", mid)

        story.completed(mid)
        assert story.event(mid)["approved_by"] == OPERATOR
        assert story.owners(batches) == {(new, new)}
        # A refusal needs a reason.
        assert page.post("/act", data={"token": confirmed(page, "decline", other)}).status_code == 400
        acted(page, "decline", other, "they stay")
        until("it is declined", lambda: story.state(other) == "declined")
        assert story.event(other)["reason"] == f"declined by {OPERATOR}: they stay"
        assert story.owners(theirs) == {(kept, kept)}
        answer = page.get("/confirm", params={"action": "approve", "mid": other})
        assert answer.status_code == 409
        assert "declined now" in answer.text


# -- last, because it takes the ledger away


@contextmanager
def without_ledger(airflow: Airflow) -> Iterator[None]:
    """The ledger's database refuses connections meanwhile; Airflow's own, on the same server, does not."""
    where = airflow.stack.servers["postgres"].address
    with psycopg.connect(host=where, user="postgres", dbname="postgres", autocommit=True) as connection:
        connection.execute("ALTER DATABASE ownership ALLOW_CONNECTIONS false")
        try:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'ownership'"
            )
            yield
        finally:
            connection.execute("ALTER DATABASE ownership ALLOW_CONNECTIONS true")


def test_without_the_ledger_the_page_says_so_soon_and_comes_back_by_itself(
    airflow: Airflow, page: httpx.Client, looked_at: Any
):
    mid, *_ = looked_at
    with without_ledger(airflow):
        answer = page.get("/")
        assert answer.status_code == 503
        assert "The ledger is unreachable" in answer.text
        # Airflow itself does not mind.
        assert airflow.http.get(f"/dags/{DAG}").status_code == 200
    until("the page is back", lambda: page.get("/transfer", params={"mid": mid}).status_code == 200)


def test_airflow_starts_without_the_ledger_and_the_page_finds_it_later(airflow: Airflow, page: httpx.Client):
    server = airflow.stack.servers["api-server"]
    with without_ledger(airflow):
        server.restart()
        assert airflow.http.get(f"/dags/{DAG}").status_code == 200
        answer = page.get("/")
        assert answer.status_code == 503
        assert "PostgreSQL" in answer.text
    until("the page is there", lambda: page.get("/").status_code == 200)
