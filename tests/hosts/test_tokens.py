"""Tokens of services, through every host library: who gets one, who gets none, and what a call without one is told."""

from __future__ import annotations

import asyncio
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import trustme

import meshlib
from meshlib.testing import ControlPlane, build
from tests.hosts.columns import ASYNCHRONOUS, Ask, Column

Open = Callable[..., Column]
TLS = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
TOKEN = "secret-token-0123456789"
AUTHORITY = trustme.CA()


def context() -> ssl.SSLContext:
    made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    AUTHORITY.issue_cert("reviews", "ratings").configure_cert(made)
    return made


def secured(name: str, address: str, *, roots: bool = True) -> Any:
    """A cluster that demands TLS, from whom ``AUTHORITY`` vouches for, or from anybody."""
    ca = {"inline_string": AUTHORITY.cert_pem.bytes().decode()}
    common = {"validation_context": {"trusted_ca": ca}} if roots else {}
    demanded = build.any_of(TLS, {"sni": "reviews", "common_tls_context": common})
    return build.cluster(name, [address], transport_socket={"name": "tls", "typed_config": demanded})


@pytest.fixture
def mesh(meshlib_control_plane: ControlPlane) -> Callable[..., meshlib.Mesh]:
    """A mesh in which ``http://NAME`` leads to the cluster of that name."""

    def make(*clusters: Any, tokens: Any, policy: Any = None, edits: Any = None) -> meshlib.Mesh:
        names = [cluster["name"] for cluster in clusters]
        fields = (edits or {}) | ({} if policy is None else {"retry_policy": policy})
        hosts = [
            build.virtual_host(name, build.route("/", cluster=name), domains=[name], **fields)
            for name in names
        ]
        listener = build.listener("l", build.route_config("r", *hosts), address="0.0.0.0:80")
        meshlib_control_plane.set(listener, *clusters)
        config = {"xds": {"server": meshlib_control_plane.address, "view": "sidecar"}}
        return meshlib.Mesh(config, tokens=tokens)

    return make


def got(answer: Any) -> list[str]:
    return answer.sent("authorization")


def test_a_service_gets_its_token_over_tls(open_client: Open, meshlib_upstream: Any, mesh: Any) -> None:
    one, two = meshlib_upstream("one", tls=context()), meshlib_upstream("two", tls=context())
    given = iter(range(100))
    made = mesh(
        secured("reviews", one.address),
        secured("ratings", two.address),
        tokens={"reviews": lambda: f"{TOKEN}-{next(given)}"},
    )
    client = open_client(made)
    assert [got(client.call()) for _ in range(2)] == [[f"Bearer {TOKEN}-0"], [f"Bearer {TOKEN}-1"]]
    assert got(client.call(url="http://ratings/")) == []


def test_the_applications_own_holds(open_client: Open, meshlib_upstream: Any, mesh: Any) -> None:
    one = meshlib_upstream("one", tls=context())
    asked: list[None] = []
    client = open_client(
        mesh(secured("reviews", one.address), tokens={"reviews": lambda: asked.append(None)})
    )
    assert got(client.call(headers=(("AUTHORIZATION", "Basic mine"),))) == ["Basic mine"]
    assert not asked


def test_a_redirect_to_another_service_does_not_bring_it(
    open_client: Open, meshlib_upstream: Any, mesh: Any, right: str
) -> None:
    one, two = meshlib_upstream("one", tls=context()), meshlib_upstream("two", tls=context())
    one.order(status=302, headers=(("location", "http://ratings/there"),), times=1)
    made = mesh(
        secured("reviews", one.address), secured("ratings", two.address), tokens={"reviews": lambda: TOKEN}
    )
    answer = open_client(made).call(follow=True)
    if right == "given":
        assert answer.status == 302
    else:
        assert (answer.said["name"], got(answer)) == ("two", [])
    assert [each.header("authorization") for each in one.requests] == [f"Bearer {TOKEN}"]


def test_each_attempt_asks_anew(open_client: Open, meshlib_upstream: Any, mesh: Any, right: str) -> None:
    one = meshlib_upstream("one", tls=context())
    one.fail(503, times=1)
    given = iter(range(100))
    policy = {"retry_on": "5xx", "num_retries": 2}
    made = mesh(secured("reviews", one.address), tokens={"reviews": lambda: str(next(given))}, policy=policy)
    answer, sent = open_client(made).call(), ["Bearer 0", "Bearer 1"]
    if right == "no retries":
        assert answer.status == 503
        sent.pop()
    assert [each.header("authorization") for each in one.requests] == sent


@pytest.mark.parametrize("peer", ["plain text", "verified by nobody"])
def test_nobody_else_on_the_way_gets_it(
    open_client: Open, meshlib_upstream: Any, mesh: Any, peer: str
) -> None:
    plain = peer == "plain text"
    one = meshlib_upstream("one", tls=None if plain else context())
    cluster = (
        build.cluster("reviews", [one.address]) if plain else secured("reviews", one.address, roots=False)
    )
    asked: list[None] = []
    client = open_client(mesh(cluster, tokens={"reviews": lambda: asked.append(None)}))
    with pytest.raises(meshlib.NoHealthyEndpoint, match="reviews wants a token: ") as caught:
        client.call()
    assert isinstance(caught.value, client.errors["connect"])
    assert (caught.value.sent, asked, list(one.requests)) == (False, [], [])
    if plain:
        assert got(client.call(headers=(("authorization", "mine"),))) == ["mine"]


def _raises() -> str:
    raise RuntimeError(f"not to be told: {TOKEN}")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (_raises, r"what gives it failed \(RuntimeError\)"),
        (lambda: f"{TOKEN}\r\nx-admin: 1", "what was given is none"),
        (lambda: "", "what was given is none"),
        (lambda: None, "what was given is none"),
        (lambda: "x" * 16_385, "what was given is none"),
    ],
    ids=["raises", "two lines", "empty", "none", "too large"],
)
def test_a_call_without_its_token_fails_in_words(
    open_client: Open, meshlib_upstream: Any, mesh: Any, source: Any, words: str
) -> None:
    one = meshlib_upstream("one", tls=context())
    policy = {"retry_on": "5xx,connect-failure,reset", "num_retries": 3}
    client = open_client(mesh(secured("reviews", one.address), tokens={"reviews": source}, policy=policy))
    with pytest.raises(meshlib.NoHealthyEndpoint, match=words) as caught:
        client.call()
    assert isinstance(caught.value, client.errors["connect"])
    assert TOKEN not in f"{caught.value!r}{caught.value}{caught.value.info!r}{caught.value.info.trace()}"
    assert [(each.outcome, each.sent) for each in caught.value.info.attempts] == [("refused", False)]
    [endpoint] = client.mesh.status().clusters["reviews"].endpoints
    assert (endpoint.health, endpoint.active, list(one.requests)) == ("healthy", 0, [])


def test_an_asynchronous_source(open_client: Open, meshlib_upstream: Any, mesh: Any) -> None:
    one = meshlib_upstream("one", tls=context())

    async def source() -> str:
        await asyncio.sleep(0)
        return TOKEN

    client = open_client(mesh(secured("reviews", one.address), tokens={"reviews": source}))
    if client.is_async:
        assert got(client.call()) == [f"Bearer {TOKEN}"]
        return
    with pytest.raises(meshlib.NoHealthyEndpoint, match="asynchronous, and the client is not"):
        client.call()


@pytest.mark.parametrize("column", ASYNCHRONOUS, indirect=True)
def test_one_that_blocks_holds_up_no_event_loop(open_client: Open, meshlib_upstream: Any, mesh: Any) -> None:
    one, two = meshlib_upstream("one", tls=context()), meshlib_upstream("two", tls=context())
    come = threading.Event()

    def source() -> str:
        assert come.wait(20)
        return TOKEN

    made = mesh(secured("reviews", one.address), secured("ratings", two.address), tokens={"reviews": source})
    client = open_client(made)
    waiter = threading.Thread(target=lambda: (two.wait_for(lambda: two.requests, timeout=20), come.set()))
    waiter.start()  # the token comes when the other call has arrived
    first, other = client.together([Ask(), Ask(url="http://ratings/")])
    waiter.join()
    assert not isinstance(first, BaseException)
    assert not isinstance(other, BaseException)
    assert (got(first), got(other)) == ([f"Bearer {TOKEN}"], [])


@pytest.mark.parametrize("column", ASYNCHRONOUS, indirect=True)  # a blocking call calls it itself
def test_a_source_that_does_not_come_back_is_not_waited_for(
    open_client: Open, meshlib_upstream: Any, mesh: Any
) -> None:
    one = meshlib_upstream("one", tls=context())
    end = threading.Event()

    def source() -> str:
        end.wait(20)
        return TOKEN

    client = open_client(mesh(secured("reviews", one.address), tokens={"reviews": source}), connect=2.0)
    client.mesh.wait_ready(timeout=20)
    began = time.monotonic()
    try:
        with meshlib.deadline(0.5), pytest.raises(meshlib.DeadlineExceeded):
            client.call()
    finally:
        end.set()
    assert time.monotonic() - began < 5


def test_response_edits_do_not_see_it(open_client: Open, meshlib_upstream: Any, mesh: Any) -> None:
    """A control plane could have it told to whoever reads the answer."""
    one = meshlib_upstream("one", tls=context())
    edits = {"response_headers_to_add": [{"header": {"key": "x-saw", "value": "[%REQ(authorization)%]"}}]}
    client = open_client(
        mesh(secured("reviews", one.address), tokens={"reviews": lambda: TOKEN}, edits=edits)
    )
    answer = client.call()
    assert (got(answer), answer.headers["x-saw"]) == ([f"Bearer {TOKEN}"], "[]")


def test_a_sidecar_does_not_get_it(open_client: Open, meshlib_upstream: Any) -> None:
    """Who listens on its address is whoever was first."""
    sidecar = meshlib_upstream("sidecar")
    config = {"sidecar": {"mode": "envoy", "address": sidecar.address}}
    client = open_client(meshlib.Mesh(config, tokens={"reviews": lambda: TOKEN}))
    with pytest.raises(
        meshlib.NoHealthyEndpoint, match="reviews wants a token: it goes over TLS only"
    ) as caught:
        client.call()
    assert caught.value.info.via == "sidecar"
    assert [each.path for each in sidecar.requests] == []
    assert got(client.call(url="http://ratings/")) == []


def test_a_call_that_goes_past_the_mesh_brings_none(open_client: Open, meshlib_upstream: Any) -> None:
    one = meshlib_upstream("one")
    client = open_client(meshlib.Mesh({}, tokens={"127.0.0.1": lambda: TOKEN}))
    answer = client.call(url=one.url)
    assert answer.info is None or answer.info.via == "direct"
    assert got(answer) == []


def test_that_of_the_file_belongs_to_who_answers(
    open_client: Open, meshlib_upstream: Any, tmp_path: Any
) -> None:
    one, two = meshlib_upstream("one", tls=context()), meshlib_upstream("two", tls=context())
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    (tmp_path / "ca.pem").write_bytes(AUTHORITY.cert_pem.bytes())
    tls = {"ca": str(tmp_path / "ca.pem")}
    split = [{"match": {"prefix": "/two"}, "service": "ratings"}]
    token = str(tmp_path / "token")
    services = {
        "reviews": {"endpoints": [one.address], "tls": tls, "token": token, "routes": split},
        "ratings": {"endpoints": [two.address], "tls": tls},
    }
    client = open_client({"services": services})
    assert got(client.call()) == [f"Bearer {TOKEN}"]
    assert got(client.call(url="http://reviews/two")) == []
    (tmp_path / "token").unlink()
    with pytest.raises(
        meshlib.NoHealthyEndpoint, match=f"reviews wants a token: the token {token} cannot be read"
    ):
        client.call()
