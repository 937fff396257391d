"""A manager finds the pools that urllib3's own would find, whatever becomes of its settings."""

from __future__ import annotations

from typing import Any

import pytest
import urllib3

import meshlib_requests

PLACES: list[tuple[Any, ...]] = [
    ("reviews",),
    ("reviews", 80),
    ("reviews", 8080, "http"),
    ("Reviews", None, "http"),
    ("reviews", None, "HTTP"),
    ("reviews", None, "https"),
    ("reviews", None, None),
]


def manager_of(**options: Any) -> Any:
    return meshlib_requests.PoolManager(**options)


def names(manager: urllib3.PoolManager) -> list[Any]:
    """Which pool each place has, as a number of its own."""
    pools = [manager.connection_from_host(*place) for place in PLACES]
    return [pools.index(pool) for pool in pools]


@pytest.mark.parametrize(
    "options", [{}, {"maxsize": 3}, {"socket_options": [(6, 1, 1)]}, {"headers": {"a": "b"}}]
)
def test_places_share_pools_as_by_urllib3(options: dict[str, Any]) -> None:
    ours, own = manager_of(**options), urllib3.PoolManager(**options)
    assert names(ours) == names(ours) == names(own)


@pytest.mark.parametrize(
    ("name", "values"),
    [("maxsize", (1, 2)), ("cert_file", (None, "a.pem")), ("socket_options", ([(6, 1, 1)], [(6, 1, 0)]))],
)
def test_other_settings_have_other_pools(name: str, values: tuple[Any, Any]) -> None:
    manager = manager_of()
    found = []
    for value in (*values, values[0]):
        manager.connection_pool_kw[name] = value
        found.append(manager.connection_from_host("reviews"))
    assert found[0] is found[2]
    assert found[0] is not found[1]


def test_a_setting_that_changes_in_itself_is_seen() -> None:
    options = [(6, 1, 1)]
    manager = manager_of(socket_options=options)
    first = manager.connection_from_host("reviews")
    options.append((6, 2, 1))
    assert manager.connection_from_host("reviews") is not first


def test_pools_of_a_call_that_says_more_are_its_own() -> None:
    manager = manager_of()
    plain = manager.connection_from_host("reviews")
    other = manager.connection_from_host("reviews", pool_kwargs={"maxsize": 7})
    assert other is not plain
    assert manager.connection_from_host("reviews") is plain


def test_the_pool_that_was_used_least_recently_goes() -> None:
    manager = manager_of(num_pools=2)
    first, second = manager.connection_from_host("a"), manager.connection_from_host("b")
    assert manager.connection_from_host("a") is first  # used again
    manager.connection_from_host("c")
    assert manager.connection_from_host("a") is first
    assert manager.connection_from_host("b") is not second


def test_another_way_to_make_keys_holds() -> None:
    manager = manager_of()
    first = manager.connection_from_host("reviews")
    manager.key_fn_by_scheme = {**manager.key_fn_by_scheme, "http": lambda context: context["host"]}
    assert manager.connection_from_host("reviews") is not first
    assert manager.connection_from_host("reviews", 81) is manager.connection_from_host("reviews", 82)


def test_a_manager_of_ones_own_that_looks_for_pools_is_asked() -> None:
    asked: list[str] = []

    class Own(meshlib_requests.PoolManager):
        def connection_from_context(self, request_context: dict[str, Any]) -> Any:
            asked.append(request_context["host"])
            return super().connection_from_context(request_context)

    manager = Own()
    for _ in range(3):
        manager.connection_from_host("reviews")
    assert asked == ["reviews"] * 3


@pytest.mark.parametrize(
    ("place", "error"), [(("",), "LocationValueError"), (("a", 1, "ftp"), "URLSchemeUnknown")]
)
def test_what_is_wrong_is_said_as_by_urllib3(place: tuple[Any, ...], error: str) -> None:
    with pytest.raises(getattr(urllib3.exceptions, error)):
        manager_of().connection_from_host(*place)
