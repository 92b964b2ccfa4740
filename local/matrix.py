"""`make matrix`: the tests of what depends on the stores, and a round of the fault suite, on each of the servers.

The results replace those of the same servers in `docs/compatibility.md`.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from local.paths import REPOSITORY, TEST_STACKS
from local.servers.releases import KNOWN, Releases
from local.stack import GIVEN, end_all

FOLDERS: Final = ("platform", "stages", "reconcile", "page", "health")
"""Of `tests/integration`: what depends on the stores."""
SPEED: Final = "tests/integration/stages/test_speed.py"
"""Left out: it measures the machine, not what a server can do."""
PAIRS: Final = ("elasticsearch710+cassandra311", "opensearch2+cassandra311")
"""What the platform's two installers deploy."""
TESTS_S: Final = 40 * 60
CHAOS_S: Final = 10 * 60
_STOP_S: Final = 60
"""How long a child may take to end its servers."""
CHAOS_SEED: Final = 15
CHAOS_RESULT: Final = REPOSITORY / "chaos" / "results" / f"seed-{CHAOS_SEED}.json"
_STORES: Final = {"search": "elasticsearch", "rows": "cassandra", "kafka": "kafka"}
"""What the fault suite calls the parts."""
PAGE: Final = REPOSITORY / "docs" / "compatibility.md"
BEGIN: Final = "<!-- make matrix: begin -->\n"
END: Final = "<!-- make matrix: end -->\n"
COLUMNS: Final = (
    "servers",
    "search",
    "rows",
    "broker",
    "tests of",
    "passed",
    "failed",
    "skipped",
    "chaos rounds",
    "violations",
    "seconds",
    "date",
)
UNFINISHED: Final = "not finished"


@dataclass
class Result:
    """What came of a combination of servers."""

    servers: str
    tests_of: Sequence[str]
    versions: dict[str, str] = field(default_factory=dict)
    tests: tuple[int, int, int] | None = None
    """Passed, failed, skipped; None when the tests did not end in time."""
    chaos: tuple[int, int] | None = None
    """Rounds and violations."""
    seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)
    """The tests that failed, and the violations."""

    @property
    def is_good(self) -> bool:
        """Whether everything was run and nothing was wrong."""
        return self.tests is not None and self.chaos is not None and not self.wrong

    def cells(self) -> list[str]:
        """Its row in the table."""
        return [
            self.servers,
            *(self.versions.get(part, "") for part in KNOWN),
            "all" if self.tests_of == FOLDERS else ", ".join(self.tests_of),
            *(map(str, self.tests) if self.tests else (UNFINISHED, "", "")),
            *(map(str, self.chaos) if self.chaos else (UNFINISHED, "")),
            f"{self.seconds:.0f}",
            f"{datetime.now(UTC):%Y-%m-%d}",
        ]


def combinations(asked: Sequence[str]) -> dict[str, Releases]:
    """The servers, by the name of their combination; if none is asked for, each release and the platform's pairs.

    A name holds releases joined by "+"; the other parts have their default.
    Raises ValueError, which lists the releases, for a name that holds another word or two releases of one part.
    """
    part_of = {release: part for part, releases in KNOWN.items() for release in releases}
    made: dict[str, Releases] = {}
    for name in asked or (*part_of, *PAIRS):
        words = name.split("+")
        chosen = {part_of[word]: word for word in words if word in part_of}
        if len(chosen) < len(words):
            raise ValueError(f"{name} names no servers; name {' or '.join(part_of)}, or join some by a +.")
        releases = Releases(**chosen)
        if releases not in made.values():  # the default of each part is the same combination
            made[name] = releases
    return made


def main(arguments: list[str] | None = None) -> int:
    """Run what is asked for, print the table and write it to the page; 1 when something was wrong."""
    parser = argparse.ArgumentParser(prog="make matrix", description=__doc__)
    parser.add_argument("servers", nargs="*", help="releases; those joined by a + run together")
    parser.add_argument("--only", nargs="+", default=FOLDERS, help="folders or modules of tests/integration")
    options = parser.parse_args(arguments)
    terminal = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    try:
        wanted = combinations(options.servers)
    except ValueError as error:
        terminal.print(f"[red]matrix failed:[/] {error}")
        return 1
    results = []
    for number, (name, releases) in enumerate(wanted.items(), 1):
        terminal.print(f"\n[bold]{number} of {len(wanted)}: {name}[/] ({datetime.now(UTC):%H:%M} UTC)")
        results.append(run(name, releases, options.only))
        # At once: what an interrupted matrix has done stays.
        PAGE.write_text(with_rows(PAGE.read_text(), [results[-1].cells()]))
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in COLUMNS:
        made.add_column(column, overflow="fold")
    for result in results:
        made.add_row(*result.cells())
    terminal.print(made)
    for result in results:
        for each in result.wrong:
            terminal.print(f"[red]{result.servers}[/]: {escape(each)}")
    return 0 if all(result.is_good for result in results) else 1


def run(name: str, releases: Releases, tests_of: Sequence[str]) -> Result:
    """The tests, and a round in which the store that is not the default one is killed."""
    begun = time.monotonic()
    result = Result(name, tests_of)
    chosen, default = asdict(releases), asdict(Releases())
    environment = {f"{part.upper()}_SERVER": release for part, release in chosen.items()}
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "tests.xml"
        paths = [f"tests/integration/{each}" for each in tests_of]
        options = ("--quiet", "--no-header", f"--junitxml={report}", f"--ignore={SPEED}")
        finish(TESTS_S, environment, "{pid}", "pytest", *options, *paths)
        if report.exists():
            read_tests(result, report)
    other = next((part for part in chosen if chosen[part] != default[part]), "rows")
    fault = ("--fault", f"{_STORES[other]} killed")
    CHAOS_RESULT.unlink(missing_ok=True)
    finish(CHAOS_S, environment, "chaos-{pid}", "chaos", "--seed", str(CHAOS_SEED), "--minutes", "0", *fault)
    if CHAOS_RESULT.exists():
        rounds = json.loads(CHAOS_RESULT.read_text())["rounds"]
        violations = [violation for each in rounds for violation in each["violations"]]
        result.chaos = (len(rounds), len(violations))
        result.wrong += violations
        CHAOS_RESULT.unlink()
    result.seconds = time.monotonic() - begun
    return result


def finish(limit_s: float, environment: dict[str, str], stack: str, *module: str) -> None:
    """Run a module, its output on this terminal; after `limit_s` seconds it is ended with its servers.

    `stack` is the name of the folder that it keeps them in.
    """
    # A shell's background job ignores it, and so would its child.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        (sys.executable, "-m", *module),
        cwd=REPOSITORY,
        env={name: value for name, value in os.environ.items() if name not in GIVEN} | environment,
        stdin=subprocess.DEVNULL,
        start_new_session=True,  # a Ctrl-C reaches it once, below
    )
    try:
        process.wait(limit_s)
    except subprocess.TimeoutExpired:
        print(f"{module[0]} is ended after {limit_s / 60:.0f} minutes.", flush=True)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        end_all(TEST_STACKS / stack.format(pid=process.pid))


def read_tests(result: Result, report: Path) -> None:
    """Take the counts, the failed tests and the servers' versions from a report in JUnit's format."""
    (suite,) = ET.parse(report).getroot().iter("testsuite")  # noqa: S314  # written by our own child
    cases = list(suite.iter("testcase"))  # two for a test that fails and whose fixtures fail after it
    failed = {
        f"{case.get('classname')}::{case.get('name')}": None
        for case in cases
        if case.find("failure") is not None or case.find("error") is not None
    }
    skipped = int(suite.attrib["skipped"])
    count = len({(case.get("classname"), case.get("name")) for case in cases})
    result.tests = (count - len(failed) - skipped, len(failed), skipped)
    result.wrong += failed
    result.versions = {each.attrib["name"]: each.attrib["value"] for each in suite.iter("property")}


def with_rows(page: str, rows: Iterable[Sequence[str]]) -> str:
    """The page's text with these rows in its table, in place of those of the same servers."""
    before, _, rest = page.partition(BEGIN)
    table, _, after = rest.partition(END)
    lines = {line.split("|")[1].strip(): line for line in table.splitlines()[2:]}
    lines |= {row[0]: f"| {' | '.join(row)} |" for row in rows}
    header = [f"| {' | '.join(COLUMNS)} |", f"|{' --- |' * len(COLUMNS)}"]
    return before + BEGIN + "".join(f"{line}\n" for line in [*header, *lines.values()]) + END + after


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # end the children, too
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
