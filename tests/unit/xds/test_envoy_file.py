"""Files in Envoy's shape."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.model.address import Address
from meshlib.model.cluster import NameServers
from meshlib.model.endpoint import Locality
from meshlib.testing import build
from meshlib.xds.envoy_file import read

DNS = {"socket_address": {"address": "10.0.0.53", "port_value": 53}}
CARES = {
    "name": "cares",
    "typed_config": build.any_of(
        "envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig", {"resolvers": [DNS]}
    ),
}
ROUTES = build.route_config("r", build.virtual_host("v", build.route(cluster="c")))


def plain(*resources):
    return [build.without_type(each) for each in resources]


def whole():
    return {
        "listeners": plain(
            build.listener("l", ROUTES, address="127.0.0.1:8001"), build.api_listener("t", "r")
        ),
        "routes": plain(ROUTES),
        "clusters": plain(build.cluster("c"), build.cluster("s", ["10.0.0.2:80"])),
        "endpoints": plain(build.endpoints("c", "10.0.0.1:80")),
    }


def test_lists():
    made = read(whole(), "mine")
    assert made.problems == ()
    part = made.part
    assert (part.source, [each.name for each in part.sidecar], set(part.targets)) == ("mine", ["l"], {"t"})
    assert part.targets["t"].http.routes.name == "r"
    assert [str(each.address) for each in part.clusters["c"].assignment.endpoints] == ["10.0.0.1:80"]
    assert set(part.clusters) == {"c", "s"}


def test_a_bootstrap():
    data = {
        "node": {"id": "x"},
        "admin": {},
        "static_resources": {
            "listeners": plain(build.listener("l", ROUTES)),
            "clusters": plain(build.cluster("c", ["10.0.0.1:80"])),
            "secrets": [],
        },
    }
    made = read(data)
    assert made.problems == ()
    assert [each.name for each in made.part.sidecar] == ["l"]
    assert [each.field for each in made.ignored] == ["node"]


@pytest.mark.parametrize("keys", [("local_cluster_name", "sub_zone"), ("localClusterName", "subZone")])
def test_where_the_process_is_and_who_else_calls(keys):
    cluster, sub_zone = keys
    data = {
        "node": {"locality": {"region": "r", "zone": "z", sub_zone: "s"}},
        "cluster_manager": {cluster: "c"},
        "static_resources": {"clusters": plain(build.cluster("c", ["10.0.0.1:80"]))},
    }
    made = read(data)
    assert (made.problems, made.ignored) == ((), ())
    assert (made.part.locality, made.part.local_cluster) == (Locality("r", "z", "s"), "c")


@pytest.mark.parametrize(
    ("told", "problem"),
    [
        (
            {"cluster_manager": {"local_cluster_name": "d"}},
            "cluster_manager.local_cluster_name: names the cluster 'd'",
        ),
        (
            {"cluster_manager": {"local_cluster_name": 7}},
            "cluster_manager.local_cluster_name: must be text, not int",
        ),
        ({"node": {"locality": {"zone": ["a"]}}}, "node.locality.zone: must be text, not list"),
    ],
)
def test_a_local_cluster_that_is_none(told, problem):
    made = read({"static_resources": {"clusters": plain(build.cluster("c", ["10.0.0.1:80"]))}, **told})
    assert [each.startswith(problem) for each in made.problems] == [True]


def test_what_else_a_cluster_manager_says_is_reported():
    made = read({"cluster_manager": {"outlier_detection": {}}, "node": "me"})
    assert [each.field for each in made.ignored] == ["cluster_manager", "node"]


def test_a_bootstrap_in_the_other_spelling():
    data = {
        "staticResources": {"clusters": plain(build.cluster("c", ["10.0.0.1:80"]))},
        "dynamicResources": {},
        "layeredRuntime": {},
        "statsFlushInterval": None,
        "enableWorkerCpuAffinity": True,
    }
    made = read(data)
    assert made.problems == ()
    assert set(made.part.clusters) == {"c"}
    assert [each.field for each in made.ignored] == [
        "dynamicResources",
        "layeredRuntime",
    ]


@pytest.mark.parametrize(
    ("said", "servers"),
    [
        ({"use_tcp_for_dns_lookups": True}, NameServers(tcp=True)),
        ({"dnsResolutionConfig": {"resolvers": [DNS]}}, NameServers((Address("10.0.0.53", 53),))),
        (
            {"use_tcp_for_dns_lookups": True, "typed_dns_resolver_config": CARES},
            NameServers((Address("10.0.0.53", 53),)),
        ),
        ({"use_tcp_for_dns_lookups": None}, None),
    ],
)
def test_who_resolves_the_names_of_clusters_that_do_not_say(said, servers):
    own = {
        "dns_resolution_config": {"resolvers": [], "dns_resolver_options": {"use_tcp_for_dns_lookups": True}}
    }
    clusters = [
        build.cluster("c", ["a.example:80"], type="STRICT_DNS"),
        build.cluster("own", ["a.example:80"], type="STRICT_DNS", **own),
        build.cluster("plain", ["10.0.0.1:80"]),
    ]
    made = read(said | {"static_resources": {"clusters": plain(*clusters)}})
    assert (made.problems, made.ignored) == ((), ())
    found = {name: each.name_servers for name, each in made.part.clusters.items()}
    assert found == {"c": servers, "own": NameServers(tcp=True), "plain": None}


def test_a_resolver_of_a_bootstrap_that_is_wrong_or_not_known():
    wrong = read({"dns_resolution_config": {"resolvers": [{"pipe": {"path": "/x"}}]}})
    assert wrong.problems == ("dns_resolution_config.resolvers[0]: must be an IP address and a port",)
    other = {"name": "x", "typed_config": {"@type": "type.googleapis.com/google.protobuf.Empty"}}
    [told] = read({"typed_dns_resolver_config": other}).ignored
    assert (told.type, told.field) == ("bootstrap", "typed_dns_resolver_config")


def test_listeners_without_a_name_have_one_of_their_own():
    def nameless(port):
        return {
            key: value
            for key, value in plain(build.listener("", ROUTES, address=f"127.0.0.1:{port}"))[0].items()
            if key != "name"
        }

    listeners = [nameless(8001), nameless(8002), {**nameless(8003), "name": ""}]
    made = read(
        {"static_resources": {"listeners": listeners, "clusters": plain(build.cluster("c", ["10.0.0.1:80"]))}}
    )
    assert made.problems == ()
    assert [
        (each.name, each.addresses[0].port, each.chains[0].http.routes.name) for each in made.part.sidecar
    ] == [(f"static_resources.listeners[{index}]", 8001 + index, "r") for index in range(3)]


def test_of_two_listeners_with_one_name_the_first_holds_as_in_envoy():
    listeners = plain(*(build.listener("l", ROUTES, address=f"127.0.0.1:{port}") for port in (8001, 8002)))
    made = read({"listeners": listeners, "clusters": plain(build.cluster("c", ["10.0.0.1:80"]))})
    assert made.problems == ()
    assert [each.addresses[0].port for each in made.part.sidecar] == [8001]
    assert [(each.resource, each.field) for each in made.ignored] == [("l", "listeners[1]")]


def test_what_stands_beside_the_resources_of_a_response():
    data = {
        "version_info": "7",
        "typeUrl": "x",
        "nonce": "n",
        "resources": [build.cluster("c", ["10.0.0.1:80"])],
    }
    made = read(data)
    assert (made.problems, made.ignored) == ((), ())
    assert set(made.part.clusters) == {"c"}


CERTIFICATE, KEY = (
    f"-----BEGIN {label}-----\nMAA=\n-----END {label}-----\n" for label in ("CERTIFICATE", "PRIVATE KEY")
)


def demanding(*names, **source):
    """A cluster whose TLS is made of these secrets: a certificate, and a CA."""
    pair, roots = ({"name": name, **source} for name in names)
    common = {"tls_certificate_sds_secret_configs": [pair], "validation_context_sds_secret_config": roots}
    kind = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
    socket = {"name": "tls", "typed_config": build.any_of(kind, {"common_tls_context": common})}
    return build.cluster("c", ["10.0.0.1:80"], transport_socket=socket)


@pytest.mark.parametrize("source", [{}, {"sds_config": {"ads": {}}}], ids=["static", "ads"])
@pytest.mark.parametrize("shape", ["lists", "static_resources", "resources"])
def test_secrets_that_are_in_it(shape, source):
    secrets = [build.secret("pair", certificate=CERTIFICATE, key=KEY), build.secret("roots", ca=CERTIFICATE)]
    cluster = demanding("pair", "roots", **source)
    lists = {"clusters": [cluster], "secrets": secrets}
    shapes = {
        "lists": lists,
        "static_resources": {"static_resources": lists},
        "resources": {"resources": [cluster, *secrets]},
    }
    made = read(shapes[shape])
    assert (made.problems, made.ignored) == ((), ())
    tls = made.part.clusters["c"].tls
    assert (tls.closed, tls.certificate.key.data.decode()) == ("", KEY)
    assert tls.validation.roots.data.decode() == CERTIFICATE


def test_a_secret_that_is_not_in_it_closes_the_cluster():
    made = read({"clusters": [demanding("pair", "roots")]})
    assert made.problems == ()
    assert made.part.clusters["c"].tls.closed == "secret 'pair' is not there; secret 'roots' is not there"


def test_a_secret_that_is_none_is_told_with_its_place():
    made = read({"secrets": [build.secret("s", certificate=CERTIFICATE, key="x")]})
    assert made.problems == ("secrets[0].tls_certificate.private_key: has no private key in PEM",)


def test_resources_that_say_their_type():
    data = {"resources": [build.listener("l", ROUTES), build.cluster("c", ["10.0.0.1:80"])]}
    made = read(data)
    assert made.problems == ()
    assert set(made.part.clusters) == {"c"}


def test_empty_keys_are_empty():
    assert read({"listeners": None}).problems == ()
    assert read({}).part.sidecar == ()


def test_what_is_not_honoured_is_told_with_its_place():
    made = read({"clusters": plain(build.cluster("c", ["10.0.0.1:80"], transport_socket_matcher={"z": 1}))})
    assert [(each.resource, each.type, each.field) for each in made.ignored] == [
        ("c", "cluster", "clusters[0].transport_socket_matcher")
    ]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ([], "must be a mapping with listeners, clusters, routes, endpoints, secrets, not list"),
        ({"listenrs": []}, "listenrs: is not known; did you mean listeners?"),
        ({"clusters": {}}, "clusters[0].name: must not be empty"),
        ({"clusters": 7}, "clusters[0]: must be a mapping"),
        ({"version_info": "1", "clusters": []}, "version_info: is not known"),
        ({"resources": [{"@type": 5}]}, "resources[0].@type: must be one of"),
        ({"resources": [[]]}, "resources[0].@type: must be one of"),
        ({5: 1}, "5: is not known"),
        ({"static_resources": {"cluster": []}}, "static_resources.cluster: is not known; did you mean clusters?"),
        ({"static_resources": 1}, "static_resources: must be a mapping, not int"),
        ({"clusters": [7]}, "clusters[0]: must be a mapping (envoy.config.cluster.v3.Cluster), not 7"),
        ({"clusters": [{"nam": "c"}]}, "clusters[0].nam: is no field of envoy.config.cluster.v3.Cluster; did you mean name?"),
        ({"clusters": [{"@type": "x", "name": "c"}]}, "clusters[0].@type: must be type.googleapis.com/envoy.config.cluster"),
        ({"resources": [{"@type": "x"}]}, "resources[0].@type: must be one of"),
        ({"clusters": plain(build.cluster("c", connect_timeout="0s"))}, "clusters[0].connect_timeout: must be more than 0"),
        (
            {"clusters": plain(build.cluster("c", ["10.0.0.1:80"]), build.cluster("c", ["10.0.0.2:80"]))},
            "clusters[1]: cluster 'c' is already at clusters[0]",
        ),
        (
            {"clusters": plain(build.cluster("c"))},
            "clusters[0].eds_cluster_config: names the load assignment 'c', which is not in the file",
        ),
        (
            {"listeners": plain(build.listener("l", "r"))},
            "listeners[0]: names the route configuration 'r', which is not in the file",
        ),
        (
            {"routes": plain(ROUTES)},
            "routes[0]: names the cluster 'c', which is not in the file",
        ),
    ],
)  # fmt: skip
def test_problems_name_their_place(data, words):
    assert any(found.startswith(words) for found in read(data).problems), read(data).problems


def test_a_file_may_say_that_clusters_need_not_be_there():
    assert read({"routes": plain({**ROUTES, "validate_clusters": False})}).problems == ()


def test_who_names_a_wrong_resource_is_not_blamed():
    data = {"routes": plain(ROUTES), "clusters": [{"name": "c", "typ": "STATIC"}]}
    assert [found.partition(":")[0] for found in read(data).problems] == ["clusters[0].typ"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=20,
)
KEYS = st.sampled_from(
    ["listeners", "clusters", "routes", "endpoints", "resources", "static_resources", "name", "type"]
)


@given(
    st.dictionaries(KEYS, JSON | st.lists(st.dictionaries(KEYS, JSON, max_size=3), max_size=3), max_size=4)
)
def test_whatever_a_file_holds_there_is_an_answer(data):
    made = read(data)
    assert made.part.source == "file"
