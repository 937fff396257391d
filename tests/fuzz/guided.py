"""What runs in the environment of atheris: libFuzzer's arguments, and a folder of inputs to begin with."""

from __future__ import annotations

import os
import sys
from importlib import import_module

import atheris

with atheris.instrument_imports(include=["meshlib.wire"]):
    target = import_module(f"tests.fuzz.{os.environ['MESHLIB_TEST_FUZZ']}")

atheris.Setup(sys.argv, target.one_input)
atheris.Fuzz()
