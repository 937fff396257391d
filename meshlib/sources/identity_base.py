"""What gives the process its identity, whatever it is: the protocol that `sources/identity.py` holds its providers to.

A provider has one certificate with its key, and the roots that others are trusted by, or several of them by name. It makes them
known as `Secret` values whose PEM is in memory: what is in one was read whole, and is a pair. A secret stays as it is until a
better one is there: what cannot be read or had is told of by ``status``, and takes nothing away.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshlib.model.tls import Secret, SecretName

__all__ = ["CERTIFICATE", "ROOTS", "Provider", "ProviderStatus"]

#: The instances that stand for the identity itself: Istio's agent beside a proxy calls its certificate and its roots so.
CERTIFICATE = "default"
ROOTS = "ROOTCA"


@dataclass(frozen=True, slots=True)
class ProviderStatus:
    """``server``: where identities are asked for, or the files; ``state``: as of a source (``"connecting"``: none was had yet;
    ``"ready"``; ``"stale"``: the last good one serves; ``"failed"``); ``last_error``: why, in words, and no word of a secret.
    """

    server: str = ""
    state: str = "idle"
    last_error: str = ""


class Provider(Protocol):
    """One way to have an identity. Its methods are called on the worker, where nothing may block: what asks a network has a thread, or
    a callback of grpc's, and posts what came of it. Locks are not needed then. ``status`` may be called from any thread, and reads
    attributes that are swapped whole.

    It is made with the worker (its clock, ``post`` and ``later``), the mesh's ``random`` for jitter, and by name what is told of it:
    ``IstioProvider(worker, random, server="host:port", token="file", ca="file", metadata=…)``, the node's as it is told to the control
    plane; ``SpiffeProvider(worker, random, socket="unix:/path")``. Making it starts nothing and reads nothing. Each process makes its
    own: nothing of it crosses a fork.
    """

    def start(self, told: Callable[[], object]) -> None:
        """Begin, or begin again after ``stop``. ``told``: to be called on the worker whenever ``secret`` or ``status`` may give
        something else than before.
        """
        ...

    def stop(self) -> None:
        """End what runs (timers, threads, channels), within a moment. What was had stays."""
        ...

    def secret(self, name: SecretName) -> Secret | str | None:
        """The newest good one of that kind; the same object as long as it is the same. A str: it will not come, and why, in words that
        can follow ``the secret 'default' of identity``; None: it may still come, and whoever asks bounds the wait.
        """
        ...

    def status(self) -> ProviderStatus:
        """How it stands."""
        ...
