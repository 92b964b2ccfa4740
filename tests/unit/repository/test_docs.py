"""The pages say what the code says: settings, metrics, states, error sentences, links, commands, examples."""

from __future__ import annotations

import ast
import functools
import json
import re
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic.fields import FieldInfo

from ownership.domain import states
from ownership.domain.conf import manual_events, orders, undo_order
from ownership.domain.settings import Settings
from ownership.edge import metrics
from ownership.ledger.database import CONNECTION
from ownership.reconcile.run import ReconcileConf

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "deploy").rglob("*.md"))]
OPERATIONS = (ROOT / "docs/operations.md").read_text()
FIELDS = Settings.model_fields
DEFAULTS = Settings.parse(None)


def section(text: str, heading: str) -> str:
    found = re.search(rf"(?ms)^#+ {re.escape(heading)}\n(.*?)(?=^##+ |\Z)", text)
    assert found, heading
    return found[1]


def rows(text: str) -> list[list[str]]:
    """Cells of the first table, without its head."""
    lines = re.search(r"(?m)(?:^\|.*\n)+", text)
    assert lines
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[0].splitlines()[2:]]


def kinds_of_metrics() -> dict[str, str]:
    """Every metric of the docs' table and its type; a row may name several metrics of one type."""
    table = rows(section(OPERATIONS, "Metrics"))
    return {name: row[1] for row in table for name in re.findall(r"`([^`]+)`", row[0])}


def named(field: str) -> str:
    return FIELDS[field].alias or field


def bounds(field: FieldInfo) -> str:
    low = next(m.ge for m in field.metadata if hasattr(m, "ge"))
    high = next(m.le for m in field.metadata if hasattr(m, "le"))
    return f"{low}–{high}"


SETTINGS = {row[0].strip("`| "): row for row in rows(section(OPERATIONS, "Settings"))}


def test_every_setting_is_in_the_table_and_nothing_else_in_their_order() -> None:
    assert list(SETTINGS) == [named(f) for f in FIELDS]


@pytest.mark.parametrize("field", FIELDS)
def test_a_setting_s_default_and_bounds_are_those_of_the_code(field: str) -> None:
    _, shown, limits, meaning = SETTINGS[named(field)]
    default = getattr(DEFAULTS, field)
    if default is None:
        assert re.fullmatch(r"from Connection `\w+`", shown)
        assert shown.removeprefix("from ") in (FIELDS[field].description or "")
    else:
        written = json.dumps(default) if isinstance(default, tuple) else str(default)
        assert shown.strip("`").replace("{env}", DEFAULTS.env) == written
    if isinstance(default, int):
        assert limits == bounds(FIELDS[field])
    assert len(meaning) > 10


def test_the_connections_are_those_of_the_hooks() -> None:
    source = (ROOT / "plugins/ownership/edge/connections.py").read_text()
    known = re.findall(r'^[A-Z]+ = "(\w+_default)"', source, re.MULTILINE)
    assert len(known) == 6
    known.append(CONNECTION)
    assert [row[0].strip("`| ") for row in rows(section(OPERATIONS, "Connections"))] == known


def test_every_metric_is_in_the_table_and_nothing_else() -> None:
    source = Path(metrics.__file__).read_text()
    counters = {f"{metrics.PREFIX}.{n}" for n in re.findall(r'_count\("([\w-]+)"', source)}
    others = {f"{metrics.PREFIX}.{n}" for n in re.findall(r'\{PREFIX\}\.([\w-]+)"', source)}
    assert len(counters) > 5
    assert len(others) > 2
    kinds = kinds_of_metrics()
    assert set(kinds) == counters | others
    assert {n for n, kind in kinds.items() if kind == "counter"} == counters


def test_every_state_is_in_the_table_and_whether_it_is_final() -> None:
    documented = {row[0].strip("`| "): row[1] for row in rows(section(OPERATIONS, "States and outcomes"))}
    assert documented == dict.fromkeys(states.OPEN_STATES, "no") | dict.fromkeys(states.FINAL_STATES, "yes")
    readme = section((ROOT / "README.md").read_text(), "Operate it")
    assert all(f"`{state}`" in readme for state in documented)


def test_every_outcome_is_explained() -> None:
    text = section(OPERATIONS, "States and outcomes")
    assert all(f"\n| `{outcome}` |" in text for outcome in (*states.BatchOutcome, *states.ChangeOutcome))


def _sentences() -> list[str]:
    cells = [row[0].strip("| ") for row in rows(section(OPERATIONS, "pull_transfer_events is red"))]
    return [s for cell in cells for s in re.findall(r"`([^`]+)`", cell)]


@functools.cache
def _said() -> str:
    """Every text in the job's code."""
    files = sorted((ROOT / "plugins/ownership").rglob("*.py"))
    return "".join(
        part.value
        for file in files
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.JoinedStr | ast.Constant)
        for part in (node.values if isinstance(node, ast.JoinedStr) else [node])
        if isinstance(part, ast.Constant) and isinstance(part.value, str)
    )


@pytest.mark.parametrize("sentence", _sentences())
def test_a_sentence_of_the_runbook_is_one_that_the_code_says(sentence: str) -> None:
    assert all(piece in _said() for piece in sentence.split("…"))


def _links() -> list[Any]:
    return [
        pytest.param(page, target, id=f"{page.name}:{target}")
        for page in PAGES
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text())
        if "://" not in target
    ]


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"(?m)^#+ (.+)$", page.read_text())
    return {re.sub(r"[^\w\- ]", "", t.lower()).replace(" ", "-") for t in titles}


@pytest.mark.parametrize(("page", "target"), _links())
def test_a_link_leads_somewhere(page: Path, target: str) -> None:
    path, _, anchor = target.partition("#")
    file = page.parent / path if path else page
    assert file.exists()
    if anchor:
        assert anchor in anchors(file)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_every_make_target_that_is_named_exists(page: Path) -> None:
    targets = set(re.findall(r"(?m)^([a-z-]+):.*##", (ROOT / "Makefile").read_text()))
    documented = re.findall(r"(?m)(?:`|^ {4}|make )(?:[A-Z_]+=\S+ )*make ([a-z-]+)", page.read_text())
    assert set(documented) <= targets


def test_files_and_tests_that_the_architecture_names_exist() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    named_files = set(re.findall(r"`((?:[\w/]+/)?\w+\.py)`", text))
    assert len(named_files) > 20
    roots = (
        ROOT,
        ROOT / "plugins/ownership",
        ROOT / "tests/unit",
        ROOT / "tests/integration",
        ROOT / "tests/e2e",
    )
    tests = {p.name for p in (ROOT / "tests").rglob("*.py")}
    assert [f for f in named_files if f not in tests and not any((r / f).is_file() for r in roots)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_every_path_of_the_repository_that_a_page_names_exists(page: Path) -> None:
    folders = "benchmarks|chaos|dags|deploy|docs|local|plugins|tests"
    paths = re.findall(rf"`((?:{folders})/[\w./-]+)`", page.read_text())
    assert [path for path in paths if not (ROOT / path).exists()] == []


def checked(dag: str, conf: dict[str, Any]) -> None:
    """As the DAG's first task would read it."""
    if dag == "ownership_reconcile":
        assert ReconcileConf.of(conf)
        return
    if dag == "ownership_undo":
        assert undo_order(conf).undo
        return
    events = manual_events(conf, run_id="r", at_ms=1_767_225_601_000)
    assert events or any(orders(conf))


def test_the_confs_of_the_manuals_are_valid() -> None:
    found = 0
    for file in sorted((ROOT / "dags").glob("*.py")):
        manual = ast.get_docstring(ast.parse(file.read_text())) or ""
        own = file.stem in ("ownership_undo", "ownership_reconcile")
        dag = file.stem if own else "user_ownership_transfer"
        for line in re.findall(r"(?m)^ {4}(\{.*\})$", manual):
            checked(dag, json.loads(line.replace('"0f2d…"', f'"{"0" * 20}"').replace('["…"]', '["m"]')))
            found += 1
    assert found >= 8


def test_every_command_of_the_pages_that_triggers_a_run_has_a_valid_conf() -> None:
    documented = [
        pair
        for page in PAGES
        for pair in re.findall(
            r"airflow dags trigger (\w+)[ \\\n]+--conf[ \\\n]+'(\{.*?\})'", page.read_text(), re.DOTALL
        )
    ]
    assert len(documented) >= 12
    for dag, conf in documented:
        if ": …" not in conf:
            checked(dag, json.loads(conf.replace("<digest>", "0" * 20)))


def test_the_example_of_the_settings_is_valid() -> None:
    example = re.search(r"(?m)^    (\{.*\})$", section(OPERATIONS, "Settings"))
    assert example
    assert Settings.parse(example[1]).env == "prod"


def test_the_switch_over_has_the_steps_that_are_rehearsed_and_is_short() -> None:
    page = (ROOT / "docs/switch-over.md").read_text()
    played = re.findall(r'self\._step\("(.*)"\)', (ROOT / "local/demo/switch_over.py").read_text())
    assert re.findall(r"(?m)^## (\d\. .*)$", page) == played
    assert len(played) == 6
    assert len(page.splitlines()) <= 150


def test_the_picture_is_text_for_both_themes() -> None:
    from xml.etree import ElementTree as ET

    text = (ROOT / "docs/images/flow.svg").read_text()
    root = ET.fromstring(text)  # noqa: S314  # our own file
    assert root.attrib["role"] == "img"
    assert "prefers-color-scheme: dark" in text
    shown = {"".join(t.itertext()) for t in root.iter("{http://www.w3.org/2000/svg}text")}
    flow = (ROOT / "plugins/ownership/edge/flow.py").read_text()
    tasks = re.findall(r"(?s)@task\(.*?\)[^\n]*\ndef (\w+)\(", flow)
    tasks += re.findall(r'"(\w+)"', re.findall(r"(?m)^LOOKUP, UPDATE, REINDEX = (.*)$", flow)[0])
    assert len(tasks) == 5
    assert set(tasks) < shown
    words = ("event", "inbox", "queue", "claim", "slice", "lookup", "update", "reindex", "proof", "ledger")
    assert [w for w in (*words, "second proof", "dead letter") if not any(w in text for text in shown)] == []


def test_the_example_of_a_dag_counts_each_transfer_once_and_passes_over_an_event_that_was_made_by_hand() -> (
    None
):
    example = runpy.run_path(str(ROOT / "docs/examples/batches_received.py"))
    sent = {"run_id": "r", "moved": 3, "transfers": [{"mid": "m", "to_user": "b", "moved": 3}]}
    events = [SimpleNamespace(extra=extra) for extra in ({"from_rest_api": True}, sent, {}, sent)]
    assert example["received"].function(triggering_asset_events={example["INDEX"]: events}) == {"b": 3}
