"""`make rehearse-switch-over`: the steps of docs/switch-over.md, on a stack of its own, with a stand-in of the old job.

Each step prints its command, what is seen, and whether that is as the page says. It ends by itself.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
import psycopg
from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource
from rich.console import Console

from local import stack
from local.demo.display import console
from local.demo.outcome import events_of
from local.demo.runs import carried_out
from local.demo.sample import OWNED, SampleWorld, sample_world
from local.paths import REPOSITORY, SWITCH_OVER
from local.platform.old_job import OldJob
from local.platform.standins import DEFAULT_LIMIT
from local.platform.stores import both_stores
from local.platform.world import Platform, User
from local.servers import airflow
from local.servers.processes import NotReadyError, await_condition
from local.servers.releases import Releases
from local.stack import Stack
from local.terminal import report

ENV: Final = "prod"
GROUP: Final = f"{ENV}-user-ownership-transfer-group"
APPROVAL: Final = 20
"""A transfer of more batches than this waits for an approval."""
REHEARSING: Final[Mapping[str, Any]] = {
    "env": ENV,
    "kafka.input.topic": f"{ENV}.user.ownership.transfer.rehearsal",
    "kafka.groupId": f"{ENV}-ownership-rehearsal",
}
"""Settings until the hand-over. Every run reads the topic of the settings, also one by hand: it must not be the old job's."""
SETTINGS: Final[Mapping[str, Any]] = {"env": ENV, "approval.batches": APPROVAL}
"""Settings from the hand-over on."""
TWO_DAYS_MS: Final = 2 * 86_400_000
WAIT_S: Final = 180.0


def main() -> int:
    """Play every step; the exit code is 1 if something is not as the page says."""
    shown_on = console()
    if SWITCH_OVER.exists():
        stack.end_all(SWITCH_OVER)
        shutil.rmtree(SWITCH_OVER)
    shown_on.print("Starting a stack of its own (logs in .local/switch-over/logs)")
    began = time.monotonic()
    with _started() as running:
        known = running.addresses
        with Platform(
            cassandra=known.cassandra, elasticsearch=known.elasticsearch, kafka=known.kafka, env=ENV
        ) as platform:
            play = Rehearsal(running, platform, sample_world(platform), shown_on)
            try:
                play.all_steps()
            except NotReadyError as error:
                play.wrong.append(str(error))
    shown_on.print()
    if play.wrong:
        shown_on.print(f"[bold red]{len(play.wrong)} things were not as docs/switch-over.md says:[/]")
        for sentence in play.wrong:
            shown_on.print(f"  {sentence}", markup=False)
        return 1
    shown_on.print(
        f"[bold green]Every step was as docs/switch-over.md says[/], {time.monotonic() - began:.0f} s in all."
    )
    return 0


@contextmanager
def _started() -> Iterator[Stack]:
    made = Stack(SWITCH_OVER, airflow=True, releases=Releases.from_environment(), settings=REHEARSING)
    try:
        made.start(report)
        yield made
    finally:
        made.stop()


@dataclass
class Rehearsal:
    """The steps, in order; `wrong` has a sentence for each thing that was not as it should be."""

    running: Stack
    platform: Platform
    world: SampleWorld
    shown_on: Console
    wrong: list[str] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    """Mids that were sent between the two jobs."""

    def all_steps(self) -> None:
        """Play them all."""
        self.topics()
        self.producer()
        self.beside_the_old_job()
        self.hand_over()
        self.first_hour()
        self.way_back()

    # --- the steps ------------------------------------------------------------------------------------------

    def topics(self) -> None:
        """The platform's Ansible has made the topic, with two days of retention."""
        self._step("1. Topics")
        admin = AdminClient({"bootstrap.servers": self.running.addresses.kafka})
        two_days = ConfigEntry("retention.ms", str(TWO_DAYS_MS), incremental_operation=AlterConfigOpType.SET)
        topic = ConfigResource(
            ConfigResource.Type.TOPIC, self.platform.input_topic, incremental_configs=[two_days]
        )
        admin.incremental_alter_configs([topic])[topic].result(timeout=30)
        said = self._command("python -m ownership.edge.topics", SETTINGS)
        self._see("14 days instead of 2 days" in said, "the topic keeps its messages for 14 days")
        self._command("python -m ownership.edge.topics --partitions 1")

    def producer(self) -> None:
        """The producer's variable."""
        self._step("2. The producer's variable")
        error = self._send_to("{{env_name}}.user.ownership.transfer")
        self.shown_on.print(f"without it: {error}; User-Org answers success all the same", markup=False)
        self._see(error is not None, "Kafka refuses the literal name")
        before = self._ends()
        self._emit((self.world.outsider, self.world.owner_successor))  # either job skips it
        self._see(sum(self._ends()) == sum(before) + 1, "with it one request is one message on the topic")

    def beside_the_old_job(self) -> None:
        """Dry runs of the transfers that the old job is about to carry out, and what it made of them."""
        self._step("3. Dry runs beside the old job")
        world, platform = self.world, self.platform
        stolen = next(b for b in world.batches if b.created_by == world.chain[0].user_id)
        platform.update_row(stolen.course_id, stolen.batch_id, createdby=world.administrator.user_id)
        transfers = ((world.owner, world.owner_successor), (world.chain[0], world.chain[1]))
        self._emit(*transfers)
        conf = {"events": [self._form(*pair) for pair in transfers], "dry_run": True}
        before = both_stores(platform, world.batches)
        summary = self._trigger(conf)
        self.shown_on.print(f"  events: {summary.get('events')}", markup=False)
        self._see(summary.get("events") == {"rehearsed": 2}, "both transfers are planned")
        self._see(before == both_stores(platform, world.batches), "nothing has changed")
        with self._old_job() as old:
            self._await(lambda: len(old.carried_out) == 3, "the old job has carried out its backlog")
        said = self._command("python -m ownership.edge.rehearsals --hours 1", fails=True)
        moved = f"{DEFAULT_LIMIT} as planned, {OWNED - DEFAULT_LIMIT} not moved"
        self._see(moved in said, f"of {OWNED} batches the old job moved the first {DEFAULT_LIMIT}")
        self._see("to be left alone, but changed" in said, "it overwrote the row of another owner")

    def hand_over(self) -> None:
        """The old job is stopped; what comes meanwhile waits behind its offsets."""
        self._step("4. The old job's offsets")
        world = self.world
        self.waiting = self._emit((world.chain[1], world.chain[2]), (world.owner_successor, world.owner))
        self._pause(paused=True)
        self._await(lambda: not self._active_runs(), "no run of this job is active")
        lag = self._group()
        self._see(None not in lag, "each partition has an offset of the old job")
        self._see(sum(n or 0 for n in lag) == len(self.waiting), "what was sent since waits")

    def first_hour(self) -> None:
        """DAGs on, with a bound above which a transfer waits for an approval."""
        self._step("5. The first hour")
        small, large = self.waiting
        self._set(SETTINGS)
        self._restart_triggerer()
        self._pause(paused=False)
        self._await(
            lambda: self._states(small, large) == ["completed", "awaiting_approval"],
            "the small transfer is proven, the large one waits",
        )
        self._see(sum(n or 0 for n in self._group()) == 0, "the group's offsets follow the ledger's")
        digest = self._ledger(f"SELECT digest FROM event WHERE mid = '{large}'")
        self._trigger({"approve": {"mid": large, "digest": digest, "by": "the board"}})
        self._await(lambda: self._states(large) == ["completed"], "once approved, it is proven, too")
        stores = both_stores(self.platform, self.world.batches)
        self._see(stores.row_owners == stores.document_owners, "rows and documents agree")
        said = self._command("python -m ownership.health", SETTINGS)
        self._see(said.startswith("Healthy"), "health has nothing to say")

    def way_back(self) -> None:
        """The old job goes on where this one ended."""
        self._step("6. The way back")
        self._pause(paused=True)
        self._await(lambda: not self._active_runs(), "no run is active")
        self._see(self._ledger("SELECT count(*) FROM queue") == 0, "nothing is left in the queue")
        sent = self._emit((self.world.mentor, self.world.mentor_successor))
        with self._old_job() as old:
            self._await(lambda: bool(old.carried_out), "the old job takes the next message")
        self._see(old.carried_out == sent, "that message and no other")
        self._see(sum(n or 0 for n in self._group()) == 0, "nothing waits")
        self._pause(paused=False)
        self._await(
            lambda: self._states(*sent) == ["completed"],
            "forward again, this job proves what the old one did meanwhile",
        )

    # --- what the steps share -------------------------------------------------------------------------------

    def _step(self, title: str) -> None:
        self.shown_on.print()
        self.shown_on.rule(f"[bold]{title}[/]", align="left")

    def _see(self, good: bool, what: str) -> None:  # noqa: FBT001  # the condition itself
        self.shown_on.print(("[green]seen[/]      " if good else "[bold red]not seen[/]  ") + what)
        if not good:
            self.wrong.append(f"not seen: {what}")

    def _await(self, condition: Callable[[], bool], what: str) -> None:
        await_condition(condition, timeout_s=WAIT_S, what=what, poll_s=0.5)
        self._see(good=True, what=what)

    def _command(self, line: str, settings: Mapping[str, Any] = REHEARSING, *, fails: bool = False) -> str:
        """Run a command of the page in Airflow's environment, with these settings, and print it with its output."""
        self.shown_on.print(f"$ {line}", style="bold", markup=False)
        _, *arguments = shlex.split(line)
        done = subprocess.run(
            (sys.executable, *arguments),
            env={**self.running.airflow_env, "AIRFLOW_VAR_USER_OWNERSHIP_TRANSFER": json.dumps(settings)}, cwd=REPOSITORY, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=WAIT_S, check=False,
        )  # fmt: skip
        lines = done.stdout.splitlines()
        details = [line for line in lines if line.startswith(" ")]
        for shown in (*(line for line in lines if line not in details[3:]), *done.stderr.splitlines()[-1:]):
            self.shown_on.print(f"  {shown}", markup=False, soft_wrap=True)
        self._see(done.returncode == int(fails), f"exit code {int(fails)}")
        return done.stdout

    def _trigger(self, conf: Mapping[str, Any]) -> dict[str, Any]:
        """Start a run by hand and await its end. Returns its summary."""
        self.shown_on.print(
            f"$ airflow dags trigger {airflow.DAG_ID} --conf '{json.dumps(conf)}'",
            style="bold", markup=False, soft_wrap=True,
        )  # fmt: skip
        _, summary = carried_out(self.running.addresses, conf)
        return summary

    def _api(self) -> httpx.Client:
        return airflow.api(self.running.addresses.airflow, self.running.addresses.airflow_password)

    def _pause(self, *, paused: bool) -> None:
        self.shown_on.print(f"$ airflow dags {'' if paused else 'un'}pause …", style="bold", markup=False)
        with self._api() as api:
            for dag_id in airflow.DAG_IDS:
                api.patch(f"/dags/{dag_id}", json={"is_paused": paused}).raise_for_status()

    def _set(self, settings: Mapping[str, Any]) -> None:
        key, value = "user_ownership_transfer", json.dumps(settings)
        self.shown_on.print(f"$ airflow variables set {key} '{value}'", style="bold", markup=False)
        with self._api() as api:
            api.patch(f"/variables/{key}", json={"key": key, "value": value}).raise_for_status()

    def _restart_triggerer(self) -> None:
        """The watcher reads the settings when it starts."""
        self.shown_on.print(
            "$ kubectl rollout restart statefulset/airflow-triggerer", style="bold", markup=False
        )
        triggerer = self.running.servers["triggerer"]
        triggerer.stop()
        triggerer.start()
        triggerer.wait_ready()

    def _active_runs(self) -> int:
        with self._api() as api:
            found = api.get(f"/dags/{airflow.DAG_ID}/dagRuns", params={"state": ["running", "queued"]})
            return int(found.json()["total_entries"])

    def _old_job(self) -> OldJob:
        known = self.running.addresses
        return OldJob(self.platform, kafka=known.kafka, lms=known.lms, userorg=known.userorg)

    def _emit(self, *transfers: tuple[User, User]) -> list[str]:
        """Send these transfers, one to each partition in turn. Returns their mids."""
        events = [self.platform.event(*pair, self.world.organisation) for pair in transfers]
        for number, event in enumerate(events):
            self.platform.emit(event, partition=number % 2)
        return [event["mid"] for event in events]

    def _form(self, source: User, target: User) -> dict[str, str]:
        return {
            "from_user": source.user_id,
            "to_user": target.user_id,
            "organisation_id": self.world.organisation,
        }

    def _send_to(self, topic: str) -> KafkaError | None:
        """What Kafka answers to a message on this topic."""
        answers: list[KafkaError | None] = []

        def note(error: KafkaError | None, _: Message) -> None:
            answers.append(error)

        producer = Producer({"bootstrap.servers": self.running.addresses.kafka, "message.timeout.ms": 10_000})
        producer.produce(topic, value=b"{}", on_delivery=note)
        producer.flush(30)
        return answers[0]

    def _group(self) -> Sequence[int | None]:
        """The consumer group's lag by partition, as `kafka-consumer-groups.sh --describe` shows it; None: no offset."""
        self.shown_on.print(
            f"$ kafka-consumer-groups.sh --describe --group {GROUP}", style="bold", markup=False
        )
        consumer = Consumer({"bootstrap.servers": self.running.addresses.kafka, "group.id": GROUP})
        try:
            places = [TopicPartition(self.platform.input_topic, p) for p in range(2)]
            committed = consumer.committed(places, timeout=30)
            ends = [consumer.get_watermark_offsets(p, timeout=30)[1] for p in places]
        finally:
            consumer.close()
        lags = [end - at.offset if at.offset >= 0 else None for at, end in zip(committed, ends, strict=True)]
        for at, end, lag in zip(committed, ends, lags, strict=True):
            current = at.offset if at.offset >= 0 else "-"
            self.shown_on.print(
                f"  PARTITION {at.partition}  CURRENT-OFFSET {current}  LOG-END-OFFSET {end}  LAG {'-' if lag is None else lag}"
            )
        return lags

    def _ends(self) -> list[int]:
        consumer = Consumer({"bootstrap.servers": self.running.addresses.kafka, "group.id": "look"})
        try:
            return [
                consumer.get_watermark_offsets(TopicPartition(self.platform.input_topic, p), timeout=30)[1]
                for p in range(2)
            ]
        finally:
            consumer.close()

    def _states(self, *mids: str) -> list[str]:
        found = events_of(self.running.addresses.ledger, mids)
        return [found[mid].state for mid in mids]

    def _ledger(self, query: str) -> Any:
        with psycopg.connect(self.running.addresses.ledger, connect_timeout=10) as connection:
            row = connection.execute(query).fetchone()
            return row[0] if row else None
