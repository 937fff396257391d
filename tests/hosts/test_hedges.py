"""A call whose endpoint is slow is made at another, beside it: the first good answer is taken, and nothing of the other is left."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from meshlib.model.events import AttemptEnded, AttemptStarted, HedgeStarted
from meshlib.testing import Upstream
from tests.hosts.columns import Ask
from tests.hosts.kit import active, service
from tests.support.asking import asked

UpstreamFactory = Any
Open = Any


def _settled(client: Any, *servers: Upstream) -> bool:
    """Nothing is in flight any more, neither counted here nor held there."""
    return asked(lambda: not (active(client) or any(server.connections_open for server in servers)))


def test_the_first_good_answer_is_the_calls_and_the_other_attempt_is_given_up(
    open_client: Open, meshlib_upstream: UpstreamFactory, right: str
) -> None:
    slow, fast = meshlib_upstream("slow"), meshlib_upstream("fast")
    if right != "no retries":
        slow.hang()
    client = open_client(service(slow, fast, hedge={"after": 0.1}))
    seen: list[object] = []
    client.mesh._observe(seen.append)
    answers = [client.call() for _ in range(4)]
    if right == "no retries":
        assert [len(answer.info.attempts) for answer in answers] == [1] * 4
        return
    assert [answer.said["name"] for answer in answers] == ["fast"] * 4
    infos = [answer.info for answer in answers]
    # A call that begins at the fast one has a hedge, too, where that was held up.
    beside = [info for info in infos if len(info.attempts) == 2]
    hedged = [info for info in beside if info.attempts[0].endpoint == slow.address]
    assert hedged, "round robin sent one of the first two to the slow one"
    for info in hedged:
        assert [attempt.outcome for attempt in info.attempts] == ["cancelled", "ok"]
        assert info.endpoint == fast.address
        assert "hedged away" in "\n".join(info.trace())
        assert info.seconds < 5.0
    assert _settled(client, slow), "something of an attempt that was given up is left"
    begun = Counter(event.key for event in seen if isinstance(event, AttemptStarted))
    ended = Counter(event.key for event in seen if isinstance(event, AttemptEnded))
    assert begun == ended
    assert set(begun.values()) == {1}
    assert sum(isinstance(event, HedgeStarted) for event in seen) == len(beside)
    (cluster,) = client.mesh.status().clusters.values()
    assert (cluster.failures, cluster.retries) == (0, len(beside))


def _answered_beside(client: Any, server: Upstream, pool: ThreadPoolExecutor) -> None:
    """What ``server`` holds goes on once a bad answer came to the other attempt of the same call, and no sooner."""
    in_flight = 0

    def release() -> None:
        server.wait_for(lambda: server.held == 1, timeout=20)
        server.release()

    def note(event: object) -> None:
        nonlocal in_flight
        if isinstance(event, AttemptStarted):
            in_flight += 1
        elif isinstance(event, AttemptEnded):
            in_flight -= 1
            if event.outcome.status == 503 and in_flight:
                pool.submit(release)

    client.mesh._observe(note)


def test_a_bad_answer_is_waited_over_and_a_call_that_must_not_be_sent_twice_is_not(
    open_client: Open, meshlib_upstream: UpstreamFactory, right: str
) -> None:
    slow, bad = meshlib_upstream("slow"), meshlib_upstream("bad")
    bad.fail(503)
    client = open_client(service(slow, bad, hedge={"after": 0.05}))
    slow.order(delay=0.3)  # a call that is not hedged takes longer than ``after``, too
    with ThreadPoolExecutor(1) as pool:
        if right != "no retries":
            slow.hang()
            _answered_beside(client, slow, pool)
        answers = (client.call() for _ in range(10))  # one that was held up at `bad` takes the turn of `slow`
        hedged = next(answer for answer in answers if answer.info.attempts[0].endpoint == slow.address)
    slow.order(delay=0.3)
    assert hedged.status == 200
    attempts = [("ok", 200)] if right == "no retries" else [("ok", 200), ("status", 503)]
    assert [(attempt.outcome, attempt.status) for attempt in hedged.info.attempts] == attempts
    assert hedged.info.endpoint == slow.address
    posted = [client.call(Ask(method="POST", body=b"once")) for _ in range(2)]
    assert [len(answer.info.attempts) for answer in posted] == [1, 1]
    assert asked(lambda: not active(client))
