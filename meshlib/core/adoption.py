"""What the mesh would have made of a call of a service that has not joined it.

Theory. A call that stays out is made as it always was. When it has ended, what the mesh would have made of it is decided beside it,
and the two are compared:

    not_known     the control plane has not said yet what the host is: not compared
    refused       the call would not have been let out              ┐
    no_route      no route matches: 404                             │
    answered      the configuration answers by itself               │ not safe to go on
    no_endpoint   nobody can be called                              │
    port          the same host, and another port                   ┘
    host          another host of the service, found by the mesh    ┐
    tls           TLS in the place of plain text                    │ what the mesh is for
    retry         the answer would have been retried                │
    timeout       the route's time would have been over             ┘

Nothing is counted at the cluster, and nothing is sent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from meshlib.core.retry import Retries, may_matter
from meshlib.core.stages import Routed, retry_policy, route, time_limits
from meshlib.core.upstream import PickContext
from meshlib.model.call import OK
from meshlib.model.cluster import Discovery
from meshlib.model.route import Forward

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from meshlib.core.effects import Env
    from meshlib.core.resolution import Resolution
    from meshlib.core.upstream import Upstream
    from meshlib.model.call import Head, Outcome
    from meshlib.model.cluster import Cluster
    from meshlib.model.policy import RetryPolicy

__all__ = ["Difference", "Places", "compare", "is_safe"]

_NOT_KNOWN = "not_known"
#: Differences after which going on would break calls that work now.
_UNSAFE = frozenset({"answered", "no_endpoint", "no_route", "port", "refused"})


def is_safe(calls: int, different: Mapping[str, int]) -> bool:
    """Whether a service of which so much was seen can go on: something was compared, and nothing would break."""
    return calls > different.get(_NOT_KNOWN, 0) and _UNSAFE.isdisjoint(different)


class Difference(NamedTuple):
    """``detail``: what the mesh would have done, in words."""

    reason: str
    detail: str


class Places:
    """Where the endpoints of clusters are, gathered once for each state of a cluster. Thread-safe: entries are replaced whole."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Cluster, Mapping[str, frozenset[int]]]] = {}

    def of(self, cluster: Cluster) -> Mapping[str, frozenset[int]]:
        """Ports by host."""
        entry = self._known.get(cluster.name)
        if entry is None or entry[0] is not cluster:
            found: dict[str, set[int]] = {}
            for group in cluster.assignment.localities if cluster.assignment is not None else ():
                for endpoint in group.endpoints:
                    found.setdefault(endpoint.address.host, set()).add(endpoint.address.port)
            entry = cluster, {host: frozenset(ports) for host, ports in found.items()}
            self._known[cluster.name] = entry
        return entry[1]


def compare(
    resolution: Resolution, head: Head, peer: str, outcome: Outcome, env: Env, places: Places
) -> list[Difference]:
    """Where the mesh would have made something else of a call than what became of it. ``peer``: who answered, ``host:port``, or ``""``."""
    via = resolution.via
    if via == "wait" or resolution.unanswered:
        return [Difference(_NOT_KNOWN, resolution.reason)]
    if via in ("failed", "refused"):
        return [Difference("refused", resolution.reason)]
    if via != "mesh" or resolution.handed is not None:
        return []
    routed = Routed(*route(resolution, head, env.random, grpc=outcome.grpc))
    if routed.answer is not None:
        response, words = routed.answer
        if routed.match is None:
            return [Difference("no_route" if response.status == 404 else "refused", words)]
        return [Difference("refused" if response.status == 403 else "answered", words)]
    match = routed.match
    assert match is not None
    action = match.route.action
    assert isinstance(action, Forward)
    upstream = env.upstream(resolution.part, routed.cluster)
    if isinstance(upstream, str):
        why = upstream or env.awaits(resolution.part, routed.cluster)
        return [Difference("no_endpoint" if upstream else _NOT_KNOWN, f"cluster {routed.cluster!r} {why}")]
    if upstream.cluster.discovery is Discovery.ORIGINAL_DST:
        return []
    found = list(_reached(upstream, head, peer, places, grpc=outcome.grpc))
    policy = retry_policy(match, action, upstream.cluster)
    found.extend(_policies(resolution, policy, action, head, outcome, env))
    return found


def _reached(
    upstream: Upstream, head: Head, peer: str, places: Places, *, grpc: bool
) -> Iterator[Difference]:
    """What differs in where the call would have gone."""
    leaf, context, _ = upstream.chosen(PickContext(head=head, grpc=grpc))
    cluster = upstream.cluster if leaf is None else leaf.cluster
    endpoint = None if leaf is None else leaf.peek(context)
    if endpoint is None:
        yield Difference("no_endpoint", f"cluster {cluster.name} has no endpoint that can be called")
        return
    host, _, port = peer.rpartition(":")
    if host:
        ports = places.of(cluster).get(host.strip("[]"))
        if ports is None:
            yield Difference("host", f"endpoint {endpoint.name} of cluster {cluster.name}")
        elif port.isdigit() and int(port) not in ports:
            yield Difference("port", f"endpoint {endpoint.name} of cluster {cluster.name}")
    if endpoint.tls is not None and head.scheme != "https":
        yield Difference("tls", f"cluster {cluster.name} is called by TLS")


def _policies(
    resolution: Resolution,
    policy: RetryPolicy | None,
    action: Forward,
    head: Head,
    outcome: Outcome,
    env: Env,
) -> Iterator[Difference]:
    """What differs in how long it may take and what is tried again."""
    if policy is not None and not outcome.grpc and may_matter(policy, outcome):
        again = Retries(policy, env.random, method=head.method, head=head, wall=env.wall).after(
            outcome, outcome.seconds, 0.0
        )
        if again is not None:
            yield Difference("retry", again.reason)
    limit = time_limits(resolution, action, head=head)[0]
    if limit is not None and outcome.kind is OK and outcome.seconds > limit:
        yield Difference("timeout", f"the route's timeout is {limit:g} s")
