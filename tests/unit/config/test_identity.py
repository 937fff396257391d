"""Who we are to other workloads, and whom a service of the file must be: what may be said, and from where it comes."""

import pytest

from meshlib.config import Config, doubts, from_settings, reload, resolve
from meshlib.config.identity import IdentityConfig, ServiceTlsConfig
from meshlib.errors import ConfigError

SOCKET = "SPIFFE_ENDPOINT_SOCKET"


def of(**identity):
    return Config.from_mapping({"identity": identity}).identity


class TestProvider:
    def test_nothing_is_told_where_nothing_is_written(self):
        config = Config.from_mapping({})
        assert config.identity == IdentityConfig()
        assert (config.identity.chosen, config.identity_told) == (None, False)
        assert (config.identity.certifies, config.identity.trusts) == (False, False)

    @pytest.mark.parametrize(
        ("keys", "chosen", "certifies", "trusts"),
        [
            ({"cert": "c", "key": "k"}, "files", True, False),
            ({"ca": "r"}, "files", False, True),
            ({"cert": "c", "key": "k", "ca": "r"}, "files", True, True),
            ({"provider": "istio"}, "istio", True, True),
            ({"server": "istiod:15012", "ca": "r"}, "istio", True, True),
            ({"token": "t"}, "istio", True, True),
            ({"socket": "unix:/agent.sock"}, "spiffe", True, True),
            ({"provider": "spiffe"}, "spiffe", True, True),
            ({"verify": "always"}, None, False, False),
        ],
    )
    def test_it_is_whose_the_keys_are(self, keys, chosen, certifies, trusts):
        config = Config.from_mapping({"identity": keys})
        assert config.identity.chosen == chosen
        assert config.identity_told is (chosen is not None)
        assert (config.identity.certifies, config.identity.trusts) == (certifies, trusts)

    @pytest.mark.parametrize(
        ("keys", "key", "words"),
        [
            ({"provider": "vault"}, "identity.provider", 'one of "files", "istio", "spiffe"'),
            ({"cert": "c"}, "identity.key", "is missing: cert and key go together"),
            ({"key": "k", "ca": "r"}, "identity.cert", "is missing: cert and key go together"),
            ({"provider": "files"}, "identity.cert", 'provider = "files" needs cert and key, or ca'),
            ({"server": "istiod:15012"}, "identity.ca", "who answers at server must be known"),
            ({"server": "https://istiod"}, "identity.server", "an address has no scheme"),
            ({"server": "unix:/i", "ca": "r"}, "identity.server", "host:port"),
            ({"provider": "istio", "cert": "c", "key": "k"}, "identity.cert", 'is for provider = "files"'),
            ({"provider": "spiffe", "ca": "r"}, "identity.ca", '"files" or "istio", and it is "spiffe"'),
            ({"cert": "c", "key": "k", "token": "t"}, "identity.token", 'is for provider = "istio"'),
            ({"socket": "tcp://10.0.0.1:8000"}, "identity.socket", "10.0.0.1 is no address of loopback"),
            ({"socket": "localhost:8000"}, "identity.socket", "localhost is no address of loopback"),
            ({"socket": "/run/agent.sock"}, "identity.socket", "unix:/path"),
            ({"socket": "unix:/" + "a" * 107}, "identity.socket", "at most 107 bytes, this one 108"),
            ({"verify": "allways"}, "identity.verify", 'did you mean "always"?'),
            ({"cret": "c"}, "identity.cret", 'did you mean "cert"?'),
        ],
    )
    def test_what_is_wrong_is_told_with_its_key(self, keys, key, words):
        with pytest.raises(ConfigError) as refused:
            of(**keys)
        line = next(line for line in refused.value.problems if f": {key}: " in line)
        assert words in line

    @pytest.mark.parametrize(
        ("text", "means"),
        [
            ("unix:/run/a.sock", "unix:/run/a.sock"),
            ("unix:///run/a.sock", "unix:/run/a.sock"),
            ("tcp://127.0.0.1:8000", "127.0.0.1:8000"),
            ("tcp://[::1]:8000", "[::1]:8000"),
        ],
    )
    def test_the_workload_api_is_spelled_as_spiffe_does(self, text, means):
        assert of(socket=text).socket == means

    def test_paths_are_relative_to_the_file(self, tmp_path):
        path = tmp_path / "mesh.toml"
        path.write_text(
            '[identity]\ncert = "me.pem"\nkey = "me.key"\n'
            '[services.a]\nendpoints = ["a:1"]\ntls = { ca = "ca.pem" }\ntoken = "t"\n'
        )
        config = Config.from_file(path)
        assert config.identity.cert == str(tmp_path / "me.pem")
        assert config.services["a"].tls.ca == str(tmp_path / "ca.pem")
        assert config.services["a"].token == str(tmp_path / "t")


class TestSocketOfTheEnvironment:
    def test_it_is_where_a_workload_api_is_found(self):
        config = resolve(None, {SOCKET: "unix:///run/a.sock"})
        assert config.identity.socket == "unix:/run/a.sock"
        assert config.identity.chosen == "spiffe"
        assert not config.identity_told
        assert config.source_of("identity.socket") == SOCKET

    def test_it_stays_found_when_the_file_is_read_again(self, tmp_path):
        path = tmp_path / "mesh.toml"
        path.write_text('[identity]\nverify = "always"\n')
        config = reload(resolve(path, {SOCKET: "unix:///run/a.sock"}))
        assert (config.identity.socket, config.identity_told) == ("unix:/run/a.sock", False)

    def test_it_is_told_where_the_provider_is(self):
        config = resolve({"identity": {"provider": "spiffe"}}, {SOCKET: "unix:///run/a.sock"})
        assert (config.identity.socket, config.identity_told) == ("unix:/run/a.sock", True)

    def test_a_frameworks_settings_tell_it(self):
        made = from_settings({"identity": {"provider": "istio"}}, "settings.MESHLIB")
        config = resolve(made, {SOCKET: "unix:///run/a.sock"})
        assert (config.identity.chosen, config.identity.socket, config.identity_told) == ("istio", None, True)
        with pytest.raises(ConfigError, match=r"settings.MESHLIB: identity.key: is missing"):
            from_settings({"identity": {"cert": "c"}}, "settings.MESHLIB")

    def test_what_is_written_wins(self):
        config = resolve({"identity": {"socket": "unix:/b.sock"}}, {SOCKET: "unix:///run/a.sock"})
        assert (config.identity.socket, config.identity_told) == ("unix:/b.sock", True)

    def test_it_is_nothing_to_another_provider(self):
        config = resolve({"identity": {"ca": "r"}}, {SOCKET: "unix:///run/a.sock"})
        assert (config.identity.socket, config.identity.chosen) == (None, "files")

    def test_it_is_nothing_to_a_configuration_that_is_whole(self, monkeypatch):
        monkeypatch.setenv(SOCKET, "unix:///run/a.sock")
        assert resolve(Config.from_mapping({})).identity.socket is None

    def test_one_that_is_none_is_warned_of_and_not_used(self, caplog):
        assert resolve(None, {SOCKET: "/run/only-a-path.sock"}).identity.socket is None
        assert f"{SOCKET}: identity.socket: must be" in caplog.text
        with pytest.raises(ConfigError, match=f"{SOCKET}: identity.socket: must be"):
            resolve({"identity": {"provider": "spiffe"}}, {SOCKET: "/run/only-a-path.sock"})

    def test_nobody_that_is_told_nowhere_is_doubted(self):
        (line,) = doubts(Config.from_mapping({"identity": {"provider": "spiffe"}}))
        assert line == (
            f'argument: identity.provider: "spiffe" lacks identity.socket, and {SOCKET} is not set: nobody gives an identity'
        )


class TestService:
    def test_an_empty_table_is_tls(self):
        config = Config.from_mapping({"services": {"a": {"endpoints": ["a:1"], "tls": {}}}})
        assert config.services["a"].tls == ServiceTlsConfig()

    def test_without_it_there_is_none(self):
        assert Config.from_mapping({"services": {"a": {"endpoints": ["a:1"]}}}).services["a"].tls is None

    @pytest.mark.parametrize(
        ("service", "key", "words"),
        [
            ({"tls": {"cert": "c"}}, "tls.key", "is missing: cert and key go together"),
            ({"tls": {"sni": "10.0.0.1"}}, "tls.sni", "an IP address is no name"),
            ({"tls": {"sni": "::1"}}, "tls.sni", "an IP address is no name"),
            ({"tls": {"sans": "a"}}, "tls.sans", "(in [ ] even if it is one)"),
            ({"tls": {"sans": ["bücher.example"]}}, "tls.sans[0]", "another alphabet than ASCII"),
            ({"tls": {"san": ["a"]}}, "tls.san", 'did you mean "sans"?'),
            ({"tls": True}, "tls", "must be a table"),
            ({"token": "t"}, "token", "needs tls: without it everybody on the way could read it"),
        ],
    )
    def test_what_is_wrong_is_told_with_its_key(self, service, key, words):
        with pytest.raises(ConfigError) as refused:
            Config.from_mapping({"services": {"a": {"endpoints": ["a:1"], **service}}})
        line = next(line for line in refused.value.problems if f": services.a.{key}: " in line)
        assert words in line

    def test_tls_of_routes_alone_is_doubted(self):
        services = {
            "a": {"tls": {}, "routes": [{"service": "b"}]},
            "b": {"endpoints": ["b:1"], "tls": {}},
        }
        (line,) = doubts(Config.from_mapping({"services": services}))
        assert line == "argument: services.a.tls: is for endpoints, dns or srv, and it has routes alone"
