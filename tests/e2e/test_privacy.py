"""Names of people and secrets stay where they belong: in the ledger's payloads, the dead letters and the Connections.

Events whose profiles carry unmistakable names, an e-mail address and a phone number go every way that an event can go,
with passwords in every Connection (`conftest.py`); then everything that Airflow wrote, stored, sent or counted is searched for them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg2
import pytest
from confluent_kafka import Consumer, TopicPartition
from psycopg2 import sql

from local.platform.schema import failed_topic
from local.platform.world import Batch, Offset
from tests.e2e.airflow_world import ORGANISATION, PASSWORDS, Airflow, StatsdReceiver, Story, until
from tests.e2e.test_announced import Received, served, webhook_server

PROCESSES = ("scheduler", "triggerer", "dag-processor", "api-server")


@dataclass
class Seen:
    """Where words were searched for, and what was found."""

    texts: int = 0
    found: list[str] = field(default_factory=list)

    def search(self, where: str, text: str, words: dict[str, str]) -> None:
        self.texts += 1
        for what, word in words.items():
            if (at := text.find(word)) >= 0:
                self.found.append(f"{where} has {what}: …{text[max(0, at - 120) : at + len(word) + 40]}…")


def rows_of_the_metadata(airflow: Airflow) -> Iterator[tuple[str, str]]:
    """Every row of every table of Airflow's database, as text."""
    folder = airflow.stack.servers["postgres"].address
    with (
        closing(psycopg2.connect(host=folder, user="postgres", dbname="airflow")) as database,
        database.cursor() as rows,
    ):
        rows.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY tablename")
        for (table,) in rows.fetchall():
            rows.execute(sql.SQL("SELECT t::text FROM {} t").format(sql.Identifier(table)))
            for (row,) in rows.fetchall():
                yield f"table {table}", row


def logs(airflow: Airflow) -> Iterator[tuple[str, str]]:
    """Every log file of Airflow's processes and tasks."""
    layout = airflow.stack.layout
    files = [layout.log(f"airflow-{name}") for name in PROCESSES]
    files += sorted(f for f in (layout.data("airflow") / "logs").rglob("*") if f.is_file())
    for file in files:
        yield f"log {file.name}", Path(file).read_text("utf-8", "replace")


def dead_letters(airflow: Airflow) -> dict[tuple[str, str], tuple[str, str]]:
    """By partition and offset of the message: reason, and value."""
    consumer = Consumer(
        {"bootstrap.servers": airflow.stack.addresses.kafka, "group.id": "look at dead letters"}
    )
    with closing(consumer):
        at = TopicPartition(failed_topic("dev"), 0, 0)
        _, high = consumer.get_watermark_offsets(at, timeout=10)
        consumer.assign([at])
        found: dict[tuple[str, str], tuple[str, str]] = {}
        while len(found) < high:
            for m in consumer.consume(high - len(found), timeout=10):
                headers = {k: bytes(v or b"").decode() for k, v in dict(m.headers() or []).items()}  # type: ignore[arg-type]  # they come as pairs
                value = (m.value() or b"").decode("utf-8", "replace")
                found[headers["partition"], headers["offset"]] = (headers["error_message"], value)
        return found


def people(tag: str) -> dict[str, str]:
    """What a profile says about a person, in words that occur nowhere else."""
    return {
        "userName": f"zqlogin{tag}",
        "firstName": f"Zqfirst{tag}",
        "lastName": f"Zqlast{tag}",
        "email": f"zq.{tag}@mail.example",
        "phone": f"+99-8877-{tag}",
    }


def unreadable(story: Story, event: dict[str, Any], person: dict[str, str]) -> list[bytes]:
    """Messages that are rejected, with a name where the reason might repeat it."""
    name = f"{person['firstName']} {person['lastName']}"

    def changed(**fields: Any) -> bytes:
        return json.dumps({**event, "mid": f"LP.bad.{story.name}", **fields}).encode()

    def edata(**fields: Any) -> bytes:
        return changed(edata={**event["edata"], **fields})

    return [
        changed(mid=[name]),
        changed(mid=f"{name}\u200b{name}"),
        changed(eid=name),
        edata(action=person["email"]),
        edata(toUserProfile=name),
        edata(fromUserProfile={**person, "userId": {"name": name}}),
        edata(fromUserProfile={**person, "userId": f"{name}\u202e{name}"}),
        edata(organisationId=[name]),
        changed(**{name: 1, "edata": None}),
        json.dumps(event).encode()[:-40],
        json.dumps(event).encode().replace(b"Zqlast", b"Zqlast\xff"),
        json.dumps(event).encode().replace(b'"Zqfirst', b"'Zqfirst"),
        b'"' + name.encode() + b'"',
        name.encode(),
    ]


@pytest.fixture
def webhook(airflow: Airflow) -> Iterator[Received]:
    """A webhook with a password that hears of conflicts and failures."""
    found = Received()
    with served(webhook_server(found)) as port:
        body = {
            "connection_id": "posted",
            "conn_type": "http",
            "host": f"http://127.0.0.1:{port}/ownership",
            "login": "job",
            "password": PASSWORDS["webhook"],
        }
        airflow.http.delete("/connections/posted")
        airflow.http.post("/connections", json=body).raise_for_status()
        with airflow.settings(notify_webhook_connection="posted"):
            yield found
        airflow.http.delete("/connections/posted")


@dataclass
class Told:
    """What was sent, by what became of it."""

    person: dict[str, str]
    completed: list[dict[str, Any]]
    batches: list[Batch]
    offsets: list[Offset]
    """Of the rejected ones."""
    values: list[bytes]

    @property
    def rejected(self) -> list[str]:
        """Mids of the rejections."""
        return [f"rejected:{at.topic}:{at.partition}:{at.offset}" for at in self.offsets]


def tell(airflow: Airflow, story: Story) -> Told:
    """Events that are completed, after a failure too, in conflict, skipped and rejected: all with names in them."""
    person = people(story.name)
    old, new, stuck, late, other = (story.user(letter) for letter in ("old", "new", "stuck", "late", "other"))
    outsider = story.user("outsider", "another")
    batches = story.batches(old, 3)
    (elsewhere,) = story.batches(stuck, 1, "e")
    story.platform.update_row(elsewhere.course_id, elsewhere.batch_id, createdby=other)

    def event(from_user: str, to_user: str) -> dict[str, Any]:
        made = story.platform.event(from_user, to_user, ORGANISATION)
        made["edata"]["actionBy"] = {**person, "userId": "admin-1"}
        for side in ("fromUserProfile", "toUserProfile"):
            made["edata"][side] |= person
        return dict(made)

    good, failing = event(old, new), event(stuck, late)
    skipped = [event(old, outsider), event(new, new), event(f"nobody-{story.name}", new)]
    values = unreadable(story, good, person)
    values.append(json.dumps({**event(new, outsider), "mid": good["mid"]}).encode())
    with airflow.userorg_fails(stuck):
        story.platform.emit_all([good, *skipped, failing], partition=0)
        offsets = story.platform.emit_all(values, partition=0)
        until("one is seen to fail", lambda: story.state(failing["mid"]) == "failed", seconds=120)
    posted = Told(person, [good, failing], batches, offsets, values)
    story.completed(good["mid"], failing["mid"], seconds=180)
    until("the bad ones are rejected", lambda: {story.state(m) for m in posted.rejected} == {"rejected"})
    until("the others are skipped", lambda: {story.state(e["mid"]) for e in skipped} == {"skipped"})
    assert story.owners(batches) == {(new, new)}
    return posted


def search_runs(airflow: Airflow, run_ids: Iterable[str], seen: Seen, words: dict[str, str]) -> None:
    """Everything that the API shows of runs."""
    for run_id in run_ids:
        airflow.ended(run_id, seconds=180)
        seen.search("a run's conf", json.dumps(airflow.run(run_id)["conf"]), words)
        for (task, index), instance in airflow.tasks(run_id).items():
            seen.search(f"rendered fields of {task}", json.dumps(instance.get("rendered_fields")), words)
            for attempt in range(1, instance["try_number"] + 1):
                log = airflow.log(run_id, task, map_index=index, attempt=attempt)
                seen.search(f"API's log of {task}", log, words)


def test_no_name_and_no_password_is_in_a_log_an_xcom_a_metric_or_any_table_of_airflow(
    airflow: Airflow, story: Story, statsd: StatsdReceiver, webhook: Received
):
    before = len(statsd.lines)
    posted = tell(airflow, story)
    until("the webhook hears of the conflict", lambda: any("conflicts" in p["kinds"] for p in webhook.posts))
    until(
        "StatsD hears of it", lambda: any("success-message-count" in line for line in statsd.lines[before:])
    )

    # The ledger's server asks for the password that its Connection has anyhow.
    passwords = {**PASSWORDS, "the ledger": urlsplit(story.ledger).password or ""}
    assert all(passwords.values())
    words = posted.person | {f"the password of {name}": secret for name, secret in passwords.items()}
    seen, ids = Seen(), Seen()
    mids = {f"the mid {e['mid']}": e["mid"] for e in posted.completed}
    search_runs(airflow, {str(story.event(e["mid"])["run_id"]) for e in posted.completed}, seen, words)
    for where, text in (*rows_of_the_metadata(airflow), *logs(airflow)):
        seen.search(where, text, words)
        ids.search(where, text, mids)
    for line in statsd.lines:
        seen.search("a datagram of StatsD", line, words)
    for post in webhook.posts:
        seen.search("a post to the webhook", json.dumps(post), words)
    letters = dead_letters(airflow)
    for mid, at, value in zip(posted.rejected, posted.offsets, posted.values, strict=True):
        reason, copy = letters[str(at.partition), str(at.offset)]
        seen.search(f"the reason of {value!r}", reason, words)
        seen.search(f"the reason of {value!r}", str(story.event(mid)["reason"]), words)
        assert copy == value.decode("utf-8", "replace")
    assert seen.found == []

    # It was looked where ids are, and names are where they are meant to be.
    assert any(f.startswith("table xcom ") for f in ids.found)
    assert any(f.startswith("log ") for f in ids.found)
    payload = bytes(story.event(posted.completed[0]["mid"])["body"]).decode()
    assert all(word in payload for word in posted.person.values())
