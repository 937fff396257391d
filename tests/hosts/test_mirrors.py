"""Calls that go elsewhere, too: the same for every host (RW-04)."""

from __future__ import annotations

from typing import Any

from meshlib.testing import Upstream
from tests.support.asking import asked

UpstreamFactory = Any

#: What is another there.
ANOTHER = {"host": "", "x-envoy-expected-rq-timeout-ms": ""}
#: What urllib3 adds as it sends, to a request that says nothing of them.
OF_URLLIB3 = {"accept-encoding", "user-agent"}
Open = Any


def mirroring(one: Upstream, shadow: Upstream) -> dict[str, Any]:
    routes = [{"match": {"prefix": "/"}, "mirror": {"service": "next"}}]
    return {
        "services": {
            "reviews": {"endpoints": [one.address], "routes": routes},
            "next": {"endpoints": [shadow.address]},
        }
    }


def test_a_call_and_its_body_arrive_at_the_mirror(
    open_client: Open, meshlib_upstream: UpstreamFactory
) -> None:
    one, shadow = meshlib_upstream("one"), meshlib_upstream("shadow")
    client = open_client(mirroring(one, shadow))
    assert client.call(url="http://reviews/a?q=1").said["name"] == "one"
    assert client.call(method="POST", body=b"abc" * 999).said["body_length"] == 2997
    assert asked(lambda: len(shadow.requests) == 2, 20)
    found = {each.method: each for each in shadow.requests}
    assert (found["GET"].path, found["GET"].header("host")) == ("/a?q=1", "reviews-shadow")
    assert found["POST"].body == b"abc" * 999
    arrived = {each.method: each for each in one.requests}
    for method, each in found.items():
        lines = {name.lower(): value for name, value in each.headers} | ANOTHER
        meant = {name.lower(): value for name, value in arrived[method].headers} | ANOTHER
        assert lines.items() <= meant.items()
        assert meant.keys() - lines.keys() <= OF_URLLIB3


def test_a_body_that_comes_in_parts_is_not_mirrored(
    open_client: Open, meshlib_upstream: UpstreamFactory
) -> None:
    one, shadow = meshlib_upstream("one"), meshlib_upstream("shadow")
    client = open_client(mirroring(one, shadow))
    answer = client.call(method="POST", body=(b"a", b"b"))
    assert (answer.said["name"], answer.said["body_length"]) == ("one", 2)
    assert client.call().said["name"] == "one"
    assert asked(lambda: len(shadow.requests) == 1, 20)
    assert [each.method for each in shadow.requests] == ["GET"]
    assert client.mesh.status().clusters["next"].overflows == 1


def test_a_mirror_that_fails_is_nobodys_failure(open_client: Open, meshlib_upstream: UpstreamFactory) -> None:
    one, shadow = meshlib_upstream("one"), meshlib_upstream("shadow")
    client = open_client(mirroring(one, shadow))
    shadow.fail(503)
    assert client.call().status == 200
    assert asked(lambda: client.mesh.status().clusters["next"].failures == 1, 20)
    shadow.kill()
    assert client.call().status == 200
    assert asked(lambda: client.mesh.status().clusters["next"].failures == 2, 20)
    status = client.mesh.status().clusters["reviews"]
    assert (status.requests, status.failures) == (2, 0)
