"""What all breakers of a process know, as one value: kept by a worker that goes, taken on by the one that comes.

The value is JSON-ready and has no secret: names of clusters, endpoints and routes, and what calls came to. Breakers that have a storage
are not in it: that keeps them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshlib.core.breaker_saved import read, seconds

if TYPE_CHECKING:
    from meshlib.core.breaker_saved import Saved
    from meshlib.runtime.live_route import Key
    from meshlib.runtime.runtime import Runtime

__all__ = ["restore", "saved"]

_VERSION = 1
#: Entries that are taken on; more is no value of ours.
_MOST = 100_000


def saved(runtime: Runtime) -> dict[str, object]:
    """The value."""
    clusters = [
        {"source": source, "cluster": name, "endpoint": endpoint, "knows": knows}
        for (source, name), each in runtime.clusters.saved().items()
        for endpoint, knows in each.items()
    ]
    routes = [{"route": list(key), "knows": knows} for key, knows in runtime.routes.saved().items()]
    return {"version": _VERSION, "at": runtime.clock.wall(), "breakers": [*clusters, *routes]}


def restore(runtime: Runtime, value: object) -> None:
    """Take ``value`` on. Raises ValueError, with the place, for what is none; then nothing was taken on."""
    if not isinstance(value, dict) or value.get("version") != _VERSION:
        raise ValueError(f"breakers: must be what breakers() gave, of version {_VERSION}")
    at, entries = value.get("at"), value.get("breakers")
    if not isinstance(entries, list) or len(entries) > _MOST:
        raise ValueError(f"breakers.breakers: must be a list of at most {_MOST}")
    if isinstance(at, bool) or not isinstance(at, int | float):
        raise ValueError("breakers.at: must be seconds")  # noqa: TRY004 - of whatever type: a wrong value
    # A clock that was set back meanwhile makes it no older.
    wall = runtime.clock.wall()
    began = runtime.clock.now() - seconds(wall - min(at, wall), "breakers.at")
    clusters: dict[tuple[str, str], dict[str, Saved]] = {}
    routes: dict[Key, Saved] = {}
    for index, entry in enumerate(entries):
        place = f"breakers.breakers[{index}]"
        if not isinstance(entry, dict):
            raise ValueError(f"{place}: must be a mapping")  # noqa: TRY004 - as above
        known = read(entry.get("knows"), f"{place}.knows", began)
        if "route" in entry:
            source, config, host, route = _names(entry["route"], 4, f"{place}.route")
            routes[source, config, host, route] = known
        else:
            given = [entry.get(name) for name in ("source", "cluster", "endpoint")]
            source, cluster, endpoint = _names(given, 3, place)
            clusters.setdefault((source, cluster), {})[endpoint] = known
    runtime.clusters.restore(clusters)
    runtime.routes.restore(routes)


def _names(given: object, count: int, place: str) -> list[str]:
    if not isinstance(given, list) or len(given) != count or not all(isinstance(each, str) for each in given):
        raise ValueError(f"{place}: must have {count} names")
    return given
