"""Prints a line for each problem: ``python -m ownership.health`` in Airflow's environment.

Exit code 0 if there is none, else 1. With ``--kind`` only problems of that kind count, as for a probe, which must not
restart a process because another part is down, or a setting is wrong.
"""

from __future__ import annotations

import argparse
import logging
import sys

from ownership.domain.errors import OwnershipError
from ownership.edge.connections import read_as_airflow_s_commands_do
from ownership.edge.hooks import load_settings
from ownership.health.look import look, look_at_backlog
from ownership.health.problems import OF_BACKLOG, Kind, problems, sentence


def main(arguments: list[str] | None = None) -> int:
    """Look, and print the problems. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m ownership.health", description=__doc__)
    parser.add_argument("--kind", choices=[*Kind], help="count only problems of this kind")
    kind = parser.parse_args(arguments).kind
    # Else stdout has a line for each request.
    logging.getLogger("elastic_transport").setLevel(logging.WARNING)
    try:
        settings = load_settings()
    except OwnershipError as e:
        print(e)
        return 1 if kind in {None, Kind.PART} else 0
    facts = look_at_backlog(settings) if kind in OF_BACKLOG else look(settings)
    found = [
        p
        for p in problems(facts, deadline_minutes=settings.deadline_minutes)
        if kind is None or p.kind == kind
    ]
    for problem in found:
        print(problem.sentence)
    if not found:
        print(f"No problem of kind {kind}." if kind else sentence(facts, found))
    return 1 if found else 0


if __name__ == "__main__":
    read_as_airflow_s_commands_do()
    sys.exit(main())
