"""``python -m ownership.health`` in Airflow's environment: prints a line for each problem.

Exit code 0 if there is none, else 1.
"""

from __future__ import annotations

import sys

from ownership.domain.errors import OwnershipError
from ownership.edge.hooks import load_settings
from ownership.health.judge import problems, sentence
from ownership.health.look import look


def main() -> int:
    """Look, and print the problems. Returns the exit code."""
    try:
        settings = load_settings()
    except OwnershipError as e:
        print(e)
        return 1
    facts = look(settings)
    found = problems(facts, deadline_minutes=settings.deadline_minutes)
    for problem in found:
        print(problem.sentence)
    if not found:
        print(sentence(facts, found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
