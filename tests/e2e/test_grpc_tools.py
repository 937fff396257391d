"""Other tools that trace grpc, each alone and all at once, set up before meshlib or after it: nobody sees a call twice. Each row
runs in a process of its own: these tools replace parts of grpc for the whole process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import grpc
import pytest

from tests.support.rpc_server import RpcServer

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "tests" / "support" / "rpc_spans_program.py"
CONTRIB = "opentelemetry.instrumentation.grpc"
EACH = ("opentelemetry", "sentry", "ddtrace")


class Refusing(RpcServer):
    """Refuses each other attempt."""

    def _begin(self, context: grpc.ServicerContext) -> None:
        self.codes = [] if len(self.metadata) % 2 else [grpc.StatusCode.UNAVAILABLE]
        super()._begin(context)


@pytest.mark.parametrize("order", ["before", "after"])
@pytest.mark.parametrize("tools", [*EACH, ",".join(EACH), ",".join(reversed(EACH))])
def test_one_client_span_a_call_in_each_system(tools: str, order: str) -> None:
    with Refusing() as server:
        done = subprocess.run(
            [sys.executable, str(PROGRAM), order, tools, server.address],
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for index, (way, seen) in enumerate(found.items()):
        through = way.startswith("around")
        # The innermost of them that OpenTelemetry has is the call's span; where there is none, ours is.
        whose = CONTRIB if through and "opentelemetry" in tools else "meshlib"
        assert seen.pop("opentelemetry") == [whose], (way, found)
        attempts = seen.pop("attempts")
        arrived = [server.parent(2 * index), server.parent(2 * index + 1)]
        assert arrived == attempts, (way, found)
        # Who is not asked sees nothing: what the mesh calls by, it makes past the factories that these replace.
        assert {name: len(spans) for name, spans in seen.items()} == {
            name: int(through) for name in tools.split(",") if name != "opentelemetry"
        }, (way, found)
