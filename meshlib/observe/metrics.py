"""What is counted: the conventions' histogram of attempts, and a few counters of our own.

Semantic conventions v1.44.0, ``http-metrics.md``: the histogram, its unit and its buckets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from meshlib.runtime.known import Known

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from meshlib.model.events import (
        BreakerChanged,
        EndpointChecked,
        EndpointEjected,
        HedgeStarted,
        RetryScheduled,
        SidecarChanged,
        Unanswered,
    )
    from meshlib.model.status import SourceStatus

__all__ = ["BUCKETS", "Instruments", "histogram"]

#: Seconds; the conventions' explicit bucket boundaries.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)

#: Everything of this process whose sources the gauge shows. An instrument is made once a process and cannot be taken
#: back, so that it must not keep a mesh alive.
_watched: Known[Instruments] = Known()


class Instruments:
    """The instruments of one mesh. Those of the same name are one in the SDK, however many meshes there are.

    Args:
        meter: The API's meter. It may be a proxy that a provider fills in later.
        sources: What the mesh's sources are now; asked in the thread that collects.
    """

    def __init__(self, meter: Any, sources: Callable[[], Iterable[SourceStatus]]) -> None:
        self._sources = sources
        self._duration = histogram(
            meter, "http.client.request.duration", "s", "Duration of HTTP client requests.", BUCKETS
        )
        self._retries = meter.create_counter("meshlib.retries", "{retry}", "Attempts after the first.")
        self._hedges = meter.create_counter(
            "meshlib.hedges", "{hedge}", "Attempts that were made beside another that was slow."
        )
        self._ejections = meter.create_counter(
            "meshlib.ejections", "{ejection}", "Endpoints ejected as outliers."
        )
        self._checks = meter.create_counter(
            "meshlib.health.transitions",
            "{transition}",
            "Changes of what endpoints are held for by health checks.",
        )
        self._breakers = meter.create_counter(
            "meshlib.breaker.transitions", "{transition}", "Changes of a circuit breaker's state."
        )
        self._unanswered = meter.create_counter(
            "meshlib.calls.unanswered",
            "{call}",
            "Calls for whose host the control plane had not answered in time.",
        )
        self._sidecar = meter.create_counter(
            "meshlib.sidecar.changes", "{change}", "Calls are handed to the sidecar, or no more."
        )
        _watched.add(self)
        meter.create_observable_gauge(
            "meshlib.source.ready", [_ready], "1", "1 where a source of configuration is ready, else 0."
        )

    def duration(self, seconds: float, attributes: Mapping[str, str | int], context: Any) -> None:
        """An attempt ended; ``context`` is its span's, so that exemplars find it."""
        self._duration.record(seconds, attributes, context)

    def retried(self, event: RetryScheduled) -> None:
        self._retries.add(1, {"meshlib.cluster": event.cluster})

    def hedged(self, event: HedgeStarted) -> None:
        self._hedges.add(1, {"meshlib.cluster": event.cluster})

    def ejected(self, event: EndpointEjected) -> None:
        # "5 gateway failures in a row", "success rate: 62.0%, …": the numbers would make a series of each.
        reason = event.reason.partition(":")[0]
        number, _, words = reason.partition(" ")
        reason = words if number.isdigit() else reason
        self._ejections.add(1, {"meshlib.cluster": event.cluster, "meshlib.ejection.reason": reason})

    def checked(self, event: EndpointChecked) -> None:
        if event.edge:
            self._checks.add(1, {"meshlib.cluster": event.cluster, "meshlib.health": event.health})

    def breaker(self, event: BreakerChanged) -> None:
        where = {"meshlib.route": event.route} if event.route else {"meshlib.cluster": event.cluster}
        self._breakers.add(1, {**where, "meshlib.breaker.state": event.new})

    def sidecar(self, event: SidecarChanged) -> None:
        self._sidecar.add(1, {"meshlib.sidecar.kind": event.kind, "meshlib.sidecar.state": event.state})

    def unanswered(self, event: Unanswered) -> None:
        self._unanswered.add(1, {"meshlib.via": event.via})

    def sources(self) -> Iterable[SourceStatus]:
        return self._sources()


def histogram(meter: Any, name: str, unit: str, description: str, buckets: Sequence[float]) -> Any:
    """A histogram that has ``buckets`` where no view says otherwise."""
    try:
        return meter.create_histogram(name, unit, description, explicit_bucket_boundaries_advisory=buckets)
    except TypeError:  # an API before the advisory parameter
        return meter.create_histogram(name, unit, description)


def _ready(_options: object) -> list[Any]:
    """One observation a source; of several meshes' sources with one name and server the worst."""
    from opentelemetry.metrics import Observation

    found: dict[tuple[str, str], int] = {}
    for instruments in _watched:
        for source in instruments.sources():
            key = (source.name, source.server)
            found[key] = min(found.get(key, 1), int(source.state == "ready"))
    return [
        Observation(
            value,
            {"meshlib.source": name, "meshlib.source.server": server} if server else {"meshlib.source": name},
        )
        for (name, server), value in found.items()
    ]
