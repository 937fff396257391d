"""responses' own tests over meshlib_requests.

``plain``: requests as it is. ``session``: our Session, as a program makes it. ``adapter``: our adapter, too, where requests has its
own, as with ``import meshlib_requests as requests``. ``mesh``: the same, with the endpoints substituted.
"""

from __future__ import annotations

from compat_kit import MODE

if MODE != "plain":
    from compat_requests_kit import put_in_place

    put_in_place(substituted=MODE == "mesh", adapters=MODE != "session")
