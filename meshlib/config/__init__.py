"""The configuration: frozen values from environment, file or mapping; every value knows where it came from.

``values``, ``services``, ``routes``, ``policies`` and ``identity`` hold what may be written; ``kinds``, ``words`` and ``section`` how a
value is read; ``files`` and ``layers`` where values come from and who wins; ``hosts`` what the name of a host and a
pattern of them is; ``support`` what can hardly be meant; ``kato`` what that platform tells a container.
"""

from meshlib.config.hosts import HostPatterns
from meshlib.config.identity import IdentityConfig, ServiceTlsConfig
from meshlib.config.layers import (
    ConfigLike,
    bootstrap_text,
    from_settings,
    load,
    near_misses,
    read_inbound,
    read_retry,
    reload,
    resolve,
    strangers,
)
from meshlib.config.policies import BreakerConfig, HealthCheckConfig, LimitsConfig, OutlierConfig, RetryConfig
from meshlib.config.routes import (
    HeaderEditsConfig,
    HeaderMatchConfig,
    MatchConfig,
    QueryMatchConfig,
    RedirectConfig,
    ResponseConfig,
    RewriteConfig,
    RouteConfig,
)
from meshlib.config.services import EndpointConfig, ServiceConfig
from meshlib.config.support import doubts
from meshlib.config.values import (
    DEFAULT_DOMAINS,
    AdminConfig,
    AdoptionConfig,
    Config,
    DnsConfig,
    InboundConfig,
    NodeConfig,
    SidecarConfig,
    TelemetryConfig,
    TlsConfig,
    XdsConfig,
)

__all__ = [
    "DEFAULT_DOMAINS",
    "AdminConfig",
    "AdoptionConfig",
    "BreakerConfig",
    "Config",
    "ConfigLike",
    "DnsConfig",
    "EndpointConfig",
    "HeaderEditsConfig",
    "HeaderMatchConfig",
    "HealthCheckConfig",
    "HostPatterns",
    "IdentityConfig",
    "InboundConfig",
    "LimitsConfig",
    "MatchConfig",
    "NodeConfig",
    "OutlierConfig",
    "QueryMatchConfig",
    "RedirectConfig",
    "ResponseConfig",
    "RetryConfig",
    "RewriteConfig",
    "RouteConfig",
    "ServiceConfig",
    "ServiceTlsConfig",
    "SidecarConfig",
    "TelemetryConfig",
    "TlsConfig",
    "XdsConfig",
    "bootstrap_text",
    "doubts",
    "from_settings",
    "load",
    "near_misses",
    "read_inbound",
    "read_retry",
    "reload",
    "resolve",
    "strangers",
]
