"""Django and Flask under gunicorn, with what meshlib adds and without it. Their views answer at once and call nobody."""

from __future__ import annotations

from bench.serving import Site

PEERS = (
    Site("Django", "django"),
    Site("Django in the mesh", "django-mesh"),
    Site("Flask", "flask"),
    Site("Flask in the mesh", "flask-mesh"),
)
