"""Hedge policies of a virtual host and of a route. Of their fields Envoy itself honours one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from meshlib.model.policy import Hedge
from meshlib.model.route import Forward, Route
from meshlib.xds.decode.report import join
from meshlib.xds.decode.values import number

if TYPE_CHECKING:
    from meshlib.xds.decode.report import Report
    from meshlib.xds.schema import WireMessage

__all__ = ["hedge_policy", "with_hedge"]


def hedge_policy(owner: WireMessage, path: str, report: Report) -> Hedge | None:
    """`owner.hedge_policy`, None if it is not set. One that orders nothing stands: it says "no hedges" (it takes the virtual host's place)."""
    if not owner.HasField("hedge_policy"):
        return None
    message, path = owner.hedge_policy, join(path, "hedge_policy")
    if number(message, "initial_requests") == 0:
        report.problem(join(path, "initial_requests"), "must not be 0")
    # Any method, as Envoy; and none but the cluster's limits, which a cluster of a control plane has.
    return Hedge(on_try_timeout=bool(message.hedge_on_per_try_timeout), methods=None, budget=None)


def with_hedge(route: Route, hedge: Hedge | None) -> Route:
    """The route, with its virtual host's hedges where it says nothing of them."""
    action = route.action
    if hedge is None or not isinstance(action, Forward) or action.hedge is not None:
        return route
    return replace(route, action=replace(action, hedge=hedge))
