"""One message for a run that needs somebody, by mail and to a webhook, from a real Airflow."""

from __future__ import annotations

import email
import email.policy
import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.e2e.airflow_world import UNDO, Airflow, Story, form, until

HOST = "127.0.0.1"


class Received:
    """What came in, by mail and as JSON."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.posts: list[dict[str, Any]] = []

    def of(self, run_id: str) -> tuple[list[EmailMessage], list[dict[str, Any]]]:
        """What tells of one run."""
        return (
            [m for m in self.mails if run_id in str(m["Subject"])],
            [p for p in self.posts if p["run_id"] == run_id],
        )


@contextmanager
def served(server: socketserver.BaseServer) -> Iterator[int]:
    """A server on a port of its own while the test runs."""
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield int(server.server_address[1])  # type: ignore[index]  # host and port
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def mail_server(received: Received) -> socketserver.BaseServer:
    """As much of SMTP as a client needs to hand over a mail."""

    class Handler(socketserver.StreamRequestHandler):
        timeout = 30

        def handle(self) -> None:
            self.say("220 here")
            while line := self.rfile.readline():
                word = line[:4].upper()
                if word == b"DATA":
                    self.say("354 go on")
                    lines = list(iter(self.rfile.readline, b".\r\n"))
                    received.mails.append(
                        email.message_from_bytes(b"".join(lines), policy=email.policy.default)
                    )
                self.say("221 bye" if word == b"QUIT" else "250 fine")
                if word == b"QUIT":
                    return

        def say(self, text: str) -> None:
            self.wfile.write(f"{text}\r\n".encode())

    return socketserver.ThreadingTCPServer((HOST, 0), Handler)


def webhook_server(received: Received) -> socketserver.BaseServer:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.posts.append(json.loads(body))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    return ThreadingHTTPServer((HOST, 0), Handler)


@pytest.fixture
def received(airflow: Airflow) -> Iterator[Received]:
    """Both servers, and Airflow's Connections to them."""
    found = Received()
    with ExitStack() as stack:
        mail = stack.enter_context(served(mail_server(found)))
        hook = stack.enter_context(served(webhook_server(found)))
        extra = {"from_email": "transfers@example.org", "disable_ssl": True, "disable_tls": True}
        for body in (
            {"connection_id": "smtp_default", "conn_type": "smtp", "host": HOST, "port": mail, "extra": json.dumps(extra)},
            {"connection_id": "announced", "conn_type": "http", "host": f"http://{HOST}:{hook}/ownership"},
        ):  # fmt: skip
            airflow.http.delete(f"/connections/{body['connection_id']}")
            airflow.http.post("/connections", json=body).raise_for_status()
            stack.callback(airflow.http.delete, f"/connections/{body['connection_id']}")
        stack.enter_context(
            airflow.settings(
                notify_email_to="one@example.org, two@example.org", notify_webhook_connection="announced"
            )
        )
        yield found


def announced(received: Received, run_id: str) -> tuple[EmailMessage, dict[str, Any]]:
    """The one mail and the one post of a run."""

    def both() -> bool:
        mails, posts = received.of(run_id)
        return bool(mails and posts)

    until(f"both tell of {run_id}", both, seconds=30)
    mails, posts = received.of(run_id)
    assert (len(mails), len(posts)) == (1, 1)
    return mails[0], posts[0]


def test_a_run_that_leaves_a_transfer_to_an_approval_sends_one_message_and_none_for_a_failure_that_healed(
    airflow: Airflow, story: Story, received: Received
):
    large, x, stuck, y = (story.user(letter) for letter in ("large", "x", "stuck", "y"))
    story.batches(large, 3, "large")
    transfers = [form(old, new) for old, new in ((large, x), (stuck, y))]
    with airflow.settings(approval_batches=2):
        with airflow.userorg_fails(stuck):
            run_id = airflow.trigger({"events": transfers})
            mid = f"manual:{run_id}:1"
            until("it fails", lambda: story.state(mid) == "failed", seconds=120)
        ended = airflow.ended(run_id, seconds=180)

    assert ended == "success"  # the retry succeeded; what is left is the approval
    mail, post = announced(received, run_id)
    assert (post["kinds"], post["counts"]) == (["approval_wanted"], {"approval_wanted": 1})
    (approval,) = post["approvals"]
    assert approval["mid"] == f"manual:{run_id}:0"
    assert post["users"] == {f"manual:{run_id}:0": f"{large} → {x}"}
    assert post["link"].startswith(airflow.stack.addresses.airflow)
    assert json.loads(post["next_step"][0]["conf"]) == {
        "approve": {"mid": approval["mid"], "digest": approval["digest"]}
    }
    assert mail["To"] == "one@example.org, two@example.org"
    html = mail.get_body(("html",)).get_content()  # type: ignore[union-attr]  # None fails the test
    for words in ("Approval wanted", approval["mid"], large, post["link"]):
        assert words in html
    airflow.ended(airflow.trigger({"decline": {"mid": approval["mid"], "reason": "a test"}}))


def test_conflicts_of_an_undo_are_reported_with_the_batch(airflow: Airflow, story: Story, received: Received):
    old, new, other = (story.user(letter) for letter in ("old", "new", "other"))
    (batch,) = story.batches(old, 1)
    run_id, _ = airflow.done(form(old, new))
    story.platform.update_row(batch.course_id, batch.batch_id, createdby=other)
    story.platform.put_document(batch.batch_id, createdBy=other)

    undone, _ = airflow.of(UNDO).done({"run_id": run_id, "dry_run": False})

    mail, post = announced(received, undone)
    assert (post["kinds"], post["dag_id"]) == (["conflicts"], UNDO)
    assert post["conflicts"] == [
        {"mid": f"undo:{undone}:0", "course_id": batch.course_id, "batch_id": batch.batch_id}
    ]
    assert "1 conflict" in str(mail["Subject"])
    # The transfer itself needed nobody.
    assert received.of(run_id) == ([], [])


def test_a_refused_plan_fails_its_run_and_is_reported_with_the_reason(
    airflow: Airflow, story: Story, received: Received
):
    old, new, other = (story.user(letter) for letter in ("old", "new", "other"))
    batches = story.batches(old, 2)
    rehearsed, summary = airflow.done(form(old, new, dry_run=True))
    (plan,) = summary["plans"]
    changed = batches[0]
    story.platform.update_row(changed.course_id, changed.batch_id, createdby=other)
    story.platform.put_document(changed.batch_id, createdBy=other)
    before = story.platform.as_written(batches)

    run_id = airflow.trigger({"execute_plan": plan["mid"], "digest": plan["digest"]})

    assert airflow.ended(run_id) == "failed"
    assert story.state(f"execute:{run_id}") == "declined"
    assert story.platform.as_written(batches) == before
    assert "no longer holds" in airflow.log(run_id, "verdict")
    mail, post = announced(received, run_id)
    assert post["kinds"] == ["failed"]
    why = post["failures"][f"execute:{run_id}"]
    assert f"batch {changed.batch_id} of course {changed.course_id} was created by {old}" in why
    assert f"and is created by {other}" in why
    assert "1 failed" in str(mail["Subject"])
    assert received.of(rehearsed) == ([], [])


def test_a_run_whose_first_task_fails_is_reported_too(airflow: Airflow, received: Received):
    run_id = airflow.trigger({"form_user": "a"})

    assert airflow.ended(run_id) == "failed"
    _, post = announced(received, run_id)
    assert post["failures"] == {"pull_transfer_events": "did not end: its log says why"}


def test_a_problem_that_the_health_check_finds_is_reported_when_it_appears_and_not_again(
    airflow: Airflow, received: Received
):
    health = airflow.of("ownership_health")

    def looked(minute: int) -> str:
        """A run of a date, as the schedule's have one."""
        body = {"logical_date": f"2026-01-02T03:{minute:02}:00Z", "conf": {}}
        answer = airflow.http.post("/dags/ownership_health/dagRuns", json=body)
        run_id = str(answer.raise_for_status().json()["dag_run_id"])
        assert health.ended(run_id) == "failed"
        assert "no.such.topic" in health.log(run_id, "check")
        return run_id

    # A run of the schedule may meet the wrong setting as well, and has a date of its own.
    with airflow.settings(kafka_failed_topic="no.such.topic"):
        first = looked(10)
        mail, post = announced(received, first)
        again = looked(20)
    assert "nothing new to send" in health.log(again, "check")
    assert received.of(again) == ([], [])
    assert (post["dag_id"], "no.such.topic" in str(post["failures"])) == ("ownership_health", True)
    assert str(mail["Subject"]).startswith("ownership_health")
    assert "no.such.topic" in mail.get_body(("html",)).get_content()  # type: ignore[union-attr]  # None fails the test
