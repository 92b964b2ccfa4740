"""`make demo`: a sample world, real events, good and bad, and the proof of what became of them.

It has a stack of its own, begun anew each time and beside every other: nothing is left over from the last time,
and nobody else's data is touched.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

from rich.console import Console

from local import airflow, elasticsearch, stack
from local.display import (
    Names,
    Progress,
    console,
    events_table,
    letters_table,
    people_table,
    run_lines,
    sent_line,
)
from local.outcome import (
    DeadLetter,
    Standing,
    TransferRun,
    dead_letters,
    differences,
    ended_runs,
    opened_api,
    standing,
)
from local.paths import DEMO, REPOSITORY
from local.processes import NotReadyError, await_condition
from local.sample import SampleWorld, sample_world
from local.stack import Addresses, Stack
from local.story import COMPLETED, Message, Owners, expected_owners, story
from local.terminal import report
from local.world import Owned, Platform

TIMEOUT_S: Final = 180.0
"""Longest wait for the events; a warm laptop needs about ten seconds."""
ADDRESSES: Final = DEMO / "addresses.env"


class DemoError(RuntimeError):
    """The demo did not get to its end; the message says where to look."""


@dataclass(frozen=True)
class Outcome:
    """All that the demo found out. `sent` is by the ledger's key, in the order of sending."""

    world: SampleWorld
    sent: Mapping[str, Message]
    before: Mapping[str, Owned]
    after: Mapping[str, Owned]
    owners: Mapping[str, Owners]
    end: Standing
    letters: list[DeadLetter]
    runs: list[TransferRun]
    seconds: float
    """From the first message to the last proof."""
    wrong: list[str]
    """What is not as expected; empty when all is."""


def main(*, once: bool = False) -> int:
    """Run the demo and stay up until Ctrl-C, or end after printing when `once`; the exit code."""
    shown_on = console()
    told = False
    try:
        with _ended_by_signals(), _own_stack(shown_on) as running:
            await_first_run(running.addresses)
            outcome = play(running.addresses, shown_on)
            print_next_steps(running.addresses, outcome, shown_on)
            if outcome.wrong:
                return 1
            told = True
            if not once:
                shown_on.print("\n[bold]Everything stays up until Ctrl-C.[/]")
                while True:
                    signal.pause()
    except DemoError as error:
        shown_on.print(f"[red]The demo failed:[/] {error}")
        return 1
    except KeyboardInterrupt:
        return 0 if told else 130
    return 0


def play(
    addresses: Addresses, shown_on: Console, *, env: str = "dev", timeout_s: float = TIMEOUT_S
) -> Outcome:
    """Seed, show, send, follow, show again, check. Raises DemoError when events are not final in time."""
    with Platform(
        cassandra=addresses.cassandra, elasticsearch=addresses.elasticsearch, kafka=addresses.kafka, env=env
    ) as platform:
        world = sample_world(platform)
        people = [person.user_id for person in world.people]
        before = platform.owned_by(people)
        shown_on.print()
        shown_on.print(people_table("Before: live batches of each person", world, before))

        messages = story(world)
        owners = expected_owners(world.batches, messages)
        begun_at = time.time()
        # In turn on both partitions: the order of the events is their own, not the topic's.
        places = [
            platform.emit(message.value, partition=number % 2) for number, message in enumerate(messages)
        ]
        # The duplicate falls onto its first.
        sent = {message.mid(place): message for message, place in zip(messages, places, strict=True)}
        shown_on.print(f"[bold]{sent_line(messages)}[/] on {platform.input_topic}")

        def look() -> Standing:
            return standing(platform, sent, world.batches)

        end = Progress(shown_on, owners, _seeded(world, look())).follow(look, timeout_s=timeout_s)
        if not end.final:
            raise DemoError(_unfinished(end, sent, timeout_s))
        letters = dead_letters(addresses.kafka, platform.failed_topic, places)
        run_ids = {event.run_id for event in end.events.values() if event.run_id}
        outcome = Outcome(
            world=world,
            sent=sent,
            before=before,
            after=platform.owned_by(people),
            owners=owners,
            end=end,
            letters=letters,
            runs=ended_runs(addresses, run_ids),
            seconds=_last_proof(end) - begun_at,
            wrong=differences(end, sent, owners, letters),
        )
        _print_outcome(outcome, platform.failed_topic, shown_on)
        return outcome


def await_first_run(addresses: Addresses, *, timeout_s: float = 20) -> None:
    """Return when the hourly run, with which a new Airflow begins, has ended (or did not come in `timeout_s`).

    It would take the demo's events as well, only not as soon as a run that the watcher starts.
    """
    with opened_api(addresses) as api:

        def at_rest() -> bool:
            runs = api.get("/dagRuns", params={"limit": 10}).json()["dag_runs"]
            return bool(runs) and all(run["state"] in {"success", "failed"} for run in runs)

        with suppress(NotReadyError):
            await_condition(at_rest, timeout_s=timeout_s, what="the first run to end", poll_s=0.2)


def give_back(world: SampleWorld) -> dict[str, str]:
    """The conf of a manual run that gives the 45 batches back to where they were."""
    return {
        "from_user": world.owner_successor.user_id,
        "to_user": world.owner.user_id,
        "organisation_id": world.organisation,
    }


def print_next_steps(addresses: Addresses, outcome: Outcome, shown_on: Console) -> None:
    """Where to look at it, and what to try."""
    shown_on.print("\n[bold]In the Airflow UI[/]")
    for line in run_lines(outcome.runs, outcome.end.events):
        shown_on.print(line, soft_wrap=True)
    shown_on.print(
        f"  log in as [bold]{addresses.airflow_user}[/], password [bold]{addresses.airflow_password}[/]\n"
    )
    shown_on.print("[bold]Try next[/]: give the batches back. Open")
    shown_on.print(f"  {addresses.airflow}/dags/{airflow.DAG_ID}", soft_wrap=True)
    shown_on.print("  press Trigger, and fill in the form, or paste as configuration (JSON)")
    shown_on.print(f"  {json.dumps(give_back(outcome.world))}", soft_wrap=True, markup=False)
    if ADDRESSES.exists():
        shown_on.print(
            f"All addresses are in {_short(ADDRESSES)}; docs/getting-started.md goes on from here.",
            soft_wrap=True,
        )


def _print_outcome(outcome: Outcome, failed_topic: str, shown_on: Console) -> None:
    names = Names(outcome.world)
    shown_on.print()
    shown_on.print(
        people_table("After: live batches of each person", outcome.world, outcome.after, outcome.before)
    )
    shown_on.print(events_table(outcome.sent, outcome.end.events, names))
    shown_on.print(letters_table(failed_topic, outcome.letters))
    states = outcome.end.states
    counts = ", ".join(f"{states[state]} {state}" for state in (COMPLETED, "skipped", "rejected"))
    shown_on.print(f"{outcome.seconds:.1f} s from the first message to the last proof.")
    if outcome.wrong:
        shown_on.print("[bold red]Not as expected:[/]")
        for difference in outcome.wrong:
            shown_on.print(f"  {difference}", markup=False)
        return
    shown_on.print(
        f"[bold green]As expected:[/] {counts}; {len(outcome.owners)} batches compared in both stores, "
        f"each with the right creator and mentors; {len(outcome.letters)} dead letters.",
        soft_wrap=True,
    )


def _seeded(world: SampleWorld, now: Standing) -> Standing:
    """`now` with the batches as they were seeded: the job may have begun before the first look."""
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


# -- the demo's own stack ------------------------------------------------------------------------------------


@contextmanager
def _own_stack(shown_on: Console) -> Iterator[Stack]:
    """A fresh stack, stopped in the end whatever happened."""
    _clear(shown_on)
    begun = time.monotonic()
    for variable in stack.given_from_environment():
        # Sample people and batches do not belong into somebody's own servers.
        shown_on.print(f"{variable} is set, and not used: the demo writes into servers of its own only.")
    shown_on.print(
        f"Starting the demo's stack (the first time downloads the servers; logs in {_short(DEMO)}/logs)"
    )
    started = Stack(DEMO, airflow=True, elasticsearch_version=elasticsearch.version_from_environment())
    try:
        try:
            started.start(_quiet_report)
        except RuntimeError as error:
            raise DemoError(str(error)) from error
        started.addresses.write(ADDRESSES)
        shown_on.print(f"Ready after {time.monotonic() - begun:.0f} s.")
        yield started
    finally:
        _ignore_signals()  # a second Ctrl-C must not leave half of it running
        with suppress(OSError):
            shown_on.print("\nStopping everything that the demo started")
        started.stop()
        ADDRESSES.unlink(missing_ok=True)
        left = stack.running_parts(DEMO)
        with suppress(OSError):
            shown_on.print(f"Still running: {', '.join(left)}." if left else "Every process has ended.")


def _clear(shown_on: Console) -> None:
    """Begin anew: end what a killed demo left, and forget its data (its ports are kept for the browser).

    Raises DemoError when another demo runs.
    """
    owner = stack.owner(DEMO)
    if owner is not None and owner.alive and owner.pid != os.getpid():
        raise DemoError(f"A demo of this checkout runs already (process {owner.pid}).")
    if stack.running_parts(DEMO):
        shown_on.print("An earlier demo was cut off; ending what it left.")
        stack.end_all(DEMO)
    for entry in DEMO.glob("*"):
        if entry.name == "ports.json":
            continue
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _quiet_report(part: str, state: str, seconds: float) -> None:
    """A line for each part; a terminal that is gone must not keep us from stopping the rest."""
    with suppress(OSError):
        report(part, state, seconds)


_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """SIGINT, SIGTERM and a closed terminal end the demo in the same orderly way."""

    def end(_number: int, _frame: FrameType | None) -> NoReturn:
        _ignore_signals()
        raise KeyboardInterrupt

    before = {number: signal.signal(number, end) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ignore_signals() -> None:
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _short(file: Path) -> str:
    return str(file.relative_to(REPOSITORY))
