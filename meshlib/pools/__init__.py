"""Connections to endpoints, for every host library: who may have one, who waits for one, when one ends."""

from meshlib.pools.endpoint import EndpointPool
from meshlib.pools.endpoint_async import AsyncEndpointPool
from meshlib.pools.registry import Pools
from meshlib.pools.state import Pooled, PoolSettings, is_usable

__all__ = ["AsyncEndpointPool", "EndpointPool", "PoolSettings", "Pooled", "Pools", "is_usable"]
