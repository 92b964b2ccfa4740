"""What became of the dry runs of the last hours: ``python -m ownership.edge.rehearsals`` in Airflow's environment.

It compares the plans with rows and documents as they are now, and changes nothing. Exit code 0: every batch is as
planned. 1: some are not, there was no dry run, or something is out of reach.
"""

from __future__ import annotations

import argparse
import logging
import sys
from itertools import islice

from ownership.domain.arguments import above_zero
from ownership.domain.clock import DAY_MS, HOUR_MS, now_ms
from ownership.domain.errors import OwnershipError
from ownership.edge.connections import read_as_airflow_s_commands_do
from ownership.edge.hooks import opened_parts
from ownership.stages.rehearsals import compare

MAX_LINES = 20
"""Batches that a dry run gets a line for."""


def main(arguments: list[str] | None = None) -> int:
    """Print a line for each dry run, and for its batches that are not as planned. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m ownership.edge.rehearsals", description=__doc__)
    parser.add_argument("--hours", type=above_zero, default=24, help="how far back; default: %(default)s")
    hours = parser.parse_args(arguments).hours
    # Else stdout has a line for each request.
    logging.getLogger("elastic_transport").setLevel(logging.WARNING)
    differ, seen = False, 0
    try:
        with opened_parts() as parts:
            # A transfer may be dated ahead of this clock.
            for rehearsal in compare(parts, now_ms() - int(hours * HOUR_MS), now_ms() + DAY_MS):
                seen += 1
                print(rehearsal)
                for finding in islice(rehearsal.findings, MAX_LINES):
                    print(
                        f"  {finding.batch.course_id}/{finding.batch.batch_id}: {finding.outcome}; {finding.found}"
                    )
                if len(rehearsal.findings) > MAX_LINES:
                    print(f"  and {len(rehearsal.findings) - MAX_LINES} more")
                differ |= bool(rehearsal.findings)
    except OwnershipError as e:
        print(f"rehearsals: {e}", file=sys.stderr)
        return 1
    if not seen:
        print(f"No dry run in the last {hours:g} hours.")
    return 1 if differ or not seen else 0


if __name__ == "__main__":
    read_as_airflow_s_commands_do()
    sys.exit(main())
