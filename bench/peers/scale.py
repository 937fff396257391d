"""1,000 clusters of 100 endpoints each from one control plane: an application with meshlib, and a real Envoy."""

from __future__ import annotations

from bench.scale import Number, Side, envoy, meshlib

_SIDES = {
    f"{who}, {protocol}": Side(run, protocol)
    for who, run in (("meshlib", meshlib), ("Envoy", envoy))
    for protocol in ("delta", "sotw")
}
_BOTH = ("load", "used", "change", "change, median", "memory")
_OURS = ("rise, changes", "fill", "rise, fill")

PEERS = tuple(
    Number(f"scale: {name}: {number}", side, number)
    for name, side in _SIDES.items()
    for number in (*_BOTH, *(_OURS if side.run is meshlib else ()))
)
