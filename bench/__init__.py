"""What meshlib costs beside the bare libraries and beside a sidecar: ``python -m bench``."""

import sys
from pathlib import Path

# In a bare checkout the adapters are not installed.
_ADAPTERS = str(Path(__file__).resolve().parents[1] / "adapters")
if _ADAPTERS not in sys.path:
    sys.path.append(_ADAPTERS)
