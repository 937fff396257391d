"""What a gRPC channel was given: its credentials where a cluster demands TLS, and its options beneath."""

from __future__ import annotations

import json

import grpc
import grpc.experimental
import pytest

from meshlib.hosts.grpc.settings import Settings, inner_options, uri
from meshlib.model.address import Address
from meshlib.model.policy import Limits

_INSECURE = grpc.experimental.insecure_channel_credentials()
_TLS = grpc.ssl_channel_credentials()
_UNLIMITED = Limits.unlimited()
_TOKEN = grpc.access_token_call_credentials("token")


@pytest.mark.parametrize(
    ("credentials", "secure"),
    [
        (None, False),
        (_TLS, True),
        (grpc.composite_channel_credentials(_TLS, _TOKEN), True),
        (_INSECURE, False),
        (grpc.local_channel_credentials(), False),  # plain text
        (grpc.xds_channel_credentials(), False),
        (grpc.xds_channel_credentials(_TLS), False),
        (grpc.composite_channel_credentials(grpc.xds_channel_credentials(_TLS), _TOKEN), False),
    ],
)
def test_what_brings_tls_for_sure(credentials: grpc.ChannelCredentials | None, secure: bool) -> None:
    assert Settings((), credentials, None).given.secure is secure


def test_what_the_mesh_decides_goes_out_of_a_service_config() -> None:
    retry = {
        "maxAttempts": 4,
        "initialBackoff": "0.1s",
        "maxBackoff": "1s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
    given = {
        "loadBalancingConfig": [{"round_robin": {}}],
        "retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1},
        "methodConfig": [{"name": [{}], "timeout": "1s", "retryPolicy": retry, "hedgingPolicy": retry}],
    }
    options = (("grpc.service_config", json.dumps(given)), ("grpc.default_authority", "other"), ("x", 1))
    made = dict(inner_options(Settings(options, None, None), "stock", _UNLIMITED))
    assert json.loads(made["grpc.service_config"]) == {
        "methodConfig": [{"name": [{}], "timeout": "1s"}],
        "connectionScaling": {"maxConnectionsPerSubchannel": 10},
    }
    assert (made["grpc.default_authority"], made["x"]) == ("stock", 1)


def test_calls_that_a_tunnel_takes_are_of_https() -> None:
    """grpc sees plain text to a Unix socket, and would say so to the server (RFC 9113, 8.3.1)."""
    settings = Settings((), None, None)
    made = [
        dict(inner_options(settings, "a", _UNLIMITED, tunnelled=tunnelled)) for tunnelled in (True, False)
    ]
    assert [each.get("grpc.http2_scheme") for each in made] == ["https", None]


@pytest.mark.parametrize("given", ["no json", "[]", '{"methodConfig": [1]}', b"\xff", 3])
def test_a_service_config_that_is_none_is_for_grpc_to_refuse(given: object) -> None:
    options = (("grpc.service_config", given),)
    assert dict(inner_options(Settings(options, None, None), "a", _UNLIMITED))["grpc.service_config"] == given


@pytest.mark.parametrize(
    ("limits", "given", "expected"),
    [
        (Limits(), None, 10),
        (Limits(), 2, 2),
        (Limits(grpc_connections=1), None, 1),
        (Limits(grpc_connections=1), 2, 2),
        (Limits(max_connections_per_endpoint=3), None, 3),
        (Limits(max_connections_per_endpoint=3), 7, 3),
        (Limits(max_connections_per_endpoint=0), 7, 1),
    ],
)
def test_a105_how_many_connections_an_endpoint_may_have(
    limits: Limits, given: int | None, expected: int
) -> None:
    """The mesh says, else the application, else gRPC's bound or what its control planes expect."""
    config = {} if given is None else {"connectionScaling": {"maxConnectionsPerSubchannel": given}}
    settings = Settings((("grpc.service_config", json.dumps(config)),), None, None)
    made = dict(inner_options(settings, "a", limits))
    assert json.loads(made["grpc.service_config"]) == {
        "connectionScaling": {"maxConnectionsPerSubchannel": expected}
    }


@pytest.mark.parametrize(
    ("config", "checks"),
    [
        ({"healthCheckConfig": {"serviceName": "s"}}, True),
        ({"healthCheckConfig": {"serviceName": ""}}, True),
        ({"healthCheckConfig": {}}, False),
        ({"healthCheckConfig": {"serviceName": 3}}, False),  # which grpc refuses
        ({"healthCheckConfig": []}, False),
        ({}, False),
        ([], False),
    ],
)
def test_a17_which_service_configs_order_health_checks(config: object, checks: bool) -> None:
    """grpc's core makes them, by a balancer that has them."""
    settings = Settings((("grpc.service_config", json.dumps(config)),), None, None)
    assert settings.checks is checks
    for checked in (True, False):
        made = dict(inner_options(settings, "a", _UNLIMITED, checked=checked))["grpc.service_config"]
        if config == []:
            assert made == "[]"
            continue
        assert ("loadBalancingConfig" in json.loads(made)) is checked
        assert json.loads(made).get("healthCheckConfig") == config.get("healthCheckConfig")  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("address", "target"),
    [
        ("10.0.0.1:80", "ipv4:10.0.0.1:80"),
        ("[::1]:80", "ipv6:[::1]:80"),
        ("reviews:80", "dns:///reviews:80"),
        ("unix:/run/reviews.sock", "unix:/run/reviews.sock"),
        ("unix:/run/50% of?them#1", "unix:/run/50%25%20of%3Fthem%231"),  # grpc reads a URI
    ],
)
def test_an_endpoint_s_address_as_a_target(address: str, target: str) -> None:
    assert uri(Address.parse(address)) == target
