"""Both views of one control plane: two streams, one part, one status."""

from __future__ import annotations

import pytest

from meshlib.sources.xds import XdsSource
from meshlib.sources.xds_pair import XdsPair, xds_source
from meshlib.testing import build
from meshlib.xds.bootstrap import Bootstrap, Node
from tests.support.sources_kit import SERVER, ScriptedBench

#: The views' streams, in the order in which they are opened.
WILD, NAMED = 0, 1


class Plane(ScriptedBench):
    def __init__(self, *, view="auto", node=None, inherited=(), protocol="sotw"):
        bootstrap = Bootstrap((SERVER,), node or Node("me", "shop"))
        super().__init__(
            lambda merge, bench: [xds_source(merge, bootstrap, view, self.open_stream, protocol=protocol)],
            inherited,
        )
        self.source = self.bench.merge.sources[0]

    def asked(self, at):
        """What was asked for first, by type."""
        found = {}
        for short, names, *_ in self.streams[at].requests:
            found.setdefault(short, names)
        return found


def routes(cluster):
    return build.route_config(cluster, build.virtual_host("v", build.route("/", cluster=cluster)))


def test_each_view_asks_on_a_stream_of_its_own_as_the_client_that_servers_know():
    """SW-16, SW-17, CP-02: a wildcard is an empty list and stands alone; names stand alone."""
    plane = Plane()
    assert len(plane.streams) == 1
    plane.up(WILD)
    assert plane.asked(WILD)["listener"] == []
    assert plane.asked(WILD)["cluster"] == []
    plane.want("reviews")
    assert len(plane.streams) == 2
    plane.up(NAMED)
    assert plane.asked(NAMED) == {"listener": ["reviews"]}


def test_nothing_is_asked_by_name_before_a_name_is_wanted():
    plane = Plane()
    assert len(plane.streams) == 1
    assert plane.status.state == "connecting"


def test_both_make_one_part_and_one_status():
    plane = Plane()
    plane.want("reviews")
    plane.up(WILD)
    plane.up(NAMED)
    target = build.api_listener("reviews", routes("shared"))
    shared, own = build.cluster("shared", ["10.0.0.1:80"]), build.cluster("own", ["10.0.0.2:80"])
    plane.answer("cluster", shared, own, at=WILD)
    listener = build.listener("0.0.0.0_9080", routes("own"), address="0.0.0.0:9080")
    plane.answer("listener", listener, target, at=WILD)
    assert [listener.name for listener in plane.part.sidecar] == ["0.0.0.0_9080"]
    plane.answer("listener", target, at=NAMED)
    plane.answer("cluster", build.cluster("shared", ["10.0.0.1:80"]), at=NAMED)
    assert set(plane.part.targets) == {"reviews"}
    assert set(plane.part.clusters) == {"shared", "own"}
    status = plane.status
    assert status.state == "ready"
    assert (status.resources["listener"], status.resources["cluster"]) == (2, 2)
    assert status.versions["cluster"]


TLS = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
CERTIFICATE = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"


@pytest.mark.parametrize(("view", "encrypted"), [("auto", True), ("target", False)])
def test_tls_as_an_envoy_has_it_takes_the_place_of_plain_text(view, encrypted):
    """TL-02: gRPC refuses it, and stays with what it had; in both views together it must not."""
    plane = Plane(view=view)
    plane.want("reviews")
    for at in range(len(plane.streams)):
        plane.up(at)
    last = len(plane.streams) - 1
    plane.answer("listener", build.api_listener("reviews", routes("c")), at=last)
    plane.answer("cluster", build.cluster("c", ["10.0.0.1:80"]), at=last)
    context = {"validation_context": {"trusted_ca": {"inline_string": CERTIFICATE}}}
    socket = {"name": "tls", "typed_config": build.any_of(TLS, {"common_tls_context": context})}
    for at in range(len(plane.streams)):
        plane.answer("cluster", build.cluster("c", ["10.0.0.1:80"], transport_socket=socket), at=at)
    assert (plane.part.clusters["c"].tls is not None) is encrypted
    assert bool(plane.status.rejected) is not encrypted


def test_an_identity_is_named_in_both():
    plane = Plane()
    plane.want("reviews")
    plane.up(WILD)
    plane.up(NAMED)
    plane.answer("listener", build.api_listener("reviews", routes("named")), at=NAMED)
    instance = {"validation_context": {"ca_certificate_provider_instance": {"instance_name": "x"}}}
    socket = {"name": "tls", "typed_config": build.any_of(TLS, {"common_tls_context": instance})}
    waits = {"validation_context_sds_secret_config": {"name": "s", "sds_config": {"ads": {}}}}
    other = {"name": "tls", "typed_config": build.any_of(TLS, {"common_tls_context": waits})}
    wild = build.cluster("wild", ["10.0.0.1:80"], transport_socket=socket)
    plane.answer("cluster", wild, build.cluster("waits", ["10.0.0.1:80"], transport_socket=other), at=WILD)
    plane.answer("cluster", build.cluster("named", ["10.0.0.1:80"], transport_socket=socket), at=NAMED)
    assert plane.part.identified == {"wild", "named"}
    assert plane.part.awaited == {"waits": "waits for the secret 's'"}


def test_a_refused_resource_is_told_once_though_both_views_have_it():
    plane = Plane()
    plane.want("reviews")
    plane.up(WILD)
    plane.up(NAMED)
    bad = build.api_listener(
        "reviews", build.route_config("r", build.virtual_host("v", build.route(regex="(", cluster="c")))
    )
    plane.answer("listener", bad, at=WILD)
    plane.answer("listener", bad, at=NAMED)
    assert [(entry.type, entry.resource) for entry in plane.status.rejected] == [("listener", "reviews")]


def test_a_server_that_is_known_to_be_away_keeps_nobody_waiting():
    """CA-09: the view by name need not find out for itself."""
    plane = Plane()
    plane.end("connection refused")
    assert plane.status.state == "failed"
    plane.want("reviews")
    assert plane.part.unreached == "connection refused"
    assert "connection refused" in plane.source.pending("reviews")


def test_so_does_one_that_has_been_there():
    """CA-09: what was listed stays, and a name that is new is not waited for."""
    plane = Plane()
    plane.up(WILD)
    plane.answer("cluster", at=WILD)
    plane.answer("listener", at=WILD)
    plane.end("", at=WILD)
    plane.bench.step(5.0)
    plane.end("connection refused")
    assert plane.status.state == "stale"
    plane.want("reviews")
    assert plane.part.unreached == "connection refused"


def test_in_a_child_that_connects_a_name_that_its_parent_did_not_know_is_waited_for():
    parent = Plane()
    parent.want("reviews")
    parent.up(WILD)
    parent.up(NAMED)
    parent.answer("cluster", build.cluster("shared", ["10.0.0.1:80"]), at=WILD)
    parent.answer("listener", at=WILD)
    parent.answer("listener", build.api_listener("reviews", routes("shared")), at=NAMED)
    parent.answer("cluster", build.cluster("shared", ["10.0.0.1:80"]), at=NAMED)
    child = Plane(inherited=[parent.part])
    child.want("ratings")
    assert (child.part.unreached, child.part.absent) == ("", {})
    assert set(child.part.targets) == {"reviews"}


def test_one_view_that_is_there_is_enough_to_be_ready_and_the_others_error_is_not_told():
    plane = Plane()
    plane.want("reviews")
    plane.up(WILD)
    plane.answer("cluster", build.cluster("c", ["10.0.0.1:80"]), at=WILD)
    plane.end("reset", at=NAMED)
    assert (plane.status.state, plane.status.last_error) == ("ready", "")


def test_stopping_ends_both():
    plane = Plane()
    plane.want("reviews")
    plane.bench.worker.post(plane.bench.merge.stop)
    plane.bench.step()
    assert all(stream.cancelled for stream in plane.streams)
    assert plane.status.state == "idle"
    assert not plane.source.streaming


@pytest.mark.parametrize(
    ("view", "metadata", "kind"),
    [
        ("auto", {}, XdsPair),
        ("auto", {"GENERATOR": "grpc"}, XdsSource),
        ("target", {}, XdsSource),
        ("sidecar", {}, XdsSource),
    ],
)
def test_which_source_a_view_has(view, metadata, kind):
    plane = Plane(view=view, node=Node("me", "shop", metadata=metadata))
    assert type(plane.source) is kind
