"""`make chaos`: rounds, or a load, on a separate stack; prints a table and writes results as JSON.

The exit code is 1 after a violation; the printed seed repeats the round.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from chaos import cluster, soak_chart
from chaos.database import Database
from chaos.faults import BY_NAME, Scene
from chaos.inside import hook
from chaos.inside.guards import GUARDS
from chaos.load import Minute, memory_growth, play_load
from chaos.relays import SearchRelay, StatementRelay
from chaos.rounds import Round, play
from chaos.soak import Soak, play_soak
from chaos.versions import start_beside, tasks_by_scheduler
from local.cluster.hosts import Hosts
from local.cluster.stack import Cluster
from local.paths import TEST_STACKS
from local.platform.world import Platform
from local.servers.airflow import connections
from local.servers.releases import Releases
from local.stack import Stack

RESULTS = Path(__file__).resolve().parent / "results"
SETTINGS = {"env": "dev", "claim.seconds": 15, "watcher.resignal.seconds": 5, "transfer.scope": "asset"}
"""Shorter intervals than in production, so that more of them fit into a minute; events may name one batch."""
CLUSTER_SETTINGS = {"env": "dev", "transfer.scope": "asset"}
"""A cluster is played with the intervals of production."""
LOAD_SETTINGS = {**SETTINGS, "claim.seconds": 30}
"""When all slots are in use, a stage waits longer for its process."""
AIRFLOW = {
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "60",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "15",
}
"""Airflow gives up a task whose process was killed with its scheduler sooner than after its default of 5 minutes."""


def main(arguments: list[str] | None = None) -> int:
    """Play rounds or a load and print the result; 1 after a violation."""
    options = _options(arguments)
    terminal = Console(highlight=False, width=None if sys.stdout.isatty() else 150)
    if options.cluster:
        return _cluster(options, terminal)
    directory = TEST_STACKS / f"chaos-{os.getpid()}"
    terminal.print("Starting a stack for the fault suite")
    steady = bool(options.load or options.soak)
    settings = LOAD_SETTINGS if steady else SETTINGS
    with _scene(directory, settings, options, relayed=not steady) as (scene, platform):
        play_all = _soak if options.soak else _load if options.load else _rounds
        wrong = play_all(scene, platform, options, terminal)
    if not wrong:
        shutil.rmtree(directory, ignore_errors=True)
    return 1 if wrong else 0


@contextmanager
def _scene(
    directory: Path, settings: Mapping[str, Any], options: argparse.Namespace, *, relayed: bool
) -> Iterator[tuple[Scene, Platform]]:
    """A stack with Airflow. If `relayed`, the job reaches three of its servers through relays and records what it does."""
    with ExitStack() as stack:
        servers = stack.enter_context(
            Stack(
                directory,
                airflow=False,
                releases=Releases.from_environment(),
                settings=settings,
                durable=True,
            )
        )
        a = servers.addresses
        scene = Scene(servers)
        if relayed:
            cassandra, search = StatementRelay(a.cassandra), SearchRelay(a.elasticsearch)
            stack.callback(cassandra.close)
            stack.callback(search.close)
            database = Database(servers)
            stack.callback(database.close)
            shared = directory / "shared"
            shared.mkdir(exist_ok=True)
            scene = Scene(servers, cassandra, search, database, shared)
            plugins = servers.airflow_env["PYTHONPATH"]
            servers.airflow_env |= hook.environment(shared, options.without, plugins)
            servers.addresses = replace(a, ledger=database.ledger)
            servers.airflow_env |= connections(
                kafka=a.kafka,
                cassandra=cassandra.address,
                elasticsearch=search.address,
                ledger=database.jobs_ledger,
                lms=a.lms,
                userorg=a.userorg,
            )
            servers.airflow_env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = database.airflows
        servers.airflow_env |= AIRFLOW
        servers.start_airflow()
        if options.beside:
            start_beside(servers, options.beside)
        yield (
            scene,
            stack.enter_context(
                Platform(cassandra=a.cassandra, elasticsearch=a.elasticsearch, kafka=a.kafka)
            ),
        )


def _cluster(options: argparse.Namespace, terminal: Console) -> int:
    """Rounds on a cluster until the minutes are over; 1 after a violation."""
    directory = TEST_STACKS / f"cluster-{os.getpid()}"
    terminal.print("Starting a cluster for the fault suite")
    rounds: list[cluster.ClusterRound] = []
    if why_not := Hosts.why_not():
        terminal.print(f"All nodes share this host's network, so no fault is a partition: {why_not}")
    with ExitStack() as stack:
        hosts = None if why_not else stack.enter_context(Hosts())
        servers = stack.enter_context(
            Cluster(directory, hosts=hosts, settings=CLUSTER_SETTINGS, releases=Releases.from_environment())
        )
        a = servers.addresses
        begun = time.monotonic()
        with Platform(cassandra=a.cassandra, elasticsearch=a.elasticsearch, kafka=a.kafka) as platform:
            for seed in count(options.seed):
                if rounds and time.monotonic() - begun >= options.minutes * 60:
                    break
                fault = cluster.BY_NAME[options.fault] if options.fault else cluster.drawn(seed)[0]
                if fault.apart and hosts is None and not options.fault:
                    terminal.print(f"seed {seed}: {fault.name}: left out")
                    continue
                done = cluster.play(servers, platform, seed, options.fault)
                rounds.append(done)
                terminal.print(cluster.line(done))
                for violation in done.violations:
                    terminal.print(f"  [red]{escape(violation)}[/]")
                _write(f"cluster-{options.seed}", {"rounds": [asdict(r) for r in rounds]})
    terminal.print(cluster.table(rounds))
    wrong = any(r.violations for r in rounds)
    if not wrong:
        shutil.rmtree(directory, ignore_errors=True)
    return 1 if wrong else 0


def _rounds(scene: Scene, platform: Platform, options: argparse.Namespace, terminal: Console) -> bool:
    """Rounds until the minutes are over. True if there was a violation."""
    rounds: list[Round] = []
    begun = time.monotonic()
    name = f"seed-{options.seed}" + (f"-without-{options.without}" if options.without else "")
    while not rounds or (time.monotonic() - begun < options.minutes * 60):
        done = play(scene, platform, options.seed + len(rounds), BY_NAME.get(options.fault or ""))
        rounds.append(done)
        terminal.print(_line(done))
        for violation in done.violations:
            terminal.print(f"  [red]{escape(violation)}[/]")
        _write(
            name,
            {
                "first_seed": options.seed,
                "minutes": round((time.monotonic() - begun) / 60, 1),
                "violations": sum(len(r.violations) for r in rounds),
                "rounds": [asdict(r) for r in rounds],
            },
        )
        if options.without and done.violations:
            break
    terminal.print(_table(rounds))
    if options.beside and scene.database:
        terminal.print(f"Tasks by scheduler: {tasks_by_scheduler(scene.database.airflows)}")
    wrong = [r.seed for r in rounds if r.violations]
    if wrong:
        terminal.print(f"[red]Violations with the seeds {wrong}[/]: make chaos SEED={wrong[0]} MINUTES=0")
    return bool(wrong)


def _load(scene: Scene, platform: Platform, options: argparse.Namespace, terminal: Console) -> bool:
    """One load. True if there was a violation."""
    done = play_load(scene, platform, options.seed, options.load, lambda m: terminal.print(_minute(m)))
    for violation in done.violations[:50]:
        terminal.print(f"  [red]{escape(violation)}[/]")
    terminal.print(
        f"{done.messages} messages, {done.events} events, {done.batches} batches, {len(done.faults)} faults: "
        f"{done.states}; sent in {done.sent_s:g} s, all final {done.final_s:g} s later; "
        f"{len(done.violations)} violations; MB in the first and the last third: {memory_growth(done)}"
    )
    _write(f"load-{options.seed}", {**asdict(done), "memory_mb": memory_growth(done)})
    return bool(done.violations)


def _soak(scene: Scene, platform: Platform, options: argparse.Namespace, terminal: Console) -> bool:
    """One soak. True if there was a violation."""
    name = f"soak-{options.seed}"

    def report(so_far: Soak) -> None:
        point = so_far.points[-1]
        _write(name, asdict(so_far))
        memory = ", ".join(f"{n} {mb:.0f}" for n, mb in point.memory_mb.items())
        terminal.print(
            f"minute {point.minute}: {point.fault or 'no fault'}; {point.sent} messages sent, {point.checked} events "
            f"checked, oldest {point.oldest_s:.0f} s; {point.runs} runs, longest {point.longest_run_s:g} s; MB {memory}"
        )

    done = play_soak(scene, platform, options.seed, options.soak, report)
    for violation in done.violations[:50]:
        terminal.print(f"  [red]{escape(violation)}[/]")
    terminal.print(soak_chart.table(done.points))
    title = (
        f"{done.events} events in {options.soak:g} h, {done.messages} messages, {done.batches} batches, "
        f"{len(done.faults)} faults (grey), {len(done.violations)} violations"
    )
    written = soak_chart.save(soak_chart.soak_svg(done.points, title), RESULTS / f"{name}.svg")
    terminal.print(f"{title}; {', '.join(map(str, written))}")
    return bool(done.violations)


def _minute(m: Minute) -> str:
    memory = ", ".join(f"{name} {mb:.0f}" for name, mb in m.memory_mb.items())
    return f"minute {m.minute}: {m.fault or 'no fault'}; {m.sent} messages sent, {m.final} of {m.known} events final; MB {memory}"


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="of the first round")
    parser.add_argument("--minutes", type=float, default=10, help="of rounds")
    parser.add_argument(
        "--fault", choices=sorted({*BY_NAME, *cluster.BY_NAME}), help="this one in every round"
    )
    parser.add_argument("--without", choices=sorted(GUARDS), help="this guard; the rounds must find it")
    parser.add_argument(
        "--beside",
        metavar="REVISION",
        help="a second scheduler runs tasks with the job's code of this revision",
    )
    parser.add_argument("--cluster", action="store_true", help="on two of everything, with its faults")
    parser.add_argument(
        "--load", type=int, metavar="MESSAGES", help="a stream instead of rounds: 11 minutes, 11 faults"
    )
    parser.add_argument(
        "--soak", type=float, metavar="HOURS", help="5 events a second and a fault every 10 minutes"
    )
    return parser.parse_args(arguments)


def _line(r: Round) -> str:
    verdict = f"[red]{len(r.violations)} violations[/]" if r.violations else "[green]as it must be[/]"
    return (
        f"seed {r.seed}: {r.fault} for {r.broken_s:g} s {'at' if r.in_time else 'too late for'} {r.when}; "
        f"{r.messages} messages, {r.batches} batches, {r.edits} edits ({r.met} met), "
        f"{r.operations} operations ({r.unknown} unknown); final after {r.settled_s:g} s: {verdict}"
    )


def _table(rounds: list[Round]) -> Table:
    made = Table(title="Faults", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    made.add_column("fault")
    for column in (
        "rounds",
        "messages",
        "batches",
        "edits that met",
        "operations",
        "broken s",
        "final after s, median",
        "longest",
        "violations",
    ):
        made.add_column(column, justify="right")
    for fault in dict.fromkeys(sorted(r.fault for r in rounds)):
        of_fault = [r for r in rounds if r.fault == fault]
        settled = [r.settled_s for r in of_fault]
        made.add_row(
            fault,
            str(len(of_fault)),
            str(sum(r.messages for r in of_fault)),
            str(sum(r.batches for r in of_fault)),
            str(sum(r.met for r in of_fault)),
            str(sum(r.operations for r in of_fault)),
            f"{sum(r.broken_s for r in of_fault):.0f}",
            f"{median(settled):.1f}",
            f"{max(settled):.1f}",
            str(sum(len(r.violations) for r in of_fault)),
        )
    return made


def _write(name: str, results: dict[str, Any]) -> None:
    RESULTS.mkdir(exist_ok=True)
    results = {"at": datetime.now(UTC).isoformat(timespec="seconds"), **results}
    (RESULTS / f"{name}.json").write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    sys.exit(main())
