"""The sample world of the demo: a handful of people, their batches, and one organisation beside theirs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from local.platform.world import COMPLETED, ONGOING, UPCOMING, Batch, Platform, User

ORGANISATION: Final = "0126796199493140480"
OTHER_ORGANISATION: Final = "0126796199493149999"

OWNED: Final = 45
MENTORED: Final = 8


@dataclass(frozen=True)
class SampleWorld:
    """The users and the batches they start with. Every user but `outsider` belongs to `organisation`."""

    organisation: str
    other_organisation: str
    owner: User
    """Creates 45 live batches: more than the LMS answers in one page."""
    owner_successor: User
    mentor: User
    """Mentors 8 live batches: 5 of the owner's, 3 of the administrator's."""
    mentor_successor: User
    """Mentors one of these 8 already."""
    chain: tuple[User, User, User]
    """A, B and C for the transfers A→B and B→C; A creates 6 batches, B 2, C none."""
    administrator: User
    """Asks for the transfers and creates the 3 batches that the mentor is a guest in."""
    outsider: User
    """Belongs to the other organisation, creates 2 batches."""
    unknown_user: str
    """An id that no user has."""
    batches: tuple[Batch, ...]

    @property
    def people(self) -> tuple[User, ...]:
        """Everyone, in the order in which a table should show them."""
        return (
            self.owner,
            self.owner_successor,
            self.mentor,
            self.mentor_successor,
            *self.chain,
            self.administrator,
            self.outsider,
        )


def sample_world(platform: Platform) -> SampleWorld:
    """Put the sample world into both stores and describe it.

    Its ids are fixed, so a second call resets every batch.
    """
    owner = _person("a54a", "Old", "owner")
    owner_successor = _person("fa41", "New", "owner")
    mentor = _person("b17a", "Old", "mentor")
    mentor_successor = _person("90fa", "New", "mentor")
    chain = (
        _person("c4e0", "Chain", "A"),
        _person("de5a", "Chain", "B"),
        _person("e15a", "Chain", "C"),
    )
    admin = _person("ad10", "Org", "admin")
    outsider = _person("4a41", "An", "outsider", OTHER_ORGANISATION)
    world = SampleWorld(
        organisation=ORGANISATION,
        other_organisation=OTHER_ORGANISATION,
        owner=owner,
        owner_successor=owner_successor,
        mentor=mentor,
        mentor_successor=mentor_successor,
        chain=chain,
        administrator=admin,
        outsider=outsider,
        unknown_user="00000000-dead-4000-8000-000000000000",
        batches=tuple(_batches(owner, mentor, mentor_successor, chain, admin, outsider)),
    )
    platform.add_users(world.people)
    platform.add_batches(world.batches)
    return world


def _person(letters: str, first: str, last: str, organisation: str = ORGANISATION) -> User:
    # Ids look like the platform's; their first four characters tell people apart in a log.
    user_id = f"{letters}0001-0000-4000-8000-{int(letters, 16):012d}"
    return User(user_id, organisation, f"{first}.{last}".lower(), first, last)


def _batches(
    owner: User, mentor: User, also_mentor: User, chain: tuple[User, User, User], admin: User, outsider: User
) -> Iterator[Batch]:
    for number in range(1, OWNED + 1):
        mentors = [mentor.user_id] if number <= MENTORED - 3 else []
        if number == 1:
            mentors.append(also_mentor.user_id)
        status = UPCOMING if number % 9 == 0 else ONGOING
        # Five courses, so that some rows share a partition, as they do on the platform.
        yield _batch(
            f"do_sample_algebra_{(number - 1) % 5 + 1}", f"owner-{number:02d}", owner, status, mentors
        )
    for number in range(1, 5):
        yield _batch("do_sample_algebra_1", f"owner-done-{number}", owner, COMPLETED, [mentor.user_id])
    for number in range(1, 4):
        yield _batch("do_sample_biology", f"admin-{number}", admin, ONGOING, [mentor.user_id])
    for number in range(1, 7):
        yield _batch("do_sample_history", f"chain-a-{number}", chain[0], ONGOING)
    yield _batch("do_sample_history", "chain-a-done-1", chain[0], COMPLETED)
    for number in range(1, 3):
        yield _batch("do_sample_history", f"chain-b-{number}", chain[1], UPCOMING)
    for number in range(1, 3):
        yield _batch("do_sample_music", f"outsider-{number}", outsider, ONGOING)


def _batch(
    course_id: str, suffix: str, creator: User, status: int, mentors: list[str] | None = None
) -> Batch:
    subject = course_id.removeprefix("do_sample_").split("_")[0].capitalize()
    return Batch(
        course_id,
        f"sample-{suffix}",
        created_by=creator.user_id,
        mentors=mentors,
        status=status,
        name=f"{subject}, {suffix}",
        # The id inside free text must survive a transfer as it is.
        description=f"Started by {creator.first_name} ({creator.user_id})",
        created_for=[creator.organisation],
    )
