"""Each wrong value: the key, what is allowed, and nothing else."""

import math

import pybreaker
import pytest

from meshlib.config import Config
from meshlib.errors import ConfigError


def problems(mapping):
    with pytest.raises(ConfigError) as caught:
        Config.from_mapping(mapping)
    assert str(caught.value) == "\n".join(caught.value.problems)
    return caught.value.problems


def service(**keys):
    return {"services": {"reviews": keys}}


def route(**keys):
    return service(routes=[keys])


class Mark:
    def __repr__(self):
        raise AssertionError("what a person wrote is never asked for its repr")


ONE = [
    # durations
    (service(timeout="2s"), "services.reviews.timeout", 'a number of seconds, 0 or more, not "2s"'),
    (service(timeout=-0.1), "services.reviews.timeout", "0 or more, not -0.1"),
    (service(timeout=math.nan), "services.reviews.timeout", "not nan"),
    (service(timeout=math.inf), "services.reviews.timeout", "not inf"),
    (service(timeout=True), "services.reviews.timeout", "not true"),
    (service(timeout=10**400), "services.reviews.timeout", "not a huge number"),
    (service(timeout=Mark()), "services.reviews.timeout", "not a Mark"),
    (
        service(retry={"per_try_timeout": 0}),
        "services.reviews.retry.per_try_timeout",
        "greater than 0, not 0",
    ),
    (service(retry={"backoff_base": 0}), "services.reviews.retry.backoff_base", "greater than 0"),
    (service(retry={"backoff_base": 2, "backoff_max": 1}), "services.reviews.retry.backoff_max", "less than"),
    (service(breaker={"open_for": 0}), "services.reviews.breaker.open_for", "greater than 0"),
    (service(outlier={"base_ejection": -1}), "services.reviews.outlier.base_ejection", "greater than 0"),
    (
        service(outlier={"failure_percentage": 0}),
        "services.reviews.outlier.failure_percentage",
        "a number from 1 to 100",
    ),
    (service(outlier={"success_rate": 1}), "services.reviews.outlier.success_rate", "true or false"),
    (service(outlier={"minimum_calls": 0}), "services.reviews.outlier.minimum_calls", "from 1"),
    (service(outlier={"max_ejection": 1}), "services.reviews.outlier.max_ejection", "base_ejection (30)"),
    ({"sidecar": {"start_window": -1}}, "sidecar.start_window", "0 or more"),
    ({"dns": {"max_ttl": 0}}, "dns.max_ttl", "greater than 0"),
    # numbers
    (service(retry={"budget": -0.1}), "services.reviews.retry.budget", "0 or more, not -0.1"),
    (service(retry={"budget": False}), "services.reviews.retry.budget", "not false"),
    (service(retry={"attempts": 0}), "services.reviews.retry.attempts", "1 or more, not 0"),
    (service(retry={"attempts": 2.0}), "services.reviews.retry.attempts", "whole number, 1 or more, not 2.0"),
    (service(retry={"attempts": True}), "services.reviews.retry.attempts", "not true"),
    (service(retry={"statuses": [42]}), "services.reviews.retry.statuses[0]", "from 100 to 599, not 42"),
    (
        service(outlier={"max_ejection_percent": 101}),
        "services.reviews.outlier.max_ejection_percent",
        "from 0 to 100",
    ),
    (
        service(outlier={"max_ejection_percent": -1}),
        "services.reviews.outlier.max_ejection_percent",
        "from 0 to 100",
    ),
    (
        service(outlier={"max_ejection_percent": math.nan}),
        "services.reviews.outlier.max_ejection_percent",
        "not nan",
    ),
    (service(outlier={"consecutive_5xx": -1}), "services.reviews.outlier.consecutive_5xx", "from 0"),
    (
        service(breaker={"consecutive_failures": -1}),
        "services.reviews.breaker.consecutive_failures",
        "0 or more",
    ),
    (service(breaker={"window": "0s"}), "services.reviews.breaker.window", 'seconds as "30s"'),
    (service(breaker={"window": 0}), "services.reviews.breaker.window", "1 to 1000000"),
    (service(breaker={"slow_rate": 0.5}), "services.reviews.breaker.slow_call", "is missing"),
    (
        service(breaker={"window": 5, "minimum": 6}),
        "services.reviews.breaker.minimum",
        "must not be more than window",
    ),
    (
        service(
            breaker={"scope": "endpoint", "storage": pybreaker.CircuitMemoryStorage(pybreaker.STATE_CLOSED)}
        ),
        "services.reviews.breaker.scope",
        "cannot stand beside",
    ),
    (
        service(breaker={"scope": "endpoint"}, endpoint_breaker={}),
        "services.reviews.endpoint_breaker",
        "cannot stand beside",
    ),
    (
        service(endpoint_breaker={"storage": pybreaker.CircuitMemoryStorage(pybreaker.STATE_CLOSED)}),
        "services.reviews.endpoint_breaker",
        "cannot have listeners or storage",
    ),
    (route(breaker={"scope": "endpoint"}), "services.reviews.routes[0].breaker", "it is of this route"),
    (route(limits={"max_requests": 0}), "services.reviews.routes[0].limits.max_requests", "from 1"),
    (
        route(response={"status": 200}, limits={"max_requests": 5}),
        "services.reviews.routes[0].limits",
        "answers by itself",
    ),
    (service(hash=[{"header": "x"}]), "services.reviews.hash", "is for balancer"),
    (service(balancer="maglev", hash=[{}]), "services.reviews.hash[0]", "must have one of"),
    (
        service(balancer="maglev", zone_aware={}),
        "services.reviews.zone_aware",
        "looks at no zones",
    ),
    (service(zone_aware={}), "services.reviews.zone_aware", "needs endpoints with a zone"),
    (service(aperture={"caller": 1}), "services.reviews.aperture.callers", "is missing"),
    (service(aperture={"callers": 3}), "services.reviews.aperture.caller", "is missing"),
    (service(aperture={"caller": 3, "callers": 3}), "services.reviews.aperture.caller", "less than callers"),
    (service(aperture={"size": 0}), "services.reviews.aperture.size", "1 or more"),
    (service(slow_start={"window": 0}), "services.reviews.slow_start.window", "greater than 0"),
    (service(limits={"max_requests": 0}), "services.reviews.limits.max_requests", "from 1"),
    (service(limits={"max_retries": 1.5}), "services.reviews.limits.max_retries", "whole number"),
    (route(match={"percent": 100.1}), "services.reviews.routes[0].match.percent", "from 0 to 100"),
    ({"seed": -1}, "seed", "whole number"),
    ({"dns": {"port": 0}}, "dns.port", "a port from 1 to 65535, not 0"),
    ({"dns": {"port": 65536}}, "dns.port", "65535"),
    ({"dns": {"port": "53"}}, "dns.port", 'not "53"'),
    # truth values
    ({"disabled": 1}, "disabled", "true or false, not 1"),
    ({"disabled": "true"}, "disabled", "true or false"),
    ({"admin": {"enabled": 0}}, "admin.enabled", "true or false"),
    # choices
    (
        {"unknown_hosts": "refused"},
        "unknown_hosts",
        'one of "direct", "refuse", not "refused"; did you mean "refuse"?',
    ),
    ({"failures": 5}, "failures", 'one of "raise", "respond", not 5'),
    ({"xds": {"protocol": "Delta"}}, "xds.protocol", 'did you mean "delta"?'),
    ({"xds": {"api": "v4"}}, "xds.api", '"v3", "v2"'),
    ({"xds": {"view": None}}, "xds.view", "not null"),
    ({"sidecar": {"mode": "isto"}}, "sidecar.mode", 'did you mean "istio"?'),
    ({"sidecar": {"fallback": "always"}}, "sidecar.fallback", '"when_allowed"'),
    (service(balancer="least-request"), "services.reviews.balancer", 'did you mean "least_request"?'),
    (
        service(retry={"on": ["gateway_error"]}),
        "services.reviews.retry.on[0]",
        'did you mean "gateway-error"?',
    ),
    (service(retry={"on": "5xx"}), "services.reviews.retry.on", "a list"),
    (service(retry={"on": []}), "services.reviews.retry.on", "1 or more"),
    (service(retry={"on": ["retriable-status-codes"]}), "services.reviews.retry.statuses", "is missing"),
    # addresses
    (service(endpoints=["10.0.0.1"]), "services.reviews.endpoints[0].address", "the port is missing"),
    (service(endpoints=["10.0.0.256:80"]), "services.reviews.endpoints[0].address", "10.0.0.256"),
    (service(endpoints=["10.0.0:80"]), "services.reviews.endpoints[0].address", "10.0.0"),
    (service(endpoints=["h:0"]), "services.reviews.endpoints[0].address", "1 to 65535"),
    (service(endpoints=["h:65536"]), "services.reviews.endpoints[0].address", "1 to 65535"),
    (service(endpoints=["h:" + "9" * 5000]), "services.reviews.endpoints[0].address", "1 to 65535"),
    (service(endpoints=["::1:80"]), "services.reviews.endpoints[0].address", "[::1]:80"),
    (service(endpoints=["[::g]:80"]), "services.reviews.endpoints[0].address", "::g"),
    (service(endpoints=["http://h:80"]), "services.reviews.endpoints[0].address", "no scheme"),
    (service(endpoints=["h h:80"]), "services.reviews.endpoints[0].address", "' '"),
    (service(endpoints=["h..i:80"]), "services.reviews.endpoints[0].address", "label"),
    (service(endpoints=["unix:"]), "services.reviews.endpoints[0].address", "path"),
    (service(endpoints=[":80"]), "services.reviews.endpoints[0].address", "host"),
    (service(endpoints=[80]), "services.reviews.endpoints[0]", 'a table or text (its "address"), not 80'),
    (service(endpoints=[{"weight": 1}]), "services.reviews.endpoints[0].address", "is missing"),
    (service(endpoints=[{"address": "h:1", "weight": 0}]), "services.reviews.endpoints[0].weight", "from 1"),
    (
        service(endpoints=[{"address": "h:1", "priority": 128}]),
        "services.reviews.endpoints[0].priority",
        "127",
    ),
    (service(endpoints="h:1"), "services.reviews.endpoints", "in [ ] even if it is one"),
    (service(dns="unix:/a"), "services.reviews.dns", "host:port"),
    (service(dns="n"), "services.reviews.dns", "port is missing"),
    (service(srv="_http._tcp name"), "services.reviews.srv", "SRV"),
    (service(endpoints=[], dns="n:1"), "services.reviews.dns", "cannot stand beside endpoints"),
    ({"xds": {"server": "https://istiod:15012"}}, "xds.server", "no scheme"),
    ({"xds": {"server": ["a:1", "https://b:1"]}}, "xds.server", "https://b:1 is for protocol"),
    ({"xds": {"server": ["a:1", "b"]}}, "xds.server[1]", "port"),
    ({"xds": {"server": []}}, "xds.server", "a list of them"),
    ({"xds": {"server": ["a:1", "b:1", "a:1"]}}, "xds.server", "a:1 more than once"),
    ({"xds": {"server": ["http://a:1", "http://b:1"], "protocol": "rest"}}, "xds.server", "must be one"),
    ({"xds": {"server": "a:1", "token": "t"}}, "xds.token", "needs tls"),
    ({"xds": {"bootstrap": "b.json", "token": "t"}}, "xds.token", "call_creds"),
    ({"xds": {"server": "a:1", "options": {"grpc.keepalive_time_ms": 1.5}}}, "xds.options", "whole number"),
    ({"xds": {"server": "a:1", "options": {"keepalive": 1}}}, "xds.options", '"grpc.keepalive_time_ms"'),
    ({"sidecar": {"address": "https://127.0.0.1:1"}}, "sidecar.address", "http://host:port"),
    ({"sidecar": {"address": "10.0.0.1:15001"}}, "sidecar.address", "10.0.0.1 is none of 127.0.0.1"),
    ({"sidecar": {"address": "http://sidecar:80"}}, "sidecar.address", "sidecar is none of 127.0.0.1"),
    ({"sidecar": {"address": "0.0.0.0:15001"}}, "sidecar.address", "plain text"),
    ({"sidecar": {"address": "http://unix:/run/a"}}, "sidecar.address", "a host and a port"),
    ({"sidecar": {"address": "127.0.0.1"}}, "sidecar.address", "the port is missing"),
    ({"sidecar": {"address": "127.0.0.1:0"}}, "sidecar.address", "1 to 65535"),
    ({"sidecar": {"address": "unix:"}}, "sidecar.address", "path"),
    ({"sidecar": {"address": 15001}}, "sidecar.address", "on loopback"),
    ({"dns": {"nameservers": ["resolver"]}}, "dns.nameservers[0]", "an IP address"),
    ({"bypass": ["a.*.b"]}, "bypass[0]", "'*'"),
    ({"bypass": "localhost"}, "bypass", "in [ ] even if it is one"),
    (
        {"services": {"http://reviews": {}}},
        'services."http://reviews"',
        "the key must be the name of a service",
    ),
    ({"services": {"": {}}}, 'services.""', "the key must be"),
    ({"services": {80: {}}}, "services.80", "the key must be"),
    ({"services": []}, "services", "a table"),
    # adoption
    ({"adoption": {"default": "25"}}, "adoption.default", '"0%" to "100%"'),
    ({"adoption": {"default": "101%"}}, "adoption.default", "percentage"),
    ({"adoption": {"default": "-1%"}}, "adoption.default", "percentage"),
    ({"adoption": {"default": "nan%"}}, "adoption.default", "percentage"),
    ({"adoption": {"default": 25}}, "adoption.default", "not 25"),
    ({"adoption": {"reviews": "of"}}, "adoption.reviews", "percentage"),
    ({"adoption": {"key": "x user"}}, "adoption.key", "header"),
    # routes
    (route(match={"prefix": "api"}), "services.reviews.routes[0].match.prefix", "begins with a /"),
    (route(match={"path": "/a?b"}), "services.reviews.routes[0].match.path", "no ?"),
    (
        route(match={"path_separated_prefix": "/a/"}),
        "services.reviews.routes[0].match.path_separated_prefix",
        "end",
    ),
    (route(match={"prefix": "/", "path": "/"}), "services.reviews.routes[0].match.path", "beside prefix"),
    (route(match={"regex": "("}), "services.reviews.routes[0].match.regex", "RE2"),
    (route(match={"regex": "(?=a)"}), "services.reviews.routes[0].match.regex", "RE2"),
    (route(match={"methods": ["G ET"]}), "services.reviews.routes[0].match.methods[0]", "method"),
    (
        route(match={"headers": {"x y": "a"}}),
        'services.reviews.routes[0].match.headers."x y"',
        "key must be the name",
    ),
    (
        route(match={"headers": {"x": {}}}),
        "services.reviews.routes[0].match.headers.x",
        "must have one of exact",
    ),
    (
        route(match={"headers": {"x": {"range": [2, 1]}}}),
        "services.reviews.routes[0].match.headers.x.range",
        "smaller",
    ),
    (
        route(match={"headers": {"x": {"range": [1]}}}),
        "services.reviews.routes[0].match.headers.x.range",
        "two",
    ),
    (
        route(match={"query": {"q": {"regex": "a", "ignore_case": True}}}),
        "services.reviews.routes[0].match.query.q.ignore_case",
        "(?i)",
    ),
    (route(split={"a": 0}), "services.reviews.routes[0].split", "sum is 1 to"),
    (route(split={"a": 2**31, "b": 2**31}), "services.reviews.routes[0].split", "sum is 1 to"),
    (route(split={"a": 1.5}), "services.reviews.routes[0].split.a", "weight"),
    (route(split={"a": 1}, service="b"), "services.reviews.routes[0].split", "cannot stand beside service"),
    (route(redirect={}), "services.reviews.routes[0].redirect", "must have one of scheme"),
    (
        route(redirect={"host": "h", "status": 300}),
        "services.reviews.routes[0].redirect.status",
        "301, 302, 303",
    ),
    (route(redirect={"port": 70000}), "services.reviews.routes[0].redirect.port", "65535"),
    (
        route(redirect={"path": "/a", "prefix": "/b"}),
        "services.reviews.routes[0].redirect.prefix",
        "beside path",
    ),
    (route(response={}), "services.reviews.routes[0].response.status", "is missing"),
    (route(response={"status": 600}), "services.reviews.routes[0].response.status", "from 200 to 599"),
    (route(response={"status": 200}, timeout=1), "services.reviews.routes[0].timeout", "answers by itself"),
    (route(rewrite={"regex": "a"}), "services.reviews.routes[0].rewrite.substitution", "go together"),
    (route(rewrite={"substitution": "a"}), "services.reviews.routes[0].rewrite.regex", "go together"),
    (
        route(request_headers={"set": {"Transfer-Encoding": "chunked"}}),
        "services.reviews.routes[0].request_headers.set.Transfer-Encoding",
        "it is for the connection to say",
    ),
    (
        route(request_headers={"set": {":path": "/"}}),
        'services.reviews.routes[0].request_headers.set.":path"',
        "key",
    ),
    (
        route(request_headers={"set": {"a": "b\r\nc: d"}}),
        "services.reviews.routes[0].request_headers.set.a",
        "control",
    ),
    (
        route(response_headers={"remove": ["Host"]}),
        "services.reviews.routes[0].response_headers.remove[0]",
        "edited",
    ),
    # text and tables
    ({"node": {"id": ""}}, "node.id", 'text, not ""'),
    ({"node": {"id": "a\nb"}}, "node.id", "control characters"),
    ({"node": {"id": "\ud800"}}, "node.id", "broken Unicode"),
    ({"node": {"id": b"a"}}, "node.id", "not a bytes"),
    ({"node": "me"}, "node", 'a table, not "me"'),
    ({"node": {"metadata": {"a": [1, {"b": math.nan}]}}}, "node.metadata.a[1].b", "finite"),
    ({"node": {"metadata": {"a": 10**400}}}, "node.metadata.a", "finite"),
    ({"node": {"metadata": {"a": {1, 2}}}}, "node.metadata.a", "what JSON can say, not a set"),
    ({"node": {"metadata": {"a": {1: 2}}}}, "node.metadata.a", "key must be text"),
    ({"services_file": ""}, "services_file", "a path"),
    # objects of Python
    (
        service(retry={"stop": 3}),
        "services.reviews.retry.stop",
        "a tenacity stop strategy (a callable), not 3",
    ),
    (
        service(breaker={"listeners": [object()]}),
        "services.reviews.breaker.listeners[0]",
        "a pybreaker listener",
    ),
    (service(breaker={"storage": "redis"}), "services.reviews.breaker.storage", "a pybreaker storage"),
]


@pytest.mark.parametrize(("mapping", "key", "words"), ONE)
def test_one_problem(mapping, key, words):
    found = problems(mapping)
    assert len(found) == 1
    assert found[0].startswith(f"argument: {key}: ")
    assert words in found[0]
    assert len(found[0]) < 600
    assert found[0].isprintable()


@pytest.mark.parametrize(
    ("mapping", "key", "near"),
    [
        ({"servces": {}}, "servces", "services"),
        ({"xds": {"sever": "a:1"}}, "xds.sever", "server"),
        (service(time_out=1), "services.reviews.time_out", "timeout"),
        (service(retry={"per-try-timeout": 1}), "services.reviews.retry.per-try-timeout", "per_try_timeout"),
        (
            route(match={"headers": {"x": {"sufix": "a"}}}),
            "services.reviews.routes[0].match.headers.x.sufix",
            "suffix",
        ),
        ({"sidecar": {"adress": "a:1"}}, "sidecar.adress", "address"),
    ],
)
def test_an_unknown_key_has_the_nearest_spelling_and_all_that_are_allowed(mapping, key, near):
    (found,) = problems(mapping)
    assert found.startswith(f'argument: {key}: unknown key; did you mean "{near}"? allowed: ')
    assert near in found.partition("allowed: ")[2].split(", ")


def test_an_unknown_key_that_is_near_to_nothing():
    (found,) = problems({"zzzz": 1})
    assert found.startswith("argument: zzzz: unknown key; allowed: admin, adoption, ")


def test_a_key_that_is_hostile_fits_a_line():
    found = problems({"node": {"x" * 100_000: 1, "a\nb": 2, "\ud800": 3}})
    assert len(found) == 3
    assert all(len(line) < 400 and line.isprintable() for line in found)


def test_all_at_once():
    mappings = [
        mapping for mapping, _, _ in ONE if "services" in mapping and list(mapping["services"]) == ["reviews"]
    ]
    merged = {
        "services": {f"s{index}": mapping["services"]["reviews"] for index, mapping in enumerate(mappings)}
    }
    assert len(problems(merged)) == len(mappings)


def test_metadata_that_never_ends():
    endless = {}
    endless["again"] = [endless]
    with pytest.raises(ConfigError, match=r"nested deeper|too deeply"):
        Config.from_mapping({"node": {"metadata": endless}})


EDGE = [
    (service(timeout=0), lambda c: c.services["reviews"].timeout, 0.0),
    (service(timeout=2), lambda c: c.services["reviews"].timeout, 2.0),
    (service(retry={"budget": 0}), lambda c: c.services["reviews"].retry.budget, 0.0),
    (
        service(outlier={"max_ejection_percent": 0}),
        lambda c: c.services["reviews"].outlier.max_ejection_percent,
        0,
    ),
    (
        service(outlier={"max_ejection_percent": 100}),
        lambda c: c.services["reviews"].outlier.max_ejection_percent,
        100,
    ),
    ({"dns": {"port": 65535}}, lambda c: c.dns.port, 65535),
    ({"dns": {"nameservers": ["::1", "10.0.0.1"]}}, lambda c: c.dns.nameservers, ("::1", "10.0.0.1")),
    ({"adoption": {"default": "12.5%"}}, lambda c: c.adoption.default, "12.5%"),
    ({"adoption": {"reviews:9080": "off"}}, lambda c: dict(c.adoption.services), {"reviews:9080": "off"}),
    (
        {"sidecar": {"address": "http://127.0.0.1:4140/"}},
        lambda c: c.sidecar.address,
        "http://127.0.0.1:4140",
    ),
    ({"sidecar": {"address": "[::1]:80"}}, lambda c: c.sidecar.address, "[::1]:80"),
    ({"sidecar": {"address": "localhost:80"}}, lambda c: c.sidecar.address, "localhost:80"),
    ({"sidecar": {"address": "127.1.2.3:80"}}, lambda c: c.sidecar.address, "127.1.2.3:80"),
    ({"sidecar": {"address": "unix:/run/envoy"}}, lambda c: c.sidecar.address, "unix:/run/envoy"),
    ({"services": {"*.Internal": {}}}, lambda c: list(c.services), ["*.internal"]),
    (route(rewrite="/v2"), lambda c: c.services["reviews"].routes[0].rewrite.prefix, "/v2"),
    (
        route(response={"status": 200, "body": "a\n"}),
        lambda c: c.services["reviews"].routes[0].response.body,
        "a\n",
    ),
    (
        route(match={"headers": {"X-A": ""}}),
        lambda c: c.services["reviews"].routes[0].match.headers["x-a"].exact,
        "",
    ),
    (service(timeout=None, retry=None), lambda c: c.services["reviews"].timeout, None),
]


@pytest.mark.parametrize(("mapping", "get", "value"), EDGE)
def test_what_is_at_the_edge_and_right(mapping, get, value):
    assert get(Config.from_mapping(mapping)) == value
