"""Another commit of the job beside this one, as during a rolling upgrade: a second scheduler whose tasks run its code."""

from __future__ import annotations

import subprocess
from pathlib import Path

import psycopg

from local.paths import REPOSITORY
from local.servers import airflow
from local.servers.airflow import Part
from local.stack import Stack

BESIDE = "scheduler-beside"


def start_beside(stack: Stack, revision: str) -> None:
    """Start a scheduler with the code of `revision` in a stack that has Airflow. Each task is run by one of the two.

    Raises subprocess.CalledProcessError if Git has no such revision.
    """
    code = checked_out(revision, stack.directory / "beside")
    port = stack.layout.port(BESIDE)
    plugins = code / "plugins"
    inside = stack.airflow_env["PYTHONPATH"].partition(":")[2]
    settings = {
        "PYTHONPATH": f"{plugins}:{inside}",
        "AIRFLOW__CORE__DAGS_FOLDER": str(code / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(plugins),
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(port),
    }
    environment = airflow.own_environment(stack.airflow_env)
    server = airflow.component(stack.layout, environment, Part(BESIDE, ("scheduler",), BESIDE, settings))
    stack.servers[BESIDE] = server
    server.start()
    server.wait_ready()


def tasks_by_scheduler(metadata: str) -> list[int]:
    """How many task instances each scheduler has queued, by SQLAlchemy's URL of Airflow's database."""
    url = metadata.replace("postgresql+psycopg2", "postgresql")
    question = (
        "SELECT count(*) FROM task_instance WHERE queued_by_job_id IS NOT NULL GROUP BY queued_by_job_id"
    )
    with psycopg.connect(url, autocommit=True) as connection:
        return [number for (number,) in connection.execute(question)]


def checked_out(revision: str, directory: Path) -> Path:
    """The job's files of a revision, in `directory`."""
    directory.mkdir()
    archive = subprocess.run(
        ("git", "archive", revision, "plugins", "dags"),
        cwd=REPOSITORY,
        capture_output=True,
        timeout=60,
        check=True,
    )
    subprocess.run(("tar", "-x", "-C", str(directory)), input=archive.stdout, timeout=60, check=True)
    return directory
