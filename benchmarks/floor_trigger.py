"""The watcher of the floor's DAG: polls a file, at the interval of the job's watcher."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from airflow.triggers.base import BaseEventTrigger, TriggerEvent

from benchmarks import FOLDER, SIGNAL

POLL_SECONDS = 0.5
"""Equal to `ownership.edge.triggers.POLL_SECONDS`."""


class SignalTrigger(BaseEventTrigger):
    """Fires when the content of the signal file changes."""

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Class path and arguments (none)."""
        return "benchmarks.floor_trigger.SignalTrigger", {}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll, fire, sleep."""
        file = Path(os.environ[FOLDER]) / SIGNAL
        seen = _text(file)
        while True:
            now = _text(file)
            if now != seen:
                seen = now
                yield TriggerEvent({"signal": now})
            await asyncio.sleep(POLL_SECONDS)


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except FileNotFoundError:
        return ""
