"""Programs that are no Python packages, and what a test does without one."""

from __future__ import annotations

import os

import pytest

from local.tools import programs


def needed(name: str) -> str:
    """The path of a program of `make tools`.

    Without it the test is skipped, and says why. In CI it fails, unless `make tools` has said why it cannot be installed.
    """
    found = programs.found(name)
    if found is not None:
        return str(found)
    why = programs.why_missing(name)
    if why is None and os.environ.get("CI"):
        pytest.fail(f"there is no {name}: run `make tools` first, which brings it or says why it cannot")
    pytest.skip(
        f"there is no {name}; `make tools` brings it" + (f" where it can, and here: {why}" if why else "")
    )
