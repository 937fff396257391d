"""A Django project for tests: its settings, its views, and its WSGI and ASGI applications.

Each service of a chain is this project; ``SERVICE_CALLS`` names the host that its views call, ``SERVICE_NAME`` itself.
"""

from __future__ import annotations

import json
import os

import django
from django.conf import settings

__all__ = ["MIDDLEWARE", "setup"]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "meshlib_django.Middleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
]


def setup() -> None:
    """Configure Django once a process."""
    if settings.configured:
        return
    settings.configure(
        SECRET_KEY="for tests",
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF="tests.support.django_views",
        INSTALLED_APPS=["meshlib_django"],
        MIDDLEWARE=MIDDLEWARE,
        USE_TZ=True,
        MESHLIB=json.loads(os.environ.get("TEST_SITE_MESHLIB", "{}")),
    )
    django.setup()
