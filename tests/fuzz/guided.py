"""What runs in the environment of atheris: libFuzzer's arguments, and a folder of inputs to begin with."""

from __future__ import annotations

import os
import sys
from importlib import import_module

import atheris

# What is tried is instrumented, and what it stands on is not: a mesh has modules that no input reaches.
INCLUDED = {
    "inputs": [
        "meshlib.core",
        "meshlib.config",
        "meshlib.sidecar",
        "meshlib.sources",
        "meshlib.inbound",
        "meshlib.hosts",
    ]
}

with atheris.instrument_imports(include=INCLUDED.get(os.environ["MESHLIB_TEST_FUZZ"], ["meshlib.wire"])):
    target = import_module(f"tests.fuzz.{os.environ['MESHLIB_TEST_FUZZ']}")

atheris.Setup(sys.argv, target.one_input)
atheris.Fuzz()
