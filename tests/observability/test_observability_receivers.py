"""Airflow's own client sends, real programs receive: names, types and figures, and an alert in a real Prometheus."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml

from local.servers.layout import Layout
from local.servers.ports import HOST
from local.servers.processes import await_condition
from tests.needs import needed
from tests.observability.conftest import (
    COUNTERS,
    FOLDER,
    GAUGES,
    SENDS,
    TIMERS,
    Starts,
    fetched,
    metrics_of,
    part,
    sent,
)
from tests.observability.observability_queries import queries

TOUCHES = SENDS.partition("metrics.pulled")[0] + "metrics.queue(QueueFacts(open=3, overdue=('late',)), 0)\n"
BUCKETS = re.search(r"buckets: (\[.*\])", (FOLDER / "statsd-mapping.yml").read_text())


def exporter(starts: Starts, layout: Layout, mapping: Path = FOLDER / "statsd-mapping.yml") -> str:
    """A StatsD exporter with a mapping; the URL of its metrics."""
    web = layout.url("web")
    starts(
        "statsd_exporter",
        f"--statsd.mapping-config={mapping}",
        f"--statsd.listen-udp={HOST}:{layout.port('statsd')}",
        "--statsd.listen-tcp=",
        f"--web.listen-address={web.removeprefix('http://')}",
        health=f"{web}/-/healthy",
    )
    return f"{web}/metrics"


def send_statsd(layout: Layout, tmp_path: Path, script: str = SENDS) -> None:
    sent(
        home=tmp_path,
        script=script,
        AIRFLOW__METRICS__STATSD_ON="True",
        AIRFLOW__METRICS__STATSD_HOST=HOST,
        AIRFLOW__METRICS__STATSD_PORT=str(layout.port("statsd")),
    )


def ours(values: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in values.items() if name.startswith(("ownership_", "airflow_"))}


def await_all(url: str, last: str, value: float) -> tuple[dict[str, float], dict[str, str]]:
    """What a receiver shows as soon as the last thing that was sent has come."""
    await_condition(
        lambda: metrics_of(fetched(url))[0].get(last) == value, timeout_s=20, what=f"{last} to be {value}"
    )
    return metrics_of(fetched(url))


LAST = part('airflow_dagrun_duration_seconds{dag_id="user_ownership_transfer",state="success"}', "_count")


def test_statsd_arrives_under_the_names_of_prometheus_and_two_processes_add_up(
    starts: Starts, layout: Layout, tmp_path: Path
) -> None:
    url = exporter(starts, layout)
    send_statsd(layout, tmp_path)
    send_statsd(layout, tmp_path)
    values, types = await_all(url, LAST, 2)
    assert BUCKETS
    buckets = [*json.loads(BUCKETS[1]), "+Inf"]
    histograms = {
        part(name, "_bucket").rstrip("}") + ("," if "{" in name else "{") + f'le="{le}"}}': 2.0
        * (float(le) >= total)
        for name, (total, _) in TIMERS.items()
        for le in buckets
    }
    assert ours(values) == {
        **{name: 2 * value for name, value in COUNTERS.items()},
        **GAUGES,
        **{part(name, "_sum"): 2 * total for name, (total, _) in TIMERS.items()},
        **{part(name, "_count"): 2 * count for name, (_, count) in TIMERS.items()},
        **histograms,
    }
    check_types(types)
    assert values["statsd_exporter_events_unmapped_total"] == 0


def check_types(types: dict[str, str]) -> None:
    expected: dict[str, Iterable[str]] = {"counter": COUNTERS, "gauge": GAUGES, "histogram": TIMERS}
    for kind, names in expected.items():
        assert {types[name.partition("{")[0]] for name in names} == {kind}


def test_a_gauge_of_the_watcher_is_gone_when_it_is_sent_no_longer(
    starts: Starts, layout: Layout, tmp_path: Path
) -> None:
    text = (FOLDER / "statsd-mapping.yml").read_text()
    mapping = tmp_path / "mapping.yml"
    mapping.write_text(text.replace("ttl: 1m", "ttl: 1s"))
    url = exporter(starts, layout, mapping)
    send_statsd(layout, tmp_path)
    stay = {
        "ownership_health_problems",
        "ownership_reconcile_differences_left",
        "ownership_proven_in_time_share",
        "ownership_due_events",
    }
    await_condition(
        lambda: set(GAUGES) & set(ours(metrics_of(fetched(url))[0])) == stay,
        timeout_s=20,
        what="every gauge of the watcher to go and the others to stay",
    )
    left = ours(metrics_of(fetched(url))[0])
    assert set(COUNTERS) <= set(left)


def collector(starts: Starts, layout: Layout, configuration: Path = FOLDER / "collector.yml") -> str:
    """An OpenTelemetry collector; the URL of its metrics."""
    web = layout.url("web")
    starts(
        "otelcol",
        f"--config={configuration}",
        health=f"{web}/metrics",
        OTLP_ENDPOINT=f"{HOST}:{layout.port('otlp')}",
        PROMETHEUS_ENDPOINT=web.removeprefix("http://"),
    )
    return f"{web}/metrics"


def send_otel(layout: Layout, tmp_path: Path, script: str = SENDS) -> None:
    sent(
        home=tmp_path,
        script=script,
        AIRFLOW__METRICS__OTEL_ON="True",
        OTEL_EXPORTER_OTLP_ENDPOINT=layout.url("otlp"),
        OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE="delta",
    )


def test_opentelemetry_arrives_under_the_same_names_and_two_processes_add_up(
    starts: Starts, layout: Layout, tmp_path: Path
) -> None:
    url = collector(starts, layout)
    send_otel(layout, tmp_path)
    # The same by Airflow's own settings, which are deprecated.
    sent(
        home=tmp_path,
        AIRFLOW__METRICS__OTEL_ON="True",
        AIRFLOW__METRICS__OTEL_HOST=HOST,
        AIRFLOW__METRICS__OTEL_PORT=str(layout.port("otlp")),
        OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE="delta",
    )
    values, types = await_all(url, LAST, 2)
    assert {name: values[name] for name in COUNTERS} == {name: 2 * value for name, value in COUNTERS.items()}
    assert {name: values[name] for name in GAUGES} == GAUGES
    sums = {part(name, "_sum"): 2 * total for name, (total, _) in TIMERS.items()}
    assert {name: values[name] for name in sums} == pytest.approx(sums)
    counts = {part(name, "_count"): 2 * count for name, (_, count) in TIMERS.items()}
    assert {name: values[name] for name in counts} == counts
    # No buckets but the last: the docs say that quantiles need StatsD.
    assert {re.sub(r'.*le="(.*)".*', r"\1", name) for name in values if "_bucket" in name} == {"+Inf"}
    check_types(types)


def test_a_gauge_by_opentelemetry_is_gone_after_its_process_and_a_counter_comes_back_with_its_value(
    starts: Starts, layout: Layout, tmp_path: Path
) -> None:
    text = (FOLDER / "collector.yml").read_text()
    sooner = tmp_path / "collector.yml"
    sooner.write_text(text.replace("metric_expiration: 3m", "metric_expiration: 1s"))
    url = collector(starts, layout, sooner)
    counter = "ownership_accepted_events_total"
    for total in (101, 202):
        await_condition(lambda: "ownership_" not in fetched(url), timeout_s=20, what="everything to go")
        # The process looks at the receiver itself: once it has ended, what it sent may be gone already.
        send_otel(layout, tmp_path, SENDS + LOOKS.format(url=url, counter=f"{counter} {total}"))


LOOKS = """
from opentelemetry import metrics
from urllib.request import urlopen
metrics.get_meter_provider().force_flush()
text = urlopen({url!r}).read().decode()
assert {counter!r} in text, text
assert "ownership_open_events 129" in text, text
"""


# --- rules and queries ------------------------------------------------------------------------------------


def promtool(*arguments: str | Path, folder: Path = FOLDER) -> subprocess.CompletedProcess[str]:
    command = (needed("promtool"), *map(str, arguments))
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=60)


def test_prometheus_accepts_its_configuration_and_the_rules() -> None:
    done = promtool("check", "config", "prometheus.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_fires_when_it_should_and_only_then() -> None:
    done = promtool("test", "rules", "rules_test.yml")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("alert", "right", "wrong"),
    [
        pytest.param(
            "OwnershipEventOverdue",
            "ownership_overdue_events > 0",
            "ownership_overdue_events > 5",
            id="never fires",
        ),
        pytest.param(
            "OwnershipBacklogOld",
            "ownership_backlog_age_seconds > 600",
            "ownership_backlog_age_seconds >= 0",
            id="always fires",
        ),
        pytest.param(
            "OwnershipMessagesRejected",
            "unless ownership_rejected_messages_total",
            "and ownership_rejected_messages_total",
            id="first",
        ),
    ],
)
def test_a_rule_that_is_changed_is_noticed_by_the_tests_of_its_alert(
    alert: str, right: str, wrong: str, tmp_path: Path
) -> None:
    text = (FOLDER / "rules.yml").read_text()
    whole = yaml.safe_load((FOLDER / "rules_test.yml").read_text())
    own = [test for test in whole["tests"] if {alert} == {a["alertname"] for a in test["alert_rule_test"]}]
    (tmp_path / "rules_test.yml").write_text(json.dumps({**whole, "tests": own}))
    codes = []
    for rules in (text, text.replace(right, wrong)):
        (tmp_path / "rules.yml").write_text(rules)
        codes.append(promtool("test", "rules", "rules_test.yml", folder=tmp_path).returncode)
    assert codes == [0, 1]


def test_every_query_of_rules_and_dashboard_can_be_read(tmp_path: Path) -> None:
    recorded = [
        {"record": f"query:{n}", "expr": query.replace("$__rate_interval", "1m")}
        for n, (_, query) in enumerate(queries())
    ]
    (tmp_path / "queries.yml").write_text(json.dumps({"groups": [{"name": "queries", "rules": recorded}]}))
    done = promtool("check", "rules", "queries.yml", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(recorded)} rules found" in done.stdout


def alerts(url: str) -> dict[str, str]:
    """The state of each alert that is not inactive, by name."""
    alerts: list[dict[str, Any]] = json.loads(fetched(f"{url}/api/v1/alerts"))["data"]["alerts"]
    return {alert["labels"]["alertname"]: alert["state"] for alert in alerts}


def test_a_real_prometheus_alerts_of_a_silent_watcher_and_then_of_an_overdue_event(
    starts: Starts, layout: Layout, tmp_path: Path
) -> None:
    target = exporter(starts, layout).removeprefix("http://").removesuffix("/metrics")
    faster = (
        (FOLDER / "prometheus.yml")
        .read_text()
        .replace("statsd-exporter:9102", target)
        .replace(": 15s", ": 1s")
    )
    (tmp_path / "prometheus.yml").write_text(faster)
    sooner = re.sub(r"for: (5|2)m", "for: 1s", (FOLDER / "rules.yml").read_text())
    (tmp_path / "rules.yml").write_text(sooner)
    url = layout.url("prometheus")
    starts(
        "prometheus",
        f"--config.file={tmp_path / 'prometheus.yml'}",
        f"--storage.tsdb.path={tmp_path / 'data'}",
        f"--web.listen-address={url.removeprefix('http://')}",
        health=f"{url}/-/ready",
    )
    silent = {"OwnershipWatcherSilent": "firing"}
    await_condition(lambda: alerts(url) == silent, timeout_s=30, what="the alert of a silent watcher")
    send_statsd(layout, tmp_path, TOUCHES)
    overdue = {"OwnershipEventOverdue": "firing"}
    await_condition(lambda: alerts(url) == overdue, timeout_s=30, what="the alert of an overdue event")
