"""Which names of a certificate are accepted: a real Envoy's answer and ours, matcher by matcher."""

from __future__ import annotations

import http.client
from contextlib import closing
from pathlib import Path
from typing import Any

from cryptography import x509

from meshlib.core.sans import compile_sans
from meshlib.model.match import StringKind, StringMatch
from meshlib.model.tls import San, SanKind
from meshlib.runtime.tls import peer
from tests.e2e.oracle.envoy_process import EnvoyProcess, Ports
from tests.support.certificates import Authority
from tests.support.tls_server import TlsServer

UPN = "1.3.6.1.4.1.311.20.2.3"
CA = Authority("Mesh")
SERVER = CA.issue(
    "plain.example",
    "UPPER.example",
    "*.wild.example",
    "f*r.part.example",
    "xn--*.ace.example",
    "*.*.twice.example",
    "a.*.inner.example",
    "one",
    "*",
    "spiffe://td.example/ns/a/sa/b",
    "https://UPPER.example/Path",
    "Me@mail.example",
    "10.0.0.1",
    "2001:db8::1",
    "::ffff:10.0.0.2",
    x509.OtherName(x509.ObjectIdentifier(UPN), b"\x0c\x07me@here"),
    x509.OtherName(x509.ObjectIdentifier("1.2.3"), b"\x02\x02\x01\x00"),
)
DNS, URI, EMAIL, IP, OTHER = (
    SanKind.DNS,
    SanKind.URI,
    SanKind.EMAIL,
    SanKind.IP,
    SanKind.OTHER_NAME,
)
EXACT, PREFIX, SUFFIX, CONTAINS, REGEX = StringKind
TYPES = {DNS: "DNS", URI: "URI", EMAIL: "EMAIL", IP: "IP_ADDRESS", OTHER: "OTHER_NAME"}
WORDS = {EXACT: "exact", PREFIX: "prefix", SUFFIX: "suffix", CONTAINS: "contains"}


def san(
    kind: SanKind, value: str, how: StringKind = EXACT, oid: str = "", *, ignore_case: bool = False
) -> San:
    return San(kind, StringMatch(how, value, ignore_case), oid)


CASES = [
    *(
        san(DNS, value)
        for value in (
            *("plain.example", "PLAIN.example", "upper.example", "plain.example.org", "lain.example"),
            *(
                "a.wild.example",
                "A.WILD.example",
                "wild.example",
                "a.b.wild.example",
                "*.wild.example",
            ),
            *(
                "for.part.example",
                "fr.part.example",
                "foooor.part.example",
                "fo.part.example",
                "f.part.example",
            ),
            *(
                "xn--a.ace.example",
                "xn--*.ace.example",
                "a.b.twice.example",
                "*.*.twice.example",
                "a.x.inner.example",
            ),
            *("one", "ONE", "two", "two.example", "", "10.0.0.1", "spiffe://td.example/ns/a/sa/b"),
        )
    ),
    *(
        san(DNS, value, how)
        for how, value in (
            *(
                (PREFIX, "plain."),
                (PREFIX, "PLAIN."),
                (SUFFIX, ".example"),
                (SUFFIX, "wild.example"),
                (CONTAINS, "lain"),
            ),
            *(
                (REGEX, "plain\\.exam.*"),
                (REGEX, "plain"),
                (REGEX, "a\\.wild\\.example"),
                (REGEX, "\\*\\.wild\\.example"),
            ),
        )
    ),
    san(DNS, "PLAIN.", PREFIX, ignore_case=True),
    *(
        san(URI, value)
        for value in (
            "spiffe://td.example/ns/a/sa/b",
            "spiffe://TD.example/ns/a/sa/b",
            "https://upper.example/Path",
            "",
        )
    ),
    san(URI, "spiffe://td.example/ns/a/", PREFIX),
    san(URI, "spiffe://td.example/ns/b/", PREFIX),
    san(URI, "/SA/B", SUFFIX, ignore_case=True),
    san(URI, "SPIFFE://td.example/ns/a/sa/b", ignore_case=True),
    san(URI, "spiffe://[a-z.]+/ns/a/sa/b", REGEX),
    san(URI, "ns/a", REGEX),
    *(san(EMAIL, value) for value in ("Me@mail.example", "me@mail.example", "Me@MAIL.example")),
    san(EMAIL, "me@MAIL.example", ignore_case=True),
    san(EMAIL, "@mail.example", SUFFIX),
    *(
        san(IP, value)
        for value in ("10.0.0.1", "10.0.0.2", "2001:db8::1", "::ffff:10.0.0.2", "plain.example")
    ),
    san(IP, "10.0.", PREFIX),
    san(IP, "2001:db8::", PREFIX),
    san(IP, "2001:db8:0", PREFIX),
    san(IP, "::ffff:10.0.0.2", PREFIX),
    san(OTHER, "me@here", oid=UPN),
    san(OTHER, "ME@HERE", oid=UPN),
    san(OTHER, "me@here", oid="1.2.3"),
    san(OTHER, "me@", PREFIX, UPN),
    san(OTHER, "256", oid="1.2.3"),
    san(OTHER, "256", oid="1.2.4"),
]
#: Envoy compares addresses as text, and we as addresses; what is more than Envoy's is written in differences.md.
SPELLED = [san(IP, "2001:DB8::1"), san(IP, "2001:db8:0:0:0:0:0:1")]
#: A name may end in the root's dot, which Envoy takes for a part of it.
DOTTED = [san(DNS, "plain.example.")]
#: A label has a character.
NO_LABEL = san(DNS, ".wild.example")


def matcher(wanted: San) -> dict[str, Any]:
    match: dict[str, Any] = {"ignore_case": True} if wanted.match.ignore_case else {}
    if wanted.match.kind is REGEX:
        match["safe_regex"] = {"regex": wanted.match.value}
    else:
        match[WORDS[wanted.match.kind]] = wanted.match.value
    found = {"san_type": TYPES[wanted.kind], "matcher": match}
    return {**found, "oid": wanted.oid} if wanted.oid else found


def bootstrap(port: int, server: str, cases: list[San]) -> dict[str, Any]:
    host, _, number = server.rpartition(":")
    address = {"socket_address": {"address": host, "port_value": int(number)}}
    kind = "type.googleapis.com/envoy.extensions."
    clusters, routes = [], []
    for index, wanted in enumerate(cases):
        validation = {
            "trusted_ca": {"inline_string": CA.pem.decode()},
            "match_typed_subject_alt_names": [matcher(wanted)],
        }
        tls = {
            "@type": f"{kind}transport_sockets.tls.v3.UpstreamTlsContext",
            "common_tls_context": {"validation_context": validation},
        }
        clusters.append(
            {
                "name": str(index),
                "type": "STATIC",
                "transport_socket": {"name": "tls", "typed_config": tls},
                "load_assignment": {
                    "cluster_name": str(index),
                    "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
                },
            }
        )
        routes.append({"match": {"path": f"/{index}"}, "route": {"cluster": str(index)}})
    manager = {
        "@type": f"{kind}filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "s",
        "route_config": {"name": "r", "virtual_hosts": [{"name": "v", "domains": ["*"], "routes": routes}]},
        "http_filters": [
            {"name": "router", "typed_config": {"@type": f"{kind}filters.http.router.v3.Router"}}
        ],
    }
    listener = {
        "name": "l",
        "enable_reuse_port": True,
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }
    admin = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}}
    return {"admin": admin, "static_resources": {"listeners": [listener], "clusters": clusters}}


def ours(wanted: San) -> bool:
    der = SERVER.der
    names = [*NAMES, *peer.other_names(der)]
    return compile_sans([wanted])(names)


NAMES = peer.names(
    {
        "subjectAltName": [
            (kind, str(name.value))
            for name in SERVER.certificate.extensions.get_extension_for_class(
                x509.SubjectAlternativeName
            ).value
            for of, kind in (
                (x509.DNSName, "DNS"),
                (x509.UniformResourceIdentifier, "URI"),
                (x509.RFC822Name, "email"),
                (x509.IPAddress, "IP Address"),
            )
            if isinstance(name, of)
        ]
    }
)


def test_the_same_names_are_accepted(tmp_path: Path) -> None:  # TL-04
    cases = [*CASES, *SPELLED, *DOTTED, NO_LABEL]
    ports = Ports(1)
    with (
        TlsServer(SERVER.server()) as server,
        EnvoyProcess(bootstrap(ports.numbers[0], server.address, cases), tmp_path) as envoy,
    ):
        envoy.wait_for_listeners(1)
        theirs = []
        with closing(http.client.HTTPConnection("127.0.0.1", ports.numbers[0], timeout=20)) as connection:
            for index in range(len(cases)):
                connection.request("GET", f"/{index}")
                answer = connection.getresponse()
                answer.read()
                assert answer.status in (200, 503)
                theirs.append(answer.status == 200)
    ports.close()
    found = dict(zip(cases, theirs, strict=True))
    assert {wanted: found[wanted] for wanted in CASES} == {wanted: ours(wanted) for wanted in CASES}
    assert sum(theirs) > 20
    for wanted in SPELLED + DOTTED:
        assert (ours(wanted), found[wanted]) == (True, False)
    assert (ours(NO_LABEL), found[NO_LABEL]) == (False, True)
