"""The libraries that ``meshlib.auto`` and ``meshlib run`` bring into the mesh: a module each.

What replaces a library's function is thin: it imports meshlib's own part for that library when the first call comes, and
passes the call on as it was where the mesh has nothing to do with it.
"""

from __future__ import annotations

from meshlib.patching.active import install, remove

__all__ = ["install", "remove"]
