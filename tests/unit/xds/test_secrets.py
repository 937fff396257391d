"""What of a resource may be written, and what of it is."""

from __future__ import annotations

import base64

import pytest

from meshlib.testing import build
from meshlib.xds import decode, schema
from meshlib.xds.secrets import presentable
from tests.support.xds_kit import istio, raw

KEY = "-----BEGIN PRIVATE KEY-----"
TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
SHORTS = ("listener", "route", "cluster", "endpoint")


def socket(**common):
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {"@type": TLS, "common_tls_context": common},
    }


def certificate(**fields):
    return {"certificate_chain": {"filename": "me.pem"}, **fields}


def tls(**fields):
    return build.cluster(
        "c", ["10.0.0.1:80"], transport_socket=socket(tls_certificates=[certificate(**fields)])
    )


def secret_in(short, resource):
    data = raw(resource)
    made, path = presentable(short, data)
    assert bool(made) != bool(path)
    return path


class TestTls:
    @pytest.mark.parametrize(
        "fields",
        [
            {"private_key": {"inline_string": KEY}},
            {"private_key": {"inline_bytes": "AAAA"}},
            {"private_key": {"filename": "k"}, "password": {"inline_string": "x"}},
            {"pkcs12": {"inline_bytes": "AAAA"}},
            {"certificate_chain": {"inline_string": f"chain\n{KEY}"}, "private_key": {"filename": "k"}},
            {
                "certificate_chain": {"inline_bytes": base64.b64encode(KEY.encode()).decode()},
                "private_key": {"filename": "k"},
            },
            {"private_key_provider": {"provider_name": "p"}},
        ],
    )
    def test_an_inline_key(self, fields):
        path = secret_in("cluster", tls(**fields))
        assert path == "transport_socket.typed_config.common_tls_context.tls_certificates[0]"

    def test_in_a_match_of_sockets(self):
        cluster = build.cluster(
            "c",
            transport_socket_matches=[
                {
                    "name": "m",
                    "transport_socket": socket(
                        tls_certificates=[certificate(private_key={"inline_string": KEY})]
                    ),
                }
            ],
        )
        assert secret_in("cluster", cluster).startswith("transport_socket_matches[0].transport_socket")

    def test_in_a_listener(self):
        listener = build.listener("l", build.route_config("r", build.virtual_host("v", build.route())))
        down = TLS.replace("Upstream", "Downstream")
        listener["filter_chains"][0]["transport_socket"] = {
            "name": "tls",
            "typed_config": {
                "@type": down,
                "common_tls_context": {"tls_certificates": [certificate(private_key={"inline_string": KEY})]},
            },
        }
        assert secret_in("listener", listener).startswith("filter_chains[0].transport_socket")

    @pytest.mark.parametrize(
        "fields",
        [
            {"private_key": {"filename": "me.key"}},
            {"private_key": {"environment_variable": "KEY"}},
            {"private_key": {"filename": "me.key"}, "password": {"filename": "pw"}},
        ],
    )
    def test_a_key_somewhere_else(self, fields):
        assert secret_in("cluster", tls(**fields)) == ""

    def test_a_ca_is_none(self):
        cluster = build.cluster(
            "c", transport_socket=socket(validation_context={"trusted_ca": {"inline_string": "PEM"}})
        )
        assert secret_in("cluster", cluster) == ""

    def test_a_secret_is_never_written(self):
        made = schema.from_json("envoy.extensions.transport_sockets.tls.v3.Secret", {"name": "s"})
        assert presentable("secret", made.SerializeToString()) == (b"", "secret")


def routes(**fields):
    return build.route_config("r", build.virtual_host("v", build.route(cluster="c", **fields)))


def header(key, value):
    return {"request_headers_to_add": [{"header": {"key": key, "value": value}}]}


class TestCredentials:
    @pytest.mark.parametrize(
        "key",
        [
            "authorization",
            "Authorization",
            "proxy-authorization",
            "cookie",
            "x-api-key",
            "X-Auth-Token",
            "x-client-secret",
        ],
    )
    def test_in_a_header(self, key):
        made = build.route_config(
            "r", build.virtual_host("v", build.route(cluster="c")), **header(key, "abc")
        )
        assert secret_in("route", made) == "request_headers_to_add[0].header"

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("authorization", "%REQ(x)%"),
            ("authorization", ""),
            ("x-env", "prod"),
            ("x-user", "authorization"),
        ],
    )
    def test_none_in_a_header(self, key, value):
        made = build.route_config(
            "r", build.virtual_host("v", build.route(cluster="c")), **header(key, value)
        )
        assert secret_in("route", made) == ""

    def test_part_of_a_value(self):
        made = build.route_config(
            "r",
            build.virtual_host("v", build.route(cluster="c")),
            **header("authorization", "Bearer x%REQ(y)%"),
        )
        assert secret_in("route", made)

    def test_in_what_is_said_to_a_grpc_service(self):
        eds = {
            "api_config_source": {
                "api_type": "GRPC",
                "grpc_services": [
                    {
                        "envoy_grpc": {"cluster_name": "x"},
                        "initial_metadata": [{"key": "authorization", "value": "Bearer abc"}],
                    }
                ],
            }
        }
        cluster = build.cluster("c", eds_cluster_config={"eds_config": eds})
        assert "initial_metadata[0]" in secret_in("cluster", cluster)

    @pytest.mark.parametrize(
        ("name", "is_secret"), [("authorization", True), ("cookie", False), ("x-user", False)]
    )
    def test_what_a_match_looks_for(self, name, is_secret):
        match = {"prefix": "/", "headers": [{"name": name, "string_match": {"exact": "Basic abc"}}]}
        made = build.route_config("r", build.virtual_host("v", {"match": match, "route": {"cluster": "c"}}))
        assert bool(secret_in("route", made)) is is_secret

    def test_that_a_header_is_there_is_no_secret(self):
        match = {"prefix": "/", "headers": [{"name": "authorization", "present_match": True}]}
        made = build.route_config("r", build.virtual_host("v", {"match": match, "route": {"cluster": "c"}}))
        assert secret_in("route", made) == ""

    @pytest.mark.parametrize(
        ("metadata", "is_secret"),
        [
            ({"x": {"token": "abc"}}, True),
            ({"x": {"deep": {"er": {"password": "abc"}}}}, True),
            ({"x": {"list": [{"apiKey": "abc"}]}}, True),
            ({"x": {"tokens": ["abc"]}}, True),
            ({"x": {"privateKey": {"inlineString": "abc"}}}, True),
            ({"x": {"privateKey": {"filename": "abc"}}}, False),
            ({"x": {"secrets": [{"name": "default"}]}}, False),
            ({"x": {"token": True}}, False),
            ({"x": {"name": "token"}}, False),
        ],
    )
    def test_in_metadata(self, metadata, is_secret):
        cluster = build.cluster("c", metadata={"filter_metadata": metadata})
        assert bool(secret_in("cluster", cluster)) is is_secret


class TestWhatIsWritten:
    @pytest.mark.parametrize("name", ["grpc", "envoy"])
    @pytest.mark.parametrize("short", SHORTS)
    def test_means_the_same(self, name, short):
        """What istiod sends is written, and read back as what it was."""
        for each in istio(name)[short]:
            made, secret = presentable(short, each.value)
            assert secret == ""
            before, after = getattr(decode, short)(each.value), getattr(decode, short)(made)
            assert after.value == before.value
            assert after.problems == before.problems

    def test_the_same_bytes_where_nothing_is_left_out(self):
        data = raw(build.endpoints("c", "10.0.0.1:80"))
        assert presentable("endpoint", data)[0] is data

    def test_no_unknown_field(self):
        """Field 999, a string."""
        data = raw(build.cluster("c")) + b"\xba\x3e\x06hunter"
        made, secret = presentable("cluster", data)
        assert (made, secret) == (raw(build.cluster("c")), "")

    def test_no_inside_of_an_extension_that_is_not_known(self):
        cluster = schema.message("envoy.config.cluster.v3.Cluster")(name="c")
        outer = cluster.typed_extension_protocol_options["x"]
        outer.type_url, outer.value = "type.googleapis.com/acme.Credentials", b"hunter2"
        made, secret = presentable("cluster", cluster.SerializeToString())
        assert secret == ""
        assert b"hunter2" not in made
        assert b"acme.Credentials" in made

    def test_no_inside_of_what_the_schema_does_not_look_into(self):
        inner = b"\x0a\x07hunter2"
        service = schema.message("envoy.config.core.v3.GrpcService")
        field = service.DESCRIPTOR.fields_by_name["retry_policy"].number
        tag = field << 3 | 2
        made = service.FromString(bytes([tag, len(inner)]) + inner)
        cluster = schema.message("envoy.config.cluster.v3.Cluster")(name="c")
        source = cluster.eds_cluster_config.eds_config.api_config_source
        source.grpc_services.append(made)
        data = cluster.SerializeToString()
        assert b"hunter2" in data
        written, secret = presentable("cluster", data)
        assert (b"hunter2" in written, secret) == (False, "")

    def test_an_any_in_an_any_is_looked_through(self):
        inner = schema.message("google.protobuf.Any")(
            type_url="type.googleapis.com/acme.Key", value=b"hunter2"
        )
        outer = schema.pack(inner)
        for _ in range(5):
            outer = schema.pack(outer)
        cluster = schema.message("envoy.config.cluster.v3.Cluster")(name="c")
        cluster.typed_extension_protocol_options["x"].CopyFrom(outer)
        assert b"hunter2" not in presentable("cluster", cluster.SerializeToString())[0]

    def test_nested_deeper_than_one_can_mean(self):
        outer = schema.message("google.protobuf.Any")(type_url="type.googleapis.com/acme.Key", value=b"x")
        for _ in range(60):
            outer = schema.pack(outer)
        cluster = schema.message("envoy.config.cluster.v3.Cluster")(name="c")
        cluster.typed_extension_protocol_options["x"].CopyFrom(outer)
        made, secret = presentable("cluster", cluster.SerializeToString())
        assert (made, bool(secret)) == (b"", True)

    @pytest.mark.parametrize("short", SHORTS)
    def test_bytes_that_are_no_message(self, short):
        made, secret = presentable(short, b"\xff\xff\xff")
        assert (made, bool(secret)) == (b"", True)
