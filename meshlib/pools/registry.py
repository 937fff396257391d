"""The pools of one client in one process, or in one event loop: a pool for each endpoint and what is demanded there.

A key is a tuple whose first item is the endpoint; the rest is all else that a connection depends on: the address, the TLS
context, the name to verify. When one of these changes, new calls use a new pool, and ``sweep`` closes the old one.

Lock: ``_lock`` guards making and removing, never a look-up, and no pool is closed under it.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

__all__ = ["MOST_OF_ONE", "Pools"]

#: Pools to one endpoint at most: names that TLS verifies come from URLs, and there may be any number of them. Above httpx's
#: 20 idle connections over all hosts.
MOST_OF_ONE = 32


class _Pool(Protocol):
    used: float

    @property
    def idle(self) -> int: ...

    @property
    def open(self) -> int: ...

    def close(self) -> None: ...

    def forget(self) -> None: ...


K = TypeVar("K", bound="tuple[Hashable, ...]")
Q = TypeVar("Q", bound=_Pool)


class Pools(Generic[K, Q]):
    """Pools by key. Thread-safe where its pools are; those of an event loop belong to that.

    Whoever forgets it without closing it leaves nothing open: its pools close what is idle, in their worker or their loop.
    """

    def __init__(self, most_of_one: int = MOST_OF_ONE) -> None:
        self._most = most_of_one
        self._lock = threading.Lock()
        self._pools: dict[K, Q] = {}
        self._keys: dict[Any, list[K]] = {}  # by endpoint

    def get(self, key: K) -> Q | None:
        """The pool of ``key``, if there is one."""
        return self._pools.get(key)

    def put(self, key: K, make: Callable[[], Q]) -> Q:
        """The pool of ``key``: the one that is there by now, or that ``make`` makes, in the place of the one of that endpoint
        which was used least recently where there are too many.
        """
        with self._lock:
            pool = self._pools.get(key)
            if pool is not None:
                return pool
            pool = make()
            keys = self._keys.setdefault(key[0], [])
            pushed_out = self._remove(min(keys, key=self._rank)) if len(keys) >= self._most else None
            self._keys.setdefault(key[0], keys).append(key)
            self._pools[key] = pool
        if pushed_out is not None:
            pushed_out.close()
        return pool

    def sweep(self, is_stale: Callable[[K], bool]) -> None:
        """Close the pools that no new call will use."""
        with self._lock:
            ended = [self._remove(key) for key in list(self._pools) if is_stale(key)]
        for pool in ended:
            pool.close()

    def give_up(self, is_stale: Callable[[K], bool]) -> None:
        """As ``sweep``, from any thread: each closes what is idle in its worker or its loop. The next sweep forgets them."""
        for key, pool in list(self._pools.items()):
            if is_stale(key):
                pool.forget()

    def drop(self, endpoint: object) -> None:
        """As ``give_up``, of the pools to ``endpoint``, which are forgotten at once: a call that comes has a new one."""
        with self._lock:
            ended = [self._remove(key) for key in list(self._keys.get(endpoint, ()))]
        for pool in ended:
            pool.forget()

    def close(self) -> None:
        """Close every pool. Calls that come after this have new ones."""
        with self._lock:
            pools, self._pools, self._keys = self._pools, {}, {}
        for pool in pools.values():
            pool.close()

    def all(self) -> list[Q]:
        """Every pool there is now."""
        return list(self._pools.values())

    def __len__(self) -> int:
        return len(self._pools)

    def __del__(self) -> None:
        for pool in self.__dict__.get("_pools", {}).values():
            pool.forget()

    def _rank(self, key: K) -> tuple[bool, float]:
        """Those that carry nothing go first, the longest unused of them before others."""
        pool = self._pools[key]
        return pool.open > pool.idle, pool.used

    def _remove(self, key: K) -> Q:
        keys = self._keys[key[0]]
        keys.remove(key)
        if not keys:
            del self._keys[key[0]]
        return self._pools.pop(key)
