"""``django_site`` as servers want it: ``application`` (WSGI) and ``asgi``."""

from __future__ import annotations

from tests.support import django_site

django_site.setup()

from django.core.asgi import get_asgi_application  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402

__all__ = ["application", "asgi"]

application = get_wsgi_application()
asgi = get_asgi_application()
