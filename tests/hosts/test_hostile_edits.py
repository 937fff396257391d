"""No word of a control plane, nor what a caller's request brings into a format, makes two requests or lines of one.

Each way by which words become bytes of a request is tried with what would end a line, or the message. They are refused when they are
decoded, fail the call, or arrive as what can stand there; the server, which reads strictly, has never seen another request than those
that were made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import pytest

from meshlib.model.headers import OF_THE_CONNECTION
from meshlib.testing import ControlPlane, build
from tests.hosts.columns import COLUMNS, Ask, Column
from tests.support.strict_server import StrictHttp2Server, StrictServer

Open = Callable[..., Column]
SMUGGLED = "GET /smuggled HTTP/1.1\r\nhost: evil\r\n\r\n"
#: What ends a line, or is taken for an end by somebody.
VALUES = (
    f"a\r\nx-admin: 1\r\n\r\n{SMUGGLED}",
    "a\nx-admin: 1",
    "a\rx-admin: 1",
    "a\0b",
    "a\x0b\x0c\x7f\x85b",
    f" HTTP/1.1\r\nhost: h\r\n\r\n{SMUGGLED}",
    "/b HTTP/1.0",
    "\u010d\u010ax-admin: 1",  # line ends to who cuts characters to bytes
    "é\u2028x",
)
#: How the words of a resource get into a request or a response: the fields of the route's action, of the route, of the virtual host.
WAYS: dict[str, Callable[[str], dict[str, Any]]] = {
    "added value": lambda evil: {"route": {"request_headers_to_add": [build.header("x-a", evil)]}},
    "added name": lambda evil: {"route": {"request_headers_to_add": [build.header(evil, "v")]}},
    "name of what is removed": lambda evil: {"route": {"request_headers_to_remove": [evil]}},
    "response's value": lambda evil: {"route": {"response_headers_to_add": [build.header("x-a", evil)]}},
    "response's name": lambda evil: {"route": {"response_headers_to_add": [build.header(evil, "v")]}},
    "host": lambda evil: {"action": {"host_rewrite_literal": evil}},
    "prefix": lambda evil: {"action": {"prefix_rewrite": f"/{evil}"}},
    "substitution": lambda evil: {
        "action": {"regex_rewrite": {"pattern": {"regex": "^/"}, "substitution": f"/{evil}"}}
    },
    "host by path": lambda evil: {
        "action": {"host_rewrite_path_regex": {"pattern": {"regex": "^/"}, "substitution": evil}}
    },
    "name of the route": lambda evil: {
        "route": {
            "name": evil,
            "request_headers_to_add": [build.header("x-a", "%ROUTE_NAME%")],
            "response_headers_to_add": [build.header("x-a", "%ROUTE_NAME%")],
        }
    },
    "name of the virtual host": lambda evil: {
        "name": evil,
        "route": {
            "request_headers_to_add": [build.header("x-a", "%VIRTUAL_HOST_NAME%")],
            "response_headers_to_add": [build.header("x-a", "%VIRTUAL_HOST_NAME%")],
        },
    },
    "name of the cluster": lambda evil: {
        "cluster": evil,
        "route": {
            "request_headers_to_add": [build.header("x-a", "%UPSTREAM_CLUSTER%")],
            "response_headers_to_add": [build.header("x-a", "%UPSTREAM_CLUSTER%")],
        },
    },
    "query": lambda evil: {
        "query": f"?q={quote(evil)}",
        "route": {
            "request_headers_to_add": [build.header("x-a", "%QUERY_PARAM(q)%")],
            "response_headers_to_add": [build.header("x-a", "%QUERY_PARAM(q)%")],
        },
    },
    "path": lambda evil: {
        "query": quote(evil),
        "route": {"request_headers_to_add": [build.header("x-a", "%PATH(NQ)%")]},
        "action": {"host_rewrite_path_regex": {"pattern": {"regex": "^/(.*)$"}, "substitution": r"\1"}},
    },
    "header": lambda evil: {
        "headers": (("x-mine", evil),),
        "route": {"request_headers_to_add": [build.header("x-a", "%REQ(x-mine)%")]},
    },
    "host by header": lambda evil: {
        "headers": (("x-mine", evil),),
        "action": {"host_rewrite_header": "x-mine"},
    },
    "cookie's name": lambda evil: {"action": {"hash_policy": [{"cookie": {"name": evil, "ttl": "9s"}}]}},
    "cookie's path": lambda evil: {
        "action": {"hash_policy": [{"cookie": {"name": "c", "ttl": "9s", "path": f"/{evil}"}}]}
    },
    "cookie's attribute": lambda evil: {
        "action": {
            "hash_policy": [
                {"cookie": {"name": "c", "ttl": "9s", "attributes": [{"name": "a", "value": evil}]}}
            ]
        }
    },
    "redirect's host": lambda evil: {"redirect": {"host_redirect": evil}},
    "redirect's path": lambda evil: {"redirect": {"path_redirect": f"/{evil}"}},
    "redirect's prefix": lambda evil: {"redirect": {"prefix_rewrite": f"/{evil}"}},
    "redirect's substitution": lambda evil: {
        "redirect": {"regex_rewrite": {"pattern": {"regex": "^/"}, "substitution": f"/{evil}"}}
    },
    "response's type": lambda evil: {
        "direct_response": {"status": 200, "body_format": {"text_format": "x", "content_type": evil}}
    },
}


#: aiohttp has no HTTP/2, and others have the wire of these.
HTTP2 = ("httpx", "httpx async", "requests")


#: A library under `meshlib run` sends by the same code.
PAIRS = [(column, "HTTP/1.1") for column in COLUMNS if not column.endswith(" run")]
PAIRS += [(column, "HTTP/2") for column in HTTP2]
on_every_wire = pytest.mark.parametrize(("column", "server"), PAIRS, indirect=True)


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[StrictServer]:
    """HTTP/2 where the mesh says so: our own wire, in each way in which it is driven."""
    with (StrictServer if request.param == "HTTP/1.1" else StrictHttp2Server)() as running:
        yield running


def cluster(name: str, server: StrictServer) -> Any:
    protocol = {"http2_protocol_options": {}} if isinstance(server, StrictHttp2Server) else {}
    return build.cluster(name, [server.address], **protocol)


def resources(server: StrictServer, number: int, spec: dict[str, Any]) -> list[Any]:
    """A listener of its own for one way."""
    name = spec.get("cluster", "c")
    made: dict[str, Any] = {"match": {"prefix": "/"}, **spec.get("route", {})}
    for kind in ("redirect", "direct_response"):
        if kind in spec:
            made[kind] = spec[kind]
    if not {"redirect", "direct_response"} & set(spec):
        made["route"] = {"cluster": name, **spec.get("action", {})}
    host = build.virtual_host(spec.get("name", "v"), made, domains=["*"])
    listener = build.listener(
        f"l{number}", build.route_config("r", host), address=f"127.0.0.1:{20_000 + number}"
    )
    return [listener, cluster(name, server)] if name != "c" else [listener]


def ask(client: Column, number: int, spec: dict[str, Any], method: str) -> dict[str, str] | None:
    """The header lines of the answer; None: there was none."""
    headers, query = tuple(spec.get("headers", ())), spec.get("query", "")
    body = SMUGGLED.encode() if method == "POST" else None
    url = f"http://127.0.0.1:{20_000 + number}/{query}"
    try:
        return client.call(Ask(method, url, headers, body)).headers
    except Exception:  # noqa: BLE001 - the library's own, by which nothing was sent
        return None


def check(server: StrictServer, made: int) -> None:
    assert server.wrong == []
    assert len(server.requests) <= made
    for method, target, lines, body in server.requests:
        assert (method, body) in ((b"GET", b""), (b"POST", SMUGGLED.encode()))
        assert target.startswith(b"/")
        assert not target.startswith(b"/smuggled")
        assert b"x-admin" not in {name.lower() for name, _ in lines}


@on_every_wire
@pytest.mark.parametrize("way", WAYS)
def test_words_do_not_end_a_line(
    open_client: Open, meshlib_control_plane: ControlPlane, server: StrictServer, way: str
) -> None:
    specs = [WAYS[way](evil) for evil in VALUES]
    found = [cluster("c", server)]
    for number, spec in enumerate(specs):
        found += resources(server, number, spec)
    plain = len(specs)
    found += resources(server, plain, {})
    meshlib_control_plane.set(*found)
    client = open_client({"xds": {"server": meshlib_control_plane.address, "view": "sidecar"}})
    client.mesh.wait_ready(f"127.0.0.1:{20_000 + plain}", timeout=20)
    made = 0
    for number, spec in enumerate(specs):
        for method in ("GET", "POST"):
            lines = ask(client, number, spec, method)
            made += 1
            text = "".join(f"{name}{value}" for name, value in (lines or {}).items())
            assert not set(text) & set("\r\n\0"), (way, number, text)
            assert "x-admin" not in (lines or {})
    check(server, made)
    before = len(server.requests)
    assert ask(client, plain, {}, "POST") is not None, "and the client goes on"
    assert len(server.requests) == before + 1
    check(server, made + 1)


@on_every_wire
@pytest.mark.parametrize("name", sorted(OF_THE_CONNECTION))
def test_a_message_is_framed_by_its_connection_alone(
    open_client: Open, meshlib_control_plane: ControlPlane, server: StrictServer, name: str
) -> None:
    values = ("chunked", "0", "5", "100", "close", "upgrade, x-a", "h2c", "100-continue", "gzip", "x-a")
    actions = ("APPEND_IF_EXISTS_OR_ADD", "OVERWRITE_IF_EXISTS_OR_ADD")
    edits: list[dict[str, Any]] = [
        {side: [build.header(name, value, action=action)]}
        for value in values
        for action in actions
        for side in ("request_headers_to_add", "response_headers_to_add")
    ]
    edits += [{"request_headers_to_remove": [name]}, {"response_headers_to_remove": [name.title()]}]
    found = [cluster("c", server)]
    for number, route in enumerate(edits):
        found += resources(server, number, {"route": route})
    meshlib_control_plane.set(*found)
    client = open_client({"xds": {"server": meshlib_control_plane.address, "view": "sidecar"}})
    client.mesh.wait_ready(*(f"127.0.0.1:{20_000 + number}" for number in range(len(edits))), timeout=20)
    for number in range(len(edits)):
        for method in ("GET", "POST"):
            assert ask(client, number, {}, method) is not None
    assert len(server.requests) == 2 * len(edits)
    check(server, 2 * len(edits))
    [source] = [each for each in client.mesh.status().sources if each.kind == "xds"]
    assert f"{name} is for the connection to say" in {each.value for each in source.ignored}
