"""A control plane that a test writes message by message, in either protocol, and a client whose time the test moves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from meshlib.sources.xds import XdsSource
from meshlib.testing import build
from meshlib.xds import schema
from meshlib.xds.bootstrap import Bootstrap, Node, Server
from tests.support.sources_kit import SERVER, ScriptedBench
from tests.support.xds_kit import DELTA_REQUEST, ERROR, REQUEST, STATUS, delta_response, response

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Asked", "Control", "failure", "needs", "routed"]

_NAME = schema.message("envoy.service.discovery.v3.ResourceName")


@dataclass(frozen=True)
class Asked:
    """A request. ``names``: all that it wants (state of the world) or what it subscribes to (delta); ``less``: what it
    unsubscribes from. ``version`` of the type, or ``versions`` of what is held. ``error``: what it refuses.
    """

    type: str
    names: tuple[str, ...]
    nonce: str
    error: str
    code: int = 0
    version: str = ""
    versions: tuple[tuple[str, str], ...] = ()
    less: tuple[str, ...] = ()
    node: Any = None

    @property
    def kind(self) -> str:
        """``nack``, ``ack``, or ``names`` where it is no answer. (By state of the world an answer has names, too.)"""
        return "nack" if self.error else "ack" if self.nonce else "names"


class Control(ScriptedBench):
    """The control plane, and a source over it that wants the targets ``names``. Its jitter is the lowest: waits are 0.8 of
    what the rule says.
    """

    def __init__(
        self,
        protocol: str = "sotw",
        *names: str,
        view: str = "target",
        features: Iterable[Any] = (),
        node: Node | None = None,
    ) -> None:
        self.protocol = protocol
        bootstrap = Bootstrap((Server(SERVER.uri, features=tuple(features)),), node or Node("me", "shop"))
        super().__init__(
            lambda merge, bench: [XdsSource(merge, bootstrap, view, self.open_stream, protocol=protocol)]
        )
        self._read = 0
        self.sent: list[str] = []
        self.want(*names)

    # ------------------------------------------------------------------------------------------- what it is asked

    def connect(self) -> list[Asked]:
        """The newest stream stands: what it is asked for at once."""
        self._read = 0
        self.up()
        return self.asked()

    def asked(self, short: str | None = None) -> list[Asked]:
        """What was written on the newest stream since the last time, of one type only where one is named."""
        written = self.streams[-1].written[self._read :]
        self._read += len(written)
        read = [self._delta(raw) if self.protocol == "delta" else self._sotw(raw) for raw in written]
        return [each for each in read if short in (None, each.type)]

    @staticmethod
    def _sotw(raw: bytes) -> Asked:
        made = REQUEST.FromString(raw)
        return Asked(
            schema.SHORT_NAMES[made.type_url],
            tuple(made.resource_names),
            made.response_nonce,
            made.error_detail.message,
            made.error_detail.code,
            version=made.version_info,
            node=made.node if made.HasField("node") else None,
        )

    @staticmethod
    def _delta(raw: bytes) -> Asked:
        made = DELTA_REQUEST.FromString(raw)
        return Asked(
            schema.SHORT_NAMES[made.type_url],
            tuple(made.resource_names_subscribe),
            made.response_nonce,
            made.error_detail.message,
            made.error_detail.code,
            versions=tuple(sorted(made.initial_resource_versions.items())),
            less=tuple(made.resource_names_unsubscribe),
            node=made.node if made.HasField("node") else None,
        )

    # ----------------------------------------------------------------------------------------------- what it says

    def send(self, short: str, *resources: Any, at: int = -1, **fields: Any) -> str:
        """A response; its nonce. ``removed`` is of delta."""
        nonce = f"n{len(self.sent) + 1}"
        self.sent.append(nonce)
        make = delta_response if self.protocol == "delta" else response
        self.raw(make(short, *resources, **{"nonce": nonce, "version": str(len(self.sent)), **fields}), at=at)
        return nonce

    def raw(self, raw: bytes, *, at: int = -1) -> None:
        self.streams[at].answer(raw)
        self.bench.step()

    def delete(self, short: str, name: str, *left: Any) -> str:
        """Says that a listener or a cluster is gone, and what is left of its type."""
        return self.send(short, removed=[name]) if self.protocol == "delta" else self.send(short, *left)

    def serve(self, *names: str) -> None:
        """Everything of these targets, in the order in which it is asked for."""
        made = [needs(name) for name in names]
        for short in ("listener", "route", "cluster", "endpoint"):
            self.send(short, *(each[short] for each in made))

    # ------------------------------------------------------------------------------------------- what calls meet

    def target(self, name: str) -> str:
        """Where a call to a target goes: its endpoint's address, or why it goes nowhere; ``""`` while it waits."""
        part = self.part
        listener = part.targets.get(name) if part else None
        if listener is None:
            absent = part.absent.get(name) if part else None
            return absent.fate.value if absent else ""
        routes = listener.http.routes
        if routes is None or not routes.virtual_hosts:
            return "no host"
        cluster = routes.virtual_hosts[0].routes[0].action.cluster
        return self.cluster(cluster)

    def cluster(self, name: str) -> str:
        """The same of a cluster."""
        part = self.part
        known = part.clusters.get(name)
        if known is None or known.assignment is None:
            return part.lacking.get(name, part.lacking.get("*", ""))
        return ",".join(str(each.address) for each in known.assignment.endpoints) or "nobody"

    def advance(self, seconds: float) -> None:
        self.bench.step(seconds)


def needs(
    name: str, cluster: str = "", address: str = "10.0.0.1:80", **fields: Any
) -> dict[str, dict[str, Any]]:
    """A target's resources by type: its routes are ``r-NAME``, its cluster and endpoints ``c-NAME``."""
    cluster = cluster or f"c-{name}"
    return {
        "listener": build.api_listener(name, f"r-{name}"),
        "route": routed(name, cluster),
        "cluster": build.cluster(cluster, **fields),
        "endpoint": build.endpoints(cluster, address),
    }


def routed(name: str, cluster: str) -> dict[str, Any]:
    """The routes of a target, all to one cluster."""
    host = build.virtual_host(name, build.route(cluster=cluster), domains=[name])
    return build.route_config(f"r-{name}", host)


def failure(name: str, code: int, text: str = "") -> Any:
    """An entry of ``resource_errors``."""
    return ERROR(resource_name=_NAME(name=name), error_detail=STATUS(code=code, message=text))
