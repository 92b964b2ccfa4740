"""`make bench`: on a separate stack, measures every workload and its floors; prints a table, writes JSON."""

from __future__ import annotations

import argparse
import compileall
import json
import os
import shutil
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console

from benchmarks import FOLDER, idle, machine, reconcile, report, stream
from benchmarks.bench import Measured, opened
from benchmarks.relay import Relay
from benchmarks.stream import Stream
from benchmarks.workloads import LANES, WORKLOADS, Workload
from local.cluster.stack import SMALL, Cluster
from local.paths import REPOSITORY, TEST_STACKS
from local.stack import Stack

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"


def main(arguments: list[str] | None = None) -> int:
    """Run, print, write. The exit code is 0 even when a bound is missed, 1 when something was not measured."""
    options = _options(arguments)
    terminal = report.console()
    if options.reconcile:
        return _reconcile(options, terminal)
    # In this folder `make down` finds the stack of an interrupted benchmark.
    directory = TEST_STACKS / f"bench-{os.getpid()}"
    stack = _stack(directory, options)
    begun = time.monotonic()
    found = Results(
        options.output or RESULTS / f"{datetime.now(UTC):%Y%m%dT%H%MZ}.json",
        {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "load_1m_before": round(os.getloadavg()[0], 2),
            "settings": dict(stack.settings),
        },
    )
    terminal.print("Starting a stack for the benchmark")
    try:
        with stack:
            floor_folder = _add_floor(stack)
            if options.cluster:
                found.circumstances["workers"] = options.cluster
            if options.slots:
                stack.airflow_env["AIRFLOW__CORE__PARALLELISM"] = str(options.slots)
            stack.start_airflow()
            found.circumstances["airflow"] = _airflow_settings(stack)
            _measure(stack, floor_folder, options, found, terminal)
    except (RuntimeError, TimeoutError, httpx.HTTPError) as error:
        terminal.print(f"[red]The benchmark ended early:[/] {error}\nLogs are in {_short(directory)}/logs")
        if not (found.measured or found.stream):
            return 1
        complete = False
    else:
        shutil.rmtree(directory, ignore_errors=True)
        complete = True
    found.circumstances["seconds_in_all"] = round(time.monotonic() - begun)
    found.write()
    found.show(terminal)
    terminal.print(f"{found.circumstances['seconds_in_all']} s in all; written to {_short(found.file)}")
    return 0 if complete else 1


@dataclass
class Results:
    """What was measured so far, and the file of it."""

    file: Path
    circumstances: dict[str, Any]
    measured: dict[str, Measured] = field(default_factory=dict)
    stream: Stream | None = None

    def write(self) -> None:
        """Write the file; to be called after each part, so that an interruption loses only the next one."""
        report.write(self.file, machine.describe(), self.circumstances, self.measured)

    def show(self, terminal: Console) -> None:
        """Print the tables."""
        if self.measured or self.stream:
            terminal.print(report.table(self.measured, self.stream))
        if round_trip_ms := self.circumstances.get("relay_ms"):
            terminal.print(report.away(self.measured, round_trip_ms))
        if self.stream:
            terminal.print(report.picture(self.stream))
        if idle_watcher := self.circumstances.get("idle_watcher"):
            terminal.print(report.idle(idle_watcher))


def _stack(directory: Path, options: argparse.Namespace) -> Stack:
    settings = {"env": "dev", **dict(options.set)}
    if options.cluster:
        return Cluster(directory, airflow=False, stores=SMALL, workers=options.cluster, settings=settings)
    return Stack(directory, airflow=False, settings=settings)


def _measure(
    stack: Stack, floor_folder: Path, options: argparse.Namespace, found: Results, terminal: Console
) -> None:
    """Measure what the options choose, one after the other, on a running stack."""
    relay = Relay.started(stack, options.relay) if options.relay else None
    if relay:
        found.circumstances["relay_ms"] = relay.round_trip_ms
    with opened(stack, floor_folder, relay) as bench:
        bench.warm_up()
        for workload in _chosen(options) if options.runs else ():
            found.measured[workload.name] = bench.measure(workload, options.runs, terminal.print)
            found.write()
        if options.stream:
            terminal.print(f"The stream, for {options.stream:g} minutes")
            found.stream = stream.measure(bench, options.stream)
            found.circumstances["stream"] = found.stream.summary()
            found.write()
        if options.idle:
            terminal.print(f"The watcher, idle for {options.idle:g} minutes")
            bench.wait_quiet()
            triggerer = stack.servers["triggerer"].pid or 0
            watched = idle.watch(triggerer, options.idle, bench.runs_so_far)
            found.circumstances["idle_watcher"] = watched.summary()


def _reconcile(options: argparse.Namespace, terminal: Console) -> int:
    """Measure the reconciliation, on separate stores, without Airflow."""
    directory = TEST_STACKS / f"bench-{os.getpid()}"
    file = options.output or RESULTS / f"reconcile-{datetime.now(UTC):%Y%m%dT%H%MZ}.json"
    circumstances: dict[str, Any] = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"), "load_1m_before": round(os.getloadavg()[0], 2)
    }  # fmt: skip
    with Stack(directory, airflow=False, settings={"env": "dev"}) as stack:
        figures = reconcile.measure(stack, options.reconcile, terminal.print)
    shutil.rmtree(directory, ignore_errors=True)
    terminal.print(reconcile.summary(figures))
    circumstances["load_1m_after"] = round(os.getloadavg()[0], 2)
    file.parent.mkdir(parents=True, exist_ok=True)
    written = {"machine": machine.describe(), "circumstances": circumstances, "reconcile": figures}
    file.write_text(json.dumps(written, indent=1, ensure_ascii=False) + "\n")
    terminal.print(f"written to {_short(file)}")
    return 0


def _options(arguments: list[str] | None) -> argparse.Namespace:
    names = list(dict.fromkeys(name for w in (*WORKLOADS, *LANES) for name in (w.group, w.name)))
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--runs", type=int, default=5, help="runs of each workload, default 5; 0 measures none"
    )
    parser.add_argument("--only", action="append", choices=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--large", action="store_true", help="also the owner of 100,000 batches")
    parser.add_argument(
        "--relay", type=float, default=0, metavar="MS", help="each workload also with both stores MS ms away"
    )
    parser.add_argument(
        "--stream", type=float, default=0, metavar="MINUTES", help="also 50 events a second, that long"
    )
    parser.add_argument(
        "--idle", type=float, default=0, metavar="MINUTES", help="also the watcher, idle that long"
    )
    parser.add_argument(
        "--set", action="append", default=[], type=_setting, metavar="NAME=JSON", help="a setting of the job"
    )
    parser.add_argument(
        "--slots", type=int, metavar="N", help="task processes at once, instead of the 8 of `make up`"
    )
    parser.add_argument(
        "--cluster",
        type=int,
        choices=(1, 2),
        metavar="WORKERS",
        help="on a cluster with that many workers, and one node of each store",
    )
    parser.add_argument(
        "--reconcile", type=int, default=0, metavar="ROWS", help="only the reconciliation, of that many rows"
    )
    parser.add_argument("--output", type=Path, help="file of the results")
    return parser.parse_args(arguments)


def _chosen(options: argparse.Namespace) -> list[Workload]:
    if options.only:
        return [w for w in (*WORKLOADS, *LANES) if {w.group, w.name} & set(options.only)]
    return [w for w in WORKLOADS if options.large or not w.large]


def _setting(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    return name, json.loads(value)


def _add_floor(stack: Stack) -> Path:
    """Make a dags folder with the job's DAGs and the floor's. Returns the folder of the floor's marks.

    DAGs and plugins are copied, so that editing a file does not affect a running benchmark.
    """
    plugins = stack.directory / "plugins"
    shutil.copytree(REPOSITORY / "plugins", plugins, ignore=shutil.ignore_patterns("__pycache__"))
    compileall.compile_dir(plugins, quiet=1)
    dags = stack.directory / "dags"
    dags.mkdir(parents=True)
    for file in (*(REPOSITORY / "dags").glob("*.py"), *(HERE / "dags").glob("*.py")):
        shutil.copy(file, dags)
    marks = stack.directory / "floor"
    marks.mkdir()
    stack.airflow_env |= {
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(plugins),
        "PYTHONPATH": os.pathsep.join((str(plugins), str(REPOSITORY))),
        FOLDER: str(marks),
    }
    return marks


def _airflow_settings(stack: Stack) -> dict[str, str]:
    """What of Airflow's settings makes a difference to speed."""
    telling = ("PARALLELISM", "IDLE_SLEEP_TIME", "HEARTBEAT_INTERVAL", "API__WORKERS", "EXECUTOR")
    return {n: v for n, v in sorted(stack.airflow_env.items()) if n.endswith(telling)}


def _short(file: Path) -> str:
    return str(file.relative_to(REPOSITORY)) if file.is_relative_to(REPOSITORY) else file.name


if __name__ == "__main__":
    sys.exit(main())
