"""What the plugins of ``tests/compat`` share: a mesh for each host that is asked for, the count of what was done, and what is not run.

A test's server listens on loopback at a port that nobody knows before. So each ``host:port`` becomes a service when it is first
asked for: a mesh of its own, whose endpoints are the same server under addresses that no URL has.
"""

from __future__ import annotations

import atexit
import json
import os
import threading
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import meshlib

__all__ = ["ALIASES", "COUNTS", "MODE", "configure", "count", "mesh_for"]

MODE = os.environ["MESHLIB_COMPAT"]
#: Kind → calls. ``mesh`` and ``direct`` as ``CallInfo.via``; ``none``: meshlib had no part; ``substituted``: answered, or at least
#: tried, at an address that is not the URL's.
COUNTS: Counter[str] = Counter()
#: Host of a URL → addresses that reach what listens there.
ALIASES = {"127.0.0.1": ("0.0.0.0", "[::ffff:127.0.0.1]"), "localhost": ("0.0.0.0",)}

_meshes: dict[str, meshlib.Mesh] = {}
_lock = threading.Lock()  # guards _meshes, COUNTS


def mesh_for(url: str) -> meshlib.Mesh:
    """The mesh that knows the host of ``url``; the process's default where it cannot have one."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return meshlib.default()
    if host not in ALIASES:
        return meshlib.default()
    port = port or (443 if parts.scheme == "https" else 80)
    name = f"{host}:{port}"
    with _lock:
        if name not in _meshes:
            service = {"endpoints": [f"{alias}:{port}" for alias in ALIASES[host]]}
            _meshes[name] = meshlib.Mesh({"services": {name: service, host: service}})
        return _meshes[name]


def configure(*ports: int) -> None:
    """Make the process's default mesh one that knows these ports on loopback, as a file would."""
    services = {
        f"{host}:{port}": {"endpoints": [f"{alias}:{port}" for alias in aliases]}
        for host, aliases in ALIASES.items()
        for port in ports
    }
    path = Path(os.environ["MESHLIB_COMPAT_COUNTS"]).with_suffix(".mesh.json")
    path.write_text(json.dumps({"services": services}), encoding="utf-8")
    os.environ["MESHLIB_CONFIG"] = str(path)


def count(answer: object) -> None:
    """Count a call by its response, or by the exception that it raised."""
    info = meshlib.call_info(answer)
    with _lock:
        COUNTS["none" if info is None else info.via] += 1
        if info is not None and info.via == "mesh" and info.endpoint.rpartition(":")[0] not in ALIASES:
            COUNTS["substituted"] += 1


def _report() -> None:
    Path(os.environ["MESHLIB_COMPAT_COUNTS"]).write_text(json.dumps(COUNTS), encoding="utf-8")


atexit.register(_report)


def pytest_collection_modifyitems(config: Any, items: list[Any]) -> None:
    """Leave out what the suite says is not run. Raises where there is no such test."""
    unrun = set(json.loads(os.environ["MESHLIB_COMPAT_UNRUN"]))
    missing = unrun - {name for item in items for name in names(item)}
    if missing:
        raise ValueError(f"not to be run, and not there: {sorted(missing)}")
    left = [item for item in items if not unrun.isdisjoint(names(item))]
    items[:] = [item for item in items if item not in left]
    config.hook.pytest_deselected(items=left)


def names(item: Any) -> tuple[str, str]:
    """A test's id, and that of all that differ from it in their parameters."""
    return item.nodeid, item.nodeid.partition("[")[0]
