"""When a row and its document differ, and whether a transfer under way explains it. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Final

from ownership.domain.event import folded
from ownership.domain.plan import Document, Row

STALE_OWNER: Final = "stale_owner"
STALE_MENTORS: Final = "stale_mentors"
MISSING: Final = "missing_document"
ORPHAN: Final = "orphan_document"
UNPROVEN: Final = "unproven"
UNMOVED: Final = "unmoved"
LABELS: Final = {
    STALE_OWNER: "stale owner",
    STALE_MENTORS: "stale mentors",
    MISSING: "missing document",
    ORPHAN: "orphan document",
    UNPROVEN: "moved, not proven",
    UNMOVED: "left by a completed transfer",
}
"""Kinds of difference, for people; a document may be stale in both ways."""


def differences(row: Row, document: Document | None) -> tuple[str, ...]:
    """How a document differs from its row, in the fields that a transfer may change.

    A document of another course under the batch's id is not the row's: the row's own is missing. One that names
    no course is taken for the row's; the scan of the index reports it.
    """
    if document is None or is_of_another_course(row, document):
        return (MISSING,)
    creator = (STALE_OWNER,) if document.created_by != row.created_by else ()
    mentors = (STALE_MENTORS,) if document.mentors != row.mentors else ()
    return (*creator, *mentors)


def least_alike(row: Row, documents: Sequence[Document]) -> Document | None:
    """Of the documents under a batch's name, the one that differs most from its row; None if there is none.

    Documents of another course count only if there are no others.
    """
    own = own_documents(row, documents) or documents
    return max(own, key=lambda d: len(differences(row, d)), default=None)


def own_documents(row: Row, documents: Iterable[Document]) -> list[Document]:
    """Those of the documents under a batch's name that are the row's: two courses may have a batch of the same id.

    The index has one place for both. A row whose place another course's document takes has none of its own.
    """
    return [d for d in documents if not is_of_another_course(row, d)]


def is_of_another_course(row: Row, document: Document) -> bool:
    """True if the document under the batch's id belongs to a batch of another course."""
    return document.course_id is not None and document.course_id != row.id.course_id


def owners_hash(created_by: object, mentors: object) -> int:
    """A hash of owners, to be compared within one process.

    Null, absent and empty mentors are the same, as in a row; a single mentor may stand without a list.
    """
    listed = () if not mentors else mentors if isinstance(mentors, list | tuple) else (mentors,)
    try:
        return hash((created_by, *listed))
    except TypeError:  # an object stands where a name should
        return 0


def names_any(users: Collection[str], row: Row, document: Document | None) -> bool:
    """True if the row or the document names one of `users` (folded)."""
    named = [*row.named, *((document.created_by, *document.mentors) if document else ())]
    return any(folded(u) in users for u in named if isinstance(u, str))


def is_same_user(value: object, user: str) -> bool:
    """True if a field names the user (folded)."""
    return isinstance(value, str) and folded(value) == user
