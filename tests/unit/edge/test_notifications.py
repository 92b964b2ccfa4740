"""The message of a run arrives: at a real SMTP server and a real HTTP server."""

from __future__ import annotations

import email
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from email.message import Message as Mail
from email.policy import default as modern
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session
from structlog.testing import capture_logs

from local.servers.ports import HOST
from local.servers.processes import await_condition
from ownership.domain.contracts import Summary
from ownership.domain.states import EventState
from ownership.edge import notifications
from ownership.edge.notifications import RunNotifier
from tests.unit.conftest import Request, Server
from tests.unit.edge.run_summaries import DAG_ID, EVERYTHING, RUN_ID, failed, message_of, plan

PLUGINS = Path(__file__).parents[3] / "plugins"


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


class BoundController(Controller):
    """On a port that is its own from the beginning, so that no other server takes it before this one listens."""

    def __init__(self, handler: Any) -> None:
        self._bound = socket.create_server((HOST, 0))
        super().__init__(handler, hostname=HOST, port=self._bound.getsockname()[1])

    def _create_server(self) -> Any:
        return self.loop.create_server(self._factory_invoker, sock=self._bound)


class Mailbox:
    """A real SMTP server that keeps what it gets; `code` is its answer to a message."""

    def __init__(self) -> None:
        self.code = "250 OK"
        self.mails: list[Mail] = []
        self.recipients: list[list[str]] = []
        self._controller = BoundController(self)
        self._controller.start()
        self.port = self._controller.port

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802  # aiosmtpd calls it so
        content = envelope.original_content
        assert content
        if self.code.startswith("250"):
            self.mails.append(email.message_from_bytes(content, policy=modern))
            self.recipients.append(envelope.rcpt_tos)
        return self.code

    def stop(self) -> None:
        self._controller.stop()


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """What was given up ends once its server is gone: not before the next test, in whose log it would write."""
    yield
    for thread in threading.enumerate():
        if thread.name.startswith("notify-"):
            thread.join(30)
            assert not thread.is_alive()


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
    assert html_of(mail) == message_of(EVERYTHING, link=link).html


def test_the_webhook_gets_the_same_as_json(hook: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    types = []

    def answer(_: Request, handler: BaseHTTPRequestHandler) -> tuple[int, Any]:
        types.append(handler.headers["Content-Type"])
        return 204, b""

    hook.answer = answer
    configure(monkeypatch, webhook="ops")
    assert warnings(notified(ended(EVERYTHING))) == []
    link = f"https://airflow.example/dags/{DAG_ID}/runs/manual__2026-11-23T08%3A00%3A00%2B00%3A00"
    assert hook.requests == [Request("POST", "/hooks/s3cr3t-t0ken", message_of(EVERYTHING, link=link).body)]
    assert types == ["application/json"]


def test_the_link_stays_below_the_path_of_the_api_server(
    hook: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(monkeypatch, webhook="ops")
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://school.example/work/airflow/")
    notified(ended(failed("m1"), run_id="manual__1"))
    link = f"https://school.example/work/airflow/dags/{DAG_ID}/runs/manual__1"
    assert hook.requests[0].body["link"] == link


def test_a_run_that_needs_no_operator_sends_nothing(both: tuple[Mailbox, Server]) -> None:
    assert notified(ended(Summary(events={"completed": 3}, plans=(plan(state=EventState.REHEARSED),)))) == []
    assert both[0].mails == both[1].requests == []


def test_without_a_target_not_even_the_xcom_is_read() -> None:
    context = ended(EVERYTHING)
    assert notified(context) == []
    assert context["ti"].pulls == 0


def test_a_task_that_failed_sends_its_exception(both: tuple[Mailbox, Server]) -> None:
    notified(ended(EVERYTHING, error=RuntimeError("Cassandra unavailable: no host")))
    [request] = both[1].requests
    assert request.body["failures"] == {"settle": "Cassandra unavailable: no host"}
    assert "settle: Cassandra unavailable: no host" in html_of(both[0].mails[0])


def test_a_task_that_was_killed_left_no_summary_and_sends_a_message_all_the_same(
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
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, dead_port: int
) -> None:
    from airflow.sdk.log import redact  # type: ignore[attr-defined]  # not exported by name

    host = f"http://{HOST}:{dead_port}/services/T000/s3cr3t?key=k3y"
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
    with closing(silent()) as hanging:
        port = hanging.getsockname()[1]
        if way != "webhook":
            smtp_connection(monkeypatch, port, timeout=5, retry_limit=0)
        if way != "mail":
            connection = {"conn_type": "http", "host": HOST, "port": port}
            monkeypatch.setenv("AIRFLOW_CONN_OPS", json.dumps(connection))
        monkeypatch.setattr(notifications, "GIVE_UP_SECONDS", 1.0)
        logs = notified(ended(failed("m1")))
    given_up = {entry["by"] for entry in logs if entry["event"] == "notification given up"}
    hang = {"mail", "webhook"} if way == "both" else {way}
    assert given_up >= hang  # on a busy machine the other one, too, which goes on all the same
    await_condition(
        lambda: (len(mailbox.mails), len(hook.requests)) == ("mail" not in hang, "webhook" not in hang),
        timeout_s=20,
        what="what does not hang to arrive",
    )


def test_a_webhook_that_is_silent_runs_into_its_own_time_out(hook: Server, monkeypatch: Any) -> None:
    def say_nothing(_: Request, __: BaseHTTPRequestHandler) -> None:
        hook.stopping.wait()

    hook.answer = say_nothing
    configure(monkeypatch, webhook="ops")
    monkeypatch.setattr(notifications, "WEBHOOK_SECONDS", 0.2)
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
