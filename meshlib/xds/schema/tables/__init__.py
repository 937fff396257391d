"""The wire tables, one module per message family; `TABLES` joins them."""

from meshlib.xds.schema.tables.balancing import BALANCING
from meshlib.xds.schema.tables.bootstrap import BOOTSTRAP
from meshlib.xds.schema.tables.cluster import CLUSTER
from meshlib.xds.schema.tables.core import CORE
from meshlib.xds.schema.tables.discovery import DISCOVERY
from meshlib.xds.schema.tables.endpoint import ENDPOINT
from meshlib.xds.schema.tables.filters import FILTERS
from meshlib.xds.schema.tables.limits import LIMITS
from meshlib.xds.schema.tables.listener import LISTENER
from meshlib.xds.schema.tables.load_stats import LOAD_STATS
from meshlib.xds.schema.tables.matcher import MATCHER
from meshlib.xds.schema.tables.route import ROUTE
from meshlib.xds.schema.tables.status import STATUS
from meshlib.xds.schema.tables.tls import TLS
from meshlib.xds.schema.tables.values import VALUES

__all__ = ["TABLES"]

TABLES = (
    BALANCING,
    BOOTSTRAP,
    CLUSTER,
    CORE,
    DISCOVERY,
    ENDPOINT,
    FILTERS,
    LIMITS,
    LISTENER,
    LOAD_STATS,
    MATCHER,
    ROUTE,
    STATUS,
    TLS,
    VALUES,
)
