"""The gRPC xDS bootstrap: where the control plane is, who we are to it (checklist BS-01 to BS-12).

Pure: text in, values or the list of every problem out. Who has the text (a file, a variable, the configuration) passes
it in with the name of where it came from.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, TypeVar

from meshlib.config import Config, XdsConfig
from meshlib.config.kinds import one_line
from meshlib.errors import ConfigError
from meshlib.model.endpoint import Locality
from meshlib.xds.names import canonical

__all__ = [
    "Authority",
    "Bootstrap",
    "CertificateProvider",
    "Channel",
    "ChannelKind",
    "Feature",
    "Node",
    "Server",
    "bootstrap_of",
    "duration",
    "listener_name",
    "parse_bootstrap",
]

T = TypeVar("T")

DEFAULT_REFRESH = 600.0
"""Seconds between looks at certificate files (gRFC A65, as ``file_watcher`` of A29)."""

DEFAULT_TEMPLATE = "%s"
"""``client_default_listener_resource_name_template`` where it is not given (gRFC A47)."""

_LARGEST = sys.float_info.max
_LISTENER = "envoy.config.listener.v3.Listener"

# RFC 3986, section 3.3: pchar, and the / between segments.
_PATH_CHARS = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~!$&'()*+,;=:@/")


class Feature(Enum):
    """Server features that change what a client does (BS-06); ``xds_v3`` is ignored as all is v3."""

    IGNORE_RESOURCE_DELETION = "ignore_resource_deletion"
    FAIL_ON_DATA_ERRORS = "fail_on_data_errors"
    RESOURCE_TIMER_IS_TRANSIENT_ERROR = "resource_timer_is_transient_error"
    TRUSTED_XDS_SERVER = "trusted_xds_server"


class ChannelKind(Enum):
    """Channel credentials that are supported."""

    INSECURE = "insecure"
    TLS = "tls"


@dataclass(frozen=True, slots=True)
class Channel:
    """How a server is reached (BS-05). Empty ``ca_file``: the system's roots. ``refresh``: seconds between looks at
    the files. ``tokens``: files with tokens that each call has as bearers, over TLS only (BS-04).
    """

    kind: ChannelKind = ChannelKind.INSECURE
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    refresh: float = DEFAULT_REFRESH
    tokens: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Server:
    """A control plane. Equal servers share one stream (BS-12): features that are not known do not tell them apart.
    ``uri`` is a gRPC target: ``host:port``, ``unix:///path``, ``dns:///host:port``. ``metadata``: what each call has beside.
    ``options``: of its channel, by their names.
    """

    uri: str
    channel: Channel = field(default_factory=Channel)
    features: frozenset[Feature] = frozenset()
    metadata: tuple[tuple[str, str], ...] = ()
    options: tuple[tuple[str, str | int], ...] = ()


@dataclass(frozen=True, slots=True)
class Node:
    """``metadata`` is as it was written: order and kinds of numbers are kept (BS-07). Read it only; it may have a token."""

    id: str = ""
    cluster: str = ""
    locality: Locality = field(default_factory=Locality)
    metadata: Mapping[str, Any] = field(default_factory=dict, hash=False, repr=False)


@dataclass(frozen=True, slots=True)
class CertificateProvider:
    """An instance of a certificate provider; equal ones share one instance (BS-08). Whether ``plugin`` is known is
    asked when a cluster names the instance, as in grpc-go.
    """

    plugin: str
    config: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Authority:
    """An xdstp authority: its servers, and the names of its listeners (BS-09). ``eager``: a server that cannot be reached is
    left for the next though all that is wanted is known (gRFC A95).
    """

    servers: tuple[Server, ...]
    template: str
    eager: bool = False


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """``servers`` in the order of preference. ``services``: those that a control plane may name beside its resources, by their
    target, and how they are reached (``allowed_grpc_services``, gRFC A102). ``skipped``: what is known and not supported, by its
    path, for the status; unknown fields are not in it (BS-02). ``identified``: the process has an identity of its own, which answers for
    instances that are not among ``providers``.
    """

    servers: tuple[Server, ...]
    node: Node = field(default_factory=Node)
    providers: Mapping[str, CertificateProvider] = field(default_factory=dict, hash=False)
    authorities: Mapping[str, Authority] = field(default_factory=dict, hash=False)
    template: str = DEFAULT_TEMPLATE
    skipped: tuple[str, ...] = ()
    services: Mapping[str, Channel] = field(default_factory=dict, hash=False)
    identified: bool = False

    @property
    def all_servers(self) -> tuple[Server, ...]:
        """Each once (BS-12): those of the top level, then the authorities'."""
        lists = (self.servers, *(self.authorities[name].servers for name in sorted(self.authorities)))
        return tuple(dict.fromkeys(server for servers in lists for server in servers))

    def listener(self, host: str, authority: str | None = None) -> str:
        """The name of the listener resource for ``host`` (BS-10, BS-11). Raises ConfigError for an authority that
        the bootstrap does not have.
        """
        if authority is None:
            return listener_name(self.template, host)
        if authority not in self.authorities:
            raise ConfigError(f'the xDS bootstrap has no authority "{authority}"')
        return listener_name(self.authorities[authority].template, host)

    def side_channel(self, server: Server, target: str) -> Channel | None:
        """How the service at ``target`` is reached that ``server`` names by a GrpcService (gRFC A102). None: as that says, since the
        server is trusted. Else what it says of credentials counts for nothing, nor does its ``initial_metadata``. Raises ConfigError
        for a service that may not be named: the resource is to be refused.
        """
        if Feature.TRUSTED_XDS_SERVER in server.features:
            return None
        if target not in self.services:
            raise ConfigError(
                f"{one_line(target[:200])} is not among the allowed_grpc_services of the xDS bootstrap, and the server is not trusted"
            )
        return self.services[target]


def listener_name(template: str, host: str) -> str:
    """``template`` with ``host`` for each %s; in an ``xdstp:`` name percent-encoded as a path (BS-10)."""
    if template.startswith("xdstp:"):
        host = "".join(chr(byte) if byte in _PATH_CHARS else f"%{byte:02X}" for byte in host.encode())
    return template.replace("%s", host)


def bootstrap_of(config: Config, text: str | None, origin: str, host_name: str) -> Bootstrap:
    """The bootstrap in force: ``text`` where the configuration names one (else None), or ``xds.server``; with the
    node that the configuration tells, what it leaves open from the bootstrap, and what both leave open
    from the surroundings: ``host_name``, and ``OTEL_SERVICE_NAME`` as the cluster.
    """
    if text is not None:
        made = parse_bootstrap(text, origin)
    elif config.xds.server is not None:
        channel = _channel_of(config.xds)
        uris = (str(where).removeprefix("http://").removeprefix("https://") for where in config.xds.servers)
        made = Bootstrap(tuple(Server(uri, channel) for uri in uris))
    elif config.xds.path is None:
        raise ConfigError("xds: neither server nor bootstrap is given")
    else:
        made = Bootstrap(())
    if config.xds.path is not None:  # what a bootstrap says of the node holds all the same
        made = replace(made, servers=(Server(config.xds.path),))
    identified = config.identity.chosen is not None
    return replace(
        _with_options(config, made), node=_node_of(config, made.node, host_name), identified=identified
    )


def _channel_of(xds: XdsConfig) -> Channel:
    if xds.tls is None:
        return Channel()
    tokens = (xds.token,) if xds.token is not None else ()
    return Channel(ChannelKind.TLS, xds.tls.ca or "", xds.tls.cert or "", xds.tls.key or "", tokens=tokens)


def _with_options(config: Config, made: Bootstrap) -> Bootstrap:
    """The application's options for channels that others make for it (gRFC A110) hold for every server."""
    options = tuple(
        (name, value) for name, value in config.xds.options.items() if isinstance(value, str | int)
    )
    if not options:
        return made

    def with_them(servers: tuple[Server, ...]) -> tuple[Server, ...]:
        return tuple(replace(server, options=options) for server in servers)

    authorities = {
        name: replace(each, servers=with_them(each.servers)) for name, each in made.authorities.items()
    }
    return replace(made, servers=with_them(made.servers), authorities=authorities)


def _node_of(config: Config, told: Node, host_name: str) -> Node:
    mine = config.node
    # What the surroundings tell is in the configuration as a default: the bootstrap says more.
    name, cluster = mine.id or "", mine.cluster or ""
    if not config.given("node.id"):
        name = told.id or name
    if not config.given("node.cluster"):
        cluster = told.cluster or cluster
    locality = Locality(
        mine.region or told.locality.region,
        mine.zone or told.locality.zone,
        mine.sub_zone or told.locality.sub_zone,
    )
    metadata = mine.to_dict()["metadata"]
    assert isinstance(metadata, dict)
    return Node(name or host_name, cluster, locality, {**told.metadata, **metadata})


def parse_bootstrap(text: str, origin: str) -> Bootstrap:
    """Reads a bootstrap. Raises ConfigError with every problem, each with ``origin`` and its place in the JSON."""
    problems: list[str] = []
    try:
        root = json.loads(text, parse_constant=_no_constant)
        _sendable(root)
    except RecursionError:
        raise ConfigError(f"{origin}: is nested too deeply") from None
    except ValueError as problem:
        raise ConfigError(f"{origin}: is not JSON: {problem}") from problem
    if not isinstance(root, dict):
        raise ConfigError(f"{origin}: must be a JSON object, not {_json_type(root)}")
    made = _Reader(problems).bootstrap(root)
    if problems:
        raise ConfigError(problems=[one_line(f"{origin}: {problem}") for problem in problems])
    return made


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not a number of JSON")


def _sendable(root: object) -> None:
    """JSON can spell what no message can carry: half of a surrogate pair, a number that no double holds."""
    waiting = [root]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            try:
                value.encode()
            except UnicodeEncodeError:
                raise ValueError("a text holds half of a surrogate pair") from None
        elif isinstance(value, int | float) and not -_LARGEST <= value <= _LARGEST:
            raise ValueError("a number is larger than a double can be")
        elif isinstance(value, dict):
            waiting += [*value, *value.values()]
        elif isinstance(value, list):
            waiting += value


def _json_type(value: object) -> str:
    names = {
        dict: "an object",
        list: "a list",
        str: "text",
        bool: "true or false",
        int: "a number",
        float: "a number",
    }
    return "null" if value is None else names[type(value)]


class _Reader:
    """Walks the JSON and notes what is wrong; what it then returns in place of a wrong value is never used."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        self.skipped: list[str] = []

    def bootstrap(self, root: dict[str, Any]) -> Bootstrap:
        if root.get("xds_servers") is None:
            self.problems.append("xds_servers: is missing")
        servers = self.servers(root, "")
        if root.get("xds_servers") == []:
            self.problems.append("xds_servers: must have one server or more")
        made = Bootstrap(
            servers,
            self.node(self.typed(root, "node", dict, "") or {}),
            dict(self.each_object(root, "certificate_providers", "", self.provider)),
            dict(
                self.each_object(
                    root, "authorities", "", lambda name, raw, at: self.authority(name, raw, at, servers)
                )
            ),
            _spelled(
                self.typed(root, "client_default_listener_resource_name_template", str, "")
                or DEFAULT_TEMPLATE
            ),
            services=dict(self.each_object(root, "allowed_grpc_services", "", self.service)),
        )
        return replace(made, skipped=tuple(self.skipped))

    def typed(self, raw: dict[str, Any], key: str, cls: type[T], at: str) -> T | None:
        """``raw[key]`` if it has the type that it must have; null is as if it were not there."""
        value = raw.get(key)
        if value is None:
            return None
        if not isinstance(value, cls) or (cls is not bool and isinstance(value, bool)):
            wanted: T = cls()
            self.problems.append(f"{_under(at, key)}: must be {_json_type(wanted)}, not {_json_type(value)}")
            return None
        return value

    def each_object(
        self, raw: dict[str, Any], key: str, at: str, read: Callable[[str, dict[str, Any], str], T]
    ) -> Iterator[tuple[str, T]]:
        for name in self.typed(raw, key, dict, at) or {}:
            place = f"{_under(at, key)}[{json.dumps(name)}]"
            value = raw[key][name]
            if isinstance(value, dict):
                yield name, read(name, value, place)
            else:
                self.problems.append(f"{place}: must be an object, not {_json_type(value)}")

    def servers(self, raw: dict[str, Any], at: str) -> tuple[Server, ...]:
        made = []
        for index, item in enumerate(self.typed(raw, "xds_servers", list, at) or []):
            place = f"{_under(at, 'xds_servers')}[{index}]"
            if isinstance(item, dict):
                made.append(self.server(item, place))
            else:
                self.problems.append(f"{place}: must be an object, not {_json_type(item)}")
        return tuple(made)

    def server(self, raw: dict[str, Any], at: str) -> Server:
        uri = self.typed(raw, "server_uri", str, at)
        if not uri:
            if raw.get("server_uri") in (None, ""):
                self.problems.append(f"{at}.server_uri: is missing")
        elif uri.startswith(("http://", "https://")):
            self.problems.append(
                f"{at}.server_uri: must be a gRPC target as host:port, not {json.dumps(uri[:80])}"
            )
        features = self.typed(raw, "server_features", list, at) or []
        known = {feature.value: feature for feature in Feature}
        return Server(
            uri or "",
            self.channel_with_tokens(raw, at),
            frozenset(known[item] for item in features if isinstance(item, str) and item in known),
        )

    def channel_with_tokens(self, raw: dict[str, Any], at: str) -> Channel:
        """BS-04: of the call credentials every one that is supported is applied."""
        made = self.channel(raw, at)
        tokens = []
        for index, entry in enumerate(self.typed(raw, "call_creds", list, at) or []):
            here = f"{at}.call_creds[{index}]"
            if not isinstance(entry, dict):
                self.problems.append(f"{here}: must be an object, not {_json_type(entry)}")
            elif self.typed(entry, "type", str, here) != "jwt_token_file":
                self.skipped.append(here)
            else:
                tokens.append(self.token(entry, here, made))
        return replace(made, tokens=tuple(tokens))

    def token(self, entry: dict[str, Any], at: str, channel: Channel) -> str:
        config = self.typed(entry, "config", dict, at) or {}
        path = self.typed(config, "jwt_token_file", str, f"{at}.config")
        if config.get("jwt_token_file") in (None, ""):
            self.problems.append(f"{at}.config.jwt_token_file: is missing")
        if channel.kind is not ChannelKind.TLS:
            self.problems.append(
                f"{at}: needs channel_creds of type tls: everybody on the way could read the token"
            )
        return path or ""

    def service(self, target: str, raw: dict[str, Any], at: str) -> Channel:
        if not target:
            self.problems.append(f"{at}: must be named by its target")
        return self.channel_with_tokens(raw, at)

    def channel(self, raw: dict[str, Any], at: str) -> Channel:
        """The first entry of a supported type (BS-03); every entry must at least be one."""
        place = f"{at}.channel_creds"
        if raw.get("channel_creds") in (None, []):
            self.problems.append(f"{place}: is missing; must have one of insecure, tls")
            return Channel()
        before = len(self.problems)
        entries = self.typed(raw, "channel_creds", list, at)
        chosen: Channel | None = None
        types: list[str] = []
        for index, entry in enumerate(entries or []):
            here = f"{place}[{index}]"
            if not isinstance(entry, dict):
                self.problems.append(f"{here}: must be an object, not {_json_type(entry)}")
                continue
            kind = self.typed(entry, "type", str, here)
            config = self.typed(entry, "config", dict, here) or {}
            if entry.get("type") is None:
                self.problems.append(f"{here}.type: is missing")
            types.append(kind or "")
            if chosen is None and kind in ("insecure", "tls"):
                chosen = Channel() if kind == "insecure" else self.tls(config, f"{here}.config")
        if chosen is None and len(self.problems) == before:
            listed = json.dumps(types)[:120]
            self.problems.append(f"{place}: must have one of insecure, tls; {listed} are not supported")
        return chosen or Channel()

    def tls(self, raw: dict[str, Any], at: str) -> Channel:
        ca, cert, key = (
            self.typed(raw, name, str, at) or ""
            for name in ("ca_certificate_file", "certificate_file", "private_key_file")
        )
        if bool(cert) != bool(key):
            self.problems.append(f"{at}: certificate_file and private_key_file go together")
        refresh = self.typed(raw, "refresh_interval", str, at)
        return Channel(ChannelKind.TLS, ca, cert, key, self.duration(refresh, f"{at}.refresh_interval"))

    def duration(self, text: str | None, at: str) -> float:
        try:
            return duration(text)
        except ValueError as problem:
            self.problems.append(f"{at}: {problem}")
            return DEFAULT_REFRESH

    def node(self, raw: dict[str, Any]) -> Node:
        """What is in it of the client itself (user agent, client features) is ours to say (BS-07)."""
        place = self.typed(raw, "locality", dict, "node") or {}
        region, zone, sub_zone = (
            self.typed(place, name, str, "node.locality") or "" for name in ("region", "zone", "sub_zone")
        )
        return Node(
            self.typed(raw, "id", str, "node") or "",
            self.typed(raw, "cluster", str, "node") or "",
            Locality(region, zone, sub_zone),
            self.typed(raw, "metadata", dict, "node") or {},
        )

    def provider(self, _name: str, raw: dict[str, Any], at: str) -> CertificateProvider:
        plugin = self.typed(raw, "plugin_name", str, at)
        if raw.get("plugin_name") in (None, ""):
            self.problems.append(f"{at}.plugin_name: is missing")
        return CertificateProvider(plugin or "", self.typed(raw, "config", dict, at) or {})

    def authority(self, name: str, raw: dict[str, Any], at: str, servers: tuple[Server, ...]) -> Authority:
        key = "client_listener_resource_name_template"
        template = self.typed(raw, key, str, at)
        if template is None:
            template = f"xdstp://{name}/{_LISTENER}/%s"
        elif not template.startswith(f"xdstp://{name}/"):
            self.problems.append(f'{at}.{key}: must begin with "xdstp://{name}/"')
        eager = self.typed(raw, "fallback_on_reachability_only", bool, at) or False
        return Authority(self.servers(raw, at) or servers, _spelled(template), eager)


def duration(text: object) -> float:
    """The seconds of a ``refresh_interval``, a Duration of JSON: ``"600s"``, ``"1.5s"``; of None the default. Raises ValueError."""
    if text is None:
        return DEFAULT_REFRESH
    if not isinstance(text, str):
        raise ValueError(f'must be a duration as "600s", not {_json_type(text)}')  # noqa: TRY004 - it is a value of a file
    whole, dot, part = text.removesuffix("s").partition(".")
    right = whole.isdigit() and len(whole) <= 12 and (part.isdigit() if dot else True) and len(part) <= 9
    if not (text.endswith("s") and text.isascii() and right) or float(text[:-1]) <= 0:
        raise ValueError(f'must be a duration greater than 0 as "600s", not {json.dumps(text[:40])}')
    return float(text[:-1])


def _spelled(template: str) -> str:
    """The template of canonical names (FE-01)."""
    return canonical(template.replace("%s", "%00")).replace("%00", "%s")


def _under(at: str, key: str) -> str:
    return f"{at}.{key}" if at else key
