"""Whatever a file or a control plane says, there is an answer: each message of the schema, with fields missing and wrong.

Files, responses on a stream, and what comes of them at the first call: nothing raises anything but the list of problems.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meshlib.core.match import compile_routes
from meshlib.model.call import Head
from meshlib.model.headers import Headers
from meshlib.xds import decode, schema
from meshlib.xds.envoy_file import read
from meshlib.xds.session import Session
from tests.support.xds_kit import NODE, RESPONSE
from tests.support.xds_trees import ROOTS, spoiled, trees, ways

WAYS = ways()
LISTS = {"listener": "listeners", "route": "routes", "cluster": "clusters", "endpoint": "endpoints"}
#: Messages that no resource holds: of the protocol, of a file's top, and what only those hold.
ELSEWHERE = (
    "envoy.service.",
    "envoy.config.bootstrap.v3.",
    "envoy.admin.v3.",
    "google.rpc.",
    "xds.data.orca.v3.",
    "xds.service.orca.v3.",
)
NOWHERE = {
    *(
        f"envoy.config.core.v3.{name}"
        for name in ("Node", "BuildVersion", "Extension", "ControlPlane", "QueryParameter")
    ),
    "envoy.type.v3.SemanticVersion",
    *(
        f"envoy.config.endpoint.v3.{name}"
        for name in (
            "ClusterStats",
            "ClusterStats.DroppedRequests",
            "UpstreamLocalityStats",
            "EndpointLoadMetricStats",
            "UnnamedEndpointLoadMetricStats",
        )
    ),
}
few = settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))


def test_each_message_of_the_schema_is_reached():
    missing = {name for name in schema.names() if name not in WAYS and not name.startswith(ELSEWHERE)}
    assert missing == NOWHERE


def told(problems):
    """Problems that say where and what, and are no crash that was caught."""
    assert all(isinstance(line, str) and line for line in problems)
    assert not any("could not be decoded" in line for line in problems), problems


def compiled(part):
    """What the first call does with a part."""
    head = Head("GET", "http", "a", "/", Headers(()))
    listeners = [*part.sidecar, *part.targets.values()]
    for chain in (chain for listener in listeners for chain in listener.chains):
        if chain.http is not None and chain.http.routes is not None:
            compile_routes(chain.http.routes).match(head, lambda: 0.5, [])
    return len(listeners)


def resource(draw, name):
    short, way = WAYS[name]
    tree = draw(trees(ROOTS[short], way))
    return short, draw(spoiled(tree)) if draw(st.booleans()) else tree


@pytest.mark.parametrize("name", sorted(WAYS))
@given(data=st.data())
@few
def test_in_a_file(name, data):
    short, tree = resource(data.draw, name)
    key = LISTS[short]
    under = data.draw(st.sampled_from(["", "static_resources", "staticResources"]))
    held = {key: [tree] if data.draw(st.booleans()) else [tree, tree]}
    found = read({under: held} if under else held)
    told(found.problems)
    compiled(found.part)


@pytest.mark.parametrize("name", sorted(WAYS))
@given(data=st.data())
@few
def test_on_a_stream(name, data):
    short, tree = resource(data.draw, name)
    try:
        message = schema.from_json(ROOTS[short], tree)
    except schema.JsonError as error:
        told(error.problems)
        return
    told(decode.read(short, message).problems)
    session = Session(
        NODE, view=data.draw(st.sampled_from(["auto", "sidecar", "target"])), jitter=lambda: 0.5
    )
    session.want("a")
    session.opened(0.0)
    session.outgoing(0.0)
    session.received(_response(short, message), 0.0)
    session.outgoing(0.0)
    told(line for refusal in session.status(0.0).rejected for line in refusal.problems)
    compiled(session.part)


def _response(short, *messages):
    return RESPONSE(
        type_url=schema.TYPE_URLS[short],
        version_info="1",
        nonce="1",
        resources=[schema.pack(message) for message in messages],
    ).SerializeToString()
