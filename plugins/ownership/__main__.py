"""``python -m ownership``: the command line, see `ownership.cli.commands`."""

from __future__ import annotations

import sys

from ownership.cli.commands import main

if __name__ == "__main__":
    sys.exit(main())
