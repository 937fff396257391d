"""The JSON Schema and the types that are made of the configuration's tables: they are what the tables say, they take what is
right, and the schema refuses what is wrong by its shape.
"""

import importlib.util
import json
import re
import tomllib
from pathlib import Path
from typing import Required, get_origin, get_type_hints

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings

from meshlib.config import Config, shapes
from meshlib.config.section import keys_of
from meshlib.errors import ConfigError
from tests.support.pages import ROOT, blocks

SCHEMA = ROOT / "docs" / "reference" / "meshlib.schema.json"


def load(path, name):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


properties = load(Path(__file__).with_name("test_properties.py"), "config_properties")
cases = load(Path(__file__).with_name("test_problems.py"), "config_problems")
validator = jsonschema.Draft7Validator(json.loads(SCHEMA.read_text()))


@pytest.fixture
def script():
    return load(ROOT / "scripts" / "config_schema.py", "config_schema")


def test_both_files_are_what_the_tables_say(script):
    assert script.main(["--check"]) == 0, "run scripts/config_schema.py"


def test_a_file_that_is_not_fails_the_check(script, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(script, "SCHEMA", tmp_path / "meshlib.schema.json")
    assert script.main(["--check"]) == 1
    assert script.main([]) == 0
    assert script.main(["--check"]) == 0
    script.SCHEMA.write_text(script.SCHEMA.read_text().replace('"timeout"', '"time"', 1))
    assert script.main(["--check"]) == 1
    assert "meshlib.schema.json is not what meshlib/config says" in capsys.readouterr().out


def test_the_schema_is_one():
    jsonschema.Draft7Validator.check_schema(validator.schema)


def test_every_table_has_its_type_and_every_key_is_in_it(script):
    for cls in script._sections(Config):
        if not script._has_rest(cls):
            typed = getattr(shapes, script._name(cls))
            assert set(typed.__annotations__) == {key.name for key in keys_of(cls)}
            hints = get_type_hints(typed, include_extras=True)
            required = {name for name, hint in hints.items() if get_origin(hint) is Required}
            assert required == {key.name for key in keys_of(cls) if key.required}


# --- what is right ------------------------------------------------------------------------------------------------


def shown():
    """The configurations of the documentation."""
    return [(str(block), tomllib.loads(block.body)) for block in blocks("toml")]


@pytest.mark.parametrize(
    ("place", "mapping"), shown(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_what_the_documentation_shows_is_right(place, mapping):
    validator.validate(mapping)


@pytest.mark.parametrize("mapping", [case[0] for case in cases.EDGE])
def test_what_is_at_the_edge_is_right(mapping):
    validator.validate(mapping)


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(properties.sound)
def test_what_the_configuration_takes_the_schema_takes(mapping):
    try:
        Config.from_mapping(mapping)
    except ConfigError:
        return
    validator.validate(json.loads(json.dumps(mapping)))


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(properties.mappings)
def test_what_the_schema_refuses_the_configuration_refuses(mapping):
    """Junk in one place of what was right."""
    try:
        text = json.dumps(mapping, allow_nan=False)
    except (TypeError, ValueError):
        return  # no file holds it
    if validator.is_valid(json.loads(text)):
        return
    with pytest.raises(ConfigError):
        Config.from_mapping(mapping)


# --- what is wrong ------------------------------------------------------------------------------------------------

#: What is told of the shape of a value: its type, its bounds, its place in a list of words, a key that is not there.
SHAPE = re.compile(
    r": (must be .*, not (?!')|must be .* in \[ \]|is missing; must be |unknown key|the key must be .*, not (?!'))"
)

#: Told as such, and no matter of shapes after all → why.
NOT_OF_THE_SHAPE = {
    "not a huge number": "JSON has no largest number",
    "whole number, 1 or more, not 2.0": "2.0 is a whole number to JSON Schema",
    "finite": "as above",
    "host:port": "of a text: unix:/a is an address, and not one to resolve",
    "key must be text": "in JSON every key is text",
    "services.80": "as above",
    "broken Unicode": "a pattern that says so would refuse what lies outside of the basic plane, too",
}


@pytest.mark.parametrize(("mapping", "key", "words"), cases.ONE)
def test_what_is_wrong_by_its_shape_is_refused(mapping, key, words):
    (problem,) = cases.problems(mapping)
    try:
        value = json.loads(json.dumps(mapping, allow_nan=False))
    except (TypeError, ValueError):
        return  # no file can hold it
    assert validator.is_valid(value) == (
        not SHAPE.search(problem) or not {key, words}.isdisjoint(NOT_OF_THE_SHAPE)
    )


def test_most_problems_are_of_the_shape():
    told = [words for mapping, _, words in cases.ONE if SHAPE.search(cases.problems(mapping)[0])]
    assert len(told) > 50
    assert set(NOT_OF_THE_SHAPE) <= {word for _, key, words in cases.ONE for word in (key, words)}


@pytest.mark.parametrize(
    "table", ["", "node", "xds", "services.a", "services.a.retry", "services.a.routes", "dns", "admin"]
)
def test_a_key_that_is_none_is_refused(table):
    mapping = value = {}
    for step in table.split(".") if table else ():
        mapping[step] = {}
        mapping = mapping[step]
    mapping["tiemout"] = 1
    assert not validator.is_valid(value)
