"""A control plane that is polled, by either wire: real servers on loopback, and time that the test moves."""

from __future__ import annotations

import queue
import threading
from dataclasses import dataclass
from typing import Any

import grpc

from meshlib.config import Config
from meshlib.model.snapshot import Part
from meshlib.sources.control_plane import control_plane
from meshlib.sources.polling import JITTER
from meshlib.testing import ControlPlane, build
from meshlib.testing.grpc_server import GrpcServer
from meshlib.xds.bootstrap import bootstrap_of
from tests.support.sources_kit import Bench
from tests.support.xds_kit import simple

__all__ = ["REFRESH", "REST", "SOONEST", "FetchServer", "Noted", "Plane", "Polled", "resources"]

REFRESH = 30.0
#: The bench's random numbers are 0: the soonest that a poll may come again.
SOONEST = REFRESH * (1 - JITTER)
#: As a control plane writes sources for an Envoy that it serves by REST.
REST = {"api_config_source": {"api_type": "REST", "transport_api_version": "V3", "cluster_names": ["xds"]}}
SELF: dict[str, Any] = {"self": {}}
NOTHING = Part("xds")


class Plane(Bench):
    """A bench whose source polls `server`; `until` waits for what its thread posts."""

    def __init__(self, server, view="target", *, protocol="rest", node=None, **xds):
        self.posted = queue.SimpleQueue()
        config = Config.from_mapping(
            {
                "xds": {"server": server, "protocol": protocol, "view": view, **xds},
                "node": node or {"id": "me"},
            }
        )
        bootstrap = bootstrap_of(config, None, "", "host")

        def build_source(merge, bench):
            post = bench.worker.post

            def noted(command):
                post(command)
                bench.posted.put(None)

            bench.worker.post = noted
            return control_plane(merge, bootstrap, config.xds)

        super().__init__(build_source)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.merge.stop()

    def until(self, true, timeout=10.0):
        """Runs what is posted, until `true()`."""
        self.step()
        while not (found := true()):
            self.posted.get(timeout=timeout)
            self.step()
        return found

    def want(self, *names):
        for name in names:
            self.merge.want(name, name)
        self.step()

    def asked(self, control, kind, after, where=lambda each: True):
        """The first request of this type with an index of at least `after`."""
        found = self.until(
            lambda: [
                each for each in control.requests if each.kind == kind and each.index >= after and where(each)
            ]
        )
        return found[0]

    @property
    def xds(self):
        return self.status("xds")

    def ready(self, name="reviews"):
        self.want(name)
        self.until(lambda: name in self.parts.get("xds", NOTHING).targets and not self.merge.pending(name))

    def in_state(self, *states):
        return self.until(lambda: self.merge.sources[0].state.value in states)

    def lost(self):
        """Away: failed, or stale where it was reached before a name was wanted."""
        return self.in_state("failed", "stale")


class Noted(list):
    """Whoever waits for `posted` looks at it after each thing that comes."""

    def __init__(self, posted):
        self.posted = posted

    def append(self, item):
        super().append(item)
        self.posted.put(None)


@dataclass
class Polled:
    """A control plane of the test kit that serves, and how it is polled."""

    protocol: str
    control: ControlPlane
    url: str
    address: str

    def plane(self, view="target", **xds):
        return Plane(self.url, view, protocol=self.protocol, **xds)

    def resources(self, name="reviews", address="127.0.0.1:1001"):
        return resources(name, address, REST if self.protocol == "rest" else SELF)


def resources(name="reviews", address="127.0.0.1:1001", source=SELF):
    """A service whose routes and endpoints come from ``source``."""
    made = simple(name)
    made["cluster"] = build.cluster(name, eds_cluster_config={"eds_config": source})
    made["endpoint"] = build.endpoints(name, address)
    manager = made["listener"]["api_listener"]["api_listener"]
    manager["rds"]["config_source"] = source
    return made


class FetchServer(GrpcServer):
    """Answers every unary call alike: bytes, a status with its words, or nothing until it ends (None). Health checks are
    not implemented here.

    Attributes:
        methods: What was called, in the order of arrival.
        bodies: The request of each.
        metadata: What came with each.
    """

    def __init__(self, answer, credentials=None, port=0):
        super().__init__("the server", port=port, credentials=credentials, workers=8)
        self.answer = answer
        self.methods, self.bodies, self.metadata = [], [], []
        self._over = threading.Event()

    def _install(self, server):
        plane = self

        class Handler(grpc.GenericRpcHandler):
            def service(self, details):
                if "/Fetch" not in details.method:
                    return None
                return grpc.unary_unary_rpc_method_handler(
                    lambda body, context: plane._called(details.method, body, context)
                )

        server.add_generic_rpc_handlers((Handler(),))

    def _called(self, method, body, context):
        self.methods.append(method)
        self.metadata.append(dict(context.invocation_metadata()))
        self.bodies.append(body)
        if self.answer is None:
            self._over.wait()
            return b""
        if isinstance(self.answer, tuple):
            context.abort(*self.answer)
        return self.answer

    def __exit__(self, *exc):
        self._over.set()
        super().__exit__(*exc)
