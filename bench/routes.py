"""The same routes and policies for everybody who has some: as a service of a configuration file and as Envoy's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

HOST = "reviews"
TIMEOUT = 2.0
PER_TRY = 1.0


def _kind(number: int) -> str:
    """Of ten routes six are for a prefix, three for a path, one for a prefix and a header."""
    return ("prefix", "prefix", "path")[number % 3] if number % 10 else "header"


def paths(count: int) -> tuple[str, ...]:
    """Ten requests, spread over all the routes; the last is for none of them but the one for everything."""
    chosen = range(1, count, max(1, count // 9))
    return (
        *(
            f"/api/v1/resource-{number}/items?page=2"
            if _kind(number) != "path"
            else f"/api/v1/resource-{number}"
            for number in chosen
        ),
        "/other",
    )


def service(addresses: Sequence[str], count: int) -> dict[str, Any]:
    """A service of a configuration file: ``count`` routes, all policies on."""
    found = []
    for number in range(count - 1):
        prefix = {"prefix": f"/api/v1/resource-{number}/"}
        match: dict[str, Any] = {
            "prefix": prefix,
            "path": {"path": f"/api/v1/resource-{number}"},
            "header": {**prefix, "headers": {"x-tier": "gold"}},
        }[_kind(number)]
        found.append({"name": f"route-{number}", "match": match, "service": HOST})
    return {
        "endpoints": list(addresses),
        "balancer": "least_request",
        "timeout": TIMEOUT,
        "retry": {
            "attempts": 3,
            "on": ["5xx", "connect-failure", "refused-stream"],
            "per_try_timeout": PER_TRY,
            "budget": 0.2,
        },
        "breaker": {"consecutive_failures": 5, "open_for": 10.0},
        "outlier": {"consecutive_5xx": 5, "max_ejection_percent": 20},
        "limits": {"max_connections": 1024, "max_pending": 1024, "max_requests": 1024, "max_retries": 3},
        "routes": found,
    }


def envoy_routes(count: int) -> list[dict[str, Any]]:
    """The same for Envoy."""
    policy = {
        "cluster": HOST,
        "timeout": f"{TIMEOUT}s",
        "retry_policy": {
            "retry_on": "5xx,connect-failure,refused-stream",
            "num_retries": 2,
            "per_try_timeout": f"{PER_TRY}s",
        },
    }
    found: list[dict[str, Any]] = []
    for number in range(count - 1):
        prefix = {"prefix": f"/api/v1/resource-{number}/"}
        header = {"name": "x-tier", "string_match": {"exact": "gold"}}
        match: dict[str, Any] = {
            "prefix": prefix,
            "path": {"path": f"/api/v1/resource-{number}"},
            "header": {**prefix, "headers": [header]},
        }[_kind(number)]
        found.append({"name": f"route-{number}", "match": match, "route": policy})
    return [*found, {"match": {"prefix": "/"}, "route": policy}]
