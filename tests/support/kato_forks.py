"""A program that forks three times while a Kato control plane serves it, each child with calls of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from meshlib.testing import KatoControlPlane
from meshlib.testing.kato import dependency

__all__ = ["forked"]

_NODE = "demo_plugin_gr000001"
_ROOT = Path(__file__).resolve().parents[2]
_PROGRAM = """
import json, os, sys
import meshlib
from tests.support.watch import until

mesh = meshlib.Mesh(json.loads(sys.argv[1]))
client = meshlib.Client(mesh=mesh)
mesh.wait_ready("shop", timeout=20)
assert client.get("http://shop/").json()["name"] == "v1"
for _ in range(3):
    child = os.fork()
    if not child:
        same = client.get("http://shop/").json()["name"] == "v1"
        until(mesh, lambda: "endpoint" in next(each for each in mesh.status().sources if each.kind == "xds").versions)
        os._exit(0 if same and client.get("http://shop/").is_success else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert client.get("http://shop/").json()["name"] == "v1"
print("done")
"""


def forked(kato: KatoControlPlane, address: str, **xds: Any) -> None:
    """Runs it, with ``address`` as the dependency's. Raises AssertionError with what it said where it failed."""
    kato.serve("gr2", 5000, address)
    kato.configure(_NODE, dependency("gr2", 5000, Domains="shop"))
    config = {
        "xds": {"api": "v2", "server": kato.address, **xds},
        "node": {"cluster": _NODE},
        "sidecar": {"mode": "off"},
    }
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _PROGRAM, json.dumps(config)],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
        cwd=_ROOT,
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
