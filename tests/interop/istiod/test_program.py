"""The program itself, without meshlib: it serves at the port that it says, refuses with reasons, and ends."""

from __future__ import annotations

import grpc
import pytest

from tests.interop.support import istio


def serves(address: str) -> bool:
    with grpc.insecure_channel(address) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=2)
        except grpc.FutureTimeoutError:
            return False
        return True


def test_it_comes_back_at_the_same_port(istiod):
    before = istiod.server
    assert serves(before)
    for end in (istiod.stop, istiod.kill):
        end()
        assert not serves(before)
        istiod.start()
        assert istiod.server == before
        assert serves(before)


def test_it_ends_with_its_standard_input(istiod):
    process = istiod._process
    process.stdin.close()
    assert process.wait(timeout=5) == 0


def test_objects_come_change_and_go_and_outlive_a_restart(istiod, upstream):
    v1 = upstream("v1")
    entry, rule = istio.service_entry("reviews", v1), istio.destination_rule("reviews", "v1")
    service, endpoints = istio.service("ratings", "10.96.0.10"), istio.endpoint_slice("ratings", v1)
    istiod.apply(entry, rule, service, endpoints)
    istiod.apply(entry, service)
    istiod.restart()
    istiod.delete(rule, endpoints)
    istiod.restart()
    with pytest.raises(AssertionError, match=r"endpointslices default/ratings-v1: .* not found"):
        istiod.delete(endpoints)
    with pytest.raises(AssertionError, match=r"DestinationRule default/reviews: .* not found"):
        istiod.delete(rule)
    istiod.clear()


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        (
            {"hosts": ["a.b"], "http": [{"timeout": "1s"}]},
            "HTTP route, redirect or direct_response is required",
        ),
        ({"hosts": [], "http": []}, "configuration is invalid"),
    ],
)
def test_what_is_wrong_in_an_object_is_named(istiod, spec, problem):
    wrong = {**istio.virtual_service("reviews"), "spec": spec}
    with pytest.raises(AssertionError, match=problem):
        istiod.apply(wrong)


def test_a_kind_that_is_not_hosted_is_refused(istiod):
    gateway = {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": "x"}}
    with pytest.raises(AssertionError, match="HTTPRoute: the Gateway API is not hosted here"):
        istiod.apply(gateway)
    with pytest.raises(AssertionError, match="Nothing"):
        istiod.apply({"apiVersion": "v9", "kind": "Nothing", "metadata": {"name": "x"}})
