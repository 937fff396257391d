"""The connections to one endpoint: urllib3's pools, which keep and count connections as every pool of meshlib does.

A lane belongs to a front (``fronts.py``: the pool that urllib3 and requests think they call), to an endpoint, and to what the
control plane demands of connections to it. It has the front's settings; what it adds is where to connect and which name the
certificate must have.
"""

from __future__ import annotations

from http.client import HTTPException
from ssl import CertificateError
from ssl import SSLError as BaseSSLError
from typing import TYPE_CHECKING, Any

from urllib3 import connectionpool
from urllib3.exceptions import ProtocolError, SSLError
from urllib3.poolmanager import SSL_KEYWORDS

from meshlib.runtime.tls import context_for
from meshlib.transports.wire.limit import OwnLimit
from meshlib.transports.wire.pool import Pool
from meshlib_requests.connections import Attempt, HTTPConnection, HTTPSConnection

if TYPE_CHECKING:
    from meshlib.core.effects import Send
    from meshlib.core.upstream import Connections

__all__ = ["HTTPConnectionPool", "HTTPSConnectionPool", "Lane", "make_lane"]

#: What requests (``HTTPAdapter.cert_verify``) and others set on a pool after it was made; read when a connection is.
_TLS_ATTRIBUTES = (
    "assert_fingerprint",
    "assert_hostname",
    "ca_cert_dir",
    "ca_certs",
    "cert_file",
    "cert_reqs",
    "key_file",
    "key_password",
    "ssl_maximum_version",
    "ssl_minimum_version",
    "ssl_version",
)
#: Of a pool's arguments, those that are of TLS.
_TLS_ARGUMENTS = frozenset({*SSL_KEYWORDS, "assert_hostname", "assert_fingerprint", "server_hostname"})


class _Wire(Pool):
    """meshlib's pool, which can also be dropped by those who may take no lock."""

    def abandon(self) -> None:
        """Close what is idle, for the garbage collector and for a child after a fork: a lock may be held by whom they
        interrupted, or by a thread that is not there any more.
        """
        self._shelf.closed = True
        for connection in tuple(self._shelf.idle):
            connection.close()


class _Lane:
    """Mixed into urllib3's pools. Thread-safe."""

    wire: _Wire

    def open(self, attempt: Attempt, method: str, path: str, **request: Any) -> Any:
        """One request, up to the head of its response, whose body is to be read or closed. ``request``: the other
        arguments of urllib3's ``_make_request``, of which this is what ``urlopen`` adds where nothing is tried again.

        Raises urllib3's errors; Overloaded and TimeoutError where no connection is to be had.
        """
        connection = attempt.connection = self.wire.acquire(attempt)
        connection.take(attempt)
        try:
            return self._make_request(  # type: ignore[attr-defined]
                connection, method, path, response_conn=connection, preload_content=False, **request
            )
        except (BaseSSLError, CertificateError) as error:
            raise SSLError(error) from error
        except (HTTPException, OSError) as error:
            raise ProtocolError("Connection aborted.", error) from error
        finally:
            attempt.end_pending()

    def _put_conn(self, connection: Any) -> None:
        """A response is read, or closed."""
        self.give_back(connection)

    def give_back(self, connection: Any) -> None:
        """The request on ``connection`` is done."""
        connection.rest()
        self.wire.release(connection)


class HTTPConnectionPool(_Lane, connectionpool.HTTPConnectionPool):
    """In plain text."""

    ConnectionCls = HTTPConnection


class HTTPSConnectionPool(_Lane, connectionpool.HTTPSConnectionPool):
    """Over TLS."""

    ConnectionCls = HTTPSConnection


Lane = HTTPConnectionPool | HTTPSConnectionPool


def make_lane(front: Any, effect: Send) -> Lane:
    """The lane of ``front`` to ``effect.endpoint``. Raises ConfigError for TLS settings that cannot be used."""
    endpoint, cluster = effect.endpoint, effect.upstream.cluster
    address, tls = endpoint.address, endpoint.tls
    own: dict[str, Any] = dict(front.arguments)
    own["maxsize"] = 1  # urllib3's own queue is not used
    if tls is not None or front.scheme == "http":
        own = {name: value for name, value in own.items() if name not in _TLS_ARGUMENTS}
    if tls is not None:
        own |= {
            "ssl_context": context_for(tls),
            "server_hostname": tls.sni or endpoint.hostname or front.host,
            # The context checks names by itself, as the control plane orders.
            "assert_hostname": False,
            "cert_reqs": "CERT_REQUIRED",
        }
    elif front.scheme == "https":
        own.setdefault("server_hostname", front.host)
    secure = tls is not None or front.scheme == "https"
    kind = HTTPSConnectionPool if secure else HTTPConnectionPool
    host = "localhost" if address.unix else address.host
    lane = kind(host, address.port or (443 if secure else 80), **own)

    def connect() -> Any:
        if tls is None and secure:
            for name in _TLS_ATTRIBUTES:
                setattr(lane, name, getattr(front, name))
        connection: Any = lane._new_conn()
        connection.path = address.host if address.unix else None
        connection.keep = cluster.idle_timeout
        return connection

    most = front.arguments.get("maxsize", 1)
    limits: Connections = effect.upstream  # type: ignore[assignment]  # a live cluster is both
    lane.wire = _Wire(
        connect,
        OwnLimit(limits, max(1, most)) if front.block else limits,
        max_idle=most,
        gone=lambda: endpoint.gone or endpoint.tls is not tls,
    )
    return lane
