"""What is Istio's own in the protocol. Pure.

Beside its generator for Envoy, Istio has one for gRPC clients without a proxy, which a node asks for in its metadata. Of listeners
and clusters asked for by delta that generator's server keeps only those that its last answer to a subscription had: a subscription
to one more name makes it forget the others, so does giving one up, and a name of which it has nothing is forgotten at once. What is
forgotten is not pushed when it changes. In state of the world every request has all names, so that nothing is lost there.
"""

from __future__ import annotations

from meshlib.xds import schema
from meshlib.xds.schema import WireMessage

__all__ = ["wants_grpc"]


def wants_grpc(node: bytes | WireMessage) -> bool:
    """Whether the node's metadata asks for Istio's generator for proxyless gRPC."""
    if isinstance(node, bytes):
        try:
            node = schema.message("envoy.config.core.v3.Node").FromString(node)
        except schema.DecodeError:
            return False  # the machine says so
    return "GENERATOR" in node.metadata.fields and node.metadata.fields["GENERATOR"].string_value == "grpc"
