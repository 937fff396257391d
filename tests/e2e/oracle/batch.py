"""A hundred tables in one Envoy: a listener each, over the same control plane that meshlib may ask."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from meshlib.core.resolution import Resolution
from meshlib.core.resolve import Rules, compile_view
from meshlib.model.snapshot import Part, Snapshot
from meshlib.testing import build
from meshlib.testing.control_plane import ControlPlane
from meshlib.xds import decode, schema
from tests.e2e.oracle.compare import UPSTREAM_HEADERS
from tests.e2e.oracle.envoy_process import EnvoyProcess
from tests.e2e.oracle.exchange import Upstreams
from tests.e2e.oracle.managers import make_filters, make_manager
from tests.e2e.oracle.tables import CLUSTERS, Json, make_table
from tests.support.ports import Ports

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["NODE", "Batch", "Tally", "resolution_of"]

_LISTENER = "envoy.config.listener.v3.Listener"
#: Whose calls they are, to Envoy and to meshlib: cluster and id.
NODE = ("oracle", "oracle")


@dataclass(slots=True)
class Tally:
    """What was compared: how many exchanges, how often each part of a configuration had a part in one, what differed."""

    compared: int = 0
    hits: Counter[str] = field(default_factory=Counter)
    differences: list[str] = field(default_factory=list)

    def told(self) -> str:
        shown = "\n\n".join(self.differences[:5])
        return f"{len(self.differences)} of {self.compared} exchanges differ:\n{shown}"


def resolution_of(seed: int, table: Json, port: int = 80) -> Resolution:
    """The listener with its table, as meshlib reads and compiles them."""
    made = build.listener(
        f"listener-{seed}",
        table,
        address=f"127.0.0.1:{port}",
        manager=make_manager(seed),
        filters=make_filters(seed),
    )
    found = decode.listener(schema.from_json(_LISTENER, build.without_type(made)).SerializeToString())
    assert found.value is not None, f"{table['name']}: {found.problems}"
    view = compile_view(Snapshot((Part("xds", sidecar=(found.value,)),)), Rules(node=NODE))
    return view.resolve("http", "127.0.0.1", port, "")


class Batch:
    """The tables of ``seeds`` in force in an Envoy. ``ports``: of its listeners, by seed; ``gate``: of one more, whose
    routes are for every host.
    """

    def __init__(self, seeds: range, folder: Path) -> None:
        self.tables = {seed: make_table(seed, f"table-{seed}") for seed in seeds}
        self._folder = folder
        self._stack = ExitStack()
        self.ports: dict[int, int] = {}
        self.gate = 0

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.upstreams = stack.enter_context(Upstreams(CLUSTERS, UPSTREAM_HEADERS))
            held = Ports(len(self.tables) + 1)
            stack.callback(held.close)
            self.gate, *numbers = held.numbers
            self.ports = dict(zip(self.tables, numbers, strict=True))
            self.control_plane = stack.enter_context(ControlPlane(*self._resources()))
            self.envoy = stack.enter_context(EnvoyProcess(self.control_plane.address, self._folder))
            self._wait()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def _resources(self) -> list[Json]:
        addresses = self.upstreams.addresses
        clusters = [
            build.cluster(name, [build.endpoint(addresses[name], hostname=hostname)])
            for name, hostname in CLUSTERS.items()
        ]
        listeners = [
            build.listener(
                f"listener-{seed}",
                f"table-{seed}",
                address=f"127.0.0.1:{port}",
                manager=make_manager(seed),
                filters=make_filters(seed),
            )
            for seed, port in self.ports.items()
        ]
        here = build.virtual_host(
            "gate", build.route(cluster="alpha"), domains=["*", f"127.0.0.1:{self.gate}"]
        )
        gate = build.listener("gate", build.route_config("gate", here), address=f"127.0.0.1:{self.gate}")
        return [*clusters, gate, *listeners, *self.tables.values()]

    def _wait(self) -> None:
        """Until Envoy serves; a table that it refuses is no valid table."""
        try:
            self.envoy.wait_for_listeners(len(self.tables) + 1)
        finally:
            refused = [request for request in self.control_plane.requests if request.is_nack]
        assert not refused, f"Envoy refused: {refused}"
