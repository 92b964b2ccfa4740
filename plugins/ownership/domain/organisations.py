"""Which organisations' transfers a person may see: rights by role or team of Airflow. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Annotated, Final, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from ownership.domain.event import Identifier

EVERY: Final = "*"
"""Stands for all organisations in a right, and for what has none: rejected messages, reconciliations, totals."""
MAX_RIGHTS: Final = 1000
MAX_ORGANISATIONS: Final = 1000
"""Of one right."""

Name = Annotated[str, StringConstraints(min_length=1, max_length=512)]


class OrganisationRight(BaseModel):
    """Who has a role, or is in a team, may see these organisations' transfers."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    role: Name | None = None
    team: Name | None = None
    organisations: (
        Literal["*"] | Annotated[tuple[Identifier, ...], Field(min_length=1, max_length=MAX_ORGANISATIONS)]
    )

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if (self.role is None) == (self.team is None):
            raise ValueError("give one of role and team")
        return self


OrganisationRights = Annotated[tuple[OrganisationRight, ...], Field(max_length=MAX_RIGHTS)]


class VisibleOrganisations(NamedTuple):
    """The organisations whose transfers a person may see."""

    ids: frozenset[str] | None
    """None: all, and what belongs to none."""

    @property
    def every(self) -> bool:
        """True if nothing is hidden from the person."""
        return self.ids is None

    def has(self, organisation_id: str | None) -> bool:
        """True if the person may see this organisation's transfers. Ids are compared as they are written."""
        return self.ids is None or organisation_id in self.ids


EVERYTHING: Final = VisibleOrganisations(None)
NOTHING: Final = VisibleOrganisations(frozenset())


def visible(
    rights: Iterable[OrganisationRight], roles: Collection[str], is_in_team: Callable[[str], bool]
) -> VisibleOrganisations:
    """What a person with `roles` may see: everything without any right, else what their rights name together."""
    rights = tuple(rights)
    if not rights:
        return EVERYTHING
    found: set[str] = set()
    for right in rights:
        held = right.role in roles if right.role is not None else is_in_team(right.team or "")
        if not held:
            continue
        if right.organisations == EVERY:
            return EVERYTHING
        found.update(right.organisations)
    return VisibleOrganisations(frozenset(found))
