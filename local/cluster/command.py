"""The command behind `make cluster`."""

from __future__ import annotations

import os
import time

import psutil

from local import stack
from local.cluster import plan
from local.cluster.stack import LARGE, SMALL, Cluster
from local.paths import ADDRESSES_FILE, CLUSTER, REPOSITORY
from local.servers.releases import Releases
from local.terminal import console, print_addresses, report
from local.tools import programs


def cluster() -> int:
    """Start the cluster, leave it running, print the addresses. Raises RuntimeError when the machine is too small."""
    size = os.environ.get("STORES") or "large"
    if size not in {"large", "small"}:
        raise ValueError(f"STORES={size} is not known here; set it to small, or leave it out.")
    if running := stack.running_parts(CLUSTER):
        raise RuntimeError(f"A cluster runs already ({len(running)} processes); `make down` ends it.")
    refuse_small_machine(psutil.virtual_memory().total)
    bring_tools()
    begun = time.monotonic()
    console.print("Starting the cluster (the first time downloads the servers; logs in .local/cluster/logs)")
    started = Cluster(
        CLUSTER, stores=SMALL if size == "small" else LARGE, releases=Releases.from_environment()
    )
    started.start(report)
    started.addresses.write(ADDRESSES_FILE)
    took, used = time.monotonic() - begun, memory(started)
    console.print(
        f"{len(started.servers)} servers are ready after {took:.0f} s, with {used / plan.GIB:.1f} GiB. "
        f"Addresses, also in {ADDRESSES_FILE.relative_to(REPOSITORY)}:"
    )
    print_addresses(started.addresses.as_environment())
    return 0


def refuse_small_machine(total: int) -> None:
    """Raise RuntimeError when `total` bytes of memory are too few."""
    if total < plan.NEEDED:
        raise RuntimeError(
            f"The cluster needs a machine with {plan.NEEDED // plan.GIB} GiB of memory; this one has "
            f"{total / plan.GIB:.1f} GiB. `make up` needs 6 GiB."
        )


def bring_tools() -> None:
    """Install the programs that are missing. Raises RuntimeError, saying why, when one cannot be installed."""
    needed = {name: programs.TOOLS[name] for name in plan.TOOLS if programs.found(name) is None}
    missing = programs.bring(needed, programs.FOLDER) if needed else {}
    if missing:
        reasons = "; ".join(f"{name}: {why}" for name, why in missing.items())
        raise RuntimeError(f"The cluster needs programs that cannot be installed here ({reasons}).")


def memory(cluster_: Cluster) -> int:
    """Bytes that the cluster's processes hold; what several share is counted once."""
    families = [server.record.family() for server in cluster_.servers.values() if server.record]
    return sum(_held(process) for process in set().union(*families))


def _held(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except psutil.Error:
        return 0
