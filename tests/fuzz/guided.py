"""What runs in the environment of atheris: libFuzzer's arguments, and a folder of inputs to begin with."""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["meshlib.wire"]):
    from tests.fuzz.http1 import one_input

atheris.Setup(sys.argv, one_input)
atheris.Fuzz()
