"""What a process tells of what is around a mesh: its environment, its threads, and other libraries that touch the same calls.

Nothing is imported that the process has not imported itself: who is not in ``sys.modules`` does nothing in it. Objects of other
libraries are found by their classes (``gc.get_referrers``, one pass over what the collector tracks, some 50 ms for a
million objects), and only their attributes are read.
"""

from __future__ import annotations

import gc
import os
import sys
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypedDict
from urllib.parse import urlsplit

from meshlib import __version__
from meshlib.config import near_misses, strangers
from meshlib.observe.lookout import makes_spans
from meshlib.runtime import greenlets, uwsgi
from meshlib.runtime.process import grpc_keeps_out_of_forks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["MODULES", "ProcessFacts", "RetrierFacts", "of_process"]

#: Module → the extra that brings it.
MODULES = {
    "yaml": "yaml",
    "h2": "http2",
    "hpack": "http2",
    "hyperframe": "http2",
    "opentelemetry.sdk": "otel",
}

#: OpenTelemetry's packages that make spans of a client's calls.
_CONTRIB = ("aiohttp_client", "grpc", "httpx", "requests", "urllib", "urllib3")
#: Libraries of calls that ddtrace marks where it has patched them.
_DDTRACE = ("aiohttp", "grpc", "httpx", "requests", "urllib3")
#: Other tracers, by the module that is there once they run.
_AGENTS = {"elasticapm": "elasticapm.instrumentation", "newrelic": "newrelic.agent"}

#: Variables that say where telemetry goes, and are of no use without an SDK.
_TELEMETRY = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_TRACES_EXPORTER")

#: Where clients that try again are told by a variable whom they call.
_BASE_URLS = {"openai": "OPENAI_BASE_URL", "anthropic": "ANTHROPIC_BASE_URL"}
#: How often they try again unless told otherwise.
_DEFAULT_RETRIES = 2


class RetrierFacts(TypedDict):
    """Somebody who tries calls again. ``url``: whose; ``""`` where that cannot be told. ``count``: of equal ones."""

    library: str
    url: str
    retries: int
    count: int


class ProcessFacts(TypedDict):
    """``fork_support``: what GRPC_ENABLE_FORK_SUPPORT says where it switches that off. ``proxies``: by the scheme that they are
    for, without credentials. ``instrumented``: tracer → the libraries whose calls it makes spans of. ``ours``: whether meshlib
    makes spans, by OpenTelemetry. ``lacking``: modules of ``MODULES`` that are not installed. ``exports``: the first variable
    that wants an SDK.
    """

    version: str
    strangers: list[str]
    fork_support: str
    proxies: dict[str, str]
    no_proxy: str
    gevent: bool
    late: bool
    grpc: bool
    grpc_gevent: bool
    threadless: bool
    instrumented: dict[str, list[str]]
    ours: bool
    retriers: list[RetrierFacts]
    lacking: list[str]
    exports: str


def of_process(*, late: bool, retried: bool) -> ProcessFacts:
    """Of this process. ``late``: gevent patched it after a mesh was in use. ``retried``: the mesh tries calls again, so that others
    who do are looked for.
    """
    cygrpc = sys.modules.get("grpc._cython.cygrpc")
    return ProcessFacts(
        version=__version__,
        strangers=[*strangers(), *near_misses()],
        fork_support=os.environ.get("GRPC_ENABLE_FORK_SUPPORT", "") if grpc_keeps_out_of_forks() else "",
        proxies=_proxies(),
        no_proxy=os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or "",
        gevent=greenlets.patched("threading"),
        late=late,
        grpc=cygrpc is not None,
        grpc_gevent=bool(getattr(cygrpc, "g_gevent_activated", False)),
        threadless=uwsgi.threadless(),
        instrumented={name: found for name, found in _instrumented() if found},
        ours=_ours(),
        retriers=_retriers() if retried else [],
        lacking=[name for name in MODULES if not _is_installed(name)],
        exports=next((name for name in _TELEMETRY if os.environ.get(name) not in (None, "", "none")), ""),
    )


def _is_installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):  # its parent is not there; it is barred, or made by hand
        return False


def _proxies() -> dict[str, str]:
    """As Python's libraries read them: small letters win, and a CGI script takes no HTTP_PROXY from its client."""
    from urllib.request import getproxies_environment

    return {
        scheme: _without_credentials(url)
        for scheme, url in getproxies_environment().items()
        if scheme != "no"
    }


def _without_credentials(url: str) -> str:
    scheme, mark, rest = url.rpartition("://")
    return scheme + mark + rest.rpartition("@")[2]


# --- spans -----------------------------------------------------------------------------------------------------------------


def _ours() -> bool:
    provider = getattr(sys.modules.get("opentelemetry.trace"), "_TRACER_PROVIDER", None)
    try:
        return provider is not None and makes_spans(provider)
    except Exception:  # noqa: BLE001 - a provider that is broken makes none
        return False


def _instrumented() -> Iterator[tuple[str, list[str]]]:
    yield "opentelemetry", [name for name in _CONTRIB if _by_contrib(name)]
    yield "ddtrace", [name for name in _DDTRACE if _by_ddtrace(sys.modules.get(name))]
    yield "sentry", _by_sentry()
    for name, module in _AGENTS.items():
        yield name, ["all"] if module in sys.modules else []


def _by_contrib(name: str) -> bool:
    """Whether one of the instrumentors of a package is at work. Each class has one object, once it was asked for."""
    module = sys.modules.get(f"opentelemetry.instrumentation.{name}")
    classes = (
        [] if module is None else [item for item in list(vars(module).values()) if isinstance(item, type)]
    )
    made = [getattr(cls, "_instance", None) for cls in classes]
    return any(getattr(one, "is_instrumented_by_opentelemetry", False) is True for one in made)


def _by_ddtrace(module: object) -> bool:
    return any(getattr(module, mark, False) is True for mark in ("_datadog_patch", "__datadog_patch"))


def _by_sentry() -> list[str]:
    """What Sentry's client makes spans of; nothing where it traces nothing."""
    ask = getattr(sys.modules.get("sentry_sdk"), "get_client", None)
    client = ask() if ask is not None else None
    options = getattr(client, "options", None) or {}
    if not options.get("dsn") or not (options.get("traces_sample_rate") or options.get("traces_sampler")):
        return []
    return sorted(
        name for name in getattr(client, "integrations", None) or {} if name in {*_DDTRACE, "stdlib"}
    )


# --- retries ---------------------------------------------------------------------------------------------------------------

_Retrier = tuple[str, str, int]


def _retriers() -> list[RetrierFacts]:
    counted: dict[_Retrier, int] = {}
    for key in (*_objects(), *_told_by_variable()):
        counted[key] = counted.get(key, 0) + 1
    return [
        RetrierFacts(library=library, url=url, retries=retries, count=count)
        for (library, url, retries), count in sorted(counted.items())
    ]


def _objects() -> Iterator[_Retrier]:
    """Of the objects that try again: what they say of themselves. One pass for all of them."""
    readers = {
        each: (module, read)
        for module, (names, read) in _WHO.items()
        for name in names
        for each in _family(vars(sys.modules.get(module) or _NOTHING).get(name))  # not getattr: it may import
    }
    for item in gc.get_referrers(*readers) if readers else ():
        if type(item) in readers:
            module, read = readers[type(item)]
            yield from read(module, item)


def _family(cls: object) -> Iterator[type[Any]]:
    """A class, if it is one, and those that are made of it."""
    if isinstance(cls, type):
        yield cls
        below: type[Any]
        for below in type.__subclasses__(cls):
            yield from _family(below)


def _client(library: str, client: Any) -> Iterator[_Retrier]:
    retries = getattr(client, "max_retries", 0)
    if isinstance(retries, int) and retries > 0:
        yield library, _place(str(getattr(client, "base_url", ""))), retries


def _session(_: str, session: Any) -> Iterator[_Retrier]:
    """urllib3's ``Retry`` on the adapters of requests' sessions."""
    for prefix, adapter in list(getattr(session, "adapters", {}).items()):
        total = getattr(getattr(adapter, "max_retries", None), "total", 0)
        if isinstance(total, int) and total > 0:
            yield "urllib3", str(prefix), total


def _decorator(library: str, _: object) -> Iterator[_Retrier]:
    """What it wraps cannot be told from outside."""
    yield library, "", 0


_NOTHING = ModuleType("nothing")

#: Module → the names of its classes, and what is read of an object of theirs.
_WHO: dict[str, tuple[tuple[str, ...], Callable[[str, Any], Iterator[_Retrier]]]] = {
    "openai": (("OpenAI", "AsyncOpenAI"), _client),
    "anthropic": (("Anthropic", "AsyncAnthropic"), _client),
    "requests.sessions": (("Session",), _session),
    "tenacity": (("BaseRetrying",), _decorator),
}


def _told_by_variable() -> Iterator[_Retrier]:
    """A client that is not there, or not yet, and will call this when it is."""
    for library, variable in _BASE_URLS.items():
        if library not in sys.modules and os.environ.get(variable):
            yield library, _place(os.environ[variable]), _DEFAULT_RETRIES


def _place(url: str) -> str:
    """Scheme, host and port."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port is not None else ""
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        return f"{parts.scheme}://{host}{port}" if host else ""
    except ValueError:
        return ""
