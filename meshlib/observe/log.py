"""What is said to the log, once each. One logger, ``meshlib``, which is never configured here.

WARNING: a source is away or back, a sidecar carries the calls or went away, an endpoint is ejected or fails its health checks, a breaker opens, a setting is not honoured; the first call
whose host the control plane has not told of.
INFO: a source is ready, an endpoint returned or passes its health checks again, a breaker closes or tries again.
DEBUG: the other states of a source.
(That a resource was refused is said by the source that refused it, at WARNING.)
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from meshlib.model.events import (
    BreakerChanged,
    ConfigurationChanged,
    EndpointChecked,
    EndpointEjected,
    EndpointReturned,
    SidecarChanged,
    SourceChanged,
    Unanswered,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from meshlib.model.events import Event
    from meshlib.model.status import Ignored, SourceStatus

__all__ = ["MOST_IGNORED", "Log"]

_log = logging.getLogger("meshlib")

#: Settings that are named in the log, for each source; what is more is counted and is in ``Mesh.status()``.
MOST_IGNORED = 50

_AWAY = ("stale", "failed")


class Log:
    """An observer of what changes; calls themselves are not logged.

    Changes of sources and of the configuration come from one thread (the worker), the others from any.

    Args:
        statuses: The sources as they are now; asked on the worker.
    """

    def __init__(self, statuses: Callable[[], Iterable[SourceStatus]]) -> None:
        self._statuses = statuses
        self._states: dict[str, tuple[str, str]] = {}
        self._away: set[str] = set()
        self._unanswered = (
            False  # whether a call was told of; two threads that are the first at once may tell twice
        )
        self._ignored: dict[str, set[tuple[str, str, str]]] = {}
        self._told: dict[type, Callable[[Any], None]] = {
            SourceChanged: self._source,
            SidecarChanged: _sidecar,
            ConfigurationChanged: self._configuration,
            EndpointEjected: _ejected,
            EndpointReturned: _returned,
            EndpointChecked: _checked,
            BreakerChanged: _breaker,
            Unanswered: self._call,
        }

    def __call__(self, event: Event) -> None:
        tell = self._told.get(type(event))
        if tell is not None:
            tell(event)

    def _source(self, event: SourceChanged) -> None:
        now = (event.state, event.error)
        if self._states.get(event.source) == now:
            return
        self._states[event.source] = now
        if event.state in _AWAY and event.error:
            serves = "; the last good state serves" if event.state == "stale" else ""
            level = logging.INFO if event.source in self._away else logging.WARNING
            self._away.add(event.source)
            _log.log(level, "meshlib: source %s: %s%s", event.source, event.error, serves)
        elif event.state != "ready":
            _log.debug("meshlib: source %s: %s", event.source, event.state)
        elif event.source in self._away:
            self._away.discard(event.source)
            _log.warning("meshlib: source %s is back", event.source)
        else:
            level = logging.DEBUG if event.source == "static" else logging.INFO
            _log.log(level, "meshlib: source %s is ready", event.source)
        if event.state == "ready":
            self._configuration(event)

    def _call(self, event: Unanswered) -> None:
        """Once: the metric counts them, and the source's state tells when it is over."""
        if not self._unanswered:
            self._unanswered = True
            _log.warning(
                "meshlib: a call to %s: %s (others like it are not logged; xds.cold_start decides)",
                event.authority,
                event.reason,
            )

    def _configuration(self, _event: Event) -> None:
        for status in self._statuses():
            if status.ignored:
                self._not_honoured(status.name, status.ignored)

    def _not_honoured(self, source: str, ignored: Iterable[Ignored]) -> None:
        """Each once, up to a bound."""
        seen = self._ignored.setdefault(source, set())
        for item in ignored:
            key = (item.type, item.resource, item.field)
            if key in seen or len(seen) > MOST_IGNORED:
                continue
            seen.add(key)
            if len(seen) > MOST_IGNORED:
                _log.warning(
                    "meshlib: source %s: more than %d settings are not honoured; Mesh.status() has all",
                    source,
                    MOST_IGNORED,
                )
                continue
            name = f"{item.type} {item.resource!r}" if item.resource else item.type
            _log.warning("meshlib: source %s: %s: %s is not honoured", source, name, item.field)


def _sidecar(event: SidecarChanged) -> None:
    if event.state == "ready":
        _log.warning("meshlib: the sidecar %s carries the calls from now on (%s)", event.kind, event.mode)
    elif event.state == "gone":
        then = "fail" if event.fallback == "never" else "go in-process"
        _log.warning("meshlib: the sidecar %s is not there: calls %s", event.kind, then)
    elif event.state == "starting":
        _log.info("meshlib: the sidecar %s is not ready yet: calls wait for it", event.kind)


def _ejected(event: EndpointEjected) -> None:
    _log.warning(
        "meshlib: cluster %s: %s is ejected for %g s: %s",
        event.cluster,
        event.endpoint,
        event.seconds,
        event.reason,
    )


def _returned(event: EndpointReturned) -> None:
    _log.info("meshlib: cluster %s: %s is back from its ejection", event.cluster, event.endpoint)


def _checked(event: EndpointChecked) -> None:
    """What changed, and what the configuration wants told of the rest. That an endpoint is well from the first is no news."""
    level = logging.WARNING if not event.passed or event.health != "healthy" else logging.INFO
    if not event.edge:
        level = logging.INFO
        words = "passed" if event.passed else "failed"
        _log.log(
            level,
            "meshlib: cluster %s: a health check of %s %s: %s",
            event.cluster,
            event.endpoint,
            words,
            event.reason,
        )
        return
    if event.first and event.health == "healthy":
        level = logging.DEBUG
    _log.log(
        level,
        "meshlib: cluster %s: %s is %s%s by its health check: %s",
        event.cluster,
        event.endpoint,
        event.health,
        "" if event.first else " now",
        event.reason,
    )


def _breaker(event: BreakerChanged) -> None:
    level = logging.WARNING if event.new == "open" else logging.INFO
    whose = f" of {event.endpoint}" if event.endpoint else ""
    _log.log(
        level,
        "meshlib: %s: the breaker%s was %s and is %s",
        f"route {event.route}" if event.route else f"cluster {event.cluster}",
        whose,
        event.old,
        event.new,
    )
