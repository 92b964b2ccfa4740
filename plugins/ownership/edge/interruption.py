"""SIGTERM as an exception: a task that is told to end lets go of what it holds before it does.

Airflow's own handler calls the operator's ``on_kill`` and lets the task's code go on until SIGKILL, 5 s later
(Airflow 3.3.2, ``task_runner`` and ``supervisor``). Every point of a stage may be cut off, so it may be here.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ownership.domain.errors import Stopped


class Interrupted(BaseException):
    """SIGTERM came. Like KeyboardInterrupt no Exception, so that nothing on the way takes it for an error."""


@contextmanager
def interruptible() -> Iterator[None]:
    """From here on SIGTERM raises `Interrupted` in the main thread, once; what comes after it is ignored.

    :raises Stopped: at the end, where it came: the task is to be tried again.
    """
    before = signal.signal(signal.SIGTERM, _raise)
    try:
        yield
    except Interrupted:
        raise Stopped from None
    finally:
        signal.signal(signal.SIGTERM, before)


def _raise(_: int, __: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Interrupted
