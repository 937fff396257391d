"""The retries and the hedges of an application's own service config: they hold for calls for which the mesh orders none (gRFC A6).

The mesh makes them: grpc's own would be made within each attempt of ours, at the same endpoint. A throttle holds for whatever
policy is in force: it is how many attempts this client may cost a server whose calls fail.

What is wrong with a ``retryPolicy`` grpc's core says itself. It knows no ``hedgingPolicy``, so that one which A6 refuses is told here (``refused``): the calls of such a
channel that are the mesh's fail as grpc's own do whose service config is refused.

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

from meshlib.model.policy import Hedge, RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["OwnRetries", "Throttle", "throttle_of"]

_DURATION = re.compile(r"\d{1,12}(\.\d{1,9})?s", re.ASCII)
_CODES: dict[object, int] = {code.name: code.value[0] for code in grpc.StatusCode}
#: gRFC A6.
_MOST_TOKENS = 1000
#: gRFC A6: more attempts are treated as five.
_MOST_ATTEMPTS = 5

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

    def allows(self) -> bool:
        with self._lock:
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
    """What the service config of one channel says of retries and hedges, by method. Raises ValueError, KeyError, TypeError or AttributeError for
    what grpc would refuse.

    Attributes:
        refused: What A6 refuses of its hedges, and where, in words; ``""``: nothing.
    """

    __slots__ = ("_limits", "_policies", "_throttle", "refused")

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._limits = _throttle(config["retryThrottling"]) if "retryThrottling" in config else None
        self._throttle: Throttle | None = None
        self._policies: dict[str, RetryPolicy | Hedge | None] = {}
        wrong: list[str] = []
        for number, method in enumerate(config.get("methodConfig", ())):
            given = method.get("retryPolicy")
            policy: RetryPolicy | Hedge | None = None if given is None else _policy(given)
            if "hedgingPolicy" in method:
                place = f"methodConfig[{number}].hedgingPolicy"
                hedge = _hedge(method["hedgingPolicy"], place, wrong)
                if policy is not None:
                    wrong.append(f"field:{place} error:retryPolicy is set too, and only one of them may be")
                policy = hedge
            for name in method.get("name", ()):
                service, called = name.get("service") or "", name.get("method") or ""
                key = f"/{service}/{called}" if service else ""
                if called and not service:
                    raise ValueError("a method without its service")
                if key in self._policies:
                    raise ValueError(f"{key} is named twice")
                self._policies[key] = policy
        told = "; ".join(wrong)
        self.refused = f"errors validating service config: [{told}]" if wrong else ""

    def __bool__(self) -> bool:
        said = any(policy is not None for policy in self._policies.values())
        return said or self._limits is not None or bool(self.refused)

    def policy(self, path: str) -> RetryPolicy | None:
        """For the method of that path: the most exact entry that names it says, also if that says nothing."""
        found = self._of(path)
        return found if isinstance(found, RetryPolicy) else None

    def hedge(self, path: str) -> Hedge | None:
        """The same of hedges."""
        found = self._of(path)
        return found if isinstance(found, Hedge) else None

    def _of(self, path: str) -> RetryPolicy | Hedge | None:
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


def _hedge(given: object, place: str, wrong: list[str]) -> Hedge | None:
    """A6, "Validation of hedgingPolicy". What is wrong is added to ``wrong``; then None."""
    before = len(wrong)

    def refuse(name: str, words: str) -> None:
        wrong.append(f"field:{place}{name} error:{words}")

    if not isinstance(given, dict):
        refuse("", "is not an object")
        return None
    attempts, delay, codes = (
        given.get(name) for name in ("maxAttempts", "hedgingDelay", "nonFatalStatusCodes")
    )
    if attempts is None:
        refuse(".maxAttempts", "field not present")
    elif isinstance(attempts, bool) or not isinstance(attempts, int) or attempts < 2:
        refuse(".maxAttempts", "must be an integer of at least 2")
    if delay is not None and (not isinstance(delay, str) or _DURATION.fullmatch(delay) is None):
        refuse(".hedgingDelay", 'is not a duration such as "0.5s"')
    found: set[int] = set()
    if codes is not None and not isinstance(codes, list):
        refuse(".nonFatalStatusCodes", "is not an array")
        codes = None
    for number, code in enumerate(codes or ()):
        try:
            found.add(_code(code))
        except (KeyError, TypeError):
            refuse(f".nonFatalStatusCodes[{number}]", "is no status code")
    if len(wrong) > before or not isinstance(attempts, int):
        return None
    return Hedge(
        after=0.0 if delay is None else _seconds(delay),
        most=min(attempts, _MOST_ATTEMPTS),
        methods=None,
        budget=None,
        codes=frozenset(found - {0}),
        own=True,
    )


def _code(given: object) -> int:
    if isinstance(given, int) and not isinstance(given, bool) and 0 <= given <= 16:
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
