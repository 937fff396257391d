"""What a gRPC channel was given: its credentials where a cluster demands TLS, and its options beneath."""

from __future__ import annotations

import json

import grpc
import grpc.experimental
import pytest

from meshlib.hosts.grpc.settings import Settings, inner_options

_INSECURE = grpc.experimental.insecure_channel_credentials()
_TLS = grpc.ssl_channel_credentials()
_TOKEN = grpc.access_token_call_credentials("token")


@pytest.mark.parametrize(
    ("credentials", "secure"),
    [
        (None, False),
        (_TLS, True),
        (grpc.composite_channel_credentials(_TLS, _TOKEN), True),
        (_INSECURE, False),
        # What they fall back to cannot be asked for; by default it is plain text.
        (grpc.xds_channel_credentials(), False),
        (grpc.xds_channel_credentials(_TLS), False),
    ],
)
def test_what_brings_tls_for_sure(credentials: grpc.ChannelCredentials | None, secure: bool) -> None:
    assert Settings((), credentials, None).secure is secure


def test_what_the_mesh_decides_goes_out_of_a_service_config() -> None:
    retry = {"maxAttempts": 4}
    given = {
        "loadBalancingConfig": [{"round_robin": {}}],
        "retryThrottling": {"maxTokens": 10},
        "methodConfig": [{"name": [{}], "timeout": "1s", "retryPolicy": retry, "hedgingPolicy": retry}],
    }
    options = (("grpc.service_config", json.dumps(given)), ("grpc.default_authority", "other"), ("x", 1))
    made = dict(inner_options(Settings(options, None, None), "stock"))
    assert json.loads(made["grpc.service_config"]) == {
        "methodConfig": [{"name": [{}], "timeout": "1s"}],
        "connectionScaling": {"maxConnectionsPerSubchannel": 10},
    }
    assert (made["grpc.default_authority"], made["x"]) == ("stock", 1)


@pytest.mark.parametrize("given", ["no json", "[]", '{"methodConfig": [1]}', b"\xff", 3])
def test_a_service_config_that_is_none_is_for_grpc_to_refuse(given: object) -> None:
    options = (("grpc.service_config", given),)
    assert dict(inner_options(Settings(options, None, None), "a"))["grpc.service_config"] == given


def test_a_service_config_may_say_how_many_connections() -> None:
    given = {"connectionScaling": {"maxConnectionsPerSubchannel": 2}}
    made = dict(inner_options(Settings((("grpc.service_config", json.dumps(given)),), None, None), "a"))
    assert json.loads(made["grpc.service_config"]) == given
