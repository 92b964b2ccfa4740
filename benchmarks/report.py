"""The tables, and the results as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.bench import Measured
from benchmarks.stream import BATCHES, EVENTS_A_SECOND, MAX_AGE_S, Stream
from benchmarks.verdicts import Figures, judge, judge_away

WIDTH = 150
BAR_S = 0.5
"""Seconds of age that one sign of a bar stands for."""
MAX_BAR = 60
_VERDICT = {True: "[green]hit[/]", False: "[red]miss[/]", None: "–"}


def console() -> Console:
    """A console for the terminal, or of fixed width for a log."""
    made = Console(highlight=False)
    return made if made.is_terminal else Console(highlight=False, width=WIDTH)


def _table(title: str, texts: tuple[str, ...], numbers: tuple[str, ...]) -> Table:
    made = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in texts:
        made.add_column(column, overflow="fold")
    for column in numbers:
        made.add_column(column, justify="right")
    return made


def table(all_measured: Mapping[str, Measured], stream: Stream | None) -> Table:
    """A table with a line for each workload, in seconds; of the stream, the largest age of a waiting message."""
    numbers = ("ours", "spread", "stores", "Airflow", "ratio", "limit")
    made = _table(
        "Seconds; medians",
        ("workload", "must reach", ""),
        (*numbers, "Flink 0 / 1 ms", "× Flink", "peak MB"),
    )
    for measured in all_measured.values():
        f, verdict = Figures.of(measured), judge(measured, all_measured)
        flink = measured.workload.flink
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
            "–" if flink is None else " / ".join(f"{s:g}" for s in flink),
            "–" if flink is None else " / ".join(f"{s / f.ours:.1f}" for s in flink),
            f"{f.peak_mb:.0f}",
        )
    if stream:
        made.add_row(
            f"{EVENTS_A_SECOND} events a second × {BATCHES} batches, {stream.minutes:g} minutes",
            f"oldest waiting message {MAX_AGE_S:g} s",
            _VERDICT[stream.hit],
            f"{stream.max_age_s:.2f}",
            *("–",) * 4,
            f"{MAX_AGE_S:.2f}",
            *("–",) * 3,
        )
    return made


def away(all_measured: Mapping[str, Measured], round_trip_ms: float) -> Table:
    """A table that compares each workload with the same behind the relay, in seconds."""
    made = _table(
        f"Both stores {round_trip_ms:g} ms away, a round trip; seconds, medians",
        ("workload", "must reach", ""),
        ("without", "with", "ratio"),
    )
    for measured in all_measured.values():
        f, verdict = Figures.of(measured), judge_away(measured)
        if f.away is not None:
            made.add_row(
                measured.workload.title,
                verdict.bound,
                _VERDICT[verdict.hit],
                f"{f.ours:.2f}",
                f"{f.away:.2f}",
                f"{f.away / f.ours:.2f}",
            )
    return made


def picture(stream: Stream) -> Table:
    """The largest age of a waiting message over the time of the stream, with a bar for each part of it."""
    final = (
        "not final in time" if stream.final_s is None else f"all final {stream.final_s:g} s after the last"
    )
    made = _table(
        f"The stream: {stream.events} events in {stream.sent_s:g} s, {stream.runs} runs, {final}",
        (),
        ("from second", "most waiting", "oldest, s"),
    )
    made.add_column("", min_width=MAX_BAR)
    for part in stream.slices:
        bar = "▉" * min(MAX_BAR, round(part.age_s / BAR_S))
        made.add_row(f"{part.from_s:.0f}", str(part.messages), f"{part.age_s:.1f}", bar)
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
    results = [_result(measured, all_measured) for measured in all_measured.values()]
    written = {"machine": dict(machine), "circumstances": dict(circumstances), "results": results}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(written, indent=1, ensure_ascii=False) + "\n")


def _result(measured: Measured, all_measured: Mapping[str, Measured]) -> dict[str, Any]:
    f, verdict = Figures.of(measured), judge(measured, all_measured)
    workload = asdict(measured.workload)
    found = {
        **{
            name: workload[name]
            for name in ("name", "title", "owners", "batches", "events", "tangled", "flink")
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
    if f.away is not None:
        apart = judge_away(measured)
        found["away"] = {
            "ours_s": round(f.away, 3),
            "ratio": round(f.away / f.ours, 2),
            "must_reach": apart.bound,
            "hit": apart.hit,
            "samples": [asdict(s) for s in measured.away],
        }
    return found
