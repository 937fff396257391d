"""What the site says of itself: which version it is of. Called by mkdocs (see ``hooks`` in mkdocs.yml)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from meshlib import __version__

__all__ = ["on_config"]


def on_config(config: Any) -> Any:
    """The version is in the head of each page and in its title."""
    config["site_name"] = f"{config['site_name']} {__version__}"
    config["copyright"] = f"meshlib {__version__}, Apache-2.0"
    return config
