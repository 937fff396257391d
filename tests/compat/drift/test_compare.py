"""The comparison finds what it is there to find (the real one is `make drift`)."""

import copy
import importlib.util
from pathlib import Path

import pytest

spec = importlib.util.spec_from_file_location("drift_compare", Path(__file__).with_name("compare.py"))
compare = importlib.util.module_from_spec(spec)
spec.loader.exec_module(compare)


def fact(number, type_="string", *, message=False, repeated=False, oneof=None):
    return {"number": number, "type": type_, "message": message, "repeated": repeated, "oneof": oneof}


MESSAGE = {
    "fields": {
        "name": fact(1),
        "mode": fact(2, "a.Mode"),
        "inner": fact(3, "a.Inner", message=True, oneof="kind"),
    },
    "enums": {"a.Mode": {"OFF": 0, "ON": 1}},
}


def test_equal_messages_differ_in_nothing():
    assert compare.differences("a.M", MESSAGE, copy.deepcopy(MESSAGE)) == []
    assert compare.unread("a.M", MESSAGE, MESSAGE) == []


def test_our_root_is_not_a_difference():
    ours = {
        "fields": {"inner": fact(3, "meshlib.wire.a.Inner", message=True)},
        "enums": {"meshlib.wire.a.E": {}},
    }
    assert compare.ours_as_upstream(ours) == {
        "fields": {"inner": fact(3, "a.Inner", message=True)},
        "enums": {"a.E": {}},
    }


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("name", {"number": 9}),
        ("name", {"type": "bytes"}),
        ("name", {"repeated": True}),
        ("mode", {"type": "a.Other"}),
        ("inner", {"type": "a.Else"}),
        ("inner", {"oneof": None}),
    ],
)
def test_a_changed_field_is_found(field, change):
    theirs = copy.deepcopy(MESSAGE)
    theirs["fields"][field].update(change)
    (line,) = compare.differences("a.M", MESSAGE, theirs)
    assert line.startswith(f"a.M.{field}: ")


def test_a_changed_enum_is_found():
    theirs = copy.deepcopy(MESSAGE)
    theirs["enums"]["a.Mode"]["AUTO"] = 2
    assert compare.differences("a.M", MESSAGE, theirs) == ["a.Mode: values differ: [('AUTO', 2)]"]


def test_what_upstream_lost_is_found():
    theirs = copy.deepcopy(MESSAGE)
    del theirs["fields"]["name"]
    assert compare.differences("a.M", MESSAGE, theirs) == ["a.M.name: upstream has no such field"]
    assert compare.differences("a.M", MESSAGE, None) == ["a.M: upstream has no such message"]


def test_unread_fields_are_absent_or_opaque():
    ours = {"fields": {"inner": fact(3, compare.OPAQUE, message=True, oneof="kind")}, "enums": {}}
    assert compare.differences("a.M", ours, MESSAGE) == []
    assert compare.unread("a.M", ours, MESSAGE) == ["a.M.name absent", "a.M.mode absent", "a.M.inner opaque"]


@pytest.mark.parametrize("theirs", [fact(3), fact(3, "map:a.Inner", message=True, repeated=True)])
def test_an_opaque_field_must_be_such_a_message_upstream(theirs):
    ours = {
        "fields": {"inner": fact(3, compare.OPAQUE, message=True, repeated=theirs["repeated"])},
        "enums": {},
    }
    (line,) = compare.differences("a.M", ours, {"fields": {"inner": theirs}, "enums": {}})
    assert line.startswith("a.M.inner: ")
