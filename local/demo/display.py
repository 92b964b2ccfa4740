"""What the demo shows on the terminal: tables of people, plans, events and dead letters, runs, and progress."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final

from rich import box
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from local.demo.outcome import UNSEEN, DeadLetter, EventRow, Plan, Standing
from local.demo.runs import Run
from local.demo.sample import SampleWorld
from local.demo.story import Message
from local.platform.stores import Owners
from local.platform.world import Owned, User

WIDTH: Final = 140
"""Width without a terminal: tables in a log must not be cut."""
STATES: Final = (UNSEEN, "received", "planned", "applied", "failed", "completed", "skipped", "rejected")
_COLOURS: Final = {"completed": "green", "skipped": "yellow", "rejected": "magenta", "failed": "red"}
_CHANGED: Final = "bold green"
_ROWS: Final = 6
"""Batches of a plan that are shown."""


def console() -> Console:
    """A console for the terminal, or of fixed width for a log."""
    made = Console(highlight=False)
    return made if made.is_terminal else Console(highlight=False, width=WIDTH)


class Names:
    """Names of users by id."""

    def __init__(self, world: SampleWorld) -> None:
        self._names = {p.user_id: f"{p.first_name} {p.last_name}" for p in world.people}
        self._names[world.unknown_user] = "nobody"

    def __getitem__(self, user_id: str) -> str:
        """The name of a user; the id itself where there is none."""
        return self._names.get(user_id, user_id)

    def within(self, text: str) -> str:
        """`text` with names in place of ids."""
        for user_id, name in self._names.items():
            text = text.replace(repr(user_id), name).replace(user_id, name)
        return text


def _table(title: str, *columns: str, right: Collection[str] = ()) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return table


def people_table(
    title: str,
    people: Iterable[User],
    owned: Mapping[str, Owned],
    before: Mapping[str, Owned] | None = None,
) -> Table:
    """Batches of each user in both stores; changes since `before` are highlighted."""
    counts = ("rows created", "rows mentored", "documents created", "documents mentored")
    table = _table(title, "person", "id", *counts, right=counts)
    for person in people:
        now = owned[person.user_id]
        then = before[person.user_id] if before else now
        pairs = (
            (now.rows_created, then.rows_created),
            (now.rows_mentored, then.rows_mentored),
            (now.documents_created, then.documents_created),
            (now.documents_mentored, then.documents_mentored),
        )
        cells = [str(a) if a == b else f"[{_CHANGED}]{b} → {a}[/]" for a, b in pairs]
        table.add_row(f"{person.first_name} {person.last_name}", person.user_id, *cells)
    return table


def order_line(dag_id: str, conf: Mapping[str, Any]) -> str:
    """A line for a run that is started by hand."""
    return escape(f"{dag_id} with conf {json.dumps(conf)}")


def plan_table(plan: Plan, names: Names) -> Table:
    """The first batches of a plan, before and after."""
    shown = plan.first[:_ROWS]
    table = _table(f"Plan: {len(shown)} of {plan.batches} batches", "course", "batch", "before", "after")
    for row in shown:
        owners = (escape(names.within(text)) for text in (row.before, row.after))
        table.add_row(row.course_id, row.batch_id, *owners)
    return table


def plan_lines(plan: Plan) -> list[str]:
    """A plan's counts and digest."""
    return [
        f"{plan.batches} batches would change; conflicts expected: {plan.conflicts or 'none'}; "
        f"digest [bold]{plan.digest}[/]",
        f"  by role:   {_counts(plan.roles)}",
        f"  by course: {_counts(plan.courses)}",
    ]


def _counts(counts: Mapping[str, int]) -> str:
    return escape(", ".join(f"{name} {count}" for name, count in counts.items())) or "none"


def sent_line(messages: Sequence[Message]) -> str:
    """A line with the number of valid and invalid messages."""
    kinds = Counter(message.expected for message in messages)
    good, bad = kinds["completed"], len(messages) - kinds["completed"]
    return (
        f"{len(messages)} messages sent: {good} to be carried out (one of them twice), {bad} that must not be"
    )


def events_table(sent: Mapping[str, Message], events: Mapping[str, EventRow], names: Names) -> Table:
    """A table with the result of every event."""
    table = _table(
        "Every event", "mid", "what", "from → to", "state", "batches moved", "reason", right=["batches moved"]
    )
    for mid, message in sent.items():
        event = events[mid]
        target = f" → {names[message.to_user]}" if message.to_user else ""
        table.add_row(
            _short(mid),
            message.what,
            f"{names[message.from_user]}{target}" if message.from_user else "",
            _coloured(event.state),
            str(event.counts.get("moved", 0)) if event.state == "completed" else "",
            escape(names.within(event.reason)),
        )
    return table


def _short(mid: str) -> str:
    """The end of a message's id, or the partition and offset of a rejected one."""
    return f"rejected:…:{mid.split(':', 2)[2]}" if mid.startswith("rejected:") else f"…{mid[-12:]}"


def _coloured(state: str) -> str:
    return f"[{_COLOURS[state]}]{state}[/]" if state in _COLOURS else state


def letters_table(topic: str, letters: Iterable[DeadLetter]) -> Table:
    """A table of the dead letters."""
    table = _table(
        f"Dead letters on {topic}", "offset", "original", "error_class", "error_message", right=["offset"]
    )
    for letter in letters:
        original = f"partition {letter.source.partition}, offset {letter.source.offset}"
        table.add_row(str(letter.offset), original, letter.error_class, escape(letter.error_message))
    return table


def run_line(what: str, run: Run, events: int | None = None) -> str:
    """Two lines for a run: its result and its URL in Airflow."""
    ended = "[green]success[/]" if run.state == "success" else f"[red]{run.state}[/]"
    took = f" after {run.seconds:.1f} s" if run.seconds else ""
    count = "" if events is None else f", {events} events"
    return f"  {what}: {run.run_type} run, {ended}{took}{count}\n  {run.url}"


class Progress:
    """Shows events by state and moved batches while the job runs.

    On a terminal it redraws a table; elsewhere it prints a line after each change.
    """

    def __init__(self, shown_on: Console, owners: Mapping[str, Owners], begun: Standing) -> None:
        self._console = shown_on
        self._owners = {
            batch: expected for batch, expected in owners.items() if begun.rows[batch] != expected
        }
        self._begun_at = time.monotonic()
        self._last = ""

    def follow(self, look: Callable[[], Standing], *, timeout_s: float, poll_s: float = 0.5) -> Standing:
        """Read and show until every event is final or `timeout_s` seconds are over. Returns the last snapshot."""
        if self._console.is_terminal:
            with Live(console=self._console, auto_refresh=False) as live:
                return self._until_final(
                    look, lambda now: live.update(self._drawn(now), refresh=True), timeout_s, poll_s
                )
        return self._until_final(look, self._say, timeout_s, poll_s)

    def _until_final(
        self,
        look: Callable[[], Standing],
        show: Callable[[Standing], None],
        timeout_s: float,
        poll_s: float,
    ) -> Standing:
        while True:
            now = look()
            show(now)
            if now.final or self._elapsed() >= timeout_s:
                return now
            time.sleep(poll_s)

    def _elapsed(self) -> float:
        return time.monotonic() - self._begun_at

    def _moved(self, found: Mapping[str, Owners | None]) -> str:
        there = sum(found[batch] == expected for batch, expected in self._owners.items())
        return f"{there}/{len(self._owners)}"

    def _drawn(self, now: Standing) -> Table:
        states = now.states
        # The columns are fixed, except that a column for failed events appears when there is one.
        shown = [state for state in STATES if states[state] or state != "failed"]
        table = _table("", "elapsed", *shown, "rows moved", "documents moved", right=shown)
        table.add_row(
            f"{self._elapsed():.1f} s",
            *(f"[{_COLOURS.get(state, 'default')}]{states[state]}[/]" for state in shown),
            self._moved(now.rows),
            self._moved(now.documents),
        )
        return table

    def _say(self, now: Standing) -> None:
        states = now.states
        line = ", ".join(f"{states[state]} {state}" for state in STATES if states[state])
        line += f"; moved: {self._moved(now.rows)} rows, {self._moved(now.documents)} documents"
        if line != self._last:
            self._console.print(f"  {self._elapsed():5.1f} s  {line}", soft_wrap=True)
            self._last = line
