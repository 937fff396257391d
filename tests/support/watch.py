"""Waiting for what a mesh comes to: looked at again whenever the mesh tells of something."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import meshlib
    from meshlib.model.events import Event
    from meshlib.runtime.store import Store

__all__ = ["Waiters", "Watch", "arrived", "until"]

T = TypeVar("T")


class Watch:
    """One mesh, its calls included, watched from now on. Make it before what is waited for can happen."""

    def __init__(self, mesh: meshlib.Mesh) -> None:
        self._happened = threading.Event()
        mesh._observe(self._tell)
        mesh._runtime().store.on_change(self._happened.set)

    def _tell(self, _: Event) -> None:
        self._happened.set()

    def until(self, condition: Callable[[], T], seconds: float = 30.0) -> T:
        """What ``condition`` gives once it is true. Raises AssertionError where nothing happens for so long."""
        while True:
            self._happened.clear()
            found = condition()
            if found:
                return found
            assert self._happened.wait(seconds), (
                f"nothing happened for {seconds:g} s, and it is {found!r} still"
            )


def until(mesh: meshlib.Mesh, condition: Callable[[], T], seconds: float = 30.0) -> T:
    """What ``condition`` gives once it is true, of a configuration or of sources. Raises AssertionError after ``seconds``."""
    found: list[T] = []

    def holds(_: object) -> bool:
        found[:] = [condition()]
        return bool(found[0])

    if not mesh._runtime().store.wait(holds, seconds):
        sources = mesh.status().to_dict()["sources"]
        raise AssertionError(f"not within {seconds:g} s: {found!r}; {sources}")
    return found[0]


def arrived(mesh: meshlib.Mesh, address: str, seconds: float = 30.0) -> None:
    """Until a listener has the IP address and port: before, and with a control plane that has said other things alone, calls to it go
    there directly. ``wait_ready`` of the address would wait for its clusters as well.
    """
    until(mesh, lambda: mesh.explain("GET", f"http://{address}/").via != "direct", seconds)


class Waiters:
    """Who waits for a change of a configuration. Make it before they can come, which it is told from now on."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._add = store.on_change
        self._came = threading.Condition()
        store.on_change = self._on_change  # type: ignore[method-assign]

    def _on_change(self, callback: Callable[[], object]) -> Callable[[], None]:
        cancel = self._add(callback)
        with self._came:
            self._came.notify_all()
        return cancel

    def until(self, count: int, seconds: float = 10.0) -> None:
        """Until so many wait at the same time. Raises AssertionError after ``seconds``."""
        with self._came:
            assert self._came.wait_for(lambda: len(self._store._callbacks) >= count, seconds), "nobody waits"
