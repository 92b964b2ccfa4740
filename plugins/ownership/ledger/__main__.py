"""Create, migrate or check the ledger: ``python -m ownership.ledger upgrade|check`` in Airflow's environment.

`upgrade` is idempotent: run it at every deployment. It uses Connection `ownership_ledger`. Exit code 0: all is
well. 1: something is wrong; stderr has one sentence.
"""

from __future__ import annotations

import argparse
import sys

from ownership.domain.errors import OwnershipError
from ownership.edge.connections import read_as_airflow_s_commands_do
from ownership.edge.ledger_hook import opened_database
from ownership.ledger.check import check
from ownership.ledger.schema import REVISION
from ownership.ledger.upgrade import upgrade


def main(arguments: list[str] | None = None) -> int:
    """Do what is asked. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m ownership.ledger", description=__doc__)
    parser.add_argument("command", choices=("upgrade", "check"))
    command = parser.parse_args(arguments).command
    try:
        with opened_database() as database:
            if command == "upgrade":
                for line in upgrade(database):
                    print(line)
            check(database)
    except OwnershipError as e:
        print(f"{command}: {e}", file=sys.stderr)
        return 1
    print(f"The ledger is ready, schema {REVISION}.")
    return 0


if __name__ == "__main__":
    read_as_airflow_s_commands_do()
    sys.exit(main())
