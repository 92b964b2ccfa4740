"""A real Airflow, and what a person does with it: trigger, watch, clear, backfill."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote
from uuid import uuid4

import httpx
import psycopg
from psycopg.rows import dict_row

from local.platform.world import Batch, Platform
from local.servers.airflow import api, token
from local.servers.ports import HOST
from local.stack import Stack

DAG, UNDO, APPROVAL = "user_ownership_transfer", "ownership_undo", "ownership_approval"
PAGE = "/ownership-transfers"
ASK = "approval.ask"
SETTINGS = "/variables/user_ownership_transfer"
ORGANISATION = "org-e2e"
PASSWORDS = {
    name: f"zq-secret-of-{name}-4711"
    for name in ("kafka", "cassandra", "elasticsearch", "lms", "userorg", "webhook")
}
"""Of the Connections; the servers of the stack ask for none."""
T = Any


def form(old: str, new: str, **more: Any) -> dict[str, Any]:
    """The conf of a transfer between two users of the tests' organisation."""
    return {"from_user": old, "to_user": new, "organisation_id": ORGANISATION, **more}


def until(what: str, condition: Callable[[], T], *, seconds: float = 60, every: float = 0.25) -> T:
    """The first true value of `condition`, asked every `every` seconds."""
    deadline = time.monotonic() + seconds
    while True:
        if found := condition():
            return found
        assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s"
        time.sleep(every)


class Airflow:
    """Airflow's REST API and command line, for one DAG."""

    def __init__(self, stack: Stack, http: httpx.Client, dag: str = DAG) -> None:
        self.stack = stack
        self.http = http
        self.dag = dag

    @classmethod
    @contextmanager
    def opened(cls, stack: Stack) -> Iterator[Self]:
        """Logged in, for the main DAG."""
        a = stack.addresses
        with api(a.airflow, a.airflow_password) as http:
            yield cls(stack, http)

    def page(self, user: str) -> httpx.Client:
        """The transfers page for a user, by a cookie as a browser has it; to be closed by the caller."""
        return self._signed_in(PAGE, cookies={"_token": self.token(user)})

    def page_api(self, user: str) -> httpx.Client:
        """The API of the page for a user, by a token; to be closed by the caller."""
        return self._signed_in(f"{PAGE}/api/v1/", headers={"authorization": f"Bearer {self.token(user)}"})

    def _signed_in(self, path: str, **how: Any) -> httpx.Client:
        return httpx.Client(base_url=f"{self.stack.addresses.airflow}{path}", timeout=60, **how)

    def token(self, user: str) -> str:
        """Of any user that this Airflow knows."""
        passwords = Path(self.stack.airflow_env["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"])
        return token(self.stack.addresses.airflow, user, json.loads(passwords.read_text())[user])

    def of(self, dag: str) -> Airflow:
        """The same for another DAG."""
        return Airflow(self.stack, self.http, dag)

    def try_to_trigger(self, conf: dict[str, Any]) -> httpx.Response:
        """What the API answers to a manual run."""
        return self.http.post(f"/dags/{self.dag}/dagRuns", json={"logical_date": None, "conf": conf})

    def trigger(self, conf: dict[str, Any] | None = None) -> str:
        """A manual run. Returns its run id."""
        answer = self.try_to_trigger(conf or {})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["dag_run_id"])

    def done(self, conf: dict[str, Any], *, seconds: float = 90) -> tuple[str, dict[str, Any]]:
        """A manual run that ends green: its id, and the summary of `settle`."""
        run_id = self.trigger(conf)
        state = self.ended(run_id, seconds=seconds)
        assert state == "success", {k: t["state"] for k, t in self.tasks(run_id).items()}
        return run_id, self.xcom(run_id, "settle")

    def mark_failed(self, run_id: str) -> None:
        """End a run from outside: its tasks are killed and never tried again.

        Airflow 3.3.2 may answer 500 where a task starts in that moment: press again.
        """

        def marked() -> bool:
            answer = self.http.patch(self._url(run_id), json={"state": "failed"})
            assert answer.status_code in (200, 500), answer.text
            return answer.status_code == 200

        until("the run is marked as failed", marked)

    def run(self, run_id: str) -> dict[str, Any]:
        """A run as the API shows it."""
        return dict(self.http.get(self._url(run_id)).json())

    def runs(self, **params: Any) -> list[dict[str, Any]]:
        """The DAG's runs, the newest first."""
        params = {"order_by": "-run_after", "limit": 50, **params}
        return list(self.http.get(f"/dags/{self.dag}/dagRuns", params=params).json()["dag_runs"])

    def ended(self, run_id: str, *, seconds: float = 90) -> str:
        """The state that a run ends in."""

        def state() -> str | None:
            found = self.run(run_id)["state"]
            return found if found in ("success", "failed") else None

        return str(until(f"run {run_id}", state, seconds=seconds))

    def tasks(self, run_id: str) -> dict[tuple[str, int], dict[str, Any]]:
        """Task instances by (task id, map index)."""
        found = self.http.get(f"{self._url(run_id)}/taskInstances", params={"limit": 500}).json()
        return {(t["task_id"], t["map_index"]): t for t in found["task_instances"]}

    def xcom(self, run_id: str, task: str, key: str = "return_value", *, map_index: int = -1) -> Any:
        """A value that a task pushed."""
        url = f"{self._url(run_id)}/taskInstances/{task}/xcomEntries/{key}"
        answer = self.http.get(url, params={"deserialize": True, "map_index": map_index})
        assert answer.status_code == 200, answer.text
        return answer.json()["value"]

    def log(self, run_id: str, task: str, *, map_index: int = -1, attempt: int = 1) -> str:
        """A task's log, as text."""
        url = f"{self._url(run_id)}/taskInstances/{task}/logs/{attempt}"
        return self.http.get(url, params={"map_index": map_index, "full_content": True}).text

    def backfill(self, first: datetime, last: datetime, *more: str) -> None:
        """`airflow backfill create`, after the earlier ones, whose runs have ended."""
        self._note_that_backfills_are_over()
        at = [day.strftime("%Y-%m-%dT%H:%M:%S+00:00") for day in (first, last)]
        words = ("--dag-id", self.dag, "--from-date", at[0], "--to-date", at[1])
        self.command("backfill", "create", *words, *more)

    def _note_that_backfills_are_over(self) -> None:
        """Airflow does that itself twice a minute, and takes no other backfill of the DAG before."""
        for found in self.http.get("/backfills", params={"dag_id": self.dag}).json()["backfills"]:
            if not found["completed_at"]:
                answer = self.http.put(f"/backfills/{found['id']}/cancel")
                assert answer.status_code in (200, 409), answer.text  # 409: Airflow was quicker

    @contextmanager
    def down(self, name: str) -> Iterator[None]:
        """A server of the stack is stopped meanwhile."""
        server = self.stack.servers[name]
        server.stop()
        try:
            yield
        finally:
            server.restart()

    @contextmanager
    def userorg_fails(self, user: str) -> Iterator[None]:
        """User-Org answers 503 for one user meanwhile."""
        url = f"{self.stack.addresses.userorg}/_faults"
        self.http.put(url, json={"mode": "503", "user": user}).raise_for_status()
        try:
            yield
        finally:
            self.http.delete(url)

    @contextmanager
    def settings(self, **changed: Any) -> Iterator[None]:
        """Other settings meanwhile, by their names with ``_`` in place of the dots."""
        before = self.http.get(SETTINGS).json()["value"]
        self._set({**json.loads(before), **{name.replace("_", "."): v for name, v in changed.items()}})
        try:
            yield
        finally:
            self._set(json.loads(before))

    def _set(self, settings: dict[str, Any]) -> None:
        body = {"key": "user_ownership_transfer", "value": json.dumps(settings)}
        self.http.patch(SETTINGS, json=body).raise_for_status()

    def _url(self, run_id: str) -> str:
        return f"/dags/{self.dag}/dagRuns/{quote(run_id, safe='')}"

    def command(self, *words: str) -> None:
        """An `airflow …` command that succeeds."""
        done = subprocess.run(
            ["airflow", *words],
            env=self.stack.airflow_env,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


def asked_at(airflow: Airflow, run_id: str, index: int) -> str:
    """The address of a question of the approval DAG."""
    return f"{airflow.of(APPROVAL)._url(run_id)}/taskInstances/{ASK}/{index}/hitlDetails"


def question(airflow: Airflow, mid: str) -> tuple[str, int, dict[str, Any]]:
    """Where the approval DAG asks about a transfer, once it does: run, map index, and what it asks."""
    newest: dict[str, str | int] = {"order_by": "-created_at", "limit": 20}

    def found() -> tuple[str, int, dict[str, Any]] | None:
        answer = airflow.http.get(f"/dags/{APPROVAL}/dagRuns/~/hitlDetails", params=newest)
        for asked in answer.json()["hitl_details"]:
            if mid in asked["body"]:
                return asked["task_instance"]["dag_run_id"], asked["task_instance"]["map_index"], asked
        return None

    run_id, index, asked = until(f"a question about {mid}", found)
    until("the scheduler has seen that it is asked", lambda: _noted(airflow, run_id, index))
    return run_id, index, asked


def _noted(airflow: Airflow, run_id: str, index: int) -> bool:
    """An answer before this, within a tenth of a second, would fail the task: Airflow 3.3.2 takes the end of its
    first part for that of its second. No person is that quick."""
    seen = f"TaskInstance Finished: dag_id={APPROVAL}, task_id={ASK}, run_id={run_id}, map_index={index}"
    return seen in airflow.stack.servers["scheduler"].log_file.read_text()


def passwords_in_connections(environment: Mapping[str, str]) -> dict[str, str]:
    """The Connections of an environment, with a login and a password in each."""
    changed: dict[str, str] = {}
    for part in ("kafka", "cassandra", "elasticsearch", "lms", "userorg"):
        name = f"AIRFLOW_CONN_{part.upper()}_DEFAULT"
        connection = json.loads(environment[name])
        if part == "kafka":
            connection["extra"] |= {"sasl.username": "job", "sasl.password": PASSWORDS[part]}
        else:
            connection |= {"login": "job", "password": PASSWORDS[part]}
        changed[name] = json.dumps(connection)
    return changed


Login = Callable[[str], httpx.Client]


@contextmanager
def one_each(opened: Login) -> Iterator[Login]:
    """A client for each user who asks, closed in the end."""
    with ExitStack() as stack:
        yield cache(lambda user: stack.enter_context(opened(user)))


class StatsdReceiver:
    """A StatsD that keeps every datagram."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((HOST, 0))
        self.port = int(self._socket.getsockname()[1])
        self._thread = threading.Thread(target=self._receive, daemon=True)
        self._thread.start()

    def _receive(self) -> None:
        while line := self._socket.recv(65_536):
            self.lines.append(line.decode("utf-8", "replace"))

    def close(self) -> None:
        """Receive no more."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"", (HOST, self.port))  # ends the thread
        self._thread.join(10)
        self._socket.close()


@dataclass
class Story:
    """The platform, with people and courses of one test's own."""

    platform: Platform
    name: str
    ledger: str
    """The URL of the ledger's database."""

    def user(self, letter: str, organisation: str = ORGANISATION) -> str:
        """A user that User-Org knows."""
        user_id = f"{letter}-{self.name}"
        self.platform.add_user(user_id, organisation)
        return user_id

    def batches(self, owner: str, count: int, prefix: str = "b") -> list[Batch]:
        """Live batches that `owner` created."""
        made = [
            Batch(f"{prefix}-course-{n}-{self.name}", f"{prefix}-{n}-{self.name}", created_by=owner)
            for n in range(count)
        ]
        self.platform.add_batches(made)
        return made

    def rows(self, statement: str, **values: Any) -> list[dict[str, Any]]:
        """Rows that a statement (with `%(name)s`) answers in the ledger, by column."""
        with psycopg.connect(self.ledger, connect_timeout=10, row_factory=dict_row) as connection:
            done = connection.execute(statement.encode(), values)
            return done.fetchall() if done.description else []

    def event(self, mid: str) -> dict[str, Any]:
        """An event in the ledger with its message as `body`, or a rejected message; empty if there is neither."""
        found = self.rows(
            "SELECT event.*, body FROM event JOIN payload ON event_id = id WHERE mid = %(mid)s", mid=mid
        ) or self.rows("SELECT *, 'rejected' AS state FROM rejected_message WHERE mid = %(mid)s", mid=mid)
        return found[0] if found else {}

    def forget(self, mid: str) -> None:
        """The ledger loses an event, as if it had never been accepted."""
        for table in ("payload", "event_run", "queue", "plan", "change"):
            self.rows(f"DELETE FROM {table} USING event WHERE event_id = id AND mid = %(mid)s", mid=mid)
        assert self.rows("DELETE FROM event WHERE mid = %(mid)s RETURNING id", mid=mid)

    def state(self, mid: str) -> str | None:
        """State of an event; `rejected` for a rejected message."""
        return self.event(mid).get("state")

    def completed(self, *mids: str, seconds: float = 90) -> None:
        """Wait until all of `mids` are completed."""
        until(
            f"{len(mids)} events completed",
            lambda: {self.state(m) for m in mids} == {"completed"},
            seconds=seconds,
        )

    def owners(self, batches: list[Batch]) -> set[tuple[Any, Any]]:
        """Creators of batches in (row, document)."""
        found: set[tuple[Any, Any]] = set()
        for batch in batches:
            document = self.platform.document(batch.batch_id)
            assert document is not None
            found.add((self.creator(batch), document["createdBy"]))
        return found

    def creator(self, batch: Batch) -> Any:
        """Who created a batch, by its row."""
        row = self.platform.row(batch.course_id, batch.batch_id)
        assert row is not None
        return row["createdby"]


@contextmanager
def opened_story(stack: Stack) -> Iterator[Story]:
    """Users and batches that nobody else has."""
    a = stack.addresses
    with Platform(cassandra=a.cassandra, elasticsearch=a.elasticsearch, kafka=a.kafka, env="dev") as platform:
        yield Story(platform, uuid4().hex[:8], a.ledger)
