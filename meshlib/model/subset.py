"""Subsets of a cluster: endpoints that have the same labels, for calls that ask for these."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from enum import Enum

__all__ = [
    "LB_SCOPE",
    "NO_LABELS",
    "Labels",
    "Selector",
    "SubsetFallback",
    "Subsets",
    "has_labels",
    "labels_of",
    "shown",
    "value_of",
]

#: Names with what they stand for, in order of the names.
Labels = tuple[tuple[str, Hashable], ...]

NO_LABELS: Labels = ()

#: Where in an endpoint's metadata, and in a route's ``metadata_match``, labels are.
LB_SCOPE = "envoy.lb"


class SubsetFallback(Enum):
    """What holds for a call whose labels no subset has. KEYS: fewer of its labels, of a selector only."""

    NONE = "no_fallback"
    ANY = "any_endpoint"
    DEFAULT = "default_subset"
    KEYS = "keys_subset"


@dataclass(frozen=True, slots=True)
class Selector:
    """There is a subset for each combination of values that endpoints have of ``keys``, which are in order. ``fallback`` None: the
    cluster's. ``single``: a subset has one endpoint, the first, which is called whatever is said of its health.
    """

    keys: tuple[str, ...]
    fallback: SubsetFallback | None = None
    fewer: tuple[str, ...] = ()
    single: bool = False


@dataclass(frozen=True, slots=True)
class Subsets:
    """Envoy ``LbSubsetConfig``. ``default``: the labels of the default subset. ``weighted``: localities' weights count in a subset, ``scaled``: by
    how many of a locality's endpoints it has. ``any_in_panic``: where the fallback has nobody either, anybody is called. ``any_of_list``: an
    endpoint's label that is a list stands for each of its items. ``variants``: the label ``fallback_list`` of a call has others that are tried
    one after the other. ``redundant``: a call may have more labels than the keys of a selector.
    """

    selectors: tuple[Selector, ...]
    fallback: SubsetFallback = SubsetFallback.NONE
    default: Labels = NO_LABELS
    weighted: bool = False
    scaled: bool = False
    any_in_panic: bool = False
    any_of_list: bool = False
    variants: bool = False
    redundant: bool = False


def labels_of(held: Mapping[str, object]) -> Labels:
    """What a JSON-like mapping says, as labels."""
    return tuple((name, value_of(held[name])) for name in sorted(held))


def has_labels(held: Mapping[str, object], labels: Labels, *, any_of_list: bool) -> bool:
    """Whether what is ``held`` of an endpoint, under ``envoy.lb``, has all of ``labels``."""
    for name, wanted in labels:
        if name not in held:
            return False
        value = held[name]
        if value_of(value) == wanted:
            continue
        if not (any_of_list and isinstance(value, list | tuple) and wanted in map(value_of, value)):
            return False
    return True


def value_of(value: object) -> Hashable:
    """A JSON-like value, equal to another exactly where they are the same: true is not 1."""
    if isinstance(value, bool):
        return (bool, value)
    if isinstance(value, int | float):
        return float(value)
    if isinstance(value, Mapping):
        return (dict, labels_of(value))
    if isinstance(value, list | tuple):
        return (list, tuple(map(value_of, value)))
    return value if isinstance(value, str) else None


def shown(labels: Labels) -> str:
    """In words."""
    return ", ".join(f"{name}={_shown(value)}" for name, value in labels)


def _shown(value: Hashable) -> str:
    if isinstance(value, tuple):
        kind, held = value
        if kind is bool:
            return "true" if held else "false"
        return f"[{', '.join(map(_shown, held))}]" if kind is list else f"{{{shown(held)}}}"
    return "null" if value is None else f"{value:g}" if isinstance(value, float) else str(value)[:100]
