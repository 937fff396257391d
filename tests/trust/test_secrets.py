"""Secrets that are missing, broken or late × clients: who lacks one sends nothing, is told which, soon; who waits for one gets it (SD-02)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

import meshlib
from meshlib.testing import ControlPlane, GrpcUpstream, build
from tests.hosts.columns import COLUMNS, Ask, Options, column_of
from tests.support.asking import asked
from tests.support.grpc_channels import FACES, Channel
from tests.support.tls_server import TlsServer
from tests.support.watch import Watch
from tests.trust.material import CA, MATERIALS, TLS, Place, certificates, server_of
from tests.trust.test_table import words
from tests.trust.world import HTTP2, listening

HTTP = tuple(name for name in COLUMNS if not name.endswith(" run"))
#: Seconds that a call has where a secret does not come.
PATIENCE = 0.7
SDS = next(material for material in MATERIALS if material.name == "sds")
NOT_PEM = "-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n"


class Stage:
    """A control plane, a server behind ``reviews`` that demands a certificate, and a mesh."""

    def __init__(
        self, folder: Any, plane: ControlPlane, address: str, count: Callable[[], int], **cluster: Any
    ) -> None:
        place = Place(folder)
        demands = {
            "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": "reviews.shop"}}]
        }
        common = SDS.tell(place, "a", certificates()["mine"], demands)
        socket = {"name": "tls", "typed_config": build.any_of(TLS, {"common_tls_context": common})}
        self.plane, self.count = plane, count
        self.secrets = place.secrets
        cluster = build.cluster("c", [address], transport_socket=socket, **cluster)
        plane.set(listening({"reviews": "c"}), cluster)
        self.mesh = meshlib.Mesh({"xds": {"server": plane.address, "view": "sidecar"}})
        # What a call then waits for is the secret alone. The listener comes before the cluster.
        Watch(self.mesh).until(
            lambda: any(part.sidecar and "c" in part.awaited for part in self.mesh.snapshot().parts)
        )


@pytest.fixture
def plane() -> Iterator[ControlPlane]:
    with ControlPlane() as made:
        yield made


@pytest.fixture
def http(
    request: pytest.FixtureRequest, plane: ControlPlane, tmp_path: Any
) -> Iterator[tuple[Stage, Callable[[float], None]]]:
    with TlsServer(server_of("")) as server:
        stage = Stage(tmp_path, plane, server.address, lambda: server.requests)

        def call(seconds: float) -> None:
            client = column_of(request.param)(stage.mesh, Options(connect=seconds, read=seconds))
            try:
                assert client.call(Ask(url="http://reviews/")).status == 200
            finally:
                client.close()

        with stage.mesh:
            yield stage, call


@pytest.fixture
def rpc(
    request: pytest.FixtureRequest, plane: ControlPlane, tmp_path: Any
) -> Iterator[tuple[Stage, Callable[[float], None]]]:
    held = certificates()[""]
    credentials = grpc.ssl_server_credentials(
        [(held.key_pem, held.chain_pem)], CA.pem, require_client_auth=True
    )
    with GrpcUpstream("right", credentials=credentials) as server:
        stage = Stage(tmp_path, plane, server.address, lambda: server.requests_total, **HTTP2)

        def call(seconds: float) -> None:
            with Channel(request.param, "reviews:80", stage.mesh) as channel:
                assert channel.who(timeout=seconds)

        with stage.mesh:
            yield stage, call


@pytest.mark.parametrize("lacks", ["a-pair", "a-roots"])
@pytest.mark.parametrize("http", HTTP, indirect=True)
class TestHttp:
    def test_missing_and_late(self, http: Any, lacks: str) -> None:
        missing_and_late(*http, lacks)

    def test_broken_and_mended(self, http: Any, lacks: str) -> None:
        broken_and_mended(*http, lacks)


@pytest.mark.parametrize("lacks", ["a-pair", "a-roots"])
@pytest.mark.parametrize("rpc", FACES, indirect=True)
class TestGrpc:
    def test_missing_and_late(self, rpc: Any, lacks: str) -> None:
        missing_and_late(*rpc, lacks)

    def test_broken_and_mended(self, rpc: Any, lacks: str) -> None:
        broken_and_mended(*rpc, lacks)


def missing_and_late(stage: Stage, call: Callable[[float], None], lacks: str) -> None:
    stage.plane.update(*(each for name, each in stage.secrets.items() if name != lacks))
    told = refused(call)
    assert lacks in told, told
    assert stage.count() == 0
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(call, 20.0)
        stage.plane.update(stage.secrets[lacks])
        done.result()
    assert stage.count() == 1


def broken_and_mended(stage: Stage, call: Callable[[float], None], lacks: str) -> None:
    """It is told at once, without the call's whole time; what comes instead is used."""
    spoilt = {"ca": NOT_PEM} if lacks == "a-roots" else {"certificate": NOT_PEM, "key": "x"}
    stage.plane.update(
        *(each for name, each in stage.secrets.items() if name != lacks), build.secret(lacks, **spoilt)
    )
    stage.plane.wait_for_nack("secret", timeout=20)  # by then it is known here
    told = refused(call)
    assert lacks in told, told
    assert "refused" in told, told
    assert stage.count() == 0
    stage.plane.update(stage.secrets[lacks])
    assert asked(lambda: stage.count() or not tried(call))
    assert stage.count() == 1


def tried(call: Callable[[float], None]) -> str:
    try:
        call(20.0)
    except Exception as error:  # noqa: BLE001 - each library has its own
        return words(error)
    return ""


def refused(call: Callable[[float], None]) -> str:
    """What the error says, and that it came in time."""
    begun = time.monotonic()
    with pytest.raises(Exception) as caught:  # noqa: PT011 - each library has its own
        call(PATIENCE)
    assert time.monotonic() - begun < PATIENCE + 4.0
    return words(caught.value)
