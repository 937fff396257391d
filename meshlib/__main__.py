"""``python -m meshlib``."""

from __future__ import annotations

import sys

from meshlib.cli import main

if __name__ == "__main__":
    sys.exit(main())
