"""What the mesh would have made of a call that went the old way, compared with what became of it."""

from __future__ import annotations

import pytest

import meshlib
from meshlib.core.adoption import Places, compare
from meshlib.model.call import OK, Head, Outcome, OutcomeKind

ENDPOINTS = ["10.0.0.1:80", "10.0.0.2:80"]


def found(service, peer="10.0.0.1:80", outcome=None, path="/", host="reviews", **config):
    config = {"services": {"reviews": service}, "sidecar": {"mode": "off"}, **config}
    with meshlib.Mesh(meshlib.Config.from_mapping(config)) as mesh:
        runtime = mesh._runtime()
        resolution = runtime.view.resolve("http", host, None, host)
        outcome = outcome or Outcome(OK, 200, None, True, 0.01)
        head = Head("GET", "http", host, path)
        reasons = [one.reason for one in compare(resolution, head, peer, outcome, runtime.env, Places())]
        assert mesh.status().clusters["reviews"].requests == 0, "nothing is counted"
        return reasons


@pytest.mark.parametrize(
    ("service", "more", "reasons"),
    [
        ({}, {}, []),
        ({}, {"peer": "10.0.0.2:80"}, []),
        ({}, {"peer": ""}, []),
        ({}, {"peer": "10.0.0.1:8080"}, ["port"]),
        ({}, {"peer": "10.9.9.9:80"}, ["host"]),
        ({"routes": [{"match": {"prefix": "/a"}, "redirect": {"path": "/b"}}]}, {"path": "/a"}, ["answered"]),
        (
            {"routes": [{"match": {"prefix": "/a"}, "response": {"status": 418}}]},
            {"path": "/a"},
            ["answered"],
        ),
        ({"routes": [{"match": {"prefix": "/a"}, "service": "gone"}]}, {"path": "/a"}, ["no_endpoint"]),
        ({"endpoints": []}, {}, ["no_endpoint"]),
        (
            {"retry": {"attempts": 2, "on": ["5xx"]}},
            {"outcome": Outcome(OK, 503, None, True, 0.01)},
            ["retry"],
        ),
        ({"retry": {"attempts": 2, "on": ["5xx"]}}, {"outcome": Outcome(OK, 404, None, True, 0.01)}, []),
        (
            {"retry": {"attempts": 2, "on": ["connect-failure"]}},
            {"outcome": Outcome(OutcomeKind.CONNECT, seconds=0.01), "peer": ""},
            ["retry"],
        ),
        ({"timeout": 0.5}, {"outcome": Outcome(OK, 200, None, True, 0.6)}, ["timeout"]),
        ({}, {"host": "elsewhere", "unknown_hosts": "refuse"}, ["refused"]),
        ({}, {"host": "elsewhere"}, []),
        ({}, {"host": "elsewhere", "xds": {"server": "127.0.0.1:1"}}, ["not_known"]),
    ],
)
def test_a_difference(service, more, reasons):
    assert found({"endpoints": ENDPOINTS, **service}, **more) == reasons


def test_no_route():
    service = {"routes": [{"match": {"prefix": "/a"}, "service": "other"}]}
    config = {"services": {"reviews": service, "other": {"endpoints": ENDPOINTS}}, "sidecar": {"mode": "off"}}
    with meshlib.Mesh(meshlib.Config.from_mapping(config)) as mesh:
        runtime = mesh._runtime()
        resolution = runtime.view.resolve("http", "reviews", None, "reviews")
        outcome = Outcome(OK, 200, None, True, 0.01)
        (one,) = compare(resolution, Head("GET", "http", "reviews", "/b"), "", outcome, runtime.env, Places())
    assert (one.reason, one.detail) == ("no_route", "no route matches: 404")


def test_places_follow_the_cluster():
    places = Places()
    with meshlib.Mesh({"services": {"reviews": {"endpoints": ENDPOINTS}}}) as mesh:
        cluster = mesh.snapshot().clusters["reviews"]
    assert places.of(cluster) is places.of(cluster)
    assert places.of(cluster) == {"10.0.0.1": {80}, "10.0.0.2": {80}}
    with meshlib.Mesh({"services": {"reviews": {"endpoints": ["10.0.0.3:81"]}}}) as mesh:
        assert places.of(mesh.snapshot().clusters["reviews"]) == {"10.0.0.3": {81}}
