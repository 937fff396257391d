"""What part of the calls each endpoint is to get, where endpoints and localities both have weights.

Envoy's, for balancers that look at all endpoints of a priority at once (LB-03, gRFC A113): an endpoint's weight by the sum of its
locality's, times the locality's by the sum of theirs; all parts together are 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from meshlib.core.endpoint import LiveEndpoint

__all__ = ["normalized"]


def normalized(
    groups: Iterable[tuple[float, Sequence[LiveEndpoint]]],
) -> list[tuple[LiveEndpoint, float]]:
    """``groups``: the weight of a locality, and its endpoints. Those of no weight are left out."""
    weighed = [(weight, members) for weight, members in groups if weight > 0 and members]
    total = sum(weight for weight, _ in weighed)
    made: list[tuple[LiveEndpoint, float]] = []
    for weight, members in weighed:
        unit = weight / total / sum(member.weight for member in members)
        made += [(member, member.weight * unit) for member in members]
    return made
