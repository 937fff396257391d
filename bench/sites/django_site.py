"""A Django application with the middleware of ``startproject``."""

from __future__ import annotations

from typing import Any

import django
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpRequest, JsonResponse
from django.urls import path

__all__ = ["make", "urlpatterns"]

_MIDDLEWARE = (
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
)
_APPS = ("auth", "contenttypes", "sessions", "messages")

settings.configure(
    SECRET_KEY="of the measurement",
    ALLOWED_HOSTS=["127.0.0.1"],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=[*(f"django.contrib.{name}" for name in _APPS), "meshlib_django"],
    MESHLIB={"services": {"reviews": {"endpoints": ["127.0.0.1:9"]}}},
)
django.setup()


def _item(request: HttpRequest, item: int) -> JsonResponse:
    del request
    return JsonResponse({"item": item})


urlpatterns = [path("items/<int:item>/", _item)]


def make(*middleware: str) -> Any:
    """The application, with more middleware around it."""
    settings.MIDDLEWARE = [*middleware, *_MIDDLEWARE]
    return WSGIHandler()  # it reads the setting now, and not again
