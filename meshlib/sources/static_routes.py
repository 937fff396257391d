"""The routes of a service of a configuration file, as a route configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshlib.model.match import (
    HeaderMatch,
    PathKind,
    PathMatch,
    QueryMatch,
    RouteMatch,
    StringKind,
    StringMatch,
)
from meshlib.model.route import (
    ClusterWeight,
    DirectResponse,
    Edit,
    EditAction,
    Forward,
    HeaderEdits,
    HostRewrite,
    HostRewriteKind,
    Mirror,
    Redirect,
    RegexRewrite,
    Route,
    RouteConfiguration,
    VirtualHost,
)
from meshlib.runtime import policies

if TYPE_CHECKING:
    from meshlib.config import (
        HeaderEditsConfig,
        HeaderMatchConfig,
        MatchConfig,
        QueryMatchConfig,
        RouteConfig,
        ServiceConfig,
    )
    from meshlib.config.routes import MirrorConfig
    from meshlib.model.policy import Hedge, RetryPolicy
    from meshlib.model.route import Action

__all__ = ["build"]

#: Every path begins with it, also ``*`` of OPTIONS; a prefix rewrite then goes in front of the whole path.
ANY_PATH = PathMatch(PathKind.PREFIX, "")

_KINDS = (
    ("exact", StringKind.EXACT),
    ("prefix", StringKind.PREFIX),
    ("suffix", StringKind.SUFFIX),
    ("contains", StringKind.CONTAINS),
    ("regex", StringKind.REGEX),
)
_PLAIN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


def build(key: str, service: ServiceConfig, *, own_cluster: bool) -> RouteConfiguration:
    """One virtual host, since the key found the service already: the routes as written and, where the service has
    endpoints (``own_cluster``), last one that sends everything else to them.
    """
    routes = [_route(key, service, item) for item in service.routes]
    if own_cluster:
        hedge = _hedge(service)
        rest = Forward(cluster=key, timeout=service.timeout, retry=_service_retry(service), hedge=hedge)
        routes.append(Route(RouteMatch(ANY_PATH), rest, name=key))
    return RouteConfiguration(key, (VirtualHost(key, ("*",), tuple(routes)),))


def _service_retry(service: ServiceConfig) -> RetryPolicy | None:
    return None if service.retry is None else policies.retry_policy(service.retry)


def _hedge(config: ServiceConfig | RouteConfig) -> Hedge | None:
    return None if config.hedge is None else policies.hedge(config.hedge)


def _route(key: str, service: ServiceConfig, config: RouteConfig) -> Route:
    edits = HeaderEdits(
        request_add=_added(config.request_headers),
        request_remove=config.request_headers.remove,
        response_add=_added(config.response_headers),
        response_remove=config.response_headers.remove,
    )
    return Route(_match(config.match), _action(key, service, config), config.name or "", edits)


def _action(key: str, service: ServiceConfig, config: RouteConfig) -> Action:
    if config.redirect is not None:
        redirect = config.redirect
        return Redirect(
            status=redirect.status,
            scheme=redirect.scheme or "",
            host=redirect.host or "",
            port=redirect.port,
            path=redirect.path,
            prefix_rewrite=redirect.prefix,
            strip_query=redirect.strip_query,
        )
    if config.response is not None:
        body = config.response.body.encode()
        default = "text/plain" if body else ""
        return DirectResponse(config.response.status, body, config.response.content_type or default)
    return _forward(key, service, config)


def _forward(key: str, service: ServiceConfig, config: RouteConfig) -> Forward:
    weighted = tuple(ClusterWeight(name, weight) for name, weight in (config.split or {}).items())
    rewrite = config.rewrite
    regex = host = None
    if rewrite is not None and rewrite.regex is not None:
        regex = RegexRewrite(rewrite.regex, rewrite.substitution or "")
    if rewrite is not None and rewrite.host is not None:
        host = HostRewrite(HostRewriteKind.LITERAL, rewrite.host)
    return Forward(
        cluster="" if weighted else config.service or key,
        weighted=weighted,
        prefix_rewrite=(rewrite.prefix or "") if rewrite is not None else "",
        regex_rewrite=regex,
        host_rewrite=host,
        timeout=service.timeout if config.timeout is None else config.timeout,
        idle_timeout=config.idle_timeout,
        retry=_service_retry(service) if config.retry is None else policies.retry_policy(config.retry),
        hedge=_hedge(service if config.hedge is None else config),
        mirrors=_mirrors(config.mirror),
        fault=policies.fault(config.fault),
        limits=policies.route_limits(config),
    )


def _mirrors(config: MirrorConfig | None) -> tuple[Mirror, ...]:
    if config is None:
        return ()
    return (Mirror(config.service, None if config.percent >= 100 else round(config.percent * 10_000)),)


def _added(config: HeaderEditsConfig) -> tuple[Edit, ...]:
    put = (Edit(name, value, EditAction.OVERWRITE) for name, value in config.set.items())
    more = (Edit(name, value, EditAction.APPEND) for name, value in config.add.items())
    return (*put, *more)


def _match(config: MatchConfig) -> RouteMatch:
    headers = [_header(name, item) for name, item in config.headers.items()]
    if config.methods is not None:
        headers.append(HeaderMatch(":method", string=_methods(config.methods)))
    return RouteMatch(
        _path(config),
        tuple(headers),
        tuple(_query(name, item) for name, item in config.query.items()),
        None if config.percent is None else round(config.percent * 10_000),
    )


def _path(config: MatchConfig) -> PathMatch:
    for value, kind in (
        (config.prefix, PathKind.PREFIX),
        (config.path, PathKind.EXACT),
        (config.path_separated_prefix, PathKind.SEPARATED_PREFIX),
        (config.regex, PathKind.REGEX),
    ):
        if value is not None:
            return PathMatch(kind, value, config.case_sensitive)
    return ANY_PATH


def _methods(methods: tuple[str, ...]) -> StringMatch:
    names = [method.upper() for method in methods]
    if len(names) == 1:
        return StringMatch(StringKind.EXACT, names[0])
    return StringMatch(StringKind.REGEX, "|".join(_quoted(name) for name in names))


def _quoted(text: str) -> str:
    """``text`` as an RE2 expression that matches only itself: a method may have ``*``, ``+``, ``.`` and the like."""
    return "".join(char if char in _PLAIN else "\\" + char for char in text)


def _string(config: HeaderMatchConfig | QueryMatchConfig) -> StringMatch | None:
    for name, kind in _KINDS:
        value = getattr(config, name)
        if value is not None:
            return StringMatch(kind, value, config.ignore_case)
    return None


def _header(name: str, config: HeaderMatchConfig) -> HeaderMatch:
    bounds = None if config.range is None else (config.range[0], config.range[1])
    return HeaderMatch(
        name,
        string=_string(config),
        range=bounds,
        present=config.present,
        invert=config.invert,
        missing_as_empty=config.missing_as_empty,
    )


def _query(name: str, config: QueryMatchConfig) -> QueryMatch:
    return QueryMatch(name, string=_string(config), present=config.present)
