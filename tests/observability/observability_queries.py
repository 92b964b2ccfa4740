"""Every query of the rules and of the dashboard."""

from __future__ import annotations

import json
from collections.abc import Iterator

import yaml

from tests.observability.conftest import FOLDER


def queries() -> Iterator[tuple[str, str]]:
    """Where it is, and the query."""
    for group in yaml.safe_load((FOLDER / "rules.yml").read_text())["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]
    for panel in json.loads((FOLDER / "dashboard.json").read_text())["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
