"""The load reporting service of a control plane for tests: what it asks for, and what it is told."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from meshlib.xds import schema

if TYPE_CHECKING:
    import grpc

    from meshlib.testing.journal import Journal

__all__ = ["LoadReports"]

T = TypeVar("T")


class LoadReports:
    """Streams of load reports (LRS). Until `ask` is called, a stream is answered nothing. Every method may be called from every thread.

    `requests` are the `LoadStatsRequest` messages so far: a client's first has its node and no counts.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._asked: bytes | None = None
        self._requests: list[Any] = []
        self._open: list[queue.SimpleQueue[bytes | None]] = []
        self.opened = 0

    def ask(self, *clusters: str, interval: float = 1.0) -> None:
        """Asks for reports on these clusters (on all, without one) every `interval` seconds, on open streams and on new ones."""
        made = schema.message("envoy.service.load_stats.v3.LoadStatsResponse")(
            clusters=clusters, send_all_clusters=not clusters
        )
        made.load_reporting_interval.FromNanoseconds(int(interval * 1e9))
        self.send(made.SerializeToString())

    def send(self, data: bytes) -> None:
        """Answers with bytes as they are."""
        with self._journal.changed:
            self._asked = data
            for stream in self._open:
                stream.put(data)

    def drop(self) -> None:
        """Ends every open stream; new ones are welcome."""
        with self._journal.changed:
            for stream in self._open:
                stream.put(None)

    @property
    def requests(self) -> tuple[Any, ...]:
        with self._journal.changed:
            return tuple(self._requests)

    @property
    def streams(self) -> int:
        """How many are open."""
        return len(self._open)

    def reports(self, cluster: str) -> list[Any]:
        """The `ClusterStats` of a cluster so far, in order."""
        return [
            stats
            for request in self.requests
            for stats in request.cluster_stats
            if stats.cluster_name == cluster
        ]

    def total(self, cluster: str) -> dict[str, int]:
        """What the reports on a cluster come to: `issued`, `succeeded`, `failed`, `dropped`, and `active`, of the last one."""
        stats = self.reports(cluster)
        found = [each for one in stats for each in one.upstream_locality_stats]
        last = stats[-1].upstream_locality_stats if stats else ()
        return {
            "issued": sum(each.total_issued_requests for each in found),
            "succeeded": sum(each.total_successful_requests for each in found),
            "failed": sum(each.total_error_requests for each in found),
            "active": sum(each.total_requests_in_progress for each in last),
            "dropped": sum(one.total_dropped_requests for one in stats),
        }

    def wait_for(self, predicate: Callable[[], T], *, timeout: float = 5.0, what: str = "a load report") -> T:
        """Waits until `predicate()` is true, and gives what it returned; as `ControlPlane.wait_for`."""
        return self._journal.wait(predicate, timeout, what)

    def serve(self, incoming: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        """One stream, as gRPC calls it."""
        answers: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        reader = threading.Thread(target=self._read, args=(incoming, answers), name="lrs-read", daemon=True)
        with self._journal.changed:
            self.opened += 1
            self._open.append(answers)
            if self._asked is not None:
                answers.put(self._asked)
            self._journal.changed.notify_all()
        context.add_callback(lambda: answers.put(None))
        reader.start()
        try:
            yield from iter(answers.get, None)
        finally:
            with self._journal.changed:
                self._open.remove(answers)
                self._journal.changed.notify_all()

    def _read(self, incoming: Iterable[bytes], answers: queue.SimpleQueue[bytes | None]) -> None:
        try:
            for data in incoming:
                message = schema.message("envoy.service.load_stats.v3.LoadStatsRequest").FromString(data)
                with self._journal.changed:
                    self._requests.append(message)
                    self._journal.changed.notify_all()
        except Exception:  # noqa: BLE001  gRPC ends the iterator of a cancelled stream with a bare Exception
            answers.put(None)
        else:
            answers.put(None)
