# ruff: noqa: RUF009  (a field is made by a function that knows what it allows)
"""What the configuration says of TLS between workloads: who this process is, and whom a service of the file must be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from meshlib.config.hosts import HostPort, LocalAddress, check_host
from meshlib.config.kinds import Choice, Filename, ListOf, Place, Text
from meshlib.config.section import Section, both, setting
from meshlib.model.address import Address

__all__ = ["SOCKET", "TOKEN", "IdentityConfig", "ServiceTlsConfig", "WorkloadSocket"]

SOCKET = "SPIFFE_ENDPOINT_SOCKET"
"""The variable that tells where SPIFFE's Workload API is."""

TOKEN = "/var/run/secrets/tokens/istio-token"
"""Where Istio's injection, or docs/tasks/identity.md, puts the token that istiod takes."""

#: Bytes of the path of a socket that can be connected to: Linux's sun_path, without its end.
_LONGEST_PATH = 107

#: Whose keys are whose; ``ca`` is of two.
_KEYS = {"files": ("cert", "key", "ca"), "istio": ("server", "token", "ca"), "spiffe": ("socket",)}


class WorkloadSocket(LocalAddress):
    """Where SPIFFE's Workload API is: as an address, or as the URI that ``SPIFFE_ENDPOINT_SOCKET`` is."""

    def __init__(self) -> None:
        super().__init__("keys would come in plain text", _LONGEST_PATH)

    def parse(self, raw: object, at: Place) -> str:
        return super().parse(raw.removeprefix("tcp://") if isinstance(raw, str) else raw, at)


@dataclass(frozen=True, slots=True)
class IdentityConfig(Section):
    """Who we are to other workloads, where TLS is demanded."""

    provider: str | None = setting(
        Choice("files", "istio", "spiffe"),
        "Who gives it: files, Istio's CA, SPIFFE's Workload API. Default: whose the other keys are; without any, it is "
        "found: the bootstrap's certificate_providers, SPIFFE_ENDPOINT_SOCKET, Istio's token beside its control plane.",
        None,
    )
    server: Address | None = setting(
        HostPort(unix=False),
        "istio: where certificates are asked for. Default: the control plane, or istiod.istio-system.svc:15012.",
        None,
    )
    token: str | None = setting(
        Filename(),
        f"istio: a file with the token that says who we are, read at each use. Default: {TOKEN}.",
        None,
    )
    socket: str | None = setting(
        WorkloadSocket(), "spiffe: where the Workload API is. Default: SPIFFE_ENDPOINT_SOCKET.", None
    )
    cert: str | None = setting(
        Filename(), "files: PEM of our certificate chain. All three are read again when they change.", None
    )
    key: str | None = setting(Filename(), "files: PEM of its private key.", None)
    ca: str | None = setting(
        Filename(),
        "files: PEM of the roots that other workloads are trusted by; istio: of those of its CA, by default "
        "/var/run/secrets/istio/root-cert.pem.",
        None,
    )
    verify: str = setting(
        Choice("when_told", "always"),
        "What a context of the control plane that verifies nobody means: just that, as in Envoy, or that the system's "
        "roots and the name decide.",
        "when_told",
    )

    def check(self) -> Iterator[tuple[str, str]]:
        who = self.chosen
        for name in dict.fromkeys(name for names in _KEYS.values() for name in names):
            owners = [each for each, names in _KEYS.items() if name in names]
            if getattr(self, name) is not None and who not in owners:
                told = " or ".join(f'"{each}"' for each in owners)
                yield name, f'is for provider = {told}, and it is "{who}"'
        yield from getattr(self, f"_check_{who}", tuple)()

    def _check_files(self) -> Iterator[tuple[str, str]]:
        yield from both(self, "cert", "key")
        if self.cert is None and self.key is None and self.ca is None:
            yield "cert", 'is missing; provider = "files" needs cert and key, or ca, or all three'

    def _check_istio(self) -> Iterator[tuple[str, str]]:
        if self.server is not None and self.ca is None:
            yield "ca", "is missing: who answers at server must be known before it is sent the token"

    @property
    def chosen(self) -> str | None:
        """The provider that is told; None: one is looked for."""
        if self.provider is not None:
            return self.provider
        given = {name for names in _KEYS.values() for name in names if getattr(self, name) is not None}
        return next(
            (who for who, names in _KEYS.items() if given.intersection(names[:2])), "files" if given else None
        )

    @property
    def certifies(self) -> bool:
        """Whether who is told of has a certificate, or may have one."""
        return self.chosen is not None and (self.chosen != "files" or self.cert is not None)

    @property
    def trusts(self) -> bool:
        """Whether who is told of has roots, or may have some."""
        return self.chosen is not None and (self.chosen != "files" or self.ca is not None)


def _san(text: str) -> str:
    if not text.isascii():
        raise ValueError("of another alphabet than ASCII")
    return text


def _sni(text: str) -> str:
    host = check_host(text)
    if ":" in host or host.rpartition(".")[2].isdigit():
        raise ValueError("an IP address is no name that a server can be asked for")
    return host


@dataclass(frozen=True, slots=True)
class ServiceTlsConfig(Section):
    """TLS to the endpoints. An empty table: whom the system's roots know by the name."""

    ca: str | None = setting(
        Filename(),
        "PEM of the roots to trust. Default: with a spiffe:// name among sans those of identity, else the system's.",
        None,
    )
    cert: str | None = setting(
        Filename(),
        "PEM of the certificate chain to show. Default: the one of identity, where that is told.",
        None,
    )
    key: str | None = setting(Filename(), "PEM of its private key.", None)
    sni: str | None = setting(
        Text("the name of a host", _sni),
        "The name that the server is asked for. Default: the endpoint's.",
        None,
    )
    sans: tuple[str, ...] = setting(
        ListOf(Text("a name of a certificate: a URI, a DNS name, an IP address or a mail address", _san)),
        "Names of which the certificate must have one, exactly. Default: with ca any, else the name that was asked for.",
        (),
    )

    def check(self) -> Iterator[tuple[str, str]]:
        yield from both(self, "cert", "key")
