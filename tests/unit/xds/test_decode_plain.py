"""A plain endpoint, of which all bytes are accounted for, is read as it is read field by field, and nothing else is taken for one."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshlib.testing import build
from meshlib.xds import decode, schema

decoder = sys.modules["meshlib.xds.decode.endpoint"]  # the package's `endpoint` is the function
_NAME = "envoy.config.endpoint.v3.ClusterLoadAssignment"

hosts = st.sampled_from(
    ["10.0.0.1", "255.255.255.255", "0.0.0.0", "1.2.3", "1.2.3.4.5", "010.0.0.1", "256.0.0.1", "::1", "2001:db8::1", "name", ""]
)  # fmt: skip
ports = st.sampled_from([0, 1, 80, 127, 128, 16383, 16384, 65535, 65536, 1 << 31])
weights = st.none() | st.sampled_from([0, 1, 127, 128, 1 << 14, 1 << 21, 1 << 28, (1 << 32) - 1])
healths = st.sampled_from([0, 1, 2, 3, 4, 5, 6, 127, 128, 300])
#: Paths from the endpoint on, each to a message that gets a field that the schema does not have.
unknown = st.sampled_from(
    [None, (), ("endpoint",), ("endpoint", "address"), ("endpoint", "address", "socket_address"), ("load_balancing_weight",)]
)  # fmt: skip


@st.composite
def endpoints(draw: st.DrawFn) -> Any:
    message = schema.message("envoy.config.endpoint.v3.LbEndpoint")()
    if draw(st.integers(0, 9)):
        held = message.endpoint.address.socket_address
        held.address, held.port_value = draw(hosts), draw(ports)
    weight = draw(weights)
    if weight is not None:
        message.load_balancing_weight.value = weight
        message.load_balancing_weight.SetInParent()
    message.health_status = draw(healths)
    if not draw(st.integers(0, 3)):
        _more(draw, message)
    return message


def _more(draw: st.DrawFn, message: Any) -> None:
    """What a plain one has not."""
    held = message.endpoint
    said = draw(
        st.sampled_from(
            ["hostname", "additional", "metadata", "empty metadata", "protocol", "named port", "check"]
        )
    )
    if said == "hostname":
        held.hostname = "a.test"
    elif said == "additional":
        held.additional_addresses.add().address.socket_address.address = "10.0.0.2"
    elif said == "metadata":
        message.metadata.filter_metadata["envoy.lb"].fields["a"].string_value = "b"
    elif said == "empty metadata":
        message.metadata.SetInParent()
    elif said == "protocol":
        held.address.socket_address.protocol = 1
    elif said == "named port":
        held.address.socket_address.named_port = "http"
    else:
        held.health_check_config.port_value = 1
    place = draw(unknown)
    if place is not None:
        for step in place:
            message = getattr(message, step)
        message.MergeFromString(b"\xf8\x7f\x01")  # field 2047, a varint


@settings(max_examples=400, deadline=None)
@given(st.lists(st.lists(endpoints(), max_size=3), max_size=2), st.sampled_from(["auto", "target"]))
def test_it_is_read_as_field_by_field(groups: list[list[Any]], view: str) -> None:
    """ED-02, ED-03, ED-04"""
    message = schema.message(_NAME)(cluster_name="c")
    for index, group in enumerate(groups):
        locality = message.endpoints.add()
        locality.locality.zone = f"z{index}"
        locality.lb_endpoints.extend(group)
    raw = message.SerializeToString()
    found = decode.endpoint(raw, view)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoder, "_plain", lambda _: None)
        wanted = decode.endpoint(raw, view)
    assert (found.value, found.problems) == (wanted.value, wanted.problems)
    assert dict(found.ignored) == dict(wanted.ignored)
    if found.value is not None:
        assert [each.metadata for each in found.value.endpoints] == [
            each.metadata for each in wanted.value.endpoints
        ]


@pytest.mark.parametrize("port", [1, 127, 128, 8080, 16383, 16384, 32767, 65535])
@pytest.mark.parametrize(
    "fields", [{}, {"weight": 7}, {"health": "DRAINING"}, {"weight": 300, "health": "HEALTHY"}]
)
def test_what_most_control_planes_send_is_plain(
    fields: dict[str, Any], port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else an assignment of a hundred thousand takes three times as long."""
    resource = build.endpoints("c", build.locality(build.endpoint(f"10.0.0.1:{port}", **fields)))
    raw = schema.from_json(_NAME, build.without_type(resource)).SerializeToString()
    monkeypatch.setattr(decoder, "_endpoint", None)  # what reads field by field
    found = decode.endpoint(raw)
    assert not found.problems
    assert len(found.value.endpoints) == 1
