import pytest

from meshlib.config import Config, doubts


class TestDoubts:
    def test_a_last_good_state_of_nobody(self):
        (line,) = doubts(Config.from_mapping({"xds": {"last_good": "f"}}))
        assert line == "argument: xds.last_good: has nothing to keep: there is no control plane"
        assert doubts(Config.from_mapping({"xds": {"server": "a:1", "last_good": "f"}})) == ()

    def test_v2_without_an_agent_or_a_name(self):
        (line,) = doubts(Config.from_mapping({"xds": {"api": "v2"}}))
        assert line.startswith('argument: xds.api: "v2" has nobody to ask')
        asked = {"xds": {"api": "v2", "server": "a:1"}}
        (line,) = doubts(Config.from_mapping(asked))
        assert "node.cluster: is missing" in line
        assert doubts(Config.from_mapping({**asked, "node": {"cluster": "ns_p_me"}})) == ()

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
