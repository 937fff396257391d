"""What variables tell of a sidecar: Consul's upstreams, Kato's and Rainbond's dependencies, Dapr's ports.

A variable is as trustworthy as whoever started the process, who may as well have told another program to run: it may name a
local listener, and never a host beyond loopback.

=========================================  ==================================================================================
``<NAME>_CONNECT_SERVICE_HOST``, ``_PORT``  consul-k8s, for each upstream of the annotation
``DEPEND_SERVICE`` (``alias:id,…``)         Kato, beside ``TENANT_ID``, ``SERVICE_ID``, ``SERVICE_NAME``; Rainbond's has a ``_`` in front
``<PORT ALIAS>_HOST``, ``_PORT``            there, for each port of a dependency; the alias is ``<SERVICE ALIAS><PORT>`` unless renamed
``DAPR_HTTP_PORT``, ``DAPR_GRPC_PORT``      Dapr, in every container of the application
=========================================  ==================================================================================
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from meshlib.model.address import Address
from meshlib.model.hosts import is_loopback
from meshlib.model.sidecar import Mode
from meshlib.sidecar.evidence import EMPTY, Probe
from meshlib.sidecar.signatures import (
    DAPR_GRPC_PORT,
    DAPR_HEALTH,
    DAPR_HEALTH_OF_OLD,
    DAPR_HTTP_PORT,
    KATO_LISTENERS,
    KATO_READY,
)

__all__ = ["BOOTSTRAP", "Told", "dapr", "named", "relevant"]

BOOTSTRAP = "GRPC_XDS_BOOTSTRAP"

_CONSUL = "_CONNECT_SERVICE"
_DEPENDENCIES = ("DEPEND_SERVICE", "_DEPEND_SERVICE")
_KATO = ("TENANT_ID", "SERVICE_ID", "SERVICE_NAME")
_DAPR = ("DAPR_HTTP_PORT", "DAPR_GRPC_PORT")
#: More upstreams than that are not read: nobody has them, and an environment may be anything.
_MOST = 1000


class Told(NamedTuple):
    """A sidecar that variables name.

    Attributes:
        upstreams: Those that must listen before it is ready.
        others: Those that may.
        addresses: What listens while it is there.
        probes: What is asked, one after the other, until it is ready.
        lines: What was read, and what of it is ignored.
    """

    kind: str
    mode: Mode
    addresses: tuple[Address, ...]
    lines: tuple[str, ...]
    address: Address | None = None
    grpc: Address | None = None
    upstreams: Mapping[str, Address] = EMPTY
    others: Mapping[str, Address] = EMPTY
    probes: tuple[Probe, ...] = ()


def relevant(environ: Mapping[str, str]) -> dict[str, str]:
    """Those variables that tell of a sidecar."""
    kato = _is_kato(environ)
    suffixes = ("_HOST", "_PORT") if kato else (f"{_CONSUL}_HOST", f"{_CONSUL}_PORT")
    names = {BOOTSTRAP, *_DAPR, *_KATO, *_DEPENDENCIES} if kato else {BOOTSTRAP, *_DAPR}
    return {name: text for name, text in environ.items() if name in names or name.endswith(suffixes)}


def named(environ: Mapping[str, str]) -> tuple[Told, ...]:
    """The sidecars that ``environ`` names."""
    return tuple(told for told in (_kato(environ), _consul(environ), _dapr(environ)) if told is not None)


def dapr(http: int = DAPR_HTTP_PORT, grpc: int = DAPR_GRPC_PORT, line: str = "") -> Told:
    """Dapr at these ports."""
    address = Address("127.0.0.1", http)
    return Told(
        "dapr",
        "api",
        (address,),
        (line,) if line else (),
        address=address,
        grpc=Address("127.0.0.1", grpc),
        probes=(Probe(address, DAPR_HEALTH, older=DAPR_HEALTH_OF_OLD),),
    )


def _dapr(environ: Mapping[str, str]) -> Told | None:
    said = {name: environ[name] for name in _DAPR if environ.get(name)}
    if not said:
        return None
    ports = [
        _port(said[name]) if name in said else default for name, default in zip(_DAPR, _PORTS, strict=True)
    ]
    words = ", ".join(f"{name}={_shown(text)}" for name, text in said.items())
    http, grpc = ports
    if http is None or grpc is None:
        return Told("dapr", "none", (), (f"{words}: no port, ignored",))
    return dapr(http, grpc, words)


_PORTS = (DAPR_HTTP_PORT, DAPR_GRPC_PORT)


def _consul(environ: Mapping[str, str]) -> Told | None:
    upstreams, lines = _pairs(environ, _CONSUL)
    if not lines:
        return None
    return Told("consul", "listener", tuple(upstreams.values()), lines, upstreams=upstreams)


def _is_kato(environ: Mapping[str, str]) -> bool:
    if environ.get(_DEPENDENCIES[1]):
        return True
    return bool(environ.get(_DEPENDENCIES[0])) and all(environ.get(name) for name in _KATO)


def _kato(environ: Mapping[str, str]) -> Told | None:
    """Where its hosts are not on loopback, its application is in native mode, without a sidecar."""
    if not _is_kato(environ):
        return None
    text = next(environ[name] for name in _DEPENDENCIES if environ.get(name))
    aliases = [part.partition(":")[0].strip().lower() for part in text[:65536].split(",")]
    local, lines = _pairs(environ, "", quiet=True)
    upstreams: dict[str, Address] = {}
    others: dict[str, Address] = {}
    for name, address in local.items():
        alias, port = _split(name, aliases)
        if not alias:
            others[name] = address
        else:
            upstreams[f"{alias}:{port}"] = address
            upstreams.setdefault(alias, address)
    if not local:
        return None
    return Told(
        "kato",
        "listener",
        (KATO_READY.address,),
        lines,
        upstreams=upstreams,
        others=others,
        probes=(KATO_READY, KATO_LISTENERS),
    )


def _split(name: str, aliases: list[str]) -> tuple[str, str]:
    """The dependency and its port in ``gr12238e80``; ``("", "")`` for a port that was given a name of its own."""
    for alias in aliases:
        port = name[len(alias) :]
        if alias and name.startswith(alias) and port.isascii() and port.isdigit():
            return alias, port
    return "", ""


def _pairs(
    environ: Mapping[str, str], middle: str, *, quiet: bool = False
) -> tuple[dict[str, Address], tuple[str, ...]]:
    """The addresses of ``<NAME><middle>_HOST`` and ``_PORT``, by name; and what was read, in lines. ``quiet``: what is not on
    loopback is somebody else's.
    """
    found: dict[str, Address] = {}
    lines: list[str] = []
    for variable, name in _hosts(environ, f"{middle}_HOST"):
        host, port = environ[variable], environ.get(variable.removesuffix("HOST") + "PORT", "")
        number = _port(port)
        if len(lines) == _MOST:
            break
        if not is_loopback(host) or number is None:
            if not quiet:
                lines.append(
                    f"{variable}={_shown(host)}, port {_shown(port)}: not an address on loopback, ignored"
                )
            continue
        found[name] = Address("127.0.0.1" if host == "localhost" else host, number)
        lines.append(f"{variable} names {found[name]}")
    return found, tuple(lines)


def _hosts(environ: Mapping[str, str], suffix: str) -> Iterator[tuple[str, str]]:
    for variable in sorted(environ):
        name = variable.removesuffix(suffix)
        if name and name != variable:
            yield variable, name.lower().replace("_", "-")


def _port(text: str) -> int | None:
    return (
        int(text) if text.isascii() and text.isdigit() and len(text) < 6 and 0 < int(text) < 65536 else None
    )


def _shown(text: str) -> str:
    return ascii(text[:64])[1:-1]
