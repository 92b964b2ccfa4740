"""Folders and files. Everything that is made at run time is below `.local` of the checkout."""

from __future__ import annotations

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
STATE = REPOSITORY / ".local"
STACK = STATE / "stack"  # `make up`
DEMO = STATE / "demo"  # `make demo`, which runs beside it
CLUSTER = STATE / "cluster"  # `make cluster`
SWITCH_OVER = STATE / "switch-over"  # `make rehearse-switch-over`
TEST_STACKS = STATE / "tests"  # one directory for each test session
ADDRESSES_FILE = STATE / "addresses.env"
