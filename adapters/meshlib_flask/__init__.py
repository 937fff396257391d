"""Flask applications in the mesh.

    from meshlib_flask import Meshlib

    mesh = Meshlib()

    def create_app():
        app = Flask(__name__)
        app.config["MESHLIB"] = {"services": {"reviews": {"endpoints": ["10.0.0.1:8080"]}}}
        mesh.init_app(app)
        return app

``app.config["MESHLIB"]`` has the configuration's keys; the environment wins over it, it wins over a file. Calls that a
view makes go by its application's mesh, carry its request's trace and id on, and end with its deadline.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from meshlib.config import from_settings
from meshlib.errors import ConfigError
from meshlib.mesh import Mesh, configure, default
from meshlib.runtime.process import Local
from meshlib_wsgi import Middleware

if TYPE_CHECKING:
    from flask import Flask

__all__ = ["Meshlib", "State"]

_KEY = "meshlib"
_ORIGIN = 'app.config["MESHLIB"]'


class Meshlib:
    """The extension. It keeps nothing of an application: that is in ``app.extensions["meshlib"]``, a :class:`State`.

    Args:
        app: An application, for ``init_app``.
        mesh: A mesh of the caller's own, instead of one from ``app.config``.
    """

    def __init__(self, app: Flask | None = None, *, mesh: Mesh | None = None) -> None:
        if app is not None:
            self.init_app(app, mesh=mesh)

    def init_app(self, app: Flask, *, mesh: Mesh | None = None) -> None:
        """Read ``app.config["MESHLIB"]`` and take the application into the mesh. Starts nothing. A second time reads
        it anew. Raises ConfigError.

        Where the application has a configuration it is also that of ``meshlib.default()``, for what runs outside of
        its requests; of several applications in a process, the last one's.
        """
        if not hasattr(app, "wsgi_app"):
            raise TypeError(f"{type(app).__name__} is no WSGI application: for Quart there is meshlib_asgi")
        state = app.extensions.get(_KEY)
        if isinstance(state, State):
            state.read(app.config.get("MESHLIB"), mesh)
        else:
            state = State(app.wsgi_app, app.config.get("MESHLIB"), mesh)
            app.extensions[_KEY] = state
            app.wsgi_app = state.serve  # type: ignore[method-assign]
        if state.own:
            configure(lambda: state.mesh)


class State:
    """What the extension knows of one application. Thread-safe, but for ``read``.

    Attributes:
        own: Whether ``app.config`` has a configuration, and so there is a mesh of the application's own.
    """

    def __init__(self, inner: Any, settings: Any, mesh: Mesh | None) -> None:
        self._inner = inner
        self._lock = Local(threading.Lock)  # guards making a mesh in place of a closed one
        self.read(settings, mesh)

    def read(self, settings: Any, mesh: Mesh | None) -> None:
        """Take a configuration, before requests are served. Raises ConfigError, and then nothing has changed."""
        if settings and mesh is not None:
            raise ConfigError(f"{_ORIGIN}: there is a mesh= already: give one of the two")
        config = from_settings({} if settings is None else settings, _ORIGIN)
        own = bool(settings)
        made = Mesh(config) if own else mesh
        self._middleware = Middleware(self._inner, mesh=made)
        self._mesh, self._config, self.own = made, config, own

    @property
    def mesh(self) -> Mesh:
        """The application's mesh: its own, or the process's. Its own is made anew after it was closed."""
        mesh = self._mesh
        if mesh is None:
            return default()
        if self.own and mesh.closed:
            with self._lock.get():
                mesh = self._mesh
                if mesh is None or mesh.closed:
                    mesh = self._mesh = self._middleware.desk.mesh = Mesh(self._config)
        return mesh

    def serve(self, environ: dict[str, Any], start_response: Any) -> Any:
        """The application's ``wsgi_app``."""
        mesh = self._mesh
        if mesh is not None and mesh.closed:
            _ = self.mesh  # its own is made anew
        return self._middleware(environ, start_response)

    def __repr__(self) -> str:
        return f"<State {self._mesh if self._mesh is not None else 'of the process'}>"
