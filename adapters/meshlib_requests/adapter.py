"""``MeshAdapter``: requests' adapter, whose pools go through the mesh."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import requests
from requests.adapters import DEFAULT_POOLBLOCK, DEFAULT_POOLSIZE, DEFAULT_RETRIES, HTTPAdapter
from urllib3.exceptions import EmptyPoolError

from meshlib.mesh import only_by_name, runtime_of
from meshlib_requests.errors import in_requests
from meshlib_requests.pools import adopt, let_go, notice_proxy
from meshlib_requests.reference import mesh_of, reference_to
from meshlib_requests.responses import note

if TYPE_CHECKING:
    from collections.abc import Mapping

    from requests import PreparedRequest
    from urllib3.util import Retry

    from meshlib.mesh import Mesh

__all__ = ["MeshAdapter"]

#: Pools looked up without asking urllib3's manager.
_MOST = 256


class MeshAdapter(HTTPAdapter):
    """A ``requests.adapters.HTTPAdapter`` for any session: ``session.mount("http://", MeshAdapter())``.

    Hosts that the mesh knows are called through it, all others as requests calls them. Proxies win over the mesh.
    ``max_retries=Retry(…)`` holds where the mesh orders no retry, and each of its retries goes to another endpoint if there is
    one; ``pool_maxsize`` holds for each endpoint. Thread-safe as requests' own is; it may be pickled, and used in a process
    that was forked.

    Args:
        pool_connections: As requests'; ``pool_maxsize``, ``max_retries`` and ``pool_block`` too.
        mesh: Whose rules hold; without it ``meshlib.default()``.
    """

    def __init__(
        self,
        pool_connections: int = DEFAULT_POOLSIZE,
        pool_maxsize: int = DEFAULT_POOLSIZE,
        max_retries: Retry | int = DEFAULT_RETRIES,
        pool_block: bool = DEFAULT_POOLBLOCK,
        *,
        mesh: Mesh | None = None,
    ) -> None:
        only_by_name(self, pool_connections, pool_maxsize, max_retries, pool_block)
        self._prepare(mesh)
        super().__init__(pool_connections, pool_maxsize, max_retries, pool_block)

    def _prepare(self, mesh: Mesh | None) -> None:
        self._mesh = mesh
        self._runtime = runtime_of(mesh)
        self._noticed = False
        self._adopted: Any = None
        self._known: dict[str, Any] | None = None  # the manager's settings with which _pools were made
        self._pools: weakref.WeakValueDictionary[Any, Any] = weakref.WeakValueDictionary()

    def send(
        self,
        request: PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: bool | str | None = True,
        cert: Any = None,
        proxies: Mapping[str, str] | None = None,
    ) -> requests.Response:
        try:
            return super().send(request, stream, timeout, verify, cert, proxies)  # type: ignore[arg-type]
        except (requests.RequestException, EmptyPoolError) as error:
            raised = in_requests(error, request)
            if raised is error:
                raise
            raise raised from raised.__cause__

    def get_connection_with_tls_context(
        self,
        request: PreparedRequest,
        verify: bool | str | None,
        proxies: Mapping[str, str] | None = None,
        cert: Any = None,
    ) -> Any:
        manager = self.poolmanager
        if manager is not self._adopted:
            self._adopted = manager
            adopt(manager, self._runtime)
            self._known = None
        # A subclass may set what holds for the pools of the next request, such as the name on the certificate.
        if manager.connection_pool_kw != self._known:
            self._known = dict(manager.connection_pool_kw)
            self._pools = weakref.WeakValueDictionary()
        if proxies or self._tells_pools_apart():
            found = super().get_connection_with_tls_context(request, verify, proxies, cert)  # type: ignore[arg-type]
            if found.proxy is not None and not self._noticed:
                self._noticed = notice_proxy(self._runtime(), request.url or "")
            return found
        key = (_origin(request.url or ""), verify, tuple(cert) if isinstance(cert, list) else cert)
        pools = self._pools
        pool = pools.get(key)
        if pool is None or pool.pool is None:
            pool = super().get_connection_with_tls_context(request, verify, proxies, cert)  # type: ignore[arg-type]
            if len(pools) < _MOST:
                pools[key] = pool
        return pool

    def request_url(self, request: PreparedRequest, proxies: Mapping[str, str] | None) -> str:
        """As requests'; without proxies there is nothing to find out but what some versions make of ``//``."""
        path = request.path_url
        return super().request_url(request, proxies) if proxies or path.startswith("//") else path  # type: ignore[arg-type]

    def build_response(self, req: PreparedRequest, resp: Any) -> requests.Response:
        response = super().build_response(req, resp)
        note(response, resp)
        return response

    def close(self) -> None:
        """Close what is idle, and what is in use when it is done. The adapter can be used again."""
        self._pools = weakref.WeakValueDictionary()
        let_go(self.poolmanager)
        super().close()

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_mesh": reference_to(self._mesh)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        others = dict(state)
        self._prepare(mesh_of(others.pop("_mesh", None)))
        super().__setstate__(others)

    def _tells_pools_apart(self) -> bool:
        """Whether a subclass decides by the request which pool is used."""
        mine = type(self).build_connection_pool_key_attributes
        return mine is not HTTPAdapter.build_connection_pool_key_attributes


def _origin(url: str) -> str:
    """What tells pools apart in a URL: scheme, host and port, as written."""
    end = url.find("/", 8)
    origin = url if end < 0 else url[:end]
    if "@" in origin or "?" in origin or "#" in origin:
        parts = urlsplit(url)
        origin = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
    return origin
