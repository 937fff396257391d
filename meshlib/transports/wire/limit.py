"""The application's own limit of connections, within the cluster's."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from meshlib.core.upstream import Connections

__all__ = ["OwnLimit"]


class OwnLimit:
    """What httpx's ``max_connections`` and urllib3's ``block`` ask for, held for one endpoint: of one pool, whose lock guards it."""

    __slots__ = ("_inner", "_most", "_open")

    def __init__(self, inner: Connections, most: int) -> None:
        self._inner = inner
        self._most = most
        self._open = 0

    @property
    def max_connections(self) -> int | None:
        return self._inner.max_connections

    def open_connection(self, *, force: bool = False) -> bool:
        if self._open >= self._most or not self._inner.open_connection(force=force):
            return False
        self._open += 1
        return True

    def close_connection(self) -> None:
        self._open -= 1
        self._inner.close_connection()

    def begin_pending(self) -> bool:
        return self._inner.begin_pending()

    def end_pending(self) -> None:
        self._inner.end_pending()
