"""Subsets: whom a call with labels is for, how many there may be, and what is remembered."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.core import subsets as module
from meshlib.core.endpoint import Down, LiveEndpoint
from meshlib.core.locality import Balance, Group, grpc_balance
from meshlib.core.subsets import SubsetBalance, SubsetIndex
from meshlib.core.upstream import PickContext
from meshlib.model.endpoint import Locality
from meshlib.model.policy import Balancer, Balancing, SlowStart
from meshlib.model.subset import Selector, SubsetFallback, Subsets, labels_of, shown, value_of
from tests.support.live_kit import endpoint

V, STAGE = Selector(("v",)), Selector(("stage",))
BOTH = Selector(("stage", "v"))


def member(number, down=0, **labels):
    made = endpoint(number, metadata={"envoy.lb": labels} if labels else {})
    return LiveEndpoint(made, priority=0, locality=Locality(), down=down)


def wanted(**labels):
    context = PickContext()
    context.labels = labels_of(labels)
    return context


def balance(groups, rules, *, grpc=False, seed=1, **fields):
    rng, balancing = random.Random(seed).random, Balancing(**fields)

    def make(members):
        if grpc:
            return grpc_balance(members, balancing, rng)
        return Balance(members, balancing, 140, rng)

    return SubsetBalance(SubsetIndex(groups, rules), make)


def whom(made, context, picks=60):
    found = {made.pick(context) for _ in range(picks)}
    assert made.peek(context) in found
    return {item if item is None else int(item.address.host.rpartition(".")[2]) for item in found}


FOUR = [
    Group(
        0,
        None,
        [
            member(0, v="1", stage="prod"),
            member(1, v="1", stage="dev"),
            member(2, v="2", stage="prod"),
            member(3),
        ],
    )
]


@pytest.mark.parametrize("grpc", [False, True])
@pytest.mark.parametrize("kind", Balancer)
def test_a_call_goes_to_whoever_has_its_labels(kind, grpc):
    made = balance(FOUR, Subsets((V, BOTH)), grpc=grpc, kind=kind, table_size=251)
    assert whom(made, wanted(v="1")) <= {0, 1}
    assert whom(made, wanted(v="1", stage="dev")) == {1}
    assert whom(made, wanted(stage="dev")) == {None}, "there is no selector of that"
    assert whom(made, wanted()) == {None}


@given(
    st.lists(
        st.dictionaries(st.sampled_from("abc"), st.sampled_from(["x", "y", 1.0, True, None]), max_size=3),
        max_size=12,
    ),
    st.dictionaries(st.sampled_from("abc"), st.sampled_from(["x", "y", 1.0, True, None]), max_size=3),
    st.lists(st.sets(st.sampled_from("abc"), min_size=1), min_size=1, max_size=4),
    st.sampled_from([SubsetFallback.NONE, SubsetFallback.ANY, SubsetFallback.DEFAULT]),
)
def test_nobody_else_is_ever_picked(members, labels, keys, fallback):
    """Whoever is picked has all labels of the call, if there is anybody of its selector; else the fallback holds."""
    held = [member(number, **each) for number, each in enumerate(members)]
    rules = Subsets(
        tuple(Selector(tuple(sorted(each))) for each in keys), fallback, default=labels_of({"a": "x"})
    )
    made = balance([Group(0, None, held)], rules)

    def has(item, asked):
        own = item.endpoint.metadata.get("envoy.lb", {})
        return all(name in own and value_of(own[name]) == value_of(value) for name, value in asked.items())

    inside = [item for item in held if has(item, labels)] if set(labels) in keys else []
    if not inside:
        if fallback is SubsetFallback.ANY:
            inside = held
        elif fallback is SubsetFallback.DEFAULT:
            inside = [item for item in held if has(item, {"a": "x"})]
    found = {made.pick(wanted(**labels)) for _ in range(40)}
    assert found <= set(inside) or (found == {None} and not inside)
    assert None not in found or not inside


def test_a_subset_is_not_left_because_nobody_is_well():
    held = [Group(0, None, [member(0, Down.CONTROL_PLANE, v="1"), member(1, v="2")])]
    rules = Subsets((V,), SubsetFallback.ANY)
    assert whom(balance(held, rules), wanted(v="1")) == {0}, "its own panic"
    assert whom(balance(held, rules, panic_threshold=0.0), wanted(v="1")) == {None}


def test_each_subset_has_priorities_and_a_panic_of_its_own():
    first = Group(0, None, [member(number, Down.EJECTED if number else 0, v="1") for number in range(4)])
    second = Group(1, None, [member(number, v="1") for number in range(10, 14)])
    for item in second.endpoints:
        item.priority = 1
    made = balance([first, second], Subsets((V,)))
    counts = Counter(made.pick(wanted(v="1")) in first.endpoints for _ in range(2000))
    assert counts[True] / 2000 == pytest.approx(0.35, abs=0.04)


def test_with_slow_start():
    held = FOUR[0].endpoints
    for item in held:
        item.since = 0.0
    held[1].since = 100.0
    context = wanted(v="1")
    context.now = 100.0
    made = balance(FOUR, Subsets((V,)), slow_start=SlowStart(50.0))
    counts = Counter(made.pick(context) for _ in range(2000))
    assert counts[held[1]] / 2000 == pytest.approx(0.1 / 1.1, abs=0.03)


def test_each_selector_has_its_own_fallback():
    rules = Subsets(
        (
            Selector(("v",), SubsetFallback.NONE),
            Selector(("stage",), SubsetFallback.DEFAULT),
            Selector(("stage", "v"), SubsetFallback.KEYS, fewer=("v",)),
        ),
        SubsetFallback.ANY,
        default=labels_of({"stage": "dev"}),
    )
    made = balance(FOUR, rules)
    assert whom(made, wanted(v="9")) == {None}
    assert whom(made, wanted(stage="9")) == {1}
    assert whom(made, wanted(stage="9", v="2")) == {2}
    assert whom(made, wanted(stage="9", v="9")) == {None}
    assert whom(made, wanted(x="9")) == {0, 1, 2, 3}
    assert whom(made, wanted()) == {0, 1, 2, 3}


def test_anybody_where_the_default_has_nobody():
    rules = Subsets((V,), SubsetFallback.DEFAULT, labels_of({"x": "y"}))
    assert whom(balance(FOUR, rules), wanted(v="9")) == {None}
    panic = Subsets((V,), SubsetFallback.DEFAULT, labels_of({"x": "y"}), any_in_panic=True)
    assert whom(balance(FOUR, panic), wanted(v="9")) == {0, 1, 2, 3}
    assert whom(balance(FOUR, Subsets((V,), any_in_panic=True)), wanted(v="9")) == {None}, (
        "no fallback, no panic"
    )


def test_lists_stand_for_their_items():
    held = [Group(0, None, [member(0, who=["a", "b"]), member(1, who="b"), member(2, who=[])])]
    rules = Subsets((Selector(("who",)),), any_of_list=True)
    assert whom(balance(held, rules), wanted(who="b")) == {0, 1}
    assert whom(balance(held, rules), wanted(who="a")) == {0}
    assert whom(balance(held, Subsets((Selector(("who",)),))), wanted(who="b")) == {1}
    assert whom(balance(held, Subsets((Selector(("who",)),))), wanted(who=["a", "b"])) == {0}
    default = Subsets((), SubsetFallback.DEFAULT, labels_of({"who": "a"}), any_of_list=True)
    assert whom(balance(held, default), wanted()) == {0}


def test_one_endpoint_each_whatever_its_health():
    held = [Group(0, None, [member(0, Down.EJECTED, v="1"), member(1, v="1"), member(2, Down.TLS, v="2")])]
    made = balance(held, Subsets((Selector(("v",), single=True),)))
    assert whom(made, wanted(v="1")) == {0}
    assert whom(made, wanted(v="2")) == {None}, "never in plain text"


def test_other_labels_are_tried_one_after_the_other():
    rules = Subsets((V, BOTH), variants=True)
    others = [{"v": "8"}, {"v": "1", "stage": "dev"}, {"v": "2"}]
    made = balance(FOUR, rules)
    assert whom(made, wanted(fallback_list=others)) == {1}
    assert whom(made, wanted(v="2", fallback_list=[])) == {2}
    assert whom(made, wanted(v="2", fallback_list="no list")) == {2}
    assert whom(made, wanted(v="9", fallback_list=["no labels", {"v": "2"}])) == {2}
    assert whom(balance(FOUR, Subsets((V,))), wanted(v="1", fallback_list=others)) == {None}


def test_more_labels_than_a_selector_has_keys():
    rules = Subsets((V, BOTH), redundant=True)
    assert whom(balance(FOUR, rules), wanted(v="1", stage="dev", x="y")) == {1}
    assert whom(balance(FOUR, rules), wanted(v="1", x="y")) == {0, 1}
    assert whom(balance(FOUR, Subsets((V, BOTH))), wanted(v="1", x="y")) == {None}


def test_weights_of_localities():
    near, far = (
        Group(0, 8, FOUR[0].endpoints[:2], Locality(zone="a")),
        Group(0, 2, FOUR[0].endpoints[2:], Locality(zone="b")),
    )

    def share(rules):
        made = balance([near, far], rules, locality_weighted=True)
        return sum(made.pick(wanted(stage="prod")) in near.endpoints for _ in range(3000)) / 3000

    assert share(Subsets((STAGE,))) == pytest.approx(0.5, abs=0.04)
    assert share(Subsets((STAGE,), weighted=True)) == pytest.approx(0.8, abs=0.04)
    assert share(Subsets((STAGE,), weighted=True, scaled=True)) == pytest.approx(0.8, abs=0.04)
    near.endpoints.append(member(9, stage="dev"))
    near.endpoints.append(member(8, stage="dev"))
    assert share(Subsets((STAGE,), weighted=True, scaled=True)) == pytest.approx(2 / 3, abs=0.04)
    del near.endpoints[2:]


# --- bounds --------------------------------------------------------------------------------------------------------------


def test_there_are_so_many_subsets_at_most(monkeypatch):
    monkeypatch.setattr(module, "MOST_SUBSETS", 3)
    held = [Group(0, None, [member(number, v=str(number)) for number in range(5)])]
    index = SubsetIndex(held, Subsets((V,), SubsetFallback.ANY))
    assert (len(index.groups), index.full) == (3, True)
    assert not SubsetIndex(FOUR, Subsets((V,))).full


def test_labels_of_lists_do_not_multiply_without_end():
    many = [str(number) for number in range(1000)]
    held = [Group(0, None, [member(0, a=many, b=many, c=many)])]
    index = SubsetIndex(held, Subsets((Selector(("a", "b", "c")),), any_of_list=True))
    assert len(index.groups) == 100


def test_what_is_remembered_of_calls_is_bounded(monkeypatch):
    monkeypatch.setattr(module, "_MOST_WAYS", 4)
    made = balance(FOUR, Subsets((V,), SubsetFallback.ANY))
    for number in range(50):
        assert made.pick(wanted(v=str(number))) is not None
        assert len(made.used) <= 4


def test_a_balance_is_made_once_for_a_subset():
    asked = []

    def make(members):
        asked.append(members)
        return Balance(members, Balancing(), 140, random.random)

    made = SubsetBalance(SubsetIndex(FOUR, Subsets((V,), SubsetFallback.ANY)), make)
    made.prepare([labels_of({"v": "1"})])
    for _ in range(5):
        made.pick(wanted(v="1"))
        made.pick(wanted(v="7"))
        made.pick(wanted(v="8"))
    assert len(asked) == 2


def test_whoever_has_no_labels_to_ask_for_asks_whether_anybody_is_there():
    made = balance(FOUR, Subsets((V,)))
    assert made.peek(PickContext()) in FOUR[0].endpoints
    assert made.empty
    down = [Group(0, None, [member(0, Down.EJECTED, v="1")])]
    assert balance(down, Subsets((V,))).peek(PickContext()) is None


# --- labels -----------------------------------------------------------------------------------------------------------------

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=6,
)


@given(VALUES, VALUES)
def test_values_are_equal_exactly_where_they_are_the_same(one, other):
    def plain(value):
        """With the type of each part, so that true is not 1."""
        if isinstance(value, dict):
            return {key: plain(held) for key, held in value.items()}
        if isinstance(value, list):
            return [plain(held) for held in value]
        return (float, float(value)) if type(value) in (int, float) else (type(value), value)

    assert (value_of(one) == value_of(other)) is (plain(one) == plain(other))
    assert hash(value_of(one)) == hash(value_of(one))
    assert isinstance(shown(labels_of({"x": one})), str)


def test_labels_in_words():
    assert (
        shown(labels_of({"b": 1, "a": "x", "c": True, "d": [None, {"e": 1.5}]}))
        == "a=x, b=1, c=true, d=[null, {e=1.5}]"
    )
