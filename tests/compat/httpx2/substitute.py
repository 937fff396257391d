"""httpx's own tests over httpx2 and meshlib: its releases have no tests in them, and it says itself how it stands in for httpx.

The modes are in ``compat_httpx_kit``.
"""

from __future__ import annotations

import httpx2
import httpx2._client

httpx2.alias_httpx()
httpx2._client.USER_AGENT = f"python-httpx/{httpx2.__version__}"  # as the tests spell it

from compat_httpx_kit import put_in_place  # noqa: E402 - what it imports by httpx's name is httpx2 now

put_in_place()
