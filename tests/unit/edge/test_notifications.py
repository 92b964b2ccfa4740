"""What is told of a run, and that it arrives: at a real SMTP server and a real HTTP server."""

from __future__ import annotations

import email
import json
import random
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from email.message import Message as Mail
from email.policy import default as modern
from html import escape
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from local.servers.ports import HOST, is_free
from ownership.domain.contracts import Conflict, PlanSummary, Summary
from ownership.domain.next_steps import next_conf
from ownership.domain.states import EventState
from ownership.edge import notifications
from ownership.edge.notifications import ID, LISTED, SUBJECT, Message, RunNotifier, message
from tests.unit.conftest import Request, Server

PLUGINS = Path(__file__).parents[3] / "plugins"
DAG_ID = "user_ownership_transfer"
RUN_ID = "manual__2026-11-23T08:00:00+00:00"
LINK = "https://airflow.example/dags/user_ownership_transfer/runs/manual__2026"
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "a&b",
    "{{ 7*7 }}",
    "{% raw %}",
    "%s%n",
]


def told(summary: Summary, *, run_id: str = RUN_ID, link: str = LINK) -> Message:
    found = message(summary, dag_id=DAG_ID, run_id=run_id, link=link)
    assert found
    return found


def failed(*mids: str, why: str = "User-Org unavailable: HTTP 503") -> Summary:
    return Summary(
        events={"failed": len(mids)},
        failures=dict.fromkeys(mids, why),
        users=dict.fromkeys(mids, "old-1 → new-1"),
        next_conf={m: next_conf(EventState.FAILED, m) or "" for m in mids},
    )


def plan(mid: str = "m2", state: EventState = EventState.AWAITING_APPROVAL, **more: Any) -> PlanSummary:
    digest = "0123456789abcdef0123"
    given = {
        "courses": {"c1": 39, "c2": 2},
        "more_courses": 1,
        "conflicts": 3,
        "next_conf": next_conf(state, mid, digest) or "",
        **more,
    }
    return PlanSummary(
        mid=mid, from_user="old-2", to_user="new-2", state=state, digest=digest, batches=42, **given
    )


def conflict(text: str) -> Conflict:
    return Conflict(mid=text, course_id=text, batch_id=text)


CONFLICTS = Summary(
    conflicts=(Conflict(mid="m4", course_id="c1", batch_id="b1"),),
    batches={"changed_elsewhere": 1, "moved": 4},
    users={"m4": "old-4 → new-4", "m": "nobody → nobody"},
)
EVERYTHING = failed("m1").model_copy(
    update={"plans": (plan(), plan("m3", EventState.REHEARSED)), "conflicts": CONFLICTS.conflicts}
)


# What is told.


@pytest.mark.parametrize(
    "summary",
    [
        pytest.param(Summary(), id="nothing happened"),
        pytest.param(
            Summary(events={"completed": 9, "skipped": 1}, batches={"moved": 40}), id="all went well"
        ),
        pytest.param(
            Summary(waits={"m": "waits for n"}, notes={"n": "was abandoned"}), id="orders and waits"
        ),
        pytest.param(Summary(plans=(plan(state=EventState.REHEARSED),)), id="a dry run"),
        pytest.param(
            Summary(next_conf={"m": "{}"}, users={"m": "a → b"}), id="a conf that nobody must paste"
        ),
    ],
)
def test_a_run_that_needs_nobody_is_not_told_of(summary: Summary) -> None:
    assert message(summary, dag_id=DAG_ID, run_id=RUN_ID, link=LINK) is None


def test_failures_are_told_with_users_reason_and_how_to_try_again() -> None:
    it = told(failed("m1"))
    assert it.subject == f"{DAG_ID}: 1 failed ({RUN_ID})"
    assert it.body["kinds"] == ["failed"]
    assert it.body["failures"] == {"m1": "User-Org unavailable: HTTP 503"}
    assert it.body["users"] == {"m1": "old-1 → new-1"}
    assert it.body["next_step"][-1]["conf"] == '{"redrive": {"mids": ["m1"]}}'
    for form in (it.text, it.html):
        assert "m1 (old-1 → new-1): User-Org unavailable: HTTP 503" in form
        assert "tried again by themselves" in form


def test_an_approval_is_wanted_with_the_size_of_the_plan_and_the_conf_that_gives_it() -> None:
    it = told(Summary(plans=(plan(),)))
    assert it.subject == f"{DAG_ID}: 1 approval wanted ({RUN_ID})"
    assert it.body["kinds"] == ["approval_wanted"]
    assert it.body["approvals"] == [
        {
            "mid": "m2",
            "digest": "0123456789abcdef0123",
            "batches": 42,
            "courses": {"c1": 39, "c2": 2},
            "more_courses": 1,
            "conflicts": 3,
        }
    ]
    size = "42 batches in more than 2 courses; 3 that were found would not change"
    assert f"- m2 (old-2 → new-2): {size}\n" in it.text
    assert it.body["next_step"] == [
        {
            "text": "To approve m2, answer under Required actions, or trigger user_ownership_transfer with:",
            "conf": '{"approve": {"mid": "m2", "digest": "0123456789abcdef0123"}}',
        }
    ]


def test_conflicts_are_told_with_their_batches() -> None:
    it = told(CONFLICTS)
    assert it.subject == f"{DAG_ID}: 1 conflict ({RUN_ID})"
    assert it.body["kinds"] == ["conflicts"]
    assert it.body["conflicts"] == [{"mid": "m4", "course_id": "c1", "batch_id": "b1"}]
    assert it.body["users"] == {"m4": "old-4 → new-4"}
    assert "- m4 (old-4 → new-4): batch b1 of course c1\n" in it.text
    assert "changed by somebody else" in it.text


def test_several_kinds_are_one_message_without_the_dry_run() -> None:
    it = told(EVERYTHING)
    assert it.subject == f"{DAG_ID}: 1 failed, 1 approval wanted, 1 conflict ({RUN_ID})"
    assert it.body["kinds"] == ["failed", "approval_wanted", "conflicts"]
    assert [a["mid"] for a in it.body["approvals"]] == ["m2"]
    assert "m3" not in it.text


def test_every_form_says_which_run_and_links_to_it() -> None:
    it = told(EVERYTHING)
    for form in (it.text, it.html):
        assert f"Run {RUN_ID} of {DAG_ID}" in form
        assert LINK in form
    assert (it.body["dag_id"], it.body["run_id"], it.body["link"]) == (DAG_ID, RUN_ID, LINK)
    assert (it.body["subject"], it.body["text"]) == (it.subject, it.text)
    assert "href" not in told(EVERYTHING, link="").html


def test_a_conf_can_be_pasted_from_the_text_and_from_the_html() -> None:
    it = told(EVERYTHING)
    confs = [s["conf"] for s in it.body["next_step"] if s["conf"]]
    assert len(confs) == 2
    for conf in confs:
        assert f"\n    {conf}\n" in it.text
        assert f"<pre>{escape(conf)}</pre>" in it.html
        json.loads(conf)


def test_failed_events_are_tried_again_by_one_conf() -> None:
    it = told(failed("m1", "m2", "m3"))
    assert [s["conf"] for s in it.body["next_step"] if s["conf"]] == [
        '{"redrive": {"mids": ["m1", "m2", "m3"]}}'
    ]


@pytest.mark.parametrize(
    "conf",
    [
        '{"execute_plan": "m9", "digest": "d"}',
        '{"redrive": {"mids": ["m1"]}, "reason": "r"}',
        '{"redrive": {"dead_letters": {}}}',
        "not JSON",
        "[" * 100_000,
    ],
    ids=["a plan", "more than mids", "dead letters", "no JSON", "nested too deeply"],
)
def test_any_other_conf_is_told_as_it_is_or_not_at_all(conf: str) -> None:
    it = told(Summary(failures={"m1": "why", "m2": "why"}, next_conf={"m1": conf, "m2": conf}))
    confs = [s["conf"] for s in it.body["next_step"]]
    assert confs == ([conf] if len(conf) < 1000 else [""])


def test_a_task_that_failed_is_told_by_its_name() -> None:
    it = told(Summary(failures={"pull_transfer_events": "did not end: its log says why"}))
    assert it.subject == f"{DAG_ID}: 1 failed ({RUN_ID})"
    assert "- pull_transfer_events: did not end: its log says why\n" in it.text
    assert [s["conf"] for s in it.body["next_step"]] == [""]


def test_what_is_left_out_of_a_long_list_is_counted() -> None:
    many = failed(*(f"m{n:02}" for n in range(50)))
    it = told(many.model_copy(update={"events": {"failed": 900}}))
    assert it.subject.startswith(f"{DAG_ID}: 900 failed")
    assert list(it.body["failures"]) == [f"m{n:02}" for n in range(LISTED)]
    assert it.text.count("\n- ") == it.html.count("<li>") == LISTED
    for form in (it.text, it.html):
        assert f"… and {900 - LISTED} more" in form
    assert it.body["counts"] == {"failed": 900}


def test_what_the_summary_only_counts_is_told_too() -> None:
    it = told(
        Summary(events={EventState.AWAITING_APPROVAL: 31}, batches={"changed_elsewhere": 2}, plans=(plan(),))
    )
    assert it.subject.startswith(f"{DAG_ID}: 31 approvals wanted, 2 conflicts")
    assert "… and 30 more" in it.text
    assert "… and 2 more" in it.text


def test_a_message_has_a_bounded_size_whatever_is_in_it() -> None:
    long = "\n<&\"'" * 20_000
    mids = [f"{n}{long}" for n in range(50)]
    worst = Summary(
        events={"failed": 50},
        failures=dict.fromkeys(mids, long),
        users=dict.fromkeys(mids, long),
        next_conf=dict.fromkeys(mids, json.dumps({"redrive": {"mids": mids}})),
        plans=tuple(plan(m, next_conf=long) for m in mids),
        conflicts=tuple(conflict(m) for m in mids),
    )
    it = told(worst, run_id=long)
    assert len(it.subject) <= SUBJECT
    assert len(it.text) < 50_000
    assert len(it.html) < 300_000
    assert len(json.dumps(it.body)) < 150_000


def test_a_long_reason_is_cut_and_a_long_id_is_not() -> None:
    mid = "m" * 300  # the longest that an event may have
    it = told(Summary(failures={mid: "because " * 1000}))
    assert mid in it.text
    assert it.body["failures"][mid].endswith("…")
    assert len(mid) == ID


@pytest.mark.parametrize("hostile", HOSTILE)
def test_nothing_that_comes_from_an_event_is_markup(hostile: str) -> None:
    it = told(
        Summary(
            failures={hostile: hostile},
            users={hostile: hostile},
            conflicts=(conflict(hostile),),
            plans=(plan(hostile, next_conf=hostile),),
            next_conf={hostile: hostile},
        ),
        run_id=hostile,
        link=f"https://airflow.example/{hostile}",
    )
    tags = {re.sub(r' href="[^"<>]*"', "", tag) for tag in re.findall(r"<[^>]*>", it.html)}
    assert tags <= {f"<{end}{t}>" for t in ("p", "a", "h3", "ul", "li", "pre") for end in ("", "/")}
    assert hostile in it.text
    assert hostile in it.body["failures"]


@given(st.text(), st.text(), st.text())
def test_no_text_breaks_a_line_or_the_encoding(mid: str, why: str, run_id: str) -> None:
    it = told(Summary(failures={mid: why}, conflicts=(conflict(why),)), run_id=run_id)
    assert it.subject.isprintable()
    assert len(it.subject.splitlines()) == 1
    assert len(it.text.splitlines()) == 12
    for form in (it.subject, it.text, it.html, json.dumps(it.body, ensure_ascii=False)):
        form.encode()


def test_a_header_cannot_be_smuggled_into_the_subject() -> None:
    it = told(failed("m"), run_id="r\r\nBcc: everybody@example.org\u2028\u202eevil")
    assert it.subject == f"{DAG_ID}: 1 failed (r  Bcc: everybody@example.org �evil)"


def test_the_module_can_be_imported_where_a_dag_file_is_parsed(tmp_path: Path) -> None:
    look = (
        "import sys, airflow.sdk; before = set(sys.modules); import ownership.edge.notifications; "
        "print(*sorted(set(sys.modules) - before))"
    )
    command = (sys.executable, "-c", look)
    environment = {"AIRFLOW_HOME": str(tmp_path), "PYTHONPATH": str(PLUGINS)}
    done = subprocess.run(command, env=environment, check=True, timeout=120, capture_output=True, text=True)
    new = done.stdout.splitlines()[-1].split()
    assert "ownership.edge.notifications" in new
    heavy = {"pydantic", "cassandra", "elasticsearch", "httpx", "confluent_kafka", "stamina", "aiosmtplib"}
    assert [m for m in new if m.split(".")[0] in heavy or m.startswith("airflow.providers")] == []
    assert "ownership.domain.contracts" not in new


# That it arrives.


def free_port() -> int:
    """A port below those that the kernel gives to clients; any, because other sessions look for one too."""
    return next(p for p in random.sample(range(10_240, 30_000), 200) if is_free(p))


class Mailbox:
    """A real SMTP server that keeps what it gets; `code` is its answer to a message."""

    def __init__(self) -> None:
        self.code = "250 OK"
        self.mails: list[Mail] = []
        self.recipients: list[list[str]] = []
        port = free_port()
        self._controller = Controller(self, hostname=HOST, port=port)
        self._controller.start()
        self.port = port

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        content = envelope.original_content
        assert content
        if self.code.startswith("250"):
            self.mails.append(email.message_from_bytes(content, policy=modern))
            self.recipients.append(envelope.rcpt_tos)
        return self.code

    def stop(self) -> None:
        self._controller.stop()


@pytest.fixture
def mailbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mailbox]:
    started = Mailbox()
    smtp_connection(monkeypatch, started.port)
    yield started
    started.stop()


@pytest.fixture
def hook(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """A webhook that accepts, behind Connection `ops`."""
    server.answer = lambda _request, _handler: (200, {})
    monkeypatch.setenv(
        "AIRFLOW_CONN_OPS", json.dumps({"conn_type": "http", "host": f"{server.url}/hooks/s3cr3t-t0ken"})
    )
    return server


def smtp_connection(monkeypatch: pytest.MonkeyPatch, port: int, **extra: Any) -> None:
    given = {"disable_ssl": True, "disable_tls": True, "from_email": "airflow@example.org"} | extra
    connection = {"conn_type": "smtp", "host": HOST, "port": port, "extra": given}
    monkeypatch.setenv("AIRFLOW_CONN_SMTP_DEFAULT", json.dumps(connection))


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    configure(monkeypatch)


def configure(monkeypatch: pytest.MonkeyPatch, *, mail: str = "", webhook: str = "") -> None:
    settings = {"notify.email.to": mail, "notify.webhook.connection": webhook}
    monkeypatch.setenv("AIRFLOW_VAR_USER_OWNERSHIP_TRANSFER", json.dumps(settings))
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://airflow.example/")


@pytest.fixture
def both(mailbox: Mailbox, hook: Server, monkeypatch: pytest.MonkeyPatch) -> tuple[Mailbox, Server]:
    configure(monkeypatch, mail="ops@example.org", webhook="ops")
    return mailbox, hook


class Task:
    """What a callback gets of `settle`: its ids, and the XCom that it left."""

    dag_id, task_id, map_index = DAG_ID, "settle", -1

    def __init__(self, xcom: Any, run_id: str = RUN_ID) -> None:
        self.run_id = run_id
        self.xcom = xcom
        self.pulls = 0

    def xcom_pull(self, *, task_ids: str, key: str, map_indexes: int) -> Any:
        assert (task_ids, key, map_indexes) == ("settle", "return_value", -1)
        self.pulls += 1
        return self.xcom


def ended(summary: Summary | None, *, run_id: str = RUN_ID, error: BaseException | None = None) -> Any:
    """The context of a callback of `settle`."""
    task = Task(summary.model_dump(mode="json") if summary else None, run_id)
    return {"ti": task, "exception": error}


def notified(context: Any) -> list[Any]:
    """Run the callback as Airflow does; returns what was logged."""
    with capture_logs() as logs:
        RunNotifier()(context)
    # Fields of these names are arguments of Airflow's supervisor: such a line ends it, and with it the log.
    assert not {"target", "level", "msg"} & {field for entry in logs for field in entry}
    return logs


def warnings(logs: list[Any]) -> list[Any]:
    return [entry for entry in logs if entry["log_level"] == "warning"]


def html_of(mail: Mail) -> str:
    [part] = [p for p in mail.walk() if p.get_content_type() == "text/html"]
    content = part.get_payload(decode=True)
    assert isinstance(content, bytes)
    return content.decode()


def test_the_mail_arrives_at_every_address(mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch) -> None:
    configure(monkeypatch, mail="ops@example.org, second@example.org,")
    assert warnings(notified(ended(EVERYTHING))) == []
    [mail] = mailbox.mails
    assert mailbox.recipients == [["ops@example.org", "second@example.org"]]
    assert mail["From"] == "airflow@example.org"
    assert mail["Subject"] == f"{DAG_ID}: 1 failed, 1 approval wanted, 1 conflict ({RUN_ID})"
    link = f"https://airflow.example/dags/{DAG_ID}/runs/manual__2026-11-23T08%3A00%3A00%2B00%3A00"
    assert html_of(mail) == told(EVERYTHING, link=link).html


def test_the_webhook_gets_the_same_as_json(hook: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    types = []

    def answer(_: Request, handler: BaseHTTPRequestHandler) -> tuple[int, Any]:
        types.append(handler.headers["Content-Type"])
        return 204, b""

    hook.answer = answer
    configure(monkeypatch, webhook="ops")
    assert warnings(notified(ended(EVERYTHING))) == []
    link = f"https://airflow.example/dags/{DAG_ID}/runs/manual__2026-11-23T08%3A00%3A00%2B00%3A00"
    assert hook.requests == [Request("POST", "/hooks/s3cr3t-t0ken", told(EVERYTHING, link=link).body)]
    assert types == ["application/json"]


def test_a_run_that_needs_nobody_sends_nothing(both: tuple[Mailbox, Server]) -> None:
    assert notified(ended(Summary(events={"completed": 3}, plans=(plan(state=EventState.REHEARSED),)))) == []
    assert both[0].mails == both[1].requests == []


def test_without_a_target_not_even_the_xcom_is_read() -> None:
    context = ended(EVERYTHING)
    assert notified(context) == []
    assert context["ti"].pulls == 0


def test_a_task_that_failed_is_told_from_its_exception(both: tuple[Mailbox, Server]) -> None:
    notified(ended(EVERYTHING, error=RuntimeError("Cassandra unavailable: no host")))
    [request] = both[1].requests
    assert request.body["failures"] == {"settle": "Cassandra unavailable: no host"}
    assert "settle: Cassandra unavailable: no host" in html_of(both[0].mails[0])


def test_a_task_that_was_killed_left_no_summary_and_is_told_all_the_same(
    hook: Server, monkeypatch: Any
) -> None:
    configure(monkeypatch, webhook="ops")
    notified(ended(None))
    assert hook.requests[0].body["failures"] == {"settle": "ended without a summary: its log says why"}


def test_fields_that_a_later_version_adds_to_the_summary_do_no_harm(hook: Server, monkeypatch: Any) -> None:
    configure(monkeypatch, webhook="ops")
    context = ended(failed("m1"))
    context["ti"].xcom["later"] = 1
    notified(context)
    assert len(hook.requests) == 1


@pytest.mark.parametrize(
    "like_a_template", ["{{ 7*7 }}", "{{ ti.xcom_pull() }}", "{% for %}", "x.html", "{#"]
)
def test_what_looks_like_a_template_arrives_literally(
    both: tuple[Mailbox, Server], like_a_template: str
) -> None:
    assert warnings(notified(ended(failed(like_a_template), run_id=like_a_template))) == []
    [mail], [request] = both[0].mails, both[1].requests
    assert mail["Subject"] == f"{DAG_ID}: 1 failed ({like_a_template})"
    assert f"{like_a_template} (old-1" in html_of(mail)
    assert list(request.body["failures"]) == [like_a_template]


def test_a_webhook_that_fails_keeps_no_mail_from_being_sent(both: tuple[Mailbox, Server]) -> None:
    mailbox, hook = both
    hook.answer = lambda _request, _handler: (500, b"")
    [warning] = warnings(notified(ended(failed("m1"))))
    assert warning["by"] == "webhook"
    assert "500" in warning["why"]
    assert len(mailbox.mails) == 1


def test_a_mail_that_is_refused_keeps_no_webhook_from_being_called(both: tuple[Mailbox, Server]) -> None:
    mailbox, hook = both
    mailbox.code = "554 no"
    [warning] = warnings(notified(ended(failed("m1"))))
    assert warning["by"] == "mail"
    assert "SMTPDataError" in warning["why"]
    assert len(hook.requests) == 1


@pytest.mark.parametrize("way", ["mail", "webhook"])
def test_a_missing_connection_keeps_nothing_else_from_being_sent(
    both: tuple[Mailbox, Server], monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.delenv({"mail": "AIRFLOW_CONN_SMTP_DEFAULT", "webhook": "AIRFLOW_CONN_OPS"}[way])
    [warning] = warnings(notified(ended(failed("m1"))))
    assert warning["by"] == way
    assert len(both[0].mails) + len(both[1].requests) == 1


def test_a_connection_without_a_sender_is_named(both: tuple[Mailbox, Server], monkeypatch: Any) -> None:
    smtp_connection(monkeypatch, both[0].port, from_email=None)
    [warning] = warnings(notified(ended(failed("m1"))))
    assert "from_email" in warning["why"]
    assert len(both[1].requests) == 1


def test_a_redirect_is_not_taken_for_an_answer(hook: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def elsewhere(_: Request, handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header("Location", f"{hook.url}/login")
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    hook.answer = elsewhere
    configure(monkeypatch, webhook="ops")
    [warning] = warnings(notified(ended(failed("m1"))))
    assert "redirects" in warning["why"]
    assert [r.path for r in hook.requests] == ["/hooks/s3cr3t-t0ken"]


def test_the_secret_in_a_webhook_s_path_is_not_in_the_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from airflow.sdk.log import redact  # type: ignore[attr-defined]

    port = free_port()
    host = f"http://{HOST}:{port}/services/T000/s3cr3t?key=k3y"
    monkeypatch.setenv("AIRFLOW_CONN_OPS", json.dumps({"conn_type": "http", "host": host}))
    configure(monkeypatch, webhook="ops")
    logs = notified(ended(failed("m1")))
    assert "***" in warnings(logs)[-1]["why"]
    logged = repr(redact([*map(str, logs), caplog.text]))  # as every line of a task's log is
    assert "s3cr3t" not in logged
    assert "k3y" not in logged


def silent() -> socket.socket:
    """A server that accepts and says nothing."""
    listening = socket.socket()
    listening.bind((HOST, 0))
    listening.listen()
    return listening


@pytest.mark.parametrize("way", ["mail", "webhook", "both"])
def test_a_server_that_hangs_is_given_up(
    both: tuple[Mailbox, Server], monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    mailbox, hook = both
    monkeypatch.setattr(notifications, "SECONDS", 1.0)
    with closing(silent()) as hanging:
        port = hanging.getsockname()[1]
        if way != "webhook":
            smtp_connection(monkeypatch, port, timeout=5, retry_limit=0)
        if way != "mail":
            monkeypatch.setattr(notifications, "CALL_SECONDS", 5.0)
            connection = {"conn_type": "http", "host": HOST, "port": port}
            monkeypatch.setenv("AIRFLOW_CONN_OPS", json.dumps(connection))
        began = time.monotonic()
        logs = notified(ended(failed("m1")))
        assert time.monotonic() - began < 3
    given_up = {entry["by"] for entry in logs if entry["event"] == "notification given up"}
    assert given_up == ({"mail", "webhook"} if way == "both" else {way})
    assert len(mailbox.mails) + len(hook.requests) == 2 - len(given_up)


def test_a_webhook_that_is_silent_runs_into_its_own_time_out(hook: Server, monkeypatch: Any) -> None:
    def say_nothing(_: Request, __: BaseHTTPRequestHandler) -> None:
        hook.stopping.wait(5)

    hook.answer = say_nothing
    monkeypatch.setattr(notifications, "CALL_SECONDS", 0.2)
    configure(monkeypatch, webhook="ops")
    [warning] = warnings(notified(ended(failed("m1"))))
    assert "ReadTimeout" in warning["why"]


@pytest.mark.parametrize("wrong", ["settings", "task", "summary"])
def test_nothing_that_is_wrong_fails_the_callback(
    both: tuple[Mailbox, Server], monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    context = ended(failed("m1"))
    if wrong == "settings":
        monkeypatch.setenv("AIRFLOW_VAR_USER_OWNERSHIP_TRANSFER", "{")
    elif wrong == "task":
        context["ti"] = None
    else:
        context["ti"].xcom["failures"] = 3
    [warning] = warnings(notified(context))
    assert warning["event"] == "notification not sent"
    assert both[0].mails == both[1].requests == []
