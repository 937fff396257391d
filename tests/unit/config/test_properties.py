"""Whatever stands in a mapping: a Config, or a ConfigError whose every line names a key."""

import copy
import json
import math
from functools import cache

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from meshlib.config import Config, ServiceConfig, from_settings, load, resolve
from meshlib.config.hosts import HostPort
from meshlib.config.kinds import (
    Among,
    Boolean,
    Choice,
    Integer,
    Json,
    ListOf,
    MapOf,
    Number,
    Place,
    Refused,
    Report,
    Text,
)
from meshlib.config.section import Table, keys_of
from meshlib.config.source import ARGUMENT
from meshlib.errors import ConfigError

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from(
        ["10.0.0.1:80", "h:1", "[::1]:1", "unix:/a", "/api", "5xx", "on", "auto", "25%", "*.a", "<local>"]
    ),
    st.binary(max_size=4),
)
junk = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(st.text(max_size=8), st.integers()), inner, max_size=3),
    ),
    max_leaves=8,
)


POOL = (
    "10.0.0.1:80", "h:1", "[::1]:1", "unix:/a", "10.0.0.1", "reviews", "*.a", "a.*", "<local>", "x-a", "GET", "/api", "/a?b",
    "a|b", "(?i)x", "on", "observe", "25%", "http://h:1", "two words", "Ünïcode", "{}",
)  # fmt: skip


def suits(kind, text):
    try:
        kind.parse(text, Place((), Report(lambda path: ARGUMENT)))
    except Refused:
        return False
    return True


def right(kind, depth=0):
    """Values that are right for ``kind`` by themselves; between the keys of a table there may be contradictions."""
    match kind:
        case Table():
            return right_table(kind.cls, depth + 1)
        case ListOf():
            return st.lists(right(kind.item, depth), min_size=kind.least, max_size=3)
        case MapOf():
            keys = st.sampled_from([text for text in POOL if suits(kind.name, text)])
            return st.dictionaries(keys, right(kind.item, depth), max_size=3)
        case Boolean():
            return st.booleans()
        case Integer():
            high = kind.low + 100 if kind.high is None else min(kind.high, kind.low + 1000)
            return st.integers(kind.low, high)
        case Number():
            high = None if math.isinf(kind.high) else kind.high
            return st.floats(kind.low, high, exclude_min=kind.above, allow_infinity=False)
        case Choice():
            return st.sampled_from(kind.names)
        case Among():
            return st.sampled_from(kind.numbers)
        case Json():
            values = st.one_of(
                st.none(), st.booleans(), st.integers(-9, 9), st.floats(-9, 9), st.sampled_from(POOL)
            )
            return st.dictionaries(
                st.sampled_from(POOL), st.one_of(values, st.lists(values, max_size=2)), max_size=3
            )
        case Text():
            return st.sampled_from([text for text in POOL if suits(kind, text)])
        case HostPort():
            return st.sampled_from([text for text in POOL if suits(kind, text)])
        case _:
            return st.none()  # objects of Python


@cache
def right_table(cls, depth):
    keys = {key.name: key for key in keys_of(cls) if not key.rest}
    must = [name for name, key in keys.items() if key.required]

    def values(names):
        chosen = sorted({*names, *must})
        made = {name: right(keys[name].kind, depth) for name in chosen}
        return st.fixed_dictionaries({name: value for name, value in made.items() if value is not None})

    return st.lists(st.sampled_from(sorted(keys)), max_size=4 if depth < 2 else 2).flatmap(values)


def without_objects(value):
    """None may stand only where it says that nothing is said; lists of objects have no such place."""
    if isinstance(value, dict):
        return {name: without_objects(item) for name, item in value.items()}
    if isinstance(value, list):
        return [without_objects(item) for item in value if item is not None]
    return value


services = st.dictionaries(
    st.sampled_from(["reviews", "a:80"]), right_table(ServiceConfig, 1), min_size=1, max_size=2
)
sound = st.one_of(right_table(Config, 0), services.map(lambda made: {"services": made})).map(without_objects)


def spoil(pair):
    """One sound mapping with one part of it replaced by junk."""
    mapping, steps, value = pair
    top = copy.deepcopy(mapping)
    table = top
    for step in steps:
        entries = (
            list(table)
            if isinstance(table, dict)
            else list(range(len(table)))
            if isinstance(table, list)
            else []
        )
        if not entries:
            break
        name = entries[step % len(entries)]
        inner = table[name]
        if step % 3 == 0 or not isinstance(inner, dict | list):
            table[name] = value
            break
        table = inner
    return top


mappings = st.one_of(
    sound, st.tuples(sound, st.lists(st.integers(0, 20), min_size=1, max_size=6), junk).map(spoil)
)


def read(make):
    """What ``make`` makes, or None and the certainty that its problems are well told."""
    error = None
    try:
        return make()
    except ConfigError as caught:
        error = caught
    assert error.problems
    assert str(error) == "\n".join(error.problems)
    for line in error.problems:
        assert line.isprintable()
        origin, key, rest = line.split(": ", 2)
        assert origin
        assert key
        assert rest
    return None


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(mappings)
def test_a_mapping_is_a_config_or_problems_with_keys(mapping):
    config = read(lambda: Config.from_mapping(mapping))
    if config is None:
        return
    written = json.loads(json.dumps(config.to_dict()))
    assert Config.from_mapping(written) == config
    assert resolve(config, {}) == config
    assert hash(config) == hash(resolve(config, {}))


@settings(deadline=None)
@given(junk)
def test_junk(value):
    read(lambda: Config.from_mapping({"services": value}))
    if isinstance(value, dict):
        read(lambda: Config.from_mapping(value))


@settings(
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    deadline=None,
    max_examples=50,
)
@given(mappings)
@example({"services": {"GET": {"timeout": 1.0}}, "adoption": {"Ünïcode": "on"}})
def test_settings_over_a_file_that_says_the_same_are_the_settings(tmp_path, mapping):
    alone = read(lambda: Config.from_mapping(mapping))
    if alone is not None:
        path = tmp_path / "mesh.json"
        path.write_text(json.dumps(mapping))
        settings = from_settings(mapping, "settings")
        assert resolve(settings, {"MESHLIB_CONFIG": str(path)}) == alone
        assert (
            resolve(mapping, {}) == resolve(alone, {}) == alone
        )  # (a path among them is relative to its file)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.binary(max_size=200), suffix=st.sampled_from([".toml", ".json", ".yaml"]))
def test_any_bytes_in_a_file(tmp_path, data, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(data)
    told = str(path)
    try:
        load(path)
    except ConfigError as error:
        told = str(error)
    assert str(path) in told


@settings(deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(
            [
                "MESHLIB_SEED",
                "MESHLIB_DISABLED",
                "MESHLIB_XDS_SERVER",
                "MESHLIB_NODE_ID",
                "MESHLIB_SIDECAR",
                "OTEL_SERVICE_NAME",
                "GRPC_XDS_BOOTSTRAP_CONFIG",
            ]
        ),
        st.text(),
    )
)
def test_any_environment(environ):
    problems = ()
    try:
        Config.from_env(environ)
    except ConfigError as error:
        problems = error.problems
    assert all(line.split(": ")[0] in environ for line in problems)
