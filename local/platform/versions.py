"""What the servers say that they are."""

from __future__ import annotations

import re
from pathlib import Path

import httpx

from local.platform.schema import TIMEOUT_SECONDS, connect_cassandra


def of_search(url: str) -> str:
    """Product and version of a search server. Raises httpx.HTTPError."""
    # Not `GET /`: an embedded Elasticsearch 9 does not serve it.
    answer = httpx.get(f"{url}/_nodes/_local", timeout=TIMEOUT_SECONDS, trust_env=False).raise_for_status()
    (node,) = answer.json()["nodes"].values()
    return f"{'Elasticsearch' if 'build_flavor' in node else 'OpenSearch'} {node['version']}"


def of_rows(address: str) -> str:
    """Version of a Cassandra. Raises the driver's errors."""
    with connect_cassandra(address) as cluster:
        row = cluster.connect().execute("SELECT release_version FROM system.local").one()
        return f"Cassandra {row['release_version']}"


def of_kafka(log: Path) -> str:
    """Version of a Kafka, which only its log tells; empty without one."""
    found = re.search(r"Kafka version: (\S+)", log.read_text()) if log.exists() else None
    return f"Kafka {found[1]}" if found else ""
