import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meshlib.config import Config, load, resolve
from meshlib.config.files import LARGEST, read
from meshlib.config.marks import marks_of
from meshlib.errors import ConfigError

YAML = """
node: {id: no, zone: 12:30}
sidecar: {mode: off}
services:
  reviews:
    endpoints: ["10.0.0.1:80"]
    timeout: 1e0
    retry: {on: [5xx, reset], attempts: 3}
adoption: {default: on}
"""


LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{level + 1}: &a{level + 1} [{', '.join([f'*a{level}'] * 10)}]\n" for level in range(30)
)


def write(tmp_path, name, text):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def problem(path):
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


class TestFormats:
    def test_the_three_say_the_same(self, tmp_path):
        mapping = {"seed": 1, "services": {"a": {"endpoints": ["h:1"], "timeout": 1.5}}}
        toml = 'seed = 1\n[services.a]\nendpoints = ["h:1"]\ntimeout = 1.5\n'
        yaml = 'seed: 1\nservices:\n  a:\n    endpoints: ["h:1"]\n    timeout: 1.5\n'
        made = [
            load(write(tmp_path, "a.toml", toml)),
            load(write(tmp_path, "a.json", json.dumps(mapping))),
            load(write(tmp_path, "a.yaml", yaml)),
            load(write(tmp_path, "a.YML", yaml)),
        ]
        assert made == [Config.from_mapping(mapping)] * 4

    def test_yaml_has_the_core_types_of_1_2(self, tmp_path):
        config = load(write(tmp_path, "a.yaml", YAML))
        assert config.services["reviews"].retry.on == ("5xx", "reset")
        assert config.services["reviews"].timeout == 1.0
        assert (config.sidecar.mode, config.adoption.default) == ("off", "on")
        assert (config.node.id, config.node.zone) == ("no", "12:30")

    def test_yaml_may_have_aliases(self, tmp_path):
        text = "services: {a: {endpoints: [h:1], retry: &r {attempts: 3}}, b: {endpoints: [h:2], retry: *r}}"
        services = load(write(tmp_path, "a.yaml", text)).services
        assert services["a"].retry == services["b"].retry
        assert services["b"].retry.attempts == 3

    @pytest.mark.parametrize("name", ["a.toml", "a.yaml"])
    def test_an_empty_file_says_nothing(self, tmp_path, name):
        assert load(write(tmp_path, name, "# nothing\n")) == Config()

    def test_a_byte_order_mark_is_no_part_of_a_key(self, tmp_path):
        assert load(write(tmp_path, "a.toml", b"\xef\xbb\xbfseed = 1")).seed == 1

    def test_yaml_without_its_extra_says_what_to_install(self, tmp_path, monkeypatch):
        monkeypatch.setitem(__import__("sys").modules, "yaml", None)
        assert "meshlib-client[yaml]" in problem(write(tmp_path, "a.yaml", "seed: 1"))


class TestWhatIsWrong:
    @pytest.mark.parametrize(
        ("name", "text", "words"),
        [
            ("a.toml", "seed = \nx = 1", "line 1"),
            ("a.toml", "seed = 1\nseed = 2\nx = 1", "line 2"),
            ("a.json", '{"seed": }', "line 1"),
            ("a.json", '{"seed": 1, "seed": 2}', '"seed" is there twice'),
            ("a.json", '{"services": {"a": {"timeout": 1, "timeout": 2}}}', '"timeout" is there twice'),
            ("a.json", "", "line 1"),
            ("a.json", "null", "must be a table"),
            ("a.json", "[]", "must be a table"),
            ("a.yaml", "- a", "must be a table"),
            ("a.yaml", "a: [", "line 1"),
            ("a.yaml", "seed: 1\nseed: 2", '"seed" is there twice'),
            ("a.yaml", "node: {metadata: &m {again: *m}}", "aliases"),
            ("a.yaml", LAUGHS, "aliases"),
            ("a.yaml", "node: &n {id: a}\nxds:\n  <<: *n", 'xds."<<": unknown key'),
            ("a.yaml", "a: 1\n---\nb: 2", "document"),
            ("a.yaml", "seed: !!python/object/apply:os.system [x]", "could not determine a constructor"),
            ("a.yaml", 'seed: !!int ""', "a.yaml"),
            ("a.yaml", "seed: !!bool maybe", "a.yaml"),
            ("a.yaml", "seed: !!timestamp maybe", "a.yaml"),
            ("a.yaml", "? [a, b]\n: 1", "unhashable"),
            ("a.json", "[" * 100_000, "nested too deeply"),
            ("a.toml", "a = " + "[" * 100_000, "nested too deeply"),
            ("a.yaml", "[" * 5_000, "nested too deeply"),
            ("a.json", b'{"seed": "\xff"}', "not UTF-8 at byte 10"),
            ("a.json", '{"seed": ' + "9" * 5000 + "}", "a.json"),
            ("a.ini", "seed = 1", ".toml, .json, .yaml"),
            ("noending", "seed = 1", ".toml, .json, .yaml"),
        ],
    )
    def test_names_the_file(self, tmp_path, name, text, words):
        assert words in problem(write(tmp_path, name, text))

    def test_a_file_that_is_not_there(self, tmp_path):
        assert "cannot be read" in problem(tmp_path / "none.toml")

    def test_a_directory(self, tmp_path):
        (tmp_path / "d.toml").mkdir()
        assert "cannot be read" in problem(tmp_path / "d.toml")

    def test_one_that_is_too_large(self, tmp_path):
        path = tmp_path / "a.toml"
        with path.open("wb") as file:
            file.truncate(LARGEST + 1)
        assert "larger than 16 MiB" in problem(path)

    def test_a_date_of_toml_is_no_metadata(self, tmp_path):
        text = problem(write(tmp_path, "a.toml", "[node.metadata]\nday = 2026-01-01"))
        assert "node.metadata.day: must be what JSON can say" in text

    def test_keys_of_yaml_that_are_no_text(self, tmp_path):
        assert "services.80: the key must be" in problem(write(tmp_path, "a.yaml", "services: {80: {}}"))
        assert "key must be text, not 80" in problem(write(tmp_path, "b.yaml", "80: 1"))

    def test_what_only_python_can_give(self, tmp_path):
        text = problem(write(tmp_path, "a.toml", '[services.a.retry]\nstop = "never"\nwait = 1'))
        assert text.count("only a mapping in Python can give") == 2


class TestPlaces:
    def test_relative_paths_are_relative_to_the_file(self, tmp_path, monkeypatch):
        (tmp_path / "conf").mkdir()
        monkeypatch.chdir(tmp_path)
        text = """
        services_file = "../envoy.yaml"
        [xds]
        server = "unix:xds.sock"
        tls = { ca = "ca.pem", cert = "/abs/me.pem", key = "me.key" }
        last_good = "x/../last.bin"
        [adoption]
        kill_switch = "off"
        [admin]
        enabled = true
        runtime_dir = "run"
        """
        write(tmp_path, "conf/mesh.toml", text)
        config = load("conf/mesh.toml")
        conf = tmp_path / "conf"
        assert config.services_file == str(tmp_path / "envoy.yaml")
        assert str(config.xds.server) == f"unix:{conf}/xds.sock"
        assert (config.xds.tls.ca, config.xds.tls.cert) == (str(conf / "ca.pem"), "/abs/me.pem")
        assert config.xds.last_good == str(conf / "last.bin")
        assert (config.adoption.kill_switch, config.admin.runtime_dir) == (
            str(conf / "off"),
            str(conf / "run"),
        )

    def test_those_of_a_mapping_stay(self):
        assert Config.from_mapping({"services_file": "a/b.yaml"}).services_file == "a/b.yaml"


class TestEnvoysShape:
    @pytest.mark.parametrize(
        "text",
        [
            "listeners: []",
            "clusters: []\nroutes: []",
            "static_resources: {}\nnode: {}",
            "staticResources: {}",
            "static_resources: {}\nservices: {}",
            "resources: []",
            "resources: []\nversion_info: '1'",
            "dynamic_resources: {}",
            "layeredRuntime: {}",
            "admin: {address: {}}",
            "admin: {accessLogPath: /dev/null}",
            "node: {id: a, locality: {zone: b}}",
        ],
    )
    def test_is_a_services_file_by_itself(self, tmp_path, text):
        path = write(tmp_path, "envoy.yaml", text)
        config = load(path)
        assert config.services_file == str(path)
        assert config.source_of("services_file") == str(path)

    @pytest.mark.parametrize(
        "text", ["{}", "admin: {enabled: true}", "node: {id: a, zone: b}", "admin: {}", "seed: 1\nadmin: {}"]
    )
    def test_is_not_what_ours_are(self, tmp_path, text):
        assert load(write(tmp_path, "mesh.yaml", text)).services_file is None

    def test_the_keys_that_tell_are_those_of_the_schema_and_ours(self):
        from meshlib.config import files
        from meshlib.config.section import keys_of
        from meshlib.xds import schema

        bootstrap = {field.name for field in schema.descriptor("envoy.config.bootstrap.v3.Bootstrap").fields}
        assert files._BOOTSTRAP | set(files._WITHIN) == bootstrap
        ours = {key.name for key in keys_of(Config)}
        assert files._OURS | set(files._WITHIN) == ours
        for key, kind in (("admin", Config().admin), ("node", Config().node)):
            assert files._WITHIN[key].isdisjoint(each.name for each in keys_of(type(kind)))

    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("5", 5), ("'5'", "5"), ("|\n    5", "5\n"), ("010", 8), ("08", "08"), ("0x1F", 31), ("-7", -7), ("+7", 7),
            ("2147483648", "2147483648"), ("0x80000000", "2147483648"), ("9223372036854775808", "9223372036854775808"),
            ("1.5", "1.5"), ("1e3", "1e3"), ("2020-01-01", "2020-01-01"), ("12:30", "12:30"), ("1_000", "1_000"),
            ("yes", True), ("Off", False), ("N", False), ("nO", "nO"), ("'yes'", "yes"), ("~", None), ("", None),
            ("NULL", None), ("'~'", "~"), ("!foo 5", 5), ("!!int '5'", 5), ("[a, 1]", ["a", 1]), ("{5: a}", {"5": "a"}),
            ("{a: 1, a: 2}", {"a": 2}), ("{!ignore a: 1, b: 2}", {"b": 2}),
        ],
    )  # fmt: skip
    def test_its_yaml_is_read_as_envoy_reads_it(self, tmp_path, text, value):
        assert read(write(tmp_path, "a.yaml", f"listeners:\n  - {text}\n")).value == {"listeners": [value]}

    def test_aliases_may_meet_themselves_where_nobody_looks(self, tmp_path):
        assert read(write(tmp_path, "a.yaml", "!ignore x: &a [*a]\nclusters: []")).value == {"clusters": []}
        assert "aliases" in problem(write(tmp_path, "b.yaml", "clusters: &a [*a]"))

    def test_its_json_keeps_a_key_that_is_there_twice(self, tmp_path):
        held = read(write(tmp_path, "a.json", '{"clusters": [{"a": 1, "a": 2}]}')).value["clusters"][0]
        assert (held["a"], list(held.items())) == (2, [("a", 1), ("a", 2)])

    def test_a_stray_key_beside_ours_is_an_unknown_key(self, tmp_path):
        text = problem(write(tmp_path, "a.toml", "endpoints = []\n[services.a]\ntimeout = 1"))
        assert "endpoints: unknown key" in text


def test_read_gives_the_raw_table(tmp_path):
    assert read(write(tmp_path, "a.toml", "a.b = 1")).value == {"a": {"b": 1}}


class TestLines:
    """An error names file, line and column of the key, or of what is around it."""

    TOML = """# a comment
seed = "x"
node = { id = "a", zone = 5 }
[services."reviews:9080"]
endpoints = ["10.0.0.1:80",
    "no port"]  # [services]
timeout = \"\"\"
[sidecar]\"\"\"
retry.attempts = "three"
[[services.a.routes]]
service = "b"
[[services.a.routes]]
service = 5
[services.a.routes.match]
paht = "/"
"""
    JSON = """{"seed": "x",
 "services": {"a": {
   "endpoints": ["10.0.0.1:80", 5], "timeout": "soon"}},
 "node": {"zone": 5}}"""
    YAML = """
seed: x
services:
  a: {endpoints: [10.0.0.1:80, 5], timeout: soon}
  b: &b
    retry: {attempts: three}
    endpoints: ["1.1.1.1:1"]
  c: *b
"""

    @pytest.mark.parametrize(
        ("name", "text", "places"),
        [
            (
                "a.toml",
                TOML,
                {
                    "seed": "2:1",
                    "node.zone": "3:20",
                    'services."reviews:9080".endpoints[1].address': "6:5",
                    'services."reviews:9080".timeout': "7:1",
                    'services."reviews:9080".retry.attempts': "9:1",
                    "services.a.routes[1].service": "13:1",
                    "services.a.routes[1].match.paht": "15:1",
                },
            ),
            (
                "a.json",
                JSON,
                {
                    "seed": "1:2",
                    "services.a.endpoints[1]": "3:33",
                    "services.a.timeout": "3:37",
                    "node.zone": "4:11",
                },
            ),
            (
                "a.yaml",
                YAML,
                {
                    "seed": "2:1",
                    "services.a.endpoints[1]": "4:32",
                    "services.a.timeout": "4:36",
                    "services.b.retry.attempts": "6:13",
                    "services.c.retry.attempts": "6:13",
                },
            ),
        ],
    )
    def test_of_each_format(self, tmp_path, name, text, places):
        path = write(tmp_path, name, text)
        with pytest.raises(ConfigError) as caught:
            load(path)
        starts = {line.split(": ")[1]: line.split(": ")[0] for line in caught.value.problems}
        assert starts == {key: f"{path}:{place}" for key, place in places.items()}

    def test_of_what_is_missing_it_is_that_of_what_lacks_it(self, tmp_path):
        path = write(
            tmp_path, "a.toml", '[services.a]\nendpoints = ["h:1"]\n[[services.a.routes]]\nsplit = {b = "x"}'
        )
        assert problem(path).startswith(f"{path}:4:")

    def test_where_the_environment_is_to_blame_there_is_none(self, tmp_path):
        path = write(tmp_path, "a.toml", "disabled = false")
        with pytest.raises(ConfigError) as caught:
            resolve(path, {"MESHLIB_SEED": "x"})
        assert caught.value.problems[0].startswith("MESHLIB_SEED: seed: ")

    @pytest.mark.parametrize("name", ["a.toml", "a.json", "a.yaml"])
    @given(data=st.data())
    @settings(max_examples=40, suppress_health_check=list(HealthCheck))
    def test_every_key_has_one(self, name, data):
        leaf = st.integers(0, 9) | st.text("ab\n\"'#[]{}=,. é", max_size=6) | st.booleans()
        keys = st.text("abAB_-.\"'#é 1", min_size=1, max_size=4)
        tree = data.draw(
            st.dictionaries(
                keys,
                st.recursive(leaf, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3), max_leaves=8),
                max_size=4,
            )
        )  # fmt: skip
        suffix = name[1:]
        text = (
            _toml(tree)
            if suffix == ".toml"
            else json.dumps(tree, indent=data.draw(st.sampled_from([None, 2])))
        )
        root = marks_of(text, suffix)
        lines = text.split("\n")
        for path, value in _leaves(tree):
            mark = root
            for step in path:
                mark = mark.below[step]
            rest = lines[mark.line - 1][mark.column - 1 :]
            step = path[-1]
            wanted = json.dumps(step if isinstance(step, str) else value)
            assert rest.startswith((wanted[:1], wanted)), (path, rest)


def _leaves(tree, path=()):
    for step, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        if isinstance(value, dict | list) and value:
            yield from _leaves(value, (*path, step))
        elif not isinstance(value, dict | list):
            yield (*path, step), value


def _toml(tree):
    """A table as TOML: the tables in it under headers of their own, those in lists inline."""

    def inline(value):
        if isinstance(value, dict):
            return "{" + ", ".join(f"{quoted(key)} = {inline(each)}" for key, each in value.items()) + "}"
        if isinstance(value, list):
            return "[\n" + ", # ]\n".join(map(inline, value)) + "]"
        return quoted(value)

    def table(value, names):
        lines = [
            f"{quoted(key)} = {inline(each)}" for key, each in value.items() if not isinstance(each, dict)
        ]
        for key, each in value.items():
            if isinstance(each, dict):
                lines += ["[" + ".".join(map(quoted, (*names, key))) + "]", *table(each, (*names, key))]
        return lines

    def quoted(value):
        return json.dumps(value, ensure_ascii=False)

    return "\n".join(table(tree, ()))
