"""What the client status service tells of a stream: CS-01, CS-02."""

from __future__ import annotations

import base64

import pytest

from meshlib.testing import build
from meshlib.xds import csds, schema
from meshlib.xds.values import ServerFeatures
from tests.support.xds_kit import ERROR, STATUS, Wire, raw, simple

REQUEST = schema.message("envoy.service.status.v3.ClientStatusRequest")
RESPONSE = schema.message("envoy.service.status.v3.ClientStatusResponse")
EPOCH = 1_000_000.0
BAD = build.cluster("a", connect_timeout="-1s")


def told(wire, request=b""):
    """The only client's configuration."""
    session = wire.session
    [config] = RESPONSE.FromString(csds.answer(request, lambda: [session.look(EPOCH)])).config
    return config


def resource(wire, short, name, request=b""):
    url = schema.TYPE_URLS[short]
    found = [
        each for each in told(wire, request).generic_xds_configs if (each.type_url, each.name) == (url, name)
    ]
    assert len(found) == 1, found
    return found[0]


def state(wire, short, name):
    number = resource(wire, short, name).client_status
    enum = schema.message("envoy.service.status.v3.ClientConfig.GenericXdsConfig").DESCRIPTOR
    return enum.fields_by_name["client_status"].enum_type.values_by_number[number].name


def wanting(name="a", **options):
    wire = Wire("target", **options)
    wire.open()
    wire.want(name)
    return wire


def whole(name="a", **options):
    wire = wanting(name, **options)
    for short, made in simple(name).items():
        wire.send(short, made)
    return wire


def test_cs_01_one_configuration_a_client_with_its_node():
    config = told(whole())
    assert config.node.id == "me"
    assert config.client_scope == csds.SCOPE
    assert not len(config.xds_config)  # the deprecated list
    assert {each.type_url for each in config.generic_xds_configs} == {
        schema.LISTENER, schema.ROUTE, schema.CLUSTER, schema.ENDPOINT
    }  # fmt: skip


def test_a_mesh_is_one_client_whatever_number_of_streams_it_has():
    """grpcdebug reads no answer that has two."""
    sidecar, target = Wire("sidecar"), whole()
    sidecar.open()
    sidecar.send(
        "cluster", build.cluster("a", ["10.0.0.9:80"]), build.cluster("b", ["10.0.0.9:80"]), version="s"
    )
    both = [*sidecar.session.look(EPOCH), *target.session.look(EPOCH)]
    [config] = RESPONSE.FromString(csds.answer(b"", lambda: [both, []])).config
    clusters = [each for each in config.generic_xds_configs if each.type_url == schema.CLUSTER]
    assert {each.name: each.version_info for each in clusters} == {"a": "3", "b": "s"}


def test_cs_01_the_resource_as_it_was_received():
    wire = wanting()
    wire.now = 7.5
    wire.send("listener", simple("a")["listener"], version="v3")
    found = resource(wire, "listener", "a")
    assert (found.version_info, found.xds_config.type_url) == ("v3", schema.LISTENER)
    assert found.xds_config.value == raw(simple("a")["listener"])
    assert found.last_updated.ToNanoseconds() == int((EPOCH + 7.5) * 1e9)
    assert not found.HasField("error_state")


def test_cs_02_requested_then_acked():
    wire = wanting()
    assert state(wire, "listener", "a") == "REQUESTED"
    assert not resource(wire, "listener", "a").HasField("xds_config")
    assert not resource(wire, "listener", "a").HasField("last_updated")
    wire.send("listener", simple("a")["listener"])
    assert state(wire, "listener", "a") == "ACKED"


def test_cs_02_does_not_exist():
    wire = wanting()
    wire.pass_time(16)
    assert state(wire, "listener", "a") == "DOES_NOT_EXIST"
    assert not resource(wire, "listener", "a").HasField("error_state")


def test_cs_02_nacked_keeps_the_last_good_and_a_later_good_one_clears_the_error():
    wire = whole()
    good = resource(wire, "cluster", "a")
    wire.now = 20.0
    wire.send("cluster", BAD, version="v9")
    found = resource(wire, "cluster", "a")
    assert state(wire, "cluster", "a") == "NACKED"
    assert (found.version_info, found.xds_config.value) == (good.version_info, good.xds_config.value)
    assert found.error_state.version_info == "v9"
    assert "connect_timeout" in found.error_state.details
    assert found.error_state.last_update_attempt.ToNanoseconds() == int((EPOCH + 20.0) * 1e9)
    assert found.error_state.failed_configuration.value == raw(BAD)
    wire.send("cluster", simple("a")["cluster"], version="v10")
    found = resource(wire, "cluster", "a")
    assert state(wire, "cluster", "a") == "ACKED"
    assert (found.version_info, found.HasField("error_state")) == ("v10", False)


def test_cs_02_nacked_at_first_has_no_configuration():
    wire = wanting()
    bad = build.api_listener("a", "r", manager={"http_filters": []})
    wire.send("listener", bad, version="v1")
    found = resource(wire, "listener", "a")
    assert (state(wire, "listener", "a"), found.HasField("xds_config")) == ("NACKED", False)
    assert found.error_state.failed_configuration.value == raw(bad)


def test_cs_02_received_error():
    wire = wanting()
    error = ERROR(error_detail=STATUS(code=7, message="not yours"))
    error.resource_name.name = "a"
    wire.send("listener", errors=[error])
    found = resource(wire, "listener", "a")
    assert state(wire, "listener", "a") == "RECEIVED_ERROR"
    assert "not yours" in found.error_state.details


def test_cs_02_timeout():
    wire = wanting(features=ServerFeatures(resource_timer_is_transient_error=True))
    wire.pass_time(31)
    assert state(wire, "listener", "a") == "TIMEOUT"
    assert "30 s" in resource(wire, "listener", "a").error_state.details


def test_contents_can_be_left_out():
    wire = whole()
    wire.send("cluster", BAD)
    asked = REQUEST(exclude_resource_contents=True).SerializeToString()
    for each in told(wire, asked).generic_xds_configs:
        assert not each.HasField("xds_config")
        assert not each.error_state.HasField("failed_configuration")


def test_cs_01_node_matchers_are_refused_before_anybody_is_asked():
    matcher = b"\x0a\x00"  # an empty NodeMatcher
    with pytest.raises(csds.Refused, match="node_matchers"):
        csds.answer(matcher, lambda: pytest.fail("asked"))


@pytest.mark.parametrize("request_", [b"\xff", b"\x0a\xff\xff\xff\xff\x0f", b"\x12\x01\xff"])
def test_bytes_that_are_no_request_are_refused(request_):
    with pytest.raises(csds.Refused, match="is no"):
        csds.answer(request_, list)


KEY = b"-----BEGIN PRIVATE KEY-----\nMAMCAQU=\n-----END PRIVATE KEY-----\n"


def test_no_secret_is_told():
    certificate = {
        "certificate_chain": {"filename": "/c"},
        "private_key": {"inline_bytes": base64.b64encode(KEY).decode()},
    }
    context = {"common_tls_context": {"tls_certificates": [certificate]}}
    socket = {
        "name": "tls",
        "typed_config": build.any_of("envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext", context),
    }
    kept = simple("a")["cluster"] | {"transport_socket": socket}
    wire = Wire("auto")
    wire.open()
    wire.want("a")
    for short, made in (simple("a") | {"cluster": kept}).items():
        wire.send(short, made)
    found = resource(wire, "cluster", "a")
    assert (state(wire, "cluster", "a"), found.HasField("xds_config")) == ("ACKED", False)
    wire.send("cluster", kept | {"connect_timeout": "-1s"})
    found = resource(wire, "cluster", "a")
    assert (state(wire, "cluster", "a"), found.error_state.HasField("failed_configuration")) == (
        "NACKED",
        False,
    )


def test_credentials_of_the_node_are_not_told():
    metadata = {
        "API_TOKEN": "s3cret",
        "ISTIO_VERSION": "1",
        "deep": {"password": "s3cret", "labels": [{"secret": "s3cret"}]},
    }
    node = schema.from_json(
        "envoy.config.core.v3.Node", {"id": "me", "metadata": metadata}
    ).SerializeToString()
    wire = whole()
    made = csds.look(node, 0.0, wire.session.cache_of(0), ())
    said = csds.answer(b"", lambda: [[made]])
    assert b"s3cret" not in said
    fields = RESPONSE.FromString(said).config[0].node.metadata.fields
    assert set(fields) == {"ISTIO_VERSION", "deep"}
