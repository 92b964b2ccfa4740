"""Sends the message of a run (`run_message`) as mail, to a webhook, or both.

The settings `notify.email.to` and `notify.webhook.connection` say where to.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

import structlog
from airflow.sdk.bases.notifier import BaseNotifier
from airflow.sdk.configuration import conf
from airflow.sdk.log import mask_secret, redact  # type: ignore[attr-defined]  # as providers import it

from ownership.domain.text import one_line
from ownership.edge.versions import missing

if TYPE_CHECKING:
    from airflow.sdk import Context

    from ownership.domain.contracts import Summary
    from ownership.domain.settings import Settings
    from ownership.edge.run_message import RunMessage

if not TYPE_CHECKING:
    __getattr__ = missing

log = structlog.get_logger(__name__)

SMTP = "smtp_default"
MAX_REASON = 300
"""Characters of an error in the log."""
GIVE_UP_SECONDS = 15.0
"""Below ``[core] task_success_overtime``: so long after a task's end its process is killed."""
WEBHOOK_SECONDS = 10.0
"""The webhook's time-out, to connect and for each read."""

Sender = Callable[["Context"], None]


class RunNotifier(BaseNotifier):
    """Sends the message of a run, for ``on_success_callback`` and ``on_failure_callback`` of `settle`.

    It never fails: what cannot be sent is a warning in the log. Mail and webhook are sent at once, so neither waits for
    the other, and both are given up in time, whatever holds them: the name server, a server that is silent or drips, or
    the providers' own tries. Mail waits as long as the extra ``timeout`` of its connection says (30 s, a socket
    operation) and makes ``retry_limit`` (5) more tries; the webhook has one try.

    The providers' notifiers are called by their `notify`: their texts are not rendered as templates.
    """

    def notify(self, context: Context) -> None:
        """Send the run's message, if there is one and an address to send it to."""
        deadline = time.monotonic() + GIVE_UP_SECONDS
        try:
            from ownership.edge.hooks import load_settings
            from ownership.edge.run_message import run_message

            settings = load_settings()
            if not settings.notify_email_to.strip(" ,") and not settings.notify_webhook:
                return
            ti = context["ti"]
            link = _link(ti.dag_id, ti.run_id)
            message = run_message(_summary(context), dag_id=ti.dag_id, run_id=ti.run_id, link=link)
            if message:
                self._send(self._senders(settings, message), context, deadline)
        except Exception as e:  # noqa: BLE001  # the run has ended as it has, whether its message was sent or not
            log.warning("notification not sent", why=_why(e))

    def _senders(self, settings: Settings, message: RunMessage) -> dict[str, Sender]:
        """What sends the message, by way."""
        senders: dict[str, Sender] = {}
        if to := [a for a in map(str.strip, settings.notify_email_to.split(",")) if a]:
            senders["mail"] = partial(_mail, to, message)
        if conn_id := settings.notify_webhook:
            senders["webhook"] = partial(_webhook, conn_id, message)
        return senders

    def _send(self, senders: Mapping[str, Sender], context: Context, deadline: float) -> None:
        """Send at once, in threads that the task waits for until `deadline` and no longer."""
        threads = {
            way: threading.Thread(
                target=copy_context().run,  # the log's fields: which task this is
                args=(_sent, way, send, context),
                name=f"notify-{way}",
                daemon=True,
            )
            for way, send in senders.items()
        }
        for thread in threads.values():
            thread.start()
        for way, thread in threads.items():
            thread.join(max(deadline - time.monotonic(), 0))
            if thread.is_alive():
                log.warning("notification given up", by=way, after_seconds=GIVE_UP_SECONDS)


NEWS = "news"
"""XCom key: true if a task found something that no message has named yet."""


class NewsNotifier(RunNotifier):
    """Sends the message of a task that failed only if it found something new."""

    def notify(self, context: Context) -> None:
        """Send it, unless an earlier message named the same."""
        ti = context["ti"]
        if ti.xcom_pull(task_ids=ti.task_id, key=NEWS) is False:
            log.info("nothing new to send")
            return
        super().notify(context)


def _summary(context: Context) -> Summary:
    """How the run ended, from the task's own XCom; or how the task failed."""
    from ownership.domain.contracts import Summary

    ti = context["ti"]
    if error := context.get("exception"):
        return Summary(failures={ti.task_id: redact(str(error)) or type(error).__name__})
    value = ti.xcom_pull(task_ids=ti.task_id, key="return_value", map_indexes=ti.map_index)
    if not isinstance(value, Mapping):  # the task was killed
        return Summary(failures={ti.task_id: "ended without a summary: its log says why"})
    return Summary.model_validate({k: v for k, v in value.items() if k in Summary.model_fields})


def _link(dag_id: str, run_id: str) -> str:
    """The run's page in the UI; empty where ``[api] base_url`` is not set."""
    base_url = str(conf.get("api", "base_url", fallback="") or "").rstrip("/")
    return f"{base_url}/dags/{quote(dag_id, safe='')}/runs/{quote(run_id, safe='')}" if base_url else ""


def _mail(to: list[str], message: RunMessage, context: Context) -> None:
    """As mail; the sender is extra ``from_email`` of the connection."""
    from airflow.providers.smtp.notifications.smtp import SmtpNotifier

    mail = SmtpNotifier(to=to, subject=message.subject, html_content=message.html, smtp_conn_id=SMTP)
    mail.notify(context)


def _webhook(conn_id: str, message: RunMessage, context: Context) -> None:
    """As JSON to the URL of the connection."""
    from airflow.providers.http.notifications.http import HttpNotifier

    from ownership.edge.connections import connection

    # Many webhooks have their secret in the path, which the client's errors name.
    host = connection(conn_id).host or ""
    url = urlsplit(host if "://" in host else f"//{host}")
    path = url.path + (f"?{url.query}" if url.query else "")
    if len(path) > 8:
        mask_secret(path)
    webhook = HttpNotifier(
        http_conn_id=conn_id,
        endpoint="",
        json=message.body,
        headers={"Content-Type": "application/json"},
        # A redirect is an error: a client that follows it asks again without the body.
        extra_options={"timeout": WEBHOOK_SECONDS, "allow_redirects": True, "max_redirects": 0},
    )
    webhook.notify(context)


def _sent(way: str, send: Sender, context: Context) -> None:
    try:
        send(context)
    except Exception as e:  # noqa: BLE001  # providers raise what they like
        log.warning("notification not sent", by=way, why=_why(e))
    else:
        log.info("notification sent", by=way)


def _why(error: Exception) -> str:
    """For the log: secrets that Airflow knows of are masked."""
    return one_line(f"{type(error).__name__}: {redact(str(error))}", MAX_REASON)
