"""What a breaker tells a pybreaker storage and learns from it.

pybreaker's Redis storage is told and asked by one script a decision, in one round trip, on the keys that pybreaker itself uses: other
programs with a breaker on them take part. By its own methods a decision would be up to seven round trips, between which others
decide, too; and they say "closed" where Redis does not answer. Any other storage has only its methods.
"""

from __future__ import annotations

import calendar
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import pybreaker

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Kept", "Said", "talk_to"]


@dataclass(frozen=True, slots=True)
class Said:
    """What one decision says: in this order.

    ``opened_at``: it opened then; ``fresh``: successes are counted anew; ``healed``: failures are; ``state``: what it is now, by
    pybreaker's name; ``failed``, ``succeeded``: one more.
    """

    opened_at: datetime | None = None
    fresh: bool = False
    healed: bool = False
    state: str = ""
    failed: bool = False
    succeeded: bool = False


class Kept(NamedTuple):
    """What a storage says: the state, since when it is open, failures in a row."""

    state: str
    opened_at: datetime | None
    failures: int


def talk_to(storage: pybreaker.CircuitBreakerStorage) -> Callable[[Said], Kept]:
    """How one is told what was decided; it answers with what it keeps then. Raises what the storage raises."""
    if type(storage) is pybreaker.CircuitRedisStorage and not storage._cluster_mode:
        return _Redis(storage).tell  # in a Redis cluster the keys are on several servers
    return lambda said: _tell(storage, said)


def _tell(storage: pybreaker.CircuitBreakerStorage, said: Said) -> Kept:
    if said.opened_at is not None:
        storage.opened_at = said.opened_at
    if said.fresh:
        storage.reset_success_counter()
    if said.healed:
        storage.reset_counter()
    if said.state:
        storage.state = said.state
    if said.failed:
        storage.increment_counter()
    if said.succeeded:
        storage.increment_success_counter()
    return Kept(storage.state, storage.opened_at, storage.counter)


_SCRIPT = """
local opened, fresh, healed, state, failed, succeeded = unpack(ARGV)
local at = tonumber(opened)
if at and at > (tonumber(redis.call('GET', KEYS[2])) or -1) then redis.call('SET', KEYS[2], opened) end
if fresh == '1' then redis.call('SET', KEYS[4], '0') end
if healed == '1' then redis.call('SET', KEYS[3], '0') end
if state ~= '' then redis.call('SET', KEYS[1], state) end
if failed == '1' then redis.call('INCR', KEYS[3]) end
if succeeded == '1' then redis.call('INCR', KEYS[4]) end
return redis.call('MGET', KEYS[1], KEYS[2], KEYS[3])
"""


class _Redis:
    """Of one storage. Its keys are there: pybreaker made them."""

    def __init__(self, storage: pybreaker.CircuitRedisStorage) -> None:
        self._keys = [
            storage._namespace(name) for name in ("state", "opened_at", "fail_counter", "success_counter")
        ]
        self._script = storage._redis.register_script(_SCRIPT)

    def tell(self, said: Said) -> Kept:
        opened = "" if said.opened_at is None else calendar.timegm(said.opened_at.utctimetuple())
        flags = [int(each) for each in (said.fresh, said.healed)]
        counted = [int(each) for each in (said.failed, said.succeeded)]
        state, at, failures = self._script(keys=self._keys, args=[opened, *flags, said.state, *counted])
        return Kept(
            _text(state) or pybreaker.STATE_CLOSED,
            datetime.fromtimestamp(int(at), UTC) if at else None,
            int(failures or 0),
        )


def _text(value: Any) -> str:
    """A client may decode what comes."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value or ""
