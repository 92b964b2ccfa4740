"""`python -m local.tools`: what `make tools` runs."""

from __future__ import annotations

import sys

from local.tools.programs import main

if __name__ == "__main__":
    sys.exit(main())
