"""`local_reply_config` and the formats of bodies: what is read, what is refused, what is left out and told."""

from __future__ import annotations

import pytest

from meshlib.model.body import BodyFormat
from meshlib.model.match import HeaderMatch
from meshlib.model.replies import (
    AllOf,
    AnyOf,
    Anything,
    Comparison,
    DurationTest,
    FlagTest,
    GrpcStatusTest,
    HeaderTest,
    LocalReplies,
    ReplyMapper,
    StatusTest,
)
from meshlib.model.route import Edit
from meshlib.testing import build
from meshlib.xds import decode
from tests.support.xds_kit import raw

ROUTES = build.route_config("r", build.virtual_host("v", build.route(cluster="a")))
HERE = "filter_chains[0].filters[0].typed_config.local_reply_config"


def decoded(config):
    return decode.listener(raw(build.listener("l", ROUTES, manager={"local_reply_config": config})))


def read(config):
    found = decoded(config)
    assert (found.problems, found.ignored) == ((), ())
    return found.value.http.local_replies


def status(op, value, **more):
    return {"status_code_filter": {"comparison": {"op": op, "value": {"default_value": value, **more}}}}


def share(numerator):
    return {"runtime_filter": {"runtime_key": "k", "percent_sampled": {"numerator": numerator}}}


def test_whole():
    config = {
        "mappers": [
            {
                "filter": status("EQ", 404, runtime_key="k"),
                "status_code": 599,
                "body": {"inline_string": "gone"},
                "body_format_override": {"json_format": {"code": "%RESPONSE_CODE%", "n": 1}},
                "headers_to_add": [build.header("x-a", "%REQ(:path)%")],
            }
        ],
        "body_format": {
            "text_format": "%LOCAL_REPLY_BODY%",
            "content_type": "a/b",
            "omit_empty_values": True,
        },
    }
    assert read(config) == LocalReplies(
        (
            ReplyMapper(
                StatusTest(Comparison.EQ, 404),
                599,
                b"gone",
                BodyFormat(json={"code": "%RESPONSE_CODE%", "n": 1.0}),
                (Edit("x-a", "%REQ(:path)%"),),
            ),
        ),
        BodyFormat("%LOCAL_REPLY_BODY%", omit_empty=True, content_type="a/b"),
    )
    assert read({"body_format": {"text_format_source": {"inline_string": "x"}}}).format == BodyFormat("x")
    assert read({}) == LocalReplies()


@pytest.mark.parametrize(
    ("given", "test"),
    [
        (status("GE", 500), StatusTest(Comparison.GE, 500)),
        (status("LE", 299), StatusTest(Comparison.LE, 299)),
        (status("NE", 200), StatusTest(Comparison.NE, 200)),
        (
            {"header_filter": {"header": {"name": "x-h", "present_match": True}}},
            HeaderTest(HeaderMatch("x-h", present=True)),
        ),
        ({"response_flag_filter": {"flags": ["NR", "UH"]}}, FlagTest(("NR", "UH"))),
        ({"response_flag_filter": {}}, FlagTest()),
        ({"not_health_check_filter": {}}, Anything()),
        (share(0), Anything(False)),
        (share(100), Anything()),
        (
            {"and_filter": {"filters": [{"not_health_check_filter": {}}, status("EQ", 1)]}},
            AllOf((Anything(), StatusTest(Comparison.EQ, 1))),
        ),
        (
            {"or_filter": {"filters": [share(0), {"not_health_check_filter": {}}]}},
            AnyOf((Anything(False), Anything())),
        ),
        (
            {"grpc_status_filter": {"statuses": ["UNAVAILABLE", "OK"], "exclude": True}},
            GrpcStatusTest(frozenset({0, 14}), exclude=True),
        ),
        ({"grpc_status_filter": {}}, GrpcStatusTest(frozenset())),
        ({"metadata_filter": {}}, Anything()),
        ({"metadata_filter": {"match_if_key_not_found": False}}, Anything(False)),
        ({"log_type_filter": {"types": ["NotSet"]}}, Anything()),
        ({"log_type_filter": {"types": ["NotSet"], "exclude": True}}, Anything(False)),
        ({"log_type_filter": {"types": ["DownstreamEnd"]}}, Anything(False)),
        ({"traceable_filter": {}}, Anything(False)),
        (
            {
                "duration_filter": {
                    "comparison": {"op": "GE", "value": {"default_value": 5, "runtime_key": "k"}}
                }
            },
            DurationTest(Comparison.GE, 5),
        ),
    ],
)
def test_filters(given, test):
    [mapper] = read({"mappers": [{"filter": given}]}).mappers
    assert mapper == ReplyMapper(test)


@pytest.mark.parametrize(
    "given",
    [
        {"extension_filter": {}},
        share(50),
    ],
)
@pytest.mark.parametrize("deep", [False, True])
def test_a_mapper_whose_filter_cannot_be_asked_is_left_out_and_told(given, deep):
    wanted = {"or_filter": {"filters": [{"not_health_check_filter": {}}, given]}} if deep else given
    found = decoded({"mappers": [{"filter": wanted}, {"filter": status("EQ", 404)}]})
    assert found.problems == ()
    assert found.value.http.local_replies.mappers == (ReplyMapper(StatusTest(Comparison.EQ, 404)),)
    assert any(place.startswith(f"{HERE}.mappers[0].filter") for place, _ in found.ignored)


def test_where_calls_are_traced_which_are_is_not_known():
    resource = build.listener(
        "l",
        ROUTES,
        manager={
            "local_reply_config": {"mappers": [{"filter": {"traceable_filter": {}}}]},
            "tracing": {},
        },
    )
    found = decode.listener(raw(resource))
    assert found.problems == ()
    [chain] = found.value.chains
    assert chain.http.local_replies.mappers == ()
    assert [place for place, _ in found.ignored] == [f"{HERE}.mappers[0].filter.traceable_filter"]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"mappers": [{}]}, ".mappers[0].filter: is missing"),
        ({"mappers": [{"filter": {}}]}, ".mappers[0].filter: one of its filters must be set"),
        (
            {"mappers": [{"filter": status("EQ", 404), "status_code": 99}]},
            ".status_code: must be 200 to 599, not 99",
        ),
        ({"mappers": [{"filter": {"status_code_filter": {}}}]}, "status_code_filter.comparison: is missing"),
        ({"mappers": [{"filter": status(7, 404)}]}, "comparison.op: 7 is not known"),
        (
            {"mappers": [{"filter": {"response_flag_filter": {"flags": ["XX"]}}}]},
            "flags[0]: 'XX' is no response flag",
        ),
        (
            {"mappers": [{"filter": {"and_filter": {"filters": [status("EQ", 1)]}}}]},
            "and_filter.filters: must have two members at least",
        ),
        (
            {"mappers": [{"filter": status("EQ", 404), "body": {"filename": "/etc/passwd"}}]},
            "body.filename: a body from a file is not supported",
        ),
        ({"body_format": {}}, ".body_format: one of text_format"),
        ({"body_format": {"text_format": "%NOPE%"}}, ".body_format.text_format: %NOPE% is not a command"),
        ({"body_format": {"json_format": {"a": {"b": ["%REQ(x"]}}}}, ".json_format.a.b[0]: "),
        (
            {"body_format": {"text_format": "x", "content_type": "a\nb"}},
            ".content_type: must not hold a line break",
        ),
    ],
)
def test_wrong(config, words):
    assert any(words in problem for problem in decoded(config).problems)


def test_commands_without_a_value_here_are_told():
    found = decoded({"body_format": {"text_format": "%DURATION% %LOCAL_REPLY_BODY%"}})
    assert found.ignored == ((f"{HERE}.body_format.text_format", "%DURATION% has no value in a client"),)


def test_of_a_direct_response():
    respond = {
        "status": 200,
        "body": {"inline_string": "x"},
        "body_format": {"text_format": "<%LOCAL_REPLY_BODY%>"},
    }
    route = {"match": {"prefix": "/"}, "direct_response": respond}
    found = decode.route(raw(build.route_config("r", build.virtual_host("v", route))))
    assert (found.problems, found.ignored) == ((), ())
    assert found.value.virtual_hosts[0].routes[0].action.format == BodyFormat("<%LOCAL_REPLY_BODY%>")
