"""`make tools`: what it does when a tool cannot be installed, and what the tests do then."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from local.servers.processes import await_condition
from local.tools import programs
from local.tools.programs import MissingError, Tool
from tests.needs import needed


def program(folder: Path) -> None:
    (folder / "here").write_text("#!/bin/sh\n")
    (folder / "here").chmod(0o755)


def fails(_: Path) -> None:
    raise MissingError("there is no Go")


def full(_: Path) -> None:
    raise OSError("no space left on device")


def nothing(_: Path) -> None: ...


def test_what_cannot_be_had_is_reported_and_the_rest_is_brought(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = (("a", fails), ("b", full), ("c", nothing))
    wanted = {name: Tool(name, f"{name}/x", bring) for name, bring in made} | {
        "d": Tool("d", "here", program)
    }
    assert programs.bring(wanted, tmp_path) == {
        "a": "there is no Go",
        "b": "no space left on device",
        "c": "the download has no c",
    }
    assert capsys.readouterr().out.splitlines() == [
        "a cannot be installed, so its tests are skipped: there is no Go.",
        "b cannot be installed, so its tests are skipped: no space left on device.",
        "c cannot be installed, so its tests are skipped: the download has no c.",
        f"d: {tmp_path / 'here'}",
    ]


def test_a_tool_that_is_there_is_not_brought_again(tmp_path: Path) -> None:
    program(tmp_path)
    assert programs.bring({"d": Tool("d", "here", fails)}, tmp_path) == {}


def test_nothing_that_is_missing_makes_it_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    chromium = programs.TOOLS["chromium"]._replace(path=str(tmp_path / "chromium"))
    schemas = programs.TOOLS["kubernetes_schemas"]._replace(bring=fails)  # Python's own pip is always there
    changed = {"chromium": chromium, "kubernetes_schemas": schemas}
    monkeypatch.setattr(programs, "TOOLS", {**programs.TOOLS, **changed})
    assert programs.main(tmp_path / "tools") == 0
    written = json.loads((tmp_path / "tools" / programs.WHY).read_text())
    assert written == {
        "chromium": "there is no apt-get",
        "promtool": "there is no apt-get",
        "prometheus": "there is no apt-get",
        "statsd_exporter": "there is no Go",
        "pgbouncer": "there is no apt-cache",
        "redis-server": "there is no apt-cache",
        "haproxy": "there is no apt-cache",
        "otelcol": "there is no Go",
        "helm": "there is no Go",
        "kubeconform": "there is no Go",
        "kubernetes_schemas": "there is no Go",
    }


def test_a_command_says_why_it_failed() -> None:
    with pytest.raises(MissingError, match=r"^`sh -c echo one; echo two; exit 3` failed: two$"):
        programs.run("sh", "-c", "echo one; echo two; exit 3", seconds=10)
    with pytest.raises(MissingError, match="no output"):
        programs.run("false", seconds=10)
    with pytest.raises(MissingError, match=r"^/nowhere/x cannot be run: No such file"):
        programs.run("/nowhere/x", seconds=10)


def test_a_command_that_takes_too_long_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    child = tmp_path / "pid"
    with pytest.raises(MissingError, match="took longer than 1 s"):
        programs.run("sh", "-c", f"sleep 600 & echo $! > {child}; wait", seconds=1)
    await_condition(
        lambda: not runs(int(child.read_text())), timeout_s=10, what="the end of the child's child"
    )


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_the_collector_s_manifest_pins_everything(tmp_path: Path) -> None:
    written = json.loads(programs.manifest(tmp_path))
    modules = [entry["gomod"].split() for kind in programs.COMPONENTS for entry in written[kind]]
    assert len(modules) == 5
    assert {version for _, version in modules} == {programs.COLLECTOR}
    assert written["dist"]["output_path"] == str(tmp_path)


@pytest.mark.parametrize(
    ("ci", "why", "outcome"),
    [
        pytest.param("", None, pytest.skip.Exception, id="a machine where nobody asked"),
        pytest.param("true", "there is no Go", pytest.skip.Exception, id="a CI that cannot have it"),
        pytest.param("true", None, pytest.fail.Exception, id="a CI that did not try"),
    ],
)
def test_a_test_without_its_tool_is_skipped_but_not_in_a_ci_that_could_have_it(
    ci: str, why: str | None, outcome: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs, "found", lambda _: None)
    monkeypatch.setattr(programs, "why_missing", lambda _: why)
    monkeypatch.setitem(os.environ, "CI", ci)
    with pytest.raises(outcome, match=r"`make tools`"):
        needed("otelcol")
