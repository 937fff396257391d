"""What was seen of services that have not joined the mesh: calls, how many of them it would have carried alike, and how not."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from meshlib.core.adoption import Places, compare, is_safe
from meshlib.model.hosts import is_ip

if TYPE_CHECKING:
    from meshlib.config import Config
    from meshlib.core.adoption import Difference
    from meshlib.core.effects import Env
    from meshlib.core.exchange import Place
    from meshlib.core.joining import Joining
    from meshlib.core.resolution import Resolution
    from meshlib.model.call import Head, Outcome

__all__ = ["Tallies", "adoption_status", "literal"]

#: Services that are told apart; those of a default are as many as hosts that are called.
_MOST = 1000
_OTHERS = "(others)"
#: Examples that are kept of one kind of difference.
_EXAMPLES = 3

_log = logging.getLogger("meshlib")


class Tallies:
    """Of one mesh in one process. Thread-safe: ``_lock`` guards the counts, and is held for a few of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._places = Places()
        self._services: dict[str, _Tally] = {}
        self._failed = False

    def add(
        self,
        joining: Joining,
        resolution: Resolution,
        head: Head,
        peer: str,
        outcome: Outcome,
        env: Env,
    ) -> None:
        """A call that went the old way ended with ``outcome``. Never raises: the call has its answer."""
        try:
            found = compare(resolution, head, peer, outcome, env, self._places)
        except Exception:  # noqa: BLE001 - logged below
            if not self._failed:
                self._failed = True
                _log.exception("meshlib: a call could not be compared with what the mesh would make of it")
            return
        name = joining.service
        with self._lock:
            tally = self._services.get(name)
            if tally is None:
                name = name if len(self._services) < _MOST else _OTHERS
                tally = self._services.setdefault(name, _Tally())
            tally.add(found, head, peer)

    def to_dict(self) -> dict[str, dict[str, object]]:
        """By service, JSON-ready."""
        with self._lock:
            return {name: tally.to_dict() for name, tally in sorted(self._services.items())}


class _Tally:
    """Of one service."""

    __slots__ = ("calls", "different", "examples", "same")

    def __init__(self) -> None:
        self.calls = 0
        self.same = 0
        self.different: Counter[str] = Counter()
        self.examples: list[dict[str, object]] = []

    def add(self, found: list[Difference], head: Head, peer: str) -> None:
        self.calls += 1
        if not found:
            self.same += 1
            return
        for reason, detail in found:
            self.different[reason] += 1
            if self.different[reason] <= _EXAMPLES:
                self.examples.append(_example(reason, detail, head, peer))

    def to_dict(self) -> dict[str, object]:
        different = dict(sorted(self.different.items()))
        return {
            "calls": self.calls,
            "same": self.same,
            "different": different,
            "examples": list(self.examples),
            "safe": is_safe(self.calls, different),
        }


def _example(reason: str, detail: str, head: Head, peer: str) -> dict[str, object]:
    """The query is left out: it may hold what is not for others."""
    path = head.path.partition("?")[0]
    return {
        "reason": reason,
        "method": head.method,
        "url": f"{head.scheme}://{head.authority}{path}",
        "went": peer,
        "mesh": detail,
    }


def adoption_status(config: Config, tallies: Tallies | None, *, off: bool) -> dict[str, object]:
    """How far the services of this process have joined, JSON-ready. ``off``: every call is plain; ``file``: the configuration's."""
    modes, default = config.adoption.services, config.adoption.default
    seen = {} if tallies is None else tallies.to_dict()
    nothing = _Tally().to_dict()
    services = {
        name: {"mode": modes.get(name, default), **seen.get(name, nothing)}
        for name in sorted({*modes, *seen})
    }
    file = str(Path(config.file).absolute()) if config.file else ""
    return {"file": file, "default": default, "switched_off": off, "services": services}


def literal(place: Place) -> str:
    """``host:port``, where the URL itself has the address that is called; a library may not tell whom it called."""
    _, host, port, _ = place
    return f"{host}:{port}" if port is not None and is_ip(host.strip("[]")) else ""
