"""The hosts of the installation: each reports what it is like, so that health can tell which one differs."""

from __future__ import annotations

import json
from collections.abc import Mapping

from sqlalchemy import func, select, text

from ownership.domain.clock import now_ms
from ownership.domain.installation import Host, HostKind, Tries
from ownership.ledger.database import Database
from ownership.ledger.schema import host

EVERY_SECONDS = 60
"""A host reports once in so many seconds at most, whatever number of its processes do."""

# A row that is fresh is only read: no lock, no write, no wait for the disk.
_REPORT = text(
    f"""
    INSERT INTO host AS h (kind, hostname, traits, tries, clock_ahead_ms)
    SELECT :kind, :hostname, CAST(:traits AS jsonb), CAST(:tries AS jsonb),
           :now_ms - CAST(1000 * extract(epoch FROM clock_timestamp()) AS bigint)
    WHERE NOT EXISTS (
        SELECT FROM host
        WHERE kind = :kind AND hostname = :hostname AND seen_at > now() - interval '{EVERY_SECONDS} seconds'
    )
    ON CONFLICT (kind, hostname) DO UPDATE SET
        since = CASE WHEN h.traits = excluded.traits THEN h.since ELSE excluded.since END,
        traits = excluded.traits, tries = excluded.tries, seen_at = excluded.seen_at,
        clock_ahead_ms = excluded.clock_ahead_ms
    """
)


class Hosts:
    """A row for each host and what runs on it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def report(
        self,
        kind: HostKind,
        hostname: str,
        traits: Mapping[str, str],
        tries: Mapping[str, Tries] | None = None,
    ) -> None:
        """Note what this host is like, unless it was noted a moment ago. A ledger that does not answer is let be."""
        values = {
            "kind": kind,
            "hostname": hostname,
            "traits": json.dumps(dict(traits)),
            "tries": json.dumps(dict(tries or {})),
        }
        self._database.attempt(lambda c: c.execute(_REPORT, values | {"now_ms": now_ms()}))

    def read(self) -> list[Host]:
        """All hosts that the ledger knows."""
        rows = self._database.run(
            lambda c: c.execute(select(host).order_by(host.c.kind, host.c.hostname)).all()
        )
        return [
            Host(
                HostKind(r.kind), r.hostname, r.traits, r.since, r.seen_at, r.clock_ahead_ms,
                {name: Tries(*tries) for name, tries in r.tries.items()},
            )
            for r in rows
        ]  # fmt: skip

    def first_worker_ms(self) -> int:
        """Since when workers report, epoch ms; 0 if none has."""
        first = select(func.min(host.c.since)).where(host.c.kind == HostKind.WORKER)
        return self._database.run(lambda c: c.scalar(first)) or 0
