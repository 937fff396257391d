"""A call whose endpoint is slow is made at another, beside it: the first good answer is taken, and nothing of the other is left."""

from __future__ import annotations

from collections import Counter
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
    client = open_client(service(slow, fast, hedge={"after": 0.05}))
    seen: list[object] = []
    client.mesh._observe(seen.append)
    answers = [client.call() for _ in range(4)]
    if right == "no retries":
        assert [len(answer.info.attempts) for answer in answers] == [1] * 4
        return
    assert [answer.said["name"] for answer in answers] == ["fast"] * 4
    infos = [answer.info for answer in answers]
    hedged = [info for info in infos if len(info.attempts) == 2]
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
    assert sum(isinstance(event, HedgeStarted) for event in seen) == len(hedged)
    (cluster,) = client.mesh.status().clusters.values()
    assert (cluster.failures, cluster.retries) == (0, len(hedged))


def test_a_bad_answer_is_waited_over_and_a_call_that_must_not_be_sent_twice_is_not(
    open_client: Open, meshlib_upstream: UpstreamFactory, right: str
) -> None:
    slow, bad = meshlib_upstream("slow"), meshlib_upstream("bad")
    slow.order(delay=0.3)
    bad.fail(503)
    client = open_client(service(slow, bad, hedge={"after": 0.05}))
    answers = [client.call() for _ in range(2)]
    hedged = next(answer for answer in answers if answer.info.attempts[0].endpoint == slow.address)
    assert hedged.status == 200
    attempts = [("ok", 200)] if right == "no retries" else [("ok", 200), ("status", 503)]
    assert [(attempt.outcome, attempt.status) for attempt in hedged.info.attempts] == attempts
    assert hedged.info.endpoint == slow.address
    posted = [client.call(Ask(method="POST", body=b"once")) for _ in range(2)]
    assert [len(answer.info.attempts) for answer in posted] == [1, 1]
    assert not active(client)
