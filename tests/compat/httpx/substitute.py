"""httpx's own tests over meshlib; the modes are in ``compat_httpx_kit``."""

from __future__ import annotations

from compat_httpx_kit import put_in_place

put_in_place()
