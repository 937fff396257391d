"""How long a call may take: ``max_stream_duration`` of a route and of the listener, and the application's deadline.

TO-01: the limit is ``grpc_timeout_header_max`` where that is set, else ``max_stream_duration`` of the route, else the
listener's; zero is none; the application's deadline is never put off. A case's server holds its calls, so that they end
by a limit alone.
"""

from __future__ import annotations

import grpc
import pytest

from meshlib.testing import build
from tests.support.late import again_if_late, soon, within

LATE = grpc.StatusCode.DEADLINE_EXCEEDED
LONG = 6.0  # seconds that a call has where another limit is to end it; and no less where none does


@pytest.fixture
def held(scene, connect):
    """A function that sets these limits, of the route and of the listener, and gives one that makes a call that is held."""

    def make(route=None, manager=None, *, timeout=LONG, **action):
        server = scene.serve("a")
        server.hold()
        if route is not None:
            action["max_stream_duration"] = route
        options = {"common_http_protocol_options": {"max_stream_duration": manager}} if manager else {}
        scene.plane.update(
            *scene.cluster("main", server),
            scene.routes(build.route(cluster="main", action=action)),
            scene.listener(manager=options),
        )
        return lambda: connect().call(timeout=timeout)

    return make


def late(answer, seconds):
    """A call was too late after so many seconds: not sooner, and within a second of a machine that is slow."""
    assert answer.code is LATE
    assert answer.seconds >= seconds - 0.05
    soon(answer.seconds, seconds + 0.9)


def ended(call, seconds):
    """One of a few calls, of which this function makes one, was so late, and none sooner."""
    again_if_late(lambda: late(call(), seconds))()


def test_route_limits_a_call(held, limit):
    """TO-01."""
    ended(held({"max_stream_duration": limit(0.3)}), 0.3)


def test_listener_limits_a_call(held, limit):
    """TO-01, LD-08: where the route says nothing."""
    ended(held(manager=limit(0.3)), 0.3)


def test_route_wins_over_the_listener(held, limit):
    """TO-01: also where it allows more."""
    ended(held({"max_stream_duration": limit(0.6)}, limit(0.2)), 0.6)


def test_zero_of_the_route_is_no_limit(held, limit):
    """TO-01: and hides the listener's."""
    ended(held({"max_stream_duration": "0s"}, limit(0.2), timeout=0.6), 0.6)


def test_header_max_wins_over_the_duration(held, limit):
    """TO-01: where it is shorter."""
    both = {"max_stream_duration": limit(9), "grpc_timeout_header_max": limit(0.3)}
    ended(held(both), 0.3)


def test_header_max_wins_where_it_is_longer(held, limit):
    """TO-01."""
    both = {"max_stream_duration": limit(0.2), "grpc_timeout_header_max": limit(0.6)}
    ended(held(both), 0.6)


def test_header_max_alone_limits_a_call(held, limit):
    """TO-01: and wins over the listener's duration."""
    ended(held({"grpc_timeout_header_max": limit(0.5)}, limit(0.2)), 0.5)


def test_header_max_of_zero_is_no_limit(held, limit):
    """TO-01: and hides both durations."""
    both = {"max_stream_duration": limit(0.2), "grpc_timeout_header_max": "0s"}
    ended(held(both, limit(0.2), timeout=0.6), 0.6)


def test_shorter_deadline_of_the_application_stands(held, limit):
    """TO-01: a configuration never puts it off."""
    ended(held({"max_stream_duration": limit(9)}, timeout=0.3), 0.3)


def test_call_without_a_deadline_is_limited(held, limit):
    """TO-01."""
    ended(held({"max_stream_duration": limit(0.4)}, timeout=None), 0.4)


def test_header_offset_counts_for_nothing(held, limit):
    """TO-01: ``grpc_timeout_header_offset`` takes nothing from a deadline."""
    both = {"grpc_timeout_header_max": limit(9), "grpc_timeout_header_offset": "0.4s"}
    ended(held(both, timeout=0.6), 0.6)


def test_idle_timeout_of_a_route_counts_for_nothing(held):
    """TO-01, DV-07: it is for HTTP."""
    ended(held(timeout=0.6, idle_timeout="0.1s"), 0.6)


def test_route_timeout_counts_for_nothing(scene, connect):
    """TO-01, DV-07: ``timeout`` is for HTTP."""
    (a,) = scene.simple("a")
    scene.route(build.route(cluster="main", timeout=0.1))
    a.hold()
    ended(lambda: connect().call(timeout=0.6), 0.6)


def test_limit_of_one_route_is_not_that_of_another(scene, connect, limit):
    """TO-01."""
    (a,) = scene.simple("a")
    short = {"max_stream_duration": {"max_stream_duration": limit(0.2)}}
    scene.route(build.route(path="/x/Short", cluster="main", action=short), build.route(cluster="main"))
    a.hold()

    @again_if_late
    def beside():
        caller = connect()
        pending = [caller.start("/x/Short", timeout=LONG), caller.start("/x/Long", timeout=0.7)]
        answers = [each.result() for each in pending]
        late(answers[0], 0.2)
        late(answers[1], 0.7)

    beside()


def test_stream_is_limited(scene, connect, limit):
    """TO-01: a stream that says something all the time, too."""
    scene.simple("a")
    scene.route(
        build.route(cluster="main", action={"max_stream_duration": {"max_stream_duration": limit(1.5)}})
    )
    caller = connect()
    caller.becomes("a")  # the time of the stream is not spent on connecting
    talk = caller.talk(timeout=None)
    assert talk.say() == "a"
    assert talk.say() == "a"
    assert talk.over() is LATE


def test_limit_changes_for_the_calls_behind_it(scene, connect, limit):
    """TO-01."""
    (a,) = scene.simple("a")
    a.hold()
    caller = connect()
    ended(lambda: caller.call(timeout=0.4), 0.4)
    scene.route(
        build.route(cluster="main", action={"max_stream_duration": {"max_stream_duration": limit(0.2)}})
    )
    caller.until(lambda answer: answer.seconds < 0.6, timeout=1.5)


def test_server_sees_the_applications_deadline(scene, connect):
    """TO-01: what is left of it travels with the call."""
    scene.simple("a")

    def lost():
        left = connect().call(timeout=7).left
        assert left is not None
        assert left <= 7.2
        return 7 - left

    within(-0.2, 2.0, lost)


def test_limit_below_zero_is_refused(scene, connect):
    """ER-12: the routes before stay."""
    scene.simple("a")
    caller = connect()
    assert caller.outcome() == "a"
    limits = {"max_stream_duration": {"max_stream_duration": "-1s"}}
    scene.plane.update(scene.routes(build.route(cluster="nothing", action=limits)))
    scene.plane.wait_for_nack("route")
    assert caller.row(5) == ["a"] * 5
