"""The demo's three acts on a running stack, each with its deviations: a dry run, the messages, an undo."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from rich.console import Console

from local.demo.display import (
    Names,
    Progress,
    events_table,
    letters_table,
    order_line,
    people_table,
    plan_lines,
    plan_table,
    sent_line,
)
from local.demo.outcome import (
    DeadLetter,
    Plan,
    Standing,
    dead_letters,
    differences,
    standing,
    wrong_owners,
)
from local.demo.runs import RefusedError, Run, carried_out, ended_runs
from local.demo.sample import SampleWorld, sample_world
from local.demo.story import COMPLETED, Message, expected_owners, story
from local.platform.stores import Owners, Stores, both_stores, changes
from local.platform.world import LIVE, Owned, Platform
from local.servers import airflow
from local.servers.processes import NotReadyError
from local.stack import Addresses

TIMEOUT_S: Final = 180.0
"""Longest wait for the events; a warm laptop needs about ten seconds."""


class DemoError(RuntimeError):
    """The demo could not be completed; the message says where to look."""


@dataclass(frozen=True)
class Rehearsal:
    """The result of the dry run."""

    run: Run
    plan: Plan
    wrong: list[str]


@dataclass(frozen=True)
class Performance:
    """The result of the messages. `sent` is by the ledger's key, in the order of sending."""

    sent: Mapping[str, Message]
    after: Mapping[str, Owned]
    owners: Mapping[str, Owners]
    end: Standing
    letters: list[DeadLetter]
    runs: list[Run]
    seconds: float
    """From the first message to the last proof."""
    wrong: list[str]


@dataclass(frozen=True)
class Undone:
    """The result of the undo."""

    run: Run
    mids: tuple[str, ...]
    """The transfers that were undone."""
    after: Mapping[str, Owned]
    wrong: list[str]


@dataclass(frozen=True)
class Outcome:
    """The results of all three acts."""

    world: SampleWorld
    before: Mapping[str, Owned]
    rehearsal: Rehearsal
    messages: Performance
    undone: Undone

    @property
    def wrong(self) -> list[str]:
        """Deviations from what is expected, a sentence each."""
        return [*self.rehearsal.wrong, *self.messages.wrong, *self.undone.wrong]


def play(
    addresses: Addresses, shown_on: Console, *, env: str = "dev", timeout_s: float = TIMEOUT_S
) -> Outcome:
    """Seed, show, and play the three acts.

    Raises DemoError when the events are not final in `timeout_s` seconds, or a run does not end in time.
    """
    with (
        Platform(
            cassandra=addresses.cassandra,
            elasticsearch=addresses.elasticsearch,
            kafka=addresses.kafka,
            env=env,
        ) as platform,
        _failures_as_demo_errors(),
    ):
        world = sample_world(platform)
        before = platform.owned_by(person.user_id for person in world.people)
        shown_on.print()
        shown_on.print(people_table("Before: live batches of each person", world.people, before))
        acts = _Acts(addresses, platform, world, before, shown_on)
        rehearsal = acts.dry_run()
        begun = both_stores(platform, world.batches)
        messages = acts.messages(timeout_s)
        return Outcome(world, before, rehearsal, messages, acts.undo(messages, begun))


@contextmanager
def _failures_as_demo_errors() -> Iterator[None]:
    """Raise DemoError for a run that does not end or is refused."""
    try:
        yield
    except (NotReadyError, RefusedError) as error:
        raise DemoError(str(error)) from error


@dataclass(frozen=True)
class _Acts:
    addresses: Addresses
    platform: Platform
    world: SampleWorld
    before: Mapping[str, Owned]
    shown_on: Console

    def dry_run(self) -> Rehearsal:
        """Plan the owner's transfer, and compare both stores with what they were."""
        world = self.world
        self._heading("1. Dry run: what would change if Old owner's batches went to New owner")
        before = both_stores(self.platform, world.batches)
        run, summary = self._by_hand(airflow.DAG_ID, dry_run_conf(world))
        changed = changes(before, both_stores(self.platform, world.batches), before.rows)
        plan = Plan.of(summary, f"manual:{run.run_id}:0")
        if plan is None:
            raise DemoError(f"The dry run ended as {run.state}, without a plan; see {run.url}")
        for line in plan_lines(plan):
            self.shown_on.print(line, soft_wrap=True)
        self.shown_on.print(plan_table(plan, Names(world)))
        wrong = [*_wrong_plan(plan, world), *changed]
        self._verdict(
            wrong,
            f"[bold green]Nothing has changed:[/] {len(before.rows)} rows and {len(before.documents)} "
            "documents are as they were before the dry run, field by field.",
        )
        return Rehearsal(run, plan, wrong)

    def messages(self, timeout_s: float) -> Performance:
        """Send the messages, follow them until every event is final, show the results."""
        world, platform = self.world, self.platform
        self._heading("2. The messages")
        messages = story(world)
        owners = expected_owners(world.batches, messages)
        begun_at = time.time()
        # Alternate between the partitions: events are ordered by their own times, not by the topic.
        places = [
            platform.emit(message.value, partition=number % 2) for number, message in enumerate(messages)
        ]
        # The duplicate has the same key as the first copy.
        sent = {message.mid(place): message for message, place in zip(messages, places, strict=True)}
        self.shown_on.print(f"[bold]{sent_line(messages)}[/] on {platform.input_topic}")

        def look() -> Standing:
            return standing(platform, self.addresses.ledger, sent, world.batches)

        end = Progress(self.shown_on, owners, _seeded(world, look())).follow(look, timeout_s=timeout_s)
        if not end.final:
            raise DemoError(_unfinished(end, sent, timeout_s))
        letters = dead_letters(self.addresses.kafka, platform.failed_topic, places)
        run_ids = {event.run_id for event in end.events.values() if event.run_id}
        performed = Performance(
            sent=sent,
            after=self._owned(),
            owners=owners,
            end=end,
            letters=letters,
            runs=ended_runs(self.addresses, run_ids),
            seconds=_last_proof(end) - begun_at,
            wrong=differences(end, sent, owners, letters),
        )
        self._show(performed)
        return performed

    def undo(self, messages: Performance, begun: Stores) -> Undone:
        """Undo two of the transfers, and compare both stores with their state before the messages."""
        world = self.world
        self._heading("3. Undo: Old owner and Old mentor get their batches back")
        givers = (world.owner, world.mentor)
        mids = tuple(
            mid
            for mid, message in messages.sent.items()
            if message.expected == COMPLETED and message.from_user in {giver.user_id for giver in givers}
        )
        run, summary = self._by_hand(airflow.UNDO_DAG_ID, undo_conf(mids))
        after, now = self._owned(), both_stores(self.platform, world.batches)
        owners = expected_owners(world.batches, [m for mid, m in messages.sent.items() if mid not in mids])
        then = begun.row_owners
        back = [batch for batch, expected in owners.items() if expected == then[batch]]
        moved = [messages.end.events[mid].counts.get("moved", 0) for mid in mids]
        wrong = [
            *_wrong_undo(run, summary, len(mids), sum(moved)),
            *wrong_owners(now.row_owners, now.document_owners, owners),
            *changes(begun, now, back),
        ]
        people = (world.owner, world.owner_successor, world.mentor, world.mentor_successor)
        self.shown_on.print(people_table("After the undo: live batches", people, after, messages.after))
        self._verdict(
            wrong,
            f"[bold green]Given back:[/] {' + '.join(map(str, moved))} batches, no conflicts. {len(back)} rows "
            "and documents are as they were before the messages, field by field; the other "
            f"{len(owners) - len(back)} are where the other transfers put them.",
        )
        return Undone(run, mids, after, wrong)

    # -- what the acts share -----------------------------------------------------------------------------

    def _heading(self, text: str) -> None:
        self.shown_on.print()
        self.shown_on.rule(f"[bold]{text}[/]", align="left")

    def _by_hand(self, dag_id: str, conf: Mapping[str, Any]) -> tuple[Run, dict[str, Any]]:
        self.shown_on.print(order_line(dag_id, conf), soft_wrap=True)
        return carried_out(self.addresses, conf, dag_id=dag_id)

    def _owned(self) -> dict[str, Owned]:
        return self.platform.owned_by(person.user_id for person in self.world.people)

    def _show(self, performed: Performance) -> None:
        names, states = Names(self.world), performed.end.states
        self.shown_on.print()
        self.shown_on.print(
            people_table(
                "After: live batches of each person", self.world.people, performed.after, self.before
            )
        )
        self.shown_on.print(events_table(performed.sent, performed.end.events, names))
        self.shown_on.print(letters_table(self.platform.failed_topic, performed.letters))
        counts = ", ".join(f"{states[state]} {state}" for state in (COMPLETED, "skipped", "rejected"))
        self.shown_on.print(f"{performed.seconds:.1f} s from the first message to the last proof.")
        self._verdict(
            performed.wrong,
            f"[bold green]As expected:[/] {counts}; {len(performed.owners)} batches compared in both stores, "
            f"each with the right creator and mentors; {len(performed.letters)} dead letters.",
        )

    def _verdict(self, wrong: Collection[str], otherwise: str) -> None:
        if wrong:
            self.shown_on.print("[bold red]Not as expected:[/]")
            for difference in wrong:
                self.shown_on.print(f"  {difference}", markup=False)
            return
        self.shown_on.print(otherwise, soft_wrap=True)


def dry_run_conf(world: SampleWorld) -> dict[str, Any]:
    """The conf of a manual run that plans the owner's transfer and changes nothing."""
    return {
        "from_user": world.owner.user_id,
        "to_user": world.owner_successor.user_id,
        "organisation_id": world.organisation,
        "dry_run": True,
        "reason": "a look before it happens",
    }


def undo_conf(mids: Collection[str]) -> dict[str, Any]:
    """The conf of a run of the undo DAG that undoes these transfers."""
    return {"mids": list(mids), "dry_run": False, "reason": "it was the wrong successor"}


def _wrong_plan(plan: Plan, world: SampleWorld) -> list[str]:
    mine = [b for b in world.batches if b.created_by == world.owner.user_id and b.status in LIVE]
    compared = {
        "batches": (plan.batches, len(mine)),
        "roles": (dict(plan.roles), {"created": len(mine)}),
        "courses": (dict(plan.courses), dict(Counter(batch.course_id for batch in mine))),
        "conflicts": (plan.conflicts, 0),
    }
    return [
        f"the plan's {what} are {found}, not {expected}"
        for what, (found, expected) in compared.items()
        if found != expected
    ]


def _wrong_undo(run: Run, summary: Mapping[str, Any], transfers: int, batches: int) -> list[str]:
    compared = {
        "state is": (run.state, "success"),
        "events are": (summary.get("events"), {COMPLETED: transfers}),
        "batches are": (summary.get("batches"), {"moved": batches}),
    }
    return [
        f"the undo's {what} {found}, not {expected}: see {run.url}"
        for what, (found, expected) in compared.items()
        if found != expected
    ]


def _seeded(world: SampleWorld, now: Standing) -> Standing:
    """`now` with the batches as they were seeded, because the job may have started before the first read."""
    seeded = {batch.batch_id: Owners(batch.created_by, tuple(batch.mentors or ())) for batch in world.batches}
    return Standing(now.events, seeded, seeded)


def _last_proof(end: Standing) -> float:
    proofs: list[datetime] = [event.completed_at for event in end.events.values() if event.completed_at]
    return max(proofs).timestamp()


def _unfinished(end: Standing, sent: Mapping[str, Message], timeout_s: float) -> str:
    open_events = [
        f"  {message.what} ({mid}): {end.events[mid].state} {end.events[mid].reason}".rstrip()
        for mid, message in sent.items()
        if not end.events[mid].final
    ]
    return "\n".join(
        [f"{len(open_events)} of {len(sent)} events are not final after {timeout_s:.0f} s:", *open_events]
    )
