"""Django applications in the mesh.

    INSTALLED_APPS = [..., "meshlib_django"]
    MIDDLEWARE = ["django.middleware.security.SecurityMiddleware", "meshlib_django.Middleware", ...]
    MESHLIB = {"services": {"reviews": {"endpoints": ["10.0.0.1:8080"]}}}

``MESHLIB`` has the configuration's keys; the environment wins over it, it wins over a file. It is read when
``meshlib.default()`` is first used, and by ``manage.py check``. Nothing starts before the first call.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from meshlib.extras import needed

if TYPE_CHECKING:
    from meshlib_django.middleware import Middleware

__all__ = ["Middleware"]


def __getattr__(name: str) -> object:
    # Django imports this package while its applications are not loaded yet.
    if name == "Middleware":
        with needed("django", "meshlib_django"):
            from meshlib_django.middleware import Middleware

        return Middleware
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    # Without Django, who lists the names (help, completion) must not meet an error.
    return [*globals(), *(__all__ if find_spec("django") else ())]
