"""Hedges of blocking gRPC calls with one message each way; and that calls of other kinds, which get none, go on as they did."""

from __future__ import annotations

from typing import Any

import grpc

import meshlib
from tests.support.asking import asked
from tests.support.grpc_channels import FACES, Channel, service

Code = grpc.StatusCode
HEDGE = {"hedge": {"after": 0.05}}


def active(mesh: Any) -> int:
    return sum(cluster.active for cluster in mesh.status().clusters.values())


def channel(kind: str, mesh: meshlib.Mesh) -> Channel:
    return Channel(kind, "stock", mesh)


def test_a_slow_endpoint_is_not_waited_for_and_its_call_is_cancelled(meshlib_grpc_upstream: Any) -> None:
    slow, fast = meshlib_grpc_upstream("slow"), meshlib_grpc_upstream("fast")
    slow.hang()
    with meshlib.Mesh(service(slow, fast, **HEDGE)) as mesh, channel(FACES[0], mesh) as here:
        calls = [here.call(timeout=20.0)[1] for _ in range(4)]
        hedged = [info for call in calls if len((info := meshlib.call_info(call)).attempts) == 2]
        assert hedged
        for info in hedged:
            assert [attempt.outcome for attempt in info.attempts] == ["cancelled", "ok"]
            assert info.endpoint == fast.address
        assert asked(lambda: slow.calls_open == 0), "the server is told that nobody waits any more"
        (cluster,) = mesh.status().clusters.values()
        assert (active(mesh), cluster.failures, cluster.retries) == (0, 0, len(hedged))


def test_unavailable_is_waited_over_and_another_code_is_the_answer(meshlib_grpc_upstream: Any) -> None:
    """gRFC A6: a code that is not fatal leaves the other attempts under way; one that is ends the call."""
    slow, bad = meshlib_grpc_upstream("slow"), meshlib_grpc_upstream("bad")
    for code, ends in ((Code.UNAVAILABLE, "ok"), (Code.NOT_FOUND, "status")):
        slow.behave()
        bad.behave()
        slow.order(delay=0.4)
        bad.fail(code)
        with meshlib.Mesh(service(slow, bad, **HEDGE)) as mesh, channel(FACES[0], mesh) as here:
            found = []
            for _ in range(2):
                try:
                    found.append(meshlib.call_info(here.call(timeout=20.0)[1]))
                except grpc.RpcError as error:
                    found.append(meshlib.call_info(error))
            first = next(info for info in found if info.attempts[0].endpoint == slow.address)
            assert len(first.attempts) == 2
            answered = next(attempt for attempt in first.attempts if attempt.endpoint == first.endpoint)
            assert answered.outcome == ends
            assert active(mesh) == 0


def test_calls_of_other_kinds_are_not_hedged_and_go_on(meshlib_grpc_upstream: Any) -> None:
    servers = [meshlib_grpc_upstream(f"v{number}") for number in range(2)]
    servers[0].order(delay=0.2)
    for kind in FACES:
        with meshlib.Mesh(service(*servers, **HEDGE)) as mesh, channel(kind, mesh) as here:
            assert [len(here.server_stream(timeout=20.0)) > 0 for _ in range(2)] == [True, True]
            assert here.client_stream([b"a", b"b"], timeout=20.0)
            if kind == "aio":
                calls = [here.call(timeout=20.0)[1] for _ in range(2)]
                assert [len(meshlib.call_info(call).attempts) for call in calls] == [1, 1]
            assert active(mesh) == 0
