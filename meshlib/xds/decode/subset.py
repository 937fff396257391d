"""Subsets of a cluster, by its own field or by a policy; and the labels by which routes ask for one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from meshlib.core.subsets import merged
from meshlib.model.subset import LB_SCOPE, NO_LABELS, Labels, Selector, SubsetFallback, Subsets, labels_of
from meshlib.xds.decode.report import Report, join
from meshlib.xds.decode.values import metadata, struct
from meshlib.xds.schema import WireMessage

__all__ = ["call_labels", "subsets"]

T = TypeVar("T")

_FALLBACKS = {0: SubsetFallback.NONE, 1: SubsetFallback.ANY, 2: SubsetFallback.DEFAULT}
_OF_SELECTOR = {
    0: None,
    1: SubsetFallback.NONE,
    2: SubsetFallback.ANY,
    3: SubsetFallback.DEFAULT,
    4: SubsetFallback.KEYS,
}
_VARIANTS = {0: False, 1: True}
#: Of a cluster, and of keys of one of them: an endpoint is looked at by each.
_MOST_SELECTORS, _MOST_KEYS = 100, 20


def subsets(message: WireMessage, path: str, report: Report) -> Subsets:
    """What an LbSubsetConfig or a Subset says."""
    if len(message.subset_selectors) > _MOST_SELECTORS:
        report.problem(join(path, "subset_selectors"), f"there may be {_MOST_SELECTORS} at most")
    selectors = tuple(
        _selector(item, f"{join(path, 'subset_selectors')}[{index}]", report)
        for index, item in enumerate(message.subset_selectors[:_MOST_SELECTORS])
    )
    return Subsets(
        selectors,
        _known(_FALLBACKS, message, "fallback_policy", path, report) or SubsetFallback.NONE,
        labels_of(struct(message.default_subset)),
        weighted=bool(message.locality_weight_aware),
        scaled=bool(message.scale_locality_weight),
        any_in_panic=bool(message.panic_mode_any),
        any_of_list=bool(message.list_as_any),
        variants=bool(_known(_VARIANTS, message, "metadata_fallback_policy", path, report)),
        redundant=bool(getattr(message, "allow_redundant_keys", False)),  # of a policy
    )


def _known(table: Mapping[int, T], message: WireMessage, field: str, path: str, report: Report) -> T | None:
    value = getattr(message, field)
    if value not in table:
        report.problem(join(path, field), f"{value} is not known")
    return table.get(value)


def _selector(message: WireMessage, path: str, report: Report) -> Selector:
    keys = tuple(sorted({str(key) for key in message.keys}))
    fewer = tuple(sorted({str(key) for key in message.fallback_keys_subset}))
    fallback, here = (
        _known(_OF_SELECTOR, message, "fallback_policy", path, report),
        join(path, "fallback_keys_subset"),
    )
    if len(keys) > _MOST_KEYS:
        report.problem(join(path, "keys"), f"there may be {_MOST_KEYS} at most")
    if fallback is not SubsetFallback.KEYS:
        if fewer:
            report.problem(here, "is for fallback_policy KEYS_SUBSET")
    elif not fewer:
        report.problem(here, "must not be empty")
    elif not set(fewer) < set(keys):
        report.problem(here, "must be some of keys, and not all of them")
    return Selector(keys[:_MOST_KEYS], fallback, fewer, bool(message.single_host_per_subset))


def call_labels(owner: WireMessage, route: Labels = NO_LABELS) -> Labels:
    """`owner.metadata_match`, over what its `route` says."""
    return merged(route, labels_of(metadata(owner, "metadata_match").get(LB_SCOPE, {})))
