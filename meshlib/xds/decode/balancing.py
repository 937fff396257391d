"""How a cluster is balanced: the deprecated enum and its configurations, or a list of policies (CD-05, CD-06, LB)."""

from __future__ import annotations

import math
from dataclasses import replace

from meshlib.model.policy import Aperture, Balancer, Balancing, Reports, SlowStart, ZoneAware
from meshlib.model.subset import Subsets
from meshlib.xds import schema
from meshlib.xds.decode.report import Report, join, walk
from meshlib.xds.decode.retry import hash_policies
from meshlib.xds.decode.subset import subsets
from meshlib.xds.decode.values import header_name, number, percent, seconds, unpacked
from meshlib.xds.schema import WireMessage

__all__ = ["balancing"]

_LB = "envoy.extensions.load_balancing_policies."
_ROUND_ROBIN = f"{_LB}round_robin.v3.RoundRobin"
_LEAST_REQUEST = f"{_LB}least_request.v3.LeastRequest"
_RANDOM = f"{_LB}random.v3.Random"
_LOCALITY = f"{_LB}wrr_locality.v3.WrrLocality"
_PROVIDED = f"{_LB}cluster_provided.v3.ClusterProvided"
# gRPC's; Envoy does not know them.
_PICK_FIRST = f"{_LB}pick_first.v3.PickFirst"
_SOME = f"{_LB}random_subsetting.v3.RandomSubsetting"
_OF_GRPC = frozenset({_PICK_FIRST, _SOME})
_RING = f"{_LB}ring_hash.v3.RingHash"
_TABLE = f"{_LB}maglev.v3.Maglev"
_ORCA = f"{_LB}client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin"
_OVERRIDE = f"{_LB}override_host.v3.OverrideHost"
_SUBSET = f"{_LB}subset.v3.Subset"
_KNOWN = frozenset(
    {_ROUND_ROBIN, _LEAST_REQUEST, _RANDOM, _LOCALITY, _PROVIDED, _RING, _TABLE, _ORCA, _OVERRIDE, _SUBSET}
)
#: The field in which a policy has another one.
_CHILD = {
    _LOCALITY: "endpoint_picking_policy",
    _OVERRIDE: "fallback_policy",
    _SUBSET: "subset_lb_policy",
    _SOME: "child_policy",
}
_MAX_NESTING = 16
_ENUM = {0: Balancer.ROUND_ROBIN, 1: Balancer.LEAST_REQUEST, 3: Balancer.RANDOM, 6: Balancer.ROUND_ROBIN}
_CLUSTER_PROVIDED = 6
_BY_POLICY = 7  # LOAD_BALANCING_POLICY_CONFIG
_RING_HASH, _MAGLEV = 2, 5
_STRICT_DNS = 1
# Envoy's bounds, the least size of a ring where none is set, and the size of a table.
_MAX_RING, _MIN_RING, _MAX_TABLE, _TABLE_SIZE = 8 * 1024 * 1024, 1024, 5_000_011, 65_537
_XX_HASH = frozenset({0})
_LEAST_FACTOR = 100
_LEAST_UPDATE = 0.1  # gRFC A58
_FULL_SCAN = 1
_BY_WEIGHT = 1
#: Of ``common_lb_config``; a policy says such things itself.
_OF_ENUM = ("zone_aware_lb_config", "locality_weighted_lb_config", "consistent_hashing_lb_config")
#: Of an enum's two, which is MurmurHash2: in the cluster's own configuration of a ring, and in the policy.
_MURMUR, _MURMUR_OF_POLICY = 1, 2


def balancing(cluster: WireMessage, path: str, report: Report, *, provides: bool = False) -> Balancing:
    """The balancer of a Cluster, with its panic threshold; `load_balancing_policy` wins over `lb_policy`.

    `provides`: the cluster's type brings a balancer of its own.
    """
    if not report.target:
        _check_provided(cluster, path, report, provides=provides)
        _check_enum_sizes(cluster, path, report)
    elif cluster.lb_policy == _CLUSTER_PROVIDED and not (
        provides or cluster.HasField("load_balancing_policy")
    ):
        report.problem(join(path, "lb_policy"), "CLUSTER_PROVIDED is none of gRPC's balancers")  # CD-06
    if cluster.HasField("load_balancing_policy"):
        made = _policies(cluster.load_balancing_policy, join(path, "load_balancing_policy"), report, 0)
    else:
        made = _enum(cluster, path, report)
    common, here = cluster.common_lb_config, join(path, "common_lb_config")
    threshold = percent(common, "healthy_panic_threshold", here, report)
    if threshold is not None:
        made = replace(made, panic_threshold=threshold)
    if cluster.HasField("load_balancing_policy"):
        return made
    if common.HasField("locality_weighted_lb_config"):
        made = replace(made, locality_weighted=True)
    if cluster.HasField("lb_subset_config"):
        made = replace(made, subsets=_of_cluster(cluster, path, report))
    zones = _zones(common, here, report)
    return made if zones is None else replace(made, zones=zones)


def _of_cluster(cluster: WireMessage, path: str, report: Report) -> Subsets | None:
    """Without a selector there are none, as in Envoy."""
    path = join(path, "lb_subset_config")
    if cluster.lb_policy == _CLUSTER_PROVIDED:
        report.problem(path, "cannot stand beside lb_policy CLUSTER_PROVIDED")
    found = subsets(cluster.lb_subset_config, path, report)
    return found if found.selectors else None


def _check_provided(cluster: WireMessage, path: str, report: Report, *, provides: bool) -> None:
    """As Envoy judges (1.40): `lb_policy` decides where the type provides, though there is a `load_balancing_policy`."""
    provided = cluster.lb_policy == _CLUSTER_PROVIDED
    if provides and not provided:
        report.problem(join(path, "lb_policy"), "must be CLUSTER_PROVIDED for a cluster of this type")
    held = cluster.HasField("load_balancing_policy")
    if provided and not provides and not held:
        report.problem(
            join(path, "lb_policy"), "CLUSTER_PROVIDED is for clusters that bring a balancer of their own"
        )
    hashing = cluster.common_lb_config.consistent_hashing_lb_config
    if hashing.use_hostname_for_hashing and not held and cluster.type != _STRICT_DNS:
        place = join(path, "common_lb_config.consistent_hashing_lb_config.use_hostname_for_hashing")
        report.problem(place, "is for clusters of type STRICT_DNS")
    if held and cluster.HasField("lb_subset_config"):
        report.problem(join(path, "lb_subset_config"), "cannot stand beside load_balancing_policy")
    for field in _OF_ENUM if held else ():
        if cluster.common_lb_config.HasField(field):
            report.problem(
                join(path, f"common_lb_config.{field}"), "cannot stand beside load_balancing_policy"
            )


def _enum(cluster: WireMessage, path: str, report: Report) -> Balancing:
    chosen = cluster.lb_policy
    here = join(path, "lb_policy")
    if chosen == _BY_POLICY:
        report.problem(here, "LOAD_BALANCING_POLICY_CONFIG needs load_balancing_policy")
        return Balancing()
    if chosen == _RING_HASH and report.target:
        _check_grpc_ring(cluster.ring_hash_lb_config, join(path, "ring_hash_lb_config"), report, 0, _XX_HASH)
    if chosen in (_RING_HASH, _MAGLEV):
        hashing = cluster.common_lb_config.consistent_hashing_lb_config
        made = _consistent(hashing, join(path, "common_lb_config.consistent_hashing_lb_config"), report)
        if chosen == _MAGLEV:
            return _table(cluster.maglev_lb_config, made)
        return _ring(cluster.ring_hash_lb_config, made, _MURMUR)
    kind = _ENUM.get(chosen)
    if kind is None:
        report.problem(here, f"{chosen} is not known")
        return Balancing()
    least = _least_request(cluster.least_request_lb_config, join(path, "least_request_lb_config"), report)
    if kind is Balancer.LEAST_REQUEST:
        return least
    if kind is not Balancer.ROUND_ROBIN:
        return Balancing(kind)
    slow = _slow(cluster.round_robin_lb_config, join(path, "round_robin_lb_config"), report)
    return Balancing(kind, slow_start=slow)


def _least_request(message: WireMessage, path: str, report: Report) -> Balancing:
    count = number(message, "choice_count")
    if count is not None and count < 2:
        report.problem(join(path, "choice_count"), f"must be at least 2, not {count}")
    bias = 1.0
    if message.HasField("active_request_bias"):
        bias = float(message.active_request_bias.default_value)
        if math.isnan(bias) or bias < 0:  # as Envoy
            report.ignore(join(path, "active_request_bias.default_value"), f"{bias}: 1 holds in its place")
            bias = 1.0
    slow = _slow(message, path, report)
    made = Balancing(Balancer.LEAST_REQUEST, 2 if count is None else count, bias, slow_start=slow)
    if hasattr(message, "selection_method"):  # of the policy
        made = replace(
            made, full_scan=message.enable_full_scan.value or message.selection_method == _FULL_SCAN
        )
    return made


def _consistent(message: WireMessage, path: str, report: Report) -> Balancing:
    factor = number(message, "hash_balance_factor") or 0
    if 0 < factor < _LEAST_FACTOR:
        report.problem(join(path, "hash_balance_factor"), f"must be at least {_LEAST_FACTOR}, not {factor}")
    # Of a policy there are hash policies, too, which the field of the cluster has not.
    policies = hash_policies(message, path, report) if hasattr(message, "hash_policy") else ()
    return Balancing(
        hash_hostname=bool(message.use_hostname_for_hashing), load_factor=factor, hash_policy=policies
    )


def _ring(message: WireMessage, made: Balancing, murmur: int) -> Balancing:
    least, most = number(message, "minimum_ring_size"), number(message, "maximum_ring_size")
    return replace(
        made,
        kind=Balancer.RING_HASH,
        least_places=_MIN_RING if least is None else least,
        most_places=_MAX_RING if most is None else most,
        murmur=message.hash_function == murmur,
    )


def _table(message: WireMessage, made: Balancing) -> Balancing:
    size = number(message, "table_size")
    return replace(made, kind=Balancer.MAGLEV, table_size=_TABLE_SIZE if size is None else size)


def _orca(message: WireMessage, path: str, report: Report) -> Balancing:
    """LB-07, LB-08."""
    default = Reports()
    every = seconds(message, "oob_reporting_period", path, report)
    beside = (every or default.blackout) if message.enable_oob_load_report.value else None
    penalty = default.penalty
    if message.HasField("error_utilization_penalty"):
        penalty = float(message.error_utilization_penalty.value)
        if not 0 <= penalty < math.inf:
            report.problem(join(path, "error_utilization_penalty"), f"must not be negative, not {penalty}")
    blackout, expiry, update = (
        seconds(message, field, path, report)
        for field in ("blackout_period", "weight_expiration_period", "weight_update_period")
    )
    return Balancing(
        Balancer.ORCA,
        reports=Reports(
            blackout=default.blackout if blackout is None else blackout,
            expiry=default.expiry if expiry is None else expiry,
            update=max(_LEAST_UPDATE, default.update if update is None else update),
            beside=beside,
            penalty=penalty,
            names=tuple(str(name) for name in message.metric_names_for_computing_utilization),
        ),
        slow_start=_slow(message, path, report),
    )


def _slow(message: WireMessage, path: str, report: Report) -> SlowStart | None:
    """`message.slow_start_config`; a window of 0 is none."""
    if not message.HasField("slow_start_config"):
        return None
    held, path = message.slow_start_config, join(path, "slow_start_config")
    window = seconds(held, "slow_start_window", path, report)
    default = SlowStart(window or 0.0)
    aggression, least = default.aggression, percent(held, "min_weight_percent", path, report)
    if held.HasField("aggression"):
        aggression = float(held.aggression.default_value)
        if not 0 < aggression < math.inf:  # as Envoy
            report.ignore(join(path, "aggression.default_value"), f"{aggression}: 1 holds in its place")
            aggression = default.aggression
    if not window:
        return None
    return SlowStart(window, aggression, default.least if least is None else least / 100.0)


def _zones(message: WireMessage, path: str, report: Report) -> ZoneAware | None:
    """`message.zone_aware_lb_config`, of a cluster or of a policy."""
    if not message.HasField("zone_aware_lb_config"):
        return None
    held, path = message.zone_aware_lb_config, join(path, "zone_aware_lb_config")
    enabled = percent(held, "routing_enabled", path, report)
    minimum, default = number(held, "min_cluster_size"), ZoneAware()
    force, by_weight = 0, False
    if hasattr(held, "locality_basis"):  # of a policy
        by_weight = held.locality_basis == _BY_WEIGHT
        if held.HasField("force_local_zone"):
            force = max(1, 1 if (least := number(held.force_local_zone, "min_size")) is None else least)
        elif held.force_locality_direct_routing:
            force = 1
    return ZoneAware(
        default.percent if enabled is None else int(enabled),
        default.minimum if minimum is None else minimum,
        force,
        by_weight,
        bool(held.fail_traffic_on_panic),
    )


def _check_enum_sizes(cluster: WireMessage, path: str, report: Report) -> None:
    """The bounds hold for what is not used, too."""
    chosen = None if cluster.HasField("load_balancing_policy") else cluster.lb_policy
    ring, table = cluster.ring_hash_lb_config, cluster.maglev_lb_config
    _check_ring(ring, join(path, "ring_hash_lb_config"), report, used=chosen == _RING_HASH)
    _check_table(table, join(path, "maglev_lb_config"), report, used=chosen == _MAGLEV)


def _check_ring(message: WireMessage, path: str, report: Report, *, used: bool = True) -> None:
    least, most = (number(message, field) for field in ("minimum_ring_size", "maximum_ring_size"))
    for field, size in (("minimum_ring_size", least), ("maximum_ring_size", most)):
        if size is not None and size > _MAX_RING:
            report.problem(join(path, field), f"must be at most {_MAX_RING}, not {size}")
    least = _MIN_RING if least is None else least
    if used and most is not None and most < least <= _MAX_RING:
        report.problem(join(path, "maximum_ring_size"), f"{most} is less than minimum_ring_size, {least}")


def _check_grpc_ring(
    message: WireMessage, path: str, report: Report, least: int, functions: frozenset[int]
) -> None:
    """LB-03, as measured with grpcio 1.85. `least`: the minimum where none is set; `functions`: those that are XX_HASH."""
    sizes = {field: number(message, field) for field in ("minimum_ring_size", "maximum_ring_size")}
    for field, size in sizes.items():
        if size is not None and not 1 <= size <= _MAX_RING:
            report.problem(join(path, field), f"must be 1 to {_MAX_RING}, not {size}")
    low, high = sizes["minimum_ring_size"], sizes["maximum_ring_size"]
    if high is not None and high < (least if low is None else low):
        report.problem(join(path, "maximum_ring_size"), f"{high} is less than minimum_ring_size")
    if message.hash_function not in functions:
        report.problem(join(path, "hash_function"), "must be XX_HASH")


def _check_table(message: WireMessage, path: str, report: Report, *, used: bool = True) -> None:
    size, path = number(message, "table_size"), join(path, "table_size")
    if size is None:
        return
    if size > _MAX_TABLE:
        report.problem(path, f"must be at most {_MAX_TABLE}, not {size}")
    elif used and not _is_prime(size):
        report.problem(path, f"must be a prime number, not {size}")


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % factor for factor in range(2, math.isqrt(number) + 1))


def _policies(message: WireMessage, path: str, report: Report, depth: int) -> Balancing:
    """CD-05: the first entry that is known; a known entry with a wrong configuration refuses the cluster."""
    if depth >= _MAX_NESTING:
        report.problem(path, f"policies are nested deeper than {_MAX_NESTING}")
        return Balancing()
    names: list[str] = []
    for index, entry in enumerate(message.policies):
        outer = entry.typed_extension_config.typed_config
        here = f"{join(path, 'policies')}[{index}].typed_extension_config.typed_config"
        name = _policy_name(outer)
        if name in _KNOWN or (name in _OF_GRPC and report.target):
            return _policy(name, outer, here, report, depth)
        names.append(name)
    listed = ", ".join(name[:100] or "nothing" for name in names[:10]) or "it is empty"
    report.problem(join(path, "policies"), f"none is supported ({listed})")
    return Balancing()


def _policy_name(outer: WireMessage) -> str:
    """The type of a policy; those written as TypedStruct are not read, and so are not known."""
    try:
        return schema.type_name(outer.type_url)
    except ValueError:
        return ""


def _policy(name: str, outer: WireMessage, path: str, report: Report, depth: int) -> Balancing:
    inner = unpacked(outer, path, report, name)
    if inner is None:
        return Balancing()
    walk(inner, path, report)
    if name == _PICK_FIRST:
        return Balancing(Balancer.PICK_FIRST, shuffled=bool(inner.shuffle_address_list))
    if name == _ORCA:
        return _orca(inner, path, report)
    if name in (_RING, _TABLE):
        return _hashing(name, inner, path, report)
    if name in _CHILD:
        return _outer(name, inner, path, report, depth)
    if name == _PROVIDED:
        if not report.target:
            report.problem(path, "is for clusters that bring a balancer of their own")
        return Balancing()
    if name == _LEAST_REQUEST:
        made = _least_request(inner, path, report)
    elif name == _RANDOM:
        made = Balancing(Balancer.RANDOM)
    else:
        made = Balancing(slow_start=_slow(inner, path, report))
    place = inner.locality_lb_config
    zones = _zones(place, join(path, "locality_lb_config"), report)
    return replace(made, locality_weighted=place.HasField("locality_weighted_lb_config"), zones=zones)


def _outer(name: str, message: WireMessage, path: str, report: Report, depth: int) -> Balancing:
    """A policy that has another one to choose for it."""
    field = _CHILD[name]
    here = join(path, field)
    if name == _OVERRIDE:
        return _override(message, path, report, depth)
    child = _policies(getattr(message, field), here, report, depth + 1)
    if name == _LOCALITY:
        return replace(child, locality_weighted=True)
    if name == _SUBSET:
        if child.subsets is not None:
            report.problem(here, "subsets of subsets are not supported")
        return replace(child, subsets=subsets(message, path, report))
    size = number(message, "subset_size")
    if not size:
        report.problem(join(path, "subset_size"), "must be set and more than 0")  # LB-12
    return replace(child, aperture=Aperture(size or 1))


def _override(message: WireMessage, path: str, report: Report, depth: int) -> Balancing:
    """The policy behind it, with the headers that name endpoints; of other sources there are none here."""
    here, headers = join(path, "override_host_sources"), []
    if not len(message.override_host_sources):
        report.problem(here, "must not be empty")
    for index, source in enumerate(message.override_host_sources):
        if bool(source.header) == source.HasField("metadata"):
            report.problem(f"{here}[{index}]", "exactly one of header and metadata must be set")
        elif source.header:
            headers.append(header_name(str(source.header), f"{here}[{index}].header", report))
    if not message.HasField("fallback_policy"):
        report.problem(join(path, "fallback_policy"), "is missing")
        return Balancing()
    child = _policies(message.fallback_policy, join(path, "fallback_policy"), report, depth + 1)
    return replace(child, override_headers=tuple(headers))


def _hashing(name: str, message: WireMessage, path: str, report: Report) -> Balancing:
    field = "consistent_hashing_lb_config"
    if name == _RING and not message.HasField(field):  # the fields of before it
        made = _consistent(message, path, report)
    else:
        made = _consistent(message.consistent_hashing_lb_config, join(path, field), report)
    made = replace(made, locality_weighted=message.HasField("locality_weighted_lb_config"))
    if name == _TABLE:
        if not report.target:
            _check_table(message, path, report)
        return _table(message, made)
    if report.target:
        _check_grpc_ring(message, path, report, _MIN_RING, _XX_HASH | {1})
    else:
        _check_ring(message, path, report)
    return _ring(message, made, _MURMUR_OF_POLICY)
