"""The retries of an application's own service config: they hold for calls for which the mesh orders none (gRFC A6).

The mesh makes them: grpc's own would be made within each attempt of ours, at the same endpoint. A throttle holds for whatever
policy is in force: it is how many retries this client may cost a server whose calls fail.

    tokens ≤ half of them ──► no retry
    a failure that could be retried: one token less    an answer: ``ratio`` more

Lock: of each throttle, for its tokens; ``_lock``, for the table of them.
"""

from __future__ import annotations

import re
import threading
import weakref
from typing import TYPE_CHECKING, Any

import grpc

from meshlib.model.policy import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["OwnRetries", "Throttle", "throttle_of"]

_DURATION = re.compile(r"\d{1,12}(\.\d{1,9})?s", re.ASCII)
_CODES: dict[object, int] = {code.name: code.value[0] for code in grpc.StatusCode}
#: gRFC A6.
_MOST_TOKENS = 1000

_lock = threading.Lock()
_throttles: weakref.WeakValueDictionary[tuple[str, float, float], Throttle] = weakref.WeakValueDictionary()


class Throttle:
    """How many retries a server may be asked to bear (:class:`meshlib.core.retry_grpc.Throttling`). Thread-safe."""

    __slots__ = ("__weakref__", "_lock", "_ratio", "_tokens", "most")

    def __init__(self, most: float, ratio: float) -> None:
        self.most = most
        self._ratio = ratio
        self._tokens = most
        self._lock = threading.Lock()

    def failed(self) -> bool:
        with self._lock:
            self._tokens = max(0.0, self._tokens - 1.0)
            return self._tokens > self.most / 2.0

    def succeeded(self) -> None:
        with self._lock:
            self._tokens = min(self.most, self._tokens + self._ratio)


def throttle_of(server: str, most: float, ratio: float) -> Throttle:
    """That of the channels of this process to ``server``, as far as they say the same of it."""
    with _lock:
        found = _throttles.get((server, most, ratio))
        if found is None:
            found = _throttles[server, most, ratio] = Throttle(most, ratio)
        return found


class OwnRetries:
    """What the service config of one channel says of retries, by method. Raises ValueError, KeyError, TypeError or AttributeError for
    what grpc would refuse.
    """

    __slots__ = ("_limits", "_policies", "_throttle")

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._limits = _throttle(config["retryThrottling"]) if "retryThrottling" in config else None
        self._throttle: Throttle | None = None
        self._policies: dict[str, RetryPolicy | None] = {}
        for method in config.get("methodConfig", ()):
            given = method.get("retryPolicy")
            policy = None if given is None else _policy(given)
            for name in method.get("name", ()):
                service, called = name.get("service") or "", name.get("method") or ""
                key = f"/{service}/{called}" if service else ""
                if called and not service:
                    raise ValueError("a method without its service")
                if key in self._policies:
                    raise ValueError(f"{key} is named twice")
                self._policies[key] = policy

    def __bool__(self) -> bool:
        return self._limits is not None or any(policy is not None for policy in self._policies.values())

    def policy(self, path: str) -> RetryPolicy | None:
        """For the method of that path: the most exact entry that names it says, also if that says nothing."""
        policies = self._policies
        for key in (path, path[: path.rfind("/") + 1], ""):
            if key in policies:
                return policies[key]
        return None

    def throttle(self, server: str) -> Throttle | None:
        """That of ``server``, to which the channel leads."""
        if self._throttle is None and self._limits is not None:
            self._throttle = throttle_of(server, *self._limits)
        return self._throttle


def _policy(given: Mapping[str, Any]) -> RetryPolicy:
    attempts, multiplier = given["maxAttempts"], given["backoffMultiplier"]
    codes = frozenset(_code(each) for each in given["retryableStatusCodes"])
    first, longest = _seconds(given["initialBackoff"]), _seconds(given["maxBackoff"])
    if isinstance(attempts, bool) or not isinstance(attempts, int) or attempts < 2 or not codes:
        raise ValueError("no attempts, or no codes")
    if not (first > 0 and longest > 0 and float(multiplier) > 0):
        raise ValueError("no backoff")
    return RetryPolicy(
        retries=attempts - 1,
        base_interval=first,
        max_interval=longest,
        multiplier=float(multiplier),
        codes=codes,
    )


def _code(given: object) -> int:
    if isinstance(given, int) and 0 <= given <= 16:
        return given
    return _CODES[given.upper() if isinstance(given, str) else given]


def _seconds(given: object) -> float:
    if not isinstance(given, str) or _DURATION.fullmatch(given) is None:
        raise ValueError("no duration")
    return float(given[:-1])


def _throttle(given: Mapping[str, Any]) -> tuple[float, float]:
    most, ratio = float(given["maxTokens"]), round(float(given["tokenRatio"]), 3)
    if not (0 < most <= _MOST_TOKENS and ratio > 0):
        raise ValueError("no tokens")
    return most, ratio
