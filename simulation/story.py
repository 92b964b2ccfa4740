"""A world's trace as a person reads it."""

from __future__ import annotations

from simulation.trial import Outcome


def story(outcome: Outcome) -> str:
    """What the world began with, every call in order, and what is wrong in the end."""
    setup = outcome.setup
    lines = [
        f"batch   {b.batch} of {b.course}: {b.created_by} / {','.join(b.mentors)} ({b.status})"
        for b in setup.batches
    ]
    lines += [f"message {m}" for m in setup.messages]
    lines += [f"edit    {e}" for e in setup.edits]
    lines += [f"order   {o}" for o in setup.orders]
    for line in outcome.trace:
        who = f"{line.actor}:{line.n}" if line.n else line.actor
        fate = f"  !! {line.fate}" if line.fate else ""
        answer = f" → {line.answer}" if line.answer else ""
        lines.append(f"{line.ms / 1000:9.3f} {who:<24} {line.store:<7} {line.what}{answer}{fate}")
    lines += [f"excused: {e}" for e in outcome.excused]
    lines += [f"WRONG: {v}" for v in outcome.violations]
    return "\n".join(lines)
