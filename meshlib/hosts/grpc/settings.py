"""What the application gave its channel, and what becomes of it in the channels of grpc's own that lead to endpoints."""

from __future__ import annotations

import json
import logging
import os
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from grpc._cython import cygrpc

from meshlib.hosts.grpc.credentials import Given
from meshlib.hosts.grpc.own_retries import OwnRetries
from meshlib.hosts.grpc.target import AUTHORITY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meshlib.hosts.grpc.request import Request
    from meshlib.model.address import Address
    from meshlib.model.policy import Limits

__all__ = ["RENEW", "Settings", "inner_options", "uri"]

#: The option by which a call whose credentials a server refuses is made once more, with new ones.
RENEW = "meshlib.renew_credentials"

_WRONG = (TypeError, ValueError, AttributeError, KeyError, OverflowError, RecursionError)
_WITH_CALL_CREDENTIALS = (cygrpc.CompositeChannelCredentials, cygrpc.ComputeEngineChannelCredentials)
_SERVICE_CONFIG = "grpc.service_config"
#: Its fields that the mesh decides on (gRPC's ``service_config.proto``).
_OF_THE_MESH = (
    "hedgingPolicy",
    "loadBalancingConfig",
    "loadBalancingPolicy",
    "retryPolicy",
    "retryThrottling",
)


class Settings:
    """What the application gave its channel. ``options``: as grpc takes them; ``given``: the credentials, as they are used;
    ``renew``: what it gave as :data:`RENEW`, None for nothing; ``own``: the retries and hedges of its service config, if it has any; ``checks``: that has
    health checks.
    """

    __slots__ = ("_brings", "checks", "compression", "credentials", "given", "options", "own", "renew")

    def __init__(self, options: Sequence[tuple[str, Any]], credentials: Any, compression: Any) -> None:
        self.options = tuple(pair for pair in options if pair[0] != RENEW)
        self.credentials = credentials
        self.compression = compression
        self.given = Given(credentials)
        self.renew = next((value or None for name, value in reversed(tuple(options)) if name == RENEW), None)
        if not (self.renew is None or callable(self.renew) or isinstance(self.renew, int)):
            raise TypeError(f"{RENEW}: must be 1, 0 or a function without arguments, not {self.renew!r}")
        self.own = _own_retries(self.service_config())
        self.checks = _checks(self.service_config())
        inner = None if credentials is None else credentials._credentials
        self._brings = isinstance(inner, _WITH_CALL_CREDENTIALS)

    def service_config(self) -> Any:
        """As the application gave it."""
        return next((text for name, text in reversed(self.options) if name == _SERVICE_CONFIG), "{}")

    def brings_credentials(self, of_call: Any) -> bool:
        """Whether a call that has ``of_call`` sends credentials of its own."""
        return of_call is not None or self._brings

    def renewed(self, request: Request) -> None:
        """An attempt is begun: if it is the one with new credentials, the application is told, once."""
        if request.call is None or request.call.renews:
            return
        request.renews = False
        if callable(self.renew):
            try:
                self.renew()
            except Exception:
                logging.getLogger("meshlib").exception("meshlib: %s failed", RENEW)


def inner_options(
    settings: Settings,
    authority: str,
    limits: Limits,
    generation: int = 0,
    *,
    tunnelled: bool = False,
    checked: bool = False,
) -> list[tuple[str, Any]]:
    """The options of a channel to one endpoint: the application's, and what makes it one connection of the mesh. ``generation``: of
    connections whose age is bounded; ``tunnelled``: they are TLS, though grpc does not see it; ``checked``: grpc is to make the health checks.
    """
    kept = [pair for pair in settings.options if pair[0] not in {AUTHORITY, _SERVICE_CONFIG}]
    return [
        ("grpc.enable_http_proxy", 0),
        *kept,
        (AUTHORITY, authority),
        (_SERVICE_CONFIG, _service_config(settings.service_config(), limits, checked=checked)),
        ("grpc.service_config_disable_resolution", 1),
        # A child process must not meet its parent's connections in grpc's pool.
        ("meshlib.process", os.getpid()),
        *((("meshlib.generation", generation),) if generation else ()),
        *((("grpc.http2_scheme", "https"),) if tunnelled else ()),
    ]


def _own_retries(given: Any) -> OwnRetries | None:
    try:
        return OwnRetries(json.loads(given)) or None
    except _WRONG:
        return None


def _checks(given: Any) -> bool:
    """Whether a service config orders health checks (gRFC A17); a channel's option may still switch them off, in grpc's core."""
    try:
        return isinstance(json.loads(given)["healthCheckConfig"]["serviceName"], str)
    except _WRONG:  # or none of it is there
        return False


def _service_config(given: Any, limits: Limits, *, checked: bool = False) -> Any:
    """The application's, without what the mesh decides or does: a retry of grpc's own would be one within each of ours. How many
    connections an endpoint may have the mesh decides where it says anything (gRFC A105); grpc has its own bound, of 10.
    """
    try:
        config = json.loads(given)
        OwnRetries(config)
        ordered = limits.max_connections_per_endpoint
        if ordered is not None:
            config["connectionScaling"] = {"maxConnectionsPerSubchannel": max(1, ordered)}
        else:
            config.setdefault("connectionScaling", {"maxConnectionsPerSubchannel": limits.grpc_connections})
        for name in _OF_THE_MESH:
            config.pop(name, None)
        for method in config.get("methodConfig", ()):
            for name in _OF_THE_MESH:
                method.pop(name, None)
        if checked:
            # Of grpc's balancers, of which each has one endpoint here, pick_first makes no health checks.
            config["loadBalancingConfig"] = [{"round_robin": {}}]
    except _WRONG:  # grpc says what is wrong with it
        return given
    return json.dumps(config)


def uri(address: Address) -> str:
    """An endpoint's address as a target of grpc's."""
    if address.unix:
        return f"unix:{quote(address.host)}"
    port = address.port or 443
    if ":" in address.host:
        return f"ipv6:[{address.host}]:{port}"
    ip = address.host.replace(".", "").isdigit()
    return f"ipv4:{address.host}:{port}" if ip else f"dns:///{address.host}:{port}"
