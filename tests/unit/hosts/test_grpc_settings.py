"""What a gRPC channel's credentials are worth where a cluster demands TLS."""

from __future__ import annotations

import grpc
import grpc.experimental
import pytest

from meshlib.hosts.grpc.subchannels import Settings

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
