"""`make matrix`: which servers it runs, what it reads of a test run, and the table on the page."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from local import matrix
from local.matrix import Result, combinations, read_tests, with_rows
from local.servers.ports import HOST
from local.servers.releases import KNOWN, Releases

REPORT = """\
<testsuites><testsuite name="pytest" errors="1" failures="1" skipped="1" tests="4">
<properties><property name="search" value="OpenSearch 2.19.3"/><property name="rows" value="Cassandra 5.0.9"/></properties>
<testcase classname="tests.a" name="passes"/>
<testcase classname="tests.a" name="skips"><skipped/></testcase>
<testcase classname="tests.a" name="fails"><failure message="x"/></testcase>
<testcase classname="tests.b" name="breaks"><error message="y"/></testcase>
</testsuite></testsuites>
"""


def test_by_default_every_release_and_both_pairs_are_run_once() -> None:
    made = combinations(())
    assert list(made.values()).count(Releases()) == 1
    assert len(set(made.values())) == len(made)
    for part, releases in KNOWN.items():
        assert {getattr(each, part) for each in made.values()} == set(releases)
    assert made["opensearch2+cassandra311"] == Releases("opensearch2", "cassandra311")


def test_a_name_alone_runs_with_the_default_servers() -> None:
    assert combinations(["opensearch2", "cassandra311"]) == {
        "opensearch2": Releases(search="opensearch2"),
        "cassandra311": Releases(rows="cassandra311"),
    }


@pytest.mark.parametrize("name", ["solr", "opensearch2+solr", "opensearch2+opensearch3", ""])
def test_other_names_are_refused_with_the_list(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert matrix.main([name]) == 1
    shown = capsys.readouterr().out
    assert "names no servers" in shown
    assert all(release in shown for releases in KNOWN.values() for release in releases)


def test_a_report_gives_counts_failures_and_versions(tmp_path: Path) -> None:
    report = tmp_path / "tests.xml"
    report.write_text(REPORT)
    result = Result("opensearch2", ["platform"])
    read_tests(result, report)
    assert result.tests == (1, 2, 1)
    assert result.wrong == ["tests.a::fails", "tests.b::breaks"]
    assert result.versions == {"search": "OpenSearch 2.19.3", "rows": "Cassandra 5.0.9"}
    assert not result.is_good


def test_a_child_that_does_not_end_in_time_is_ended(capfd: pytest.CaptureFixture[str]) -> None:
    before = set(psutil.Process().children())  # servers of the session, where other tests have started some
    matrix.finish(0.1, {}, "of-a-unit-test-{pid}", "http.server", "--bind", HOST, "0")
    assert set(psutil.Process().children()) <= before
    assert "http.server is ended after" in capfd.readouterr().out


def test_what_did_not_end_in_time_is_in_the_table_and_no_success() -> None:
    result = Result("opensearch2", matrix.FOLDERS)
    assert not result.is_good
    assert result.cells().count(matrix.UNFINISHED) == 2
    assert len(result.cells()) == len(matrix.COLUMNS)


def test_rows_of_the_same_servers_are_replaced_and_others_stay() -> None:
    page = f"text\n{matrix.BEGIN}{matrix.END}more\n"
    first = with_rows(page, [["a", "1"], ["b", "1"]])
    second = with_rows(first, [["a", "2"]])
    assert "| a | 2 |\n| b | 1 |\n" in second
    assert second.startswith("text\n")
    assert second.endswith("more\n")
    assert with_rows(second, [["a", "2"]]) == second
