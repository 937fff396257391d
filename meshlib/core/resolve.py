"""What a URL means: which listener, and so which routes, carry a call. Rules 1 to 6 of the contract, pure.

A :class:`View` is compiled from a snapshot once, off the request path, and asked once a call:

1. switched off, or the host is on the bypass list → direct
2. a sidecar: decided elsewhere, before a view is asked
3. a service's key: ``host:port``, ``host``, the longest wildcard
4. a listener made for an Envoy: its address is the URL's, or it listens on the URL's port and a virtual host of its own
   (not only ``*``) is for the Host
5. a listener made for gRPC, asked for by name
6. else direct, or refused

Within a rule the parts of the snapshot are asked in their order.
"""

from __future__ import annotations

import ipaddress
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from meshlib.config.hosts import HostPatterns
from meshlib.config.values import DEFAULT_DOMAINS
from meshlib.core.domains import DomainIndex
from meshlib.core.guards import guards_of
from meshlib.core.match import CompiledRoutes, compile_routes
from meshlib.core.nearest import nearest
from meshlib.core.normalize import changes_heads, normalized, stripped
from meshlib.model.hosts import canonical_host

if TYPE_CHECKING:
    from meshlib.model.call import Head
    from meshlib.model.listener import HttpFilter, HttpManager, Listener
    from meshlib.model.route import RouteConfiguration
    from meshlib.model.snapshot import Part, Snapshot

__all__ = ["Resolution", "Rules", "View", "compile_view"]

Via = Literal["mesh", "direct", "refused", "wait"]

#: Parts that a control plane speaks through; ``xds.view`` and ``xds.domains`` are about them.
_XDS = "xds"
_DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}
_ANY = frozenset(("0.0.0.0", "::"))  # noqa: S104 - what a listener says, nothing is bound
_PATH_CHARACTERS = frozenset(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~!$&'()*+,;=:@/"
)
_REMEMBERED = 4096


@dataclass(frozen=True, slots=True)
class Rules:
    """What of the application's configuration decides here. ``domains`` and ``bypass`` are patterns as in the
    configuration file; ``template`` is the bootstrap's listener name template (``%s``); ``with_port``: the name always
    has the port (Istio); ``has_xds``: a control plane is configured, so that waiting for one makes sense.
    """

    bypass: tuple[str, ...] = ()
    disabled: bool = False
    view: str = "auto"
    domains: tuple[str, ...] = DEFAULT_DOMAINS
    template: str = "%s"
    with_port: bool = False
    unknown: str = "direct"
    has_xds: bool = False


class Resolution:
    """What one URL means. Immutable. ``name``: the target resource that is wanted (rule 5), else ``""``; ``plain``: the
    call is to be as if meshlib were not there (rule 1); ``guards``: filters that may cover the call (`core.guards`);
    ``meant``: gives the known host that is nearly this one, or ``""``.
    """

    __slots__ = (
        "_meant",
        "guards",
        "listener",
        "manager",
        "name",
        "part",
        "plain",
        "reason",
        "routes",
        "via",
    )

    def __init__(
        self,
        via: Via,
        reason: str,
        *,
        part: str = "",
        listener: Listener | None = None,
        routes: CompiledRoutes | None = None,
        manager: HttpManager | None = None,
        name: str = "",
        plain: bool = False,
        meant: Callable[[], str] | None = None,
    ) -> None:
        self.via: Via = via
        self.plain = plain
        self.reason = reason
        self.part = part
        self.listener = listener
        self.routes = routes
        self.manager = manager
        self.guards: tuple[HttpFilter, ...] = guards_of(manager) if manager is not None else ()
        self.name = name
        self._meant = meant

    def words(self) -> tuple[str, ...]:
        """The lines of a trace: why, and for a host that nobody knows the nearest that somebody does. Looked for when it is
        asked for, since most calls to unknown hosts mean them.
        """
        meant = self._meant() if self._meant is not None else ""
        return (self.reason, f"did you mean {meant}?") if meant else (self.reason,)

    def refusal(self, authority: str) -> str:
        """What a caller of ``authority`` is told where unknown hosts are refused."""
        refused = "" if self.via == "refused" else ", and unknown hosts are refused"
        said = self.reason if authority in self.reason else f"{authority}: {self.reason}"
        return "; ".join((f"{said}{refused}", *self.words()[1:]))

    def seen(self, head: Head) -> Head:
        """The head as the routes see it, after the listener: itself, as a rule."""
        manager, listener = self.manager, self.listener
        if manager is None or listener is None or not changes_heads(manager):
            return head
        return normalized(head, manager, listener.addresses[0].port if listener.addresses else None)

    def __repr__(self) -> str:
        return f"Resolution({self.via!r}, {self.reason!r})"


class _Entry:
    """A listener with what is called through it."""

    __slots__ = ("listener", "manager", "part", "routes")

    def __init__(self, part: str, listener: Listener, manager: HttpManager, routes: CompiledRoutes) -> None:
        self.part = part
        self.listener = listener
        self.manager = manager
        self.routes = routes

    def resolution(self, reason: str, name: str = "") -> Resolution:
        return Resolution(
            "mesh",
            reason,
            part=self.part,
            listener=self.listener,
            routes=self.routes,
            manager=self.manager,
            name=name,
        )


class View:
    """A snapshot, ready to be asked. Safe to share between threads: all but the memory of answers is immutable, and that
    is a dict whose single operations are atomic; an answer made twice is the same answer.
    """

    __slots__ = (
        "__weakref__",
        "_absent",
        "_addresses",
        "_answers",
        "_compiled",
        "_ports",
        "_services",
        "_targets",
        "_template",
        "_xds_arrived",
        "notes",
        "rules",
        "snapshot",
    )

    def __init__(self, snapshot: Snapshot, rules: Rules, previous: View | None) -> None:
        self.snapshot = snapshot
        self.rules = rules
        self._answers: dict[tuple[str, str, int | None, str], Resolution] = {}
        self._compiled: dict[int, CompiledRoutes] = {}
        self._addresses: dict[tuple[str, int], _Entry] = {}
        self._ports: dict[int, list[_Entry]] = {}
        self._targets: dict[str, _Entry] = {}
        self._absent: set[str] = set()
        self._xds_arrived = False
        known = previous._compiled if previous is not None else {}
        services: list[tuple[str, tuple[str, _Entry]]] = []
        for part in snapshot.parts:
            services.extend((key, (key, entry)) for key, entry in self._service_entries(part, known))
            self._sidecar_entries(part, known)
            self._target_entries(part, known)
        self._services = DomainIndex(services)
        self._template = _Template(rules.template, with_port=rules.with_port)
        self.notes = tuple(note for routes in self._compiled.values() for note in routes.notes)

    # --- compiling ----------------------------------------------------------------------------------------------------

    def _entry(
        self, part: Part, listener: Listener, manager: HttpManager, known: dict[int, CompiledRoutes]
    ) -> _Entry | None:
        if manager.routes is None:
            return None
        return _Entry(part.source, listener, manager, self._routes(manager.routes, known))

    def _routes(self, config: RouteConfiguration, known: dict[int, CompiledRoutes]) -> CompiledRoutes:
        """Compiled once: what the previous view compiled of the same value is kept."""
        key = id(config)
        compiled = self._compiled.get(key)
        if compiled is None:
            old = known.get(key)
            compiled = old if old is not None and old.config is config else compile_routes(config)
            self._compiled[key] = compiled
        return compiled

    def _service_entries(self, part: Part, known: dict[int, CompiledRoutes]) -> Iterator[tuple[str, _Entry]]:
        for key, listener in part.services.items():
            manager = listener.http
            entry = self._entry(part, listener, manager, known) if manager is not None else None
            if entry is not None:
                yield key, entry

    def _sidecar_entries(self, part: Part, known: dict[int, CompiledRoutes]) -> None:
        if part.source == _XDS:
            self._xds_arrived = True
            if self.rules.view == "target":
                return
        for listener in part.sidecar:
            manager = _plain_http(listener)
            if manager is None or not listener.outbound:
                continue
            entry = self._entry(part, listener, manager, known)
            if entry is None:
                continue
            for address in listener.addresses:
                if not address.unix:
                    self._addresses.setdefault((_canonical(address.host), address.port), entry)
                    self._ports.setdefault(address.port, []).append(entry)

    def _target_entries(self, part: Part, known: dict[int, CompiledRoutes]) -> None:
        if part.source == _XDS and self.rules.view == "sidecar":
            return
        self._absent.update(part.absent)
        for name, listener in part.targets.items():
            manager = listener.http
            entry = self._entry(part, listener, manager, known) if manager is not None else None
            if entry is not None:
                self._targets.setdefault(name, entry)

    # --- asking -------------------------------------------------------------------------------------------------------

    def resolve(self, scheme: str, host: str, port: int | None, authority: str) -> Resolution:
        """What ``scheme://host[:port]`` means for a call whose Host is ``authority``. ``host`` may have an IPv6 address's
        brackets; ``port`` None is the scheme's own.
        """
        key = (scheme, host, port, authority)
        answer = self._answers.get(key)
        if answer is None:
            answer = self._resolve(scheme, host, port, authority)
            if len(self._answers) >= _REMEMBERED:
                # Hosts made up by a caller must not grow this without bound.
                self._answers = {}
            self._answers[key] = answer
        return answer

    def _resolve(self, scheme: str, host: str, port: int | None, authority: str) -> Resolution:
        host = _canonical(host)
        number = port if port is not None else _DEFAULT_PORTS.get(scheme, 80)
        if self.rules.disabled:
            return Resolution("direct", "meshlib is switched off", plain=True)
        if _patterns(self.rules.bypass).matches(host, number):
            return Resolution("direct", f"{host} is on the bypass list", plain=True)
        return (
            self._service(host, number)
            or self._sidecar(host, number, authority)
            or self._target(host, port, number, authority)
            or self._unknown(host)
        )

    def _service(self, host: str, port: int) -> Resolution | None:
        """Rule 3."""
        shown = f"[{host}]" if ":" in host else host
        written = f"{shown}:{port}"
        services = self._services
        found = services.exact(written) or services.exact(shown)
        if found is None:
            wildcards = [
                item for item in (services.named(written), services.named(shown)) if item is not None
            ]
            if not wildcards:
                return None
            # The longest; of two that are equally long, the one that names the port.
            found = max(wildcards, key=lambda item: len(item[0].partition(":")[0]))
        key, entry = found
        return entry.resolution(f"{key} is a service of {_source_words(entry.part)}")

    def _sidecar(self, host: str, port: int, authority: str) -> Resolution | None:
        """Rule 4."""
        entries = self._ports.get(port)
        if not entries:
            return None
        for address in _addresses_of(host):
            entry = self._addresses.get((address, port))
            if entry is not None:
                return entry.resolution(f"listener {entry.listener.name} has the URL's address")
        for entry in entries:
            if entry.routes.knows(stripped(authority, entry.manager, port)):
                return entry.resolution(
                    f"listener {entry.listener.name} is on port {port} and has a virtual host for {authority}"
                )
        return None

    def _target(self, host: str, port: int | None, number: int, authority: str) -> Resolution | None:
        """Rule 5."""
        name = self._template.name(host, port, number, authority)
        entry = self._targets.get(name)
        if entry is not None:
            return entry.resolution(f"listener {name} is known to {_source_words(entry.part)}", name)
        rules = self.rules
        if not rules.has_xds or _is_ip(host) or not _patterns(rules.domains).matches(host, number):
            return None
        if rules.view == "sidecar":
            return None if self._xds_arrived else Resolution("wait", "no configuration has arrived yet")
        if name in self._absent:
            return self._unknown(host, name)
        words = f"listener {name} is asked for, and not there yet"
        return Resolution("wait", words, name=name, meant=self._nearest(host))

    def _unknown(self, host: str, name: str = "") -> Resolution:
        """Rule 6. ``name``: the target resource that was asked for in vain, and still is."""
        known = f"the control plane has no listener {name}" if name else f"no source knows {host}"
        meant = self._nearest(host)
        if self.rules.unknown == "refuse":
            return Resolution("refused", f"{known}, and unknown hosts are refused", name=name, meant=meant)
        return Resolution("direct", f"{known}: it is called directly", name=name, meant=meant)

    def _nearest(self, host: str) -> Callable[[], str] | None:
        """What finds the known host that is nearly ``host``, for as long as this view is in use."""
        if _is_ip(host):
            return None
        view = weakref.ref(self)  # who keeps a response shall not keep a configuration

        def find() -> str:
            of = view()
            return nearest(host, of._names()) if of is not None else ""

        return find

    def _names(self) -> Iterator[str]:
        """Every host that is known by its full name."""
        yield from self._services.names()
        yield from self._targets
        for entries in self._ports.values():
            for entry in entries:
                yield from entry.routes.names()


def compile_view(snapshot: Snapshot, rules: Rules, previous: View | None = None) -> View:
    """A view of ``snapshot``. Route configurations that ``previous`` has compiled are taken over."""
    return View(snapshot, rules, previous)


@dataclass(frozen=True, slots=True)
class _Template:
    """The names of target resources."""

    text: str
    with_port: bool
    encode: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "encode", self.text.startswith("xdstp:"))

    def name(self, host: str, port: int | None, number: int, authority: str) -> str:
        """BS-10. Without ``with_port`` the authority as it is written."""
        written = authority.lower()
        if self.with_port:
            shown = f"[{host}]" if ":" in host else host
            written = f"{shown}:{number}"
        elif not written:
            shown = f"[{host}]" if ":" in host else host
            written = shown if port is None else f"{shown}:{port}"
        if self.encode:
            written = _percent_encoded(written)
        return self.text.replace("%s", written)


def _percent_encoded(text: str) -> str:
    """As the path of a URI: what may stand there stays, ``/`` too."""
    return "".join(chr(byte) if chr(byte) in _PATH_CHARACTERS else f"%{byte:02X}" for byte in text.encode())


@lru_cache(maxsize=64)
def _patterns(patterns: tuple[str, ...]) -> HostPatterns:
    return HostPatterns(patterns)


def _plain_http(listener: Listener) -> HttpManager | None:
    """The connection manager that a plain connection to this listener would meet."""
    chains = [chain for chain in listener.chains if chain.http is not None]
    plain = next((chain for chain in chains if chain.match.transport != "tls"), None)
    return plain.http if plain is not None else None


def _canonical(host: str) -> str:
    """What cannot be a host is nobody's, and still has an answer."""
    try:
        return canonical_host(host)
    except ValueError:
        return host.lower()


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _addresses_of(host: str) -> tuple[str, ...]:
    """The addresses under which a listener may have what ``host`` spells. This machine's own loopback also reaches
    a listener on every address; another IP does not, for it may be somebody else's.
    """
    if host == "localhost":
        return "127.0.0.1", "::1", *sorted(_ANY)
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return ()
    return (str(address), *sorted(_ANY)) if address.is_loopback else (str(address),)


def _source_words(source: str) -> str:
    return {"static": "the configuration", "file": "the services file", _XDS: "the control plane"}.get(
        source, source
    )
