"""How often the connection of a TCP proxy is tried to be made: through a real Envoy, and as meshlib has it for calls of HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

import meshlib
from meshlib.testing import Upstream, build
from meshlib.testing.control_plane import ControlPlane
from tests.e2e.oracle.envoy_process import EnvoyProcess
from tests.support.ports import Ports

pytestmark = [pytest.mark.oracle, pytest.mark.timeout(120)]

CASES: dict[str, dict[str, Any]] = {
    "once": {},
    "once, said": {"max_connect_attempts": 1},
    "twice": {"max_connect_attempts": 2},
    "twice, with a pause": {
        "max_connect_attempts": 2,
        "backoff_options": {"base_interval": "0.001s", "max_interval": "0.01s"},
    },
}
CALLS = 8


def listener(name: str, port: int, fields: dict[str, Any]) -> dict[str, Any]:
    made = build.tcp_listener(name, "c", address=f"127.0.0.1:{port}")
    made["filter_chains"][0]["filters"][0]["typed_config"].update(fields)
    return made


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Of ``CALLS`` calls, each on a connection of its own, how many were answered: by meshlib's client, and by a plain one through Envoy."""
    with ExitStack() as stack:
        upstream = stack.enter_context(Upstream("v1"))
        held = Ports(len(CASES) + 1)
        stack.callback(held.close)
        *numbers, nobody = held.numbers
        ports = dict(zip(CASES, numbers, strict=True))
        members = [upstream.address, f"127.0.0.1:{nobody}"]
        plane = stack.enter_context(
            ControlPlane(
                build.cluster("c", members, lb_policy="ROUND_ROBIN"),
                *(listener(case, ports[case], fields) for case, fields in CASES.items()),
            )
        )
        envoy = stack.enter_context(EnvoyProcess(plane.address, tmp_path_factory.mktemp("envoy")))
        envoy.wait_for_listeners(len(CASES))
        mesh = stack.enter_context(meshlib.Mesh({"xds": {"server": plane.address, "view": "sidecar"}}))
        mesh.wait_ready(*(f"127.0.0.1:{port}" for port in numbers), timeout=30)

        def ask(case: str) -> tuple[int, int]:
            answered = []
            for make, more in ((meshlib.Client, {"mesh": mesh}), (httpx.Client, {})):
                count = 0
                for _ in range(CALLS):
                    with make(timeout=20, trust_env=False, **more) as client:
                        try:
                            count += client.get(f"http://127.0.0.1:{ports[case]}/").status_code == 200
                        except httpx.TransportError:
                            continue
                answered.append(count)
            return answered[0], answered[1]

        yield ask


@pytest.mark.parametrize("case", CASES)
def test_as_many_calls_are_answered(case: str, asked: Any) -> None:
    """One of the two endpoints is away, and they take turns."""
    ours, theirs = asked(case)
    assert ours == theirs == (CALLS if "twice" in case else CALLS // 2)
