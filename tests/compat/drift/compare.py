"""Compares two descriptions of the same messages (see `upstream.describe`): ours and the published one.

A difference in what both have is an error. What only upstream has, and what we know by name alone (opaque), is
`unread`: a list for people to review.
"""

ROOT = "meshlib.wire."
OPAQUE = ROOT + "Opaque"


def ours_as_upstream(described):
    """Our description with upstream's names."""
    return {
        "fields": {
            name: {**facts, "type": facts["type"] if is_opaque(facts) else facts["type"].replace(ROOT, "")}
            for name, facts in described["fields"].items()
        },
        "enums": {name.replace(ROOT, ""): values for name, values in described["enums"].items()},
    }


def is_opaque(facts):
    return facts["type"].removeprefix("map:") == OPAQUE


def differences(name, ours, theirs):
    """What our message says otherwise than upstream's, a line each."""
    if theirs is None:
        return [f"{name}: upstream has no such message"]
    found = []
    for field, mine in ours["fields"].items():
        there = theirs["fields"].get(field)
        if there is None:
            found.append(f"{name}.{field}: upstream has no such field")
            continue
        found += [f"{name}.{field}: {line}" for line in _field(mine, there)]
    for enum, values in ours["enums"].items():
        there = theirs["enums"].get(enum)
        if there != values and there is not None:
            changed = sorted(set(values.items()) ^ set(there.items()))
            found.append(f"{enum}: values differ: {changed}")
    return found


def _field(mine, there):
    for fact in ("number", "repeated", "oneof"):
        if mine[fact] != there[fact]:
            yield f"{fact} is {mine[fact]} here, {there[fact]} upstream"
    if is_opaque(mine):
        if not there["message"]:
            yield f"is a message here, {there['type']} upstream"
        elif mine["type"].startswith("map:") != there["type"].startswith("map:"):
            yield f"type is {mine['type']} here, {there['type']} upstream"
    elif mine["type"] != there["type"]:
        yield f"type is {mine['type']} here, {there['type']} upstream"


def unread(name, ours, theirs):
    """The upstream fields of a message that we do not read: `absent` from our tables, or `opaque` there."""
    found = []
    for field in theirs["fields"]:
        mine = ours["fields"].get(field)
        if mine is None:
            found.append(f"{name}.{field} absent")
        elif is_opaque(mine):
            found.append(f"{name}.{field} opaque")
    return found
