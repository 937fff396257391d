# ruff: noqa: RUF009  (a field is made by a function that knows what it allows)
"""The configuration: what may be written, what it means, what holds where nothing is written.

``docs/reference/configuration.md`` is made from these fields. All values are immutable and safe to share.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from os import PathLike

from meshlib.config.hosts import LOCAL, LocalAddress, ServerAddress, SidecarAddress, Where, check_pattern
from meshlib.config.identity import SOCKET, IdentityConfig
from meshlib.config.kinds import (
    Boolean,
    Choice,
    Filename,
    Integer,
    Json,
    ListOf,
    MapOf,
    Text,
    one_line,
    seconds,
)
from meshlib.config.section import Section, Table, both, setting
from meshlib.config.services import SERVICES, ServiceConfig
from meshlib.config.source import DEFAULT, FrozenMap, Path, Rank, Source, plain_text
from meshlib.config.words import HEADER, SERVICE
from meshlib.model.joining import check_mode

__all__ = [
    "DEFAULT_DOMAINS",
    "AdminConfig",
    "AdoptionConfig",
    "Config",
    "DnsConfig",
    "InboundConfig",
    "NodeConfig",
    "SidecarConfig",
    "TelemetryConfig",
    "TlsConfig",
    "XdsConfig",
]

DEFAULT_DOMAINS = (LOCAL, "*.svc", "*.svc.*", "*.mesh", "*.mesh.*")
"""Hosts that are asked for in the target view (rule 5 of the contract): names without a dot, and these."""

_PATTERN = Text(
    '"host", "host:port", "*.suffix", "prefix.*", "*.middle.*", "*" or "<local>" (names without a dot)',
    check_pattern,
)


_ADOPTION = Text('"off", "observe", "on" or a percentage from "0%" to "100%"', check_mode)


def _ip(text: str) -> str:
    return str(ip_address(text))


@dataclass(frozen=True, slots=True)
class NodeConfig(Section):
    """Who we are to the control plane."""

    id: str | None = setting(Text(), "Our name. Default: the bootstrap's, or the host name.", None)
    cluster: str | None = setting(
        Text(), "What we are part of. Default: the bootstrap's, or OTEL_SERVICE_NAME.", None
    )
    region: str | None = setting(Text(), "Our region.", None)
    zone: str | None = setting(Text(), "Our zone.", None)
    sub_zone: str | None = setting(Text(), "Our part of the zone.", None)
    metadata: Mapping[str, object] = setting(Json(), "Told to the control plane as it is.", FrozenMap())


@dataclass(frozen=True, slots=True)
class TlsConfig(Section):
    """TLS to the control plane; with cert and key, mutual."""

    ca: str | None = setting(Filename(), "PEM file of the roots to trust. Default: the system's.", None)
    cert: str | None = setting(Filename(), "PEM file of our certificate chain.", None)
    key: str | None = setting(Filename(), "PEM file of its private key.", None)

    def check(self) -> Iterator[tuple[str, str]]:
        yield from both(self, "cert", "key")


@dataclass(frozen=True, slots=True)
class XdsConfig(Section):
    """The control plane. Without server and bootstrap there is none."""

    server: Where | tuple[Where, ...] | None = setting(
        ServerAddress(), "Where it listens; of a list the first that is needed and can be reached.", None
    )
    bootstrap: str | None = setting(Filename(), "A gRPC bootstrap file, instead of server and tls.", None)
    bootstrap_config: str | None = setting(Text("JSON", any_text=True), "What would be in that file.", None)
    tls: TlsConfig | None = setting(Table(TlsConfig), "TLS to server. Default: plain text.", None)
    token: str | None = setting(
        Filename(), "A file with a token that is sent as a bearer, read at each stream; over TLS only.", None
    )
    options: Mapping[str, object] = setting(
        Json(), "Options of gRPC for the channel to it, by their names.", FrozenMap()
    )
    protocol: str = setting(
        Choice("auto", "sotw", "delta", "fetch", "rest", "files"),
        "How we are told: on a stream all of a type, or what changed; polled by gRPC, or by REST; from files.",
        "auto",
    )
    path: str | None = setting(Filename(), 'The directory of protocol = "files".', None)
    refresh: float = setting(seconds(), 'Seconds between two polls of protocol = "fetch" or "rest".', 30.0)
    api: str = setting(Choice("v3", "v2"), "v2 is for Kato and Rainbond.", "v3")
    streams: str | None = setting(
        Choice("aggregated", "separate"),
        "One stream for all types, or one for each. Default: aggregated, but separate where api is v2.",
        None,
    )
    view: str = setting(
        Choice("auto", "sidecar", "target"),
        "What an Envoy gets (sidecar), what gRPC gets (target), or both (auto).",
        "auto",
    )
    domains: tuple[str, ...] = setting(
        ListOf(_PATTERN), "Hosts that are asked for by name in the target view.", DEFAULT_DOMAINS
    )
    cold_start: str = setting(
        Choice("direct", "fail"),
        "A host for which the control plane has not answered in time: called directly, or NotReady.",
        "direct",
    )
    last_good: str | None = setting(
        Filename(), "A file that keeps the last good state, for a start without it.", None
    )

    def check(self) -> Iterator[tuple[str, str]]:
        given = [
            name for name in ("server", "bootstrap", "bootstrap_config") if getattr(self, name) is not None
        ]
        for name in given[1:]:
            yield name, f"cannot stand beside {given[0]}: one of server, bootstrap, bootstrap_config"
        if self.tls is not None and self.server is None:
            yield "tls", "is for server; a bootstrap has its own channel_creds"
        yield from self._check_token()
        for name, value in self.options.items():
            if not isinstance(value, str | int) or isinstance(value, bool) or not name.startswith("grpc."):
                yield (
                    "options",
                    f'{one_line(name)} must be a name as "grpc.keepalive_time_ms" and a whole number or text',
                )
        if self.path is not None and self.protocol != "files":
            yield "path", 'is for protocol = "files"'
        if self.protocol == "files" and self.path is None:
            yield "path", 'is missing; protocol = "files" needs it'
        if self.protocol == "files" and self.server is not None:
            yield "server", 'cannot stand beside protocol = "files": files are read from path'
        if self.protocol in ("fetch", "rest") and not given and self.api != "v2":
            yield "server", f'is missing; protocol = "{self.protocol}" needs it'
        yield from self._check_scheme()
        yield from self._check_streams()

    @property
    def servers(self) -> tuple[Where, ...]:
        """Those of ``server``, in the order of preference."""
        if self.server is None:
            return ()
        return self.server if isinstance(self.server, tuple) else (self.server,)

    def _check_token(self) -> Iterator[tuple[str, str]]:
        if self.token is not None and self.server is None:
            yield "token", "is for server; a bootstrap has its own call_creds"
        elif self.token is not None and self.tls is None:
            yield "token", "needs tls: without it everybody on the way could read it"

    def _check_streams(self) -> Iterator[tuple[str, str]]:
        if self.api == "v2" and self.protocol not in ("auto", "sotw", "fetch"):
            yield "protocol", f'{self.protocol} is not for api = "v2", which has state of the world over gRPC'
        elif self.api == "v2" and self.streams == "aggregated":
            yield "streams", 'aggregated is not for api = "v2", which is asked by separate streams'
        elif self.streams is not None and self.protocol in ("fetch", "rest", "files"):
            yield "streams", f'is for streams of gRPC; protocol = "{self.protocol}" has none'

    def _check_scheme(self) -> Iterator[tuple[str, str]]:
        if self.protocol == "rest" and len(self.servers) > 1:
            yield "server", 'must be one for protocol = "rest"'
        for server in self.servers:
            if not isinstance(server, str):
                continue
            if self.protocol != "rest":
                yield "server", f'{server} is for protocol = "rest"; others take host:port, with no scheme'
            elif server.startswith("https:") and self.tls is None:
                yield "server", "says https, and tls is not given; an empty table trusts the system's roots"

    @property
    def separate(self) -> bool:
        """Whether each type has a stream of its own."""
        return self.streams == "separate" or self.api == "v2"

    @property
    def asked_view(self) -> str:
        """The view in force: servers of v2 write listeners for an Envoy, and know no others by name."""
        return "sidecar" if self.api == "v2" and self.view == "auto" else self.view

    @property
    def configured(self) -> bool:
        """Whether there is a control plane."""
        return any(
            item is not None for item in (self.server, self.bootstrap, self.bootstrap_config, self.path)
        )


@dataclass(frozen=True, slots=True)
class SidecarConfig(Section):
    """Hand-off to a sidecar."""

    mode: str = setting(
        Choice("off", "auto", "require", "istio", "linkerd", "consul", "kuma", "dapr", "kato", "envoy"),
        "Whether one is looked for, demanded, or told.",
        "auto",
    )
    address: str | None = setting(SidecarAddress(), "Where it listens, told instead of found.", None)
    start_window: float = setting(
        seconds(zero=True), "Seconds that a call waits for one which is not ready.", 10.0
    )
    fallback: str = setting(
        Choice("never", "when_allowed"), "When it went away: calls fail, or go in-process.", "when_allowed"
    )


@dataclass(frozen=True, slots=True)
class AdoptionConfig(Section):
    """Joining step by step. Every other key is the name of a service."""

    default: str = setting(_ADOPTION, "How far a service has joined that is not named.", "on")
    key: str | None = setting(HEADER, "The header that a percentage sticks to. Default: the node's id.", None)
    kill_switch: str | None = setting(Filename(), "While this file is there, every call is plain.", None)
    services: Mapping[str, str] = setting(
        MapOf(SERVICE, _ADOPTION), "How far this service has joined.", FrozenMap(), rest=True
    )

    @property
    def modes(self) -> set[str]:
        """All that are written."""
        return {self.default, *self.services.values()}


@dataclass(frozen=True, slots=True)
class DnsConfig(Section):
    """The resolver of services with dns or srv."""

    nameservers: tuple[str, ...] = setting(
        ListOf(Text("an IP address", _ip)), "Who is asked. Default: the system's resolver configuration.", ()
    )
    port: int = setting(Integer(1, 65535, what="a port"), "The port of the nameservers.", 53)
    min_ttl: float = setting(seconds(zero=True), "An answer holds at least so many seconds.", 1.0)
    max_ttl: float = setting(seconds(), "An answer holds at most so many seconds.", 300.0)

    def check(self) -> Iterator[tuple[str, str]]:
        if self.min_ttl > self.max_ttl:
            yield "min_ttl", f"must not be more than max_ttl ({self.max_ttl:g})"


def _url_path(text: str) -> str:
    if not text.startswith("/") or not text.isascii() or not text.isprintable() or set(" ?#%") & set(text):
        raise ValueError("no path")
    return text


@dataclass(frozen=True, slots=True)
class InboundConfig(Section):
    """What the middlewares for WSGI, ASGI, Django and Flask do beside handing on; all of it is off by default."""

    ready: str | None = setting(
        Text('a path such as "/ready"', _url_path),
        "A path that answers 200 when calls can be made, 503 with what is missing when not.",
        None,
    )
    ready_for: tuple[str, ...] = setting(
        ListOf(SERVICE), "Names that must be callable for that. Default: every source has spoken.", ()
    )
    max_requests: int | None = setting(
        Integer(1, 1_000_000), "Requests served at once in a process; more get 503 at once.", None
    )
    reject_expired: bool = setting(
        Boolean(), "A request whose deadline is over when it comes gets 504 at once.", default=False
    )
    access_log: str = setting(
        Choice("off", "json", "envoy"),
        "A line a request on the logger meshlib.access: none, JSON, Envoy's default format.",
        "off",
    )

    def check(self) -> Iterator[tuple[str, str]]:
        if self.ready_for and self.ready is None:
            yield "ready", "is missing; ready_for needs it"


@dataclass(frozen=True, slots=True)
class AdminConfig(Section):
    """The socket that `meshlib dump PID` reads, which only this user can open, and Envoy's client status service."""

    enabled: bool = setting(Boolean(), "Whether there is that socket.", default=False)
    runtime_dir: str | None = setting(
        Filename(),
        "Its directory. Default: meshlib in XDG_RUNTIME_DIR, or one of this user in the temporary directory.",
        None,
    )
    csds: str | None = setting(
        LocalAddress(),
        "Where Envoy's client status service (CSDS, which grpcdebug reads) is served. Default: nowhere.",
        None,
    )

    def check(self) -> Iterator[tuple[str, str]]:
        if self.runtime_dir is not None and not self.enabled:
            yield "enabled", "must be true where runtime_dir is given"


@dataclass(frozen=True, slots=True)
class TelemetryConfig(Section):
    """What OpenTelemetry is told of beyond the default: what gRPC calls experimental, by gRPC's names (gRFC A79)."""

    metrics: tuple[str, ...] = setting(
        ListOf(
            Choice(
                "grpc.xds_client",
                "grpc.lb.outlier_detection",
                "grpc.subchannel",
                "grpc.client.tls.handshakes",
            )
        ),
        "Instruments whose names begin so are made, too.",
        (),
    )
    labels: tuple[str, ...] = setting(
        ListOf(
            Choice(
                "grpc.lb.locality", "grpc.lb.backend_service", "grpc.disconnect_error", "grpc.security_level"
            )
        ),
        "Optional labels that gRPC's instruments have, too.",
        (),
    )


@dataclass(frozen=True, slots=True)
class Config(Section):
    """All that an application says to meshlib.

    Make it with :meth:`from_env`, :meth:`from_file` or :meth:`from_mapping`; each raises
    :class:`~meshlib.ConfigError` with every problem, one a line. One made by hand is checked when a Mesh takes it.

    Attributes:
        file: The configuration file that was read, absolute; None without one.
        sources: Where each value that was given came from, by its path; ``source_of`` reads it.
        complete: Nothing is laid beside it, be it a file or the environment; False of a framework's settings.
    """

    node: NodeConfig = setting(Table(NodeConfig), "Who we are to the control plane.", NodeConfig())
    xds: XdsConfig = setting(Table(XdsConfig), "The control plane.", XdsConfig())
    services: Mapping[str, ServiceConfig] = setting(
        SERVICES, "Services without a control plane, by name.", FrozenMap()
    )
    services_file: str | None = setting(
        Filename(), "A file in Envoy's shape: listeners, clusters, routes, endpoints, secrets.", None
    )
    bypass: tuple[str, ...] = setting(
        ListOf(_PATTERN), "Hosts whose calls are plain, as if meshlib were not there.", ()
    )
    unknown_hosts: str = setting(
        Choice("direct", "refuse"), "A host that nothing knows: called directly, or UnknownService.", "direct"
    )
    failures: str = setting(
        Choice("raise", "respond"),
        "What fails is an exception, or the response that a sidecar gives.",
        "raise",
    )
    spent_retries: str = setting(
        Choice("silent", "tell"),
        "An answer that would be tried again if an attempt were left says `x-should-retry: false`, or nothing.",
        "silent",
    )
    retry_chains: str = setting(
        Choice("stop", "go_on"),
        "A call that is made for a request which is a retry itself is not retried once it may have been sent, or is as any other. Which those"
        " are the middlewares read.",
        "stop",
    )
    deadline_headers: tuple[str, ...] = setting(
        ListOf(Choice("finagle", "linkerd")),
        "What a call has left is told in these headers, too: `finagle-ctx-com.twitter.finagle.deadline`, `l5d-ctx-deadline`. The middlewares read them"
        " in any case.",
        (),
    )
    disabled: bool = setting(Boolean(), "Every call is plain, as if meshlib were not there.", default=False)
    seed: int | None = setting(
        Integer(0, 2**64 - 1), "Makes what is drawn by lot repeatable, for tests.", None
    )
    dns: DnsConfig = setting(Table(DnsConfig), "The resolver of services with dns or srv.", DnsConfig())
    identity: IdentityConfig = setting(
        Table(IdentityConfig), "Who we are to other workloads, where TLS is demanded.", IdentityConfig()
    )
    sidecar: SidecarConfig = setting(Table(SidecarConfig), "Hand-off to a sidecar.", SidecarConfig())
    adoption: AdoptionConfig = setting(Table(AdoptionConfig), "Joining step by step.", AdoptionConfig())
    inbound: InboundConfig = setting(
        Table(InboundConfig), "What the middlewares do beside handing on.", InboundConfig()
    )
    admin: AdminConfig = setting(
        Table(AdminConfig), "The socket that `meshlib dump PID` reads.", AdminConfig()
    )
    telemetry: TelemetryConfig = setting(
        Table(TelemetryConfig), "What OpenTelemetry is told of beyond the default.", TelemetryConfig()
    )

    file: str | None = field(default=None, compare=False)
    sources: Mapping[Path, Source] = field(default_factory=dict, compare=False, repr=False)
    complete: bool = field(default=True, compare=False, repr=False)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Config:
        """What the environment says (default: the process's), over the file that MESHLIB_CONFIG names."""
        from meshlib.config.layers import resolve

        return resolve(None, environ)

    @classmethod
    def from_file(cls, path: str | PathLike[str]) -> Config:
        """What a file says, by its suffix TOML, JSON or YAML (which needs the extra ``yaml``). No variable counts."""
        from meshlib.config.layers import load

        return load(path)

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, object], *, origin: str = "argument") -> Config:
        """What a mapping says: neither a file nor a variable counts. ``origin`` is what its problems are said to come from."""
        from meshlib.config.layers import from_mapping

        return from_mapping(mapping, origin)

    @property
    def configured(self) -> bool:
        """Whether it names anything that calls could go to: services, a file of them, a control plane, a sidecar."""
        sidecar = self.sidecar.mode not in ("off", "auto") or self.sidecar.address is not None
        return bool(self.services or self.services_file or self.xds.configured or sidecar)

    @property
    def identity_told(self) -> bool:
        """Whether it says who gives the identity; else one is looked for."""
        return self.identity.chosen is not None and (
            self.identity.provider is not None or self.source_of("identity.socket") != SOCKET
        )

    def source_of(self, key: str) -> str:
        """Where the value of ``key`` (``"services.reviews.timeout"``) came from: the file as it was named, the
        variable, ``"argument"`` or ``"default"``; of a table, all of them. Raises KeyError for what is no key.
        """
        return ", ".join(dict.fromkeys(source.name for source in self._sources_of(key)))

    def given(self, key: str) -> bool:
        """Whether somebody said the value of ``key``: it is not the default."""
        return any(source.rank is not Rank.DEFAULT for source in self._sources_of(key))

    def _sources_of(self, key: str) -> list[Source]:
        wanted = key.replace('"', "").lower()
        known = {plain_text(path): source for path, source in self.sources.items()}
        exact = known.get(wanted)
        if exact is not None:
            return [exact]
        found = [source for text, source in known.items() if _within(text, wanted)]
        found += [source for text, source in known.items() if not found and _within(wanted, text)]
        if found:
            return found
        if not any(wanted == known_key.lower() for known_key in _keys(self.to_dict(), "")):
            raise KeyError(key)
        return [DEFAULT]


def _within(inner: str, outer: str) -> bool:
    return inner.startswith((outer + ".", outer + "["))


def _keys(value: object, prefix: str) -> Iterator[str]:
    """Every key that ``value`` has, also those of tables within."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            path = f"{prefix}.{name}" if prefix else str(name)
            yield path
            yield from _keys(item, path)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield f"{prefix}[{index}]"
            yield from _keys(item, f"{prefix}[{index}]")
