"""An identity that is asked for over the network, whoever issues it: how often, for how long it serves, and what is told of it.

Theory. All of this runs on the worker; what waits for a peer is the subclass's, and posts what came of it.

    idle ──start──► asking ──good──► held ──due, or its stream ended──► asking
                      └────trouble──► pausing ──────────────────────────► asking
    any ──stop──► idle

What is held serves over every trouble, until it ends: from then on there is none, and why is said in words. A pause is a second, then
twice as long each time, to half a minute, and less at random; while something is held it is at most a quarter of what is left of it, so
that even a certificate of seconds is tried for again in time. Ends and due times are times of the day: every few seconds the clock is
looked at, so that one that was set, or stood still with the machine, delays nothing for longer.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from meshlib.core.strategies import RetryState
from meshlib.model.tls import Secret, SecretKind
from meshlib.sources.identity_base import CERTIFICATE, ROOTS, ProviderStatus

if TYPE_CHECKING:
    from collections.abc import Callable

    import tenacity

    from meshlib.model.tls import SecretName, Validation
    from meshlib.runtime.worker import Timer, Worker
    from meshlib.sources.identity_issued import Issued

__all__ = ["LARGEST", "LOOK", "NetworkProvider"]

#: Bytes of an answer at most, as of any file with certificates: a chain has some thousand, a bundle of many domains some ten thousand.
LARGEST = 1024 * 1024
#: Seconds between looks at the clock.
LOOK = 5.0
#: Seconds of a pause at least, however little is left.
_LEAST = 0.5


@cache
def _pauses() -> tenacity.wait_exponential:
    """Seconds after a failure. A library is loaded when something fails."""
    import tenacity

    return tenacity.wait_exponential(multiplier=1.0, exp_base=2, max=30.0)


class NetworkProvider:
    """See the header, and `meshlib.sources.identity_base.Provider`. ``server``: who is asked, in words."""

    def __init__(self, worker: Worker, random: Callable[[], float], server: str) -> None:
        self.worker = worker
        self.random = random
        self.server = server
        self.held: Issued | None = None
        self._secrets: dict[SecretKind, Secret] = {}
        self.gone = ""  # why what was held is not there any more
        self._error = ""
        self._failures = 0
        self._told: Callable[[], object] | None = None
        self._status = ProviderStatus(server)
        self._retry: Timer | None = None
        self._look: Timer | None = None

    # --- for subclasses -------------------------------------------------------------------------------------------------------

    def _ask(self) -> None:
        """Begin to ask: it ends with `good` or `trouble`."""
        raise NotImplementedError

    def _break(self) -> None:
        """End what was begun, without either."""
        raise NotImplementedError

    def _due(self) -> float | None:
        """When to ask, in seconds since the epoch; None: it was begun."""
        raise NotImplementedError

    def _review(self) -> None:
        """Some seconds have passed: what may have changed by itself is to be looked at."""

    def good(self, held: Issued) -> None:
        """This is in force from now on."""
        self._failures, self._error, self.gone = 0, "", ""
        self.held = held
        self._give(Secret(CERTIFICATE, SecretKind.CERTIFICATE, certificate=held.certificate))
        if self._told is not None:
            self._set_look()
        self.changed()

    def trouble(self, error: str) -> None:
        """What was asked for did not come, or could not be used. It is asked for again after a pause."""
        self._failures += 1
        self._error = error
        if self._told is not None and self._retry is None:
            self._retry = self.worker.later(self._pause(), self._again)
        self.changed()

    def impossible(self, error: str) -> None:
        """Nothing can be asked for in this process; what is held serves."""
        if self.held is None:
            self.gone = f"cannot be had: {error}"
        self.trouble(error)

    def refused(self, error: str) -> None:
        """What came could not be used, and there may come better by itself."""
        self._error = error
        self.changed()

    def withdrawn(self, error: str) -> None:
        """What is held must not be used any more."""
        if self._secrets:
            self.held, self.gone = None, error
            self._secrets.clear()

    def trust(self, validation: Validation) -> bool:
        """These are the roots from now on; whether they are others."""
        return self._give(Secret(ROOTS, SecretKind.CA, validation=validation))

    def changed(self) -> None:
        """`secret` or `status` may give something else than before."""
        if self._told is None:
            state = "idle"
        elif self.held is None:
            state = "failed" if self._error else "connecting"
        else:
            state = "stale" if self._error else "ready"
        self._status = ProviderStatus(self.server, state, self._error)
        if self._told is not None:
            self._told()

    # --- Provider -------------------------------------------------------------------------------------------------------------

    def start(self, told: Callable[[], object]) -> None:
        if self._told is None:
            self._told = told
            self._wake()
            self.changed()

    def stop(self) -> None:
        self._told = None
        for timer in (self._retry, self._look):
            if timer is not None:
                timer.cancel()
        self._retry = self._look = None
        self._break()
        self.changed()

    def secret(self, name: SecretName) -> Secret | str | None:
        found = self._secrets.get(name.kind)
        return found if found is not None else self.gone or None

    def status(self) -> ProviderStatus:
        return self._status

    # --------------------------------------------------------------------------------------------------------------------------

    def _again(self) -> None:
        self._retry = None
        self._ask()

    def _pause(self) -> float:
        state = RetryState(0.0)
        state.attempt_number = self._failures
        pause = _pauses()(state) * (0.5 + self.random() / 2)  # type: ignore[arg-type]  # a state that any strategy can read
        if self.held is None:
            return pause
        return max(_LEAST, min(pause, (self.held.until - self.worker.clock.wall()) / 4))

    def _wake(self) -> None:
        """At every look: what has ended, and what is due."""
        now = self.worker.clock.wall()
        self._review()
        if self.held is not None and self.held.until <= now:
            self.held, self.gone = None, "has expired" + (f": {self._error}" if self._error else "")
            self._error = self._error or "the certificate has expired"
            self._secrets.pop(SecretKind.CERTIFICATE, None)
            self.changed()
        due = self._due()
        if due is not None and due <= now and self._retry is None:
            self._ask()
        self._set_look()

    def _set_look(self) -> None:
        """The next comes when something ends or is due, and some seconds from now at the latest."""
        if self._look is not None:
            self._look.cancel()
        now = self.worker.clock.wall()
        times = (self._due() if self._retry is None else None, None if self.held is None else self.held.until)
        soonest = min((when - now for when in times if when is not None), default=LOOK)
        self._look = self.worker.later(max(0.0, min(LOOK, soonest)), self._wake)

    def _give(self, secret: Secret) -> bool:
        """One that is equal to the last of its kind stays the same object."""
        if self._secrets.get(secret.kind) == secret:
            return False
        self._secrets[secret.kind] = secret
        return True
