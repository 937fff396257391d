"""Subset balancing: a call goes to the endpoints that have the labels which its route asks for.

Theory (Envoy's). A selector is a set of keys. Each combination of values that endpoints have of them, in their metadata under ``envoy.lb``,
makes a subset, which is balanced as if it were the cluster: with priorities, a panic, localities of its own. A call is for the subset
that has exactly its labels. If there is none, a fallback holds: that of the selector which has the names of the call's labels, else the
cluster's: nobody, anybody, the default subset, or (of a selector) the same with fewer of the labels. A subset that is there is not left
because nobody in it can be called: that a call is for these endpoints is worth more than that it succeeds.

Who is in which subset is found out when the configuration changes (:class:`SubsetIndex`), once for all health that follows. A balance of
a subset is made when a call is for it first, and where a call's labels lead is remembered: a pick is one look-up, whatever there is.

There are at most ``MOST_SUBSETS`` of a cluster, whatever the metadata say; more endpoints' combinations make none.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

from meshlib.core.endpoint import Down
from meshlib.core.locality import Group
from meshlib.model.subset import LB_SCOPE, NO_LABELS, SubsetFallback, has_labels, value_of

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence

    from meshlib.core.endpoint import LiveEndpoint
    from meshlib.core.locality import Balance
    from meshlib.core.upstream import PickContext
    from meshlib.model.subset import Labels, Selector, Subsets

__all__ = ["MOST_SUBSETS", "SubsetBalance", "SubsetIndex", "merged"]

MOST_SUBSETS = 10_000
#: Values that an endpoint may have of one selector's keys, where lists stand for their items.
_MOST_VALUES = 100
#: Labels of calls whose way is remembered: routes have few, and a configuration that changes does not fill the memory.
_MOST_WAYS = 4096
_VARIANTS = "fallback_list"
#: Stand for subsets that no labels name.
_ANY, _DEFAULT = ("any",), ("default",)


class SubsetIndex:
    """Who is in which subset: of a cluster's ``groups``, by ``rules``. Immutable; ``give_way`` is called at each endpoint.

    Attributes:
        groups: Of each subset, by its labels.
        single: Those that have one endpoint, which is called whatever its health; not among ``groups``.
        full: Some subsets are not there, since there are too many.
        widest: The selectors, those with most keys first.
    """

    __slots__ = ("full", "groups", "rules", "single", "widest")

    def __init__(
        self, groups: Sequence[Group], rules: Subsets, give_way: Callable[[], object] = bool
    ) -> None:
        self.rules = rules
        self.widest = sorted(rules.selectors, key=lambda selector: -len(selector.keys))
        self.single: dict[Hashable, LiveEndpoint] = {}
        self.full = False
        found: dict[Hashable, dict[int, list[LiveEndpoint]]] = {}
        wanted = {rules.fallback, *(selector.fallback for selector in rules.selectors)}
        if SubsetFallback.ANY in wanted or rules.any_in_panic:
            found[_ANY] = {index: group.endpoints for index, group in enumerate(groups)}
        if SubsetFallback.DEFAULT in wanted:
            found[_DEFAULT] = {}
        for index, group in enumerate(groups):
            for endpoint in group.endpoints:
                give_way()
                self._place(endpoint, index, found)
        self.groups = {labels: self._groups(groups, members) for labels, members in found.items()}

    def everybody(self) -> Iterator[LiveEndpoint]:
        """Who is in any subset, perhaps more than once."""
        yield from self.single.values()
        for groups in self.groups.values():
            for group in groups:
                yield from group.endpoints

    def _place(
        self, endpoint: LiveEndpoint, index: int, found: dict[Hashable, dict[int, list[LiveEndpoint]]]
    ) -> None:
        rules, held = self.rules, endpoint.endpoint.metadata.get(LB_SCOPE, {})
        if _DEFAULT in found and has_labels(held, rules.default, any_of_list=rules.any_of_list):
            found[_DEFAULT].setdefault(index, []).append(endpoint)
        if not held:
            return
        for selector in rules.selectors:
            for labels in _combinations(held, selector, any_of_list=rules.any_of_list):
                if labels in self.single:
                    continue  # another one was there first
                members = found.get(labels)
                if members is None:
                    if len(found) + len(self.single) >= MOST_SUBSETS:
                        self.full = True
                        continue
                    if selector.single:
                        self.single[labels] = endpoint
                        continue
                    members = found[labels] = {}
                inside = members.setdefault(index, [])
                if not inside or inside[-1] is not endpoint:  # two selectors may have the same keys
                    inside.append(endpoint)

    def _groups(self, groups: Sequence[Group], members: Mapping[int, list[LiveEndpoint]]) -> list[Group]:
        rules, made = self.rules, []
        for index, inside in members.items():
            group = groups[index]
            weight = group.weight if rules.weighted else None
            if weight and rules.scaled:
                weight = int(weight * len(inside) / len(group.endpoints) + 0.5)
            made.append(Group(group.priority, weight, inside, group.locality))
        return made


def _combinations(held: Mapping[str, object], selector: Selector, *, any_of_list: bool) -> Iterator[Labels]:
    values: list[list[Hashable]] = []
    for key in selector.keys:
        if key not in held:
            return
        value = held[key]
        if any_of_list and isinstance(value, list | tuple):
            values.append([value_of(item) for item in value[:_MOST_VALUES]])
        else:
            values.append([value_of(value)])
    for count, combination in enumerate(product(*values)):
        if count >= _MOST_VALUES or not combination:
            return
        yield tuple(zip(selector.keys, combination, strict=True))


class SubsetBalance:
    """A choice among the subsets of ``index`` by a call's labels, each balanced by what ``make`` makes. As
    :class:`~meshlib.core.locality.Balance`. Not thread-safe. Whoever peeks without labels asks whether there is anybody. ``groups``: of
    the whole cluster.
    """

    __slots__ = ("_balances", "_groups", "_index", "_make", "_ways", "_whole")

    def __init__(
        self,
        index: SubsetIndex,
        make: Callable[[Sequence[Group]], Balance],
        groups: Sequence[Group] = (),
    ) -> None:
        self._groups = groups
        self._whole: Balance | None = None
        self._index = index
        self._make = make
        self._balances: dict[Hashable, Balance | _One] = {}
        self._ways: dict[Labels, tuple[Balance | _One, ...]] = {}

    @property
    def whole(self) -> Balance:
        """Of the whole cluster: an aggregate shares its load by that, whatever subset a call is for, as in Envoy."""
        if self._whole is None:
            self._whole = self._make(self._groups)
        return self._whole

    @property
    def used(self) -> tuple[Labels, ...]:
        """Labels of calls that came."""
        return tuple(self._ways)

    def prepare(self, labels: Sequence[Labels]) -> None:
        """Make what calls with these labels will need."""
        for one in labels:
            self._way(one)

    @property
    def empty(self) -> bool:
        """Whether nobody may be called by a call without labels."""
        return all(balance.empty for balance in self._way(NO_LABELS))

    def pick(self, context: PickContext) -> LiveEndpoint | None:
        for balance in self._of(context):
            picked = balance.pick(context)
            if picked is not None:
                return picked
        return None

    def peek(self, context: PickContext) -> LiveEndpoint | None:
        for balance in self._of(context):
            picked = balance.peek(context)
            if picked is not None:
                return picked
        if getattr(context, "labels", None) is None:
            return next((item for item in self._index.everybody() if not item.down), None)
        return None

    def _of(self, context: PickContext) -> tuple[Balance | _One, ...]:
        labels = getattr(context, "labels", None) or NO_LABELS
        way = self._ways.get(labels)
        return self._way(labels) if way is None else way

    def _way(self, labels: Labels) -> tuple[Balance | _One, ...]:
        """Whom a call with these labels is for: the first of them that has anybody."""
        if len(self._ways) >= _MOST_WAYS:
            self._ways.clear()
        way = self._ways[labels] = tuple(self._balance(key) for key in dict.fromkeys(self._keys(labels)))
        return way

    def _balance(self, key: Hashable) -> Balance | _One:
        made = self._balances.get(key)
        if made is None:
            one = self._index.single.get(key)
            made = self._make(self._index.groups.get(key, ())) if one is None else _One(one)
            self._balances[key] = made
        return made

    def _keys(self, labels: Labels) -> Iterator[Hashable]:
        if self._index.rules.variants:
            rest = tuple(label for label in labels if label[0] != _VARIANTS)
            variants = next((value for name, value in labels if name == _VARIANTS), None)
            listed = variants[1] if isinstance(variants, tuple) and variants[0] is list else ()
            labels = rest
            if listed:
                for variant in listed:
                    more = variant[1] if isinstance(variant, tuple) and variant[0] is dict else ()
                    yield from self._once(merged(rest, more))
                return
        yield from self._once(labels)

    def _once(self, labels: Labels) -> Iterator[Hashable]:
        index, rules = self._index, self._index.rules
        while labels:
            if rules.redundant:
                labels = _without_redundant(labels, index.widest)
            if labels in index.groups or labels in index.single:
                yield labels
                return
            names = tuple(name for name, _ in labels)
            selector = next((item for item in rules.selectors if item.keys == names), None)
            if selector is None or selector.fallback is None:
                break
            if selector.fallback is not SubsetFallback.KEYS:
                yield from _stand_in(selector.fallback)
                return
            labels = tuple(label for label in labels if label[0] in selector.fewer)
        yield from _stand_in(rules.fallback)
        if rules.any_in_panic and rules.fallback is not SubsetFallback.NONE:
            yield _ANY


def _stand_in(fallback: SubsetFallback) -> Iterator[Hashable]:
    if fallback is SubsetFallback.ANY:
        yield _ANY
    elif fallback is SubsetFallback.DEFAULT:
        yield _DEFAULT


def _without_redundant(labels: Labels, selectors: Sequence[Selector]) -> Labels:
    """Those of the first selector all of whose keys are there; as many as can be."""
    names = {name for name, _ in labels}
    for selector in selectors:
        if names.issuperset(selector.keys):
            return tuple(label for label in labels if label[0] in selector.keys)
    return labels


def merged(labels: Labels, more: Labels) -> Labels:
    """``more`` has the last word."""
    return tuple(sorted({**dict(labels), **dict(more)}.items(), key=lambda label: label[0]))


class _One:
    """The only endpoint of a subset, whatever is said of its health; never behind TLS that cannot be had."""

    __slots__ = ("_endpoint", "empty")

    def __init__(self, endpoint: LiveEndpoint) -> None:
        self._endpoint = endpoint
        self.empty = bool(endpoint.down & Down.TLS)

    def pick(self, context: PickContext) -> LiveEndpoint | None:  # noqa: ARG002 - the protocol's
        return None if self._endpoint.down & Down.TLS else self._endpoint

    peek = pick
