"""A provider of identity on a worker without a thread: what its threads post is waited for, and time is moved by the test."""

from __future__ import annotations

import queue
import time

from meshlib.model.tls import SecretKind, SecretName
from meshlib.runtime.worker import Worker
from meshlib.testing import VirtualClock

__all__ = ["CERTIFICATE", "ROOTS", "Provided"]

CERTIFICATE = SecretName("default", SecretKind.CERTIFICATE)
ROOTS = SecretName("ROOTCA", SecretKind.CA)


class Provided:
    """`make(worker, random)` gives the provider; ``told`` counts what it told. Random numbers are ``share``."""

    def __init__(self, make, share=0.5):
        self.clock = VirtualClock(start=time.time())
        self.worker = Worker(self.clock)
        self.posted = queue.SimpleQueue()
        post = self.worker.post

        def noted(command):
            post(command)
            self.posted.put(None)

        self.worker.post = noted
        self.told = 0
        self.provider = make(self.worker, lambda: share)

    def __enter__(self):
        self.provider.start(self._told)
        return self

    def __exit__(self, *exc):
        self.provider.stop()

    def _told(self):
        self.told += 1

    def until(self, true, timeout=10.0):
        """Runs what is posted, until `true()`."""
        self.worker.run_due()
        while not (found := true()):
            self.posted.get(timeout=timeout)
            self.worker.run_due()
        return found

    def step(self, seconds=0.0):
        """Time moves on so far, in steps of a second."""
        end = self.clock.now() + seconds
        self.worker.run_due()
        while self.clock.now() < end:
            self.clock.advance(min(1.0, end - self.clock.now()))
            self.worker.run_due()

    def recovers(self):
        """After a failure: time moves on from pause to pause until all is well."""
        for _ in range(300):
            self.until(lambda: self.status.state == "ready" or self.provider._retry is not None)
            if self.status.state == "ready":
                return
            self.step(1.0)
        raise AssertionError(self.status)

    def in_state(self, state):
        return self.until(lambda: self.status.state == state and self.status)

    @property
    def status(self):
        return self.provider.status()

    @property
    def certificate(self):
        return self.provider.secret(CERTIFICATE)

    @property
    def chain(self):
        return self.certificate.certificate.chain.data

    @property
    def roots(self):
        return self.provider.secret(ROOTS).validation
