"""What follows from the evidence: which sidecar is there, how calls are handed to it, and how sure that is. Pure.

The rules, in this order (docs/decisions: "How sure"):

1. What configuration tells holds: an address, or a kind. Evidence then says only whether it is ready.
2. A row of the table is sure where each of its ports is listened on by its user and by nobody else, that is not this process's
   own user, none of the ports that it must not have is there, connections are redirected, and this is not the network namespace
   of a whole machine. Anything less is told of, and changes no call.
3. Istio's agent without an Envoy makes this process the data plane: "proxyless".
4. Variables name local listeners, or Dapr's ports.

Ready is what answered as ready. Where a health port is not listened on (they can be switched off), that the sidecar listens has
to do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Literal, NamedTuple

from meshlib.model.address import Address
from meshlib.model.sidecar import Confidence, Mode
from meshlib.sidecar.environment import Told, dapr, named
from meshlib.sidecar.evidence import EMPTY, Evidence, Probe
from meshlib.sidecar.signatures import KATO_LISTENERS, KATO_READY, SIGNATURES, Signature

if TYPE_CHECKING:
    from meshlib.config import SidecarConfig

__all__ = ["NOTHING", "OTHERS", "Finding", "detect"]

Origin = Literal["none", "configuration", "signature", "environment"]


class Finding(NamedTuple):
    """What one look found.

    Attributes:
        origin: What it is known from.
        sure: Whether it carries calls once it is ready.
        here: Whether there is anything to wait for, ready or not.
        listening: Whether what takes the calls listens; None where the system does not tell and nobody has asked yet.
        ready: Whether it is ready; None until ``probe`` is answered.
        probe: What to ask next; None where nothing is left to ask.
    """

    kind: str = "none"
    mode: Mode = "none"
    origin: Origin = "none"
    sure: bool = False
    here: bool = False
    listening: bool | None = False
    ready: bool | None = False
    evidence: tuple[str, ...] = ()
    address: Address | None = None
    grpc: Address | None = None
    upstreams: Mapping[str, Address] = EMPTY
    probe: Probe | None = None

    @property
    def confidence(self) -> Confidence:
        if self.kind == "none":
            return "none"
        told = self.origin == "configuration" or self.mode == "proxyless"
        return "high" if told or (self.sure and self.ready) else "low"


NOTHING = Finding()

OTHERS = "is listened on by user id"
"""In a line of evidence: somebody else is where a sidecar should be."""


def detect(evidence: Evidence, settings: SidecarConfig, *, late: bool = False) -> Finding:
    """What ``evidence`` shows. ``late``: it was waited for long enough; of several listeners those that are there have to do."""
    if settings.mode == "off":
        return NOTHING
    if settings.address is not None:
        return _addressed(evidence, settings, settings.address)
    kinds = None if settings.mode in ("auto", "require") else settings.mode
    found = [one for one in _candidates(evidence, late=late) if kinds in (None, one.kind)]
    # Of equals the first: they come in the order of the rules.
    best = max(found, key=lambda one: (one.sure or one.mode == "proxyless", one.here), default=NOTHING)
    if kinds is not None:
        return _told(best, evidence, kinds)
    if settings.mode == "require" and not best.sure and best.mode != "proxyless":
        line = "sidecar.mode is require, and nothing is found that is sure"
        # Of one that is yet to come nothing is known, and any call may be its.
        return best._replace(mode="transparent", here=True, evidence=(line, *best.evidence))
    return best


def _candidates(evidence: Evidence, *, late: bool) -> Iterator[Finding]:
    for row in SIGNATURES:
        if (found := _row(row, evidence)) is not None:
            yield found
    if evidence.bootstrap:
        line = f"{evidence.bootstrap} is a bootstrap of Istio's agent: this process is the data plane itself"
        yield Finding("istio", "proxyless", "environment", evidence=(line,))
    for told in named(evidence.environ):
        yield _named(told, evidence, late=late)


# --- rows of the table ------------------------------------------------------------------------------------------


def _row(row: Signature, evidence: Evidence) -> Finding | None:
    ports = evidence.ports
    complete = row.ports <= ports
    if row.without & ports or not (complete or _beginning(row, evidence)):
        return None
    seen = row.ports | row.early if not complete else row.ports
    doubts = tuple(_doubts(row, evidence, seen & ports))
    lines = (f"{_words(seen & ports)} of {row.name} listen", *doubts)
    if not doubts:
        lines = (f"{lines[0]}, owned by user id {row.uid}", "connections are redirected")
    found = Finding(
        row.kind, row.mode, "signature", not doubts, not doubts, row.carrier in ports, False, lines
    )
    return _asked(found, row.health, evidence, row.uid) if complete and not doubts else found


def _beginning(row: Signature, evidence: Evidence) -> bool:
    """Whether its own user listens on the first of its ports, and the others are still to come."""
    return row.uid is not None and any(
        evidence.owners(port) == {row.uid} for port in (row.early and row.early | row.ports)
    )


def _doubts(row: Signature, evidence: Evidence, ports: frozenset[int]) -> Iterator[str]:
    """Why it may be something else, or of no use to this process."""
    if row.uid is None:
        yield "any program may listen there"
    else:
        for port in sorted(ports):
            others = evidence.owners(port) - {row.uid}
            if others:
                yield f"{port} {OTHERS} {_words(others)}, and that of {row.name} is {row.uid}"
    if row.uid is not None and row.uid == evidence.uid:
        yield f"this process runs as user id {row.uid} itself: it could listen there, and what it sends need not be redirected"
    if row.mode == "transparent" and not evidence.redirected:
        yield "nothing shows that connections are redirected"
    yield from evidence.shared


def _asked(found: Finding, health: Probe | None, evidence: Evidence, uid: int | None) -> Finding:
    """``found``, which listens, with what its health port says, if anybody of its own listens there."""
    if health is None:
        return found._replace(ready=True)
    owners = evidence.owners(health.address.port)
    if not owners or (uid is not None and owners != {uid}):
        line = f"its health port {health.address.port} is not listened on: that it listens has to do"
        return found._replace(ready=True, evidence=(*found.evidence, line))
    return _after(found, (_placed(health, evidence),), evidence)


def _placed(health: Probe, evidence: Evidence) -> Probe:
    """Where there is IPv6 alone, its listener is on that."""
    return health._replace(address=_place(Address("localhost", health.address.port), evidence))


def _after(found: Finding, probes: tuple[Probe, ...], evidence: Evidence) -> Finding:
    """``found`` with what is answered to ``probes``, all of which must say that it is ready."""
    for probe in probes:
        answer = evidence.answers.get(probe)
        if answer is not None and answer.status == _UNKNOWN and probe.older:
            probe = Probe(probe.address, probe.older, probe.body)  # noqa: PLW2901
            answer = evidence.answers.get(probe)
        if answer is None:
            return found._replace(ready=None, probe=probe)
        ready = answer.ready(probe)
        line = f"{probe.address}{probe.path} {answer.words}: {'' if ready else 'not '}ready"
        found = found._replace(ready=ready, evidence=(*found.evidence, line))
        if not ready:
            return found
    return found


_UNKNOWN = 404


# --- what variables name ----------------------------------------------------------------------------------------


def _named(told: Told, evidence: Evidence, *, late: bool) -> Finding:
    found = Finding(
        told.kind,
        told.mode,
        "environment",
        sure=told.mode != "none",
        here=bool(told.addresses),
        evidence=told.lines,
        address=told.address,
        grpc=told.grpc,
        upstreams=told.upstreams,
    )
    if not told.addresses:
        return found
    there = {address: _listens(address, evidence) for address in told.addresses}
    if None in there.values():
        address = next(address for address, listens in there.items() if listens is None)
        return found._replace(listening=None, ready=None, probe=Probe(address))
    found = found._replace(listening=any(there.values()))
    if not found.listening:
        absent = _words(address.port for address in told.addresses)
        return found._replace(evidence=(*found.evidence, f"nobody listens on {absent}"))
    if told.probes:
        found = _after(found, told.probes, evidence)
        return (
            _with_listeners(found, told, evidence, late=late)
            if told.kind == "kato" and found.ready
            else found
        )
    return _with_upstreams(found, {address for address in there if there[address]}, told, late=late)


def _with_listeners(found: Finding, told: Told, evidence: Evidence, *, late: bool) -> Finding:
    """Kato: the dependencies whose listeners are among those that its sidecar has."""
    ports = _ports_listed(evidence.answers[KATO_LISTENERS].body)
    there = {
        address for address in (*told.upstreams.values(), *told.others.values()) if address.port in ports
    }
    return _with_upstreams(found, there, told, late=late)


def _with_upstreams(found: Finding, there: set[Address], told: Told, *, late: bool) -> Finding:
    known = {name: address for name, address in {**told.others, **told.upstreams}.items() if address in there}
    missing = sorted({str(address) for address in told.upstreams.values() if address not in there})
    if not missing and known:
        return found._replace(ready=True, upstreams=known)
    line = (
        f"nobody listens for its upstreams at {', '.join(missing)}"
        if missing
        else "it has no listener for a dependency"
    )
    ready = late and bool(known)
    return found._replace(
        ready=ready, upstreams=known if ready else found.upstreams, evidence=(*found.evidence, line)
    )


def _ports_listed(body: bytes) -> frozenset[int]:
    """Of Envoy's ``/listeners``: lines of ``name::address:port``."""
    digits = (line.rpartition(b":")[2].strip() for line in body.splitlines())
    return frozenset(int(text) for text in digits if text.isdigit() and len(text) < 6)


# --- what configuration tells -----------------------------------------------------------------------------------


def _told(best: Finding, evidence: Evidence, kind: str) -> Finding:
    """A kind was told; ``best`` is what was found of it."""
    line = f"sidecar.mode is {kind}"
    if best.mode == "proxyless":
        return best._replace(evidence=(line, *best.evidence))
    if best.origin != "environment" or not best.sure:
        best = _told_row(evidence, kind)
    return best._replace(origin="configuration", sure=True, here=True, evidence=(line, *best.evidence))


def _told_row(evidence: Evidence, kind: str) -> Finding:
    if kind == "dapr":
        return _named(dapr(), evidence, late=False)
    if kind == "kato":
        # Its upstreams are told by variables; without them there is nothing to hand over.
        return _named(
            Told("kato", "listener", (KATO_READY.address,), (), probes=(KATO_READY,)), evidence, late=False
        )
    ports = evidence.ports
    rows = [
        row
        for row in SIGNATURES
        if row.kind == kind and row.mode == "transparent" and not row.without & ports
    ]
    row = max(rows, key=lambda row: (row.ports <= ports, len(row.ports & ports)))
    listening = None if evidence.listeners is None else row.carrier in ports
    found = Finding(kind, row.mode, listening=listening, evidence=_told_lines(row, evidence))
    if listening is None and row.health is not None:
        found = _after(found, (row.health,), evidence)
        answer = evidence.answers.get(row.health)
        return found._replace(listening=None if answer is None else answer.outcome != "refused")
    if listening is False:
        return found
    return _asked(found, row.health, evidence, None)


def _told_lines(row: Signature, evidence: Evidence) -> tuple[str, ...]:
    there = (row.ports | row.early) & evidence.ports
    lines = (f"{_words(there)} of {row.name} listen" if there else f"nobody listens on {_words(row.ports)}",)
    return (*lines, *_doubts(row, evidence, there))


def _addressed(evidence: Evidence, settings: SidecarConfig, text: str) -> Finding:
    kind = settings.mode if settings.mode not in ("auto", "require") else "envoy"
    address = _place(Address.parse(text.removeprefix("http://")), evidence)
    mode: Mode = "api" if kind == "dapr" else "forward_proxy" if text.startswith("http://") else "listener"
    listening = _listens(address, evidence)
    words = {True: "somebody listens there", False: "nobody listens there", None: "not looked at yet"}[
        listening
    ]
    found = Finding(
        kind,
        mode,
        "configuration",
        sure=True,
        here=True,
        listening=listening,
        ready=listening,
        evidence=(f"sidecar.address is {text}", words),
        address=address,
        probe=Probe(address) if listening is None else None,
    )
    if kind != "dapr":
        return found
    told = dapr(address.port)
    grpc = next((one.grpc for one in named(evidence.environ) if one.kind == "dapr"), told.grpc)
    found = found._replace(grpc=grpc)
    return _after(found, told.probes, evidence) if listening and not address.unix else found


def _place(address: Address, evidence: Evidence) -> Address:
    """``localhost`` as the address on which somebody listens."""
    if address.host != "localhost":
        return address
    four, six = Address("127.0.0.1", address.port), Address("::1", address.port)
    return six if evidence.listens(six) and not evidence.listens(four) else four


def _listens(address: Address, evidence: Evidence) -> bool | None:
    """Whether somebody listens there: as the system tells, or as it was asked."""
    known = evidence.listens(address)
    answer = evidence.answers.get(Probe(address))
    return known if known is not None or answer is None else answer.outcome != "refused"


def _words(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(numbers))) or "nothing"
