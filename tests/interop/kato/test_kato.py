"""meshlib against go-control-plane 0.9.5 with Kato's conversion: what the stand-in of the test kit is held to, and the cases that
both must hold. The messages are of another library, and of v2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from meshlib.testing import KatoControlPlane
from meshlib.testing.kato import dependency, inbound
from meshlib.testing.kato_resources import Service
from meshlib.xds import schema, v2
from tests.interop.support.programs import Kato
from tests.support.kato_cases import NODE, MeshCases, ServerCases, client
from tests.support.v2_client import V2Client, named, unknown

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["client"]


@pytest.fixture
def kato(binary: Path, tmp_path: Path) -> Iterator[Kato]:
    running = Kato(binary, tmp_path)
    running.start()
    yield running
    running.stop()


class TestServer(ServerCases):
    """The program is what the cases say of it."""


class TestMesh(MeshCases):
    """meshlib against it."""


#: Services and settings with everything that the conversion knows.
SERVICES = (
    Service("gr2", 5000, (("10.0.0.1:5000", "10.0.0.2:5000"), ("10.0.0.3:5001",)), ("10.0.0.4:5000",)),
    Service("gr3", 6000, (), ("10.0.0.5:6000", "10.0.0.6:6000")),
    Service("gr4", 8080, domain="https://api.example.com", rewrite=True),
    Service("gr5", 5000, (("10.0.0.7:5000",),)),
    Service("gr6", 53, (("10.0.0.8:53",),)),
    Service("gr7", 65301, (("10.0.0.9:65301",),), inner=7000),
    Service("gr8", 9000, domain="http://plain.example.com:81"),
)
ROWS = (
    dependency(
        "gr2",
        5000,
        Domains="shop,www.shop",
        Prefix="/",
        Weight="70",
        MaxConnections="7",
        ConnectionTimeout="3",
    ),
    dependency("gr7", 65301, Domains="shop,www.shop", Prefix="/", Weight="30"),
    dependency("gr2", 5000, Domains="shop", Prefix="/api", Headers="x-a:1;has_header:no;x-tier: gold"),
    dependency("gr3", 6000, "grpc", GrpcHealthServiceName="shop.Cart", HealthCheckInterval="9"),
    dependency("gr4", 8080, Domains="api"),
    dependency("gr5", 5000, "mysql", TCPIdleTimeout="60"),
    dependency("gr6", 53, "udp"),
    dependency("gr8", 9000, MaxEjectionPercent="900", BaseEjectionTimeMS="1500", HealthyPanicThreshold="30"),
    inbound(8000, 65302, OPEN_LIMIT="true", LIMIT_DOMAIN="mine", MaxRequestsPerConnection="9"),
    inbound(8001, 65303, "mysql"),
)


@pytest.mark.parametrize("plural", ["Listeners", "Clusters", "Endpoints", "Routes"])
def test_the_stand_in_sends_what_the_program_sends(kato: Kato, plural: str) -> None:
    with KatoControlPlane() as stand_in:
        for plane in (kato, stand_in):
            for service in SERVICES:
                plane.serve_service(service)
            plane.configure(NODE, *ROWS)
        found = []
        for plane in (kato, stand_in):
            with V2Client(plane.address) as asked:
                found.append(asked.fetch(plural, NODE))
        ours, theirs = map(named, found)
        assert ours.keys() == theirs.keys()
        for name, message in ours.items():
            assert in_order(message) == in_order(theirs[name])
        assert (found[0].version_info, found[0].type_url) == (found[1].version_info, found[1].type_url)


def in_order(message: schema.WireMessage) -> tuple[object, ...]:
    """Go and Python write the fields of a oneof and the entries of a map in another order: the bytes of a message, of what its
    filters hold, and the settings that these have as a Struct, each in ours.
    """
    found: list[object] = []
    for chain in getattr(message, "filter_chains", ()):
        for each in chain.filters:
            kind = v2.TYPES[schema.type_name(each.typed_config.type_url)]
            inner = schema.message(kind).FromString(each.typed_config.value)
            each.ClearField("typed_config")
            for http_filter in getattr(inner, "http_filters", ()):
                held = unknown(http_filter)
                http_filter.DiscardUnknownFields()
                structs = [schema.message("google.protobuf.Struct").FromString(raw) for raw in held.values()]
                found.append((list(held), [schema.to_json(struct) for struct in structs]))
            found.append((kind, inner.SerializeToString(deterministic=True)))
    return (*found, message.SerializeToString(deterministic=True))
