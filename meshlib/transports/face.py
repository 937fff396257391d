"""What the hosts that are not on the call engine yet share with it."""

from __future__ import annotations

import itertools

from meshlib.core.failures import Words as Why
from meshlib.core.failures import direct_info

__all__ = ["Why", "direct_info", "next_key"]

next_key = itertools.count(1).__next__
