"""Prints what came of everything that was tried."""

from __future__ import annotations

import pytest

from tests.fuzz.effort import outcomes, table


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if outcomes:
        terminalreporter.section("fuzz: what came of it")
        for line in table():
            terminalreporter.write_line(line)
