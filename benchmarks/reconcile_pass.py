"""One pass of the reconciliation's benchmark; a separate process, so that its peak memory can be measured."""

from __future__ import annotations

import gc
import json
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile
from cassandra.policies import RoundRobinPolicy
from psycopg.conninfo import conninfo_to_dict

from benchmarks.reconcile import Side
from local.platform.schema import KEYSPACE, TABLE, connect_elasticsearch
from ownership.domain.settings import Settings
from ownership.ledger.database import Database
from ownership.platform.cassandra import SOCKET_OPTIONS, Cql
from ownership.platform.http_service import Endpoint, Service
from ownership.platform.ring import TokenRange, token_range
from ownership.reconcile.run import ReconcileConf, look_at_ledger, look_at_ranges, plan, put_together
from ownership.stages.parts import Parts

RANGES = 64
PAGE = 5000
"""Page size of the bare scan, the driver's default."""


@contextmanager
def _session(address: str) -> Iterator[Any]:
    host, _, port = address.rpartition(":")
    profile = ExecutionProfile(load_balancing_policy=RoundRobinPolicy(), request_timeout=30)
    cluster = Cluster(
        [host], port=int(port), protocol_version=4,
        execution_profiles={EXEC_PROFILE_DEFAULT: profile}, sockopts=SOCKET_OPTIONS,
    )  # fmt: skip
    try:
        yield cluster.connect()
    finally:
        cluster.shutdown()


def _bare(cassandra: str, *_: str, at_once: bool = False) -> Side:
    """Read the same columns of the same ranges and only count the rows."""
    with _session(cassandra) as session, ThreadPoolExecutor(2) as pool:
        select = session.prepare(
            f"SELECT courseid, batchid, createdby, mentors, status FROM {KEYSPACE}.{TABLE} "  # noqa: S608  # our own names
            "WHERE token(courseid) >= ? AND token(courseid) <= ?"
        )
        select.fetch_size = PAGE

        def count(part: TokenRange) -> int:
            # Every range but the first begins after the end of the previous one.
            return sum(1 for _ in session.execute(select, (part.after + (not part.first), part.upto)))

        begun, cpu, rows = time.monotonic(), time.process_time(), 0
        for n in range(RANGES):
            part = token_range(n, RANGES)
            rows += sum(pool.map(count, part.halves)) if at_once else count(part)
        return _side(begun, cpu, rows)


def _ours(cassandra: str, elasticsearch: str, ledger: str) -> Side:
    """A run of one slice without a rate limit, as in its task: both directions, with its writes to the ledger."""
    settings = Settings.model_validate({"reconcile.slices": 1, "reconcile.rows_per_second": 0})
    unused = Service("unused", lambda: Endpoint("http://127.0.0.1:9"))
    with (
        _session(cassandra) as session,
        closing(connect_elasticsearch(elasticsearch)) as client,
        closing(Database.at(conninfo_to_dict(ledger))) as database,
    ):
        parts = Parts.from_clients(
            settings, database, Cql(lambda: session), lambda: client, lms=unused, userorg=unused
        )
        run_id, order = f"bench-{uuid4().hex}", ReconcileConf()
        (share,) = plan(parts, run_id, order)
        gc.freeze()  # both as `few_collections` does in a task's process
        gc.set_threshold(50_000, 20, 100)
        begun, cpu = time.monotonic(), time.process_time()
        look_at_ranges(parts, share)
        side = _side(begun, cpu, 0)
        look_at_ledger(parts, run_id, order)
        found = put_together(parts, run_id, order)
    if found is None or not found[0].complete:
        raise RuntimeError("the reconciliation did not end")
    report = found[0]
    return replace(side, rows=report.rows, documents=report.documents, differences=report.different)


def _side(begun: float, cpu: float, rows: int) -> Side:
    seconds, used = time.monotonic() - begun, time.process_time() - cpu
    return Side(rows, round(seconds, 3), _peak_mb(), round(used, 2))


def _peak_mb() -> float:
    """Peak memory of this process, MB; the figure of `getrusage` includes the parent's peak before exec."""
    with suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return round(next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024, 1)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


PASSES: Mapping[str, Callable[..., Side]] = {
    "bare": _bare,
    "at_once": partial(_bare, at_once=True),
    "ours": _ours,
}

if __name__ == "__main__":
    which, *addresses = sys.argv[1:]
    print(json.dumps(asdict(PASSES[which](*addresses))))
