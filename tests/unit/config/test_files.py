import json

import pytest

from meshlib.config import Config, load
from meshlib.config.files import LARGEST, read
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
        "text", ["listeners: []", "clusters: []\nroutes: []", "static_resources: {}\nnode: {}"]
    )
    def test_is_a_services_file_by_itself(self, tmp_path, text):
        path = write(tmp_path, "envoy.yaml", text)
        config = load(path)
        assert config.services_file == str(path)
        assert config.source_of("services_file") == str(path)

    def test_a_stray_key_beside_ours_is_an_unknown_key(self, tmp_path):
        text = problem(write(tmp_path, "a.toml", "endpoints = []\n[services.a]\ntimeout = 1"))
        assert "endpoints: unknown key" in text


def test_read_gives_the_raw_table(tmp_path):
    assert read(write(tmp_path, "a.toml", "a.b = 1")) == {"a": {"b": 1}}
