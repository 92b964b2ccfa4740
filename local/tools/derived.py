"""Writes the files of `deploy/` that say what another one says: ``python -m local.tools.derived``.

Grafana's alerts are made of Prometheus' rules, and the values for the exporter of Airflow's chart of the StatsD mapping.
A test holds them equal.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from local.paths import REPOSITORY

DEPLOY: Final = REPOSITORY / "deploy"
DATASOURCE: Final = "prometheus"
"""Uid of the source of the figures, as the dashboard names it."""
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def grafana_alerts(rules: Mapping[str, Any]) -> dict[str, Any]:
    """Prometheus' rule groups in the form in which Grafana provisions alerts.

    A rule's expression yields a number where the alert fires, also zero (a share), and nothing elsewhere.
    """
    return {
        "apiVersion": 1,
        "groups": [
            {
                "orgId": 1,
                "name": group["name"],
                "folder": "Ownership transfers",
                "interval": "1m",
                "rules": [_grafana_rule(rule) for rule in group["rules"]],
            }
            for group in rules["groups"]
        ],
    }


def _grafana_rule(rule: Mapping[str, Any]) -> dict[str, Any]:
    title = rule["alert"]
    return {
        "uid": re.sub(r"(?<=[a-z])(?=[A-Z])", "-", title).lower(),
        "title": title,
        "condition": "fires",
        "data": [
            {
                "refId": "query",
                "datasourceUid": DATASOURCE,
                "relativeTimeRange": {"from": 600, "to": 0},
                "model": {"refId": "query", "expr": rule["expr"], "instant": True},
            },
            {
                "refId": "fires",
                "datasourceUid": "__expr__",
                "model": {
                    "refId": "fires",
                    "type": "threshold",
                    "expression": "query",
                    "conditions": [{"evaluator": {"type": "gt", "params": [-1]}}],
                },
            },
        ],
        "for": rule.get("for", "0s"),
        "noDataState": "OK",
        "execErrState": "Error",
        "labels": rule["labels"],
        "annotations": {
            name: text.replace("$value", "$values.query.Value") for name, text in rule["annotations"].items()
        },
    }


def exporter_values(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """The StatsD mapping as values of Airflow's chart, which takes mappings and no defaults."""
    return {"statsd": {"overrideMappings": list(_mappings(mapping))}}


def _mappings(mapping: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for entry in mapping["mappings"]:
        timer = entry["name"].endswith("_seconds") and "ttl" not in entry
        yield {**entry, **(copy.deepcopy(mapping["defaults"]) if timer else {})}


MADE: Final[Mapping[Path, tuple[Path, Callable[[Mapping[str, Any]], dict[str, Any]]]]] = {
    DEPLOY / "observability/grafana/alerts.yml": (DEPLOY / "observability/rules.yml", grafana_alerts),
    DEPLOY / "helm/statsd.yaml": (DEPLOY / "observability/statsd-mapping.yml", exporter_values),
}
"""Each file that is made, what it is made of, and how."""


def text(made: Path) -> str:
    """What a made file is to hold."""
    source, make = MADE[made]
    content = yaml.safe_dump(make(yaml.safe_load(source.read_text())), sort_keys=False, width=120)
    return f"# Made of {source.relative_to(REPOSITORY)} by `python -m local.tools.derived`: change that.\n{content}"


def main() -> None:
    """Write them all."""
    for made in MADE:
        made.write_text(text(made))
        print(f"wrote {made.relative_to(REPOSITORY)}")


if __name__ == "__main__":
    main()
