"""What can be said of `deploy/observability` without a program: each file names what the others do, and the docs."""

from __future__ import annotations

import inspect
import json
import re
from typing import Any

import pytest
import yaml

from local.paths import REPOSITORY
from local.tools import programs
from ownership.domain import states
from ownership.domain.compare import LABELS
from ownership.edge import metrics
from tests.observability.conftest import COUNTERS, FOLDER, GAUGES, TIMERS
from tests.observability.observability_queries import queries
from tests.unit.repository.test_docs import OPERATIONS, anchors, kinds_of_metrics, rows, section

HISTOGRAM = ("_bucket", "_sum", "_count")


def load(name: str) -> Any:
    return yaml.safe_load((FOLDER / name).read_text())


MAPPINGS = [m for m in load("statsd-mapping.yml")["mappings"] if m.get("action") != "drop"]
BY_STATSD = {m["match"]: m for m in MAPPINGS}
NAMES = {m["name"] for m in MAPPINGS}
RULES = [rule for group in load("rules.yml")["groups"] for rule in group["rules"]]
TESTS = load("rules_test.yml")["tests"]


METRICS = kinds_of_metrics()
"""Every metric of the job and its kind, as the table of the docs has them; test_docs holds that to the code."""


def test_every_metric_of_the_job_is_mapped_and_none_that_it_has_not() -> None:
    ours = {match for match in BY_STATSD if match.startswith("airflow.ownership.")}
    assert len(METRICS) > 30
    assert ours == {f"airflow.{name}" for name in METRICS}


@pytest.mark.parametrize("metric", METRICS)
def test_a_name_says_what_kind_it_is(metric: str) -> None:
    name, kind = BY_STATSD[f"airflow.{metric}"]["name"], METRICS[metric]
    assert re.fullmatch(r"ownership_[a-z_]+", name)
    assert name.endswith("_total") == (kind == "counter")
    assert name.endswith("_seconds") == (kind.startswith("timer") or metric.endswith("-seconds"))


def test_two_metrics_are_never_one_series() -> None:
    series = [(m["name"], tuple(sorted(m.get("labels", {}).items()))) for m in MAPPINGS]
    assert len(set(series)) == len(series)
    labels: dict[str, set[frozenset[str]]] = {}
    for m in MAPPINGS:
        labels.setdefault(m["name"], set()).add(frozenset(m.get("labels", {})))
    assert all(len(names) == 1 for names in labels.values())


def test_the_gauges_of_the_watcher_end_with_it_and_no_others_do() -> None:
    source = "".join(inspect.getsource(f) for f in (metrics.backlog, metrics.queue))
    watched = {f"airflow.ownership.{name}" for name in re.findall(r"\{PREFIX\}\.([\w-]+)", source)}
    assert len(watched) > 5
    assert {m["match"] for m in MAPPINGS if "ttl" in m} == watched


def test_labels_are_the_job_s_own_words() -> None:
    outcomes = {m["labels"]["outcome"] for m in MAPPINGS if "outcome" in m.get("labels", {})}
    assert outcomes <= {*states.OPEN_STATES, *states.FINAL_STATES}
    assert {m["labels"]["kind"] for m in MAPPINGS if "kind" in m.get("labels", {})} == set(LABELS)


def test_what_the_tests_send_is_all_that_is_mapped() -> None:
    assert {name.partition("{")[0] for name in (*COUNTERS, *GAUGES, *TIMERS)} == NAMES


def test_the_histogram_goes_from_a_second_to_an_hour() -> None:
    defaults = load("statsd-mapping.yml")["defaults"]
    buckets = defaults["histogram_options"]["buckets"]
    assert defaults["observer_type"] == "histogram"
    assert (buckets[0], buckets[-1]) == (1, 3600)
    assert buckets == sorted(set(buckets))


def as_transform(mapping: dict[str, Any]) -> dict[str, Any]:
    """The collector's words for what a mapping says."""
    timer = mapping["name"] in {name.partition("{")[0] for name in TIMERS}
    operations = [
        {"action": "add_label", "new_label": name, "new_value": value}
        for name, value in mapping.get("labels", {}).items()
    ] + [{"action": "experimental_scale_value", "experimental_scale": 0.001}] * timer
    found = {"include": mapping["match"], "action": "update", "new_name": mapping["name"]}
    return {**found, "operations": operations} if operations else found


def test_the_collector_makes_the_same_names() -> None:
    found = load("collector.yml")["processors"]["metrics_transform"]["transforms"]
    assert found == [as_transform(m) for m in MAPPINGS]


def test_the_collector_that_is_built_has_what_the_configuration_uses() -> None:
    configuration = load("collector.yml")
    built = {kind: "".join(modules).replace("_", "") for kind, modules in programs.COMPONENTS.items()}
    for kind in ("receivers", "processors", "exporters"):
        assert [n for n in configuration[kind] if n.replace("_", "") not in built[kind]] == []
        assert len(configuration[kind]) == len(programs.COMPONENTS[kind])


def _named() -> list[Any]:
    return [
        pytest.param(name, id=f"{where}:{name}")
        for where, query in queries()
        for name in sorted(set(re.findall(r"\b(?:ownership|airflow)_\w+", re.sub(r'"[^"]*"', "", query))))
    ]


@pytest.mark.parametrize("name", _named())
def test_a_metric_of_a_rule_or_a_panel_is_one_that_the_mapping_makes(name: str) -> None:
    histograms = {name.partition("{")[0] for name in TIMERS}
    of_histograms = {histogram + suffix for histogram in histograms for suffix in HISTOGRAM}
    assert name in (NAMES - histograms) | of_histograms


def test_the_dashboard_s_panels_have_titles_and_do_not_overlap() -> None:
    panels = json.loads((FOLDER / "dashboard.json").read_text())["panels"]
    assert all(panel["title"] and panel["description"] for panel in panels)
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) == 23


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_says_what_is_wrong_how_bad_it_is_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"] in ({"severity": "critical"}, {"severity": "warning"})
    assert set(rule["annotations"]) == {"summary", "runbook"}
    assert rule["annotations"]["summary"].endswith(".")
    page, _, anchor = rule["annotations"]["runbook"].partition("#")
    assert anchor in anchors(REPOSITORY / page)


@pytest.mark.parametrize("alert", [rule["alert"] for rule in RULES])
def test_an_alert_is_shown_to_fire_and_not_to_fire(alert: str) -> None:
    looks = [look for t in TESTS for look in t["alert_rule_test"] if look["alertname"] == alert]
    assert {bool(look["exp_alerts"]) for look in looks} == {True, False}


def test_every_alert_is_in_the_docs_with_its_runbook() -> None:
    found = {
        row[0].strip("`| "): (row[1], row[-1]) for row in rows(section(OPERATIONS, "Dashboards and alerts"))
    }
    assert list(found) == [rule["alert"] for rule in RULES]
    for rule in RULES:
        severity, runbook = found[rule["alert"]]
        assert severity == rule["labels"]["severity"]
        assert f"(#{rule['annotations']['runbook'].partition('#')[2]})" in runbook
