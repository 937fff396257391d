"""The table of fields: it fits the schema, the page fits it, and no field is dropped in silence."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from meshlib.xds import decode, schema
from meshlib.xds.decode.fields import TABLE, Kind, rule
from meshlib.xds.decode.fields.rules import rules
from meshlib.xds.decode.report import MAX_ENTRIES, Report, walk

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("xds_fields", ROOT / "scripts" / "xds_fields.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_table_and_schema_fit(script):
    assert list(script.misfits()) == []


def test_the_page_is_up_to_date(script):
    assert script.main(["--check"]) == 0


def test_a_contradiction_is_found(script, monkeypatch):
    monkeypatch.setitem(script.TABLE, "envoy.config.core.v3.Locality", rules(honoured="region zone planet"))
    assert list(script.misfits()) == [
        "envoy.config.core.v3.Locality.planet: the schema has no such field",
        "envoy.config.core.v3.Locality.sub_zone: the table does not name it",
    ]


def test_what_the_table_does_not_name_is_reported():
    assert rule("envoy.config.core.v3.Nothing", "x").kind is Kind.REPORTED


def test_what_is_not_honoured_has_a_reason(script, monkeypatch):
    made = rules(honoured="region", reported="zone", rejected="sub_zone", notes={"sub_zone": "why"})
    monkeypatch.setitem(script.TABLE, "envoy.config.core.v3.Locality", made)
    assert list(script.misfits()) == [
        "envoy.config.core.v3.Locality.zone: it is reported, and no note tells why",
    ]


def test_a_note_and_a_reason_are_for_several_names():
    made = rules(honoured="a", reported="b c", rejected="d", reason="r", notes={"a b": "n"})
    assert {name: rule.note for name, rule in made.items()} == {"a": "n", "b": "n", "c": "r", "d": "r"}


def test_the_page_counts_itself(script):
    page = script.page()
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    words = [row.split("|")[3].strip() for row in rows]
    told = ", ".join(
        f"{words.count(word)} {word}" for word in ("honoured", "reported", "rejected", "no meaning")
    )
    assert f"It has {len(rows)} fields: {told}." in page


def test_names_stand_once():
    with pytest.raises(ValueError, match="two rules"):
        rules(honoured="a", void="a")
    with pytest.raises(ValueError, match="no rule"):
        rules(honoured="a", notes={"b": ""})


def _tops():
    return [schema.type_name(url) for url in schema.TYPE_URLS.values()]


def _scalar(field):
    return {"string": "x", "bytes": b"x", "bool": True}.get(
        {9: "string", 12: "bytes", 8: "bool"}.get(field.type, ""), 1
    )


def _fill(message, field):
    """Sets one field to something that is not its default."""
    if field.message_type is None:
        if schema.is_repeated(field):
            getattr(message, field.name).append(_scalar(field))
        else:
            setattr(message, field.name, _scalar(field))
    elif field.message_type.GetOptions().map_entry:
        kind = field.message_type.fields_by_name["value"]
        if kind.message_type is None:
            getattr(message, field.name)["k"] = _scalar(kind)
        else:
            getattr(message, field.name).get_or_create("k")
    elif schema.is_repeated(field):
        getattr(message, field.name).add()
    else:
        inner = getattr(message, field.name)
        inner.SetInParent()
        for each in inner.DESCRIPTOR.fields:
            if each.message_type is None and not schema.is_repeated(each) and each.name == "value":
                _fill(inner, each)
        if inner.DESCRIPTOR.full_name == "google.protobuf.Duration":
            inner.seconds = 1


@pytest.mark.parametrize("entry", sorted(TABLE))
def test_each_field_does_what_the_table_says(entry):
    name, _, variant = entry.partition("#")
    for field in schema.descriptor(name).fields:
        made, report = schema.message(name)(), Report()
        _fill(made, field)
        walk(made, "", report, variant)
        found = TABLE[entry][field.name]
        reported = dict(report.ignored)
        if found.kind in (Kind.REPORTED, Kind.CARRIED) and found.when is None:
            assert field.name in reported
        elif found.kind is Kind.REJECTED:
            assert [text.partition(":")[0] for text in report.problems] == [field.name]
        elif found.kind in (Kind.HONOURED, Kind.VOID):
            assert field.name not in reported
            assert not report.problems


def test_what_a_hostile_resource_can_say_is_bounded():
    report = Report()
    for index in range(10 * MAX_ENTRIES):
        report.problem(f"a[{index}]", "is wrong")
        report.ignore(f"b[{index}]", "x" * 10_000)
    assert len(report.problems) == MAX_ENTRIES + 1
    assert report.problems[-1] == f"… and {9 * MAX_ENTRIES} more"
    assert len(report.ignored) == MAX_ENTRIES
    assert max(len(value) for _, value in report.ignored) == 200


def test_every_top_has_rules():
    assert [name for name in _tops() if name not in TABLE] == []


@pytest.mark.parametrize("place", ["top", "locality", "first endpoint", "last endpoint", "address", "beside"])
def test_a_field_that_is_not_known_is_found_in_long_lists_too(place):
    """A field of a number that nobody gave, anywhere in what is looked at piece by piece."""
    kind = schema.message("envoy.config.endpoint.v3.ClusterLoadAssignment")
    made = kind(cluster_name="c")
    for zone in range(2):
        group = made.endpoints.add()
        group.locality.zone = f"z{zone}"
        for number in range(300):
            address = group.lb_endpoints.add().endpoint.address.socket_address
            address.address, address.port_value = f"10.0.{zone}.{number % 250}", 80 + number
    assert decode.endpoint(made.SerializeToString()).ignored == ()
    last = made.endpoints[1]
    spots = {
        "top": made,
        "locality": last,
        "first endpoint": made.endpoints[0].lb_endpoints[0],
        "last endpoint": last.lb_endpoints[299],
        "address": last.lb_endpoints[299].endpoint.address.socket_address,
        "beside": last.locality,
    }
    spots[place].MergeFromString(b"\xf8\x3f\x01")  # field 1023, a varint
    found = decode.endpoint(made.SerializeToString())
    paths = {
        "top": "#1023",
        "locality": "endpoints[1].#1023",
        "first endpoint": "endpoints[0].lb_endpoints[0].#1023",
        "last endpoint": "endpoints[1].lb_endpoints[299].#1023",
        "address": "endpoints[1].lb_endpoints[299].endpoint.address.socket_address.#1023",
        "beside": "endpoints[1].locality.#1023",
    }
    assert dict(found.ignored) == {paths[place]: "a field that is not known"}
