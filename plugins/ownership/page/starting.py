"""Start a run through Airflow's own API, in the name of the signed-in user."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import httpx
from fastapi import Request

from ownership.page.api.problems import ProblemError
from ownership.page.entry import AIRFLOW


def new_run_id() -> str:
    """An id for a run to start, in Airflow's own form."""
    return f"manual__{datetime.now(UTC).isoformat()}_{secrets.token_hex(4)}"


async def trigger(request: Request, dag_id: str, run_id: str, conf: dict[str, Any]) -> httpx.Response:
    """Trigger the DAG through Airflow's own API, in this process, with the user's own credentials."""
    passed = ("cookie", "authorization", "referer", "user-agent", "x-forwarded-for")
    headers = {name: value for name, value in request.headers.items() if name in passed}
    transport = httpx.ASGITransport(app=request.scope[AIRFLOW], raise_app_exceptions=False)
    async with httpx.AsyncClient(
        transport=transport, base_url=str(request.base_url.replace(path="/"))
    ) as api:
        return await api.post(
            f"/api/v2/dags/{quote(dag_id, safe='')}/dagRuns",
            json={"dag_run_id": run_id, "logical_date": None, "conf": conf},
            headers=headers,
        )


def refused(answer: httpx.Response) -> ProblemError:
    """The error for a run that Airflow did not start, with Airflow's own words."""
    try:
        why = str(answer.json()["detail"])[:500]
    except (ValueError, KeyError, TypeError):
        why = f"HTTP {answer.status_code}"
    status = answer.status_code if answer.status_code < 500 else 502
    return ProblemError(status, f"Airflow refused the run: {why}", name="airflow")
