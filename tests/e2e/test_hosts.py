"""One host, however it is spelled: in a key, in a URL of every library, on the bypass list, in a listener's address."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import meshlib
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
