"""What a channel's target means."""

from __future__ import annotations

import pytest

from meshlib.hosts.grpc.target import read_target


@pytest.mark.parametrize(
    ("text", "host", "port", "authority"),
    [
        ("reviews:9080", "reviews", 9080, "reviews:9080"),
        ("reviews", "reviews", None, "reviews"),
        ("Reviews.Default", "reviews.default", None, "Reviews.Default"),
        ("dns:reviews:9080", "reviews", 9080, "reviews:9080"),
        ("dns:///reviews:9080", "reviews", 9080, "reviews:9080"),
        ("dns://8.8.8.8/reviews:9080", "reviews", 9080, "reviews:9080"),
        ("xds:///reviews:9080", "reviews", 9080, "reviews:9080"),
        ("ipv4:10.0.0.1:80", "10.0.0.1", 80, "10.0.0.1:80"),
        ("ipv6:[::1]:80", "[::1]", 80, "[::1]:80"),
        ("[::1]:80", "[::1]", 80, "[::1]:80"),
        ("::1", "[::1]", None, "::1"),
        ("bücher.example:1", "xn--bcher-kva.example", 1, "bücher.example:1"),
    ],
)
def test_host_and_port(text: str, host: str, port: int | None, authority: str) -> None:
    target = read_target(text, (), secure=False)
    assert target.place == ("grpc", host, port, authority)
    assert not target.outside
    assert target.scheme == "http"


def test_bs11_the_authority_of_an_xds_target_says_whom_to_ask_and_not_who_is_called() -> None:
    target = read_target("xds://shop.example/reviews:9080", (), secure=False)
    assert target.place == ("xds://shop.example", "reviews", 9080, "reviews:9080")
    assert (target.strict, target.outside) == (True, False)
    assert read_target("xds:///reviews", (), secure=False).place[0] == "grpc"


@pytest.mark.parametrize(
    "text",
    [
        "unix:/run/a.sock",
        "unix-abstract:a",
        "vsock:1:2",
        "ipv4:10.0.0.1:80,10.0.0.2:80",
        "reviews:port",
        "a:99999",
        "a:0",
    ],
)
def test_what_says_where_to_go_is_outside(text: str) -> None:
    assert read_target(text, (), secure=False).outside


def test_only_xds_is_strict() -> None:
    assert read_target("xds:///a", (), secure=False).strict
    assert not read_target("dns:///a", (), secure=False).strict


def test_the_last_authority_among_the_options_holds() -> None:
    options = (("grpc.default_authority", "one"), ("grpc.default_authority", "two"))
    target = read_target("reviews:80", options, secure=True)
    assert target.place == ("grpc", "reviews", 80, "two")
    assert (target.scheme, target.url) == ("https", "grpc://two")


def test_what_is_no_text_is_told() -> None:
    with pytest.raises(TypeError, match="target: expected text"):
        read_target(None, (), secure=False)  # type: ignore[arg-type]
