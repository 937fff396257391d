"""requests, as programs import it, with meshlib_requests in its place."""

from __future__ import annotations

import threading
from typing import Any

import requests
import requests.adapters
import requests.sessions
from compat_kit import COUNTS, count, mesh_for

import meshlib
import meshlib_requests.sessions
from meshlib.mesh import default
from meshlib_requests import MeshAdapter

__all__ = ["put_in_place"]


class Counting(MeshAdapter):
    """Ours, which counts what was done with its calls."""

    def send(self, request: Any, *args: Any, **options: Any) -> Any:
        try:
            return super().send(request, *args, **options)
        except requests.RequestException as error:
            if meshlib.call_info(error) is not None:
                count(error)
            raise

    def build_response(self, req: Any, resp: Any) -> Any:
        response = super().build_response(req, resp)
        count(response)
        return response


class Substituting(Counting):
    """The same, each host on loopback with a mesh of its own, made when it is first asked for."""

    _asked = threading.local()

    def _prepare(self, mesh: Any) -> None:
        super()._prepare(mesh)
        self._runtime = lambda: getattr(self._asked, "mesh", default())._runtime()

    def send(self, request: Any, *args: Any, **options: Any) -> Any:
        self._asked.mesh = mesh_for(request.url)
        return super().send(request, *args, **options)


class Session(meshlib_requests.sessions.Session):
    """Ours, which counts its calls, whoever answers them."""

    def request(self, *args: Any, **options: Any) -> Any:
        COUNTS["session"] += 1
        return super().request(*args, **options)


def put_in_place(*, substituted: bool, adapters: bool = True) -> None:
    """Our session, and where ``adapters`` our adapter too, under the names that requests gives its own."""
    cls: Any = Substituting if substituted else Counting
    meshlib_requests.sessions.MeshAdapter = cls  # type: ignore[misc]
    if adapters:
        requests.adapters.HTTPAdapter = requests.sessions.HTTPAdapter = cls  # type: ignore[misc]
    requests.Session = requests.sessions.Session = Session  # type: ignore[misc]
    requests.session = requests.sessions.session = Session  # type: ignore[assignment]
