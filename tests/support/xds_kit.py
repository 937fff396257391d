"""A scripted control plane without a socket, and resources as bytes, for tests of the pure xDS code."""

from __future__ import annotations

import json
from pathlib import Path

from meshlib.testing import build
from meshlib.xds import schema
from meshlib.xds.delta import DeltaMachine
from meshlib.xds.session import Session
from meshlib.xds.values import Interest

DATA = Path(__file__).resolve().parents[1] / "unit" / "xds" / "data"
TYPES = {"LDS": "listener", "RDS": "route", "CDS": "cluster", "EDS": "endpoint"}
RESPONSE = schema.message("envoy.service.discovery.v3.DiscoveryResponse")
REQUEST = schema.message("envoy.service.discovery.v3.DiscoveryRequest")
DELTA_RESPONSE = schema.message("envoy.service.discovery.v3.DeltaDiscoveryResponse")
DELTA_REQUEST = schema.message("envoy.service.discovery.v3.DeltaDiscoveryRequest")
WRAPPER = schema.message("envoy.service.discovery.v3.Resource")
ERROR = schema.message("envoy.service.discovery.v3.ResourceError")
STATUS = schema.message("google.rpc.Status")
NODE = schema.from_json("envoy.config.core.v3.Node", {"id": "me"}).SerializeToString()
WILD = Interest(wildcard=True)


def message(resource):
    """The message that a resource of `build` describes."""
    kind = schema.type_name(resource["@type"])
    return schema.from_json(kind, build.without_type(resource))


def raw(resource):
    return message(resource).SerializeToString(deterministic=True)


def packed(resource):
    return schema.pack(message(resource)) if isinstance(resource, dict) else resource


def response(short, *resources, version="1", nonce="n1", type_url=None, errors=()):
    return RESPONSE(
        type_url=type_url or schema.TYPE_URLS[short],
        version_info=version,
        nonce=nonce,
        resources=[packed(resource) for resource in resources],
        resource_errors=errors,
    ).SerializeToString()


def read(requests):
    """Requests as (type's short name, names, version, nonce, refusal)."""
    parsed = [REQUEST.FromString(each) for each in requests]
    return [
        (
            schema.SHORT_NAMES[each.type_url],
            list(each.resource_names),
            each.version_info,
            each.response_nonce,
            each.error_detail.message,
        )
        for each in parsed
    ]


def istio(name):
    """What a real istiod answered: short name → list of resources as Any."""
    given = json.loads((DATA / f"istio-{name}.json").read_text())
    return {short: [packed(each) for each in given[key]["resources"]] for key, short in TYPES.items()}


class Wire:
    """A session with a stream: `send` is the server, `asked` what it was asked since."""

    def __init__(self, view="target", **options):
        self.now = 0.0
        self.session = Session(NODE, view=view, jitter=lambda: 0.5, **options)
        self.count = 0
        self.asked = []

    def open(self):
        self.session.opened(self.now)
        return self.flush()

    def flush(self):
        self.asked = read(self.session.outgoing(self.now))
        return self.asked

    def want(self, *names):
        for name in names:
            self.session.want(name)
        return self.flush()

    def send(self, short, *resources, version=None, **options):
        self.count += 1
        made = response(
            short, *resources, version=version or str(self.count), nonce=f"n{self.count}", **options
        )
        found = self.session.received(made, self.now)
        self.flush()
        return found

    def pass_time(self, seconds):
        self.now += seconds
        return self.session.tick(self.now)

    def close(self, error=""):
        return self.session.closed(self.now, error)

    @property
    def part(self):
        return self.session.part

    def routes(self, target):
        """The virtual hosts in force of a target: name → domains."""
        listener = self.part.targets[target]
        return {host.name: host.domains for host in listener.http.routes.virtual_hosts}

    def sidecar_routes(self, name):
        listener = next(each for each in self.part.sidecar if each.name == name)
        return {host.name: host.domains for host in listener.http.routes.virtual_hosts}


def wire_of(*listeners):
    """A session in the sidecar view to which a cluster `c` came, and these."""
    wire = Wire("sidecar")
    wire.open()
    wire.send("cluster", build.cluster("c", ["10.0.0.1:80"]))
    wire.send("listener", *listeners)
    return wire


def simple(name, *, host=None, cluster=None):
    """A target listener by RDS, its routes, its cluster and the cluster's endpoints."""
    cluster = cluster or name
    return {
        "listener": build.api_listener(name, f"r-{name}"),
        "route": build.route_config(
            f"r-{name}",
            build.virtual_host(name, build.route(cluster=cluster), domains=[host or name]),
        ),
        "cluster": build.cluster(cluster),
        "endpoint": build.endpoints(cluster, "10.0.0.1:80"),
    }


def delta_response(short, *resources, removed=(), version="1", nonce="n1", errors=(), versions=None):
    """A DeltaDiscoveryResponse. Of a pair the first is the name; `Resource` messages are taken as they are."""
    made = []
    for each in resources:
        if isinstance(each, WRAPPER):
            made.append(each)
            continue
        name, given = each if isinstance(each, tuple) else (each.get("name") or each["cluster_name"], each)
        made.append(WRAPPER(name=name, version=(versions or {}).get(name, version), resource=packed(given)))
    return DELTA_RESPONSE(
        type_url=schema.TYPE_URLS[short],
        system_version_info=version,
        nonce=nonce,
        resources=made,
        removed_resources=removed,
        resource_errors=errors,
    ).SerializeToString()


def read_delta(requests):
    """Requests as (type's short name, subscribed, unsubscribed, versions, nonce, refusal)."""
    parsed = [DELTA_REQUEST.FromString(each) for each in requests]
    return [
        (
            schema.SHORT_NAMES[each.type_url],
            list(each.resource_names_subscribe),
            list(each.resource_names_unsubscribe),
            dict(each.initial_resource_versions),
            each.response_nonce,
            each.error_detail.message,
        )
        for each in parsed
    ]


def names(*wanted):
    """The interest in these names."""
    return Interest(names=frozenset(wanted))


def opened(machine, now=0.0, **interests):
    """What a machine with these interests, by type, asks for once its stream is up."""
    for short, interest in interests.items():
        machine.set_interest(short, interest)
    machine.opened(now)
    tell = read_delta if isinstance(machine, DeltaMachine) else read
    return tell(machine.outgoing(now))


def bad(name):
    """A cluster that is refused."""
    return build.cluster(name, outlier_detection={"interval": "0s"}, connect_timeout="0s")
