"""What the process of a task imports; imported in the process that forks it, each is there already (1 to 2 ms each)."""

from __future__ import annotations

import importlib
from contextlib import suppress

import ownership.edge.flow
import ownership.edge.tasks
import ownership.edge.triggers
import ownership.stages.pull  # noqa: F401  # preloaded

for module in (  # what Airflow itself imports late; another version may have other names
    "airflow.dag_processing.bundles.local",
    "airflow.sdk.definitions.asset.metadata",
    "airflow.sdk.execution_time.cache",
    "airflow.sdk.execution_time.task_mapping",
    "airflow.sdk.execution_time.timeout",
    "jinja2.ext",
):
    with suppress(ImportError):
        importlib.import_module(module)
