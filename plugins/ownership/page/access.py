"""Who may see and do what: Airflow's own checks, and rights by organisation (setting `page.organisations`).

Airflow does not authenticate the apps of plugins, so every route here asks for it. Nothing else of the page imports
Airflow, but `airflow_facts` and the entry.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.base_user import BaseUser
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity, DagDetails, TeamDetails
from airflow.api_fastapi.core_api.security import GetUserDep, requires_access_dag
from airflow.configuration import conf
from airflow.models.dag import DagModel
from fastapi import Depends, HTTPException, Request
from fastapi.responses import Response
from fastapi.routing import APIRoute

from ownership.domain.organisations import VisibleOrganisations, visible
from ownership.page.actions import HEALTH_DAG, TRANSFER_DAG, UNDO_DAG
from ownership.page.settings import JobSettings

User = Annotated[BaseUser, GetUserDep.__metadata__[0]]
"""The signed-in user; anonymous requests get a 401."""
MayRead = Depends(requires_access_dag("GET", param_dag_id=TRANSFER_DAG))
"""Read access to the main DAG; requests without it get a 403."""
MayReadHealth = Depends(requires_access_dag("GET", param_dag_id=HEALTH_DAG))
"""The same for the DAG that watches the job."""


class GuardedRoute(APIRoute):
    """A route that reads no body of a request before it knows that the user may read: FastAPI reads it first of all."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's own handler, behind the check of the user."""
        handle = super().get_route_handler()
        overrides = self.dependency_overrides_provider
        check = APIRoute("/", _signed_in, dependencies=[MayRead], dependency_overrides_provider=overrides)
        check_user = check.get_route_handler()

        async def guarded(request: Request) -> Response:
            if request.method != "GET":
                await check_user(request)
                request = self.bounded(request)
            return await handle(request)

        return guarded

    def bounded(self, request: Request) -> Request:
        """The request with a body that may be read; a kind of body that the route does not take is refused."""
        return request


def _signed_in(user: User) -> None:
    """What only a signed-in user gets: nothing."""


def may_start(user: BaseUser) -> frozenset[str]:
    """The DAGs that the user may trigger."""
    manager = get_auth_manager()
    return frozenset(
        dag_id
        for dag_id in (TRANSFER_DAG, UNDO_DAG)
        if manager.is_authorized_dag(
            method="POST",
            access_entity=DagAccessEntity.RUN,
            details=DagDetails(id=dag_id, team_name=DagModel.get_team_name(dag_id)),
            user=user,
        )
    )


def check_start(dag_id: str, request: Request, user: BaseUser) -> None:
    """Answer 403 unless the user may trigger the DAG."""
    requires_access_dag("POST", DagAccessEntity.RUN, param_dag_id=dag_id)(request, user)


def roles_of(user: BaseUser) -> set[str]:
    """Names of the user's roles: the simple auth manager knows one, FAB's several."""
    role, roles = getattr(user, "role", None), getattr(user, "roles", None)
    return {str(role)} if role else {str(r.name) for r in roles or ()}


def is_in_team(user: BaseUser, team: str) -> bool:
    """True if the auth manager counts the user among a team's members."""
    # Without teams, an auth manager may answer for another resource than the team.
    if not conf.getboolean("core", "multi_team", fallback=False):
        return False
    return get_auth_manager().is_authorized_team(method="GET", details=TeamDetails(name=team), user=user)


def visible_organisations(user: User, settings: JobSettings) -> VisibleOrganisations:
    """The organisations whose transfers the signed-in user may see.

    :raises SettingsError: if a setting is wrong.
    :raises Unavailable: if the settings cannot be read.
    """
    return visible(settings().organisation_rights, roles_of(user), lambda team: is_in_team(user, team))


Visible = Annotated[VisibleOrganisations, Depends(visible_organisations)]
"""What the signed-in user may see. Every read of the ledger takes it."""


def _sees_everything(seen: Visible) -> None:
    if not seen.every:
        raise HTTPException(404, "There is nothing here.")


SeesEverything = Depends(_sees_everything)
"""For what belongs to no organisation: a user from whom anything is hidden gets a 404."""
