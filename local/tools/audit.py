"""Known vulnerabilities of the pinned packages: `make audit`.

pip-audit checks every line of the two requirement files. A vulnerability without an entry in `.ci/audit.toml` is an
error. An unreachable advisory source is reported and is not an error: a CI behind a mirror must not fail for that.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import NamedTuple

from local.paths import REPOSITORY

REQUIREMENTS = ("requirements.txt", "requirements-dev.txt")
JUDGED = REPOSITORY / ".ci/audit.toml"
PROBE = "pip"
"""A package that every advisory source knows, used to test whether a source can be reached."""
PROBE_SECONDS = 8.0
"""Time limit of that test. There are two sources: 16 s in all."""
AUDIT_SECONDS = 300.0
"""Time limit of the audit itself, which asks a source about each package."""
SOURCES: Mapping[str, Sequence[str]] = {
    "PyPI": ("--vulnerability-service", "pypi"),
    "OSV": ("--vulnerability-service", "osv"),
}
"""Advisory sources; the first that can be reached is used."""


class Finding(NamedTuple):
    """A known vulnerability of a pinned package."""

    package: str
    version: str
    id: str
    aliases: frozenset[str] = frozenset()
    fixed_in: tuple[str, ...] = ()

    def __str__(self) -> str:
        """One line of the list."""
        names = f" ({', '.join(sorted(self.aliases))})" if self.aliases else ""
        fix = f"fixed in {', '.join(self.fixed_in)}" if self.fixed_in else "not fixed yet"
        return f"{self.package} {self.version}: {self.id}{names}, {fix}"


class Judgement(NamedTuple):
    """A developer's assessment of a vulnerability, valid up to and including the day `until`."""

    id: str
    package: str
    judgement: str
    until: date

    def concerns(self, finding: Finding) -> bool:
        """True if it covers this vulnerability."""
        return self.package == finding.package and self.id in {finding.id, *finding.aliases}


class OutOfReachError(Exception):
    """An advisory source did not answer, or knows none of the packages; the text says which of the two."""


def judgements(text: str) -> list[Judgement]:
    """The entries of `.ci/audit.toml`.

    :raises ValueError: naming the entry and what is wrong with it.
    """
    found = []
    for n, entry in enumerate(tomllib.loads(text).get("judged", ()), start=1):
        if set(entry) != set(Judgement._fields):
            raise ValueError(f"entry {n}: has {', '.join(entry)}; give {', '.join(Judgement._fields)}")
        if type(entry["until"]) is not date:
            raise ValueError(f"entry {n}: until is no date, as in 2027-03-31")
        if not all(isinstance(entry[k], str) and entry[k].strip() for k in ("id", "package", "judgement")):
            raise ValueError(f"entry {n}: id, package and judgement are texts, and not empty")
        found.append(Judgement(**entry))
    return found


class Report(NamedTuple):
    """The answer of an advisory source."""

    audited: int
    findings: list[Finding]
    skipped: list[str]
    """Packages that the source does not know."""


def report_of(text: str) -> Report:
    """Read pip-audit's JSON.

    :raises OutOfReachError: if it is not JSON: pip-audit could not reach the source.
    """
    try:
        dependencies = json.loads(text)["dependencies"]
    except (ValueError, TypeError, KeyError):
        raise OutOfReachError("does not answer") from None
    findings = [
        Finding(d["name"], d["version"], v["id"], frozenset(v["aliases"]), tuple(v["fix_versions"]))
        for d in dependencies
        for v in d.get("vulns", ())
    ]
    skipped = [d["name"] for d in dependencies if "skip_reason" in d]
    return Report(len(dependencies) - len(skipped), findings, skipped)


def ask(source: Sequence[str], files: Iterable[Path], seconds: float) -> Report:
    """Run pip-audit on requirement files against one source, within `seconds`.

    :raises OutOfReachError: if the source does not answer in time, or knows none of the packages.
    """
    program = Path(sys.executable).with_name("pip-audit")
    requirements = [word for file in files for word in ("--requirement", str(file))]
    with tempfile.TemporaryDirectory() as cache:
        options = ("--require-hashes", "--disable-pip", "--format", "json", "--progress-spinner", "off")
        try:
            done = subprocess.run(
                (str(program), *source, *requirements, *options, "--timeout", "5", "--cache-dir", cache),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise OutOfReachError(f"does not answer within {seconds:g} s") from None
    report = report_of(done.stdout)
    if not report.audited:
        raise OutOfReachError("knows none of the packages")
    return report


def probe_lines(pins: str) -> str:
    """The lines of `PROBE` in a requirement file: the pin and its hashes.

    :raises ValueError: if it is not pinned.
    """
    found: list[str] = []
    for line in pins.splitlines():
        if line.startswith(f"{PROBE}==") or (found and line.startswith("    --hash")):
            found.append(line)
        elif found:
            break
    if not found:
        raise ValueError(f"{PROBE} is not pinned")
    return "\n".join(found).rstrip("\\ ") + "\n"


def audited(sources: Mapping[str, Sequence[str]], folder: Path) -> tuple[str, Report]:
    """Name of the first source that can be reached, and its report on the requirement files in `folder`.

    :raises OutOfReachError: if none can be reached.
    """
    why = []
    with tempfile.TemporaryDirectory() as scratch:
        probe = Path(scratch) / "probe.txt"
        probe.write_text(probe_lines((folder / REQUIREMENTS[-1]).read_text()))
        for name, source in sources.items():
            try:
                ask(source, [probe], PROBE_SECONDS)
                return name, ask(source, [folder / file for file in REQUIREMENTS], AUDIT_SECONDS)
            except OutOfReachError as e:
                why.append(f"{name} {e}")
    raise OutOfReachError("; ".join(why))


def verdict(report: Report, judged: Sequence[Judgement], today: date) -> tuple[list[str], bool]:
    """Lines to print, and True if every finding has a valid judgement."""
    lines, good = [], True
    for finding in sorted(report.findings):
        about = [j for j in judged if j.concerns(finding)]
        valid = next((j for j in about if j.until >= today), None)
        if valid:
            lines.append(f"judged    {finding}: {valid.judgement} (until {valid.until})")
            continue
        good = False
        ended = f"; its judgement ended on {max(j.until for j in about)}" if about else ""
        lines.append(f"UNJUDGED  {finding}{ended}")
    lines += [
        f"no longer found: {j.package} {j.id}; remove it from {JUDGED.name}"
        for j in judged
        if not any(j.concerns(f) for f in report.findings)
    ]
    if report.skipped:
        lines.append(f"not known to the source: {', '.join(sorted(set(report.skipped)))}")
    return lines, good


def main(sources: Mapping[str, Sequence[str]] = SOURCES, folder: Path = REPOSITORY) -> int:
    """Print the findings; the exit code is 1 if one has no valid judgement."""
    judged = judgements(JUDGED.read_text())
    try:
        name, report = audited(sources, folder)
    except OutOfReachError as e:
        print(f"No advisory source can be reached, so the pinned packages were not audited: {e}.")
        return 0
    lines, good = verdict(report, judged, date.today())  # noqa: DTZ011  # a judgement ends by the local calendar
    for line in lines:
        print(line)
    unjudged = "" if good else f" Update the packages, or judge each in {JUDGED.relative_to(REPOSITORY)}."
    print(
        f"{report.audited} packages audited by {name}: {len(report.findings)} known vulnerabilities.{unjudged}"
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
