"""What a control plane's part of the snapshot is made into before it is published."""

from __future__ import annotations

from dataclasses import replace

from meshlib.model.snapshot import Part

__all__ = ["over", "unreached"]


def over(inherited: Part, new: Part) -> Part:
    """What a parent left, with what of names that it did not know is known by now."""
    targets = {name: target for name, target in new.targets.items() if name not in inherited.targets}
    absent = {name: why for name, why in inherited.absent.items() if name not in new.targets}
    absent.update((name, why) for name, why in new.absent.items() if name not in inherited.targets)
    if not targets and absent == inherited.absent:
        return inherited
    clusters = {**new.clusters, **inherited.clusters}
    lacking = {**new.lacking, **inherited.lacking}
    return replace(
        inherited,
        targets={**inherited.targets, **targets},
        clusters=clusters,
        identified=inherited.identified | (new.identified - inherited.clusters.keys()),
        absent=absent,
        lacking={name: why for name, why in lacking.items() if name not in clusters},
    )


def unreached(part: Part, error: str) -> Part:
    """``part`` while the control plane is away: what is not there will not come now."""
    away = f"and the control plane is not reachable: {error}"
    lacking = {
        name: known or f"{part.awaited.get(name, 'has not come yet')}, {away}"
        for name, known in part.lacking.items()
    }
    return replace(part, unreached=error or "no reason is known", lacking=lacking)
