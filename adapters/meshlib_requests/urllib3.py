"""urllib3 in the mesh: ``from meshlib_requests import urllib3`` has a ``PoolManager`` for libraries that use urllib3.

Everything else of urllib3's own public names is here as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import urllib3 as _urllib3

from meshlib.mesh import only_by_name, runtime_of
from meshlib_requests.pools import adopt, let_go
from meshlib_requests.shortcuts.keys import Keys

if TYPE_CHECKING:
    from collections.abc import Mapping

    from meshlib.mesh import Mesh

__all__ = [*_urllib3.__all__]  # noqa: PLE0604


class PoolManager(_urllib3.PoolManager):
    """A ``urllib3.PoolManager`` whose pools go through the mesh where it knows the host.

    What fails is urllib3's exception and meshlib's at once. ``retries`` hold where the mesh orders no retry. Thread-safe.

    Args:
        num_pools: As urllib3's, and so are ``headers`` and all others.
        mesh: Whose rules hold; without it ``meshlib.default()``.
    """

    def __init__(
        self,
        num_pools: int = 10,
        headers: Mapping[str, str] | None = None,
        *,
        mesh: Mesh | None = None,
        **connection_pool_kw: Any,
    ) -> None:
        only_by_name(self, num_pools, headers)
        super().__init__(num_pools, headers, **connection_pool_kw)
        adopt(self, runtime_of(mesh))
        self._keys = Keys(self)

    def connection_from_host(
        self,
        host: str | None,
        port: int | None = None,
        scheme: str | None = "http",
        pool_kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """As urllib3's; a key is made again only when the settings changed."""
        if pool_kwargs is None and (key := self._keys.of(self, host, port, scheme)) is not None:
            pool = self.pools.get(key)
            if pool:
                return pool
        return super().connection_from_host(host, port, scheme, pool_kwargs)

    def clear(self) -> None:
        """As urllib3's. Idle connections are closed now."""
        let_go(self)
        super().clear()


_default = PoolManager()


def request(
    method: str,
    url: str,
    *,
    body: Any = None,
    fields: Any = None,
    headers: Mapping[str, str] | None = None,
    preload_content: bool | None = True,
    decode_content: bool | None = True,
    redirect: bool | None = True,
    retries: Any = None,
    timeout: Any = 3,
    json: Any = None,
) -> Any:
    """As ``urllib3.request``, its ``timeout`` of 3 seconds included."""
    return _default.request(
        method,
        url,
        body=body,
        fields=fields,
        headers=headers,
        preload_content=preload_content,
        decode_content=decode_content,
        redirect=redirect,
        retries=retries,
        timeout=timeout,
        json=json,
    )


def __getattr__(name: str) -> Any:
    return getattr(_urllib3, name)
