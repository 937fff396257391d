"""Filters whose configuration comes by itself (ECDS): what they are until then, and then."""

from __future__ import annotations

import pytest

from meshlib.model.listener import Extension, FilterKind
from meshlib.testing import build
from meshlib.xds import decode
from tests.support.xds_kit import raw, wire_of

FILTERS = "envoy.extensions.filters.http."
RBAC, CORS = f"{FILTERS}rbac.v3.RBAC", f"{FILTERS}cors.v3.Cors"
ROUTER = f"{FILTERS}router.v3.Router"
ROUTES = build.route_config("r", build.virtual_host("v", build.route(cluster="c")))
GUARD, OTHER = FilterKind.GUARD, FilterKind.OTHER


def struct(kind):
    """A configuration of a type that the schema does not know."""
    held = {"type_url": f"type.googleapis.com/{kind}", "value": {}}
    return build.any_of("udpa.type.v1.TypedStruct", held)


def extension(name, kind):
    return build.any_of(
        "envoy.config.core.v3.TypedExtensionConfig", {"name": name, "typed_config": struct(kind)}
    )


def listener(*names, types=(RBAC, CORS), **fields):
    filters = [
        {
            "name": name,
            "config_discovery": {
                "config_source": {"ads": {}},
                "type_urls": [f"type.googleapis.com/{kind}" for kind in types],
                **fields,
            },
        }
        for name in names
    ]
    return build.listener("l", ROUTES, filters=filters)


def kinds(wire):
    """What each filter of the listener is, the router at the end left out."""
    (found,) = wire.part.sidecar
    return {item.name: item.kind for item in found.http.filters[:-1]}


class TestDecoding:
    @pytest.mark.parametrize(("kind", "found"), [(RBAC, GUARD), (CORS, OTHER), (ROUTER, FilterKind.ROUTER)])
    def test_what_it_makes_of_a_filter(self, kind, found):
        made = decode.extension(raw(extension("f", kind)))
        assert made.value == Extension("f", kind, found)
        assert [place for place, _ in made.ignored] == ([] if kind == ROUTER else ["typed_config"])

    def test_what_is_none(self):
        assert decode.extension(raw(extension("", RBAC))).problems == ("name: must not be empty",)
        bare = build.any_of("envoy.config.core.v3.TypedExtensionConfig", {"name": "f"})
        assert decode.extension(raw(bare)).problems == ("typed_config: is missing",)


class TestGraph:
    def test_it_is_asked_for_and_covers_until_it_is_there(self):
        wire = wire_of(listener("f"))
        assert ("extension", ["f"], "", "", "") in wire.asked
        assert kinds(wire) == {"f": GUARD}
        wire.send("extension", extension("f", CORS))
        assert kinds(wire) == {"f": OTHER}
        wire.send("extension", extension("f", RBAC))
        assert kinds(wire) == {"f": GUARD}

    def test_a_type_that_is_not_allowed(self):
        wire = wire_of(listener("f", types=(RBAC,)))
        wire.send("extension", extension("f", CORS))
        assert kinds(wire) == {"f": GUARD}

    def test_one_that_cannot_be_a_guard_is_not_asked_for(self):
        wire = wire_of(listener("f", types=(CORS,)))
        assert not any(short == "extension" for short, *_ in wire.asked)
        assert kinds(wire) == {"f": OTHER}

    @pytest.mark.parametrize(
        ("fields", "now", "then"),
        [
            ({}, GUARD, GUARD),
            ({"default_config": struct(CORS)}, GUARD, OTHER),
            ({"default_config": struct(RBAC)}, GUARD, GUARD),
            ({"default_config": struct(CORS), "apply_default_config_without_warming": True}, OTHER, OTHER),
        ],
    )
    def test_one_that_does_not_come(self, fields, now, then):
        wire = wire_of(listener("f", **fields))
        assert kinds(wire) == {"f": now}
        wire.pass_time(15.0)
        assert kinds(wire) == {"f": then}
        wire.send("extension", extension("f", RBAC))
        assert kinds(wire) == {"f": GUARD}

    def test_one_that_is_refused_leaves_the_last_good(self):
        wire = wire_of(listener("f"))
        wire.send("extension", extension("f", CORS))
        wire.send("extension", build.any_of("envoy.config.core.v3.TypedExtensionConfig", {"name": "f"}))
        assert kinds(wire) == {"f": OTHER}

    def test_an_update_waits_for_what_it_names(self):
        """Make before break: a new filter comes into force with its configuration, or when that is known not to come."""
        wire = wire_of(listener("f"))
        wire.send("extension", extension("f", CORS))
        wire.send("listener", listener("f", "g"))
        assert kinds(wire) == {"f": OTHER}
        assert ("extension", ["f", "g"]) in [(short, sorted(names)) for short, names, *_ in wire.asked]
        wire.send("extension", extension("g", RBAC))
        assert kinds(wire) == {"f": OTHER, "g": GUARD}
        wire.send("listener", listener("g", "h"))
        assert kinds(wire) == {"f": OTHER, "g": GUARD}
        wire.pass_time(15.0)
        assert kinds(wire) == {"g": GUARD, "h": GUARD}

    def test_routes_do_not_wait_for_it_once_the_listener_is_there(self):
        wire = wire_of(build.listener("l", "r"))
        resource = listener("f")
        manager = resource["filter_chains"][0]["filters"][0]["typed_config"]
        del manager["route_config"]
        manager["rds"] = {"route_config_name": "r", "config_source": {"ads": {}}}
        wire.send("listener", resource | {"name": "m"}, build.listener("l", "r"))
        for cluster in ("c", "d"):
            host = build.virtual_host("v", build.route(cluster=cluster))
            wire.send("route", build.route_config("r", host))
            wire.send("cluster", *(build.cluster(each, ["10.0.0.1:80"]) for each in ("c", "d")))
            found = {each.name: each.http.routes.virtual_hosts[0] for each in wire.part.sidecar}
            assert {name: host.routes[0].action.cluster for name, host in found.items()} == {
                "l": cluster,
                "m": cluster,
            }

    def test_what_nobody_names_is_not_asked_for(self):
        wire = wire_of(listener("f"))
        wire.send("listener", listener())
        assert ("extension", []) in [(short, names) for short, names, *_ in wire.asked]
