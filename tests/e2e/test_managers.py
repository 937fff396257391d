"""What a listener's connection manager orders, through every kind of client: heads, replies of its own, white space."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

import meshlib
import meshlib_aiohttp
import meshlib_requests
from meshlib.testing import build
from meshlib.testing.upstream import Upstream
from tests.support.faces import FACES, Face

pytestmark = pytest.mark.timeout(60)

HERE = "http://127.0.0.1:7412"  # nothing listens there: meshlib is the listener
#: Status, header lines and body of a GET, by any client.
Get = Callable[..., tuple[int, dict[str, str], bytes]]


@contextmanager
def _face(kind: str, mesh: meshlib.Mesh) -> Iterator[Get]:
    face = Face(kind, mesh)

    def get(url: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
        response = face.get(url, headers=headers)
        return response.status_code, dict(response.headers), response.content

    yield get
    face.close()


@contextmanager
def _requests(mesh: meshlib.Mesh) -> Iterator[Get]:
    with meshlib_requests.Session(mesh=mesh) as session:

        def get(url: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
            response = session.get(url, headers=headers, allow_redirects=False)
            return response.status_code, {k.lower(): v for k, v in response.headers.items()}, response.content

        yield get


@contextmanager
def _aiohttp(mesh: meshlib.Mesh) -> Iterator[Get]:
    async def fetch(url: str, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        async with (
            meshlib_aiohttp.ClientSession(mesh=mesh) as session,
            session.get(url, headers=headers, allow_redirects=False) as response,
        ):
            lines = {name.lower(): value for name, value in response.headers.items()}
            return response.status, lines, await response.read()

    with asyncio.Runner() as runner:
        yield lambda url, **headers: runner.run(fetch(url, headers))


@contextmanager
def _client(kind: str, mesh: meshlib.Mesh) -> Iterator[Get]:
    made = {"requests": _requests, "aiohttp": _aiohttp}.get(kind)
    with made(mesh) if made is not None else _face(kind, mesh) as get:
        yield get


@contextmanager
def _served(tmp_path, manager, *routes, **host) -> Iterator[tuple[meshlib.Mesh, Upstream]]:
    with Upstream("up") as upstream:
        config = build.route_config("r", build.virtual_host("v", *routes, **host))
        listener = build.listener("l", config, address="127.0.0.1:7412", manager=manager)
        clusters = [build.cluster("up", [upstream.address]), build.cluster("dead", ["127.0.0.1:1"])]
        static = {
            "listeners": [build.without_type(listener)],
            "clusters": [build.without_type(cluster) for cluster in clusters],
        }
        path = tmp_path / "envoy.json"
        path.write_text(json.dumps({"static_resources": static}))
        config = {
            "services_file": str(path),
            "failures": "respond",
            "node": {"cluster": " shop ", "id": "pod-1"},
        }
        with meshlib.Mesh(config) as mesh:
            yield mesh, upstream


KINDS = pytest.mark.parametrize("kind", [*FACES, "requests", "aiohttp"])


@KINDS
def test_white_space_around_what_we_make_is_no_part_of_it(tmp_path, kind):
    """A value with a space at an end fails every httpx call; an Envoy's receiver never sees it."""
    route = build.route(
        action={"cluster": "up", "host_rewrite_literal": " else.test "},
        request_headers_to_add=[
            build.header("x-blank", "   ", keep_empty_value=True),
            build.header("x-edge", "%HOSTNAME% edge"),
            build.header("x-via", "%REQ(x-user)% via mesh\t"),
        ],
        response_headers_to_add=[build.header("x-told", " told "), build.header("x-none", "  ")],
    )
    own = {"request_headers_to_add": [build.header("x-saw", "<%REQ(x-edge)%>")]}
    with (
        _served(tmp_path, {"server_name": " edge "}, route, **own) as (mesh, upstream),
        _client(kind, mesh) as get,
    ):
        status, lines, _ = get(f"{HERE}/")
        assert (status, lines["x-told"], lines["x-none"]) == (200, "told", "")
        [request] = upstream.requests
        arrived = {name.lower(): value for name, value in request.headers}
        assert (arrived["x-blank"], arrived["x-edge"], arrived["x-via"]) == ("", "edge", "via mesh")
        assert (arrived["x-saw"], arrived["host"]) == ("< edge>", "else.test")


@KINDS
def test_what_a_manager_does_to_a_head(tmp_path, kind):
    manager = {
        "path_with_escaped_slashes_action": "UNESCAPE_AND_FORWARD",
        "merge_slashes": True,
        "scheme_header_transformation": {"scheme_to_overwrite": "https"},
        "add_user_agent": True,
        "append_x_forwarded_port": True,
    }
    routes = [
        build.route("/redirect", redirect={"path_redirect": "/x"}),
        build.route(cluster="up", request_headers_to_add=[build.header("x-scheme", "%REQ(:scheme)%")]),
    ]
    with _served(tmp_path, manager, *routes) as (mesh, upstream), _client(kind, mesh) as get:
        status, lines, _ = get(f"{HERE}/redirect")
        assert (status, lines["location"]) == (301, "https://127.0.0.1:7412/x")
        assert get(f"{HERE}/a%2Fb%2f/c?q=1")[0] == 200
        [request] = upstream.requests
        assert request.path == "/a/b/c?q=1"
        arrived = {name.lower(): value for name, value in request.headers}
        assert arrived["x-scheme"] == arrived["x-forwarded-proto"] == "https"
        assert arrived["x-forwarded-port"] == "7412"
        assert arrived["x-envoy-downstream-service-cluster"] == "shop"
        assert arrived["x-envoy-downstream-service-node"] == "pod-1"


@KINDS
@pytest.mark.parametrize(
    ("action", "status", "location"),
    [("REJECT_REQUEST", 400, None), ("UNESCAPE_AND_REDIRECT", 307, "/a/b?q"), ("KEEP_UNCHANGED", 200, None)],
)
def test_escaped_slashes(tmp_path, kind, action, status, location):
    manager = {"path_with_escaped_slashes_action": action, "server_name": "edge"}
    with (
        _served(tmp_path, manager, build.route(cluster="up")) as (mesh, upstream),
        _client(kind, mesh) as get,
    ):
        got, lines, _ = get(f"{HERE}/a%2Fb?q")
        assert (got, lines.get("location")) == (status, location)
        if status == 200:
            assert upstream.requests[-1].path == "/a%2Fb?q"
        else:
            assert lines["server"] == "edge"
            assert upstream.requests_total == 0
        told = mesh.explain("GET", f"{HERE}/a%2Fb?q")
        assert (told.response.status if told.response is not None else 200) == status


@KINDS
@pytest.mark.parametrize(
    ("action", "status"), [("ALLOW", 200), ("REJECT_REQUEST", 400), ("DROP_HEADER", 200)]
)
def test_underscores_in_the_names_of_headers(tmp_path, kind, action, status):
    manager = {"common_http_protocol_options": {"headers_with_underscores_action": action}}
    match = {"prefix": "/", "headers": [{"name": "x_user", "present_match": True}]}
    routes = [
        build.route(cluster="up", match=match),
        build.route(cluster="up", request_headers_to_add=[build.header("x-no", "user")]),
    ]
    with _served(tmp_path, manager, *routes) as (mesh, upstream), _client(kind, mesh) as get:
        assert get(f"{HERE}/", **{"x-user": "a_b"})[0] == 200
        got, _, body = get(f"{HERE}/", x_user="me", other="1")
        assert got == status
        arrived = {name.lower(): value for name, value in upstream.requests[-1].headers}
        if status == 400:
            assert body == b"Bad Request"
            assert upstream.requests_total == 1
        else:
            assert arrived["other"] == "1"
            assert (arrived.get("x_user"), arrived.get("x-no")) == (
                ("me", None) if action == "ALLOW" else (None, "user")
            )


@KINDS
def test_replies_of_our_own(tmp_path, kind):
    """Of routes, of the listener, and of failures that are told as responses."""
    manager = {
        "server_name": "edge",
        "local_reply_config": {
            "mappers": [
                {
                    "filter": {"response_flag_filter": {"flags": ["UF"]}},
                    "status_code": 502,
                    "headers_to_add": [build.header("x-why", "%RESPONSE_CODE% at %REQ(:path)%")],
                }
            ],
            "body_format": {"json_format": {"code": "%RESPONSE_CODE%", "flags": "%RESPONSE_FLAGS%"}},
        },
    }
    routes = [
        build.route("/dead", cluster="dead"),
        build.route("/up", cluster="up"),
        build.route("/own", respond=(200, "x")),
    ]
    with (
        _served(tmp_path, manager, *routes, include_attempt_count_in_response=True) as (mesh, _),
        _client(kind, mesh) as get,
    ):
        status, lines, body = get(f"{HERE}/dead")
        assert (status, body) == (502, b'{"code":502,"flags":"UF"}\n')
        assert (lines["x-why"], lines["x-envoy-attempt-count"]) == ("503 at /dead", "1")
        assert (lines["content-type"], lines["server"]) == ("application/json", "edge")
        status, lines, body = get(f"{HERE}/nope")
        assert (status, body, "x-why" in lines) == (404, b'{"code":404,"flags":"NR"}\n', False)
        assert get(f"{HERE}/own")[::2] == (200, b'{"code":200,"flags":"-"}\n')
        status, lines, body = get(f"{HERE}/up")
        assert (status, lines["x-envoy-attempt-count"], lines.get("server")) == (200, "1", None)
        assert b'"name"' in body
