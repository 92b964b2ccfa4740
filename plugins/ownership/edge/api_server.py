"""What Airflow's API server says of Airflow's other parts."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from contextlib import suppress
from typing import NamedTuple

from airflow.sdk.configuration import conf
from pydantic import AliasChoices, AwareDatetime, BaseModel, Field, ValidationError

from ownership.domain.clock import to_ms
from ownership.domain.errors import SettingsError, Unavailable
from ownership.domain.installation import Silent
from ownership.platform.http_service import Endpoint, Service

NAME = "Airflow's API server"
PATH = "api/v2/monitor/health"
REPORT = "ownership-transfers/report"
"""Of the page: that API server then tells the ledger of itself, and of the workers that Airflow's database knows."""


class _Part(BaseModel):
    status: str | None
    heartbeat: AwareDatetime | None = Field(
        None,
        validation_alias=AliasChoices(
            "latest_scheduler_heartbeat", "latest_dag_processor_heartbeat", "latest_triggerer_heartbeat"
        ),
    )


class _Health(BaseModel):
    metadatabase: _Part
    scheduler: _Part
    dag_processor: _Part
    triggerer: _Part


class Heard(NamedTuple):
    """What an API server has heard of Airflow's other parts. Of several of a kind, of the one that it heard last."""

    silent: tuple[Silent, ...]
    heartbeats_ms: Mapping[str, int]
    """The last one by part, epoch ms of that part's clock."""


def heard() -> Heard:
    """What the API server that answers says.

    The API server that is asked is also told to report itself, or health would know it only while people read the page.

    :raises Unavailable: if the API server does not answer.
    :raises SettingsError: if its address is not as it must be.
    """
    endpoint = _endpoint()
    with Service(NAME, lambda: endpoint, tries=2, call_seconds=5.0) as service:
        answer = service.call("GET", PATH)
        with suppress(Unavailable):  # one without the plugin, or with an older one
            service.call("GET", REPORT)
    try:
        found = _Health.model_validate(answer.body)
    except ValidationError:
        raise Unavailable(NAME, f"HTTP {answer.status} without Airflow's health; {endpoint.advice}") from None
    if found.metadatabase.status != "healthy":
        return Heard((Silent("metadatabase"),), {})
    beats = {name: to_ms(part.heartbeat) for name, part in found if part.heartbeat}
    silent = (Silent(name, beats.get(name)) for name, part in found if part.status != "healthy")
    return Heard(tuple(silent), beats)


def _endpoint() -> Endpoint:
    """The API server as tasks reach it: `[api] base_url` may be an address for browsers alone."""
    base_url = conf.get("api", "base_url", fallback="") or "/"
    if base_url.startswith("/"):  # Airflow's own default
        base_url = f"http://localhost:8080{base_url}"
    url = conf.get("core", "execution_api_server_url", fallback="") or base_url
    url = url.rstrip("/").removesuffix("/execution")
    return Endpoint(
        url,
        tls=_trusted() if url.startswith("https:") else None,
        advice=f"is {url}, from [core] execution_api_server_url or [api] base_url, right?",
    )


def _trusted() -> ssl.SSLContext:
    """The authorities by which a task knows the API server."""
    context = ssl.create_default_context()
    for option in ("ssl_ca_file", "ssl_cert"):
        if path := conf.get("api", option, fallback=""):
            try:
                context.load_verify_locations(path)
            except OSError as e:
                raise SettingsError(f"[api] {option}, {path}, cannot be read: {e}") from None
    return context
