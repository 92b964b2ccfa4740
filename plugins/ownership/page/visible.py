"""What of the ledger the user of a request may see, by the setting `page.organisations`."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, HTTPException

from ownership.domain.organisations import VisibleOrganisations, visible
from ownership.page.access import User, is_in_team, roles_of
from ownership.page.settings import JobSettings


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
