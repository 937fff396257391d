"""The file of the last good state as bytes; what is written of a resource is in test_secrets."""

from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.testing import build
from meshlib.xds import last_good, schema
from meshlib.xds.last_good import Contents, Kept, Unreadable
from meshlib.xds.session import Session
from tests.support.xds_kit import NODE, Wire, raw, response, simple

MAGIC = b"meshlib last good state 1\n"


def kept(short, resource, version="1"):
    return Kept(short, resource.get("cluster_name") or resource["name"], version, raw(resource))


def contents(*names, listed=()):
    resources = tuple(kept(short, each) for name in names for short, each in simple(name).items())
    return Contents({name: name for name in names}, frozenset(listed), {"cluster": "7"}, resources)


def encoded(**views):
    return b"".join(last_good.encode("me", "127.0.0.1:1", 12.5, views or {"target": contents("a")}))


def signed(body):
    """What somebody else could write: the digest is right."""
    return MAGIC + hashlib.sha256(body).digest() + body


def with_header(header):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return signed(len(text).to_bytes(4, "big") + text)


HEADER = {
    "node": "me",
    "server": "s",
    "written": 1.0,
    "views": {"target": {"targets": {}, "listed": [], "versions": {}}},
    "sections": [],
}


def session(view="target"):
    return Session(NODE, view=view, jitter=lambda: 0.5)


class TestFormat:
    def test_what_was_written_is_read(self):
        held = last_good.decode(encoded(target=contents("a", "b"), sidecar=contents("c", listed=["cluster"])))
        assert (held.node, held.server, held.written) == ("me", "127.0.0.1:1", 12.5)
        assert held.views["target"].targets == {"a": "a", "b": "b"}
        assert held.views["sidecar"].listed == {"cluster"}
        assert held.views["target"].versions == {"cluster": "7"}
        assert {(view, short) for view, short, _ in held.sections} == {
            (view, short)
            for view in ("target", "sidecar")
            for short in ("listener", "route", "cluster", "endpoint")
        }

    def test_large_types_are_in_several_sections(self):
        many = tuple(
            kept("endpoint", build.endpoints(f"c{index}", *[f"10.0.0.{at}:80" for at in range(200)]))
            for index in range(100)
        )
        held = last_good.decode(encoded(target=Contents(resources=many)))
        assert len(held.sections) > 1
        assert max(len(data) for _, _, data in held.sections) < 300_000
        made = session("auto")
        found, refused = last_good.restore(held, "target", made.cache, made._types)
        assert (len(found["endpoint"]), refused) == (100, [])

    def test_one_that_is_too_large_is_not_made(self, monkeypatch):
        monkeypatch.setattr(last_good, "MOST", 100)
        with pytest.raises(ValueError, match="the most are 100"):
            encoded()

    @pytest.mark.parametrize("bit", range(8))
    def test_a_flipped_bit_anywhere(self, bit):
        data = bytearray(encoded())
        for at in range(len(data)):
            data[at] ^= 1 << bit
            with pytest.raises(Unreadable):
                last_good.decode(bytes(data))
            data[at] ^= 1 << bit

    def test_cut_short_anywhere(self):
        data = encoded()
        for size in range(len(data)):
            with pytest.raises(Unreadable):
                last_good.decode(data[:size])

    def test_longer(self):
        with pytest.raises(Unreadable, match="damaged"):
            last_good.decode(encoded() + b"\0")

    @pytest.mark.parametrize("version", [b"0", b"2", b"17", b"\xff"])
    def test_another_version(self, version):
        with pytest.raises(Unreadable, match="format"):
            last_good.decode(encoded().replace(b"state 1\n", b"state " + version + b"\n", 1))

    @given(data=st.binary(max_size=300))
    def test_random_bytes(self, data):
        with pytest.raises(Unreadable):
            last_good.decode(data)

    @given(data=st.binary(max_size=300))
    def test_random_bytes_with_the_right_digest(self, data):
        with pytest.raises(Unreadable):
            last_good.decode(signed(data))

    @pytest.mark.parametrize(
        "header",
        [
            b"",
            b"null",
            b"[]",
            b"\xff",
            b'{"views": ' + b"[" * 100_000,
            b'{"written": ' + b"9" * 10_000 + b"}",
            {**HEADER, "node": 1},
            {**HEADER, "server": None},
            {**HEADER, "written": "1"},
            {**HEADER, "written": True},
            {**HEADER, "views": []},
            {**HEADER, "views": {"target": {"targets": {"a": 1}, "listed": [], "versions": {}}}},
            {**HEADER, "views": {"target": {"targets": {}, "listed": [1], "versions": {}}}},
            {**HEADER, "views": {"target": {"targets": {}, "listed": [], "versions": {"cluster": []}}}},
            {**HEADER, "sections": [["target", "cluster", 1]]},
            {**HEADER, "sections": [["target", "cluster", -1]]},
            {**HEADER, "sections": [["target", "cluster", True]]},
            {**HEADER, "sections": [["target", "cluster", 2**70]]},
            {**HEADER, "sections": [["other", "cluster", 0]]},
            {**HEADER, "sections": [["target", "pickle", 0]]},
            {**HEADER, "sections": [["target"]]},
            {**HEADER, "sections": [[[], [], 0]]},
            {key: value for key, value in HEADER.items() if key != "views"},
        ],
    )
    def test_a_wrong_header(self, header):
        with pytest.raises(Unreadable, match="header"):
            last_good.decode(with_header(header))

    def test_a_right_header_is(self):
        assert last_good.decode(with_header(HEADER)).sections == ()


class TestRestore:
    def restored(self, *names, view="target", **more):
        wire = Wire(view)
        held = last_good.decode(encoded(**{view: contents(*names, **more)}))
        found, refused = wire.session.restore(held, wire.now)
        assert refused == []
        assert set(found) == {"listener", "route", "cluster", "endpoint"}
        for name in names:
            wire.session.want(name)
        return wire

    def test_it_is_in_force_at_once_and_asked_for_without_a_version(self):
        wire = self.restored("a")
        assert wire.part.targets["a"].http.routes is not None
        assert wire.part.clusters["a"].assignment is not None
        assert [(short, names, version) for short, names, version, _, _ in wire.open()] == [
            ("listener", ["a"], ""),
            ("route", ["r-a"], ""),
            ("cluster", ["a"], ""),
            ("endpoint", ["a"], ""),
        ]
        assert wire.session.contents() is None  # none of it is the server's yet

    def test_what_the_server_sends_wins(self):
        """CA-10."""
        wire = self.restored("a")
        wire.open()
        wire.send("endpoint", build.endpoints("a", "10.0.0.9:80"))
        (endpoint,) = wire.part.clusters["a"].assignment.endpoints
        assert str(endpoint.address) == "10.0.0.9:80"
        assert "a" in wire.part.targets

    def test_what_the_server_confirms_is_kept_without_being_decoded_again(self):
        wire = self.restored("a")
        wire.open()
        before = wire.part.clusters["a"]
        for short, each in simple("a").items():
            wire.send(short, each)
        assert wire.part.clusters["a"] is before
        found = wire.session.contents()
        assert {each.short for each in found.resources} == {"listener", "route", "cluster", "endpoint"}
        assert found.targets == {"a": "a"}

    def test_what_the_server_does_not_have_goes(self):
        """SW-14: listeners and clusters come as the whole state."""
        wire = self.restored("a", "b")
        wire.open()
        wire.send("listener", simple("a")["listener"])
        assert set(wire.part.targets) == {"a"}

    def test_what_does_not_come_in_time_goes(self):
        """EX-02, once the server has said anything."""
        wire = self.restored("a", "b")
        wire.open()
        wire.send("listener", simple("a")["listener"], simple("b")["listener"])
        wire.pass_time(14.9)
        assert set(wire.part.targets) == {"a", "b"}
        wire.pass_time(0.1)
        assert set(wire.part.targets) == set()
        assert "r-a" in wire.part.absent["a"].why

    def test_a_server_that_says_nothing_takes_nothing(self):
        wire = self.restored("a")
        wire.open()
        for _ in range(10):
            wire.pass_time(15.0)
        assert wire.part.targets["a"].http.routes is not None
        assert wire.session.cache.value("listener", "a") is not None
        wire.send("listener", simple("a")["listener"])
        wire.pass_time(15.0)
        assert wire.session.cache.value("route", "r-a") is None

    def test_it_outlives_streams_that_end_without_an_answer(self):
        wire = self.restored("a")
        for _ in range(3):
            wire.open()
            wire.close("away")
        assert wire.part.targets["a"].http.routes is not None

    def test_a_refusal_by_the_server_leaves_it(self):
        """ER-02."""
        wire = self.restored("a")
        wire.open()
        wire.send("cluster", build.cluster("a", type="LOGICAL_DNS"))
        assert wire.part.clusters["a"].assignment is not None

    def test_all_that_there_was_is_known(self):
        names = ("listener", "cluster")
        assert self.restored("a", view="sidecar", listed=names).part.listed
        assert not self.restored("a", view="sidecar").part.listed

    def test_the_decoders_judge_it(self):
        """The digest is right, and the resources are hostile."""
        bad = Contents(
            resources=(
                Kept("cluster", "a", "1", b"\xff\xff"),
                Kept(
                    "route",
                    "r",
                    "1",
                    raw(
                        build.route_config("r", build.virtual_host("v", build.route(regex="(", cluster="c")))
                    ),
                ),
                kept("cluster", build.cluster("good")),
                Kept("cluster", "", "1", raw(build.cluster(""))),
            ),
            listed=frozenset({"cluster", "route"}),
        )
        wire = Wire("sidecar")
        found, refused = wire.session.restore(last_good.decode(encoded(sidecar=bad)), 0.0)
        assert found["cluster"] == {"good"}
        assert {(item.type, item.resource) for item in refused} >= {
            ("cluster", "a"),
            ("route", "r"),
            ("cluster", ""),
        }
        assert not wire.session.cache.listed  # what was refused may be what is looked for

    @given(data=st.binary(max_size=200))
    def test_a_section_of_random_bytes(self, data):
        header = {**HEADER, "sections": [["target", "cluster", len(data)]]}
        text = json.dumps(header).encode()
        held = last_good.decode(signed(len(text).to_bytes(4, "big") + text + data))
        Wire("target").session.restore(held, 0.0)

    @given(at=st.integers(0, 10_000), bit=st.integers(0, 7))
    def test_a_section_with_a_flipped_bit(self, at, bit):
        data = bytearray(response("cluster", build.cluster("a"), build.cluster("b", ["10.0.0.1:80"])))
        data[at % len(data)] ^= 1 << bit
        header = {**HEADER, "sections": [["target", "cluster", len(data)]]}
        text = json.dumps(header).encode()
        held = last_good.decode(signed(len(text).to_bytes(4, "big") + text + bytes(data)))
        Wire("target").session.restore(held, 0.0)

    def test_a_resource_of_another_type_than_its_section(self):
        data = response("endpoint", build.endpoints("a", "10.0.0.1:80"))
        header = {**HEADER, "sections": [["target", "cluster", len(data)]]}
        text = json.dumps(header).encode()
        held = last_good.decode(signed(len(text).to_bytes(4, "big") + text + data))
        found, refused = Wire("target").session.restore(held, 0.0)
        assert not any(found.values())
        assert "is of type" in refused[0].problems[0]

    def test_every_type_of_a_stream_can_be_kept(self):
        assert {kind.short for kind in session("auto")._types} <= set(schema.TYPE_URLS)
