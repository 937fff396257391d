"""What ``manage.py check`` says: of the configuration, and of the place of the middleware."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.checks import Error, Warning  # noqa: A004 - Django's names

from meshlib.config import doubts, resolve
from meshlib.errors import ConfigError
from meshlib_django.settings import config

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["check_settings"]

MIDDLEWARE = "meshlib_django.Middleware"
_NAMES = frozenset({MIDDLEWARE, "meshlib_django.middleware.Middleware"})

#: What must be before ours: tracing, so that spans are there; what turns requests away or elsewhere.
_BEFORE = (
    "opentelemetry.instrumentation.django.middleware.otel_middleware._DjangoMiddleware",
    "django.middleware.security.SecurityMiddleware",
)
#: What must be behind ours: it may call a service for the request (a session store, a user's back end, a cache).
_BEHIND = (
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.auth.middleware.RemoteUserMiddleware",
    "django.middleware.cache.UpdateCacheMiddleware",
    "django.middleware.cache.FetchFromCacheMiddleware",
)


def check_settings(app_configs: Any = None, **_: Any) -> list[Any]:  # noqa: ARG001 - Django's signature
    """The system check. Reads the environment and files as a mesh would; starts nothing."""
    return [*_configuration(), *_placement([str(name) for name in settings.MIDDLEWARE])]


def _configuration() -> Iterator[Any]:
    try:
        made = resolve(config())
    except ConfigError as problem:
        for line in problem.problems:
            yield Error(line, obj="settings.MESHLIB", id="meshlib.E001")
        return
    for line in doubts(made):
        yield Warning(line, obj="settings.MESHLIB", id="meshlib.W001")


def _placement(names: list[str]) -> Iterator[Any]:
    places = [index for index, name in enumerate(names) if name in _NAMES]
    if not places:
        hint = f"Add {MIDDLEWARE!r} to MIDDLEWARE, behind SecurityMiddleware and before SessionMiddleware."
        text = "meshlib_django is installed, and its middleware is not in MIDDLEWARE: calls inherit nothing"
        yield Warning(f"{text} from the requests that they are made for.", hint=hint, id="meshlib.W002")
        return
    if len(places) > 1:
        yield Warning(
            f"{MIDDLEWARE} is {len(places)} times in MIDDLEWARE.", hint="Once is enough.", id="meshlib.W003"
        )
    mine = places[0]
    for name in _BEFORE:
        if name in names[mine:]:
            yield Warning(
                f"{MIDDLEWARE} is before {name}.", hint="Put it behind that one.", id="meshlib.W004"
            )
    for name in _BEHIND:
        if name in names[:mine]:
            yield Warning(
                f"{MIDDLEWARE} is behind {name}, whose calls inherit nothing then.",
                hint="Put it before that one.",
                id="meshlib.W005",
            )
