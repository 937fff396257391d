"""One DNS question, asked in the calling thread: addresses of a name, or the endpoints that SRV records name.

The file of hosts comes first, as for every other program of this machine; then dnspython, with the system's resolver
configuration (its search list too) unless name servers are configured.
"""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from meshlib.config import DnsConfig

__all__ = ["Answer", "Found", "Question", "Resolver", "Unanswered"]

#: Seconds for one question with its repetitions and all name servers; and for one try at one of them.
LIFETIME = 4.0
TRY = 1.5

#: Seconds for which an entry of the file of hosts is taken to hold.
_HOSTS_TTL = 30.0

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
    """Nobody could say: no server answered, or it answered with a failure. The text says which."""


@dataclass(frozen=True, slots=True)
class Question:
    """``kind`` is ``"addresses"`` or ``"srv"``; ``family`` one of the keys of ``_ROWS``."""

    kind: str
    name: str
    family: str = "all"


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
    """``found`` is sorted, and empty where the name has nothing. ``ttl`` in seconds, None where none was told.
    ``lacks``: what could not be asked, in words, where something else was found all the same.
    """

    found: tuple[Found, ...]
    ttl: float | None = field(default=None, compare=False)
    lacks: str = field(default="", compare=False)


class Resolver:
    """Asks. Thread-safe; each question reads the system's configuration anew.

    Args:
        config: Name servers and their port.
        hosts: The file of hosts.
    """

    def __init__(self, config: DnsConfig, hosts: str = "/etc/hosts") -> None:
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
        addresses, ttl, lacks = self._addresses(question.name, question.family)
        return Answer(tuple(sorted(Found(0, address) for address in addresses)), ttl, lacks)

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

    def _addresses(self, name: str, family: str) -> tuple[list[str], float | None, str]:
        rows = _ROWS.get(family, _ROWS["all"])
        literal = _literal(name)
        if literal is not None:
            return [literal], None, ""
        local = self._from_hosts(name)
        ttl: float | None = None
        for row in rows:
            if local is not None:
                found, ttl, lacks = [each for each in local if _type_of(each) in row], _HOSTS_TTL, ""
            else:
                found, ttl, lacks = self._row(name, row)
            if found:
                return found, ttl, lacks
        return [], ttl, ""

    def _row(self, name: str, row: tuple[str, ...]) -> tuple[list[str], float | None, str]:
        """What the types of one row give. A type that fails is a failure only where no other has something."""
        found: list[str] = []
        ttls: list[float] = []
        failure: Unanswered | None = None
        for kind in row:
            try:
                records, ttl = self._query(name, kind)
            except Unanswered as problem:
                failure = problem
                continue
            found.extend(record.address for record in records)
            if ttl is not None:
                ttls.append(ttl)
        if failure is not None and not found:
            raise failure
        return found, min(ttls, default=None), str(failure or "")

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
        records, ttl = self._query(question.name, "SRV")
        ttls = [] if ttl is None else [ttl]
        rows: list[tuple[Any, list[str]]] = []
        failure: Unanswered | None = None
        for record in records:
            target = record.target.to_text().rstrip(".")
            if not target:
                continue  # RFC 2782: the service is decidedly not there
            try:
                addresses, one, lacks = self._addresses(target, question.family)
            except Unanswered as problem:
                failure = problem
                continue
            if lacks:
                failure = Unanswered(lacks)
            if one is not None:
                ttls.append(one)
            if addresses:
                rows.append((record, addresses))
        if failure is not None and not rows:
            raise failure
        return Answer(_endpoints(rows), min(ttls, default=None), str(failure or ""))

    # --- the wire -----------------------------------------------------------------------------------------------

    def _query(self, name: str, kind: str) -> tuple[list[Any], float | None]:
        """The records of one type; none where the name or the type is not there."""
        import dns.exception
        import dns.resolver

        try:
            answer = self._dnspython().resolve(
                name, kind, raise_on_no_answer=False, search=not self._nameservers, lifetime=LIFETIME
            )
        except dns.resolver.NXDOMAIN:
            return [], None
        except (dns.exception.DNSException, OSError, ValueError) as problem:
            text = str(problem) or type(problem).__name__
            raise Unanswered(f"{name} ({kind}): {text}") from problem
        if answer.rrset is None:
            return [], None
        return list(answer.rrset), float(answer.chaining_result.minimum_ttl)

    def _dnspython(self) -> Any:
        import dns.resolver

        resolver = dns.resolver.Resolver(configure=not self._nameservers)
        if self._nameservers:
            resolver.nameservers = list(self._nameservers)
            resolver.port = self._port
        resolver.timeout = TRY
        resolver.lifetime = LIFETIME
        return resolver


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


def _type_of(address: str) -> str:
    return "AAAA" if ":" in address else "A"


#: What asks one question; a test puts its own in the place of ``Resolver.ask``.
Ask = Callable[[Question], Answer]
