"""Web applications that are measured under gunicorn: ``bench.sites:app``.

All of them are mounted in one process, each with and without meshlib: two processes of one program differ by more than what is
measured.
"""

from __future__ import annotations

import json
import time
from typing import Any

import bench  # noqa: F401 - finds the adapters
from bench.sites import django_site, flask_site

__all__ = ["app"]

_APPS = {
    "django": django_site.make(),
    "django-mesh": django_site.make("meshlib_django.Middleware"),
    "flask": flask_site.make(),
    "flask-mesh": flask_site.make({"services": {"reviews": {"endpoints": ["127.0.0.1:9"]}}}),
}


_spent = dict.fromkeys(_APPS, 0)
_now = ("", 0)


def app(environ: dict[str, Any], start_response: Any) -> Any:
    """``/NAME/…`` is answered by the application of that name, ``/spent`` with the nanoseconds that each has had of the
    processor. What the process uses from one request to the next is the first one's.
    """
    global _now  # noqa: PLW0603 - one thread
    name, _, rest = environ["PATH_INFO"][1:].partition("/")
    before, clock = _now, time.process_time_ns()
    _now = (name, clock)
    if before[0] in _spent:
        _spent[before[0]] += clock - before[1]
    if name == "spent":
        start_response("200 OK", [("content-type", "application/json")])
        return [json.dumps(_spent).encode()]
    environ["SCRIPT_NAME"], environ["PATH_INFO"] = f"/{name}", f"/{rest}"
    return _APPS[name](environ, start_response)
