"""A provider of identity on a worker of its own, in real time; what it tells is waited for."""

from __future__ import annotations

import threading
import time

from cryptography import x509

from meshlib.runtime.clock import MonotonicClock
from meshlib.runtime.worker import Worker
from tests.support.identity_kit import CERTIFICATE, ROOTS

__all__ = ["Identity", "ends"]


def ends(mesh):
    """When its certificate ends, in seconds since the epoch; each renewal is later by seconds."""
    return time.time() + (mesh.status().identity[0].expires_in or 0.0)


class Identity:
    """What `make(worker)` gives; ``patience``: seconds for which anything is waited for."""

    def __init__(self, make, patience):
        self.worker = Worker(MonotonicClock())
        self.provider = make(self.worker)
        self.changed = threading.Condition()
        self._patience = patience

    def __enter__(self):
        self.worker.start()
        self.worker.post(lambda: self.provider.start(self._told))
        return self

    def __exit__(self, *exc):
        self.worker.call(self.provider.stop, 5)
        self.worker.stop()

    def _told(self):
        with self.changed:
            self.changed.notify_all()

    def until(self, true):
        with self.changed:
            assert self.changed.wait_for(true, self._patience), self.provider.status()
            return true()

    def ready(self):
        return self.until(lambda: self.provider.status().state == "ready")

    @property
    def leaf(self):
        return x509.load_pem_x509_certificate(self.provider.secret(CERTIFICATE).certificate.chain.data)

    @property
    def validation(self):
        return self.provider.secret(ROOTS).validation
