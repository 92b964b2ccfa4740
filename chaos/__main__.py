"""`make chaos`: rounds on a stack of its own until the minutes are over; a table, results as JSON.

The exit code is 1 when a round found a violation; its seed plays the round again.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from rich import box
from rich.console import Console
from rich.table import Table

from chaos.faults import BY_NAME
from chaos.rounds import Round, play
from local.paths import TEST_STACKS
from local.stack import Stack
from local.world import Platform

RESULTS = Path(__file__).resolve().parent / "results"
SETTINGS = {"env": "dev", "claim.seconds": 15, "watcher.resignal.seconds": 5}
"""Shorter lives than in production, so that a minute holds more of them."""
AIRFLOW = {
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "60",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "15",
}
"""A task whose process was killed with its scheduler is given up sooner than after Airflow's 5 minutes."""


def main(arguments: list[str] | None = None) -> int:
    """Play and tell."""
    options = _options(arguments)
    terminal = Console(highlight=False, width=None if sys.stdout.isatty() else 150)
    directory = TEST_STACKS / f"chaos-{os.getpid()}"
    stack = Stack(directory, airflow=False, settings=SETTINGS)
    rounds: list[Round] = []
    terminal.print("Starting a stack for the fault suite")
    with stack:
        stack.airflow_env |= AIRFLOW
        stack.start_airflow()
        a = stack.addresses
        with Platform(cassandra=a.cassandra, elasticsearch=a.elasticsearch, kafka=a.kafka) as platform:
            begun = time.monotonic()
            seed = options.seed
            while not rounds or (time.monotonic() - begun < options.minutes * 60):
                done = play(stack, platform, seed, BY_NAME.get(options.fault or ""))
                rounds.append(done)
                terminal.print(_line(done))
                for violation in done.violations:
                    terminal.print(f"  [red]{violation}[/]")
                _write(options.seed, rounds, time.monotonic() - begun)
                seed += 1
    if not any(r.violations for r in rounds):
        shutil.rmtree(directory, ignore_errors=True)
    terminal.print(_table(rounds))
    wrong = [r.seed for r in rounds if r.violations]
    if wrong:
        terminal.print(f"[red]Violations with the seeds {wrong}[/]: make chaos SEED={wrong[0]} MINUTES=0")
    return 1 if wrong else 0


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="of the first round")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--fault", choices=sorted(BY_NAME), help="this one in every round")
    return parser.parse_args(arguments)


def _line(r: Round) -> str:
    verdict = f"[red]{len(r.violations)} violations[/]" if r.violations else "[green]as it must be[/]"
    return (
        f"seed {r.seed}: {r.fault} for {r.broken_s:g} s at {r.when}; {r.messages} messages, {r.batches} batches, "
        f"{r.edits} edits; final after {r.settled_s:g} s: {verdict}"
    )


def _table(rounds: list[Round]) -> Table:
    made = Table(title="Faults", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    made.add_column("fault")
    for column in (
        "rounds",
        "messages",
        "batches",
        "broken s",
        "final after s, median",
        "longest",
        "violations",
    ):
        made.add_column(column, justify="right")
    for fault in dict.fromkeys(sorted(r.fault for r in rounds)):
        some = [r for r in rounds if r.fault == fault]
        settled = [r.settled_s for r in some]
        made.add_row(
            fault,
            str(len(some)),
            str(sum(r.messages for r in some)),
            str(sum(r.batches for r in some)),
            f"{sum(r.broken_s for r in some):.0f}",
            f"{median(settled):.1f}",
            f"{max(settled):.1f}",
            str(sum(len(r.violations) for r in some)),
        )
    return made


def _write(seed: int, rounds: list[Round], seconds: float) -> None:
    RESULTS.mkdir(exist_ok=True)
    told = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "first_seed": seed,
        "minutes": round(seconds / 60, 1),
        "violations": sum(len(r.violations) for r in rounds),
        "rounds": [asdict(r) for r in rounds],
    }
    (RESULTS / f"seed-{seed}.json").write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    sys.exit(main())
