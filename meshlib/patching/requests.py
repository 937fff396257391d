"""requests: its pools are urllib3's, which are patched; here its responses and errors learn what meshlib did."""

from __future__ import annotations

import functools
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from meshlib.patched import replace
from meshlib.patching.active import OFF, runtime

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["patch"]

_SHOWN = "requests.adapters.HTTPAdapter"


def patch(requests: ModuleType) -> None:
    """Patch the library."""
    adapter = requests.adapters.HTTPAdapter
    replace(adapter, "send", _send, _SHOWN)
    replace(adapter, "build_response", _build_response, _SHOWN)
    replace(adapter, "get_connection_with_tls_context", _get_connection, _SHOWN)


def _send(original: Any) -> Any:
    @functools.wraps(original)
    def send(self: Any, request: Any, *args: Any, **options: Any) -> Any:
        try:
            return original(self, request, *args, **options)
        except Exception as error:
            # Not there: no pool is the mesh's yet.
            ours = sys.modules.get("meshlib_requests.errors")
            raised = error if ours is None else ours.in_requests(error, request)
            if raised is error:
                raise
            raise raised from raised.__cause__

    return send


def _build_response(original: Any) -> Any:
    @functools.wraps(original)
    def build_response(self: Any, req: Any, resp: Any) -> Any:
        response = original(self, req, resp)
        ours = sys.modules.get("meshlib_requests.responses")
        if ours is not None:
            ours.note(response, resp)
        return response

    return build_response


def _get_connection(original: Any) -> Any:
    @functools.wraps(original)
    def get_connection_with_tls_context(self: Any, request: Any, *args: Any, **options: Any) -> Any:
        found = original(self, request, *args, **options)
        # An adapter of ours, which has that attribute, says it by itself.
        if found.proxy is not None and not hasattr(self, "_noticed") and runtime() is not OFF:
            ours = import_module("meshlib_requests.pools")
            if ours.notice_proxy(runtime(), request.url):
                self._noticed = True
        return found

    return get_connection_with_tls_context
