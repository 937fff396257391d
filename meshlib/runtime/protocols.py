"""What a runtime is given by others: who lends it a worker, and clients that cannot cross a fork."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from meshlib.runtime.worker import Worker

__all__ = ["Resting", "Workers"]


class Workers(Protocol):
    """Where a runtime gets its worker from (:class:`meshlib.runtime.process.SharedWorker`)."""

    def acquire(self) -> Worker: ...

    def release(self, worker: Worker, timeout: float = ..., *, for_now: bool = ...) -> None: ...


class Resting(Protocol):
    """What of a client cannot cross a fork (:class:`meshlib.hosts.grpc.subchannels.Subchannels`)."""

    def rest(self) -> None:
        """A fork comes: close what no call uses. It is made anew on use."""
        ...

    @property
    def needs(self) -> str:
        """The target resource by which it holds connections; ``""``: it holds none."""
        ...
