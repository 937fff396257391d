"""What of YAML and JSON passes: each row is put to a real Envoy, and meshlib must say the same.

The rules are those of protobuf's JSON mapping as its parser for C++ has them, and of Envoy's own reading of YAML.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from meshlib.cli.check import inspect
from tests.support.envoy_validate import refusal

pytestmark = pytest.mark.timeout(170)

_BASE = """
static_resources:
  clusters:
  - name: c
    type: STATIC
"""
_HCM = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_ROUTER = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
_RAW = "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"
_SOCKET = f'transport_socket: {{name: envoy.transport_sockets.raw_buffer, typed_config: {{"@type": {_RAW}}}}}'
_BYTES = "per_connection_buffer_limit_bytes"
_BOOL = "ignore_health_on_host_removal"
_PANIC = "common_lb_config: {healthy_panic_threshold: {value: %s}}"
_ENDPOINT = "load_assignment: {cluster_name: c, endpoints: [{lb_endpoints: [{endpoint: {address: {%s}}}]}]}"


def cluster(*lines: str) -> str:
    return _BASE + "".join(f"    {line}\n" for line in lines)


def listeners(*heads: str, body: str = "", routes: str = "") -> str:
    """A listener for each of ``heads`` (``name: a,``), on ports of their own."""
    answer = f"direct_response: {{status: 200{f', body: {{inline_bytes: {body}}}' if body else ''}}}"
    table = (
        routes
        or f"virtual_hosts: [{{name: v, domains: ['*'], routes: [{{match: {{prefix: /}}, {answer}}}]}}]"
    )
    manager = (
        f"{{'@type': {_HCM}, stat_prefix: a, http_filters: [{{name: envoy.filters.http.router,"
        f" typed_config: {{'@type': {_ROUTER}}}}}], route_config: {{{table}}}}}"
    )
    each = (
        f"{{{head} address: {{socket_address: {{address: 127.0.0.1, port_value: {20000 + number}}}}},"
        f" filter_chains: [{{filters: [{{name: hcm, typed_config: {manager}}}]}}]}}"
        for number, head in enumerate(heads)
    )
    return f"static_resources: {{listeners: [{', '.join(each)}]}}"


#: Rows that pass.
YAML_GOOD = {
    "enum, lower case": cluster("lb_policy: least_request"),
    "enum, mixed case": cluster("lb_policy: Least_Request"),
    "enum, number": cluster("lb_policy: 1"),
    "enum, number as text": cluster("lb_policy: '1'"),
    "enum, null": cluster("lb_policy: null"),
    "number as text": cluster(f"{_BYTES}: '32768'"),
    "number as text, with an exponent": cluster(f"{_BYTES}: '3e4'"),
    "number as text, with a point": cluster(f"{_BYTES}: '32768.0'"),
    "number as text, with a sign": cluster(f"{_BYTES}: '+32768'"),
    "number as text, minus zero": cluster(f"{_BYTES}: '-0'"),
    "number as text, hexadecimal": cluster(f"{_BYTES}: '0x10'"),
    "number as text, hexadecimal with a power": cluster(f"{_BYTES}: '0x1p3'"),
    "number as text, leading zero": cluster(f"{_BYTES}: '010'"),
    "number with a point": cluster(f"{_BYTES}: 32768.0"),
    "number with an exponent": cluster(f"{_BYTES}: 30000e-1"),
    "number, hexadecimal": cluster(f"{_BYTES}: 0x10"),
    "number, octal": cluster(f"{_BYTES}: 010"),
    "number, no octal one": cluster(f"{_BYTES}: 08"),
    "number, signed": cluster(f"{_BYTES}: +5"),
    "number in quotes with a tag": cluster(f"{_BYTES}: !!int '5'"),
    "wrapper as its field": cluster(f"{_BYTES}: {{value: 5}}"),
    "wrapper, empty": cluster(f"{_BYTES}: {{}}"),
    "wrapper, null": cluster(f"{_BYTES}: {{value: null}}"),
    "truth as text": cluster(f"{_BOOL}: 'true'"),
    "truth as text, another case": cluster(f"{_BOOL}: 'FaLse'"),
    "truth as text, yes": cluster(f"{_BOOL}: 'yes'"),
    "truth as text, t": cluster(f"{_BOOL}: 't'"),
    "truth as text, 1": cluster(f"{_BOOL}: '1'"),
    "truth of YAML 1.1, on": cluster(f"{_BOOL}: on"),
    "truth of YAML 1.1, y": cluster(f"{_BOOL}: y"),
    "truth, odd case": cluster(f"{_BOOL}: tRUE"),
    "truth, empty": cluster(f"{_BOOL}:"),
    "truth, tilde": cluster(f"{_BOOL}: ~"),
    "duration as fields": cluster("connect_timeout: {seconds: 60}"),
    "duration as fields, nanos": cluster("connect_timeout: {seconds: 1, nanos: 5}"),
    "duration as fields, text": cluster("connect_timeout: {seconds: '60'}"),
    "duration as fields, null": cluster("connect_timeout: {seconds: null, nanos: 5}"),
    "duration with a fraction": cluster("connect_timeout: 0.123456789s"),
    "duration with a leading zero": cluster("connect_timeout: 01s"),
    "duration, null": cluster("connect_timeout: null"),
    "text that looks like a number": cluster("alt_stat_name: 1.5"),
    "text that looks like a date": cluster("alt_stat_name: 2020-01-01"),
    "text that looks like a time": cluster("alt_stat_name: 12:30"),
    "text that is a large number": cluster("alt_stat_name: 9007199254740993"),
    "text that is no number of 64 bits": cluster("alt_stat_name: 9223372036854775808"),
    "text with underscores": cluster("alt_stat_name: 1_000"),
    "text in a block": cluster("alt_stat_name: |", "  5"),
    "text, null": cluster("alt_stat_name: Null"),
    "text, 'null'": cluster("alt_stat_name: 'null'"),
    "text with a NUL": cluster('alt_stat_name: "a\\0b"'),
    "key twice": cluster("connect_timeout: 1s", "connect_timeout: 2s"),
    "key twice, the first wrong": cluster("connect_timeout: soon", "connect_timeout: 2s"),
    "key twice in two spellings": cluster("connect_timeout: 1s", "connectTimeout: 2s"),
    "key of a map twice": cluster("metadata: {filter_metadata: {a: {b: 1}, a: {c: 1}}}"),
    "key that is a number": cluster("metadata: {filter_metadata: {5: {}}}"),
    "camelCase": cluster("connectTimeout: 1s", "lbPolicy: RANDOM"),
    "staticResources": cluster("connect_timeout: 1s").replace("static_resources", "staticResources"),
    "both spellings": cluster(_ENDPOINT % "socketAddress: {address: 127.0.0.1, port_value: 80}"),
    "list, null": cluster("health_checks: null"),
    "list of one as it is": cluster(f"transport_socket_matches: {{name: a, {_SOCKET}}}"),
    "list in a list": cluster("transport_socket_matches: [[]]"),
    "list of clusters as one": "static_resources: {clusters: {name: c, type: STATIC}}",
    "list of texts as one": cluster("lb_subset_config: {subset_selectors: [{keys: a}]}"),
    "message, null": cluster("common_lb_config: null"),
    "map, null": cluster("metadata: {filter_metadata: null}"),
    "map with null": cluster("metadata: {filter_metadata: {a: null}}"),
    "oneof, the other null": cluster("type: STATIC", "cluster_type: null").replace("    type: STATIC\n", "", 1),
    "struct": cluster("metadata: {filter_metadata: {a: {b: [1, null, {c: true}], d: 1.5, e: yes}}}"),
    "!ignore before a key": "!ignore x: {a: &t 1s}\n" + cluster("connect_timeout: *t"),
    "!ignore before a quoted key": "!ignore 'x': {a: &t 1s}\n" + cluster("connect_timeout: *t"),
    "!ignore within": cluster("common_lb_config: {!ignore a: 1}"),
    "!ignore of what has no end": "!ignore x: &a [*a]\n" + cluster("connect_timeout: 1s"),
    "another tag": cluster("connect_timeout: !foo 1s"),
    "two documents": cluster("connect_timeout: 1s") + "---\na: 1\n",
    "a directive": "%YAML 1.1\n---\n" + cluster("connect_timeout: 1s"),
    "a byte order mark": "\ufeff" + cluster("connect_timeout: 1s"),
    "double as text": cluster(_PANIC % "'5e1'"),
    "double as text, hexadecimal": cluster(_PANIC % "'0x10'"),
    "double as text, spaces": cluster(_PANIC % "' 50 '"),
    "double without a leading digit": cluster(_PANIC % ".5"),
    "Any of another host": cluster(_SOCKET.replace("type.googleapis.com", "example.com")),
    "Any with its type twice": cluster(_SOCKET.replace('{"@type"', '{"@type": a.com/b.C, "@type"')),
    "bytes": listeners("", body="'YWJj'"),
    "bytes without padding": listeners("", body="'YWI'"),
    "bytes with padding": listeners("", body="'YWI='"),
    "bytes, URL-safe": listeners("", body="'-_-_'"),
    "bytes of both alphabets": listeners("", body="'+_-/'"),
    "bytes with bits left over": listeners("", body="'YWF'"),
    "bytes padded by bits left over": listeners("", body="'YWJ='"),
    "listener without a name": listeners(""),
    "two listeners without a name": listeners("", ""),
    "listener with an empty name": listeners("name: '',"),
    "two listeners of one name": listeners("name: a,", "name: a,"),
    "clusters, null": "static_resources: {clusters: null}",
    "static_resources, null": "static_resources: null",
    "only admin": "admin: {address: {socket_address: {address: 127.0.0.1, port_value: 0}}}",
    "only dynamic_resources": "node: {id: a, cluster: b}\ndynamicResources: {}",
    "fields of a bootstrap": "layered_runtime: {layers: [{name: a, static_layer: {}}]}\nstats_flush_interval: 5s\n"
    "enable_worker_cpu_affinity: false\nuse_tcp_for_dns_lookups: 'true'",
    "cookies": listeners(
        "",
        routes="virtual_hosts: [{name: v, domains: ['*'], routes: [{match: {prefix: /, cookies: [{name: a,"
        " string_match: {exact: b}}]}, direct_response: {status: 200}}]}]",
    ),
}  # fmt: skip

#: Rows that are refused.
YAML_BAD = {
    "enum, unknown": cluster("lb_policy: least-request"),
    "enum, a number with a point": cluster("lb_policy: 1.0"),
    "enum, empty": cluster("lb_policy: ''"),
    "enum, a truth value": cluster("lb_policy: true"),
    "enum, a list": cluster("lb_policy: [RANDOM]"),
    "enum with a space": cluster("lb_policy: ' RANDOM'"),
    "number with a fraction": cluster(f"{_BYTES}: 32768.5"),
    "number as text with a fraction": cluster(f"{_BYTES}: '32768.5'"),
    "number as text with a space": cluster(f"{_BYTES}: ' 32768'"),
    "number as text with a space after": cluster(f"{_BYTES}: '32768 '"),
    "number as text, empty": cluster(f"{_BYTES}: ''"),
    "number as text, none": cluster(f"{_BYTES}: 'NaN'"),
    "number as text, too large": cluster(f"{_BYTES}: '1e30'"),
    "number as text, other digits": cluster(f"{_BYTES}: '٣'"),
    "number, negative": cluster(f"{_BYTES}: -1"),
    "number, too large": cluster(f"{_BYTES}: 4294967296"),
    "number, a truth value": cluster(f"{_BYTES}: true"),
    "number, octal of YAML 1.2": cluster(f"{_BYTES}: 0o10"),
    "number with an underscore": cluster(f"{_BYTES}: 1_000"),
    "number, sexagesimal": cluster(f"{_BYTES}: 1:30"),
    "number, a list": cluster(f"{_BYTES}: [5]"),
    "wrapper with another field": cluster(f"{_BYTES}: {{valu: 5}}"),
    "truth, a number": cluster(f"{_BOOL}: 1"),
    "truth as text, 2": cluster(f"{_BOOL}: '2'"),
    "truth as text, empty": cluster(f"{_BOOL}: ''"),
    "truth, a mapping": cluster(f"{_BOOL}: {{}}"),
    "duration, a number": cluster("connect_timeout: 1"),
    "duration, a number as text": cluster("connect_timeout: '1'"),
    "duration in ms": cluster("connect_timeout: 1ms"),
    "duration without a leading digit": cluster("connect_timeout: .5s"),
    "duration without a last digit": cluster("connect_timeout: 1.s"),
    "duration of ten digits": cluster("connect_timeout: 1.0123456789s"),
    "duration, signed": cluster("connect_timeout: +1s"),
    "duration, negative": cluster("connect_timeout: -1s"),
    "duration with a space": cluster("connect_timeout: '1 s'"),
    "duration with an exponent": cluster("connect_timeout: 1e1s"),
    "duration, too long": cluster("connect_timeout: 99999999999999s"),
    "duration, upper case": cluster("connect_timeout: 1S"),
    "duration as fields, another": cluster("connect_timeout: {second: 1}"),
    "duration as fields, zero": cluster("connect_timeout: {}"),
    "duration as fields, nanos too large": cluster("connect_timeout: {seconds: 1, nanos: 2000000000}"),
    "duration, a list": cluster("connect_timeout: []"),
    "text, a number": cluster("alt_stat_name: 5"),
    "text, hexadecimal": cluster("alt_stat_name: 0x10"),
    "text, a truth value": cluster("alt_stat_name: yes"),
    "text, a tag": cluster("alt_stat_name: !!str 5"),
    "text, a mapping": cluster("alt_stat_name: {a: 1}"),
    "text, a list": cluster("alt_stat_name: []"),
    "key twice, the last wrong": cluster("connect_timeout: 2s", "connect_timeout: soon"),
    "key that is not known": cluster("foo: bar"),
    "key that is not known, null": cluster("foo: null"),
    "key in lower case": cluster("connecttimeout: 1s"),
    "key of a list": cluster("metadata: {filter_metadata: {[1]: {}}}"),
    "key at the top that is not known": "foo: 1\n" + cluster("connect_timeout: 1s"),
    "!ignore before a value": "x: !ignore {a: 1}\n" + cluster("connect_timeout: 1s"),
    "<<": cluster("<<: {connect_timeout: 1s}"),
    "message, a text": cluster("common_lb_config: ''"),
    "message, a list": cluster("common_lb_config: []"),
    "map, a list": cluster("typed_extension_protocol_options: []"),
    "cluster, null": "static_resources: {clusters: [null]}",
    "cluster without a name": "static_resources: {clusters: [{type: STATIC}]}",
    "two clusters of one name": "static_resources: {clusters: [{name: c, type: STATIC}, {name: c, type: STATIC}]}",
    "oneof twice": cluster("cluster_type: {name: a}"),
    "struct, a number": cluster("metadata: {filter_metadata: {a: 5}}"),
    "double, a truth value": cluster(_PANIC % "true"),
    "double, empty": cluster(_PANIC % "''"),
    "double with an underscore": cluster(_PANIC % "'1_0'"),
    "Any without its type": cluster("transport_socket: {name: a, typed_config: {a: 1}}"),
    "Any, its type null": cluster("transport_socket: {name: a, typed_config: {'@type': null}}"),
    "Any, its type without a slash": cluster(_SOCKET.replace("type.googleapis.com/", "")),
    "Any, its type without a host": cluster(_SOCKET.replace("type.googleapis.com", "")),
    "Any, a list": cluster("transport_socket: {name: a, typed_config: []}"),
    "bytes with a space": listeners("", body="'YW Jj'"),
    "bytes, one digit": listeners("", body="'a'"),
    "bytes of another alphabet": listeners("", body="'Y*Jj'"),
    "bytes padded too much": listeners("", body="'YWJj='"),
    "bytes, a number": listeners("", body="5"),
    "listener without an address": "static_resources: {listeners: [{name: a}]}",
    "surrogate": cluster('alt_stat_name: "\\ud800"'),
    "tab": cluster("\tconnect_timeout: 1s"),
    "a list at the top": "[]",
}  # fmt: skip


def cluster_json(text: str) -> str:
    return f'{{"static_resources":{{"clusters":[{{"name":"c","type":"STATIC",{text}}}]}}}}'


JSON_GOOD = {
    "key twice": cluster_json('"connect_timeout":"-1s","connect_timeout":"1s"'),
    "key twice in two spellings": cluster_json('"connectTimeout":"1s","connect_timeout":"2s"'),
    "number with an exponent": cluster_json(f'"{_BYTES}":3e4'),
    "number with a point": cluster_json(f'"{_BYTES}":3.0'),
    "number as text": cluster_json(f'"{_BYTES}":"3"'),
    "enum, a number with a point": cluster_json('"lb_policy":1.0'),
    "enum, lower case": cluster_json('"lb_policy":"random"'),
    "truth as text": cluster_json(f'"{_BOOL}":"true"'),
    "duration as fields": cluster_json('"connect_timeout":{"seconds":1}'),
    "null": cluster_json('"connect_timeout":null'),
}
JSON_BAD = {
    "key twice, the last wrong": cluster_json('"connect_timeout":"1s","connect_timeout":"-1s"'),
    "oneof twice by one name": cluster_json('"type":"STATIC"'),
    "key of a map twice": cluster_json('"metadata":{"filter_metadata":{"a":{},"a":{}}}'),
    "key of a struct twice": cluster_json('"metadata":{"filter_metadata":{"a":{"b":1,"b":2}}}'),
    "text, a number": cluster_json('"alt_stat_name":5'),
    "text, a number with a point": cluster_json('"alt_stat_name":1.5'),
    "number with a leading zero": cluster_json(f'"{_BYTES}":03'),
    "NaN": cluster_json('"common_lb_config":{"healthy_panic_threshold":{"value":NaN}}'),
    "comment": cluster_json('"connect_timeout":"1s" /* */'),
    "surrogate": cluster_json('"alt_stat_name":"\\ud800"'),
    "more after the end": cluster_json('"connect_timeout":"1s"') + "x",
    "empty": "",
    "null at the top": "null",
}

#: Where we are stricter than Envoy, and why: a JSON file is JSON (docs/differences.md).
STRICTER = {
    "trailing comma": cluster_json('"connect_timeout":"1s",'),
    "single quotes": cluster_json("'connect_timeout':'1s'"),
    "bare key": cluster_json('connect_timeout:"1s"'),
    "line break in a text": cluster_json('"alt_stat_name":"a\nb"'),
}

ROWS = [
    *((f"a.yaml: {name}", text, True) for name, text in YAML_GOOD.items()),
    *((f"a.yaml: {name}", text, False) for name, text in YAML_BAD.items()),
    *((f"a.json: {name}", text, True) for name, text in JSON_GOOD.items()),
    *((f"a.json: {name}", text, False) for name, text in JSON_BAD.items()),
]


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    return path


@pytest.mark.parametrize(("name", "text", "good"), ROWS, ids=[name for name, *_ in ROWS])
def test_meshlib_says_what_envoy_says(name, text, good, tmp_path):
    path = write(tmp_path, name.partition(":")[0], text)
    why = refusal(path)
    assert (why == "") is good, why
    found = inspect(path)
    assert (found.problems == ()) is good, found.problems
    if good:
        assert found.kind == "envoy"


@pytest.mark.parametrize("name", STRICTER)
def test_a_file_of_json_is_json(name, tmp_path):
    path = write(tmp_path, "a.json", STRICTER[name])
    assert refusal(path) == ""
    assert f"{path}: " in inspect(path).problems[0]
