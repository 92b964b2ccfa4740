"""The table, and the results as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.verdicts import Figures, judge
from benchmarks.workloads import Measured

WIDTH = 150
_VERDICT = {True: "[green]hit[/]", False: "[red]miss[/]", None: "–"}


def console() -> Console:
    """A console for the terminal, or of fixed width for a log."""
    made = Console(highlight=False)
    return made if made.is_terminal else Console(highlight=False, width=WIDTH)


def table(all_measured: Mapping[str, Measured]) -> Table:
    """A table with a line for each workload, in seconds."""
    made = Table(title="Seconds; medians", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("workload", "must reach", ""):
        made.add_column(column, overflow="fold")
    numbers = (
        "ours",
        "spread",
        "stores",
        "Airflow",
        "ratio",
        "limit",
        "Flink 0 / 1 ms",
        "× Flink",
        "peak MB",
    )
    for column in numbers:
        made.add_column(column, justify="right")
    for measured in all_measured.values():
        f, verdict = Figures.of(measured), judge(measured, all_measured)
        flink = measured.workload.flink
        known = "–" if flink is None else " / ".join(f"{s:g}" for s in flink)
        made.add_row(
            measured.workload.title,
            verdict.bound,
            _VERDICT[verdict.hit],
            f"{f.ours:.2f}",
            f"{f.spread[0]:.2f}–{f.spread[1]:.2f}" if len(measured.samples) > 1 else "1 run",
            f"{f.stores:.2f}",
            f"{f.airflow:.2f}",
            f"{f.ratio:.2f}",
            "–" if verdict.limit_s is None else f"{verdict.limit_s:.2f}",
            known,
            "–" if flink is None else " / ".join(f"{s / f.ours:.1f}" for s in flink),
            f"{max(s.peak_task_mb for s in measured.samples):.0f}",
        )
    return made


def idle(summary: Mapping[str, Any]) -> str:
    """A line for the idle watcher, from `Idle.summary`."""
    growth = ", ".join(f"{name} {value:+g}" for name, value in summary["growth"].items())
    return (
        f"Watcher, idle for {summary['minutes']:g} minutes: {_VERDICT[summary['hit']]}; "
        f"{summary['cpu_percent_of_a_core']} % of a core, {summary['rss_mb']} MB, {summary['connections']} connections, "
        f"{summary['runs_started']} runs started; growth: {growth}"
    )


def write(
    file: Path,
    machine: Mapping[str, Any],
    circumstances: Mapping[str, Any],
    all_measured: Mapping[str, Measured],
) -> None:
    """Write all measurements to `file`, as JSON."""
    results = []
    for measured in all_measured.values():
        f, verdict = Figures.of(measured), judge(measured, all_measured)
        workload = asdict(measured.workload)
        results.append(
            {
                **{
                    name: workload[name] for name in ("name", "title", "owners", "batches", "events", "flink")
                },
                "ours_s": round(f.ours, 3),
                "spread_s": [round(s, 3) for s in f.spread],
                "stores_floor_s": round(f.stores, 3),
                "airflow_floor_s": round(f.airflow, 3),
                "ratio": round(f.ratio, 2),
                "must_reach": verdict.bound,
                "limit_s": None if verdict.limit_s is None else round(verdict.limit_s, 3),
                "hit": verdict.hit,
                "samples": [asdict(s) for s in measured.samples],
                "stores_floor_samples_s": [round(s, 3) for s in measured.stores],
                "airflow_floor_samples_s": [round(s, 3) for s in measured.airflow],
                "airflow_floor_cpu": measured.airflow_cpu,
            }
        )
    written = {"machine": dict(machine), "circumstances": dict(circumstances), "results": results}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(written, indent=1, ensure_ascii=False) + "\n")
