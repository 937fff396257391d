"""What this process has replaced in other libraries, and how it is put back. Knows nothing of the mesh.

A library is patched when it is imported, by a finder that lets the usual ones find it and looks on, or at once where it is
there already. Each replaced attribute is remembered with what it was. Taking a patch back restores the attribute, unless
somebody else has wrapped it since: then ours stays beneath, and whoever wrote it must do nothing from then on.

Imported at the start of every Python that ``meshlib run`` starts, so it imports next to nothing.

Thread-safe: one lock guards all of it, never a call of what was replaced. After a fork the child has what its parent had.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

__all__ = ["names", "replace", "restore", "when_imported"]

_lock = threading.RLock()  # guards what follows
_replaced: list[_Replaced] = []
_waiting: dict[str, list[Callable[[ModuleType], None]]] = {}


class _Replaced:
    """``owner.name``, listed as ``shown``: what it was and what it is."""

    __slots__ = ("before", "here", "name", "now", "owner", "shown")

    def __init__(self, owner: Any, name: str, now: Any, shown: tuple[str, ...]) -> None:
        self.owner = owner
        self.name = name
        self.shown = shown
        self.here = name in vars(owner)  # else it was inherited
        self.before = getattr(owner, name)
        self.now = now


def names() -> tuple[str, ...]:
    """What is replaced in this process, sorted."""
    with _lock:
        return tuple(sorted({shown for one in _replaced for shown in one.shown}))


def replace(owner: Any, name: str, make: Callable[[Any], Any], *shown: str) -> None:
    """Put ``make(what it was)`` in the place of ``owner.name``, and list it as ``shown``. A second time does nothing. Raises
    AttributeError for what is not there.
    """
    with _lock:
        if any(one.owner is owner and one.name == name for one in _replaced):
            return
        found = _Replaced(owner, name, make(getattr(owner, name)), shown)
        setattr(owner, name, found.now)
        _replaced.append(found)


def restore() -> None:
    """Put back all that was replaced, the last first; forget what was waited for."""
    with _lock:
        _waiting.clear()
        if _finder in sys.meta_path:
            sys.meta_path.remove(_finder)
        kept = [one for one in reversed(_replaced) if not _put_back(one)]
        _replaced[:] = reversed(kept)


def _put_back(one: _Replaced) -> bool:
    if vars(one.owner).get(one.name) is not one.now:
        return False
    if one.here:
        setattr(one.owner, one.name, one.before)
    else:
        delattr(one.owner, one.name)
    return True


def when_imported(name: str, patch: Callable[[ModuleType], None]) -> None:
    """Call ``patch`` with the module ``name``: now if it was imported, else as soon as it is. What it raises is logged."""
    with _lock:
        module = sys.modules.get(name)
        busy = getattr(getattr(module, "__spec__", None), "_initializing", False)
        if module is None or busy:
            _waiting.setdefault(name, []).append(patch)
            if _finder not in sys.meta_path:
                sys.meta_path.insert(0, _finder)
            return
    _call(patch, module)


def _imported(module: ModuleType) -> None:
    with _lock:
        patches = _waiting.pop(module.__name__, [])
    for patch in patches:
        _call(patch, module)


def _call(patch: Callable[[ModuleType], None], module: ModuleType) -> None:
    try:
        patch(module)
    except Exception as error:  # noqa: BLE001 - logged; the program runs on without the mesh
        import logging

        logging.getLogger("meshlib").warning(
            "meshlib: %s is left as it is, its calls do not go through the mesh: %s", module.__name__, error
        )


class _Finder:
    # importlib's base classes would double what every Python of ``meshlib run`` needs to start.

    def __init__(self) -> None:
        self._here = threading.local()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        del path, target
        if fullname not in _waiting or getattr(self._here, "busy", False):
            return None
        self._here.busy = True
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self._here.busy = False
        if spec is None or spec.loader is None:
            return None
        watched: Any = _Watched(spec.loader)
        spec.loader = watched
        return spec


class _Watched:
    """A loader that tells when its module is there. Once it is, the module shows the loader that it had."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        found: ModuleType | None = self._inner.create_module(spec)
        return found

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self._inner
        module.__loader__ = self._inner
        self._inner.exec_module(module)
        _imported(module)


_finder = _Finder()


def _in_child() -> None:
    global _lock  # noqa: PLW0603 - a thread that is not there may hold that of the parent
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
