"""Start a run through Airflow's own API, in the name of the signed-in user."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import httpx
from fastapi import Request

from ownership.page.entry import AIRFLOW


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


def why(answer: httpx.Response) -> str:
    """What Airflow says about a run that it refuses."""
    try:
        return str(answer.json()["detail"])[:500]
    except (ValueError, KeyError, TypeError):
        return f"HTTP {answer.status_code}"
