"""The first look for a sidecar in a new interpreter, its modules loaded in that time; and a look after it, as timers take it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass

from bench.world import World
from meshlib.config import SidecarConfig
from meshlib.sidecar.collect import Collector
from meshlib.sidecar.detect import detect

# What a mesh that makes its first call has loaded by then.
_CODE = """
import time
import meshlib.runtime.runtime, meshlib.runtime.worker, meshlib.wire.stream
from meshlib.config import SidecarConfig
from meshlib.runtime.clock import MonotonicClock
began = time.perf_counter()
from meshlib.sidecar.watch import Watch
Watch(SidecarConfig(), MonotonicClock(), print).current
print(time.perf_counter() - began)
"""
_LOOKS = 200


@dataclass
class FirstLook:
    name: str = "first look"

    def open(self, world: World) -> None:
        del world
        self._compiled = tempfile.TemporaryDirectory()
        self.sample()

    def sample(self) -> float:
        # An installed package is compiled; whether this checkout may be is the environment's business.
        command = [sys.executable, "-X", f"pycache_prefix={self._compiled.name}", "-c", _CODE]
        environ = {name: text for name, text in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environ)
        return float(done.stdout)

    def close(self) -> None:
        self._compiled.cleanup()


@dataclass
class NextLook:
    name: str = "next look"

    def open(self, world: World) -> None:
        del world
        self._settings = SidecarConfig()
        self._collector = Collector(self._settings)

    def sample(self) -> float:
        began = time.perf_counter()
        for _ in range(_LOOKS):
            detect(self._collector.look(), self._settings)
        return (time.perf_counter() - began) / _LOOKS

    def close(self) -> None:
        """Nothing is open."""


PEERS = (FirstLook(), NextLook())
