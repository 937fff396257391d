"""Where a column is not as the others. A row is a test's name; a column is named without ``run``, and means both.

``RIGHT``: the library's own nature, with the reason; the row knows the word. ``FAULTS``: what is wrong and known, with the
reason; such a test must fail, and one that passes is a failure, so that no entry outlives its fault.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["FAULTS", "RIGHT", "Fault", "faults_of"]

_ONE_ATTEMPT = ("no retries", "a connector sees a connection and not a call: it makes one attempt")
_GIVEN = (
    "given",
    "following redirects is a transport's part in pyqwest, and this one gives them to the caller",
)
_SILENT = ("silent", "a proxy is a transport of pyqwest's own, which meshlib never sees")
_PYQWEST = ("pyqwest", "pyqwest async")
_SESSION_AGAIN = {
    "aiohttp connector": ("again", "aiohttp's session itself makes a GET again whose connection broke")
}
_WAITS = ("waits", "requests has no timeout for a pool that blocks, and waits")

RIGHT: dict[str, dict[str, tuple[str, str]]] = {
    "test_a_failed_answer_is_tried_again": {"aiohttp connector": _ONE_ATTEMPT},
    "test_after_the_last_retry_the_last_answer_is_given": {"aiohttp connector": _ONE_ATTEMPT},
    "test_the_first_good_answer_is_the_calls_and_the_other_attempt_is_given_up": {
        "aiohttp connector": _ONE_ATTEMPT
    },
    "test_a_bad_answer_is_waited_over_and_a_call_that_must_not_be_sent_twice_is_not": {
        "aiohttp connector": _ONE_ATTEMPT
    },
    "test_an_answer_after_the_last_attempt_says_so_where_that_is_ordered": {
        "aiohttp connector": _ONE_ATTEMPT
    },
    "test_each_attempt_asks_anew": {"aiohttp connector": _ONE_ATTEMPT},
    "test_a_failure_that_is_told_as_a_response_says_so_too": {"aiohttp connector": _ONE_ATTEMPT},
    "test_a_refused_connection_is_tried_elsewhere": {"aiohttp connector": _ONE_ATTEMPT},
    "test_a_body_is_sent_again_only_where_it_can_be": {"aiohttp connector": _ONE_ATTEMPT},
    "test_a_small_answer_that_is_not_wanted_keeps_its_connection": {"aiohttp connector": _ONE_ATTEMPT},
    "test_a_failure_can_be_pickled_and_copied": dict.fromkeys(
        ("requests", "urllib3"),
        ("names its pool", "urllib3's errors begin with their pool, which is not pickled"),
    ),
    "test_a_request_that_cannot_be_said_is_refused_on_a_kept_connection_too": dict.fromkeys(
        ("aiohttp session", "aiohttp connector"),
        ("closes", "aiohttp itself closes the connection on which it could not write a head"),
    ),
    "test_what_a_sidecar_broke_off_is_not_sent_twice": _SESSION_AGAIN,
    "test_what_a_sidecar_had_taken_when_it_went_away_is_not_sent_twice": _SESSION_AGAIN,
    "test_no_free_connection_is_overloaded_and_nobodys_fault": {"requests": _WAITS},
    "test_what_the_configuration_orders_is_a_response": dict.fromkeys(_PYQWEST, _GIVEN),
    "test_a_redirect_to_another_service_does_not_bring_it": dict.fromkeys(_PYQWEST, _GIVEN),
    "test_the_hosts_own_redirects_are_calls_of_their_own": dict.fromkeys(_PYQWEST, _GIVEN),
    "test_a_proxy_wins": {
        **dict.fromkeys(_PYQWEST, _SILENT),
        "urllib3": ("silent", "a proxy is a manager of urllib3's own, which meshlib never sees"),
        "aiohttp connector": ("silent", "a proxy that the session chose is not a connector's to speak of"),
    },
}


@dataclass(frozen=True)
class Fault:
    """``columns`` and ``kinds`` (a row's own parameter): where; empty: everywhere."""

    reason: str
    columns: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    run: bool | None = None  # only under ``meshlib run``, only without, or both

    def is_of(self, column: str, kind: Any) -> bool:
        base = column.removesuffix(" run")
        return (
            (not self.columns or base in self.columns)
            and (not self.kinds or kind in self.kinds)
            and (self.run is None or self.run is (base != column))
        )


FAULTS: Mapping[str, tuple[Fault, ...]] = {}


def faults_of(row: str, column: str, kind: Any) -> Iterator[str]:
    """The reasons why this row is known to fail on that column."""
    for fault in FAULTS.get(row, ()):
        if fault.is_of(column, kind):
            yield fault.reason
