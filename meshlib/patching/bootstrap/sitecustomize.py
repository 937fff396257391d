"""Found by Python at its start through PYTHONPATH, as ``meshlib run`` sets it. Any Python may come by, also one that has no
meshlib, so this keeps to words that all of them know. A ``sitecustomize`` of the environment's own runs first.
"""  # noqa: INP001 - this directory is no package, it stands on PYTHONPATH

import os
import sys


def _chain() -> None:
    """Run the module that stands behind this one."""
    here = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 - for any Python
    mine = sys.modules.pop("sitecustomize", None)
    kept = list(sys.path)
    sys.path[:] = [one for one in kept if os.path.abspath(one or os.curdir) != here]  # noqa: PTH100
    try:
        __import__("sitecustomize")
    except ImportError as error:
        if getattr(error, "name", "sitecustomize") != "sitecustomize":
            raise
    finally:
        # The directory stays out of this process's path; children find it through their environment.
        if mine is not None:
            sys.modules.setdefault("sitecustomize", mine)


def _join() -> None:
    try:
        import meshlib.auto  # noqa: F401
    except Exception as error:  # noqa: BLE001 - said; the program runs on without the mesh
        sys.stderr.write(f"meshlib: calls of this process do not go through the mesh: {error}\n")


try:
    _chain()
finally:
    _join()
