"""Istio's discovery server, and meshes of it: in each view, by each protocol."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.interop.support import istio
from tests.interop.support.meshes import READY
from tests.interop.support.programs import IstioAuthority, Istiod

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import meshlib
    from tests.interop.support.upstreams import Upstream


@pytest.fixture(params=["sotw", "delta"])
def protocol(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def security() -> tuple[tuple[str, ...], dict[str, str]]:
    """The options of a server that speaks TLS, and ``xds.tls`` of its meshes; none for plain text."""
    return (), {}


@pytest.fixture
def istiod(
    binary: Path, security: tuple[tuple[str, ...], dict[str, str]], tmp_path: Path
) -> Iterator[Istiod]:
    program = Istiod(binary, tmp_path, *security[0])
    program.start()
    yield program
    program.stop()


@pytest.fixture
def authority(binary: Path, tmp_path: Path) -> Iterator[IstioAuthority]:
    """Istio's own CA, on a port of its own."""
    program = IstioAuthority(binary, tmp_path)
    program.start()
    yield program
    program.stop()


@pytest.fixture
def join(
    istiod: Istiod,
    make_mesh: Callable[[Any], meshlib.Mesh],
    protocol: str,
    security: tuple[tuple[str, ...], dict[str, str]],
    tmp_path: Path,
) -> Callable[..., meshlib.Mesh]:
    """A mesh of this view, once the hosts named can be called in it."""

    def make(view: str, *hosts: str, **settings: Any) -> meshlib.Mesh:
        settings = {"view": view, "protocol": protocol, **settings}
        tls = security[1]
        if view == "target":
            path = tmp_path / "bootstrap.json"
            path.write_text(json.dumps(istio.bootstrap(istiod.server, tls)), encoding="utf-8")
            mesh = make_mesh({"xds": {"bootstrap": str(path), **settings}})
        else:
            node = {"id": istio.NODE_ID, "metadata": istio.METADATA}
            mesh = make_mesh(
                {"node": node, "xds": {"server": istiod.server, **({"tls": tls} if tls else {}), **settings}}
            )
        if hosts:
            mesh.wait_ready(*hosts, timeout=READY)
        return mesh

    return make


@pytest.fixture
def reviews(istiod: Istiod, upstream: Callable[..., Upstream]) -> dict[str, Upstream]:
    """Upstreams v1 and v2 of the service ``reviews``, a subset each; without a VirtualService."""
    found = {name: upstream(name) for name in ("v1", "v2")}
    istiod.apply(istio.service_entry("reviews", *found.values()), istio.destination_rule("reviews", *found))
    return found
