"""What stands in files and in the tables of the system: configurations, tokens, certificates, names of hosts, sockets, variables."""

from __future__ import annotations

import json
from contextlib import suppress

from meshlib.cli.doctor.certificates import look_at, validity
from meshlib.config import DnsConfig, load
from meshlib.config.files import read
from meshlib.errors import ConfigError
from meshlib.model.hosts import is_loopback
from meshlib.runtime.tokens import read_token
from meshlib.sidecar.collect import _istio_bootstrap
from meshlib.sidecar.environment import named, relevant
from meshlib.sidecar.proc import interfaces, listening, unix_listening
from meshlib.sidecar.sock_diag import Failed
from meshlib.sidecar.sock_diag import listening as told_by_kernel
from meshlib.sources.dns_query import Resolver
from meshlib.xds import envoy_file
from meshlib.xds.decode.pem import certificate_problem, key_problem
from tests.fuzz.target import BETWEEN, Target, file_of, pieces

__all__ = ["TARGETS"]

_SUFFIXES = (".toml", ".json", ".yaml")
#: Characters of a line that tells what is wrong.
_LONGEST = 4096


def _config(data: bytes) -> None:
    """The first byte says of what kind the file is. There is a configuration, or what is wrong is told with the file's name."""
    path = file_of(data[1:], f"c{_SUFFIXES[data[0] % 3]}" if data else "c.toml")
    try:
        load(path)
    except ConfigError as error:
        told = (*error.problems, str(error))
        assert all(str(path) in line and len(line) < _LONGEST for line in error.problems or told), told
    with suppress(ConfigError):
        document = read(path)
        if document.envoy:
            for line in document.told(envoy_file.read(document.value, "f").problems):
                assert len(line) < _LONGEST, line


def _hosts(data: bytes) -> None:
    """A file of hosts that is not one names nobody."""
    resolver = Resolver(DnsConfig(), str(file_of(data, "hosts")))
    for name in ("a", "localhost"):
        for address in resolver._from_hosts(name) or ():
            assert isinstance(address, str)


def _tokens(data: bytes) -> None:
    """A token is one word of ASCII; what is none is told without a byte of it."""
    try:
        token = read_token(str(file_of(data, "token")))
    except OSError as error:
        assert data[:40] not in str(error).encode() or len(data) < 8
        return
    assert token.isascii()
    assert token.isprintable()
    assert " " not in token


def _variables(data: bytes) -> None:
    """Variables name what listens on loopback, and nobody else."""
    parts = [each.decode("utf-8", "replace") for each in pieces(data, 2)]
    environ = dict(zip(parts[::2], parts[1::2], strict=False))
    for told in named(relevant(environ)):
        addresses = (*told.addresses, *told.upstreams.values(), *told.others.values())
        assert all(is_loopback(address.host) for address in addresses), addresses
        assert all(0 < address.port < 65536 for address in addresses), addresses


def _bootstrap_of_agent(data: bytes) -> None:
    path = str(file_of(data, "boot.json"))
    assert _istio_bootstrap(path) in ("", path)


def _tables(data: bytes) -> None:
    """The kernel's tables; a container may have mounted anything in their place."""
    for order in ("little", "big"):
        for one in listening(data, order):
            assert 0 <= one.port < 65536
    assert all(isinstance(path, str) for path in unix_listening(data))
    assert all(isinstance(name, str) for name in interfaces(data))
    with suppress(Failed):
        for one in told_by_kernel(data):
            assert one is None or 0 <= one.port < 65536


def _certificates(data: bytes) -> None:
    """What is looked at before a handshake is; no word repeats a byte of it."""
    seen = look_at(str(file_of(data, "x.pem")), "ca")
    assert seen.problem or seen.certificates
    with suppress(ValueError):
        validity(data)
    words = (certificate_problem(data), key_problem(data, password=False), key_problem(data, password=True))
    assert all(len(each) < 80 for each in words), words


_PEM = b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"
_KEY = b"-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n"
_DER = bytes.fromhex(
    "301f301d020101300030003013170d3230303130313030303030305a170d3330303130313030303030305a"
)[:34]
_ENVOY = {
    "static_resources": {
        "clusters": [{"name": "c", "type": "STATIC", "load_assignment": {"cluster_name": "c"}}],
        "listeners": [],
    }
}
_TCP = (
    b"  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
    b"   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1337        0 1 1 0 100 0 0 10 0\n"
)
_UNIX = (
    b"Num RefCount Protocol Flags Type St Inode Path\n0: 00000002 00000000 00010000 0001 01 22 /run/x.sock\n"
)

TARGETS = (
    Target(
        "config",
        (
            "config/files.py", "config/layers.py", "config/marks.py", "config/kinds.py", "config/section.py",
            "config/values.py", "config/source.py", "config/routes.py", "config/services.py", "config/policies.py", "config/words.py",
            "xds/envoy_file.py",
        ), _config,
        (
            b'\0[services."a:80"]\nendpoints = ["10.0.0.1:80"]\ntimeout = 3\n[services."a:80".retry]\nattempts = 2\n',
            b'\0[xds]\nserver = "x:1"\n[node]\nid = "n"\n[[services."a".routes]]\nmatch = {path = "/x"}\n',
            b'\x01{"services": {"a:80": {"endpoints": ["10.0.0.1:80"], "routes": [{"match": {"prefix": "/"}, "rewrite": {"prefix": "/b"}}]}}}',
            b"\x01" + json.dumps(_ENVOY).encode(), b"\x02services:\n  a:80:\n    endpoints: [10.0.0.1:80]\n", b"\x02" + json.dumps(_ENVOY).encode(),
            b"\x02a: !!python/object:os.system x\n", b'\0[services."a:80".guards]\nrate = 5\n',
        ),
        (
            b"[services.", b"endpoints", b"timeout", b"retry", b"routes", b"match", b"prefix", b"regex", b"xds", b"server", b"node", b"identity",
            b"tls", b"token", b'"', b"'", b"\n", b"{", b"}", b"[", b"]", b"=", b": ", b"- ", b"!!", b"<<: ", b"1e999", b"nan", b"null",
            b"\xff", b"[" * 300, b"static_resources", b"clusters",
        ),
        share=2,
    ),
    Target(
        "hosts_file", ("sources/dns_query.py",), _hosts, (b"127.0.0.1 a localhost # x\n::1 a\n", b"\xff\xfe a\n", b"1.2.3 a\n"),
        (b"127.0.0.1", b"::1", b"localhost", b"#", b"\n", b"\t", b"\0", b"%eth0"), share=1,
    ),
    Target("token", ("runtime/tokens.py",), _tokens, (b"abc\n", b" a b", b"x" * 20000, b"\xff" * 9, b""), (b"\r\n", b" ", b"\0"), share=1),
    Target(
        "variables", ("sidecar/environment.py",), _variables,
        (
            BETWEEN.join((b"TENANT_ID", b"t", b"SERVICE_ID", b"s", b"SERVICE_NAME", b"n", b"DEPEND_SERVICE", b"a:1,b:2", b"A80_HOST", b"127.0.0.1", b"A80_PORT", b"80")),
            BETWEEN.join((b"X_CONNECT_SERVICE_HOST", b"127.0.0.1", b"X_CONNECT_SERVICE_PORT", b"1234")),
            BETWEEN.join((b"DAPR_HTTP_PORT", b"3500", b"DAPR_GRPC_PORT", b"x")),
        ),
        (b"_HOST", b"_PORT", b"127.0.0.1", b"::1", b"10.0.0.1", b"65536", b"0", b",", b":", b"DEPEND_SERVICE", BETWEEN),
    ),
    Target(
        "bootstrap_of_agent", ("sidecar/collect.py",), _bootstrap_of_agent,
        (b'{"xds_servers":[{"server_uri":"unix:///etc/istio/proxy/XDS"}]}', b'{"xds_servers":[]}', b'{"xds_servers":{"0":1}}', b"[" * 2000),
        (b'"', b"{", b"}", b"[", b"]", b"0", b"null", b"unix:", b"/etc/istio/proxy/"), share=1,
    ),
    Target(
        "tables", ("sidecar/proc.py", "sidecar/sock_diag.py"), _tables,
        (
            _TCP, _TCP.replace(b"0100007F", b"0000000000000000FFFF00000100007F"), _UNIX, b"a\nb\n lo: 1 2\neth0: 3\n",
            bytes.fromhex("58000000140002000100000000000000020a00001f9000007f000001" + "00" * 64), bytes.fromhex("14000000030002000100000000000000"),
        ),
        (b" 0A ", b"0100007F:1F90", b"\n", b"00010000", b"0001", b"/x", b"\x14\0", b"\x58\0\0\0", b"\xff\xff\xff\xff", b"\x03\0", b"\x02\0"),
    ),
    Target(
        "certificates", ("cli/doctor/certificates.py", "xds/decode/pem.py"), _certificates, (_PEM, _KEY, _PEM + _KEY, _DER, _PEM[:40]),
        (
            b"-----BEGIN ", b"-----END ", b"CERTIFICATE-----", b"ENCRYPTED PRIVATE KEY-----", b"MAA=", b"\n", b"\x30\x82", b"\x30\x84\xff\xff\xff\xff",
            b"\x17\x0d", b"\x18\x0f", b"\xa0\x03", b"\x02\x01\x01", b"991301000000Z",
        ),
        share=2,
    ),
)  # fmt: skip
