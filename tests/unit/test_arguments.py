"""An argument of the wrong type is told at once, in an error that names it; nothing is started or sent before."""

from __future__ import annotations

import inspect

import httpx
import httpx2
import pytest

import meshlib
import meshlib_aiohttp
import meshlib_asgi
import meshlib_flask
import meshlib_requests
import meshlib_wsgi
from meshlib.deadlines import current_deadline

SERVICE = {"services": {"a": {"endpoints": ["127.0.0.1:9"]}}}

#: What is not a number of seconds, or not one that can be → what is raised.
SECONDS = [
    ("2s", TypeError),
    (b"2", TypeError),
    (True, TypeError),
    ([1.0], TypeError),
    ({}, TypeError),
    (object(), TypeError),
    (-0.1, ValueError),
    (float("nan"), ValueError),
    (float("-inf"), ValueError),
]


@pytest.fixture
def mesh():
    with meshlib.Mesh(SERVICE) as made:
        yield made


def seconds_taken_by(mesh):
    return {
        "CallOptions.timeout": lambda value: meshlib.CallOptions(timeout=value),
        "deadline": meshlib.deadline,
        "wait_ready: timeout": lambda value: mesh.wait_ready("a", timeout=value),
        "timeout": lambda value: meshlib_requests.call_options(timeout=value).__enter__(),
    }


@pytest.mark.parametrize(("value", "error"), SECONDS)
@pytest.mark.parametrize("name", ["CallOptions.timeout", "deadline", "wait_ready: timeout", "timeout"])
def test_what_is_no_time_is_refused_by_name(mesh, name, value, error):
    if name == "deadline" and value is None:
        return
    with pytest.raises(error, match=rf"{name}: expected .*seconds"):
        seconds_taken_by(mesh)[name](value)
    assert not mesh.status().process.started


@pytest.mark.parametrize("value", [0, 1, 0.5, float("inf")])
def test_what_is_a_time_is_taken(value):
    assert meshlib.CallOptions(timeout=value).timeout == value
    with meshlib.deadline(value):
        assert current_deadline() is not None
    assert current_deadline() is None


def test_a_deadline_without_a_number_is_refused():
    with pytest.raises(TypeError, match="deadline: expected a number of seconds, not None"):
        meshlib.deadline(None)


def test_a_deadline_counts_from_the_beginning_of_its_block_and_is_a_decorator_still():
    @meshlib.deadline(10)
    def inside():
        return current_deadline()

    assert inside() is not None
    assert inside() is not None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("retry", 3),
        ("retry", "5xx"),
        ("retry", ["5xx"]),
        ("hash_key", 7),
        ("hash_key", b"x"),
        ("idempotent", "no"),
        ("idempotent", 0),
    ],
)
def test_options_of_a_wrong_type_are_refused_by_name(field, value):
    with pytest.raises(
        TypeError, match=rf"CallOptions\.{field}: expected .*, not {value!r}".replace("[", r"\[")
    ):
        meshlib.CallOptions(**{field: value})


@pytest.mark.parametrize("field", ["timeout", "retry", "hash_key", "idempotent"])
def test_options_that_are_not_given_are_none(field):
    assert getattr(meshlib.CallOptions(**{field: None}), field) is None


@pytest.mark.parametrize("names", [(["a"],), ("a", 5), (b"a",), (None,), (("a", "b"),)])
def test_names_to_wait_for_are_text_each(mesh, names):
    with pytest.raises(
        TypeError, match="wait_ready: each name is an argument of its own: expected text, not"
    ):
        mesh.wait_ready(*names)
    assert not mesh.status().process.started


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((3, "http://a/"), TypeError, "explain: method: expected text, not 3"),
        ((b"GET", "http://a/"), TypeError, "explain: method: expected text"),
        (("GET", 3), TypeError, "url"),
        (("GET", "http://a/", "x: y"), TypeError, "explain: headers: expected text by name"),
        (("GET", "http://a/", {"x": 1}), TypeError, r"explain: headers: .*\('x', 1\)"),
        (("GET", "http://a/", [("x",)]), TypeError, "explain: headers"),
        (("GET", "http://a:99999/"), ValueError, "http://a:99999/"),
        (("GET", "a"), ValueError, "'a': must be http://"),
    ],
)
def test_what_is_no_request_is_refused_by_name(mesh, arguments, error, words):
    with pytest.raises(error, match=words):
        mesh.explain(*arguments)


#: Who takes ``mesh=``.
TAKERS = {
    "Client": meshlib.Client,
    "AsyncClient": meshlib.AsyncClient,
    "Transport": meshlib.Transport,
    "AsyncTransport": meshlib.AsyncTransport,
    "httpx2.Client": meshlib.httpx2.Client,
    "httpx2.AsyncClient": meshlib.httpx2.AsyncClient,
    "httpx2.Transport": meshlib.httpx2.Transport,
    "httpx2.AsyncTransport": meshlib.httpx2.AsyncTransport,
    "requests.Session": meshlib_requests.Session,
    "requests.MeshAdapter": meshlib_requests.MeshAdapter,
    "requests.PoolManager": meshlib_requests.PoolManager,
    "aiohttp.ClientSession": meshlib_aiohttp.ClientSession,
}
FRAMEWORKS = {
    "asgi": lambda **options: meshlib_asgi.Middleware(print, **options),
    "wsgi": lambda **options: meshlib_wsgi.Middleware(print, **options),
    "aiohttp.connector": meshlib_aiohttp.connector,
}


@pytest.mark.parametrize("taker", TAKERS)
async def test_a_mesh_is_given_by_its_name(taker, mesh):
    with pytest.raises(TypeError, match=r"(\w+): a Mesh is given by its name: \1\(mesh=…\)"):
        TAKERS[taker](mesh)


@pytest.mark.parametrize("taker", TAKERS | FRAMEWORKS)
@pytest.mark.parametrize(
    "value", ["mesh.toml", SERVICE, 3, meshlib.Mesh], ids=["path", "mapping", "3", "class"]
)
async def test_what_is_no_mesh_is_refused(taker, value):
    with pytest.raises(TypeError, match=r"mesh: expected a meshlib\.Mesh or None, not "):
        (TAKERS | FRAMEWORKS)[taker](mesh=value)


def test_what_is_no_mesh_is_refused_by_the_extension_of_flask():
    import flask

    with pytest.raises(TypeError, match=r"mesh: expected a meshlib\.Mesh"):
        meshlib_flask.Meshlib(flask.Flask("x"), mesh="mesh.toml")


@pytest.mark.parametrize(
    "taker", [name for name in TAKERS if name.startswith(("Client", "Async", "Trans", "httpx2"))]
)
def test_a_name_that_is_none_of_the_host_librarys_is_refused_when_it_is_given(taker):
    with pytest.raises(TypeError, match="tiemout"):
        TAKERS[taker](tiemout=3)


def test_a_transport_takes_its_arguments_as_httpx_does():
    with meshlib.Transport(False, trust_env=False), meshlib.Transport(verify=False, trust_env=False):
        pass
    with pytest.raises(TypeError, match="multiple values"):
        meshlib.Transport(True, verify=True)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (meshlib.Client, httpx.Client),
        (meshlib.AsyncClient, httpx.AsyncClient),
        (meshlib.httpx2.Client, httpx2.Client),
        (meshlib.httpx2.AsyncClient, httpx2.AsyncClient),
    ],
)
def test_a_client_refuses_positional_arguments_as_its_library_does(ours, theirs):
    with pytest.raises(TypeError, match="positional"):
        theirs(3)
    with pytest.raises(TypeError, match="positional"):
        ours(3)
    assert issubclass(ours, theirs)
    assert "mesh" in inspect.signature(ours).parameters
