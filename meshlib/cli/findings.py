"""What is worth knowing of a configuration though nothing is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from meshlib.config import Config, RetryConfig
    from meshlib.config.services import ServiceConfig
    from meshlib.model.policy import RetryPolicy
    from meshlib.model.snapshot import Part

__all__ = ["Finding", "of_config", "of_part"]

#: Conditions that hold only where the service has not begun with the request, so that to send it again is safe.
_UNTOUCHED = frozenset({"connect-failure", "refused-stream", "reset-before-request"})


@dataclass(frozen=True, slots=True)
class Finding:
    """``severity`` is ``"info"``, ``"warning"`` or ``"error"``; of ``"info"`` nothing has to be done."""

    id: str
    severity: str
    summary: str
    remedy: str
    evidence: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, object]:
        return {
            "id": self.id,
            "severity": self.severity,
            "summary": self.summary,
            "remedy": self.remedy,
            "evidence": list(self.evidence),
        }


def of_config(config: Config) -> Iterator[Finding]:
    """Of a configuration of meshlib."""
    for name, service in config.services.items():
        yield from _retry_config(f"services.{name}.retry", service.retry)
        yield from _never_trips(f"services.{name}", service)
        yield from _nobody_near(f"services.{name}", service, config)
        for index, route in enumerate(service.routes):
            yield from _retry_config(f"services.{name}.routes[{index}].retry", route.retry)


def _nobody_near(key: str, service: ServiceConfig, config: Config) -> Iterator[Finding]:
    """Zone-aware routing does nothing where no endpoint is where we are, to the letter of region, zone and sub-zone."""
    if service.zone_aware is None:
        return
    node = config.node
    here = (node.region or "", node.zone or "", node.sub_zone or "")
    there = {(item.region or "", item.zone or "", item.sub_zone or "") for item in service.endpoints or ()}
    if any(here) and here in there:
        return
    we = "/".join(part for part in here if part)
    yield Finding(
        "zones.nobody",
        "warning",
        f"{key}.zone_aware: {f'no endpoint is in {we}, where we are' if we else 'our zone is not known'}: zones do not matter",
        "node.zone, or MESHLIB_ZONE, and node.region and node.sub_zone where endpoints have them",
        tuple(
            f"endpoints in {'/'.join(part for part in place if part)}"
            for place in sorted(there)
            if any(place)
        ),
    )


def _never_trips(key: str, service: ServiceConfig) -> Iterator[Finding]:
    """A service that fails a part of its calls is the everyday case, and seldom fails five times in a row."""
    breakers = {"breaker": service.breaker, "endpoint_breaker": service.endpoint_breaker}
    outlier = service.outlier
    if outlier is None and not any(breakers.values()):
        return
    there = {name: breaker for name, breaker in breakers.items() if breaker is not None}
    by_share = any(breaker.mode == "on" and breaker.failure_rate is not None for breaker in there.values())
    if outlier is not None:
        by_share = by_share or outlier.success_rate or outlier.failure_percentage is not None
    if by_share:
        return
    counts = []
    for name, breaker in there.items():
        if breaker.consecutive_failures:
            counts.append(f"{name}: {breaker.consecutive_failures} failures in a row")
    if outlier is not None and outlier.consecutive_5xx:
        counts.append(f"outlier: {outlier.consecutive_5xx} failures in a row of one endpoint")
    yield Finding(
        "breaker.share",
        "info",
        f"{key}: nothing trips where a part of the calls fails, three of ten for example",
        f"{key}.breaker.failure_rate = 0.5 opens at a share; {key}.outlier.failure_percentage = 50 leaves an endpoint out",
        tuple(counts),
    )


def _retry_config(key: str, retry: RetryConfig | None) -> Iterator[Finding]:
    if (
        retry is None
        or retry.attempts < 2
        or (retry.methods is not None and "POST" not in map(str.upper, retry.methods))
    ):
        return
    conditions = [*retry.on, *(["retriable-status-codes"] if retry.statuses else [])]
    remedy = f'{key}.methods = ["GET", "HEAD", "OPTIONS"], or for one call CallOptions(idempotent=False)'
    yield from _post(key, conditions, remedy)


def of_part(part: Part) -> Iterator[Finding]:
    """Of a file in Envoy's shape."""
    for listener in (*part.sidecar, *part.targets.values()):
        for chain in listener.chains:
            if chain.http is None or chain.http.routes is None:
                continue
            for host in chain.http.routes.virtual_hosts:
                where = f"listener {listener.name}, virtual host {host.name}"
                yield from _retry_policy(where, host.retry)
                for route in host.routes:
                    policy = getattr(route.action, "retry", None)
                    yield from _retry_policy(f"{where}, route {route.name or 'without a name'}", policy)


def _retry_policy(where: str, policy: RetryPolicy | None) -> Iterator[Finding]:
    if policy is None or policy.retries < 1 or policy.request_headers:
        return
    remedy = "retriable_request_headers that match :method, or for one call CallOptions(idempotent=False)"
    yield from _post(where, sorted(policy.on), remedy)


def _post(where: str, conditions: list[str], remedy: str) -> Iterator[Finding]:
    again = [name for name in dict.fromkeys(conditions) if name not in _UNTOUCHED]
    if again:
        summary = f"{where}: a POST that the service may have carried out already is sent again"
        yield Finding("retry.post", "info", summary, remedy, tuple(f"retried on {name}" for name in again))
