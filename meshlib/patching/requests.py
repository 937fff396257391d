"""requests: its pools are urllib3's, which are patched; here its responses and errors learn what meshlib did."""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING, Any

from meshlib.hosts.info import attach
from meshlib.patched import replace

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["patch"]


def patch(requests: ModuleType) -> None:
    """Patch the library."""
    adapter = requests.adapters.HTTPAdapter
    failed = requests.RequestException

    def send(original: Any) -> Any:
        @functools.wraps(original)
        def sent(self: Any, *args: Any, **options: Any) -> Any:
            try:
                return original(self, *args, **options)
            except failed as error:
                # Not there: no pool is the mesh's yet.
                ours = sys.modules.get("meshlib_requests.failures")
                failure = ours.failure_of(error) if ours is not None else None
                if ours is None or failure is None:
                    raise
                both = ours.join(error, failure)
                raise both from both.__cause__

        return sent

    def build_response(original: Any) -> Any:
        @functools.wraps(original)
        def build(self: Any, req: Any, resp: Any) -> Any:
            response = original(self, req, resp)
            info = getattr(resp, "_meshlib_info", None)
            if info is not None:
                attach(response, info)
                ours = sys.modules["meshlib_requests.answers"]
                if type(response) is requests.Response and isinstance(resp, ours.HTTPResponse):
                    response.__class__ = ours.Response
            return response

        return build

    replace(adapter, "send", send, "requests.adapters.HTTPAdapter")
    replace(adapter, "build_response", build_response, "requests.adapters.HTTPAdapter")
