"""`make demo`: a sample world, a dry run, valid and invalid events, an undo, and a check of every result.

The demo has its own stack, beside any other, and begins each time with empty servers.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

from rich.console import Console
from rich.markup import escape

from local import stack
from local.demo.acts import DemoError, Outcome, play
from local.demo.display import console, run_line
from local.demo.runs import opened_api
from local.paths import DEMO, REPOSITORY
from local.servers import airflow
from local.servers.processes import NotReadyError, await_condition
from local.servers.releases import Releases
from local.stack import Addresses, Stack
from local.terminal import report

ADDRESSES: Final = DEMO / "addresses.env"


def main(*, once: bool = False) -> int:
    """Run the demo and stay up until Ctrl-C, or end after printing when `once`; the exit code."""
    shown_on = console()
    shown = False
    try:
        with _ended_by_signals(), _own_stack(shown_on) as running:
            await_first_run(running.addresses)
            outcome = play(running.addresses, shown_on)
            print_next_steps(running.addresses, outcome, shown_on)
            if outcome.wrong:
                return 1
            shown = True
            if not once:
                shown_on.print("\n[bold]Everything stays up until Ctrl-C.[/]")
                while True:
                    signal.pause()
    except DemoError as error:
        shown_on.print(f"[red]The demo failed:[/] {escape(str(error))}")
        return 1
    except KeyboardInterrupt:
        return 0 if shown else 130
    return 0


def await_first_run(addresses: Addresses, *, timeout_s: float = 20) -> None:
    """Return when the hourly run, which a new Airflow starts at once, has ended, or after `timeout_s` seconds.

    It would claim the demo's events too, only later than a run that the watcher starts.
    """
    with opened_api(addresses) as api:

        def at_rest() -> bool:
            runs = api.get("/dagRuns", params={"limit": 10}).json()["dag_runs"]
            return bool(runs) and all(run["state"] in {"success", "failed"} for run in runs)

        with suppress(NotReadyError):
            await_condition(at_rest, timeout_s=timeout_s, what="the first run to end", poll_s=0.2)


def print_next_steps(addresses: Addresses, outcome: Outcome, shown_on: Console) -> None:
    """Print where Airflow shows the results, and what to try next."""
    shown_on.print("\n[bold]In the Airflow UI[/]")
    events = Counter(event.run_id for event in outcome.messages.end.events.values())
    for line in (
        run_line("dry run", outcome.rehearsal.run),
        *(run_line("messages", run, events[run.run_id]) for run in outcome.messages.runs),
        run_line("undo", outcome.undone.run),
    ):
        shown_on.print(line, soft_wrap=True)
    shown_on.print(
        "  all of its transfers, who asked for them, what they changed, and buttons to take them back:"
    )
    shown_on.print(f"  {addresses.airflow}/plugin/ownership-transfers", soft_wrap=True)
    shown_on.print(
        f"  log in as [bold]{addresses.airflow_user}[/], password [bold]{addresses.airflow_password}[/]\n"
    )
    shown_on.print("[bold]Try next[/]: apply the dry run's plan, exactly as it was shown. Open")
    shown_on.print(f"  {addresses.airflow}/dags/{airflow.DAG_ID}", soft_wrap=True)
    shown_on.print("  press Trigger, and paste as configuration (JSON)")
    shown_on.print(f"  {json.dumps(outcome.rehearsal.plan.conf)}", soft_wrap=True, markup=False)
    if ADDRESSES.exists():
        shown_on.print(
            f"All addresses are in {_short(ADDRESSES)}; docs/getting-started.md goes on from here.",
            soft_wrap=True,
        )


# -- the demo's own stack ------------------------------------------------------------------------------------


@contextmanager
def _own_stack(shown_on: Console) -> Iterator[Stack]:
    """A new stack, stopped at the end in any case."""
    _clear(shown_on)
    begun = time.monotonic()
    for variable in stack.given_from_environment():
        # Sample data must not be written into the user's own servers.
        shown_on.print(f"{variable} is set, and not used: the demo writes into servers of its own only.")
    shown_on.print(
        f"Starting the demo's stack (the first time downloads the servers; logs in {_short(DEMO)}/logs)"
    )
    started = Stack(DEMO, airflow=True, releases=Releases.from_environment())
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
    """End the processes of a killed demo and delete its data; its ports are kept, so browser addresses stay valid.

    Raises DemoError when another demo is running.
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
    """Print a line for each part; a closed terminal must not prevent stopping the others."""
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
