"""Versions that meet: DAG files come by git, the plugin by image, a run may be older than the worker of its next task.

What DAG files import stays, so a DAG file of before can be read; a name that the plugin lacks is newer than the plugin.
"""

from __future__ import annotations

from typing import Final, Never

from ownership.domain.errors import VersionError

INTERFACE: Final = 1
"""Of what DAG files expect of the plugin. Raise it, here and in the DAG files, when one of before must not be run."""


def check_interface(of_dag: int) -> None:
    """Verify that a DAG file and the plugin fit.

    :raises VersionError: saying which of the two is older.
    """
    if of_dag > INTERFACE:
        raise VersionError(
            f"The plugin is older than its DAGs (interface {INTERFACE}, theirs is {of_dag}): deploy the image of the "
            "DAGs' commit."
        )
    if of_dag < INTERFACE:
        raise VersionError(
            f"The DAGs are older than the plugin (interface {of_dag}, the plugin's is {INTERFACE}): bring the DAGs to "
            "the image's commit."
        )


def missing(name: str) -> Never:
    """A module's `__getattr__`, for modules that DAG files import from.

    :raises ImportError: saying which side is older, where a DAG file asks for a name that the module lacks.
    """
    if name.startswith("__"):
        raise AttributeError(name)
    raise ImportError(
        f"The plugin is older than its DAGs: it has no '{name}'. Deploy the image of the DAGs' commit."
    )
