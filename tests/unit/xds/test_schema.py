"""The wire schema: names, Any, the JSON shape, and that hostile bytes give a message or DecodeError."""

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from google.protobuf import descriptor_pool, json_format
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from meshlib.xds import schema
from meshlib.xds.schema import pool

LISTENER = "envoy.config.listener.v3.Listener"
ROUTE = "envoy.config.route.v3.Route"
CLUSTER = "envoy.config.cluster.v3.Cluster"
HCM = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"


def problems(name, value):
    with pytest.raises(schema.JsonError) as caught:
        schema.from_json(name, value)
    return list(caught.value.problems)


class TestMessages:
    def test_each_name_has_a_class_that_starts_empty(self):
        assert len(schema.names()) > 150
        for name in schema.names():
            made = schema.message(name)()
            assert schema.full_name(made) == name
            assert made.SerializeToString() == b""

    def test_a_class_is_the_same_each_time_and_in_each_thread(self):
        seen = set()
        barrier = threading.Barrier(4, timeout=10)

        def look():
            barrier.wait()
            seen.update(id(schema.message(name)) for name in schema.names())

        threads = [threading.Thread(target=look) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert len(seen) == len(schema.names())

    def test_the_collector_frees_none(self):
        """A thread that reads a nested message while its class is being freed takes the process down."""
        program = (
            "import gc, weakref\n"
            "from google.protobuf import message_factory\n"
            "from meshlib.sources import identity_wire\n"
            "from meshlib.xds import schema\n"
            "def of(descriptors):\n"
            "    for descriptor in descriptors:\n"
            "        yield weakref.ref(message_factory.GetMessageClass(descriptor))\n"
            "        yield from of(descriptor.nested_types)\n"
            "kept = [\n"
            "    made\n"
            "    for a_pool in (schema.POOL, identity_wire._POOL)\n"
            "    for file in ('meshlib/wire.proto', 'google/protobuf/struct.proto')\n"
            "    for made in of(a_pool.FindFileByName(file).message_types_by_name.values())\n"
            "]\n"
            "gc.collect()\n"
            "assert len(kept) > 400\n"
            "assert all(made() is not None for made in kept)\n"
        )
        subprocess.run([sys.executable, "-c", program], check=True)

    @pytest.mark.parametrize(
        "name",
        ["envoy", "envoy.config.core.v3", "envoy.config.core.v3.Nothing", "", "meshlib.wire.Opaque", "."],
    )
    def test_a_name_that_is_no_message_is_a_key_error(self, name):
        with pytest.raises(KeyError):
            schema.message(name)
        assert not schema.knows(name)

    def test_nothing_is_registered_globally(self):
        with pytest.raises(KeyError):
            descriptor_pool.Default().FindMessageTypeByName(f"{pool.ROOT}.{LISTENER}")
        with pytest.raises(KeyError):
            descriptor_pool.Default().FindFileByName("meshlib/wire.proto")

    def test_importing_it_imports_no_grpc(self):
        code = "import sys, meshlib.xds.schema; sys.exit(any(m.split('.')[0] == 'grpc' for m in sys.modules))"
        assert subprocess.run([sys.executable, "-c", code], timeout=30, check=False).returncode == 0

    def test_known_bytes_of_a_request(self):
        # version_info=1, type_url=4, response_nonce=5, resource_names=3: written by hand from the wire format.
        data = b"\x0a\x01v" + b"\x1a\x01a" + b"\x1a\x01b" + b"\x22\x02tu" + b"\x2a\x01n"
        request = schema.message("envoy.service.discovery.v3.DiscoveryRequest").FromString(data)
        assert (request.version_info, request.type_url, request.response_nonce) == ("v", "tu", "n")
        assert list(request.resource_names) == ["a", "b"]

    def test_oneofs_and_presence(self):
        match = schema.message("envoy.config.route.v3.RouteMatch")(prefix="/a")
        assert match.WhichOneof("path_specifier") == "prefix"
        match.path = "/b"
        assert match.WhichOneof("path_specifier") == "path"
        cluster = schema.message(CLUSTER)()
        assert cluster.WhichOneof("cluster_discovery_type") is None
        cluster.type = 0
        assert cluster.WhichOneof("cluster_discovery_type") == "type"

    def test_opaque_fields_keep_their_bytes(self):
        # filters = 40, with something inside, which the schema does not read.
        data = b"\xc2\x02\x04\x0a\x02\x08\x01"
        cluster = schema.message(CLUSTER).FromString(data)
        (field, value), *_ = cluster.ListFields()
        assert field.name == "filters"
        assert schema.is_opaque(field)
        assert len(value) == 1
        assert cluster.SerializeToString() == data

    def test_the_reviewed_list_has_every_opaque_field(self):
        listed = Path(__file__).parents[2].joinpath("compat/drift/unread.txt").read_text().splitlines()
        opaque = {
            f"{name}.{field.name} opaque"
            for name in schema.names()
            for field in schema.descriptor(name).fields
            if schema.is_opaque(field) or _opaque_map(field)
        }
        newer = Path(__file__).parents[2].joinpath("compat/drift/newer.txt").read_text().splitlines()
        opaque -= {f"{line.partition(': ')[0]} opaque" for line in newer}
        assert {line for line in listed if line.endswith(" opaque")} == opaque


def _opaque_map(field):
    inner = field.message_type
    return (
        inner is not None and inner.GetOptions().map_entry and schema.is_opaque(inner.fields_by_name["value"])
    )


class TestTables:
    @pytest.mark.parametrize(
        "line", ["field 1", "1 name", "1 name string @oneof extra", "massage X", "x name string", "= A=1"]
    )
    def test_a_line_outside_the_notation_is_named(self, line):
        with pytest.raises(ValueError, match="is no declaration"):
            pool.build([f"package a.v1\nmessage M\n  {line}\n"])

    @pytest.mark.parametrize(
        "fields",
        ["1 a string\n 1 b string", "1 a string\n 2 a string", "1 a Nowhere", "0 a string", "1 a .Inner"],
    )
    def test_a_table_that_contradicts_itself_is_refused(self, fields):
        with pytest.raises(TypeError):
            pool.build([f"package a.v1\nmessage M\n {fields}\n"])

    def test_every_kind_of_declaration(self):
        first = """
package a.v1
enum Top ZERO=0 ONE=1
    TWO=2
message M
  1 a [string]
  2 b map:uint32
  3 c .Inner @one
  4 d Top @one
  5 e opaque
  6 f map:.Inner
  7 g pb.Duration
  enum Own NIL=0
  8 h .Own
message M.Inner
"""
        made = pool.build([first, "package b.v1\nmessage N\n 1 m a.v1.M\n 2 mode a.v1.Top\n"])
        found = made.FindMessageTypeByName(f"{pool.ROOT}.a.v1.M")
        assert schema.is_repeated(found.fields_by_name["a"])
        assert found.fields_by_name["b"].message_type.GetOptions().map_entry
        assert [field.name for field in found.oneofs_by_name["one"].fields] == ["c", "d"]
        assert found.fields_by_name["d"].enum_type.values_by_name["TWO"].number == 2
        assert found.fields_by_name["g"].message_type.full_name == "google.protobuf.Duration"
        assert found.fields_by_name["h"].enum_type.containing_type is found
        assert made.FindMessageTypeByName(f"{pool.ROOT}.b.v1.N").fields_by_name["m"].message_type is found


class TestAny:
    def test_pack_and_unpack(self):
        packed = schema.pack(schema.message(LISTENER)(name="a"))
        assert packed.type_url == schema.LISTENER
        assert schema.unpack(packed).name == "a"
        assert schema.unpack(packed, LISTENER).name == "a"

    def test_another_type_than_wanted(self):
        with pytest.raises(ValueError, match=f"expected {CLUSTER}, not {LISTENER}"):
            schema.unpack(schema.pack(schema.message(LISTENER)()), CLUSTER)

    def test_bytes_that_are_no_such_message(self):
        with pytest.raises(schema.DecodeError):
            schema.unpack(schema.message("google.protobuf.Any")(type_url=schema.LISTENER, value=b"\xff\xff"))

    def test_an_unknown_type_is_a_key_error(self):
        with pytest.raises(KeyError, match=r"no message a\.B"):
            schema.unpack(schema.message("google.protobuf.Any")(type_url="x/a.B"))

    @pytest.mark.parametrize("url", ["", "nothing", "type.googleapis.com/", "/"])
    def test_a_url_without_a_name(self, url):
        with pytest.raises(ValueError, match="type URL"):
            schema.type_name(url)

    def test_urls_and_short_names_agree(self):
        for short, url in schema.TYPE_URLS.items():
            assert schema.SHORT_NAMES[url] == short
            assert schema.knows(schema.type_name(url))
            assert schema.type_url(schema.type_name(url)) == url
            assert schema.type_url(schema.message(schema.type_name(url))()) == url

    def test_equal_maps_pack_equal(self):
        one, two = schema.message("google.protobuf.Struct")(), schema.message("google.protobuf.Struct")()
        one.update({"a": 1, "b": 2, "c": 3})
        two.update({"c": 3, "b": 2, "a": 1})
        assert schema.pack(one).value == schema.pack(two).value


SHAPE = {
    "name": "web",
    "address": {"socket_address": {"address": "127.0.0.1", "port_value": 80}},
    "metadata": {"filter_metadata": {"envoy.lb": {"on": True, "list": [1.0, None, {"x": "y"}]}}},
    "use_original_dst": True,
    "filter_chains": [
        {
            "filters": [
                {
                    "name": "http",
                    "typed_config": {
                        "@type": f"type.googleapis.com/{HCM}",
                        "stat_prefix": "x",
                        "route_config": {
                            "virtual_hosts": [
                                {
                                    "name": "v",
                                    "domains": ["*"],
                                    "routes": [
                                        {
                                            "match": {
                                                "prefix": "/",
                                                "headers": [
                                                    {"name": "h", "range_match": {"start": "-3", "end": "7"}}
                                                ],
                                            },
                                            "route": {
                                                "cluster": "c",
                                                "timeout": "1.500s",
                                                "priority": "HIGH",
                                            },
                                        }
                                    ],
                                }
                            ]
                        },
                        "http_filters": [{"name": "r", "disabled": True}],
                    },
                }
            ]
        }
    ],
}


class TestJson:
    def test_the_shape_of_an_envoy_file_comes_back_the_same(self):
        assert schema.to_json(schema.from_json(LISTENER, SHAPE)) == SHAPE

    def test_camel_case_is_read(self):
        made = schema.from_json(
            CLUSTER, {"connectTimeout": "0.25s", "edsClusterConfig": {"serviceName": "s"}}
        )
        assert schema.to_json(made) == {
            "connect_timeout": "0.250s",
            "eds_cluster_config": {"service_name": "s"},
        }

    def test_every_problem_has_its_path(self):
        found = problems(
            LISTENER,
            {
                "nam": "a",
                "name": 1,
                "address": {"pipe": {"path": "x"}, "socket_address": {"port_value": -1}},
                "filter_chains": [{"filters": [{"name": []}]}, 7],
                "drain_type": "SOMETIMES",
                "default_filter_chain": {"transport_socket_connect_timeout": "soon"},
                "use_original_dst": "maybe",
            },
        )
        assert [line.partition(": ")[0] for line in found] == [
            "nam",
            "name",
            "address.socket_address",
            "filter_chains[0].filters[0].name",
            "filter_chains[1]",
            "drain_type",
            "default_filter_chain.transport_socket_connect_timeout",
            "use_original_dst",
        ]
        assert "did you mean name?" in found[0]
        assert "DEFAULT, MODIFY_ONLY" in found[5]

    def test_the_path_begins_where_the_caller_says(self):
        with pytest.raises(schema.JsonError, match=r"^listeners\[2\]\.nam: "):
            schema.from_json(LISTENER, {"nam": 1}, path="listeners[2]")

    def test_a_path_leads_through_an_any_and_a_map(self):
        config = {"@type": f"type.googleapis.com/{HCM}", "rds": {"route": "x"}}
        (line,) = problems("envoy.config.listener.v3.Filter", {"typed_config": config})
        assert line.startswith("typed_config.rds.route: is no field of ")
        (line,) = problems(ROUTE, {"typed_per_filter_config": {"f": {"@type": schema.CLUSTER, "name": 1}}})
        assert line.startswith("typed_per_filter_config['f'].name: must be a text")

    def test_an_extension_that_the_schema_does_not_have_becomes_a_typed_struct(self):
        given = {
            "name": "x",
            "typed_config": {"@type": "type.googleapis.com/a.Unknown", "depth": [1, {"b": None}]},
        }
        made = schema.from_json("envoy.config.listener.v3.Filter", given)
        inner = schema.unpack(made.typed_config, "xds.type.v3.TypedStruct")
        assert inner.type_url == "type.googleapis.com/a.Unknown"
        assert schema.to_json(inner.value) == {"depth": [1.0, {"b": None}]}

    def test_an_any_that_the_schema_does_not_have_keeps_its_bytes(self):
        unknown = schema.message("google.protobuf.Any")(type_url="t/a.B", value=b"\x00\x01")
        assert schema.to_json(unknown) == {"@type": "t/a.B", "value": "AAE="}
        broken = schema.message("google.protobuf.Any")(type_url=schema.LISTENER, value=b"\xff")
        assert schema.to_json(broken) == {"@type": schema.LISTENER, "value": "/w=="}

    def test_an_empty_any(self):
        made = schema.from_json("envoy.config.listener.v3.Filter", {"typed_config": {}})
        assert made.HasField("typed_config")
        assert schema.to_json(made) == {"typed_config": {}}

    @pytest.mark.parametrize("value", [{"a": 1}, {"@type": 1}, {"@type": "noslash"}, [], "x"])
    def test_an_any_needs_its_type(self, value):
        (line,) = problems("envoy.config.listener.v3.Filter", {"typed_config": value})
        assert line.startswith("typed_config")

    def test_what_is_inside_an_opaque_field_is_not_read(self):
        made = schema.from_json(CLUSTER, {"filters": [{"made": "up"}], "track_cluster_stats": {"z": 1}})
        assert len(made.filters) == 1
        assert made.HasField("track_cluster_stats")

    def test_null_leaves_a_field_unset(self):
        assert schema.from_json(CLUSTER, {"name": None, "eds_cluster_config": None}).ListFields() == []

    @pytest.mark.parametrize("name", ["Struct", "ListValue", "Value", "Duration", "BoolValue", "Any"])
    @pytest.mark.parametrize("value", [object(), b"x", {1: 2}, [object()]])
    def test_values_of_python_that_no_json_has(self, name, value):
        assert problems(f"google.protobuf.{name}", value)

    def test_a_structure_without_end_is_a_problem_not_a_crash(self):
        endless = {}
        endless["a"] = endless
        (line,) = problems("google.protobuf.Struct", endless)
        assert "nested deeper" in line
        policy = {}
        policy["nested"] = {"@type": "type.googleapis.com/google.protobuf.Any", "value": policy}
        config = {"@type": f"type.googleapis.com/{LISTENER}"}
        config["api_listener"] = {"api_listener": config}
        (line,) = problems("google.protobuf.Any", config)
        assert "nested deeper than 100" in line

    @pytest.mark.parametrize(
        ("field", "good", "bad"),
        [
            (
                "port_value",
                [0, 80, "80", 4294967295, 80.0],
                [-1, 2**32, 1.5, True, "x", "1" * 5000, [], float("nan")],
            ),
            ("protocol", ["TCP", "tcp", "Udp", 1, "1", 1.0], ["tpc", "", " TCP", 1.5, "1.0", True, []]),
            ("ipv4_compat", [True, False, "true", "FALSE", "y", "0"], [0, 1, "2", "", [], None.__class__]),
            ("address", ["", "ü"], [1, b"x", [], "\ud800"]),
        ],
    )
    def test_scalars(self, field, good, bad):
        for value in good:
            schema.from_json("envoy.config.core.v3.SocketAddress", {field: value})
        for value in bad:
            (line,) = problems("envoy.config.core.v3.SocketAddress", {field: value})
            assert line.startswith(f"{field}: ")

    @pytest.mark.parametrize("value", ["1s", "0s", "-1.000000001s", "315576000000s"])
    def test_durations(self, value):
        assert schema.from_json("google.protobuf.Duration", value).ToTimedelta is not None

    @pytest.mark.parametrize(
        ("value", "seconds", "nanos"),
        [
            ("1.5s", 1, 500_000_000),
            ("-0.000000001s", 0, -1),
            ("-1.25s", -1, -250_000_000),
            ({"seconds": 60}, 60, 0),
            ({"seconds": "2", "nanos": 5}, 2, 5),
        ],
    )
    def test_durations_mean_what_they_say(self, value, seconds, nanos):
        made = schema.from_json("google.protobuf.Duration", value)
        assert (made.seconds, made.nanos) == (seconds, nanos)

    @pytest.mark.parametrize(
        "value",
        [
            "1",
            "s",
            "1m",
            "315576000001s",
            "nans",
            "1e3s",
            5,
            "",
            ".5s",
            "1.s",
            "+1s",
            "1.0123456789s",
            {"second": 1},
        ],
    )
    def test_durations_that_are_none(self, value):
        assert problems("google.protobuf.Duration", value)

    @pytest.mark.parametrize(
        ("value", "number"),
        [("010", 10), ("0x10", 16), ("0x1p3", 8), ("3e4", 30_000), ("+7", 7), ({"value": "5"}, 5), ({}, 0)],
    )
    def test_numbers_as_text_mean_what_they_say(self, value, number):
        assert schema.from_json("google.protobuf.UInt32Value", value).value == number

    @pytest.mark.parametrize(
        ("value", "held"),
        [
            ("AAE=", b"\x00\x01"),
            ("AAE", b"\x00\x01"),
            ("-_-_", b"\xfb\xff\xbf"),
            ("+/+/", b"\xfb\xff\xbf"),
            ("", b""),
        ],
    )
    def test_bytes_are_base64(self, value, held):
        name = "envoy.config.core.v3.DataSource"
        assert schema.from_json(name, {"inline_bytes": value}).inline_bytes == held

    @pytest.mark.parametrize("value", ["no base64!", "A", "AAE==", "YW Jj", "é", 5, ["AAE="]])
    def test_bytes_that_are_none(self, value):
        assert problems("envoy.config.core.v3.DataSource", {"inline_bytes": value})

    def test_one_value_stands_for_a_list(self):
        made = schema.from_json(
            "envoy.config.route.v3.RouteConfiguration", {"virtual_hosts": {"name": "v", "domains": "a"}}
        )
        assert [(host.name, list(host.domains)) for host in made.virtual_hosts] == [("v", ["a"])]

    def test_lists_in_lists_are_one(self):
        made = schema.from_json("envoy.config.route.v3.VirtualHost", {"domains": [["a"], [["b"], "c"]]})
        assert list(made.domains) == ["a", "b", "c"]
        endless = []
        endless.append(endless)
        (line,) = problems("envoy.config.route.v3.VirtualHost", {"domains": endless})
        assert "nested deeper" in line

    def test_null_in_a_list_is_an_empty_value(self):
        made = schema.from_json("envoy.config.route.v3.VirtualHost", {"domains": [None], "routes": [None]})
        assert (list(made.domains), len(made.routes)) == ([""], 1)

    def test_a_field_in_both_spellings_has_the_last_value(self):
        made = schema.from_json(CLUSTER, {"connect_timeout": "1s", "connectTimeout": "2s"})
        assert made.connect_timeout.seconds == 2

    def test_of_a_oneof_only_one_may_be_set(self):
        (line,) = problems("envoy.config.route.v3.RouteMatch", {"prefix": "/", "path": "/a"})
        assert line == "path: cannot stand beside prefix: only one of them may be set"

    def test_numbers_that_json_has_no_name_for(self):
        name = "envoy.type.v3.Percent"
        for text in ("NaN", "Infinity", "-Infinity"):
            assert schema.to_json(schema.from_json(name, {"value": text})) == {"value": text}
        assert problems(name, {"value": 10**400})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
names = st.sampled_from([*schema.names(), "google.protobuf.Any", "google.protobuf.Struct"])


def filled(draw, name, depth=0):
    """A random message, as bytes that somebody could send: each field perhaps, nested ones down to a depth."""
    made = schema.message(name)()
    for field in schema.descriptor(name).fields:
        if not draw(st.booleans()):
            continue
        if field.message_type is None:
            value = draw(SCALARS[field.type])
            if schema.is_repeated(field):
                getattr(made, field.name).append(value)
            else:
                setattr(made, field.name, value)
        elif (
            depth < 3 and not schema.is_repeated(field) and schema.knows(schema.full_name(field.message_type))
        ):
            inner = filled(draw, schema.full_name(field.message_type), depth + 1)
            getattr(made, field.name).CopyFrom(inner)
    return made


SCALARS = {
    1: st.floats(allow_nan=False),
    2: st.floats(allow_nan=False, width=32),
    3: st.integers(-(2**63), 2**63 - 1),
    4: st.integers(0, 2**64 - 1),
    5: st.integers(-(2**31), 2**31 - 1),
    8: st.booleans(),
    9: st.text(max_size=5),
    12: st.binary(max_size=5),
    13: st.integers(0, 2**32 - 1),
    14: st.integers(0, 3),
}
some_message = st.composite(lambda draw: filled(draw, draw(st.sampled_from(schema.names()))))()


class TestHostile:
    @given(names, st.binary(max_size=200))
    @settings(max_examples=300, deadline=None)
    def test_random_bytes_are_a_message_or_a_decode_error(self, name, data):
        try:
            made = schema.message(name).FromString(data)
        except schema.DecodeError:
            return
        json.dumps(schema.to_json(made), allow_nan=False)
        assert type(made).FromString(made.SerializeToString()) is not None

    @given(some_message, st.data())
    @settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
    def test_a_broken_copy_of_a_real_message_too(self, made, data):
        good = made.SerializeToString()
        cut = data.draw(st.integers(0, len(good)))
        broken = good[:cut] + data.draw(st.binary(max_size=3)) + good[cut + data.draw(st.integers(0, 3)) :]
        try:
            again = type(made).FromString(broken)
        except schema.DecodeError:
            return
        assert isinstance(again.SerializeToString(), bytes)

    @given(names, json_values)
    @settings(max_examples=200, deadline=None)
    def test_random_json_is_a_message_or_a_json_error(self, name, value):
        try:
            made = schema.from_json(name, value)
        except schema.JsonError:
            return
        type(made).FromString(made.SerializeToString())

    @given(some_message)
    @settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
    def test_a_message_survives_the_json_shape(self, made):
        assume(_has_a_json_form(made))
        shape = json.loads(json.dumps(schema.to_json(made), allow_nan=False))
        assert schema.from_json(schema.full_name(made), shape) == made

    def test_anys_in_anys_are_written_to_a_depth(self):
        made = schema.message("google.protobuf.Any")(type_url="x/google.protobuf.Any")
        for _ in range(2000):
            made = schema.pack(made)
        shape, depth = schema.to_json(made), 0
        while isinstance(shape["value"], dict):
            shape, depth = shape["value"], depth + 1
        assert 90 < depth < 110

    def test_times_out_of_range_are_written_as_they_are(self):
        duration = schema.message("google.protobuf.Duration")(seconds=2**62, nanos=-1)
        assert schema.to_json(duration) == {"seconds": str(2**62), "nanos": -1}

    def test_depth_beyond_protobufs_limit(self):
        data = b""
        for _ in range(200):  # Value.struct_value (5) in Struct.fields (1) in Value …
            entry = b"\x12" + _varint(len(data)) + data
            fields = b"\x0a" + _varint(len(entry)) + entry
            data = b"\x2a" + _varint(len(fields)) + fields
        with pytest.raises(schema.DecodeError):
            schema.message("google.protobuf.Value").FromString(data)


def _has_a_json_form(made):
    """Whether protobuf's own mapping can write it: an Any or a time made of random values may have no JSON form."""
    try:
        json_format.MessageToDict(made, descriptor_pool=schema.POOL)
    except (json_format.Error, TypeError, ValueError, schema.DecodeError):
        return False
    return True


def _varint(number):
    out = b""
    while number > 127:
        out, number = out + bytes([number & 127 | 128]), number >> 7
    return out + bytes([number])
