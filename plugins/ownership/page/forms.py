"""The token of a form: it is this page's, for this user, and says what the form is about."""

from __future__ import annotations

from typing import Any

from fastapi import HTTPException
from itsdangerous import BadSignature, URLSafeTimedSerializer

from ownership.domain.states import EventState
from ownership.page.access import User
from ownership.page.actions import ACTIONS, Action, ConfirmedAction
from ownership.page.airflow_facts import secret_key
from ownership.page.starting import new_run_id

FORM_LIVES_S = 4 * 3600
"""How long a form that was opened can be sent, in seconds."""


def form_token(user: User, action: Action, mid: str, digest: str | None, state: str) -> str:
    """A signed token of a form, for this user, action and event.

    It holds the id of the run to start, so that a form that is sent twice starts one run.
    """
    return str(_signer().dumps([str(user.get_id()), action.name, mid, digest, state, new_run_id()]))


def form_of(token: str, user: User) -> tuple[ConfirmedAction, EventState]:
    """What a sent form confirms, and the event's state when it was shown.

    Answer 403 for a token that this page did not make, of another user, or too old.
    """
    name, mid, digest, state, run_id = _of_user(token, user, 5)
    return ConfirmedAction(ACTIONS[name], mid, digest, run_id), EventState(state)


def import_token(user: User, import_id: str) -> str:
    """A signed token of a form about an import, for this user."""
    return str(_signer().dumps([str(user.get_id()), import_id]))


def import_of(token: str, user: User) -> str:
    """The id of the import that a form is about; answer 403 for a token as `form_of` does."""
    (import_id,) = _of_user(token, user, 1)
    return str(import_id)


def _of_user(token: str, user: User, count: int) -> list[Any]:
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
    return URLSafeTimedSerializer(secret_key(), salt="ownership-transfers-page")
