"""A plan as people read it, and the digest that names its content. Pure."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from dataclasses import dataclass, field

from ownership.domain.contracts import PlanLine, PlanSummary
from ownership.domain.event import Transfer
from ownership.domain.plan import BatchId, Hop, Row, changed_role
from ownership.domain.states import BatchOutcome
from ownership.domain.text import one_line

MAX_LINES = 10
"""Batches that a report shows of each kind."""
MAX_COURSES = 20
_DIGITS = 20


@dataclass
class PlanReport:
    """What an event would change, batch by batch; fed in the order of the batches' ids.

    Memory does not grow with the number of batches, only with that of courses.
    """

    transfer: Transfer
    outcomes: Counter[str] = field(default_factory=Counter)
    """Batches by the outcome that the plan expects."""
    _roles: Counter[str] = field(default_factory=Counter)
    _courses: Counter[str] = field(default_factory=Counter)
    _first: list[PlanLine] = field(default_factory=list)
    _first_conflicts: list[PlanLine] = field(default_factory=list)
    _hash: hashlib._Hash = field(default_factory=hashlib.sha256)

    @property
    def batches(self) -> int:
        """Batches that would change."""
        return self.outcomes[BatchOutcome.MOVED]

    def add_change(self, hop: Hop) -> None:
        """A batch that would change."""
        role = changed_role(hop)
        before, after = hop.before, hop.after
        change = (*before.id, before.status, *before.owners, *after.owners)
        self._hash.update(json.dumps(change, separators=(",", ":")).encode() + b"\n")
        self.outcomes[BatchOutcome.MOVED] += 1
        self._roles[role] += 1
        self._courses[before.id.course_id] += 1
        if len(self._first) < MAX_LINES:
            self._first.append(
                PlanLine(
                    **before.id._asdict(), role=role, before=owners_text(before), after=owners_text(after)
                )
            )

    def add_conflict(self, batch: BatchId, row: Row | None, outcome: str) -> None:
        """A batch that was found and would not change."""
        self.outcomes[outcome] += 1
        if len(self._first_conflicts) < MAX_LINES:
            found = owners_text(row) if row else "there is no such row"
            self._first_conflicts.append(PlanLine(**batch._asdict(), role="", before=found, after=outcome))

    @property
    def digest(self) -> str:
        """Identifies the plan: a hash of batch, status, owners before and after of every change."""
        return self._hash.hexdigest()[:_DIGITS]

    def summary(self) -> PlanSummary:
        """The plan as people read it."""
        courses = self._courses.most_common(MAX_COURSES)
        return PlanSummary(
            mid=self.transfer.mid,
            from_user=self.transfer.from_user,
            to_user=self.transfer.to_user,
            digest=self.digest,
            batches=self.batches,
            roles=dict(self._roles),
            courses=dict(courses),
            more_courses=self.batches - sum(n for _, n in courses),
            first=tuple(self._first),
            conflicts=self.outcomes.total() - self.batches,
            first_conflicts=tuple(self._first_conflicts),
        )


def owners_text(row: Row) -> str:
    """Creator and mentors in one printable line: their ids are whatever the row has."""
    mentors = f", mentors {', '.join(row.mentors)}" if row.mentors else ""
    return one_line(f"created by {row.created_by or 'nobody'}{mentors}")


def text(plan: PlanSummary) -> str:
    """A plan for a log: counts by role and course, the first rows before and after, conflicts."""
    lines = [
        f"{plan.state}: {plan.mid}, {plan.from_user} → {plan.to_user}: {_size(plan)}; digest {plan.digest}"
    ]
    lines += [f"  {name + ':':<10} {counts}" for name, counts in _counted(plan)]
    lines += _lines("first rows, before → after:", plan.first)
    lines += _lines("would not change:", plan.first_conflicts)
    if plan.next_conf:
        lines.append(f"  next: trigger with conf {plan.next_conf}")
    return "\n".join(lines)


def markdown(plan: PlanSummary) -> str:
    """The same as Markdown, for a page. Ids come from outside: none of their characters is mark-up."""
    parts = [f"**{_size(plan)}.** Digest {_code(plan.digest)} of {_code(plan.mid)}."]
    parts += [f"{name.capitalize()}: {escaped(counts)}" for name, counts in _counted(plan)]
    parts += _rows("First rows", plan.first)
    parts += _rows("Would not change", plan.first_conflicts)
    if plan.next_conf:
        parts.append(f"The same by conf: {_code(plan.next_conf)}")
    return "\n\n".join(parts)


def _size(plan: PlanSummary) -> str:
    return f"{plan.batches} batches would change, {plan.conflicts} would not"


def _counted(plan: PlanSummary) -> list[tuple[str, str]]:
    more = f", others {plan.more_courses}" if plan.more_courses else ""
    counts = (("by role", _counts(plan.roles)), ("by course", _counts(plan.courses) + more))
    return [(name, text) for name, text in counts if text]


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {n}" for name, n in counts.items())


def _lines(title: str, rows: tuple[PlanLine, ...]) -> list[str]:
    if not rows:
        return []
    names = [f"{r.course_id} / {r.batch_id}" for r in rows]
    width = max(map(len, names))
    return [f"  {title}"] + [
        f"    {name:<{width}}  {r.before}  →  {r.after}" for name, r in zip(names, rows, strict=True)
    ]


def _rows(title: str, rows: tuple[PlanLine, ...]) -> list[str]:
    if not rows:
        return []
    cells = [(r.course_id, r.batch_id, r.before, r.after) for r in rows]
    table = ["| course | batch | before | after |", "| --- | --- | --- | --- |"]
    table += [f"| {' | '.join(map(escaped, row))} |" for row in cells]
    return [f"{title}:", "\n".join(table)]


def escaped(text: str) -> str:
    """`text` in Markdown, on one line, with every punctuation mark escaped."""
    return re.sub(r"([^\w\s,→]|_)", r"\\\1", " ".join(text.split()))


def _code(text: str) -> str:
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence} {text} {fence}" if len(fence) > 1 else f"`{text}`"
