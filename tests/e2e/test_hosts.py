"""One host, however it is spelled: in a key, in a URL of every library, on the bypass list, in a listener's address."""

from __future__ import annotations

import json
import traceback
from pathlib import Path
from typing import Any

import pytest

import meshlib
from meshlib.testing import build
from tests.e2e.test_requests_paths import envoy_file, static
from tests.support.libraries import LIBRARIES, call

UpstreamFactory = Any

#: Spellings of a key, those of a URL that mean it, and the one form that both have.
SPELLINGS = [
    (
        ["bücher.example", "BÜCHER.Example.", "xn--bcher-kva.example", "XN--BCHER-KVA.example"],
        ["bücher.example", "BÜCHER.example", "xn--bcher-kva.example", "xn--bcher-kva.example."],
        "xn--bcher-kva.example",
    ),
    (["Reviews", "reviews."], ["reviews", "REVIEWS", "reviews."], "reviews"),
    (["[0:0::1]:11", "[::1]:11"], ["[0:0::1]:11", "[::1]:11", "[0:0:0:0:0:0:0:1]:11"], "[::1]:11"),
    (
        ["10.0.0.1", "::ffff:10.0.0.1", "[::FFFF:a00:1]"],
        ["10.0.0.1", "[::ffff:10.0.0.1]", "[::FFFF:A00:1]"],
        "10.0.0.1",
    ),
    (
        ["[fe80::1%Eth0]:80", "[FE80:0::1%25Eth0]:80"],
        ["[fe80::1%25Eth0]", "[fe80:0::1%Eth0]"],
        "[fe80::1%Eth0]:80",
    ),
    (["*.bücher.example"], ["a.xn--bcher-kva.example", "A.bücher.example."], "*.xn--bcher-kva.example"),
]


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize(
    ("key", "hosts", "form"),
    [(key, hosts, form) for keys, hosts, form in SPELLINGS for key in keys],
)
def test_a_service_is_found_however_it_and_the_url_are_spelled(
    library: str, key: str, hosts: list[str], form: str, upstream: UpstreamFactory
) -> None:
    one = upstream("v1")
    with meshlib.Mesh({"services": {key: {"endpoints": [one.address]}}}) as mesh:
        for host in hosts:
            status, body, info = call(library, mesh, "GET", f"http://{host}/a")
            assert (status, json.loads(body)["name"]) == (200, "v1")
            assert info is not None
            assert (info.via, info.cluster) == ("mesh", form)
            assert mesh.explain("GET", f"http://{host}/a").cluster == form
            mesh.wait_ready(host.replace("*", "a"), timeout=5)


def test_what_is_bypassed_is_bypassed_in_every_spelling() -> None:
    for keys, hosts, form in SPELLINGS:
        for key in keys:
            config = {"services": {key: {"endpoints": ["127.0.0.1:9"]}}, "bypass": [form]}
            with meshlib.Mesh(config) as mesh:
                for host in hosts:
                    assert mesh.explain("GET", f"http://{host}/").via == "direct", (key, host)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("host", ["127.0.0.1", "[::ffff:127.0.0.1]", "[::FFFF:7f00:1]", "[0:0::ffff:7f00:1]"])
def test_a_listener_is_found_by_its_address_in_every_spelling(
    library: str, host: str, upstream: UpstreamFactory, tmp_path: Path
) -> None:
    one = upstream("v1")
    with meshlib.Mesh(envoy_file(tmp_path / "e.json", 11, static(one.address))) as mesh:
        status, body, info = call(library, mesh, "GET", f"http://{host}:11/")
    assert (status, json.loads(body)["name"]) == (200, "v1")
    assert info is not None
    assert info.listener == "l"


@pytest.mark.parametrize("library", ["requests", "urllib3", "aiohttp"])
def test_a_label_that_nobody_can_decode_is_a_name_like_any(library: str, upstream: UpstreamFactory) -> None:
    """httpx itself refuses it, before a transport hears of it."""
    one = upstream("v1")
    with meshlib.Mesh({"services": {"xn--a.example": {"endpoints": [one.address]}}}) as mesh:
        status, body, _ = call(library, mesh, "GET", "http://xn--a.example/")
    assert (status, ["Host", "xn--a.example"] in json.loads(body)["headers"]) == (200, True)


def test_two_spellings_of_one_key_are_one_too_many() -> None:
    with pytest.raises(meshlib.ConfigError, match=r'is "xn--bcher-kva\.example", which is there already'):
        meshlib.Config.from_mapping({"services": {"bücher.example": {}, "xn--bcher-kva.example": {}}})


@pytest.mark.parametrize("key", ["☃.example", "ä" * 64, "[::g]", "[::1%]:80:80", "٣.example"])
def test_a_key_that_can_be_no_host_says_so(key: str) -> None:
    with pytest.raises(meshlib.ConfigError, match=r"services\..*: the key must be"):
        meshlib.Config.from_mapping({"services": {key: {}}})


NEARLY = [
    ({"inventory": {"endpoints": ["127.0.0.1:1"]}}, "inventroy", "inventory"),
    ({"reviews:9080": {"endpoints": ["127.0.0.1:1"]}}, "reviews", "reviews:9080"),
]


class TestAHostThatIsNearlyRight:
    """The call goes as it ever would; whoever looks why it failed is told what is nearly the same."""

    @pytest.mark.parametrize("library", LIBRARIES)
    @pytest.mark.parametrize(("services", "host", "meant"), NEARLY)
    def test_a_direct_call_that_fails_says_what_may_have_been_meant(
        self, library: str, services: dict[str, Any], host: str, meant: str
    ) -> None:
        with meshlib.Mesh({"services": services}) as mesh, pytest.raises(Exception) as caught:  # noqa: PT011 - eight kinds
            call(library, mesh, "GET", f"http://{host}/")
        assert not isinstance(caught.value, meshlib.MeshError)
        info = meshlib.call_info(caught.value)
        assert info is not None
        assert info.trace() == (
            f"no source knows {host}: it is called directly",
            f"did you mean {meant}?",
        )
        shown = "".join(traceback.format_exception(caught.value))
        assert f"meshlib: did you mean {meant}?" in shown

    @pytest.mark.parametrize("library", LIBRARIES)
    def test_so_does_one_that_is_refused(self, library: str) -> None:
        config = {"services": NEARLY[0][0], "unknown_hosts": "refuse"}
        with meshlib.Mesh(config) as mesh, pytest.raises(meshlib.UnknownService) as caught:
            call(library, mesh, "GET", "http://inventroy/")
        text = "no source knows inventroy, and unknown hosts are refused; did you mean inventory?"
        assert text in str(caught.value)
        assert caught.value.info is not None
        assert caught.value.info.trace()[-1] == "did you mean inventory?"

    def test_and_explain_and_not_ready(self) -> None:
        with meshlib.Mesh({"services": NEARLY[0][0]}) as mesh:
            assert mesh.explain("GET", "http://inventroy/").trace()[-1] == "did you mean inventory?"
            with pytest.raises(meshlib.NotReady, match=r"did you mean inventory\?"):
                mesh.wait_ready("inventroy", timeout=0)

    def test_names_of_a_control_plane_count(self, control_plane: Any) -> None:
        host = build.virtual_host(
            "inventory", build.route(cluster="c"), domains=["inventory.shop", "inventory"]
        )
        control_plane.set(
            build.listener("outbound", build.route_config("routes", host), address="127.0.0.1:15001"),
            build.cluster("c", ["127.0.0.1:1"]),
        )
        with meshlib.Mesh({"xds": {"server": control_plane.address, "view": "sidecar"}}) as mesh:
            mesh._runtime().store.wait(
                lambda view: view.resolve("http", "inventory", 15001, "inventory").routes, 10
            )
            assert mesh.explain("GET", "http://inventroy/").trace()[-1] == "did you mean inventory?"
            assert mesh.explain("GET", "http://inventory.shp/").trace()[-1] == "did you mean inventory.shop?"

    def test_what_is_reached_and_what_is_like_nothing_is_told_nothing(
        self, upstream: UpstreamFactory
    ) -> None:
        one = upstream("v1")
        with meshlib.Mesh({"services": NEARLY[0][0]}) as mesh:
            for library in LIBRARIES:
                _, _, info = call(library, mesh, "GET", one.url)
                assert info is not None
                assert info.trace() == ("no source knows 127.0.0.1: it is called directly",)
                with pytest.raises(Exception) as caught:  # noqa: PT011 - eight kinds
                    call(library, mesh, "GET", "http://warehouse/")
                assert "did you mean" not in "".join(traceback.format_exception(caught.value))
