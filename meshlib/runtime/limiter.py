"""Rate limits in use: of a live cluster or route, and of filters. Each has a lock of its own: who is refused disturbs no call."""

from __future__ import annotations

import threading
from math import ceil
from typing import TYPE_CHECKING

from meshlib.core.admission import AdmissionControl, good
from meshlib.core.bucket import Bucket

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshlib.model.call import Outcome
    from meshlib.model.limits import Admission, Descriptor, LocalLimit
    from meshlib.model.policy import RateLimit
    from meshlib.runtime.shared import Storage

__all__ = ["Limiter", "LocalLimits", "limiter_of"]

#: Places with local limits of which something is known. Beyond it the first is forgotten: names come from the network.
MOST = 10_000

_Lines = tuple[tuple[bytes, bytes], ...]


def limiter_of(limit: RateLimit | None, before: Limiter | None, name: str, now: float) -> Limiter | None:
    """The limiter of a cluster or route, ``name`` in a storage, whose configuration may be another than ``before``."""
    if limit is None or before is None:
        return None if limit is None else Limiter(limit, name, now)
    before.configure(limit)
    return before


class Limiter:
    """Thread-safe. ``_lock`` guards the bucket."""

    __slots__ = ("_bucket", "_lock", "_name", "_storage")

    def __init__(self, limit: RateLimit, name: str, now: float) -> None:
        self._name = name
        self._bucket = Bucket(limit, now)
        self._lock = threading.Lock()
        self._storage = _storage(limit)

    @property
    def shared(self) -> bool:
        return self._storage is not None

    def ask(self, then: Callable[[bool | None], object]) -> None:
        """Ask the storage (:class:`meshlib.core.upstream.Limiter`)."""
        storage = self._storage
        if storage is None:  # it was taken away meanwhile
            then(None)
        else:
            storage.take(self._name, self._bucket.limit, then)

    def take(self, now: float) -> bool:
        """Whether a call may pass now. Threads that come at once may be a little out of order."""
        with self._lock:
            return self._bucket.take(max(now, self._bucket.at))

    def configure(self, limit: RateLimit) -> None:
        """Other numbers, another storage."""
        with self._lock:
            self._bucket.configure(limit)
            self._storage = _storage(limit)


def _storage(limit: RateLimit) -> Storage | None:
    if limit.storage is None:
        return None
    from meshlib.runtime.shared import storage_of

    return storage_of(limit.storage)


class LocalLimits:
    """Those of filters, by where they stand. Thread-safe; a look-up takes no lock."""

    def __init__(self) -> None:
        self._live: dict[tuple[str, ...], LocalLimiter] = {}
        self._admissions: dict[tuple[str, ...], LiveAdmission] = {}
        self._lock = threading.Lock()  # guards making and forgetting

    def take(
        self, place: tuple[str, ...], policy: LocalLimit, descriptors: tuple[Descriptor, ...], now: float
    ) -> tuple[bool, _Lines]:
        """Whether a call with these passes (:class:`meshlib.core.effects.Env`)."""
        found = self._live.get(place)
        if found is None:
            with self._lock:
                found = self._live.get(place)
                if found is None:
                    if len(self._live) >= MOST:
                        del self._live[next(iter(self._live))]
                    found = self._live[place] = LocalLimiter(policy, now)
        return found.take(policy, descriptors, now)

    def admission(self, place: tuple[str, ...], policy: Admission) -> LiveAdmission:
        """The admission control that stands there."""
        found = self._admissions.get(place)
        if found is None:
            with self._lock:
                found = self._admissions.get(place)
                if found is None:
                    if len(self._admissions) >= MOST:
                        del self._admissions[next(iter(self._admissions))]
                    found = self._admissions[place] = LiveAdmission(policy)
        found.put(policy)
        return found


class LiveAdmission:
    """Admission control at one place (:class:`meshlib.core.upstream.LiveAdmission`). ``_lock`` guards what is counted."""

    __slots__ = ("_control", "_lock")

    def __init__(self, policy: Admission) -> None:
        self._lock = threading.Lock()
        self._control = AdmissionControl(policy)

    def put(self, policy: Admission) -> None:
        """Other numbers, if they are."""
        if policy is not self._control.policy:
            with self._lock:
                self._control.configure(policy)

    def probability(self, now: float) -> float:
        with self._lock:
            return self._control.probability(now)

    def hear(self, outcome: Outcome, now: float) -> None:
        judged = good(self._control.policy, outcome)
        if judged is not None:
            with self._lock:
                self._control.add(now, failed=not judged)


class LocalLimiter:
    """One filter's, at one place: a bucket of all calls, and one of each descriptor that is named. ``_lock`` guards them."""

    __slots__ = ("_all", "_by_entries", "_lock", "_policy")

    def __init__(self, policy: LocalLimit, now: float) -> None:
        self._lock = threading.Lock()
        self._all: Bucket | None = None
        self._by_entries: dict[tuple[tuple[str, str], ...], Bucket] = {}
        self._put(policy, now)

    def _put(self, policy: LocalLimit, now: float) -> None:
        """Other numbers; a bucket that stays keeps what is in it."""
        self._policy = policy
        self._all = _bucket(policy.limit, self._all, now)
        before, self._by_entries = self._by_entries, {}
        for each in policy.limits:
            made = _bucket(each.limit, before.get(each.entries), now)
            if made is not None:
                self._by_entries.setdefault(each.entries, made)

    def take(
        self, policy: LocalLimit, descriptors: tuple[Descriptor, ...], now: float
    ) -> tuple[bool, _Lines]:
        """Each bucket that the call is of gives what it counts for, the slowest first, up to the one that has too little; the bucket of
        all too, unless a descriptor has one and ``always`` is False. The lines tell of that one, else of the slowest.
        """
        with self._lock:
            if policy is not self._policy and policy != self._policy:
                self._put(policy, now)
            found = [
                (bucket, each.hits)
                for each in descriptors
                if (bucket := self._by_entries.get(each.entries)) is not None
            ]
            found.sort(key=lambda pair: pair[0].limit.rate)
            if self._all is not None and (policy.always or not found):
                found.append((self._all, None))
            for bucket, hits in found:
                if not bucket.take(max(now, bucket.at), 1 if hits is None else hits):
                    return False, _told(bucket)
            return True, _told(found[0][0]) if found else ()


def _bucket(limit: RateLimit | None, before: Bucket | None, now: float) -> Bucket | None:
    if limit is None:
        return None
    if before is None:
        return Bucket(limit, now)
    before.configure(limit)
    return before


def _told(bucket: Bucket) -> _Lines:
    """What is left of it, and in how many seconds it gets the next where nothing is (Envoy's draft 3)."""
    left = int(bucket.tokens)
    wait = 0 if left else ceil((1.0 - bucket.tokens) / bucket.limit.rate) if bucket.limit.rate else 0
    return (
        (b"x-ratelimit-limit", b"%d" % bucket.limit.burst),
        (b"x-ratelimit-remaining", b"%d" % left),
        (b"x-ratelimit-reset", b"%d" % wait),
    )
