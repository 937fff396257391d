"""One DNS question, asked in the calling thread: addresses of a name, or the endpoints that SRV records name.

The file of hosts comes first, as for every other program of this machine; then dnspython, with the system's resolver
configuration (its search list too) unless name servers are configured.
"""

from __future__ import annotations

import contextlib
import ipaddress
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from meshlib.config import DnsConfig
    from meshlib.model.cluster import NameServers

__all__ = ["Answer", "Found", "Question", "Resolver", "Unanswered"]

#: Seconds for one question with its repetitions and all name servers; and for one try at one of them.
LIFETIME = 4.0
TRY = 1.5

#: Seconds for which an entry of the file of hosts is taken to hold.
_HOSTS_TTL = 30.0

#: Linux: asks for an interface's address (netdevice(7)), whose first byte is this for loopback; and how /proc/net/if_inet6 has ::1.
_SIOCGIFADDR, _LOOPBACK, _LOOPBACK6 = 0x8915, 127, "0" * 31 + "1"

#: The types asked for, for each ``Cluster.dns_family``: each row is asked until one has an answer (Envoy
#: ``DnsLookupFamily``: ``AUTO`` asks IPv6 first).
_ROWS: dict[str, tuple[tuple[str, ...], ...]] = {
    "all": (("A", "AAAA"),),
    "auto": (("AAAA",), ("A",)),
    "v4_only": (("A",),),
    "v6_only": (("AAAA",),),
    "v4_preferred": (("A",), ("AAAA",)),
}


class Unanswered(Exception):
    """Nobody could say: no server answered, or it answered with a failure. The text says which, and what was asked."""


@dataclass(frozen=True, slots=True)
class Question:
    """``kind`` is ``"addresses"`` or ``"srv"``; ``family`` one of the keys of ``_ROWS``; ``servers``: who is asked, and how, in place
    of what the configuration says.
    """

    kind: str
    name: str
    family: str = "all"
    servers: NameServers | None = None


@dataclass(frozen=True, slots=True, order=True)
class Found:
    """One endpoint. ``port`` is 0 and ``target`` ``""`` where only an address was asked for; ``priority`` counts from 0."""

    priority: int
    address: str
    port: int = 0
    weight: int = 1
    target: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """``found`` is sorted, and empty where the name has nothing; then ``nothing`` says why, and who said so. ``ttl`` in
    seconds, None where none was told. ``lacks``: what could not be asked, in words, where something else was found all
    the same; ``unasked``: the record types that this is about, where the question was for addresses.
    """

    found: tuple[Found, ...]
    ttl: float | None = field(default=None, compare=False)
    lacks: str = field(default="", compare=False)
    nothing: str = field(default="", compare=False)
    unasked: frozenset[str] = field(default=frozenset(), compare=False)

    def over(self, before: Answer) -> Answer:
        """The better of two, where this one lacks something: of addresses each type's last answer; of SRV, whose weights
        and priorities are of one answer, the one before if that was whole.
        """
        if not self.lacks:
            return self
        if self.unasked:
            kept = {item for item in before.found if type_of(item.address) in self.unasked}
            return replace(self, found=tuple(sorted({*self.found, *kept})))
        return self if before.lacks else before


class _Rows:
    """What one name has: addresses, the time for which they hold, and what is missing of them."""

    __slots__ = ("found", "nothing", "problems", "ttls")

    def __init__(self) -> None:
        self.found: list[str] = []
        self.ttls: list[float] = []
        self.nothing: dict[str, str] = {}  # by record type: nothing is there, as whom said
        self.problems: dict[str, str] = {}  # by record type: nobody could say

    @property
    def ttl(self) -> float | None:
        return min(self.ttls, default=None)


class Resolver:
    """Asks. Thread-safe; each question reads the system's configuration anew.

    Args:
        config: Name servers and their port.
        hosts: The file of hosts.
        routed: The record types whose addresses can be reached from here.
    """

    def __init__(
        self, config: DnsConfig, hosts: str = "/etc/hosts", routed: Callable[[], frozenset[str]] | None = None
    ) -> None:
        self._routed = routed or routed_types
        self._nameservers = list(config.nameservers)
        self._port = config.port
        self._hosts = Path(hosts)

    @property
    def server(self) -> str:
        """Who is asked, for a status."""
        return ", ".join(f"{address}:{self._port}" for address in self._nameservers) or "system"

    def ask(self, question: Question) -> Answer:
        """Blocks for at most a few seconds. Raises Unanswered."""
        if question.kind == "srv":
            return self._srv(question)
        name = question.name
        rows = self._addresses(name, question)
        if rows.problems and not rows.found:
            raise Unanswered(_said(name, rows.problems))
        return Answer(
            tuple(sorted(Found(0, address) for address in rows.found)),
            rows.ttl,
            _said(name, rows.problems),
            "" if rows.found else _said(name, rows.nothing),
            frozenset(rows.problems),
        )

    @staticmethod
    def prepare() -> None:
        """Load what asking needs, so that no helper thread is importing when the process forks: a module whose import
        a fork cuts off stays locked in the child for ever.
        """
        import dns.exception
        import dns.rdtypes.IN.A
        import dns.rdtypes.IN.AAAA
        import dns.rdtypes.IN.SRV
        import dns.resolver  # noqa: F401 - loaded, not used

    # --- addresses ----------------------------------------------------------------------------------------------

    def _addresses(self, name: str, question: Question) -> _Rows:
        """Of a name that the question is about, row by row of the family's types, until one has something. A type that fails leaves the others alone."""
        made = _Rows()
        literal = _literal(name)
        if literal is not None:
            made.found.append(literal)
            return made
        local = self._from_hosts(name)
        routed = self._routed() if question.servers is not None and question.servers.routable else None
        for row in _ROWS.get(question.family, _ROWS["all"]):
            for kind in row:
                if routed is not None and kind not in routed:
                    made.nothing[kind] = "no interface of this machine has an address of its kind"
                elif local is None:
                    self._records(made, name, kind, question.servers)
                else:
                    self._local(made, [each for each in local if type_of(each) == kind], kind)
            if made.found or made.problems:
                break
        return made

    def _records(self, made: _Rows, name: str, kind: str, servers: NameServers | None) -> None:
        try:
            records, ttl, nothing = self._query(name, kind, servers)
        except Unanswered as problem:
            made.problems[kind] = str(problem)
            return
        made.found.extend(record.address for record in records)
        if ttl is not None:
            made.ttls.append(ttl)
        if not records:
            made.nothing[kind] = nothing

    def _local(self, made: _Rows, addresses: list[str], kind: str) -> None:
        made.found.extend(addresses)
        made.ttls.append(_HOSTS_TTL)
        if not addresses:
            made.nothing[kind] = f"not in {self._hosts}, which has the name"

    def _from_hosts(self, name: str) -> list[str] | None:
        """The addresses that the file of hosts has for ``name``; None: it has none."""
        wanted = name.rstrip(".").lower()
        try:
            text = self._hosts.read_text(encoding="utf-8", errors="replace")
        except OSError:
            text = ""
        found: list[str] = []
        for line in text.splitlines():
            address, *names = line.partition("#")[0].split() or [""]
            literal = _literal(address)
            if literal is not None and wanted in (each.lower() for each in names) and literal not in found:
                found.append(literal)
        if not found and (wanted == "localhost" or wanted.endswith(".localhost")):
            found = ["127.0.0.1", "::1"]  # RFC 6761, section 6.3
        return found or None

    # --- services -----------------------------------------------------------------------------------------------

    def _srv(self, question: Question) -> Answer:
        """Every address of every target. The lowest number of priority is 0, the next 1 (RFC 2782: the lowest first)."""
        name = question.name
        try:
            records, ttl, nothing = self._query(name, "SRV", question.servers)
        except Unanswered as problem:
            raise Unanswered(_said(name, {"SRV": str(problem)})) from problem
        ttls = [] if ttl is None else [ttl]
        reasons = [_said(name, {"SRV": nothing})] if not records else []
        problems: dict[str, str] = {}
        rows: list[tuple[Any, list[str]]] = []
        for record in records:
            target = record.target.to_text().rstrip(".")
            if not target:
                reasons.append(f"{name} (SRV): the service is decidedly not there (RFC 2782)")
                continue
            found = self._addresses(target, question)
            ttls.extend(found.ttls)
            if found.problems:
                problems[target] = _said(target, found.problems)
            if found.found:
                rows.append((record, found.found))
            elif not found.problems:
                reasons.append(_said(target, found.nothing))
        lacks = "; ".join(f"{name} (SRV): {words}" for words in problems.values())
        if problems and not rows:
            raise Unanswered(lacks)
        why = "" if rows else "; ".join(dict.fromkeys(reasons))
        return Answer(_endpoints(rows), min(ttls, default=None), lacks, why)

    # --- the wire -----------------------------------------------------------------------------------------------

    def _query(
        self, name: str, kind: str, servers: NameServers | None
    ) -> tuple[list[Any], float | None, str]:
        """The records of one type, for how long they hold, and where there are none who says so. Raises Unanswered."""
        import dns.exception
        import dns.resolver

        resolver = None
        lifetime = LIFETIME if servers is None or servers.lifetime is None else servers.lifetime
        try:
            resolver = self._dnspython(servers)
            answer = resolver.resolve(
                name,
                kind,
                tcp=servers is not None and servers.tcp,
                raise_on_no_answer=False,
                search=not self._nameservers if servers is None else servers.search,
                lifetime=lifetime,
            )
        except dns.resolver.NXDOMAIN as problem:
            return [], None, f"NXDOMAIN from {_asked(resolver)}{_searched(name, problem)}"
        except dns.resolver.NoNameservers as problem:
            raise Unanswered(_failures(problem) or f"no answer of use from {_asked(resolver)}") from problem
        except dns.exception.Timeout as problem:
            raise Unanswered(f"no answer within {lifetime:g} s from {_asked(resolver)}") from problem
        except (dns.exception.DNSException, OSError, ValueError) as problem:
            raise Unanswered(str(problem) or type(problem).__name__) from problem
        if answer.rrset is None:
            return [], None, f"no data from {answer.nameserver}:{answer.port}"
        return list(answer.rrset), float(answer.chaining_result.minimum_ttl), ""

    def _dnspython(self, servers: NameServers | None) -> Any:
        """``servers`` without addresses are those of the configuration."""
        import dns.resolver

        chosen = servers.addresses if servers is not None else ()
        resolver = dns.resolver.Resolver(configure=bool(chosen) or not self._nameservers)
        if servers is not None:
            resolver.rotate = servers.rotate
        if chosen:
            from dns.nameserver import Do53Nameserver

            resolver.nameservers = [Do53Nameserver(each.host, each.port) for each in chosen]
        elif self._nameservers:
            resolver.nameservers = list(self._nameservers)
            resolver.port = self._port
        resolver.timeout = TRY if servers is None or servers.timeout is None else servers.timeout
        resolver.lifetime = LIFETIME
        return resolver


def routed_types() -> frozenset[str]:
    """Of A and AAAA those of whose kind an interface of this machine has an address that is no loopback: both, where the system does not
    tell.
    """
    if not sys.platform.startswith("linux"):
        return frozenset(("A", "AAAA"))
    import fcntl
    import socket

    found = set()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):  # it has none
                held = fcntl.ioctl(asked, _SIOCGIFADDR, name.encode()[:15].ljust(256, b"\0"))
                if held[20] != _LOOPBACK:
                    found.add("A")
    try:
        lines = Path("/proc/net/if_inet6").read_text("ascii").splitlines()
    except OSError:  # a system without IPv6
        lines = []
    if any(line.split()[0] != _LOOPBACK6 for line in lines):
        found.add("AAAA")
    return frozenset(found)


def _endpoints(rows: list[tuple[Any, list[str]]]) -> tuple[Found, ...]:
    """A target's weight is divided among its addresses, in whole numbers; weight 0 is the smallest there is."""
    ranks = {value: rank for rank, value in enumerate(sorted({record.priority for record, _ in rows}))}
    scale = min(1000, math.lcm(*(len(addresses) for _, addresses in rows))) if rows else 1
    found: dict[tuple[str, int], Found] = {}
    for record, addresses in rows:
        weight = max(1, max(1, record.weight) * scale // len(addresses))
        target = record.target.to_text().rstrip(".")
        for address in addresses:
            made = Found(ranks[record.priority], address, record.port, weight, target)
            known = found.get((address, record.port))
            if record.port and (known is None or made.priority < known.priority):
                found[address, record.port] = made
    return tuple(sorted(found.values()))


def _literal(text: str) -> str | None:
    """The IP address that ``text`` is, in its usual form, or None."""
    try:
        return str(ipaddress.ip_address(text.strip("[]")))
    except ValueError:
        return None


def _said(name: str, by_type: Mapping[str, str]) -> str:
    """What is said of the types of a name, in one line: types of which the same is said stand together."""
    kinds: dict[str, list[str]] = {}
    for kind, words in by_type.items():
        kinds.setdefault(words, []).append(kind)
    return "; ".join(f"{name} ({', '.join(of)}): {words}" for words, of in kinds.items())


def _asked(resolver: Any) -> str:
    """The name servers of a dnspython resolver."""
    servers = resolver.nameservers if resolver is not None else ()
    asked = (
        f"{server}:{resolver.port}" if isinstance(server, str) else f"{server.address}:{server.port}"
        for server in servers
    )
    return " or ".join(asked) or "no name server"


def _searched(name: str, problem: Any) -> str:
    """Under which other names a search list looked for it."""
    others = [
        str(each) for each in problem.qnames() if str(each).rstrip(".").lower() != name.rstrip(".").lower()
    ]
    return f" (also for {', '.join(others)})" if others else ""


def _failures(problem: Any) -> str:
    """What each server said that gave no answer: dnspython has a row for each try, with ``Do53:address@port``."""
    words = []
    for server, _, port, said, _ in problem.kwargs.get("errors", ()):
        address = str(server).partition(":")[2].rpartition("@")[0]
        words.append(f"{said or type(said).__name__} from {address or server}:{port}")
    return ", ".join(dict.fromkeys(words))


def type_of(address: str) -> str:
    """The type of record that has this address."""
    return "AAAA" if ":" in address else "A"


#: What asks one question; a test puts its own in the place of ``Resolver.ask``.
Ask = Callable[[Question], Answer]
