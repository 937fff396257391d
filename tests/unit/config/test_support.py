import pytest

from meshlib.config import Config, doubts, unsupported


@pytest.mark.parametrize(
    ("mapping", "key"),
    [
        ({"xds": {"api": "v2"}}, "xds.api"),
    ],
)
def test_what_comes_later_says_so(mapping, key):
    (line,) = unsupported(Config.from_mapping(mapping, origin="mesh.toml"))
    assert line.startswith(f"mesh.toml: {key}: ")
    assert line.endswith("is not yet supported")


@pytest.mark.parametrize(
    "mapping",
    [
        {},
        {"xds": {"server": "a:1", "protocol": "sotw", "api": "v3", "view": "target"}},
        {"xds": {"protocol": "files", "path": "d"}},
        {"xds": {"server": "http://a:1", "protocol": "rest", "refresh": 5}},
        {"xds": {"server": "a:1", "last_good": "f"}},
        {"xds": {"server": "a:1", "protocol": "delta"}},
        {"sidecar": {"mode": "off"}},
        {"sidecar": {"mode": "auto", "fallback": "never", "start_window": 3}},
        {"sidecar": {"mode": "require"}},
        {"sidecar": {"mode": "istio", "address": "127.0.0.1:15001"}},
        {"adoption": {"default": "on", "reviews": "on"}},
        {"adoption": {"default": "25%", "reviews.svc:80": "observe", "key": "x-user", "kill_switch": "f"}},
    ],
)
def test_what_is_here(mapping):
    assert unsupported(Config.from_mapping(mapping)) == ()


def test_one_made_by_hand_has_lines_too():
    from meshlib.config import XdsConfig

    assert unsupported(Config(xds=XdsConfig(api="v2"))) != ()


class TestDoubts:
    def test_a_last_good_state_of_nobody(self):
        (line,) = doubts(Config.from_mapping({"xds": {"last_good": "f"}}))
        assert line == "argument: xds.last_good: has nothing to keep: there is no control plane"
        assert doubts(Config.from_mapping({"xds": {"server": "a:1", "last_good": "f"}})) == ()

    def test_a_service_with_nobody_to_call(self):
        (line,) = doubts(Config.from_mapping({"services": {"a": {"timeout": 1}}}))
        assert line.startswith("argument: services.a: has nobody to call")

    def test_a_split_over_what_no_service_is(self):
        mapping = {"services": {"a": {"endpoints": ["h:1"], "routes": [{"split": {"a": 1, "b": 1}}]}}}
        (line,) = doubts(Config.from_mapping(mapping))
        assert line == 'argument: services.a.routes[0]: goes to "b", which no service is'

    @pytest.mark.parametrize("elsewhere", [{"xds": {"server": "a:1"}}, {"services_file": "envoy.yaml"}])
    def test_a_target_may_come_from_elsewhere(self, elsewhere):
        mapping = {"services": {"a": {"endpoints": ["h:1"], "routes": [{"service": "b"}]}}, **elsewhere}
        assert doubts(Config.from_mapping(mapping)) == ()

    @pytest.mark.parametrize(
        "service",
        [
            {"dns": "a:1"},
            {"srv": "_a._b.c"},
            {"endpoints": ["h:1"]},
            {"routes": [{"response": {"status": 200}}, {"redirect": {"host": "b"}}]},
        ],
    )
    def test_none(self, service):
        assert doubts(Config.from_mapping({"services": {"a": service}})) == ()
