"""What is allowed in a configuration, and can hardly be meant."""

from __future__ import annotations

from collections.abc import Iterator

from meshlib.config.files import Document
from meshlib.config.identity import SOCKET
from meshlib.config.routes import RouteConfig
from meshlib.config.values import Config

__all__ = ["doubts"]


def doubts(config: Config, file: Document | None = None) -> tuple[str, ...]:
    """One line for each thing that is allowed and yet can hardly be meant: for `meshlib check` and a warning. ``file``: it is
    looked at by itself, and what the environment adds where it is used is not known.
    """
    odd = (*_odd(config), *(_unplaced(config) if file is None else ()))
    return tuple(f"{_origin(config, key, file)}: {key}: {text}" for key, text in odd)


def _odd(config: Config) -> Iterator[tuple[str, str]]:
    if config.xds.last_good is not None and not config.xds.configured:
        yield "xds.last_good", "has nothing to keep: there is no control plane"
    for name, service in config.services.items():
        placed = any(item is not None for item in (service.endpoints, service.dns, service.srv))
        if service.tls is not None and service.routes and not placed:
            yield f"services.{name}.tls", "is for endpoints, dns or srv, and it has routes alone"
    elsewhere = config.xds.configured or config.services_file is not None
    for name, service in config.services.items():
        key = f"services.{name}"
        targeted = all(_targets(route) for route in service.routes) and bool(service.routes)
        if not service.endpoints and service.dns is None and service.srv is None and not targeted:
            yield key, "has nobody to call: give endpoints, dns, srv, or routes that go elsewhere"
        for index, route in enumerate(service.routes):
            for target in _targets(route):
                if target and target not in config.services and not elsewhere:
                    yield f"{key}.routes[{index}]", f'goes to "{target}", which no service is'
            mirror = route.mirror
            if mirror is not None and mirror.service not in config.services and not elsewhere:
                yield f"{key}.routes[{index}].mirror", f'goes to "{mirror.service}", which no service is'


def _unplaced(config: Config) -> Iterator[tuple[str, str]]:
    """What the surroundings did not tell: SPIFFE's, and the platform of ``api = "v2"``."""
    if config.identity.chosen == "spiffe" and config.identity.socket is None:
        yield (
            "identity.provider",
            f'"spiffe" lacks identity.socket, and {SOCKET} is not set: nobody gives an identity',
        )
    if config.xds.api != "v2":
        return
    if not config.xds.configured:
        yield "xds.api", '"v2" has nobody to ask: neither xds.server nor XDS_HOST_IP nor HOST_IP is set'
    elif config.node.cluster is None and config.xds.server is not None:
        lacks = "is missing, and TENANT_ID, SERVICE_ID, SERVICE_NAME do not tell it"
        yield "node.cluster", f'{lacks}: a server of xds.api = "v2" knows nodes by it'


def _targets(route: RouteConfig) -> tuple[str, ...]:
    if route.redirect is not None or route.response is not None:
        return ("",)
    return tuple(route.split) if route.split is not None else (route.service,) if route.service else ()


def _origin(config: Config, key: str, file: Document | None) -> str:
    try:
        origin = config.source_of(key)
    except KeyError:
        return "argument"
    return file.at_key(key) if file is not None and file.name == origin else origin
