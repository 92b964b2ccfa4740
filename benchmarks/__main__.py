"""`make bench`: on a separate stack, measures every workload and its floors; prints a table, writes JSON."""

from __future__ import annotations

import argparse
import compileall
import json
import os
import shutil
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console

from benchmarks import FOLDER, idle, machine, reconcile, report
from benchmarks.workloads import LANES, WORKLOADS, Measured, Workload, opened
from local.paths import REPOSITORY, TEST_STACKS
from local.stack import Stack

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"


def main(arguments: list[str] | None = None) -> int:
    """Run, print, write. The exit code is 0 even when a bound is missed, 1 when a workload was not measured."""
    options = _options(arguments)
    terminal = report.console()
    if options.reconcile:
        return _reconcile(options, terminal)
    chosen = _chosen(options)
    # In this folder `make down` finds the stack of an interrupted benchmark.
    directory = TEST_STACKS / f"bench-{os.getpid()}"
    stack = Stack(directory, airflow=False, settings={"env": "dev", **dict(options.set)})
    measured: dict[str, Measured] = {}
    begun = time.monotonic()
    circumstances: dict[str, Any] = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "load_1m_before": round(os.getloadavg()[0], 2),
        "settings": dict(stack.settings),
    }
    file = options.output or RESULTS / f"{datetime.now(UTC):%Y%m%dT%H%MZ}.json"
    terminal.print("Starting a stack for the benchmark")
    try:
        with stack:
            floor_folder = _add_floor(stack)
            stack.start_airflow()
            circumstances["airflow"] = _airflow_settings(stack)
            with opened(stack, floor_folder) as bench:
                bench.warm_up()
                for workload in chosen:
                    measured[workload.name] = bench.measure(workload, max(1, options.runs), terminal.print)
                    report.write(
                        file, machine.describe(), circumstances, measured
                    )  # an interruption loses one
                if options.idle:
                    terminal.print(f"The watcher, idle for {options.idle:g} minutes")
                    bench.wait_quiet()
                    triggerer = stack.servers["triggerer"].pid or 0
                    circumstances["idle_watcher"] = idle.watch(
                        triggerer, options.idle, bench.runs_so_far
                    ).summary()
    except (RuntimeError, TimeoutError, httpx.HTTPError) as error:
        terminal.print(f"[red]The benchmark ended early:[/] {error}\nLogs are in {_short(directory)}/logs")
        if not measured:
            return 1
    else:
        shutil.rmtree(directory, ignore_errors=True)
    if measured:
        terminal.print(report.table(measured))
    if idle_watcher := circumstances.get("idle_watcher"):
        terminal.print(report.idle(idle_watcher))
    circumstances["seconds_in_all"] = round(time.monotonic() - begun)
    report.write(file, machine.describe(), circumstances, measured)
    complete = len(measured) == len(chosen)
    terminal.print(f"{circumstances['seconds_in_all']} s in all; written to {_short(file)}")
    return 0 if complete else 1


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
    names = list(dict.fromkeys(w.group for w in (*WORKLOADS, *LANES)))
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="runs of each workload, default 5")
    parser.add_argument("--only", action="append", choices=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--large", action="store_true", help="also the owner of 100,000 batches")
    parser.add_argument(
        "--idle", type=float, default=0, metavar="MINUTES", help="also the watcher, idle that long"
    )
    parser.add_argument(
        "--set", action="append", default=[], type=_setting, metavar="NAME=JSON", help="a setting of the job"
    )
    parser.add_argument(
        "--reconcile", type=int, default=0, metavar="ROWS", help="only the reconciliation, of that many rows"
    )
    parser.add_argument("--output", type=Path, help="file of the results")
    return parser.parse_args(arguments)


def _chosen(options: argparse.Namespace) -> list[Workload]:
    if options.only:
        return [w for w in (*WORKLOADS, *LANES) if w.group in options.only]
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
