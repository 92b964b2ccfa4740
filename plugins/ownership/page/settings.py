"""The job's settings, as the page reads them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated

from fastapi import Depends

from ownership.domain.settings import Settings
from ownership.page.airflow_facts import settings_text

READ_AGAIN_S = 10.0
"""The Variable is read again after this."""


class CachedSettings:
    """The settings, read when they are wanted and kept for a moment. Threads may read them twice."""

    def __init__(
        self,
        load: Callable[[], Settings] = lambda: Settings.parse(settings_text()),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._load, self._clock = load, clock
        self._kept: tuple[float, Settings] | None = None

    def __call__(self) -> Settings:
        """The settings.

        :raises SettingsError: naming what is unknown or wrong.
        :raises Unavailable: if the Variable cannot be read.
        """
        kept, now = self._kept, self._clock()
        if kept is None or now - kept[0] > READ_AGAIN_S:
            self._kept = kept = (now, self._load())
        return kept[1]


_SETTINGS = CachedSettings()


def process_settings() -> CachedSettings:
    """Of this process."""
    return _SETTINGS


JobSettings = Annotated[CachedSettings, Depends(process_settings)]
