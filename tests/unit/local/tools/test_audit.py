"""`make audit`: the real pip-audit, over an advisory source of the test's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from local.paths import REPOSITORY
from local.tools import audit
from local.tools.audit import Finding, Judgement, Report, judgements, main, verdict
from tests.unit.conftest import Request, Server

HASH = "--hash=sha256:" + "0" * 64
BAD = Finding("example", "1.0", "PYSEC-2026-1", frozenset({"CVE-2026-1"}), ("1.2",))
TODAY = date(2026, 11, 26)


def judged(until: date = TODAY, name: str = "PYSEC-2026-1", package: str = "example") -> Judgement:
    return Judgement(name, package, "never called", until)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "requirements.txt").write_text(f"example==1.0 \\\n    {HASH}\n    # via nobody\n")
    (tmp_path / "requirements-dev.txt").write_text(
        f"other==2.0 {HASH}\npip==26.0 \\\n    {HASH}\n    # via other\n"
    )
    return tmp_path


def source(server: Server) -> Mapping[str, Sequence[str]]:
    return {"OSV": ("--vulnerability-service", "osv", "--osv-url", server.url)}


def advises(server: Server) -> None:
    """An OSV that knows of one vulnerability."""
    affected = {
        "package": {"name": "example", "ecosystem": "PyPI"},
        "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "1.2"}]}],
    }
    known = {"id": "PYSEC-2026-1", "aliases": ["CVE-2026-1"], "summary": "bad", "affected": [affected]}

    def answer(request: Request, _: Any) -> tuple[int, Any]:
        return 200, {"vulns": [known]} if request.body["package"]["name"] == "example" else {}

    server.answer = answer


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of the judgements, empty at first."""
    made = tmp_path / "audit.toml"
    made.write_text("")
    monkeypatch.setattr(audit, "JUDGED", made)
    monkeypatch.setattr(audit, "REPOSITORY", tmp_path)
    monkeypatch.setattr(audit, "PROBE_SECONDS", 60.0)  # of a machine that is busy with other tests
    return made


def test_a_vulnerability_that_nobody_has_judged_fails_with_its_name_and_its_cure(
    server: Server, folder: Path, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    advises(server)
    assert main(source(server), folder) == 1
    printed = capsys.readouterr().out
    assert "UNJUDGED  example 1.0: PYSEC-2026-1 (CVE-2026-1), fixed in 1.2\n" in printed
    assert (
        "3 packages audited by OSV: 1 known vulnerabilities. Update the packages, or judge each in audit.toml"
        in printed
    )
    assert {r.body["package"]["name"] for r in server.requests} == {"example", "other", "pip"}


def test_a_judged_one_is_listed_and_fails_nothing(
    server: Server, folder: Path, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    advises(server)
    file.write_text(
        '[[judged]]\nid = "CVE-2026-1"\npackage = "example"\njudgement = "never called"\nuntil = 2999-01-01\n'
    )
    assert main(source(server), folder) == 0
    printed = capsys.readouterr().out
    assert (
        "judged    example 1.0: PYSEC-2026-1 (CVE-2026-1), fixed in 1.2: never called (until 2999-01-01)"
        in printed
    )


def test_without_a_source_in_reach_it_says_so_in_one_sentence_and_fails_nothing(
    folder: Path, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nobody = {"OSV": ("--vulnerability-service", "osv", "--osv-url", "http://127.0.0.1:9/")}
    assert main(nobody, folder) == 0
    printed = capsys.readouterr().out
    assert printed == (
        "No advisory source can be reached, so the pinned packages were not audited: OSV does not answer.\n"
    )


def test_a_source_that_hangs_is_given_up_in_time(
    server: Server,
    folder: Path,
    file: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(audit, "PROBE_SECONDS", 0.5)
    server.answer = lambda _request, _handler: (200, {}) if server.stopping.wait() else None
    assert main({**source(server), "another": source(server)["OSV"]}, folder) == 0
    assert "OSV does not answer within 0.5 s; another does not answer within 0.5 s" in capsys.readouterr().out
    server.stopping.set()


def test_the_questions_whether_sources_are_in_reach_are_bounded_to_twenty_seconds() -> None:
    assert audit.PROBE_SECONDS * len(audit.SOURCES) <= 16


def test_a_source_that_knows_none_of_the_packages_is_none() -> None:
    skipped = '{"dependencies": [{"name": "pip", "skip_reason": "not found"}], "fixes": []}'
    assert audit.report_of(skipped) == Report(0, [], ["pip"])
    with pytest.raises(audit.OutOfReachError):
        audit.report_of("Traceback")


@pytest.mark.parametrize(
    ("entry", "good", "words"),
    [
        pytest.param(judged(), True, "judged    example", id="to the last day"),
        pytest.param(judged(date(2026, 11, 25)), False, "its judgement ended on 2026-11-25", id="ended"),
        pytest.param(judged(name="CVE-2026-1"), True, "judged    example", id="by another of its names"),
        pytest.param(
            judged(name="PYSEC-2026-2"), False, "no longer found: example PYSEC-2026-2", id="another one"
        ),
        pytest.param(judged(package="other"), False, "UNJUDGED  example", id="of another package"),
    ],
)
def test_a_judgement_holds_for_its_vulnerability_until_its_day(
    entry: Judgement, good: bool, words: str
) -> None:
    lines, verdict_is_good = verdict(Report(1, [BAD], []), [entry], TODAY)
    assert verdict_is_good is good
    assert any(words in line for line in lines)


def test_what_the_source_does_not_know_is_named() -> None:
    lines, good = verdict(Report(3, [], ["b", "a"]), [], TODAY)
    assert (lines, good) == (["not known to the source: a, b"], True)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param(
            '[[judged]]\nid = "x"', "entry 1: has id; give id, package, judgement, until", id="half"
        ),
        pytest.param(
            '[[judged]]\nid="x"\npackage="p"\njudgement="j"\nuntil="2027-01-01"',
            "until is no date",
            id="a text",
        ),
        pytest.param(
            '[[judged]]\nid="x"\npackage="p"\njudgement=" "\nuntil=2027-01-01', "not empty", id="no reason"
        ),
    ],
)
def test_a_judgement_without_reason_or_end_is_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        judgements(text)


def test_the_repositorys_own_judgements_can_be_read_and_the_package_asked_first_is_pinned() -> None:
    judgements(audit.JUDGED.read_text())
    lines = audit.probe_lines((REPOSITORY / audit.REQUIREMENTS[-1]).read_text())
    assert lines.startswith(f"{audit.PROBE}==")
    assert "--hash=sha256:" in lines
    assert "#" not in lines
