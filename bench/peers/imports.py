"""``import meshlib`` in a new interpreter, measured by that interpreter; it checks that nothing heavy came along."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass

from bench.world import World

HEAVY = ("grpc", "google.protobuf", "httpx", "httpcore", "httpx2")
_CODE = f"""
import sys, time
began = time.perf_counter()
import meshlib
seconds = time.perf_counter() - began
print(seconds, *[name for name in {HEAVY!r} if name in sys.modules])
"""


@dataclass
class Import:
    name: str = "import meshlib"

    def open(self, world: World) -> None:
        del world
        self.sample()

    def sample(self) -> float:
        done = subprocess.run([sys.executable, "-c", _CODE], capture_output=True, text=True, check=True)
        seconds, *heavy = done.stdout.split()
        if heavy:
            raise RuntimeError(f"import meshlib loads {', '.join(heavy)}")
        return float(seconds)

    def close(self) -> None:
        """Nothing is open."""


PEERS = (Import(),)
