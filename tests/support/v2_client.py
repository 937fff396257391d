"""A hand-made client of xDS v2: streams and unary calls on plain bytes, beside which nothing of the product is at work."""

from __future__ import annotations

import queue
import threading

import grpc
from google.protobuf.unknown_fields import UnknownFieldSet

from meshlib.xds import schema, v2
from tests.support.xds_kit import REQUEST, RESPONSE

__all__ = ["SERVICES", "V2Client", "named", "unknown"]

PATIENCE = 10.0
ADS = "/envoy.service.discovery.v2.AggregatedDiscoveryService/StreamAggregatedResources"
SERVICES = {
    "Listeners": "/envoy.api.v2.ListenerDiscoveryService/",
    "Clusters": "/envoy.api.v2.ClusterDiscoveryService/",
    "Endpoints": "/envoy.api.v2.EndpointDiscoveryService/",
    "Routes": "/envoy.api.v2.RouteDiscoveryService/",
    "Secrets": "/envoy.service.discovery.v2.SecretDiscoveryService/",
}


class Stream:
    """One stream. `receive` waits for the next answer; `code` for the end."""

    def __init__(self, channel, method):
        self._requests = queue.SimpleQueue()
        self._answers = queue.SimpleQueue()
        self._call = channel.stream_stream(method, None, None)(iter(self._requests.get, None))
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        try:
            for raw in self._call:
                self._answers.put(RESPONSE.FromString(raw))
        except grpc.RpcError as problem:
            self._answers.put(problem)

    def send(self, node="", url="", names=(), version="", nonce="", *, node_id="", error=""):
        request = REQUEST(type_url=url, version_info=version, resource_names=names, response_nonce=nonce)
        if node or node_id:
            request.node.cluster, request.node.id = node, node_id or node
        if error:
            request.error_detail.message = error
        self._requests.put(request.SerializeToString())

    def receive(self):
        found = self._answers.get(timeout=PATIENCE)
        assert not isinstance(found, grpc.RpcError), found
        return found

    def ack(self, response, names=()):
        self.send(names=names, version=response.version_info, nonce=response.nonce)

    def settle(self):
        """Returns when the server has taken up all that was sent: it answers in turn. Once a stream."""
        self.send(url="type.googleapis.com/envoy.api.v2.RouteConfiguration")
        assert self.receive().type_url.endswith("RouteConfiguration")

    def code(self):
        """Status and words of the end."""
        found = self._answers.get(timeout=PATIENCE)
        assert isinstance(found, grpc.RpcError), found
        return found.code(), found.details()

    @property
    def silent(self):
        """Whether nothing has come. Ask it where something else that was asked later has come."""
        return self._answers.empty()

    def close(self):
        self._requests.put(None)
        self._call.cancel()


class V2Client:
    """Streams and calls on one channel; a `with` closes them."""

    def __init__(self, address):
        self._channel = grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)])
        self._streams = []

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        for stream in self._streams:
            stream.close()
        self._channel.close()

    def stream(self, plural="", *, method=""):
        self._streams.append(
            Stream(self._channel, method or (SERVICES[plural] + f"Stream{plural}" if plural else ADS))
        )
        return self._streams[-1]

    def fetch(self, plural, node="", *, version="", names=()):
        """The answer. Raises grpc.RpcError."""
        request = REQUEST(version_info=version, resource_names=names)
        if node:
            request.node.cluster = request.node.id = node
        call = self._channel.unary_unary(SERVICES[plural] + f"Fetch{plural}", None, None)
        return RESPONSE.FromString(call(request.SerializeToString(), timeout=PATIENCE))

    def refusal(self, plural, node="", **options):
        """Status and words of a call that has no answer."""
        try:
            self.fetch(plural, node, **options)
        except grpc.RpcError as problem:
            return problem.code(), problem.details()
        raise AssertionError("it has an answer")


def named(response):
    """The resources of an answer by name, each as a v3 message with what is v2's as unknown fields."""
    found = {}
    for outer in response.resources:
        inner = schema.message(v2.TYPES[schema.type_name(outer.type_url)]).FromString(outer.value)
        found[getattr(inner, "cluster_name", "") or inner.name] = inner
    return found


def unknown(message):
    """The fields that the schema does not have: number → bytes."""
    return {each.field_number: each.data for each in UnknownFieldSet(message)}
