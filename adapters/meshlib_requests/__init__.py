"""requests in the mesh: ``import meshlib_requests as requests``.

It has requests' whole public surface, submodules included. ``Session``, ``session``, ``get`` and its kin, and
``adapters.HTTPAdapter`` go through the mesh; everything else is requests' own object, so that ``except`` and ``isinstance``
agree with programs that import requests itself.
"""

from __future__ import annotations

import sys
from typing import Any

from meshlib.extras import needed

with needed("requests", "meshlib_requests"):
    import requests

from requests import (
    ConnectionError,  # noqa: A004 - requests' name
    ConnectTimeout,
    HTTPError,
    JSONDecodeError,
    PreparedRequest,
    ReadTimeout,
    Request,
    RequestException,
    Response,
    Timeout,
    TooManyRedirects,
    URLRequired,
    auth,
    certs,
    codes,
    compat,
    cookies,
    exceptions,
    hooks,
    models,
    packages,
    status_codes,
    structures,
    utils,
)

from meshlib_requests import adapters, api, sessions
from meshlib_requests.adapter import MeshAdapter
from meshlib_requests.api import delete, get, head, options, patch, post, put, request
from meshlib_requests.options import call_options
from meshlib_requests.sessions import Session, session
from meshlib_requests.urllib3 import PoolManager

FileModeWarning = exceptions.FileModeWarning

__all__ = [
    "ConnectTimeout",
    "ConnectionError",
    "FileModeWarning",
    "HTTPError",
    "JSONDecodeError",
    "MeshAdapter",
    "PoolManager",
    "PreparedRequest",
    "ReadTimeout",
    "Request",
    "RequestException",
    "Response",
    "Session",
    "Timeout",
    "TooManyRedirects",
    "URLRequired",
    "adapters",
    "api",
    "auth",
    "call_options",
    "certs",
    "codes",
    "compat",
    "cookies",
    "delete",
    "exceptions",
    "get",
    "head",
    "hooks",
    "models",
    "options",
    "packages",
    "patch",
    "post",
    "put",
    "request",
    "session",
    "sessions",
    "status_codes",
    "structures",
    "utils",
]

# ``import meshlib_requests.exceptions`` gives requests' own module: its classes must be the same.
for _module in (
    auth,
    certs,
    compat,
    cookies,
    exceptions,
    hooks,
    models,
    packages,
    status_codes,
    structures,
    utils,
):
    sys.modules[f"{__name__}.{_module.__name__.rpartition('.')[2]}"] = _module


def __getattr__(name: str) -> Any:
    return getattr(requests, name)


def __dir__() -> list[str]:
    return sorted({*__all__, *dir(requests)})
