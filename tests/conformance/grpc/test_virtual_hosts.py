"""Which virtual host has a call: its authority decides."""

from __future__ import annotations

import pytest

from meshlib.testing import build


@pytest.fixture
def hosts(scene):
    """A function that makes a virtual host, with a server of its own, of each of these: name to domains."""

    def make(**domains: list[str]) -> None:
        scene.named(*domains)
        scene.plane.update(
            scene.listener(),
            scene.hosts(
                *(
                    build.virtual_host(name, build.route(cluster=name), domains=each)
                    for name, each in domains.items()
                )
            ),
        )

    return make


def test_authority_is_the_target(scene, connect, hosts):
    """VH-01: without anything else said, the name that the channel was made with."""
    hosts(other=["another.test"], mine=[scene.name])
    assert connect().outcome() == "mine"


def test_option_names_the_authority(hosts, connect):
    """VH-01: ``grpc.default_authority``."""
    hosts(other=["*"], mine=["shop.test"])
    assert connect(authority="shop.test").outcome() == "mine"


def test_exact_domain_wins(hosts, connect):
    """VH-01: over a suffix, a prefix and the one for all, whatever their order."""
    hosts(everything=["*"], suffix=["*.shop.test"], prefix=["www.*"], exact=["www.shop.test"])
    assert connect(authority="www.shop.test").outcome() == "exact"


def test_suffix_wins_over_prefix(hosts, connect):
    """VH-01: even where the prefix is longer."""
    hosts(everything=["*"], prefix=["www.shop.*"], suffix=["*.test"])
    assert connect(authority="www.shop.test").outcome() == "suffix"


def test_prefix_wins_over_everything(hosts, connect):
    """VH-01."""
    hosts(everything=["*"], prefix=["www.*"])
    assert connect(authority="www.shop.test").outcome() == "prefix"


def test_longest_suffix_wins(hosts, connect):
    """VH-01."""
    hosts(short=["*.test"], long=["*.shop.test"], longest=["*.eu.shop.test"])
    assert connect(authority="www.shop.test").outcome() == "long"
    assert connect(authority="www.eu.shop.test").outcome() == "longest"


def test_longest_prefix_wins(hosts, connect):
    """VH-01."""
    hosts(short=["www.*"], long=["www.shop.*"])
    assert connect(authority="www.shop.test").outcome() == "long"


def test_one_of_several_domains_is_enough(hosts, connect):
    """VH-01: each domain of a virtual host stands for itself."""
    hosts(first=["a.test", "b.test"], second=["*"])
    assert connect(authority="b.test").outcome() == "first"


def test_domains_are_compared_without_case(hosts, connect):
    """VH-02."""
    hosts(everything=["*"], mine=["WWW.Shop.test"])
    assert connect(authority="www.sHOP.TEST").outcome() == "mine"


def test_wildcard_stands_for_one_character_at_least(hosts, connect):
    """VH-02: ``*.shop.test`` is not ``.shop.test``."""
    hosts(everything=["*"], suffix=["*.shop.test"])
    assert connect(authority=".shop.test").outcome() == "everything"


def test_port_is_part_of_the_authority(hosts, connect):
    """VH-03."""
    hosts(without=["shop.test"], other=["*"], mine=["shop.test:8080"])
    assert connect(authority="shop.test:8080").outcome() == "mine"
    assert connect(authority="shop.test").outcome() == "without"
    assert connect(authority="shop.test:80").outcome() == "other"


def test_no_virtual_host_is_unavailable_until_there_is_one(scene, hosts, connect):
    """VH-05."""
    hosts(other=["another.test"])
    caller = connect()
    caller.fails()
    scene.plane.update(scene.routes(build.route(cluster="other")))
    caller.becomes("other")


def test_no_virtual_host_any_more_is_unavailable(scene, hosts, connect):
    """VH-05: the routes are as they have been said last."""
    hosts(mine=["*"])
    caller = connect()
    caller.becomes("mine")
    scene.plane.update(
        scene.hosts(build.virtual_host("other", build.route(cluster="mine"), domains=["another.test"]))
    )
    caller.fails()


def test_pattern_with_a_star_inside_is_refused(scene, hosts, connect):
    """VH-04: in whichever virtual host; the routes before stay."""
    hosts(mine=["*"])
    caller = connect()
    caller.becomes("mine")
    bad = build.virtual_host("bad", build.route(cluster="mine"), domains=["www.*.test"])
    good = build.virtual_host("good", build.route(cluster="nothing"), domains=["*"])
    scene.plane.update(scene.hosts(good, bad))
    assert "www.*.test" in (scene.plane.wait_for_nack("route").error or "")
    assert caller.row(5) == ["mine"] * 5


def test_virtual_host_without_domains_is_refused(scene, connect):
    """VH-04."""
    scene.named("a")
    scene.plane.update(
        scene.listener(), scene.hosts(build.virtual_host("bad", build.route(cluster="a"), domains=[]))
    )
    connect().fails()
    scene.plane.wait_for_nack("route")


def test_virtual_host_that_does_not_match_is_read_too(scene, hosts, connect):
    """VH-04: what is wrong in another one's routes refuses the whole."""
    hosts(mine=["*"])
    caller = connect()
    caller.becomes("mine")
    bad = build.virtual_host("bad", build.route(cluster="mine", regex="("), domains=["another.test"])
    scene.plane.update(scene.hosts(build.virtual_host("new", build.route(cluster="nothing")), bad))
    scene.plane.wait_for_nack("route")
    assert caller.row(5) == ["mine"] * 5
