#!/usr/bin/env python3
"""What the size of a mesh costs, without a network: first load and one changed endpoint, from a response's bytes until it is in force.

``python scripts/measure_growth.py [--endpoints 100] [CLUSTERS ...]``, by default for 100, 1,000 and 10,000 clusters. Each size and
protocol has an interpreter of its own. Times are of the processor, in milliseconds; *longest* is the longest stretch of work between
two places where other threads may run, without the garbage collector's, which is beside it. Memory is what all of it takes.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from meshlib.core.resolve import Rules, compile_view
from meshlib.runtime.clock import MonotonicClock
from meshlib.runtime.clusters import Clusters, LiveCluster
from meshlib.runtime.store import Store
from meshlib.testing import build
from meshlib.xds import schema
from meshlib.xds.session import Session

__all__ = ["main"]

_DISCOVERY = "envoy.service.discovery.v3."
_CHANGES = 20
_COLUMNS = (
    "clusters",
    "protocol",
    "load",
    "longest",
    "collector",
    "MiB",
    "change",
    "decode",
    "publish",
    "longest",
)


def main(arguments: list[str]) -> int:
    """Measure, print, and give the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clusters", nargs="*", type=int, default=[100, 1000, 10_000])
    parser.add_argument("--endpoints", type=int, default=100, help="of each cluster (100)")
    parser.add_argument("--one", choices=("delta", "sotw"), help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if asked.one:
        print(json.dumps(Measured(asked.one, asked.clusters[0], asked.endpoints).row()))
        return 0
    print(" ".join(f"{name:>9}" for name in _COLUMNS))
    for clusters in asked.clusters:
        for protocol in ("delta", "sotw"):
            command = [sys.executable, __file__, str(clusters), "--endpoints", str(asked.endpoints)]
            done = subprocess.run([*command, "--one", protocol], capture_output=True, text=True, check=True)
            cells = (f"{cell:,.1f}" if isinstance(cell, float) else cell for cell in json.loads(done.stdout))
            print(" ".join(f"{cell:>9}" for cell in cells), flush=True)
    return 0


class Measured:
    """One size by one protocol: everything is made here, so that only what is measured comes between two looks at the clock."""

    def __init__(self, protocol: str, clusters: int, endpoints: int) -> None:
        self._protocol = protocol
        self._clusters = clusters
        self._endpoints = endpoints
        self._since = 0.0
        self._longest = 0.0
        self._collector = 0.0
        self._began = 0.0
        self._nonce = 0
        self._kept: list[tuple[str, bytes]] = []
        gc.callbacks.append(self._collects)
        self._live = Clusters(MonotonicClock(), random.Random(1).random, self._step)
        rules = Rules(has_xds=True, view="sidecar")
        self._store = Store(
            lambda snapshot, before: compile_view(snapshot, rules, before, self._step),
            self._live.reconcile,
            MonotonicClock(),
        )
        self._session = Session(
            b"", view="sidecar", protocol=protocol, jitter=random.random, give_way=self._step
        )

    def row(self) -> tuple[object, ...]:
        """The columns."""
        self._session.opened(0.0)
        self._session.outgoing(0.0)
        before, load = _resident(), 0.0
        for short in ("cluster", "endpoint", "listener", "route"):
            resources = ((name, made.SerializeToString()) for name, made in self._all(short))
            load += sum(self._take(self._response(short, resources, "1")))
        longest, self._longest = self._longest, 0.0
        collector = self._collector
        gc.collect()
        held = _resident() - before
        if self._protocol == "sotw":
            self._kept = [(name, made.SerializeToString()) for name, made in self._all("endpoint")]
        assert self._looked_at("service-1") == self._endpoints, "from now on it is as one that is called"
        told = [self._take(self._changed(turn)) for turn in range(1, _CHANGES + 1)]
        decode, publish = (statistics.median(each) for each in zip(*told, strict=True))
        found = self._store.snapshot.clusters["service-1"].assignment
        assert found is not None
        assert found.endpoints[0].address.host == f"10.255.{_CHANGES}.1"
        return (
            f"{self._clusters:,}",
            self._protocol,
            1e3 * load,
            1e3 * longest,
            1e3 * collector,
            held / 1024,
            1e3 * (decode + publish),
            1e3 * decode,
            1e3 * publish,
            1e3 * self._longest,
        )

    def _looked_at(self, name: str) -> int:
        found = self._live.get(self._session.part.source, name)
        assert isinstance(found, LiveCluster)
        return len(found.endpoints)

    def _step(self) -> None:
        now = time.process_time()
        self._longest = max(self._longest, now - self._since)
        self._since = now

    def _collects(self, phase: str, _: object) -> None:
        """What the collector takes is none of a stretch."""
        now = time.process_time()
        if phase == "start":
            self._began = now
        else:
            self._collector = max(self._collector, now - self._began)
            self._since += now - self._began

    def _take(self, raw: bytes) -> tuple[float, float]:
        """Seconds until it is decoded and put together, and from then on until it is in force."""
        self._since = began = time.process_time()
        received = self._session.received(raw, 0.0)
        decoded = time.process_time()
        self._store.publish((self._session.part,))
        ended = time.process_time()
        self._step()
        assert received.accepted, received
        self._session.outgoing(0.0)
        return decoded - began, ended - decoded

    # --- what the control plane sends

    def _changed(self, turn: int) -> bytes:
        changed = "service-1", _assignment(1, self._endpoints, turn).SerializeToString()
        others = (each for each in self._kept if each[0] != changed[0])
        return self._response("endpoint", [changed, *others], str(turn + 1))

    def _all(self, short: str) -> Iterator[tuple[str, Any]]:
        names = [f"service-{number}" for number in range(self._clusters)]
        if short == "endpoint":
            yield from ((name, _assignment(number, self._endpoints)) for number, name in enumerate(names))
        elif short == "cluster":
            yield from ((name, _made(build.cluster(name, lb_policy="LEAST_REQUEST"))) for name in names)
        elif short == "route":
            hosts = (build.virtual_host(name, build.route(cluster=name), domains=[name]) for name in names)
            yield "routes", _made(build.route_config("routes", *hosts))
        else:
            yield "in", _made(build.listener("in", "routes"))

    def _response(self, short: str, resources: Iterable[tuple[str, bytes]], version: str) -> bytes:
        self._nonce += 1
        url, nonce = schema.TYPE_URLS[short], str(self._nonce)
        if self._protocol == "sotw":
            whole = schema.message(f"{_DISCOVERY}DiscoveryResponse")(
                type_url=url, version_info=version, nonce=nonce
            )
            for _, resource in resources:
                whole.resources.add(type_url=url, value=resource)
            return bytes(whole.SerializeToString())
        some = schema.message(f"{_DISCOVERY}DeltaDiscoveryResponse")(
            type_url=url, system_version_info=version, nonce=nonce
        )
        for name, resource in resources:
            outer = some.resources.add(name=name, version=version)
            outer.resource.type_url, outer.resource.value = url, resource
        return bytes(some.SerializeToString())


def _made(resource: dict[str, Any]) -> Any:
    return schema.from_json(schema.type_name(resource["@type"]), build.without_type(resource))


def _assignment(number: int, endpoints: int, turn: int = 0) -> Any:
    """By hand: from JSON a million endpoints would take minutes."""
    message = schema.message("envoy.config.endpoint.v3.ClusterLoadAssignment")(
        cluster_name=f"service-{number}"
    )
    group = message.endpoints.add()
    for index in range(number * endpoints, (number + 1) * endpoints):
        where = group.lb_endpoints.add().endpoint.address.socket_address
        where.address, where.port_value = f"10.{index >> 16 & 127}.{index >> 8 & 255}.{index & 255}", 8080
    if turn:
        group.lb_endpoints[0].endpoint.address.socket_address.address = f"10.255.{turn}.1"
    return message


def _resident() -> int:
    """KiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
