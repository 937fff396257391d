"""A stream of load reports (LRS): when what is told (gRFC A27, A42, A64, A85).

Theory. A client says who it is, and then nothing until the server answers with the clusters that it wants to hear of, and how
often; from then on the client reports. The states of one stream, and what goes out:

    state     event           then      what goes out
    --------  --------------  --------  ----------------------------------------------------------------------
    closed    opened          asked     the node, which says that all clusters can be asked for; no counts (LR-01)
    asked     response        told      nothing; the interval counts from here
    told      response        told      nothing; the same again changes nothing, another interval begins anew (LR-02)
    told      interval over   told      the counts of the clusters that are wanted, unless all are zero as last time (LR-04)
    any       closed          closed    the next try is due after the delay of ST-04, which a response resets

    asked, told: bytes that are no response are passed over.

Of clusters that are not wanted the counts are taken and left, so that a server that asks for them later is not told of before.

Not thread-safe; time, randomness and the counts are passed in. Nothing here raises for what a server sent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import Enum

from meshlib.core.loads import NAMED, ClusterLoad, LocalityLoad
from meshlib.model.endpoint import Locality
from meshlib.xds import schema
from meshlib.xds.backoff import reconnect
from meshlib.xds.schema import WireMessage

__all__ = ["SHORTEST", "LoadMachine"]

_REQUEST = "envoy.service.load_stats.v3.LoadStatsRequest"
_RESPONSE = "envoy.service.load_stats.v3.LoadStatsResponse"
_FEATURE = "envoy.lrs.supports_send_all_clusters"
#: Seconds between two reports at least (LR-02); a server that names fewer is told of that often.
SHORTEST = 1.0
# And at most: a server that names more, or what is no time, means "hardly ever".
_LONGEST = 365 * 86400.0


class _Stage(Enum):
    CLOSED = "closed"
    ASKED = "asked"
    TOLD = "told"


class LoadMachine:
    """`node`: an `envoy.config.core.v3.Node`; `jitter`: gives a float in [0, 1). A driver writes what is given to it."""

    def __init__(self, node: WireMessage, jitter: Callable[[], float]) -> None:
        self._node = node
        self._jitter = jitter
        self._stage = _Stage.CLOSED
        self._failures = 0
        self._interval = 0.0
        self._all = False
        self._clusters: frozenset[str] = frozenset()
        self._due = 0.0
        self._zero = False  # the last report was all zero

    def opened(self) -> bytes:
        """A stream is up: the request to write."""
        self._stage = _Stage.ASKED
        self._interval, self._all, self._clusters, self._zero = 0.0, False, frozenset(), False
        request = schema.message(_REQUEST)()
        request.node.CopyFrom(self._node)
        if _FEATURE not in request.node.client_features:
            request.node.client_features.append(_FEATURE)
        return bytes(request.SerializeToString(deterministic=True))

    def received(self, raw: bytes, now: float) -> str:
        """What came on the stream; what is wrong with it, in words."""
        if self._stage is _Stage.CLOSED:
            return ""
        try:
            response = schema.message(_RESPONSE).FromString(raw)
        except schema.DecodeError as error:
            return f"the server sent {len(raw)} bytes that are no LoadStatsResponse: {error}"
        self._failures = 0
        self._all = bool(response.send_all_clusters)
        self._clusters = frozenset() if self._all else frozenset(response.clusters)
        given = response.load_reporting_interval
        interval = min(max(given.seconds + given.nanos / 1e9, SHORTEST), _LONGEST)
        if self._stage is _Stage.ASKED or interval != self._interval:
            self._stage, self._interval, self._due = _Stage.TOLD, interval, now + interval
        return ""

    def next_timer(self) -> float | None:
        """The `now` at which `tick` is due."""
        return self._due if self._stage is _Stage.TOLD else None

    def tick(
        self, now: float, take: Callable[[], Iterable[ClusterLoad]], give_way: Callable[[], object] = bool
    ) -> list[bytes]:
        """The reports to write; `take` gives the counts of all clusters since it was last called, and is called if it is time.
        `give_way` is called at each cluster.
        """
        if self._stage is not _Stage.TOLD or now < self._due:
            return []
        self._due = now + self._interval
        wanted = [load for load in take() if self._all or load.cluster in self._clusters]
        before, self._zero = self._zero, all(load.zero for load in wanted)
        if before and self._zero:
            return []
        request = schema.message(_REQUEST)()
        for load in wanted:
            give_way()
            request.cluster_stats.append(_cluster(load))
        return [bytes(request.SerializeToString(deterministic=True))]

    def closed(self) -> float:
        """The stream ended, or could not be opened: the seconds until the next try."""
        self._stage = _Stage.CLOSED
        delay = reconnect(self._failures, self._jitter)
        self._failures += 1
        return delay


def _cluster(load: ClusterLoad) -> WireMessage:
    made = schema.message("envoy.config.endpoint.v3.ClusterStats")(
        cluster_name=load.cluster,
        cluster_service_name=load.service,
        upstream_locality_stats=[_locality(each) for each in load.localities],
        total_dropped_requests=load.dropped,
    )
    for category, count in load.drops.items():
        made.dropped_requests.add(category=category, dropped_count=count)
    made.load_report_interval.FromNanoseconds(int(load.seconds * 1e9))
    return made


def _locality(load: LocalityLoad) -> WireMessage:
    made = schema.message("envoy.config.endpoint.v3.UpstreamLocalityStats")(
        total_successful_requests=load.succeeded,
        total_requests_in_progress=load.active,
        total_error_requests=load.failed,
        total_issued_requests=load.issued,
    )
    _place(made, load.locality)
    for name, (count, total) in load.metrics.items():
        if name.startswith(NAMED):
            made.load_metric_stats.add(
                metric_name=name, num_requests_finished_with_metric=count, total_metric_value=total
            )
        else:
            held = getattr(made, name)
            held.num_requests_finished_with_metric, held.total_metric_value = count, total
    return made


def _place(made: WireMessage, locality: Locality) -> None:
    made.locality.SetInParent()
    made.locality.region, made.locality.zone = locality.region, locality.zone
    made.locality.sub_zone = locality.sub_zone
