"""What a cluster orders of the calls to it goes before its routes' word: a real Envoy and meshlib do the same."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple

import pytest

from meshlib.testing import Upstream, build
from tests.e2e.oracle.beside import Beside
from tests.support.asking import asked

pytestmark = [pytest.mark.oracle, pytest.mark.timeout(120)]

KEY = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
NAMES = tuple(f"m{number}" for number in range(8))
#: An error is what says so, whatever its status is, and a 503 that does not say that it is none.
ERRORS = {
    "or_match": {
        "rules": [
            {"http_response_headers_match": {"headers": [{"name": "x-bad", "present_match": True}]}},
            {
                "and_match": {
                    "rules": [
                        {
                            "http_response_headers_match": {
                                "headers": [{"name": ":status", "string_match": {"exact": "503"}}]
                            }
                        },
                        {
                            "not_match": {
                                "http_response_headers_match": {
                                    "headers": [{"name": "x-fine", "present_match": True}]
                                }
                            }
                        },
                    ]
                }
            },
        ]
    }
}
NEVER = {"http_request_headers_match": {"headers": [{"name": "host", "present_match": True}]}}
OUTLIER = {
    "outlier_detection": {
        "consecutive_5xx": 1,
        "interval": "60s",
        "base_ejection_time": "60s",
        "max_ejection_percent": 50,
    },
    "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
}


def options(**fields: Any) -> dict[str, Any]:
    held = build.any_of(KEY, {"explicit_http_config": {"http_protocol_options": {}}, **fields})
    return {"typed_extension_protocol_options": {KEY: held}}


def retry(times: int, on: str = "5xx") -> dict[str, Any]:
    return {"retry_on": on, "num_retries": times, "retry_back_off": {"base_interval": "0.001s"}}


def to(path: str, cluster: str, **action: Any) -> dict[str, Any]:
    made = build.route(path, cluster=cluster)
    made["route"] |= action
    return made


class World(NamedTuple):
    beside: Beside
    failing: Upstream
    shadows: dict[str, Upstream]
    pairs: dict[str, list[Upstream]]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with ExitStack() as stack:
        ring = [stack.enter_context(Upstream(name)).address for name in NAMES]
        failing = stack.enter_context(Upstream("failing"))
        failing.fail(503)
        shadows = {name: stack.enter_context(Upstream(name)) for name in ("s1", "s2", "s3")}
        # Each client ejects on its own, and each case needs endpoints that are not ejected yet.
        cases = {"bad": ERRORS, "fine": ERRORS, "503": ERRORS, "never": NEVER, "not": {"not_match": NEVER}}
        pairs = {name: [stack.enter_context(Upstream(f"{name}{n}")) for n in range(2)] for name in cases}
        clusters = [
            build.cluster("retried", [failing.address], **options(retry_policy=retry(1))),
            build.cluster(
                "ring",
                ring,
                lb_policy="RING_HASH",
                **options(hash_policy=[{"header": {"header_name": "x-of-cluster"}}]),
            ),
            build.cluster("mirrored", [ring[0]], **options(request_mirror_policies=[{"cluster": "s1"}])),
            *(build.cluster(name, [each.address]) for name, each in shadows.items()),
            *(
                build.cluster(
                    f"judged-{name}",
                    [each.address for each in pairs[name]],
                    **options(outlier_detection={"error_matcher": matcher}),
                    **OUTLIER,
                )
                for name, matcher in cases.items()
            ),
        ]
        routes = [
            to("/retried/route", "retried", retry_policy=retry(2)),
            to("/retried/off", "retried", retry_policy=retry(2, "reset")),
            to("/retried", "retried"),
            to("/ring/route", "ring", hash_policy=[{"header": {"header_name": "x-of-route"}}]),
            to("/ring", "ring"),
            to("/mirrored/route", "mirrored", request_mirror_policies=[{"cluster": "s2"}]),
            to("/mirrored", "mirrored"),
            *(to(f"/judged/{name}", f"judged-{name}", retry_policy=retry(0)) for name in cases),
        ]
        hosts = {"retry_policy": retry(4), "request_mirror_policies": [{"cluster": "s3"}]}
        folder = tmp_path_factory.mktemp("envoy")
        listeners = {"plain": (routes, {}), "host": (routes, {})}
        beside = stack.enter_context(Beside(folder, listeners, *clusters, hosts=hosts))
        yield World(beside, failing, shadows, pairs)


@pytest.mark.parametrize("path", ["/retried", "/retried/route", "/retried/off"])
def test_retries(world: World, path: str) -> None:
    found = []
    for which in range(2):
        before = world.failing.requests_total
        assert world.beside.one(which, "plain", path).status == 503
        found.append(world.failing.requests_total - before)
    assert found == [2, 2]


def test_what_is_hashed(world: World) -> None:
    def name(which: int, path: str, **lines: str) -> str:
        return json.loads(world.beside.one(which, "plain", path, headers=lines).body)["name"]

    for path in ("/ring", "/ring/route"):
        found = []
        for which in range(2):
            alike = {name(which, path, **{"x-of-cluster": "a", "x-of-route": str(n)}) for n in range(8)}
            apart = {name(which, path, **{"x-of-cluster": str(n), "x-of-route": "a"}) for n in range(20)}
            assert len(alike) == 1
            assert len(apart) > 3
            found.append((alike, apart))
        assert found[0] == found[1]


@pytest.mark.parametrize("path", ["/mirrored", "/mirrored/route"])
def test_who_is_mirrored_to(world: World, path: str) -> None:
    for which in range(2):
        own = f"{path}?{which}"  # calls of other tests are mirrored to s3, and may arrive there now
        assert world.beside.one(which, "plain", own).status == 200

        def mirrored(name: str, own: str = own) -> int:
            return [each.path for each in world.shadows[name].requests].count(own)

        # Nobody is told of what is mirrored: neither the caller nor meshlib's own events.
        asked(lambda mirrored=mirrored: mirrored("s1") == 1)
        assert [mirrored(name) for name in ("s1", "s2", "s3")] == [1, 0, 0]


@pytest.mark.parametrize(
    ("name", "status", "lines", "ejected"),
    [
        ("bad", 200, [("x-bad", "1")], True),
        ("fine", 503, [("x-fine", "1")], False),
        ("503", 503, [], True),
        ("never", 503, [], False),
        ("not", 200, [], True),
    ],
)
def test_which_responses_are_errors(
    world: World, name: str, status: int, lines: list[tuple[str, str]], ejected: bool
) -> None:
    one, other = world.pairs[name]
    one.order(status=status, headers=lines)
    if name == "not":
        other.fail(404)  # is an error, too, and the last one is never ejected
    for which in range(2):
        world.beside.one(which, "plain", f"/judged/{name}")
        world.beside.one(which, "plain", f"/judged/{name}")
        if which and ejected:
            # Envoy ejects after the answer, and tells nobody of it.
            key = f"cluster.judged-{name}.outlier_detection.ejections_active"
            assert asked(lambda key=key: world.beside.envoy.stats(key).get(key) == 1, 20)
        before = one.requests_total, other.requests_total
        for _ in range(8):
            world.beside.one(which, "plain", f"/judged/{name}")
        came = one.requests_total - before[0], other.requests_total - before[1]
        assert sum(came) == 8
        assert (0 in came) is ejected, (which, came)
