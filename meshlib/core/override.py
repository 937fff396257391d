"""Endpoints that are named for a call, before the balancer is asked (LB-10; Envoy's override host, gRFC A55).

An endpoint that is named is taken whatever its balancer would do, its priority and its share, as long as its health is one that its
cluster allows for that: by default UNKNOWN, HEALTHY and DEGRADED, for gRPC the first two, and of others DRAINING alone. One that
is ejected, or fails active checks, is UNHEALTHY, whatever the control plane says of it. An endpoint whose TLS cannot be had is never
taken. Where none is, the balancer chooses, unless the call is *strict*.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from meshlib.core.endpoint import Down
from meshlib.model.address import Address
from meshlib.model.endpoint import Health

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from meshlib.core.endpoint import LiveEndpoint
    from meshlib.model.call import Head
    from meshlib.model.cluster import Cluster

__all__ = ["Named", "Override", "chosen", "named_by", "peeked", "spelled", "tell_picked"]

#: So many names of one header are read.
_MOST = 64
#: Where ``override_host_status`` is not set.
_OF_ENVOY = frozenset({Health.UNKNOWN, Health.HEALTHY, Health.DEGRADED})
_OF_GRPC = frozenset({Health.UNKNOWN, Health.HEALTHY})
#: What gRPC knows of them.
_KNOWN_TO_GRPC = _OF_GRPC | {Health.DRAINING}
#: What of ``LiveEndpoint.down`` the control plane's word is not.
_UNHEALTHY = ~(Down.CONTROL_PLANE | Down.TLS)


class _Context(Protocol):
    """What of a pick's context (:class:`meshlib.core.upstream.PickContext`)."""

    grpc: bool
    override: Override | None


class _Balance(Protocol):
    """What of a balance (:class:`meshlib.core.locality.Balance`)."""

    def pick(self, context: Any) -> LiveEndpoint | None: ...

    def peek(self, context: Any) -> LiveEndpoint | None: ...


def spelled(address: Address) -> str:
    """An address as Envoy writes it."""
    return address.host if address.unix else str(address)


class Override:
    """``names``: addresses as Envoy writes them, in the order in which they are tried. ``strict``: nobody else will do. ``anybody``:
    their health does not matter (the policy ``override_host``). Of one call, and none of it is changed by a pick.
    """

    __slots__ = ("anybody", "names", "strict")

    def __init__(self, names: Iterable[str], *, strict: bool = False, anybody: bool = False) -> None:
        self.names = tuple(names)
        self.strict = strict
        self.anybody = anybody

    def choose(
        self, live: Mapping[Address, LiveEndpoint], cluster: Cluster, *, grpc: bool
    ) -> LiveEndpoint | None:
        """The first that is there and may be taken."""
        for name in self.names:
            address = _address(name)
            found = live.get(address) if address is not None else None
            if found is not None and (self.anybody or _may(found, cluster, grpc=grpc)):
                return found
        return None

    def among(self, live: Mapping[Address, LiveEndpoint], cluster: Cluster, *, grpc: bool, may: bool) -> bool:
        """Whether one that is named is there; ``may``: and may be taken."""
        if may:
            return self.choose(live, cluster, grpc=grpc) is not None
        return any(_address(name) in live for name in self.names)

    def names_it(self, endpoint: LiveEndpoint) -> bool:
        """Whether it is one of those that are named."""
        return any(_address(name) == endpoint.address for name in self.names)

    def words(self) -> str:
        """Who is named."""
        return " or ".join(self.names) or "nobody"


class Named:
    """The endpoints that a request's ``headers`` name, as the policy ``override_host`` has it: the first attempt goes to the first of
    them that is there, each further one to the next. Belongs to its plan.
    """

    __slots__ = ("_left",)

    def __init__(self, headers: Iterable[str], head: Head) -> None:
        self._left: tuple[str, ...] = ()
        for header in headers:
            # The first line of a name, as in Envoy.
            said = next((value for name, value in head.headers if name.lower() == header), "")
            self._left += tuple(filter(None, (text.strip() for text in said.split(",", _MOST))))[:_MOST]

    def override(self, number: int) -> Override | None:  # noqa: ARG002 - they go by who was picked
        return Override(self._left, anybody=True) if self._left else None

    def picked(self, endpoint: LiveEndpoint) -> None:
        """An attempt goes there."""
        places = [index for index, name in enumerate(self._left) if _address(name) == endpoint.address]
        self._left = self._left[places[0] + 1 :] if places else ()


class _Naming(Protocol):
    """Who names endpoints for a call: its session, its balancer's policy."""

    def override(self, number: int) -> Override | None: ...

    def picked(self, endpoint: LiveEndpoint) -> None: ...


def named_by(naming: Iterable[_Naming], number: int) -> Override | None:
    """What the first of them that names anybody for the attempt of that number says."""
    made = (each.override(number) for each in naming)
    return next((each for each in made if each is not None), None)


def tell_picked(naming: Iterable[_Naming], endpoint: LiveEndpoint) -> None:
    """An attempt goes to ``endpoint``."""
    for each in naming:
        each.picked(endpoint)


def chosen(
    context: _Context, balance: _Balance, live: Mapping[Address, LiveEndpoint], cluster: Cluster
) -> LiveEndpoint | None:
    """Whom a call with an override goes to; None: nobody."""
    override = context.override
    assert override is not None
    found = override.choose(live, cluster, grpc=context.grpc)
    return found if found is not None or override.strict else balance.pick(context)


def peeked(
    context: _Context, balance: _Balance, live: Mapping[Address, LiveEndpoint], cluster: Cluster
) -> LiveEndpoint | None:
    """As ``chosen``, and moves nothing on."""
    override = context.override
    found = None if override is None else override.choose(live, cluster, grpc=context.grpc)
    return found if found is not None or (override and override.strict) else balance.peek(context)


def _address(name: str) -> Address | None:
    if name[:1] in ("/", "@"):
        return Address(name, 0, True)
    try:
        return Address.parse(name)
    except ValueError:
        return None


def _may(endpoint: LiveEndpoint, cluster: Cluster, *, grpc: bool) -> bool:
    down, allowed = endpoint.down, cluster.override_statuses
    if down & Down.TLS or (grpc and endpoint.unreached):
        return False
    if allowed is None:
        allowed = _OF_GRPC if grpc else _OF_ENVOY
    elif grpc:
        allowed = allowed & _KNOWN_TO_GRPC
    return (Health.UNHEALTHY if down & _UNHEALTHY else endpoint.endpoint.health) in allowed
