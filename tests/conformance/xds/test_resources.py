"""Resources that gRPC and Envoy take in different ways, or only one of them: what is refused, passed over and reported."""

from __future__ import annotations

import json

import pytest

from meshlib.testing import build
from meshlib.xds.bootstrap import parse_bootstrap
from tests.conformance.support.ads import Control

FILTER = "envoy.extensions.filters.http."
POLICY = "envoy.extensions.load_balancing_policies."
TLS = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"


def of(kind, **fields):
    return {"@type": f"type.googleapis.com/{kind}", **fields}


@pytest.fixture
def plane(protocol):
    made = Control(protocol, "a")
    made.connect()
    made.serve("a")
    made.asked()
    return made


def told(plane):
    """What of all resources is reported as not honoured: field and value."""
    return {(each.field.rpartition(".")[2], each.value) for each in plane.status.ignored}


class TestFilters:
    @pytest.mark.parametrize(
        "kind",
        ["composite.v3.Composite", "gcp_authn.v3.GcpAuthnFilterConfig"],
    )
    def test_one_that_is_not_there_is_an_unknown_one(self, plane, kind):
        """CF-01, LD-04."""
        plane.send(
            "listener",
            build.api_listener("a", "r-a", filters=[{"name": "f", "typed_config": of(FILTER + kind)}]),
        )
        [asked] = plane.asked("listener")
        assert f"{FILTER}{kind} is not supported and not optional" in asked.error

    @pytest.mark.parametrize(
        "kind", ["rbac.v3.RBAC", "ext_authz.v3.ExtAuthz", "ext_proc.v3.ExternalProcessor"]
    )
    def test_one_that_decides_who_may_pass(self, plane, kind):
        """RB-01, CF-01, ER-10: it is refused in words of its own; optional it is passed over, and reported."""
        guard = {"name": "f", "typed_config": of(FILTER + kind)}
        plane.send("listener", build.api_listener("a", "r-a", filters=[guard]))
        [asked] = plane.asked("listener")
        assert "decides who may pass" in asked.error
        plane.send("listener", build.api_listener("a", "r-a", filters=[guard | {"is_optional": True}]))
        assert plane.asked("listener")[0].kind == "ack"
        assert plane.target("a") == "10.0.0.1:80"
        assert [value for _, value in told(plane)] == [FILTER + kind]


class TestPlaces:
    """What a route configuration says of filters for a place of its own (LD-05, LD-06)."""

    def routes(self, **places):
        """A route of the target; ``route``, ``host`` and ``all``: what each place says."""
        route = {"match": {"prefix": ""}, "route": {"cluster": "c-a"}, **self.said(places.get("route"))}
        host = build.virtual_host("a", route, domains=["a"], **self.said(places.get("host")))
        return build.route_config("r-a", host) | self.said(places.get("all"))

    @staticmethod
    def said(config):
        return {"typed_per_filter_config": config} if config else {}

    @pytest.mark.parametrize("place", ["route", "host", "all"])
    def test_an_unknown_type(self, plane, place):
        """LD-06, ER-10: whoever's it is, it refuses the routes, unless it says that it is optional; then it is reported."""
        plane.send("route", self.routes(**{place: {"nobody": of("no.such.Type")}}))
        [asked] = plane.asked("route")
        assert (
            "typed_per_filter_config[nobody]: no.such.Type is not supported and not optional" in asked.error
        )
        wrapped = of("envoy.config.route.v3.FilterConfig", config=of("no.such.Type"))
        plane.send("route", self.routes(**{place: {"other": wrapped}}))
        assert "typed_per_filter_config[other]" in plane.asked("route")[0].error
        wrapped = of("envoy.config.route.v3.FilterConfig", config=of("no.such.Type"), is_optional=True)
        plane.send("route", self.routes(**{place: {"other": wrapped}}))
        assert plane.asked("route")[0].kind == "ack"
        [(field, value)] = told(plane)
        assert field.endswith("typed_per_filter_config[other]")
        assert value == "no.such.Type"
        assert plane.target("a") == "10.0.0.1:80"

    def test_an_unknown_type_for_an_envoy(self, protocol):
        """LD-06: in the sidecar view it is reported, as a filter that is not known."""
        plane = Control(protocol, view="sidecar")
        plane.connect()
        routes = build.route_config(
            "r", build.virtual_host("a", build.route(cluster="c-a"), **self.said({"f": of("no.such.Type")}))
        )
        plane.send("listener", build.listener("l", routes))
        assert plane.asked("listener")[0].kind == "ack"
        assert any("typed_per_filter_config" in field for field, _ in told(plane))

    def test_the_most_specific_place_stands_whole(self, plane):
        """LD-05, LD-06: here a guard is on everywhere, off for the host, and on again for the route."""
        on = {"guard": of(f"{FILTER}ext_authz.v3.ExtAuthzPerRoute", check_settings={})}
        off = {"guard": of(f"{FILTER}ext_authz.v3.ExtAuthzPerRoute", disabled=True)}
        places = {"all": on, "host": off, "route": on}
        for names, covered in ((("all",), True), (("all", "host"), False), (("all", "host", "route"), True)):
            plane.send("route", self.routes(**{name: places[name] for name in names}))
            assert plane.asked("route")[0].kind == "ack"
            routes = plane.part.targets["a"].http.routes
            first = routes.virtual_hosts[0]
            switches = (*first.routes[0].filters, *first.filters, *routes.filters)
            assert (switches[0].on, switches[0].guard) == (covered, True)

    def test_one_that_is_switched_off(self, plane):
        """LD-05: by FilterConfig, whatever it is."""
        off = of("envoy.config.route.v3.FilterConfig", disabled=True)
        plane.send("route", self.routes(route={"guard": off}))
        assert plane.asked("route")[0].kind == "ack"
        [switch] = plane.part.targets["a"].http.routes.virtual_hosts[0].routes[0].filters
        assert (switch.name, switch.on) == ("guard", False)


class TestBalancing:
    def test_random_is_taken(self, plane):
        """LB-12, CD-05."""
        plane.send("cluster", build.cluster("c-a", load_balancing_policy=policies("random.v3.Random")))
        assert plane.asked("cluster")[0].kind == "ack"
        assert told(plane) == set()

    @pytest.mark.parametrize(
        ("size", "fits"), [(65537, True), (5_000_011, True), (65536, False), (5_000_077, False), (0, False)]
    )
    @pytest.mark.parametrize("written", ["lb_policy", "load_balancing_policy"])
    def test_a_table_of_an_envoy(self, protocol, written, size, fits):
        """LB-05: a prime number, of 5,000,011 at most."""
        plane = Control(protocol, view="sidecar")
        plane.connect()
        config = policies("maglev.v3.Maglev")
        config["policies"][0]["typed_extension_config"]["typed_config"]["table_size"] = size
        by_enum = {"lb_policy": "MAGLEV", "maglev_lb_config": {"table_size": size}}
        fields = by_enum if written == "lb_policy" else {"load_balancing_policy": config}
        plane.send("cluster", build.cluster("c", **fields))
        assert (plane.asked("cluster")[-1].kind == "ack") is fits
        assert told(plane) == set()

    @pytest.mark.parametrize(("size", "kind"), [(3, "ack"), (0, "nack"), (None, "nack")])
    def test_random_subsets(self, size, kind, plane):
        """LB-12: of nobody there is none."""
        subsets = policies("random_subsetting.v3.RandomSubsetting")
        config = subsets["policies"][0]["typed_extension_config"]["typed_config"]
        config["child_policy"] = policies("round_robin.v3.RoundRobin")
        if size is not None:
            config["subset_size"] = size
        plane.send("cluster", build.cluster("c-a", load_balancing_policy=subsets))
        assert plane.asked("cluster")[0].kind == kind


def policies(*kinds):
    return {
        "policies": [
            {"typed_extension_config": {"name": kind, "typed_config": of(POLICY + kind)}} for kind in kinds
        ]
    }


class TestEndpoints:
    def test_a_time_for_which_endpoints_hold(self, plane):
        """ED-10: nothing of it is reported; that they end is shown by tests/e2e/oracle/test_stale.py."""
        made = build.endpoints("c-a", "10.0.0.1:80") | {"policy": {"endpoint_stale_after": "5s"}}
        plane.send("endpoint", made)
        assert plane.asked("endpoint")[0].kind == "ack"
        assert told(plane) == set()
        assert plane.target("a") == "10.0.0.1:80"

    def test_endpoints_of_a_list_that_is_asked_for_by_itself(self, plane):
        """ED-10."""
        leds = {
            "leds_config": {"ads": {}},
            "leds_collection_name": "xdstp://x/envoy.config.endpoint.v3.LbEndpoint/a/*",
        }
        locality = {
            "locality": {"region": "r"},
            "load_balancing_weight": 1,
            "leds_cluster_locality_config": leds,
        }
        plane.send("endpoint", build.endpoints("c-a") | {"endpoints": [locality]})
        assert "endpoints[0].leds_cluster_locality_config: " in plane.asked("endpoint")[0].error


class TestTls:
    @pytest.mark.parametrize(
        "socket",
        [
            of(
                TLS,
                common_tls_context={
                    "validation_context": {"ca_certificate_provider_instance": {"instance_name": "x"}}
                },
            ),
            of(
                TLS,
                common_tls_context={
                    "tls_certificate_sds_secret_configs": [{"name": "s", "sds_config": {"ads": {}}}]
                },
            ),
            of(
                TLS,
                common_tls_context={
                    "validation_context_sds_secret_config": {"name": "s", "sds_config": {"ads": {}}}
                },
            ),
            of("envoy.extensions.transport_sockets.alts.v3.Alts"),
        ],
        ids=["provider", "secret", "roots", "another socket"],
    )
    def test_what_cannot_be_had_is_never_plain_text(self, plane, socket):
        """TL-01, SD-02, DV-12: the cluster is closed, and it is reported why."""
        plane.send("cluster", build.cluster("c-a", transport_socket={"name": "t", "typed_config": socket}))
        [asked] = plane.asked("cluster")
        assert asked.kind == "nack" or plane.part.clusters["c-a"].tls.unsupported
        assert asked.kind == "nack" or told(plane)

    def test_a_provider_that_is_not_known_is_no_fault_of_the_bootstrap(self):
        """BS-08: whoever names it is told."""
        text = {
            "xds_servers": [{"server_uri": "x:1", "channel_creds": [{"type": "insecure"}]}],
            "certificate_providers": {
                "a": {"plugin_name": "of-tomorrow", "config": {"x": [1]}},
                "b": {"plugin_name": "of-tomorrow", "config": {"x": [1]}},
                "c": {"plugin_name": "file_watcher", "config": {}},
            },
        }
        made = parse_bootstrap(json.dumps(text), "bootstrap.json")
        assert set(made.providers) == {"a", "b", "c"}
        assert made.providers["a"] == made.providers["b"] != made.providers["c"]
