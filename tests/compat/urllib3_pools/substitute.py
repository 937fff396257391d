"""urllib3's own tests of its pools over those that meshlib's managers make.

``plain``: urllib3 as it is. ``pools``: ours in the place of its own, unconfigured. A pool's inside (its queue, its connections'
numbers) is what these tests look at, and with endpoints that are substituted it is empty: that is for the managers' suite.
"""

from __future__ import annotations

from typing import Any

import urllib3
import urllib3.connectionpool
import urllib3.poolmanager
from compat_kit import MODE
from compat_urllib3_kit import count_calls

from meshlib.mesh import default
from meshlib_requests import pools


def put_pools() -> None:
    for ours, own in (
        (pools.HTTPConnectionPool, urllib3.HTTPConnectionPool),
        (pools.HTTPSConnectionPool, urllib3.HTTPSConnectionPool),
    ):
        cls = pool_of(ours, own)
        for module in (urllib3, urllib3.connectionpool, urllib3.poolmanager):
            setattr(module, own.__name__, cls)
        urllib3.poolmanager.pool_classes_by_scheme[cls.scheme] = cls


def pool_of(ours: Any, own: Any) -> Any:
    """``ours`` with the signature of ``own``."""

    def init(self: Any, host: str, port: int | None = None, *args: Any, **options: Any) -> None:
        own.__init__(self, host, port, *args, **options)
        self.prepare(lambda: default()._runtime(), options)

    return type(own.__name__, (ours,), {"__init__": init, "__module__": own.__module__})


if MODE != "plain":
    count_calls()
    put_pools()
