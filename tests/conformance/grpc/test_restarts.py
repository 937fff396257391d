"""The control plane goes away and returns: calls go on, with what it has said last."""

from __future__ import annotations

import grpc
import pytest

from meshlib.testing import build
from tests.conformance.support.scene import locality

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
A = "/x/A"


def test_calls_go_on_without_the_control_plane(scene, connect):
    """CA-01, ER-07."""
    scene.simple("a", "b")
    caller = connect()
    caller.becomes("a", "b")
    with caller.calling() as seen:
        scene.plane.kill()
        caller.becomes("a", "b", calls=100)
    assert set(seen) <= {"a", "b"}


def test_endpoints_die_and_return_without_the_control_plane(scene, connect):
    """CA-01: failover and return need none."""
    a, b = scene.serve("a"), scene.serve("b")
    scene.plane.update(*scene.cluster("main", locality("one", a), locality("other", b, priority=1)))
    scene.route(build.route(cluster="main"))
    caller = connect()
    caller.becomes("a")
    scene.plane.kill()
    a.kill()
    caller.becomes("b")
    a.start()
    caller.becomes("a")


def asked_again(request):
    """On the new stream; in the state of the world it is answered with the same, and by delta with nothing."""
    return request.stream > 1 and (request.is_ack or request.protocol == "delta")


def test_restart_fails_no_call_and_opens_no_connection(scene, connect):
    """CA-01, SW-13: the same is said again."""
    (a,) = scene.simple("a")
    caller = connect()
    caller.becomes("a")
    with caller.calling() as seen:
        scene.plane.restart()
        scene.plane.wait_for_request("endpoint", asked_again, timeout=15)
        caller.becomes("a")
    assert set(seen) == {"a"}
    assert a.connections == 1


@pytest.mark.plane(resend=False)
def test_control_plane_need_not_say_the_same_again(scene, connect):
    """EX-04: what is known stays, though the new stream does not bring it."""
    scene.simple("a")
    caller = connect()
    caller.becomes("a")
    scene.plane.restart()
    scene.plane.wait_for_streams(1, timeout=15)
    scene.plane.wait_for_request("endpoint", lambda request: request.stream > 1, timeout=15)
    assert caller.row(20) == ["a"] * 20
    scene.plane.update(scene.endpoints("main", scene.serve("b")))
    caller.becomes("b")


def test_what_changed_meanwhile_is_taken_after_a_restart(scene, connect):
    """ST-07, SW-19."""
    scene.simple("a")
    b = scene.serve("b")
    caller = connect()
    caller.becomes("a")
    scene.plane.kill()
    scene.plane.update(scene.endpoints("main", b))
    assert caller.row(10) == ["a"] * 10
    scene.plane.start()
    caller.becomes("b")


def test_what_was_deleted_meanwhile_is_gone_after_a_restart(scene, connect):
    """ST-07, SW-14: the new stream says what there is."""
    scene.named("a", "b")
    scene.route(build.route(path=A, cluster="a"), build.route(cluster="b"))
    caller = connect()
    caller.becomes("a", path=A)
    caller.becomes("b")
    scene.plane.kill()
    scene.plane.remove("cluster", "b")
    assert caller.row(10) == ["b"] * 10
    scene.plane.start()
    caller.fails()
    assert caller.row(5, A) == ["a"] * 5


def test_stream_that_is_ended_is_opened_again(scene, connect):
    """ST-05: after an answer that is no error, and calls go on."""
    scene.simple("a")
    caller = connect()
    caller.becomes("a")
    with caller.calling() as seen:
        scene.plane.drop_streams()
        scene.plane.wait_for(lambda: scene.plane.opened > 1, timeout=15)
        scene.plane.update(scene.endpoints("main", scene.serve("b")))
        caller.becomes("b")
    assert set(seen) == {"a", "b"}


def test_node_is_said_again_on_a_new_stream(scene, connect):
    """ST-02."""
    scene.simple("a")
    caller = connect()
    caller.becomes("a")
    scene.plane.drop_streams()
    request = scene.plane.wait_for_request(where=lambda request: request.stream > 1, timeout=15)
    assert request.node is not None
    assert request.node.id == "test"


def test_control_plane_that_is_not_there_is_unavailable(scene, connect):
    """CA-09, ST-11: once that is known; and the call says where it was looked for."""
    scene.simple("a")
    scene.plane.kill()
    answer = connect().call()
    assert answer.code is UNAVAILABLE
    assert scene.plane.address in answer.details


def test_control_plane_comes_late(scene, connect):
    """CA-09: no restart of ours is needed."""
    scene.simple("a")
    scene.plane.kill()
    caller = connect()
    assert caller.call().code is UNAVAILABLE
    scene.plane.start()
    caller.becomes("a")


@pytest.mark.oracle_differs("a call that waits in C-core never leaves the configuration that failed")
def test_call_that_waits_for_ready_waits_for_the_control_plane(scene, connect):
    """CA-09: others fail meanwhile."""
    scene.simple("a")
    scene.plane.kill()
    caller = connect()
    assert caller.call().code is UNAVAILABLE
    pending = caller.start(wait_for_ready=True, timeout=8)
    scene.plane.start()
    assert pending.result().outcome == "a"


def test_no_calls_end_is_the_streams(scene, connect):
    """ST-12: neither the deadline nor the cancellation of the call that opened it, nor of any other."""
    scene.plane.hold("listener")
    scene.simple("a")
    caller = connect()
    assert caller.call(timeout=0.3).code is grpc.StatusCode.DEADLINE_EXCEEDED
    pending = caller.start()
    pending.cancel()
    assert pending.result().code is grpc.StatusCode.CANCELLED
    scene.plane.release("listener")
    caller.becomes("a")
    assert scene.plane.opened == 1


def test_control_plane_that_refuses_streams_is_unavailable(scene, connect):
    """ST-05, ER-08: without an answer it is out of reach; its own code is not the call's."""
    scene.simple("a")
    scene.plane.refuse(grpc.StatusCode.PERMISSION_DENIED, "go away")
    caller = connect()
    assert caller.call().code is UNAVAILABLE
    scene.plane.accept()
    caller.becomes("a")


def test_channel_that_is_new_in_an_outage(scene, connect):
    """CA-01, FB-05: another channel to the target that is known has what is known."""
    scene.simple("a")
    caller = connect()
    caller.becomes("a")
    scene.plane.kill()
    assert connect().outcome() == "a"
    assert caller.outcome() == "a"
