"""A mesh as it is pickled with a session: by its configuration, and by a name under which its own process finds it again."""

from __future__ import annotations

import threading
import uuid
import weakref
from typing import TYPE_CHECKING

from meshlib.hosts.runtime import Local
from meshlib.mesh import Mesh

if TYPE_CHECKING:
    from meshlib.config import Config

__all__ = ["Reference", "mesh_of", "reference_to"]

_lock = Local(threading.Lock)  # guards the mappings
_names: weakref.WeakKeyDictionary[Mesh, str] = weakref.WeakKeyDictionary()
_meshes: weakref.WeakValueDictionary[str, Mesh] = weakref.WeakValueDictionary()

Reference = tuple[str, "Config"]


def reference_to(mesh: Mesh | None) -> Reference | None:
    """What to pickle for ``mesh``; None for the process's default."""
    if mesh is None:
        return None
    with _lock.get():
        name = _names.get(mesh)
        if name is None:
            name = _names[mesh] = uuid.uuid4().hex
            _meshes[name] = mesh
    return name, mesh.config


def mesh_of(reference: Reference | None) -> Mesh | None:
    """The mesh itself where it is of this process (or of the parent that this one was forked from), else one with the same
    configuration, the same for all that were pickled with it.
    """
    if reference is None:
        return None
    name, config = reference
    with _lock.get():
        mesh = _meshes.get(name)
        if mesh is None:
            mesh = _meshes[name] = Mesh(config)
            _names[mesh] = name
    return mesh
