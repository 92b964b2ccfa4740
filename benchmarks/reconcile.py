"""The reconciliation beside a bare scan of the same token ranges: rows a second and memory of both."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from local.paths import REPOSITORY
from local.platform.world import Batch, Platform
from local.stack import Stack

ROUNDS = 3
MIN_RATIO = 0.5
"""Required rows a second, relative to the bare scan."""
MAX_GROWTH_MB = 30
"""Limit of the growth of peak memory with ten times the rows."""
ROWS_A_LOAD = 20_000
LOAD_TIMEOUT_S = 1800


@dataclass(frozen=True)
class Side:
    """The figures of one pass, which runs in a separate process."""

    rows: int
    seconds: float
    peak_mb: float
    cpu_s: float
    """CPU of that process."""
    documents: int = 0
    differences: int = 0

    @property
    def per_second(self) -> float:
        """Rows a second."""
        return self.rows / self.seconds


@dataclass(frozen=True)
class Round:
    """The passes of one round, one after the other."""

    bare: Side
    """One range after the other, page by page: the driver's default."""
    at_once: Side
    """The same, but both halves of each range in parallel, as the reconciliation reads them."""
    ours: Side


def measure(stack: Stack, rows: int, report: Callable[[str], None]) -> dict[str, Any]:
    """Load a tenth, measure, load the rest, measure. Returns figures and verdict for JSON."""
    figures: dict[str, Any] = {"rows": rows, "rounds": ROUNDS, "at": {}}
    a = stack.addresses
    with Platform(cassandra=a.cassandra, elasticsearch=a.elasticsearch, kafka=a.kafka, env="dev") as platform:
        loaded = 0
        rounds: dict[int, list[Round]] = {}
        for upto in sorted({max(rows // 10, 1), rows}):
            report(f"Loading {upto - loaded:,} rows and documents")
            begun = time.monotonic()
            _load(platform, loaded, upto, begun)
            loaded = upto
            seconds = time.monotonic() - begun
            report(f"  {seconds:.0f} s")
            rounds[upto] = []
            for n in range(ROUNDS):
                rounds[upto].append(_round(a, upto))
                report(f"{upto:,} rows, round {n + 1} of {ROUNDS}: {_line(rounds[upto][-1])}")
            figures["at"][str(upto)] = {
                "load_s": round(seconds, 1), "rounds": [_figures(r) for r in rounds[upto]]
            }  # fmt: skip
    return figures | _verdict(rounds)


def _verdict(rounds: Mapping[int, list[Round]]) -> dict[str, Any]:
    last = rounds[max(rounds)]
    ratio = median(r.ours.per_second / r.bare.per_second for r in last)
    peaks = {str(n): max(r.ours.peak_mb for r in of_size) for n, of_size in rounds.items()}
    growth = max(peaks.values()) - min(peaks.values())
    return {
        "bare_per_second": round(median(r.bare.per_second for r in last)),
        "at_once_per_second": round(median(r.at_once.per_second for r in last)),
        "ours_per_second": round(median(r.ours.per_second for r in last)),
        "ratio": round(ratio, 2),
        "peak_mb": peaks,
        "growth_mb": round(growth, 1),
        "must_reach": f"{MIN_RATIO:g} × the bare scan, no more than {MAX_GROWTH_MB} MB more for ten times the rows",
        "hit": ratio >= MIN_RATIO and growth <= MAX_GROWTH_MB,
    }


def summary(figures: Mapping[str, Any]) -> str:
    """The figures as text."""
    return (
        f"Reconciliation of {figures['rows']:,} rows and documents, medians of {figures['rounds']}: bare scan "
        f"{figures['bare_per_second']:,} rows/s (two at once {figures['at_once_per_second']:,}), ours {figures['ours_per_second']:,} rows/s ({figures['ratio']:.2f}), "
        f"both ways\nPeak MB by rows: {json.dumps(figures['peak_mb'])}\n"
        f"{'hit' if figures['hit'] else 'MISS'}: {figures['must_reach']}"
    )


def _figures(r: Round) -> dict[str, Any]:
    return {
        name: {**side, "per_second": round(side["rows"] / side["seconds"])}
        for name, side in asdict(r).items()
    }


def _line(r: Round) -> str:
    return (
        f"bare {r.bare.per_second:,.0f}/s, two at once {r.at_once.per_second:,.0f}/s, ours {r.ours.per_second:,.0f}/s "
        f"({r.ours.per_second / r.bare.per_second:.2f}), "
        f"CPU {r.bare.cpu_s:.1f} and {r.ours.cpu_s:.1f} s, peak {r.bare.peak_mb:.0f} and {r.ours.peak_mb:.0f} MB"
    )


def _load(platform: Platform, first: int, upto: int, begun: float) -> None:
    """Batches in courses of ten; every third has mentors, every tenth is completed. Raises TimeoutError."""
    for start in range(first, upto, ROWS_A_LOAD):
        if time.monotonic() - begun > LOAD_TIMEOUT_S:
            raise TimeoutError(f"{start - first:,} rows loaded in {LOAD_TIMEOUT_S} s")
        platform.add_batches(_batch(n) for n in range(start, min(upto, start + ROWS_A_LOAD)))


def _batch(n: int) -> Batch:
    user = f"{n % 5000:08d}-4000-8000-a000-0123456789ab"
    mentors = [f"{n % 777:08d}-4000-8000-b000-0123456789ab"] if n % 3 == 0 else []
    return Batch(f"do_{n // 10:018d}", f"01{n:018d}", user, mentors, status=2 if n % 10 == 0 else 1)


def _round(addresses: Any, rows: int) -> Round:
    sides = [_pass(which, addresses) for which in ("bare", "at_once", "ours")]
    for side in sides:
        if side.rows != rows or side.differences:
            raise RuntimeError(
                f"a pass read {side.rows:,} of {rows:,} and found {side.differences} differences"
            )
    return Round(*sides)


def _pass(which: str, addresses: Any) -> Side:
    """Run one pass in a new process, so that its peak memory can be measured."""
    done = subprocess.run(
        (sys.executable, "-m", "benchmarks.reconcile_pass", which, addresses.cassandra, addresses.elasticsearch, addresses.ledger),
        cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=1800,
        env={"PYTHONPATH": f"{REPOSITORY / 'plugins'}:{REPOSITORY}", "PATH": str(Path(sys.executable).parent)},
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"the pass {which!r} failed: {done.stderr[-2000:]}")
    return Side(**json.loads(done.stdout.splitlines()[-1]))
