"""TLS contexts for what the mesh demands of a connection (:class:`meshlib.model.tls.Tls`), and what is checked of the peer.

======================  ====================================================================================================
``material``            what a context is made of: bytes as they were given, files as they are now
``making``              a context of ``ssl`` for such material
``checks``              what is checked of a peer once the handshake is done, before a byte of a request, and how a refusal is told
``contexts``            one context for equal values and process; its files are read again when they change, which raises its epoch
``watch``               looks at the files of what is in use
======================  ====================================================================================================

Whom a connection is accepted from:

- With roots of the mesh: a certificate that these signed. If there are ``sans``, one of them must be in the certificate; the name
  that was asked for does not count, nor does it where there are none (TL-04, as Envoy).
- With the system's roots: likewise, but that without ``sans`` the name that was asked for must be in it. Envoy accepts any.
- Without a word on it: from anybody, as in Envoy, which is warned of.

OpenSSL checks in the handshake who signed, times, revocations and names without ``sans``. The rest is checked when it is done, within
``do_handshake``, so that no transport can forget it.
"""

from meshlib.runtime.tls.checks import offered
from meshlib.runtime.tls.contexts import MeshContext, context_for, rotations
from meshlib.runtime.tls.watch import watch

__all__ = ["MeshContext", "context_for", "offered", "rotations", "watch"]
