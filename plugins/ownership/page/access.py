"""Who may see and do what: Airflow's own checks, and a form's token; and what Airflow knows of runs, hosts and settings.

Airflow does not authenticate the apps of plugins, so every route here asks for it. Nothing else of the page imports
Airflow, but its entry.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, NamedTuple

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.base_user import BaseUser
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity, DagDetails, TeamDetails
from airflow.api_fastapi.auth.tokens import get_signing_key
from airflow.api_fastapi.core_api.security import GetUserDep, requires_access_dag
from airflow.configuration import conf, ensure_secrets_loaded
from airflow.models.dag import DagModel
from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.models.taskinstancehistory import TaskInstanceHistory
from airflow.models.variable import Variable
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from fastapi import Depends, HTTPException, Request
from fastapi.responses import Response
from fastapi.routing import APIRoute
from itsdangerous import BadSignature, URLSafeTimedSerializer
from sqlalchemy import func, select, tuple_

from ownership.domain.clock import HOUR_MS, from_ms
from ownership.domain.errors import SettingsError, Unavailable
from ownership.domain.installation import Tries
from ownership.domain.settings import VARIABLE
from ownership.domain.states import EventState
from ownership.page.actions import ACTIONS, HEALTH_DAG, TRANSFER_DAG, UNDO_DAG, Action, ConfirmedAction
from ownership.page.views.links import RunLink, run_href

FORM_LIVES_S = 4 * 3600
"""How long a form that was opened can be sent, in seconds."""

REPORTING = ((TRANSFER_DAG, "pull_transfer_events"), (HEALTH_DAG, "check"))
"""The tasks that report their worker to the ledger, before they can fail for what the worker is not to blame for."""
SUCCEEDED, FAILED = ("success", "skipped"), ("failed", "up_for_retry")
"""States of a try that has ended."""

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


# -- rights and settings -------------------------------------------------------------------------------------


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


def settings_text() -> str | None:
    """The text of the settings' Variable, None if it is set nowhere.

    `Variable.get` takes a failed read for an unset Variable, and rights that are not set let everyone see everything.

    :raises SettingsError: if it cannot be decrypted.
    :raises Unavailable: if it cannot be read.
    """
    for backend in ensure_secrets_loaded():
        try:
            text = backend.get_variable(key=VARIABLE)
        except Exception as e:  # a backend may raise any class
            raise Unavailable(f"Variable '{VARIABLE}'", type(e).__name__) from e
        if text is not None:
            return str(text)
    if _is_stored(VARIABLE):
        raise SettingsError(f"Variable '{VARIABLE}' cannot be decrypted: see [core] fernet_key.")
    return None


def _is_stored(key: str) -> bool:
    with create_session() as session:
        return session.scalar(select(Variable.id).where(Variable.key == key)) is not None


# -- forms ---------------------------------------------------------------------------------------------------


def form_token(user: BaseUser, action: Action, mid: str, digest: str | None, state: str) -> str:
    """A signed token of a form, for this user, action and event.

    It holds the id of the run to start, so that a form that is sent twice starts one run.
    """
    return str(_signer().dumps([str(user.get_id()), action.name, mid, digest, state, new_run_id()]))


def new_run_id() -> str:
    """An id for a run to start, in Airflow's own form."""
    return f"manual__{datetime.now(UTC).isoformat()}_{secrets.token_hex(4)}"


def form_of(token: str, user: BaseUser) -> tuple[ConfirmedAction, EventState]:
    """What a sent form confirms, and the event's state when it was shown.

    Answer 403 for a token that this page did not make, of another user, or too old.
    """
    name, mid, digest, state, run_id = _of_user(token, user, 5)
    return ConfirmedAction(ACTIONS[name], mid, digest, run_id), EventState(state)


def import_token(user: BaseUser, import_id: str) -> str:
    """A signed token of a form about an import, for this user."""
    return str(_signer().dumps([str(user.get_id()), import_id]))


def import_of(token: str, user: BaseUser) -> str:
    """The id of the import that a form is about; answer 403 for a token as `form_of` does."""
    (import_id,) = _of_user(token, user, 1)
    return str(import_id)


def _of_user(token: str, user: BaseUser, count: int) -> list[Any]:
    """The `count` values that a token holds for this user."""
    try:
        found: list[Any] = _signer().loads(token, max_age=FORM_LIVES_S)
        owner, *values = found
    except (BadSignature, ValueError, TypeError):
        owner, values = None, []
    if len(values) != count:
        raise HTTPException(403, "This form is too old, or was not made here. Open it again.")
    if owner != str(user.get_id()):
        raise HTTPException(403, "This form was opened by another user. Open it again.")
    return values


def _signer() -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(get_signing_key("api", "secret_key"), salt="ownership-transfers-page")


# -- what Airflow itself knows -------------------------------------------------------------------------------


def runs_of(
    run_ids: Iterable[str | None], dag_ids: Collection[str] = (TRANSFER_DAG, UNDO_DAG)
) -> dict[str, RunLink]:
    """The runs that Airflow still has, by id."""
    wanted = sorted({r for r in run_ids if r})
    if not wanted:
        return {}
    columns: Any = (DagRun.run_id, DagRun.dag_id, DagRun.state)
    with create_session() as session:
        rows = session.execute(
            select(*columns).where(DagRun.run_id.in_(wanted), DagRun.dag_id.in_(dag_ids))
        ).all()
    # Only an operator can give runs of both DAGs the same id; then the main DAG's is shown.
    rows = sorted(rows, key=lambda r: r.dag_id == TRANSFER_DAG)
    return {
        r.run_id: RunLink(
            r.run_id, r.dag_id, str(getattr(r.state, "value", r.state)), run_href(r.dag_id, r.run_id)
        )
        for r in rows
    }


def is_paused(dag_id: str) -> bool:
    """True if runs of the DAG would wait."""
    with create_session() as session:
        return bool(session.scalar(select(DagModel.is_paused).where(DagModel.dag_id == dag_id)))


def run_conf(dag_id: str, run_id: str) -> dict[str, Any] | None:
    """The conf of a run; None if Airflow has no such run."""
    with create_session() as session:
        row = session.execute(
            select(DagRun.conf).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id)
        ).first()
    return (row[0] or {}) if row else None


class LastLook(NamedTuple):
    """The last look of `ownership_health` that ended."""

    at: datetime
    problems: Mapping[str, Sequence[str]] | None
    """Subjects by kind; None if the look itself did not end well."""
    verdict: str


def last_look() -> LastLook | None:
    """What `ownership_health` found last; None before its first run."""
    ended = (DagRun.dag_id == HEALTH_DAG, DagRun.state.in_(("success", "failed")))
    with create_session() as session:
        run = session.execute(
            select(DagRun.run_id, DagRun.end_date).where(*ended).order_by(DagRun.run_after.desc()).limit(1)
        ).first()
        if run is None:
            return None
        found = session.execute(
            select(XComModel.key, XComModel.value).where(
                XComModel.dag_id == HEALTH_DAG,
                XComModel.run_id == run.run_id,
                XComModel.task_id == "check",
                XComModel.key.in_(("known", "verdict")),
            )
        ).all()
    values = {row.key: row.value for row in found}
    return LastLook(run.end_date, values.get("known"), str(values.get("verdict", "")))


def signing_secrets() -> dict[str, str]:
    """What this API server signs with, by option; one that was not set is a random one of this process."""
    found = {"[api] secret_key": get_signing_key("api", "secret_key")}
    if not conf.get("api_auth", "jwt_private_key_path", fallback=None):
        found["[api_auth] jwt_secret"] = get_signing_key("api_auth", "jwt_secret")
    return found


def tries_by_worker(since_ms: int) -> dict[str, Tries]:
    """The tries that ended since then, by the host of the worker, of the tasks that report it to the ledger."""
    counts: Counter[tuple[str, bool]] = Counter()
    with create_session() as session:
        for table in (TaskInstance, TaskInstanceHistory):
            t: Any = table
            rows = session.execute(
                select(t.hostname, t.state, func.count())
                .join(DagRun, (DagRun.dag_id == t.dag_id) & (DagRun.run_id == t.run_id))
                .where(
                    DagRun.run_after > from_ms(since_ms - HOUR_MS),
                    tuple_(t.dag_id, t.task_id).in_(REPORTING),
                    t.end_date > from_ms(since_ms),
                    t.state.in_((*SUCCEEDED, *FAILED)),
                    t.hostname != "",
                )
                .group_by(t.hostname, t.state)
            )
            for hostname, state, n in rows:
                counts[hostname, state in SUCCEEDED] += n
    return {h: Tries(counts[h, True], counts[h, False]) for h in {h for h, _ in counts}}
