"""A Flask application."""

from __future__ import annotations

from typing import Any

from flask import Flask, Response, jsonify

__all__ = ["make"]


def make(config: dict[str, Any] | None = None) -> Any:
    """The application; with a configuration it is in the mesh."""
    app = Flask("bench")

    @app.get("/items/<int:item>/")
    def items(item: int) -> Response:
        return jsonify({"item": item})

    if config is not None:
        from meshlib_flask import Meshlib

        app.config["MESHLIB"] = config
        Meshlib(app)
    return app
