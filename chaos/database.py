"""PostgreSQL of the fault suite: relays in front of it, a standby for a failover, pgbouncer if it is installed.

The job reaches its ledger through a relay that cuts commits, then pgbouncer, then the relay in front of PostgreSQL.
Airflow and the oracle use the latter relay only.
"""

from __future__ import annotations

from chaos.relays import CommitRelay, Relay
from local.servers import pgbouncer, postgres
from local.servers.airflow import DATABASE
from local.servers.ports import HOST
from local.servers.processes import Server
from local.stack import Stack
from local.tools import programs

STANDBY = "postgres-standby"
"""Name of the standby among the stack's servers, until it is promoted."""


class Database:
    """The PostgreSQL of a stack that has started without Airflow."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        primary = stack.servers[postgres.NAME]
        # As in production. By default a crash of the local server may lose Airflow's last commits.
        postgres.create_database(primary.address, DATABASE)
        postgres.commit_durably(primary.address, DATABASE)
        self.relay = Relay(_address(primary))
        """In front of the current primary."""
        program = programs.found(pgbouncer.NAME)
        if program is not None:
            bouncer = pgbouncer.server(stack.layout, program, self.relay.address)
            stack.servers[bouncer.name] = bouncer
            bouncer.start()
            bouncer.wait_ready()
        behind = self.relay if program is None else stack.servers[pgbouncer.NAME]
        self.commits = CommitRelay(behind.address)
        """In front of the job's connections."""

    @property
    def jobs_ledger(self) -> str:
        """The ledger's URL for the job."""
        return postgres.url_of_ledger(self._stack.layout, self.commits.address)

    @property
    def ledger(self) -> str:
        """The ledger's URL for the oracle and the demo's helpers."""
        return postgres.url_of_ledger(self._stack.layout, self.relay.address)

    @property
    def airflows(self) -> str:
        """SQLAlchemy's URL of Airflow's database."""
        return f"postgresql+psycopg2://postgres@{self.relay.address}/{DATABASE}"

    def add_standby(self) -> None:
        """Start a standby that streams from the primary; from then on a commit is acknowledged when both have it."""
        servers, layout = self._stack.servers, self._stack.layout
        if STANDBY in servers:
            return
        primary = servers[postgres.NAME]
        name = STANDBY if primary.name == postgres.NAME else postgres.NAME
        postgres.forget(layout, name)
        standby = postgres.standby(layout, primary.ports[0], name)
        servers[STANDBY] = standby
        standby.start()
        standby.wait_ready()
        postgres.replicate_synchronously(primary)

    def fail_over(self) -> None:
        """Promote the standby after the primary was killed, and point the relay to it."""
        servers = self._stack.servers
        promoted: Server = servers.pop(STANDBY)
        postgres.promote(promoted)
        servers[postgres.NAME] = promoted
        self.relay.point_to(_address(promoted))

    def close(self) -> None:
        """End the relays; the stack ends the servers."""
        self.commits.close()
        self.relay.close()


def _address(server: Server) -> str:
    return f"{HOST}:{server.ports[0]}"
