"""``fleet_hop`` as a Django project: ``app`` for WSGI servers, ``asgi`` for the others."""

from __future__ import annotations

from typing import Any

import django
from django.conf import settings
from django.http import JsonResponse
from django.urls import path

import meshlib
from tests.support.fleet_hop import MESH, call, call_async, get_ready, use_before_fork

__all__ = ["app", "asgi"]

get_ready()
settings.configure(
    SECRET_KEY="for tests",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF="tests.support.fleet_django",
    INSTALLED_APPS=["meshlib_django"],
    MIDDLEWARE=[
        "django.middleware.security.SecurityMiddleware",
        "meshlib_django.Middleware",
        "django.middleware.common.CommonMiddleware",
    ],
    USE_TZ=True,
    # What a view raised stands in the server's log, which a failing test shows.
    LOGGING={
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {"log": {"class": "logging.StreamHandler"}},
        "loggers": {"django.request": {"handlers": ["log"], "level": "ERROR"}},
    },
    MESHLIB=MESH,
)
django.setup()

from django.core.asgi import get_asgi_application  # noqa: E402 - settings come first
from django.core.wsgi import get_wsgi_application  # noqa: E402


def hop(request: Any) -> JsonResponse:
    return JsonResponse(call(request.headers))


async def hop_async(request: Any) -> JsonResponse:
    return JsonResponse(await call_async(request.headers))


urlpatterns = [path("", hop), path("async", hop_async)]
app = get_wsgi_application()
asgi = get_asgi_application()
use_before_fork(meshlib.default())
