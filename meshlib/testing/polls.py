"""What a control plane answers to who polls it, by REST or by the unary methods of the services of each type.

As real control planes it compares versions and nothing else: a poll that says the newest version has nothing new, whatever it names.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from meshlib.testing.journal import Journal, Request
from meshlib.xds import schema
from meshlib.xds.discovery import RESPONSE

if TYPE_CHECKING:
    import grpc

    from meshlib.testing.ads_state import State
    from meshlib.testing.ads_stream import Faults

__all__ = ["PollRefused", "Polls"]


class PollRefused(Exception):
    """What `ControlPlane.refuse` has ordered."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(details)
        self.code = code
        self.details = details


class Polls:
    """Polls are recorded in `journal`, whose lock guards `state` and `faults`."""

    def __init__(self, state: State, faults: Faults, journal: Journal) -> None:
        self._state = state
        self._faults = faults
        self._journal = journal

    def answer(self, protocol: str, url: str, request: Any, raw: bytes) -> schema.WireMessage | None:
        """A DiscoveryResponse; None: nothing is new. `raw`: the request as it came. Raises PollRefused."""
        with self._journal.changed:
            self._journal.add(lambda index: _record(index, protocol, url, request, raw))
            if self._faults.refuse is not None and self._faults.refused in ("", protocol):
                raise PollRefused(*self._faults.refuse)
            version = self._state.versions.get(url, "0")
            if request.version_info == version:
                return None
            held = self._state.resources.get(url, {})
            names = set(request.resource_names)
            response: Any = schema.message(RESPONSE)(version_info=version, type_url=url)
            for name, stored in held.items():
                if not names or name in names:
                    response.resources.add(type_url=stored.type_url, value=stored.value)
        made: schema.WireMessage = response
        return made


def _record(index: int, protocol: str, url: str, request: Any, raw: bytes) -> Request:
    refused = request.HasField("error_detail")
    return Request(
        index=index,
        stream=0,
        protocol=protocol,
        kind=schema.SHORT_NAMES[url],
        names=tuple(request.resource_names),
        unsubscribe=(),
        version=request.version_info,
        nonce=request.response_nonce,
        error=request.error_detail.message if refused else None,
        error_code=request.error_detail.code if refused else None,
        node=request.node if request.HasField("node") else None,
        initial_versions={},
        raw=raw,
        at=time.monotonic(),
    )
