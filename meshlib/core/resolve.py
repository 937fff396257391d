"""What a URL means: which listener, and so which routes, carry a call. Rules 1 to 6 of the contract, pure.

A :class:`View` is compiled from a snapshot once, off the request path, and asked once a call:

1. switched off, or the host is on the bypass list, or the service is to be left alone → direct
2. a sidecar to which calls are handed (:mod:`meshlib.core.handoff`)
3. a service's key: ``host:port``, ``host``, the longest wildcard
4. a listener made for an Envoy: its address is the URL's, or it listens on the URL's port and a virtual host of its own
   (not only ``*``) is for the Host (:mod:`meshlib.core.listeners`)
5. a listener made for gRPC, asked for by name
6. else direct, or refused

Within a rule the parts of the snapshot are asked in their order. How far a service has joined is told beside the answer, which
is that of the calls that are in.

What a control plane has not said yet is waited for, and each answer that says so (``via`` is "wait") has with it what
holds when the time is over (``otherwise``):

    what is known                                        while waiting    when the time is over
    ---------------------------------------------------  ---------------  -----------------------------------------
    a listener has the host; its routes have not come    wait             failed: it never goes direct
    a target exists and cannot be used                   failed           -
    a name for which not all was answered                wait             cold start: direct, or failed where
                                                                          ``cold_start`` or ``unknown`` say so
    the same, and the control plane is not reachable     no wait          the same
    an IP address that no listener has, another name     rule 6           -
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import TYPE_CHECKING

from meshlib.config.hosts import HostPatterns
from meshlib.config.values import DEFAULT_DOMAINS
from meshlib.core.domains import DomainIndex, by_key
from meshlib.core.handoff import Handoff
from meshlib.core.joining import WHOLE, Adoption, Joinings, joining
from meshlib.core.listeners import Entry, Listeners
from meshlib.core.match import CompiledRoutes, compile_routes
from meshlib.core.nearest import nearest
from meshlib.core.resolution import Resolution
from meshlib.model.hosts import canonical_host, is_ip
from meshlib.model.match import PathKind, PathMatch, RouteMatch
from meshlib.model.route import Forward, Route, RouteConfiguration, VirtualHost
from meshlib.model.snapshot import Fate

if TYPE_CHECKING:
    from meshlib.model.listener import HttpManager, Listener
    from meshlib.model.snapshot import Absence, Part, Snapshot

__all__ = ["Rules", "View", "compile_view", "source_words"]

#: Parts that a control plane speaks through; ``xds.view`` and ``xds.domains`` are about them.
_XDS = "xds"
FEDERATED = "xds://"
#: Of a call that the mesh makes for itself to one of its clusters, with the source of the part that has it.
OF_CLUSTER = "cluster://"
"""The scheme of a call to a target of an authority's, with the authority behind it; the calls are gRPC's."""

_DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443, "grpc": 443}
_PATH_CHARACTERS = frozenset(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~!$&'()*+,;=:@/"
)
_REMEMBERED = 4096


@dataclass(frozen=True, slots=True)
class Rules:
    """What of the application's configuration decides here. ``domains`` and ``bypass`` are patterns as in the
    configuration file; ``template`` is the bootstrap's listener name template (``%s``); ``with_port``: the name always
    has the port (Istio); ``has_xds``: a control plane is configured, so that waiting for one makes sense; ``server``: its
    address, for words; ``cold_start``: "direct" or "fail"; ``node``: our cluster's name and our id, as listeners have them
    told; ``fallback``: what holds when a sidecar went away, "when_allowed" or "never". ``templates``: those of the bootstrap's
    authorities, for calls whose scheme is ``FEDERATED`` and the authority (BS-11).
    """

    bypass: tuple[str, ...] = ()
    disabled: bool = False
    view: str = "auto"
    domains: tuple[str, ...] = DEFAULT_DOMAINS
    template: str = "%s"
    with_port: bool = False
    unknown: str = "direct"
    has_xds: bool = False
    server: str = ""
    cold_start: str = "direct"
    node: tuple[str, str] = ("", "")
    adoption: Adoption = WHOLE
    fallback: str = "when_allowed"
    templates: Mapping[str, str] = field(default_factory=dict, hash=False)


class View:
    """A snapshot, ready to be asked. Safe to share between threads: all but the memory of answers is immutable, and that
    is a dict whose single operations are atomic; an answer made twice is the same answer.
    """

    __slots__ = (
        "__weakref__",
        "_absent",
        "_answers",
        "_compile",
        "_compiled",
        "_handoff",
        "_joinings",
        "_listed",
        "_listeners",
        "_of_grpc",
        "_services",
        "_targets",
        "_template",
        "_unreached",
        "rules",
        "snapshot",
    )

    def __init__(
        self, snapshot: Snapshot, rules: Rules, previous: View | None, give_way: Callable[[], object]
    ) -> None:
        self.snapshot = snapshot
        self.rules = rules
        self._answers: dict[tuple[str, str, int | None, str], Resolution] = {}
        self._compiled: dict[int, CompiledRoutes] = {}
        self._listeners = Listeners()
        self._targets: dict[str, Entry] = {}
        self._absent: dict[str, Absence] = {}
        self._listed = False  # whether the control plane has said which listeners there are for an Envoy
        self._unreached = ""
        self._handoff: Handoff | None = None
        self._joinings = Joinings(rules.adoption)
        known = previous._compiled if previous is not None else {}
        # The first gRPC call of a process compiles for itself; what comes later is ready for the next.
        self._of_grpc = any(routes.of_grpc for routes in known.values())
        self._compile = partial(compile_routes, give_way=give_way)
        services: list[tuple[str, tuple[str, Entry]]] = []
        for part in snapshot.parts:
            entries = self._service_entries(part, known)
            if part.handoff is not None:
                self._handoff = Handoff(part.handoff, dict(entries), rules.fallback)
                continue
            services.extend((key, (key, entry)) for key, entry in entries)
            self._sidecar_entries(part, known)
            self._target_entries(part, known)
        self._services = DomainIndex(services)
        self._template = _Template(rules.template, with_port=rules.with_port)

    # --- compiling ----------------------------------------------------------------------------------------------------

    def _entry(
        self, part: Part, listener: Listener, manager: HttpManager, known: dict[int, CompiledRoutes]
    ) -> Entry:
        routes = self._routes(manager.routes, known) if manager.routes is not None else None
        return Entry(part.source, listener, manager, routes, self.rules.node)

    def _routes(self, config: RouteConfiguration, known: dict[int, CompiledRoutes]) -> CompiledRoutes:
        """Compiled once: what the previous view compiled of the same value is kept."""
        key = id(config)
        compiled = self._compiled.get(key)
        if compiled is None:
            old = known.get(key)
            compiled = old if old is not None and old.config is config else self._compile(config)
            if self._of_grpc:
                compiled.prepare_grpc()
            self._compiled[key] = compiled
        return compiled

    def _service_entries(self, part: Part, known: dict[int, CompiledRoutes]) -> Iterator[tuple[str, Entry]]:
        for key, listener in part.services.items():
            manager = listener.http
            if manager is not None and manager.routes is not None:
                yield key, self._entry(part, listener, manager, known)

    def _sidecar_entries(self, part: Part, known: dict[int, CompiledRoutes]) -> None:
        if part.source == _XDS:
            self._listed, self._unreached = part.listed, part.unreached
            if self.rules.view == "target":
                return
        for listener in part.sidecar:
            self._listeners.add(listener, partial(self._entry, part, listener, known=known))

    def _target_entries(self, part: Part, known: dict[int, CompiledRoutes]) -> None:
        if part.source == _XDS and self.rules.view == "sidecar":
            return
        self._absent.update(part.absent)
        for name, listener in part.targets.items():
            manager = listener.http
            if manager is not None:
                self._targets.setdefault(name, self._entry(part, listener, manager, known))

    def says_the_same(self, snapshot: Snapshot, rules: Rules) -> bool:
        """Whether a view of ``snapshot`` differs in nothing that is answered here: clusters are none of it."""
        parts, before = snapshot.parts, self.snapshot.parts
        return len(parts) == len(before) and all(map(_same_listeners, parts, before)) and rules == self.rules

    def over(self, snapshot: Snapshot) -> View:
        """A view of ``snapshot``, of which all that was compiled for this one holds."""
        made = copy(self)
        made.snapshot, made._answers = snapshot, {}
        return made

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
        if scheme.startswith(OF_CLUSTER):
            return self._to_cluster(scheme.removeprefix(OF_CLUSTER), host)
        host = _canonical(host)
        number = port if port is not None else _DEFAULT_PORTS.get(scheme, 80)
        if self.rules.disabled:
            return Resolution("direct", "meshlib is switched off", plain=True)
        if _patterns(self.rules.bypass).matches(host, number):
            return Resolution("direct", f"{host} is on the bypass list", plain=True)
        ours = self._joinings.of(host, number)
        if ours.mode == "off":
            return Resolution("direct", f"{host} has not joined", plain=True)
        answer = self._meant(scheme, host, port, number, authority)
        if ours.named or answer.via == "direct":
            how = ours
        else:
            # The control plane may say it of what the file does not name.
            found = answer.routes.virtual_host(authority) if answer.routes is not None else None
            how = joining(host, found.host.adoption) if found is not None and found.host.adoption else ours
            if how.mode == "off":  # and the name stays wanted
                return Resolution("direct", f"{host} has not joined", plain=True, name=answer.name)
        if how.mode != "on" and (how.named or answer.via != "direct"):
            answer.joining = how
        return answer

    def _meant(self, scheme: str, host: str, port: int | None, number: int, authority: str) -> Resolution:
        """Rules 2 to 6, of a service that has joined."""
        if scheme.startswith(FEDERATED):
            return self._federated(scheme.removeprefix(FEDERATED), host, port, number)
        return (
            (self._handoff.resolve(scheme, host, number) if self._handoff is not None else None)
            or self._service(host, number)
            or self._sidecar(scheme, host, number, authority)
            # gRPC's listener is that of the target, whatever authority its virtual hosts are matched against.
            or self._target(host, port, number, "" if scheme == "grpc" else authority)
            or self._unknown(host)
        )

    def _service(self, host: str, port: int) -> Resolution | None:
        """Rule 3."""
        found = by_key(self._services, host, port)
        if found is None:
            return None
        key, entry = found
        return entry.resolution(f"{key} is a service of {source_words(entry.part)}")

    def _sidecar(self, scheme: str, host: str, port: int, authority: str) -> Resolution | None:
        """Rule 4."""
        found = self._listeners.find(scheme, host, port, authority)
        if found is None:
            return None
        entry, reason = found
        return Resolution("closed", reason) if entry is None else self._through(entry, reason)

    def _target(self, host: str, port: int | None, number: int, authority: str) -> Resolution | None:
        """Rule 5, and what is not known yet for rule 4."""
        name = self._template.name(host, port, number, authority)
        entry = self._targets.get(name)
        if entry is not None:
            return self._through(entry, f"listener {name} is known to {source_words(entry.part)}", name)
        rules = self.rules
        if not rules.has_xds or is_ip(host) or not _patterns(rules.domains).matches(host, number):
            return None
        lacks = self._lacks_listeners(number)
        if rules.view == "sidecar":
            return self._unanswered(host, "", lacks) if lacks else None
        absence = self._absent.get(name)
        if absence is None:
            return self._unanswered(host, name, f"listener {name} is asked for, and not there yet")
        if absence.fate is Fate.UNUSABLE:
            end = Resolution("failed", absence.why, name=name)
        elif absence.fate is Fate.UNANSWERED:
            end = self._cold(host, name, absence.why)
        elif lacks:
            return self._unanswered(host, name, lacks)
        else:
            return self._unknown(host, name, absence.why)
        if absence.fate is Fate.UNUSABLE and not lacks:
            return end
        return Resolution("wait", lacks or absence.why, name=name, otherwise=end, hopeless=not lacks)

    def _to_cluster(self, part: str, cluster: str) -> Resolution:
        """A call of the mesh's own: no listener has it, and no policy but the cluster's is for it."""
        route = Route(RouteMatch(PathMatch(PathKind.PREFIX, "")), Forward(cluster, timeout=0.0))
        routes = self._compile(RouteConfiguration("", (VirtualHost("", ("*",), (route,)),)))
        return Resolution("mesh", "the mesh asks for itself", part=part, routes=routes)

    def _federated(self, authority: str, host: str, port: int | None, number: int) -> Resolution:
        """By the listener that an authority of the bootstrap's has, and in no other way (BS-11)."""
        text = self.rules.templates.get(authority)
        if text is None:
            return Resolution("failed", f"the xDS bootstrap has no authority {authority!r}")
        name = _Template(text, with_port=self.rules.with_port).name(host, port, number, "")
        entry = self._targets.get(name)
        if entry is not None:
            return self._through(entry, f"listener {name} is known to {source_words(entry.part)}", name)
        absence = self._absent.get(name)
        if absence is not None:
            return Resolution("failed", absence.why, name=name)
        lacks = f"listener {name} is asked for, and not there yet"
        end = Resolution("failed", f"{self._silent()}: {lacks}", name=name)
        return Resolution("wait", lacks, name=name, otherwise=end, hopeless=bool(self._unreached))

    def _lacks_listeners(self, port: int) -> str:
        """What of the listeners made for an Envoy is not known yet that could have a host on ``port``, in words."""
        if self.rules.view == "target":
            return ""
        if not self._listed:
            return "the listeners have not come yet"
        waiting = self._listeners.waiting(port)
        return waiting.lacks if waiting is not None else ""

    def _through(self, entry: Entry, reason: str, name: str = "") -> Resolution:
        """By a listener that has the host."""
        if entry.routes is not None:
            return entry.resolution(reason, name)
        lacks = entry.lacks
        end = Resolution("failed", f"{self._silent()}: {lacks}", name=name)
        return Resolution("wait", lacks, name=name, otherwise=end, hopeless=bool(self._unreached))

    def _unanswered(self, host: str, name: str, lacks: str) -> Resolution:
        """A name of which the control plane has not said whether it knows it."""
        end = self._cold(host, name, f"{self._silent()}: {lacks}")
        hopeless = bool(self._unreached)
        return Resolution(
            "wait", lacks, name=name, otherwise=end, hopeless=hopeless, meant=self._nearest(host)
        )

    def _silent(self) -> str:
        server = f"the control plane {self.rules.server}".rstrip()
        if self._unreached:
            return f"{server} is not reachable ({self._unreached})"
        return f"{server} has not answered"

    def _cold(self, host: str, name: str, said: str) -> Resolution:
        """What a name means whose answer did not come in time."""
        meant = self._nearest(host)
        if self.rules.cold_start == "fail" or self.rules.unknown == "refuse":
            return Resolution("failed", said, name=name, meant=meant)
        words = f"{said}: {host} is called directly"
        return Resolution("direct", words, name=name, meant=meant, unanswered=True)

    def _unknown(self, host: str, name: str = "", why: str = "") -> Resolution:
        """Rule 6. ``name``: the target resource that was asked for in vain, and still is; ``why``: how that ended."""
        known = f"no source knows {host}"
        if name:
            known = f"the control plane has no listener {name}"
            known += f" ({why})" if why else ""
        meant = self._nearest(host)
        if self.rules.unknown == "refuse":
            return Resolution("refused", f"{known}, and unknown hosts are refused", name=name, meant=meant)
        return Resolution("direct", f"{known}: it is called directly", name=name, meant=meant)

    def _nearest(self, host: str) -> Callable[[], str] | None:
        """What finds the known host that is nearly ``host``, for as long as this view is in use."""
        if is_ip(host):
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
        yield from self._listeners.names()


def compile_view(
    snapshot: Snapshot,
    rules: Rules,
    previous: View | None = None,
    give_way: Callable[[], object] = bool,
) -> View:
    """A view of ``snapshot``. ``give_way`` is called at steps of what may be long. What ``previous`` has compiled is taken over: route configurations, or all where only clusters differ."""
    if previous is not None and previous.says_the_same(snapshot, rules):
        return previous.over(snapshot)
    return View(snapshot, rules, previous, give_way)


def _same_listeners(part: Part, other: Part) -> bool:
    return (
        part.source == other.source
        and part.services is other.services
        and part.sidecar is other.sidecar
        and part.targets is other.targets
        and part.absent is other.absent
        and part.listed == other.listed
        and part.unreached == other.unreached
        and part.handoff is other.handoff
    )


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


def _canonical(host: str) -> str:
    """What cannot be a host is nobody's, and still has an answer."""
    try:
        return canonical_host(host)
    except ValueError:
        return host.lower()


def source_words(source: str) -> str:
    """A part of the snapshot, in words."""
    if source.startswith(f"{_XDS} "):
        return "a fallback control plane"
    return {"static": "the configuration", "file": "the services file", _XDS: "the control plane"}.get(
        source, source
    )
