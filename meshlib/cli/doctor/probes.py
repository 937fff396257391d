"""What the doctor tries by itself: connections, names, clocks and files. At most ``SECONDS`` for all of it.

It connects to what the configuration names (control planes, endpoints) and to loopback, and nowhere else. A connection is
closed again with nothing sent, but for two: a control plane with TLS gets a handshake, and one endpoint a service, of those in
plain HTTP/1.1 that a file names, is asked ``OPTIONS *`` for its ``Date``, which concerns no resource of it (RFC 9110, 9.3.7).

Each try is a daemon thread's, since looking up a name can take as long as the system likes: what has no outcome in time
is left out, and told.
"""

from __future__ import annotations

import queue
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TypeVar

from meshlib.cli.doctor.certificates import FileSeen, look_at
from meshlib.model.address import Address
from meshlib.model.hosts import is_loopback
from meshlib.observe.facts import Facts, ServerFacts, pairs_of

__all__ = ["MOST", "SECONDS", "Reached", "Seen", "address_of", "loopback", "probe"]

K = TypeVar("K")
V = TypeVar("V")

#: Seconds for all tries together, and for one connection.
SECONDS = 4.0
PATIENCE = 1.0
#: Addresses that are tried, and threads that do it.
MOST = 1024
AT_ONCE = 64
#: Services that are asked for the time, and bytes of an answer that are read.
CLOCKS = 8
LONGEST = 16384

_OPTIONS = "OPTIONS * HTTP/1.1\r\nHost: {}\r\nUser-Agent: meshlib-doctor\r\nConnection: close\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Reached:
    """``problem``: why not, in words; ``""``: it was. ``unresolved``: the name is the reason. ``skew``: seconds that its clock is
    ahead of ours, None where it did not say.
    """

    problem: str = ""
    unresolved: bool = False
    skew: float | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """``reached``: by address as the facts have it; ``handshakes``: by the server's target, what went wrong with TLS;
    ``left``: addresses that there was no time for. ``now``: seconds since 1970, when it was looked.
    """

    reached: Mapping[str, Reached] = field(default_factory=dict)
    handshakes: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, FileSeen] = field(default_factory=dict)
    pairs: Mapping[tuple[str, str], str] = field(default_factory=dict)
    left: frozenset[str] = frozenset()
    now: float = 0.0


def probe(facts: Sequence[Facts]) -> Seen:
    """Try what ``facts`` name, all at once."""
    servers = {server["uri"]: server for each in facts for server in each["config"]["servers"]}
    connects = _addresses(facts, servers.values())
    clocks = _clocks(facts)
    tasks: dict[tuple[str, str], Callable[[], Reached]] = {
        ("connect", address): lambda address=address: _reach(address, clocks.get(address, ""))  # type: ignore[misc]
        for address in connects[:MOST]
    }
    tasks |= {
        ("tls", uri): lambda server=server: _shake_hands(server)  # type: ignore[misc]
        for uri, server in servers.items()
        if server["tls"]
    }
    done = _at_once(tasks, SECONDS)
    paths = {file["path"]: file["use"] for each in facts for file in each["config"]["files"]}
    pairs = {pair for each in facts for pair in pairs_of(each["config"]["files"])}
    return Seen(
        reached={address: reached for (kind, address), reached in done.items() if kind == "connect"},
        handshakes={uri: reached.problem for (kind, uri), reached in done.items() if kind == "tls"},
        files={path: look_at(path, use) for path, use in paths.items()},
        pairs={pair: _pair(*pair) for pair in pairs},
        left=frozenset(address for address in connects if ("connect", address) not in done),
        now=time.time(),
    )


def address_of(uri: str) -> str:
    """The address that a gRPC target means; the target itself where that is not known."""
    scheme, colon, rest = uri.partition(":")
    if scheme == "unix" and colon:
        return f"unix:{rest.removeprefix('//')}"
    if scheme == "dns" and colon:
        uri = rest.rpartition("/")[2]
    elif scheme in ("ipv4", "ipv6") and colon:
        uri = rest
    try:
        return str(Address.parse(uri, 443))  # grpc's default
    except ValueError:
        return uri


def loopback(address: str) -> bool:
    """Whether it can only be this machine's."""
    try:
        where = Address.parse(address)
    except ValueError:
        return False
    return where.unix or is_loopback(where.host)


# --- what is tried -------------------------------------------------------------------------------------------------------


def _addresses(facts: Sequence[Facts], servers: Iterable[ServerFacts]) -> list[str]:
    """Control planes first, then one endpoint after the other of each cluster, then loopback listeners."""
    found = [address_of(server["uri"]) for server in servers]
    rows = [cluster["endpoints"] for each in facts for cluster in each["clusters"]]
    found += [
        row[index] for index in range(max(map(len, rows), default=0)) for row in rows if index < len(row)
    ]
    found += [
        address
        for each in facts
        for listener in each["listeners"]
        for address in listener["addresses"]
        if loopback(address)
    ]
    return list(dict.fromkeys(found))


def _clocks(facts: Sequence[Facts]) -> dict[str, str]:
    """Who is asked for the time: an address of each service of a file, and the Host it is asked by."""
    found: dict[str, str] = {}
    for each in facts:
        of_file = {item["name"] for item in each["listeners"] if item["view"] == "service"}
        for cluster in each["clusters"]:
            if cluster["plain"] and cluster["name"] in of_file and cluster["endpoints"]:
                found.setdefault(cluster["endpoints"][0], cluster["name"])
    return dict(list(found.items())[:CLOCKS])


def _reach(address: str, host: str) -> Reached:
    try:
        with _connected(address) as connection:
            return Reached(skew=_skew(connection, host) if host else None)
    except socket.gaierror as problem:
        return Reached(f"the name does not resolve: {problem.strerror}", unresolved=True)
    except (OSError, ValueError, UnicodeError) as problem:
        return Reached(_words(problem))


def _words(problem: Exception) -> str:
    if isinstance(problem, TimeoutError):
        return f"no answer within {PATIENCE:g} s"
    said = getattr(problem, "strerror", None)
    return (said or str(problem)).lower()


def _connected(address: str) -> socket.socket:
    where = Address.parse(address)
    if not where.unix:
        return socket.create_connection((where.host, where.port), timeout=PATIENCE)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(PATIENCE)
        connection.connect(where.host)
    except BaseException:
        connection.close()
        raise
    return connection


def _skew(connection: socket.socket, host: str) -> float | None:
    """None where no time was told: it speaks no HTTP, or is slow."""
    begun = time.time()
    try:
        connection.sendall(_OPTIONS.format(host).encode("ascii"))
        head = _head(connection)
    except (OSError, UnicodeError):
        return None
    asked = (begun + time.time()) / 2
    lines = [line for line in head.split(b"\r\n")[1:] if line.lower().startswith(b"date:")]
    if not head.startswith(b"HTTP/1.") or not lines:
        return None
    try:
        told = parsedate_to_datetime(lines[0][len(b"date:") :].decode("ascii").strip())
        # A date that does not say its zone is one of HTTP's, whose zone is always GMT. Its seconds are cut.
        told = told.replace(tzinfo=told.tzinfo or UTC)
        return told.timestamp() + 0.5 - asked
    except (ValueError, OverflowError, UnicodeError):
        return None


def _head(connection: socket.socket) -> bytes:
    until = time.monotonic() + PATIENCE
    head = b""
    while b"\r\n\r\n" not in head and len(head) < LONGEST:
        connection.settimeout(max(0.001, until - time.monotonic()))
        piece = connection.recv(4096)
        if not piece:
            break
        head += piece
    return head.partition(b"\r\n\r\n")[0]


def _shake_hands(server: ServerFacts) -> Reached:
    """As grpc would, with the same files; nothing is said once it is done."""
    address = address_of(server["uri"])
    try:
        context = ssl.create_default_context(cafile=server["ca"] or None)
        if server["cert"]:
            context.load_cert_chain(server["cert"], server["key"] or None, password="")
        context.set_alpn_protocols(["h2"])
        connection = _connected(address)
    except (OSError, ValueError):
        return Reached()  # that nobody is there, and what is wrong with files, is found by itself
    with connection:
        try:
            name = None if address.startswith("unix:") else Address.parse(address).host
            context.check_hostname = name is not None
            with context.wrap_socket(connection, server_hostname=name):
                return Reached()
        except ssl.SSLCertVerificationError as problem:
            return Reached(f"its certificate is not accepted: {problem.verify_message}")
        except (OSError, ValueError) as problem:
            return Reached(_words(problem))


def _pair(cert: str, key: str) -> str:
    """Why a certificate and a key are none, or ``""``. Files that cannot be read are found by themselves."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_cert_chain(cert, key, password="")
    except ssl.SSLError as problem:
        return (problem.reason or str(problem)).replace("_", " ").lower()
    except OSError:
        return ""
    return ""


def _at_once(tasks: Mapping[K, Callable[[], V]], seconds: float) -> dict[K, V]:
    """What the tasks give that are done after ``seconds``; the others go on and nobody hears of them."""
    waiting: queue.SimpleQueue[tuple[K, Callable[[], V]]] = queue.SimpleQueue()
    for item in tasks.items():
        waiting.put(item)
    done: queue.SimpleQueue[tuple[K, V]] = queue.SimpleQueue()
    until = time.monotonic() + seconds

    def work() -> None:
        while time.monotonic() < until:
            try:
                key, task = waiting.get_nowait()
            except queue.Empty:
                return
            done.put((key, task()))

    for _ in range(min(AT_ONCE, len(tasks))):
        threading.Thread(target=work, name="meshlib-doctor", daemon=True).start()
    found: dict[K, V] = {}
    while len(found) < len(tasks):
        try:
            key, value = done.get(timeout=max(0.0, until - time.monotonic()))
        except queue.Empty:
            break
        found[key] = value
    return found
