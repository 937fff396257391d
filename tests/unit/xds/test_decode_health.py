"""`health_checks` of a Cluster and `health_check_config` of an endpoint: what is read, what Envoy refuses, and that the target view
refuses no cluster for them.
"""

import pytest

from meshlib.model.health import CheckedAt, GrpcCheck, HealthCheck, HttpCheck, TcpCheck
from meshlib.model.match import StringKind, StringMatch
from meshlib.model.route import Edit, EditAction, HeaderEdits
from meshlib.testing import build
from meshlib.xds import decode
from tests.support.xds_kit import raw

BASE = {"timeout": "1s", "interval": "5s", "unhealthy_threshold": 3, "healthy_threshold": 2}
PATH = {"path": "/healthz"}


def made(*checks, **fields):
    return raw(build.cluster("c", ["10.0.0.1:80"], health_checks=list(checks), **fields))


def http(**fields):
    return {**BASE, "http_health_check": {**PATH, **fields}}


def read(*checks, view="sidecar", **fields):
    found = decode.cluster(made(*checks, **fields), view)
    assert found.problems == ()
    return found.value.health_check


def problems(*checks):
    found = decode.cluster(made(*checks), "sidecar")
    # gRPC's clients do not read them, so that nothing of this refuses a cluster in the target view.
    target = decode.cluster(made(*checks), "target")
    assert target.problems == ()
    assert target.value.health_check is None
    assert any(path.startswith("health_checks") for path, _ in target.ignored)
    return found.problems


def ignored(*checks):
    found = decode.cluster(made(*checks), "sidecar")
    assert found.problems == ()
    return dict(found.ignored)


def test_none_is_none():
    assert read() is None


def test_defaults_are_envoys():
    assert read(http()) == HealthCheck(
        HttpCheck("/healthz", http2=False), interval=5.0, timeout=1.0, healthy=2, unhealthy=3
    )


def test_of_the_target_view_it_is_for_http_calls_only():
    assert read(http(), view="target").grpc is False
    assert read(http()).grpc is True


def test_every_time_and_number():
    found = read(
        {
            **http(),
            "initial_jitter": "0.1s",
            "interval_jitter": "0.2s",
            "interval_jitter_percent": 7,
            "unhealthy_interval": "2s",
            "unhealthy_edge_interval": "3s",
            "healthy_edge_interval": "4s",
            "no_traffic_interval": "60s",
            "no_traffic_healthy_interval": "70s",
            "reuse_connection": False,
            "always_log_health_check_failures": True,
            "always_log_health_check_success": True,
            "tls_options": {"alpn_protocols": ["health", "h2"]},
            "transport_socket_match_criteria": {"tls": True, "port": 1},
        },
        common_lb_config={"ignore_new_hosts_until_first_hc": True},
    )
    assert found == HealthCheck(
        HttpCheck("/healthz", http2=False),
        interval=5.0,
        timeout=1.0,
        healthy=2,
        unhealthy=3,
        initial_jitter=0.1,
        jitter=0.2,
        jitter_percent=7,
        unhealthy_interval=2.0,
        unhealthy_edge=3.0,
        healthy_edge=4.0,
        no_traffic=60.0,
        no_traffic_healthy=70.0,
        reuse=False,
        alpn=("health", "h2"),
        labels=(("port", 1.0), ("tls", True)),
        new_count_not=True,
        log_failures=True,
        log_successes=True,
    )


def test_every_field_of_an_http_check():
    found = read(
        http(
            host="h.test",
            method="POST",
            expected_statuses=[{"start": 200, "end": 300}],
            retriable_statuses=[{"start": 503, "end": 504}],
            codec_client_type="HTTP2",
            service_name_matcher={"prefix": "rev"},
            request_headers_to_add=[{"header": {"key": "x-a", "value": "1"}}],
            request_headers_to_remove=["user-agent"],
            send={"text": "6869"},
            receive=[{"text": "6f6b"}, {"binary": "IQ=="}],
            response_buffer_size=10,
        )
    ).how
    assert found == HttpCheck(
        "/healthz",
        host="h.test",
        method="POST",
        expected=((200, 300),),
        retriable=((503, 504),),
        edits=HeaderEdits((Edit("x-a", "1", EditAction.APPEND),), ("user-agent",)),
        http2=True,
        service=StringMatch(StringKind.PREFIX, "rev"),
        send=b"hi",
        receive=(b"ok", b"!"),
        most=10,
    )


def test_grpc_and_tcp():
    metadata = [{"header": {"key": "x-a", "value": "1"}}]
    grpc = {"service_name": "s", "authority": "a.test", "initial_metadata": metadata}
    edits = HeaderEdits((Edit("x-a", "1", EditAction.APPEND),))
    found = read({**BASE, "grpc_health_check": grpc}, http2_protocol_options={})
    assert found.how == GrpcCheck("s", "a.test", edits)
    tcp = {"send": {"text": "00ff"}, "receive": [{"text": "01"}]}
    assert read({**BASE, "tcp_health_check": tcp}).how == TcpCheck(b"\x00\xff", (b"\x01",))
    assert read({**BASE, "tcp_health_check": {}}).how == TcpCheck()


@pytest.mark.parametrize(
    ("check", "path"),
    [
        ({}, "health_checks[0]"),
        ({**BASE, "grpc_health_check": {}}, "health_checks[0].grpc_health_check"),
        ({**http(), "timeout": "0s"}, "health_checks[0].timeout"),
        ({**http(), "timeout": None}, "health_checks[0].timeout"),
        ({**http(), "interval": None}, "health_checks[0].interval"),
        ({**http(), "unhealthy_threshold": None}, "health_checks[0].unhealthy_threshold"),
        ({**http(), "healthy_threshold": None}, "health_checks[0].healthy_threshold"),
        ({**http(), "no_traffic_interval": "0s"}, "health_checks[0].no_traffic_interval"),
        ({**http(), "healthy_edge_interval": "0s"}, "health_checks[0].healthy_edge_interval"),
        ({**http(), "tls_options": {"alpn_protocols": [""]}}, "health_checks[0].tls_options.alpn_protocols[0]"),
        (http(path=""), "health_checks[0].http_health_check.path"),
        (http(path="/\r\nx: y"), "health_checks[0].http_health_check.path"),
        (http(host="a\r\nb"), "health_checks[0].http_health_check.host"),
        (http(method="CONNECT"), "health_checks[0].http_health_check.method"),
        (http(send={"text": "00"}), "health_checks[0].http_health_check.send"),
        (http(send={"text": "0"}, method="POST"), "health_checks[0].http_health_check.send.text"),
        (http(send={}, method="POST"), "health_checks[0].http_health_check.send"),
        (http(receive=[{"text": "zz"}]), "health_checks[0].http_health_check.receive[0].text"),
        (http(receive=[{"text": "0000"}], response_buffer_size=1), "health_checks[0].http_health_check.receive"),
        (http(expected_statuses=[{"start": 99, "end": 200}]), "health_checks[0].http_health_check.expected_statuses[0]"),
        (http(expected_statuses=[{"start": 200, "end": 200}]), "health_checks[0].http_health_check.expected_statuses[0]"),
        (http(retriable_statuses=[{"start": 500, "end": 601}]), "health_checks[0].http_health_check.retriable_statuses[0]"),
        (http(service_name_matcher={"prefix": ""}), "health_checks[0].http_health_check.service_name_matcher.prefix"),
        (
            http(request_headers_to_add=[{"header": {"key": "host", "value": "x"}}]),
            "health_checks[0].http_health_check.request_headers_to_add[0].header.key",
        ),
    ],
)  # fmt: skip
def test_what_envoy_refuses(check, path):
    found = problems({key: value for key, value in check.items() if value is not None})
    assert any(problem.startswith(f"{path}: ") for problem in found), found


def test_more_than_one_is_refused_as_by_envoy():
    (problem,) = problems(http(), http())
    assert problem.startswith("health_checks: ")


@pytest.mark.parametrize(
    ("check", "path"),
    [
        (http(codec_client_type="HTTP3"), "http_health_check.codec_client_type"),
        (http(path="no slash"), "http_health_check.path"),
        ({**BASE, "custom_health_check": {"name": "redis"}}, "custom_health_check"),
    ],
)
def test_what_cannot_be_asked_is_not_asked_and_told(check, path):
    """Nothing is held against an endpoint for what this process cannot say."""
    assert read(check) is None
    assert f"health_checks[0].{path}" in ignored(check)


@pytest.mark.parametrize("field", ["event_log_path", "alt_port"])
def test_what_is_passed_over(field):
    value = 9 if field == "alt_port" else "/var/log/x"
    told = ignored({**http(), field: value})
    assert (f"health_checks[0].{field}" in told) == (field == "event_log_path")


def endpoint(view="sidecar", **config):
    resource = build.endpoints("c", "10.0.0.1:80")
    place = resource["endpoints"][0]["lb_endpoints"][0]["endpoint"]
    place["health_check_config"] = config
    found = decode.endpoint(raw(resource), view)
    return found if found.problems else found.value.endpoints[0].check


@pytest.mark.parametrize("view", ["sidecar", "target"])
@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, None),
        ({"port_value": 81}, CheckedAt(port=81)),
        ({"hostname": "h.test"}, CheckedAt(hostname="h.test")),
        ({"disable_active_health_check": True}, CheckedAt(off=True)),
        (
            {"address": {"socket_address": {"address": "10.0.0.9", "port_value": 82}}},
            CheckedAt("10.0.0.9", port=82),
        ),
        (
            {"port_value": 81, "address": {"socket_address": {"address": "10.0.0.9", "port_value": 82}}},
            CheckedAt("10.0.0.9", port=81),
        ),
    ],
)
def test_where_an_endpoint_is_asked(view, config, expected):
    assert endpoint(view, **config) == expected


def test_a_port_that_is_none():
    assert endpoint(port_value=65536).problems
    assert endpoint("target", port_value=65536) is None
