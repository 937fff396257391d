"""Whom a process calls at all: each priority by itself, whoever is ejected keeps its place, and bad luck is no outage."""

import random
from collections import Counter

import pytest

from meshlib.core.endpoint import Down
from meshlib.core.locality import Balance, Group, grpc_balance
from meshlib.core.narrowing import narrowed
from meshlib.core.upstream import PickContext
from meshlib.model.endpoint import Locality
from meshlib.model.policy import Aperture, Balancer, Balancing
from tests.support.live_kit import live_endpoint

CONTEXT = PickContext()


def groups(*sizes, priority=0):
    made, number = [], priority * 1000
    for zone, size in enumerate(sizes):
        held = [live_endpoint(number + item) for item in range(size)]
        made.append(Group(priority, zone + 1, held, Locality(zone=str(zone))))
        number += size
    return made


def members(found):
    return {endpoint for group in found for endpoint in group.endpoints}


@pytest.mark.parametrize("rules", [Aperture(8), Aperture(8, 2, 5)])
def test_each_priority_by_itself_over_all_its_localities(rules):
    held = groups(20, 20) + groups(30, priority=1)
    found, parts = narrowed(held, rules, 7)
    first = members(group for group in found if not group.priority)
    second = members(group for group in found if group.priority)
    assert len(first) >= 8
    assert len(second) >= 8
    assert set(parts) == first | second
    assert {(group.priority, group.weight, group.locality) for group in found} <= {
        (group.priority, group.weight, group.locality) for group in held
    }


@pytest.mark.parametrize("rules", [Aperture(8), Aperture(8, 2, 5)])
def test_who_is_ejected_keeps_its_place(rules):
    held = groups(40)
    found, _ = narrowed(held, rules, 7)
    next(iter(members(found))).down = Down.EJECTED
    assert members(narrowed(held, rules, 7)[0]) == members(found)


def test_whom_the_control_plane_lets_nobody_call_has_no_place():
    held = groups(40)
    gone = next(iter(members(narrowed(held, Aperture(8), 7)[0])))
    gone.down = Down.CONTROL_PLANE
    found = members(narrowed(held, Aperture(8), 7)[0])
    assert gone not in found
    assert len(found) == 8


@pytest.mark.parametrize("rules", [Aperture(8), Aperture(8, 2, 5)])
def test_where_nobody_of_the_chosen_may_be_called_all_are(rules):
    held = groups(40)
    for endpoint in members(narrowed(held, rules, 7)[0]):
        endpoint.down = Down.EJECTED
    assert narrowed(held, rules, 7) == (held, {})


def test_few_are_all():
    held = groups(3, 4)
    assert narrowed(held, Aperture(7), 1) == (held, {})


@pytest.mark.parametrize("kind", [Balancer.ROUND_ROBIN, Balancer.LEAST_REQUEST, Balancer.RANDOM])
@pytest.mark.parametrize("grpc", [False, True])
def test_all_apertures_together_are_even(kind, grpc):
    """Seven callers, 30 endpoints: each gets a thirtieth, whoever picks."""
    held, callers, counts = groups(30), 7, Counter()
    for caller in range(callers):
        chosen, edges = narrowed(held, Aperture(5, caller, callers), 0)
        rng = random.Random(caller).random
        if grpc:
            made = grpc_balance(chosen, Balancing(kind), rng, edges=edges)
        else:
            made = Balance(chosen, Balancing(kind), 140, rng, edges=edges)
        counts.update(made.pick(CONTEXT) for _ in range(6000))
    total = sum(counts.values())
    assert [counts[item] / total for item in held[0].endpoints] == pytest.approx([1 / 30] * 30, abs=0.006)
