"""A Flask service for tests; as ``django_views``, in Flask."""

from __future__ import annotations

import json
import os
import time
from typing import Any

import flask

import meshlib
from meshlib.deadlines import current_deadline
from meshlib.inbound import current
from meshlib_flask import Meshlib

__all__ = ["create_app"]

client = meshlib.Client()


def create_app() -> flask.Flask:
    app = flask.Flask(__name__)
    app.config["MESHLIB"] = json.loads(os.environ.get("TEST_SITE_MESHLIB", "{}"))
    Meshlib(app)

    @app.get("/")
    def call() -> Any:
        headers = {name.lower(): value for name, value in flask.request.headers.items()}
        host = os.environ.get("SERVICE_CALLS", "stock")
        answer = client.get(f"http://{host}/").json()
        return {"name": os.environ.get("SERVICE_NAME", "site"), "headers": headers, "next": answer}

    @app.get("/stream")
    def stream() -> Any:
        def parts() -> Any:
            for _ in range(3):
                request = current()
                yield f"{request.request_id if request is not None else 'none'};"

        return flask.Response(parts(), mimetype="text/plain")

    @app.get("/left")
    def left() -> Any:
        request, deadline = current(), current_deadline()
        return {
            "id": request.request_id if request is not None else None,
            "trace": request.traceparent if request is not None else None,
            "deadline": None if deadline is None else deadline - time.monotonic(),
            "pid": os.getpid(),
        }

    @app.get("/boom")
    def boom() -> Any:
        raise RuntimeError("boom")

    return app
