"""What is said to those that issue identities over gRPC: methods, and messages in a descriptor pool of their own.

It is not in the schema of xDS (`meshlib.xds.schema`), whose notation it uses: it comes from others, and is loaded only where an identity is
asked for over the network. SPIFFE's messages have no package, and would clash with anybody's copy in protobuf's own pool.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, cast

from google.protobuf import message_factory

from meshlib.xds.schema.pool import ROOT, build

if TYPE_CHECKING:
    from meshlib.xds.schema import WireMessage

__all__ = ["CREATE_CERTIFICATE", "FETCH_X509_SVID", "message"]

#: istio.io/api, security/v1alpha1/ca.proto; SPIFFE's workload.proto.
CREATE_CERTIFICATE = "/istio.v1.auth.IstioCertificateService/CreateCertificate"
FETCH_X509_SVID = "/SpiffeWorkloadAPI/FetchX509SVID"

_TABLE = """
message X509SVIDRequest

message X509SVIDResponse
   1 svids             [X509SVID]
   2 crl               [bytes]
   3 federated_bundles map:bytes

message X509SVID
   1 spiffe_id     string
   2 x509_svid     bytes
   3 x509_svid_key bytes
   4 bundle        bytes
   5 hint          string

package istio.v1.auth

message IstioCertificateRequest
   1 csr               string
   3 validity_duration int64
   4 metadata          pb.Struct

message IstioCertificateResponse
   1 cert_chain [string]
"""

_POOL = build([_TABLE])


@cache
def message(name: str) -> type[WireMessage]:
    """The class of the message that upstream calls so. Raises KeyError."""
    found = _POOL.FindMessageTypeByName(f"{ROOT}.{name}")
    return cast("type[WireMessage]", message_factory.GetMessageClass(found))
