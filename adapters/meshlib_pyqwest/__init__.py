"""pyqwest's clients in the mesh, and what stands on them, ConnectRPC's among others.

    pyqwest.Client(meshlib_pyqwest.Transport())
    pyqwest.SyncClient(meshlib_pyqwest.SyncTransport())

What fails is meshlib's error and pyqwest's at once. ``meshlib.call_info`` takes an error, or the ``content`` of a response.
"""

from meshlib.extras import needed

with needed("pyqwest", "meshlib_pyqwest"):
    from meshlib_pyqwest.transport import SyncTransport, Transport

__all__ = ["SyncTransport", "Transport"]
