"""Other tools in the way of a library's calls: who mocks or records stays in charge, who only measures is passed.

Tests replace methods of a host library (vcrpy, respx, pytest-httpx, pook, ``unittest.mock``) or the sockets beneath it (mocket,
httpretty). A call that meshlib carried past them would leave the process although a test says that it must not. So, as long as
such a tool is there, the library carries the call itself, as if meshlib were not there, and the tool sees it. An
instrumentation (OpenTelemetry, Sentry, ddtrace) replaces the same methods and calls what was there before: it is no reason to
step aside, and is told from a mock by the package that its wrapper comes from.

What was replaced is found by looking, at each call: tools come and go while the process runs, and may be there before meshlib
is. A method is the library's own while its code comes from the library.

Thread-safe: what is remembered is one tuple a method, replaced whole.
"""

from __future__ import annotations

import logging
import socket
from operator import is_
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

__all__ = ["CallPath", "own_class"]

#: Packages whose wrappers call what they wrap: ours, and instrumentations. ``wrapt`` makes the wrappers of many of these.
_PASSED = frozenset(
    {
        "ddtrace", "elasticapm", "logfire", "meshlib", "meshlib_aiohttp", "meshlib_requests", "newrelic", "opentelemetry",
        "scout_apm", "sentry_sdk", "wrapt",
    }
)  # fmt: skip
#: Packages that are known to stand in for the network; of others a line is logged, once.
_MOCKS = frozenset(
    {"aioresponses", "httpretty", "mocket", "pook", "pytest_httpx", "requests_mock", "respx", "responses", "unittest", "vcr"}
)  # fmt: skip
#: Of those, who replaces ``socket.socket``. Others who do (gevent, eventlet, pytest-socket) let connections through or refuse
#: them, which holds for ours as for the library's.
_SOCKETS = frozenset({"httpretty", "mocket"})

#: Python's own, which most processes have.
_SOCKET = socket.socket if socket.socket.__module__ == "socket" else None
_log = logging.getLogger("meshlib")
_told: set[str] = set()


class CallPath:
    """The methods that each call of one library comes by. ``points``: class and name of each."""

    __slots__ = ("_points", "_seen")

    def __init__(self, *points: tuple[type, str]) -> None:
        self._points = points
        # What was found last at the points, and whether a tool is in charge at one of them.
        self._seen: tuple[list[Any], bool] = [None] * len(points), False

    def intercepted(self) -> bool:
        """Whether a tool is in charge of the library's calls now."""
        found = [getattr(owner, name) for owner, name in self._points]
        known, verdict = self._seen
        if not all(map(is_, found, known)):
            points = zip(self._points, found, strict=True)
            verdict = any(_in_charge(owner, name, method) for (owner, name), method in points)
            self._seen = found, verdict
        if verdict:
            return True
        return socket.socket is not _SOCKET and _package(socket.socket.__module__) in _SOCKETS


def _in_charge(owner: type, name: str, found: Any) -> bool:
    origin = _origin(owner, found)
    if not origin:
        return False
    if _package(origin) not in _MOCKS:
        shown = f"{owner.__module__}.{owner.__qualname__}.{name}"
        if shown not in _told:
            _told.add(shown)
            _log.warning(
                "meshlib: %s is replaced by something of %s, which carries its calls from now on: they do not go "
                "through the mesh",
                shown,
                origin,
            )
    return True


def _origin(owner: type, found: Any) -> str:
    """The module of who is in charge; ``""``: the library itself, also beneath wrappers that are passed."""
    if isinstance(found, type):
        origin = found.__module__
        return "" if _package(origin) == _package(owner.__module__) else origin
    # ``functools.wraps`` copies the name of what is wrapped; what a function really is of, its globals tell.
    kind = type(found).__module__
    module = kind if _package(kind) in _PASSED else getattr(found, "__globals__", {}).get("__name__") or kind
    if _package(module) == _package(owner.__module__):
        return ""
    if _package(module) not in _PASSED:
        return str(module)
    beneath = getattr(found, "__wrapped__", None)
    return "" if beneath is None or beneath is found else _origin(owner, beneath)


def _package(module: str) -> str:
    return module.partition(".")[0]


def own_class(module: ModuleType, name: str) -> Any:
    """The class ``name`` that ``module`` defines, also while a tool has put one of its own there, which must not become a base
    of ours. Raises AttributeError for what was never there.
    """
    found = getattr(module, name)
    if found.__module__ == module.__name__:
        return found
    for kind in _all_classes(object):
        if kind.__module__ == module.__name__ and kind.__qualname__ == name:
            return kind
    return found


def _all_classes(kind: type) -> Iterator[type]:
    pending: list[type] = [kind]
    seen: set[type] = set()
    while pending:
        found: type
        # Not its method: that of ``type`` itself, which is a class too, wants an argument.
        for found in type.__subclasses__(pending.pop()):
            if found not in seen:
                seen.add(found)
                pending.append(found)
                yield found
