"""``fleet_hop`` as a Flask application: ``app`` for WSGI servers, ``asgi`` for the others."""

from __future__ import annotations

from typing import Any

import flask
from a2wsgi import WSGIMiddleware

from meshlib_flask import Meshlib
from tests.support.fleet_hop import MESH, call, get_ready, use_before_fork

__all__ = ["app", "asgi"]

get_ready()
app = flask.Flask(__name__)
app.config["MESHLIB"] = MESH
Meshlib(app)
use_before_fork(app.extensions["meshlib"].mesh)


@app.get("/")
def hop() -> Any:
    return call(flask.request.headers)


# asgiref's WsgiToAsgi under uvicorn and uvloop fails some requests on connections that are kept alive, with or without us.
asgi = WSGIMiddleware(app)
