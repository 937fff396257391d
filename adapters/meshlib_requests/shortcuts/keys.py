"""The keys of a manager's pools, made again only when the manager's settings changed.

urllib3 makes a key of all settings for each call, and looks for the pool with it: half of what its manager does. Here the key
of a host is kept as long as the settings are the same; where one of them can change in itself, or a derived manager looks for
pools in its own way, urllib3 makes it each time.
"""

from __future__ import annotations

from typing import Any

from urllib3 import PoolManager
from urllib3.connectionpool import port_by_scheme

__all__ = ["Keys"]

#: Hosts whose keys are kept.
_MOST = 256
_CHANGEABLE = (bytearray, dict, list, set)
#: What urllib3's manager goes by from a host to a pool.
_STEPS = ("connection_from_context", "connection_from_pool_key", "_merge_pool_kwargs")


class _Kept:
    """Keys for one state of the settings. ``made_by``: what makes them, by scheme."""

    __slots__ = ("found", "made_by", "settings", "steady")

    def __init__(self, settings: dict[str, Any], made_by: dict[str, Any]) -> None:
        self.settings = settings
        self.made_by = made_by
        self.found: dict[tuple[Any, Any, Any], Any] = {}
        # A setting that urllib3 warns of is told of each time, too.
        self.steady = "strict" not in settings and not any(
            isinstance(value, _CHANGEABLE) for value in settings.values()
        )


class Keys:
    """Those of one manager. Thread-safe: what is kept is replaced as a whole."""

    __slots__ = ("_kept", "_own")

    def __init__(self, manager: PoolManager) -> None:
        kind = type(manager)
        self._own = all(getattr(kind, step) is getattr(PoolManager, step) for step in _STEPS)
        self._kept = _Kept({}, {})

    def of(self, manager: Any, host: Any, port: Any, scheme: Any) -> Any:
        """The key of the pool that urllib3 would look for; None where it shall make it by itself."""
        if not self._own:
            return None
        kept = self._kept
        if manager.connection_pool_kw != kept.settings or manager.key_fn_by_scheme != kept.made_by:
            kept = self._kept = _Kept(dict(manager.connection_pool_kw), dict(manager.key_fn_by_scheme))
        place = host, port, scheme
        found = kept.found.get(place)
        if found is None and kept.steady and host and scheme in kept.made_by and len(kept.found) < _MOST:
            if port is None:
                port = port_by_scheme.get(scheme, 80)
            found = kept.made_by[scheme]({**kept.settings, "scheme": scheme, "port": port, "host": host})
            kept.found[place] = found
        return found
