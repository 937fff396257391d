"""A pytest plugin: requests' own tests over meshlib_requests. ``MESHLIB_COMPAT`` says how.

``plain``: requests as it is. ``session``: our Session and adapter, unconfigured. ``mesh``: the same, and each host on loopback
is a service of a mesh whose endpoints are the same server under addresses that no URL has: two for httpbin's, one for the
servers of requests' own that answer on a single connection.
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

import requests
import requests.adapters
import requests.sessions

COUNTS: Counter[str] = Counter()
#: Host of a URL → addresses that reach what listens there.
ALIASES = {"127.0.0.1": ("0.0.0.0", "[::ffff:127.0.0.1]"), "localhost": ("0.0.0.0",)}

if os.environ["MESHLIB_COMPAT"] != "plain":
    import meshlib
    import meshlib_requests.sessions
    from meshlib.mesh import default
    from meshlib_requests import MeshAdapter

    class Counting(MeshAdapter):
        """Ours, which counts what was done with its calls."""

        def build_response(self, req: Any, resp: Any) -> Any:
            response = super().build_response(req, resp)
            info = meshlib.call_info(response)
            COUNTS["none" if info is None else info.via] += 1
            if info is not None and info.via == "mesh" and info.endpoint.rpartition(":")[0] not in ALIASES:
                COUNTS["substituted"] += 1
            return response

    class Substituting(Counting):
        """The same, each host on loopback with a mesh of its own, made when it is first asked for."""

        _asked = threading.local()

        def _prepare(self, mesh: Any) -> None:
            super()._prepare(mesh)
            self._runtime = lambda: getattr(self._asked, "mesh", default())._runtime()

        def send(self, request: Any, *args: Any, **options: Any) -> Any:
            self._asked.mesh = _mesh_for(request.url)
            return super().send(request, *args, **options)

    _meshes: dict[str, meshlib.Mesh] = {}
    _lock = threading.Lock()  # guards _meshes

    def _mesh_for(url: str) -> meshlib.Mesh:
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except ValueError:
            return default()
        if host not in ALIASES:
            return default()
        port = port or (443 if parts.scheme == "https" else 80)
        name = f"{host}:{port}"
        with _lock:
            if name not in _meshes:
                service = {"endpoints": [f"{alias}:{port}" for alias in ALIASES[host]]}
                _meshes[name] = meshlib.Mesh({"services": {name: service, host: service}})
            return _meshes[name]

    cls: Any = Substituting if os.environ["MESHLIB_COMPAT"] == "mesh" else Counting
    meshlib_requests.sessions.MeshAdapter = cls  # type: ignore[misc]
    requests.adapters.HTTPAdapter = requests.sessions.HTTPAdapter = cls  # type: ignore[misc]
    requests.Session = requests.sessions.Session = meshlib_requests.sessions.Session  # type: ignore[misc]
    requests.session = requests.sessions.session = meshlib_requests.sessions.session

    def _report() -> None:
        Path(os.environ["MESHLIB_COMPAT_COUNTS"]).write_text(json.dumps(COUNTS), encoding="utf-8")

    atexit.register(_report)
