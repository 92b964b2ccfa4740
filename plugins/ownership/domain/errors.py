"""Every error of the job, as one tree.

::

    OwnershipError
    ├── Permanent            no retry helps until an operator changes something
    │   ├── SettingsError    a setting, connection, table, index or topic is wrong or missing
    │   │   └── MissingConnection    nobody has made this Connection
    │   └── VersionError     DAG, plugin and run are not of one version
    ├── Transient            the same call may succeed later
    │   ├── Unavailable      a store, broker or service did not answer as it should
    │   ├── Incomplete       the proof still finds something after its last round
    │   └── Stopped          the task was stopped; any run may claim its events
    ├── Poison               a message that cannot be read as a transfer
    └── TakenOver            another run holds the event now; this one ends quietly
"""

from __future__ import annotations

from ownership.domain.text import one_line


class OwnershipError(Exception):
    """Root of the tree. Its text is one line."""

    def __init__(self, text: object = "") -> None:
        super().__init__(one_line(text))


class Permanent(OwnershipError):
    """A retry cannot help."""


class SettingsError(Permanent):
    """A setting of the operator is wrong; the message says what to set where."""


class MissingConnection(SettingsError):
    """There is no such Connection, which is no fault where a feature is optional."""


class VersionError(Permanent):
    """Two versions of the job meet that do not fit; the message says which is older."""


class Transient(OwnershipError):
    """A later try of the same thing may succeed."""


class Unavailable(Transient):
    """A store, the broker or a service is out of reach or answers out of contract."""

    def __init__(self, part: str, reason: object) -> None:
        self.part = part
        self.reason = one_line(reason)
        super().__init__(f"{part} unavailable: {reason}")


class Incomplete(Transient):
    """The proof failed after its last round: batches still name the old user."""


class Stopped(Transient):
    """The task got SIGTERM: an operator cleared or ended its run, or its worker shuts down."""

    def __init__(self) -> None:
        super().__init__("the task was stopped (SIGTERM); the next run may claim its events")


class Poison(OwnershipError):
    """A message that is no transfer event; it is rejected with this reason."""


class TakenOver(OwnershipError):
    """The claim is no longer this run's."""
