"""`meshlib doctor` of this environment: each finding where it is due, and not where it is not. Real ports, files, names."""

from __future__ import annotations

import json
import os
import socket
import ssl
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from typer.testing import CliRunner

import meshlib
from meshlib.cli import doctor as package
from meshlib.cli.app import app
from meshlib.cli.doctor import CHECKS, certificates, diagnose, trust
from meshlib.cli.doctor.case import Case
from meshlib.cli.doctor.catalogue import CATALOGUE
from meshlib.cli.doctor.certificates import Validity, validity
from meshlib.cli.doctor.collect import Subject, _subject
from meshlib.cli.doctor.probes import Reached, Seen, address_of, loopback
from meshlib.cli.findings import Finding
from meshlib.config import Config
from meshlib.model.status import IdentityStatus
from meshlib.observe import facts as facts_module
from meshlib.observe.facts import Facts, plain
from meshlib.sidecar.detect import OTHERS
from meshlib.testing import ControlPlane, Upstream, build
from meshlib.testing.ports import bind
from tests.support.certificates import Authority
from tests.support.envoy_dir import EnvoyDir
from tests.support.pages import ROOT

runner = CliRunner()

#: What is installed beside the tests, and what every configuration without an admin socket has.
ALWAYS = {"admin-off", "double-instrumentation", "retries-owned-twice"}


class Said:
    """What the command said."""

    def __init__(self, code: int, findings: list[dict[str, Any]]) -> None:
        self.code = code
        self.findings = findings

    def __contains__(self, name: str) -> bool:
        return any(one["id"] == name for one in self.findings)

    def __getitem__(self, name: str) -> dict[str, Any]:
        [found] = [one for one in self.findings if one["id"] == name]
        return found

    @property
    def ids(self) -> set[str]:
        return {one["id"] for one in self.findings}


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """None of ours, none of a proxy's."""
    for name in list(os.environ):
        if name.startswith(("MESHLIB_", "GRPC_", "OTEL_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A control plane's answers come one after the other; on a machine that stalls, with pauses between them."""
    monkeypatch.setattr("meshlib.cli.doctor.collect.CALM", 0.8)


@pytest.fixture
def doctor(tmp_path: Path) -> Callable[..., Said]:
    def run(config: str | None = None, *more: str) -> Said:
        arguments = ["doctor", "--json", *more]
        if config is not None:
            path = tmp_path / "mesh.toml"
            path.write_text(config)
            arguments += ["--config", str(path)]
        result = runner.invoke(app, arguments)
        said = json.loads(result.stdout)
        assert list(said) == ["findings"]
        for one in said["findings"]:
            assert list(one) == ["id", "severity", "summary", "remedy", "evidence"]
            assert one["id"] in CATALOGUE
            assert one["severity"] in (CATALOGUE[one["id"]].severity, CATALOGUE[one["id"]].or_else)
            assert one["summary"]
            assert one["remedy"]
        worse = any(one["severity"] != "info" for one in said["findings"])
        assert result.exit_code == (1 if worse else 0)
        return Said(result.exit_code, said["findings"])

    return run


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as made:
        yield made


@pytest.fixture
def dead() -> Iterator[str]:
    """An address that nobody listens at, and nobody takes meanwhile."""
    with bind(0) as held:
        yield f"127.0.0.1:{held.getsockname()[1]}"


def service(*addresses: str, name: str = "reviews", more: str = "") -> str:
    return f"[services.{name}]\nendpoints = {json.dumps(addresses)}\n{more}\n"


# --- the command -----------------------------------------------------------------------------------------------------------


def test_nothing_configured_is_a_note(doctor: Callable[..., Said]) -> None:
    said = doctor()
    assert (said.code, said.ids) == (0, {"nothing-configured"})


def test_what_is_fine(doctor: Callable[..., Said], upstream: Upstream) -> None:
    said = doctor(service(upstream.address))
    assert said.code == 0
    assert said.ids <= ALWAYS


def test_text_has_every_finding_with_its_remedy(tmp_path: Path, dead: str) -> None:
    path = tmp_path / "mesh.toml"
    path.write_text(service(dead))
    result = runner.invoke(app, ["doctor", "--config", str(path)])
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    [at] = [index for index, line in enumerate(lines) if "[endpoint-not-listening]" in line]
    assert lines[at].startswith("✗ reviews: nobody listens at its endpoint")
    assert lines[at + 1].strip() == f"{dead}: connection refused"
    assert lines[at + 2].strip().startswith("→ start the service there")
    assert lines[-1].startswith("✗ 1 error")
    assert result.stderr == ""


@pytest.mark.usefixtures("patient")
def test_nothing_that_a_control_plane_says_reaches_the_terminal(tmp_path: Path, dead: str) -> None:
    name = "a\x1b[2Jb"
    with ControlPlane(build.cluster(name), build.endpoints(name, dead)) as plane:
        path = tmp_path / "mesh.toml"
        path.write_text(f'[xds]\nserver = "{plane.address}"\n')
        result = runner.invoke(app, ["doctor", "--config", str(path)])
    assert "[endpoint-not-listening]" in result.stdout
    assert r"a\x1b[2Jb" in result.stdout
    assert "\x1b" not in result.stdout


def test_wrong_usage() -> None:
    for arguments in (["x"], ["0"], ["1", "--name", "reviews"], ["--name", "http://reviews/"]):
        assert runner.invoke(app, ["doctor", *arguments]).exit_code == 2
    assert runner.invoke(app, ["doctor", "--config", "/does/not/exist.toml"]).exit_code == 2


def test_errors_come_first_and_notes_last(doctor: Callable[..., Said], dead: str, monkeypatch: Any) -> None:
    monkeypatch.setenv("MESHLIB_CONIFG", "x")
    severities = [one["severity"] for one in doctor(service(dead)).findings]
    assert severities == sorted(severities, key=["error", "warning", "info"].index)
    assert set(severities) == {"error", "warning", "info"}


# --- settings --------------------------------------------------------------------------------------------------------------


def test_a_configuration_that_is_wrong_is_a_finding_a_problem(doctor: Callable[..., Said]) -> None:
    said = doctor("[services.reviews]\ntimeout = -1\nretries = 2\n")
    problems = [one["summary"] for one in said.findings if one["id"] == "configuration-wrong"]
    assert len(problems) == 2
    assert "services.reviews.timeout" in "\n".join(problems)
    assert "nothing-configured" not in said


def test_a_bootstrap_that_is_wrong(doctor: Callable[..., Said], tmp_path: Path) -> None:
    (tmp_path / "bootstrap.json").write_text('{"xds_servers": []}')
    said = doctor('[xds]\nbootstrap = "bootstrap.json"\n')
    assert "xds_servers" in said["configuration-wrong"]["summary"]


def test_a_service_that_has_nobody_to_call(doctor: Callable[..., Said]) -> None:
    said = doctor(service())
    assert "services.reviews" in said["configuration-doubtful"]["summary"]
    assert said["endpoints-missing"]["severity"] == "warning"


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("MESHLIB_CONIFG", "MESHLIB_CONFIG"),
        ("MESHLIB_XDS_SEVER", "MESHLIB_XDS_SERVER"),
        ("MESLIB_CONFIG", "MESHLIB_CONFIG"),
        ("GRPC_XDS_BOOTSTRAPS", "GRPC_XDS_BOOTSTRAP"),
        ("meshlib_node_id", "MESHLIB_NODE_ID"),
    ],
)
def test_a_variable_that_is_misspelt(
    doctor: Callable[..., Said], monkeypatch: pytest.MonkeyPatch, name: str, meant: str
) -> None:
    monkeypatch.setenv(name, "x")
    said = doctor()
    assert said.code == 1
    summary = said["variable-misspelt"]["summary"]
    assert summary.startswith(f"{name}: ")
    assert f'"{meant}"' in summary


@pytest.mark.parametrize("name", ["GRPC_XDS_EXPERIMENTAL_RBAC", "MESH_CONFIG_DIR", "CONFIG", "GRPC_TRACE"])
def test_a_variable_of_others_is_theirs(
    doctor: Callable[..., Said], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "x")
    assert "variable-misspelt" not in doctor()


def test_switched_off(doctor: Callable[..., Said], monkeypatch: pytest.MonkeyPatch, dead: str) -> None:
    monkeypatch.setenv("MESHLIB_DISABLED", "1")
    said = doctor(service(dead))
    assert (said.code, said.ids - ALWAYS) == (0, {"disabled"})
    assert "MESHLIB_DISABLED" in said["disabled"]["summary"]


def test_the_kill_switch(doctor: Callable[..., Said], tmp_path: Path, upstream: Upstream) -> None:
    config = service(upstream.address) + f'[adoption]\nkill_switch = "{tmp_path}/off"\n'
    assert "disabled" not in doctor(config)
    (tmp_path / "off").touch()
    said = doctor(config)
    assert (said.code, said["disabled"]["severity"]) == (0, "info")
    assert f"{tmp_path}/off" in said["disabled"]["summary"]


def test_services_that_have_not_joined(doctor: Callable[..., Said], upstream: Upstream) -> None:
    config = service(upstream.address)
    assert "not-joined" not in doctor(config + '[adoption]\nreviews = "on"\n')
    found = doctor(config + '[adoption]\nreviews = "observe"\ndefault = "25%"\n')["not-joined"]
    assert (found["severity"], found["evidence"]) == ("info", ["reviews: observe", "every other: 25%"])


def test_yaml_without_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mesh.yaml"
    path.write_text("services: {reviews: {endpoints: [127.0.0.1:9]}}\n")
    monkeypatch.setitem(__import__("sys").modules, "yaml", None)
    result = runner.invoke(app, ["doctor", "--json", "--config", str(path)])
    said = Said(result.exit_code, json.loads(result.stdout)["findings"])
    assert said.ids == {"extra-missing"}
    assert "[yaml]" in said["extra-missing"]["remedy"]


def test_telemetry_without_its_extra(facts: Facts) -> None:
    facts["process"]["exports"] = "OTEL_TRACES_EXPORTER"
    facts["process"]["lacking"] = ["opentelemetry.sdk"]
    assert judged(facts)["extra-missing"]["severity"] == "warning"
    facts["process"]["lacking"] = []
    assert "extra-missing" not in judged(facts)


def test_http2_without_its_extra(facts: Facts) -> None:
    facts["clusters"] = [cluster("reviews", "127.0.0.1:9", http2=True)]
    facts["process"]["lacking"] = ["h2", "hpack"]
    assert judged(facts)["extra-missing"]["severity"] == "warning"
    facts["clusters"] = [cluster("reviews", "127.0.0.1:9")]
    assert "extra-missing" not in judged(facts)


# --- the control plane ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("patient")
def test_a_control_plane_that_answers(doctor: Callable[..., Said], monkeypatch: pytest.MonkeyPatch) -> None:
    with ControlPlane(build.cluster("reviews"), build.endpoints("reviews")) as plane:
        monkeypatch.setenv("MESHLIB_XDS_SERVER", plane.address)
        monkeypatch.setenv("MESHLIB_NODE_ID", "checkout-7")
        said = doctor()
    found = said["control-plane"]
    assert found["severity"] == "info"
    assert plane.address in found["summary"]
    assert found["evidence"][:2] == ["node checkout-7, cluster none", "plain text"]
    assert not {"control-plane-unreachable", "control-plane-silent", "control-plane-tls"} & said.ids


def test_a_control_plane_that_is_dead(
    doctor: Callable[..., Said], monkeypatch: pytest.MonkeyPatch, dead: str
) -> None:
    monkeypatch.setenv("MESHLIB_XDS_SERVER", dead)
    said = doctor()
    found = said["control-plane-unreachable"]
    assert (said.code, found["severity"]) == (1, "error")
    assert f"{dead} cannot be reached: connection refused" in found["summary"]
    assert "MESHLIB_XDS_SERVER" in found["remedy"]
    assert not {"control-plane", "control-plane-silent"} & said.ids


@pytest.mark.usefixtures("patient")
def test_a_control_plane_that_is_dead_with_one_in_reserve(doctor: Callable[..., Said], dead: str) -> None:
    """It is a warning: the other one serves."""
    with ControlPlane(build.cluster("reviews"), build.endpoints("reviews")) as plane:
        said = doctor(f'[xds]\nserver = ["{dead}", "{plane.address}"]\n')
    found = said["control-plane-unreachable"]
    assert f"{dead} cannot be reached" in found["summary"]
    assert (said.code, found["severity"]) == (1, "warning")
    assert plane.address in said["control-plane"]["summary"]
    assert "control-plane-silent" not in said


@pytest.mark.usefixtures("patient")
def test_a_control_plane_in_reserve_that_is_dead(doctor: Callable[..., Said], dead: str) -> None:
    with ControlPlane(build.cluster("reviews"), build.endpoints("reviews")) as plane:
        said = doctor(f'[xds]\nserver = ["{plane.address}", "{dead}"]\n')
    assert f"{dead} cannot be reached" in said["control-plane-unreachable"]["summary"]
    assert said["control-plane-unreachable"]["severity"] == "warning"
    assert plane.address in said["control-plane"]["summary"]


def test_a_control_plane_that_is_something_else(doctor: Callable[..., Said], upstream: Upstream) -> None:
    said = doctor(f'[xds]\nserver = "{upstream.address}"\n')
    assert said["control-plane-silent"]["severity"] == "error"
    assert "control-plane-unreachable" not in said


def test_a_control_plane_that_takes_connections_and_says_nothing(doctor: Callable[..., Said]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        said = doctor(f'[xds]\nserver = "127.0.0.1:{listening.getsockname()[1]}"\n')
    assert said["control-plane-silent"]["severity"] == "error"
    assert not {"control-plane", "control-plane-unreachable"} & said.ids


@pytest.mark.usefixtures("patient")
def test_a_control_plane_that_wants_tls_and_gets_none(
    doctor: Callable[..., Said], authority: trustme.CA
) -> None:
    with ControlPlane(credentials=secured(authority)) as plane:
        said = doctor(f'[xds]\nserver = "{plane.address}"\n')
    assert "(plain text)" in said["control-plane-silent"]["summary"]
    assert "is TLS on or off on both sides?" in said["control-plane-silent"]["remedy"]


def test_a_control_plane_whose_name_does_not_resolve(doctor: Callable[..., Said]) -> None:
    said = doctor('[xds]\nserver = "control.invalid:18000"\n')
    assert "control.invalid:18000" in said["name-does-not-resolve"]["summary"]
    assert "control-plane-unreachable" not in said


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def secured(authority: trustme.CA) -> grpc.ServerCredentials:
    issued = authority.issue_cert("127.0.0.1")
    return grpc.ssl_server_credentials(
        [(issued.private_key_pem.bytes(), b"".join(each.bytes() for each in issued.cert_chain_pems))]
    )


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("right", [True, False])
def test_tls_with_the_control_plane(
    doctor: Callable[..., Said], tmp_path: Path, authority: trustme.CA, *, right: bool
) -> None:
    trusted = authority if right else trustme.CA()
    trusted.cert_pem.write_to_path(tmp_path / "ca.pem")
    with ControlPlane(credentials=secured(authority)) as plane:
        said = doctor(f'[xds]\nserver = "{plane.address}"\ntls = {{ ca = "ca.pem" }}\n')
    if right:
        assert "TLS" in said["control-plane"]["evidence"]
        assert "control-plane-tls" not in said
    else:
        assert "not accepted" in said["control-plane-tls"]["summary"]
        assert not {"control-plane", "control-plane-silent"} & said.ids


@pytest.mark.usefixtures("patient")
def test_tls_where_the_control_plane_has_none(doctor: Callable[..., Said]) -> None:
    with ControlPlane() as plane:
        said = doctor(f'[xds]\nserver = "{plane.address}"\ntls = {{}}\n')
    assert said["control-plane-tls"]["severity"] == "error"


@pytest.mark.usefixtures("patient")
def test_what_a_control_plane_sends_wrongly_and_for_nothing(doctor: Callable[..., Said]) -> None:
    wrong = build.cluster("wrong", connect_timeout="-1s")
    odd = build.cluster("odd", transport_socket_matcher={})
    with ControlPlane(wrong, odd, build.endpoints("odd")) as plane:
        said = doctor(f'[xds]\nserver = "{plane.address}"\n')
    assert "cluster wrong" in said["resource-rejected"]["summary"]
    assert said["setting-ignored"]["severity"] == "info"
    assert any("odd: transport_socket_matcher" in line for line in said["setting-ignored"]["evidence"])


@pytest.mark.usefixtures("patient")
def test_what_a_control_plane_lacks(doctor: Callable[..., Said]) -> None:
    routes = build.route_config(
        "r", build.virtual_host("all", build.route(cluster="gone"), domains=["reviews"])
    )
    with ControlPlane(build.listener("out", routes, address="127.0.0.1:8001")) as plane:
        said = doctor(f'[xds]\nserver = "{plane.address}"\n')
    assert "gone" in said["resource-missing"]["summary"]


@pytest.mark.usefixtures("patient")
def test_a_control_plane_that_is_asked_by_name(doctor: Callable[..., Said], upstream: Upstream) -> None:
    host = build.virtual_host("all", build.route(cluster="c"))
    plane = ControlPlane(
        build.api_listener("reviews", build.route_config("r", host)),
        build.cluster("c"),
        build.endpoints("c", upstream.address),
    )
    with plane:
        config = f'[xds]\nserver = "{plane.address}"\nview = "target"\n'
        assert "nothing yet" in doctor(config)["control-plane"]["evidence"][2]
        said = doctor(config, "--name", "reviews")
        assert "1 listener" in said["control-plane"]["evidence"][2]
        assert not {"control-plane-silent", "resource-waiting"} & said.ids


def test_a_control_plane_that_is_a_directory(doctor: Callable[..., Said], tmp_path: Path) -> None:
    files = EnvoyDir(tmp_path / "xds")
    config = f'[xds]\nprotocol = "files"\npath = "{files.folder}"\n'
    said = doctor(config)
    assert "control-plane" not in said
    assert f"{files.folder}: has none of cds.yaml" in said["source-failed"]["summary"]
    files.folder.mkdir()
    files.fill("127.0.0.1:9")
    said = doctor(config)
    assert said["control-plane"]["summary"] == f"the files in {files.folder} are read"
    assert "source-failed" not in said


def test_what_is_waited_for(facts: Facts) -> None:
    assert facts["status"] is not None
    source = {
        "name": "xds",
        "kind": "xds",
        "state": "ready",
        "last_error": "",
        "server": "127.0.0.1:9",
        "since": 1.0,
    }
    lists = {"ignored": [], "rejected": [], "missing": [], "waiting": ["listener reviews"], "resources": {}}
    facts["status"]["sources"] = [{**source, **lists}]
    found = judged(facts)["resource-waiting"]
    assert (found["severity"], found["evidence"]) == ("warning", ["listener reviews"])
    facts["status"]["sources"][0]["state"] = "connecting"  # that is the finding then
    assert "resource-waiting" not in judged(facts)


@pytest.mark.usefixtures("patient")
def test_clusters_without_endpoints(doctor: Callable[..., Said]) -> None:
    away = build.cluster("away", type="ORIGINAL_DST", lb_policy="CLUSTER_PROVIDED", eds_cluster_config=None)
    with ControlPlane(build.cluster("c"), build.endpoints("c"), away) as plane:
        found = doctor(f'[xds]\nserver = "{plane.address}"\n')["endpoints-missing"]
    assert (found["severity"], found["summary"]) == ("info", "c has no endpoint (xds)")


# --- names, ports, listeners ------------------------------------------------------------------------------------------------


def test_names_of_services(doctor: Callable[..., Said]) -> None:
    said = doctor(
        '[services.reviews]\ndns = "localhost:9"\n[services.ratings]\nendpoints = ["localhost:9"]\n'
    )
    assert "name-does-not-resolve" not in said
    said = doctor('[dns]\nnameservers = ["127.0.0.1"]\nport = 9\n[services.reviews]\ndns = "no.invalid:9"\n')
    assert said["name-does-not-resolve"]["severity"] == "error"
    assert "no.invalid" in said["name-does-not-resolve"]["summary"]
    said = doctor(service("no.invalid:9"))
    assert "no.invalid:9" in said["name-does-not-resolve"]["summary"]
    assert "endpoint-not-listening" not in said


def test_names_of_srv_records(doctor: Callable[..., Said]) -> None:
    said = doctor(
        '[dns]\nnameservers = ["127.0.0.1"]\nport = 9\n[services.reviews]\nsrv = "_http._tcp.no.invalid"\n'
    )
    assert "_http._tcp.no.invalid" in said["name-does-not-resolve"]["summary"]
    assert "endpoints-missing" not in said


def test_a_name_server_that_says_nothing_takes_a_bounded_time(doctor: Callable[..., Said]) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        server = f'[dns]\nnameservers = ["127.0.0.1"]\nport = {silent.getsockname()[1]}\n'
        since = time.monotonic()
        said = doctor(f'{server}[services.reviews]\ndns = "reviews.invalid:80"\n')
    assert time.monotonic() - since < 20  # some ten, on a machine that is busy
    assert said["name-does-not-resolve"]["severity"] == "error"


def test_an_endpoint_among_others_is_a_warning(
    doctor: Callable[..., Said], upstream: Upstream, dead: str
) -> None:
    found = doctor(service(upstream.address, dead))["endpoint-not-listening"]
    assert (found["severity"], found["evidence"]) == ("warning", [f"{dead}: connection refused"])
    assert "services.reviews" in found["remedy"]
    assert doctor(service(dead))["endpoint-not-listening"]["severity"] == "error"
    assert "endpoint-not-listening" not in doctor(service(upstream.address))


def test_an_endpoint_that_is_a_socket_of_unix(doctor: Callable[..., Said], tmp_path: Path) -> None:
    path = tmp_path / "s"
    assert doctor(service(f"unix:{path}"))["endpoint-not-listening"]["severity"] == "error"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        assert "endpoint-not-listening" not in doctor(service(f"unix:{path}"))


def test_endpoints_that_say_nothing_take_a_bounded_time(doctor: Callable[..., Said]) -> None:
    """A listener whose queue is full answers nothing, as an address that is firewalled."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        address = listening.getsockname()
        held = [socket.socket() for _ in range(4)]
        for one in held:
            one.setblocking(False)
            one.connect_ex(address)
        since = time.monotonic()
        said = doctor("".join(service(f"127.0.0.1:{address[1]}", name=f"s{number}") for number in range(9)))
        assert time.monotonic() - since < 20  # some ten, on a machine that is busy
        for one in held:
            one.close()
    assert "no answer within 1 s" in str([one["evidence"] for one in said.findings])


def test_what_there_is_no_time_for_is_said(facts: Facts) -> None:
    facts["clusters"] = [cluster("reviews", "127.0.0.1:9", "127.0.0.1:10")]
    found = judged(facts, Seen(left=frozenset({"127.0.0.1:10"})))["endpoints-not-tried"]
    assert found["evidence"] == ["127.0.0.1:10"]


def sidecar_listener(name: str, address: str, domain: str) -> dict[str, Any]:
    host = build.virtual_host("all", build.route(cluster="c"), domains=[domain])
    return dict(build.listener(name, build.route_config(f"r-{name}", host), address=address))


@pytest.mark.usefixtures("patient")
def test_listeners_that_collide(doctor: Callable[..., Said], dead: str, upstream: Upstream) -> None:
    other = dead.replace("127.0.0.1", "127.0.0.2")
    listeners = [
        sidecar_listener("one", dead, "a"),
        sidecar_listener("two", dead, "b"),
        sidecar_listener("three", other, "a"),
        sidecar_listener("four", upstream.address, "d"),
        sidecar_listener("five", "127.0.0.1:1", "e"),
    ]
    with ControlPlane(*listeners, build.cluster("c"), build.endpoints("c", upstream.address)) as plane:
        said = doctor(f'[xds]\nserver = "{plane.address}"\n')
    assert f"one and two have one address: {dead}" in said["listener-collision"]["summary"]
    port = dead.rpartition(":")[2]
    assert f"one and three both serve a at port {port}" in said["virtual-host-overlap"]["summary"]
    assert "four" in said["listener-address-taken"]["summary"]
    assert said["listener-address-taken"]["severity"] == "info"


def test_services_that_collide(doctor: Callable[..., Said], tmp_path: Path, upstream: Upstream) -> None:
    said = doctor(
        service(upstream.address, name="reviews")
        + service(upstream.address, name='"reviews:9080"')
        + service("localhost:9", name="ratings")
    )
    assert said["service-overlap"]["severity"] == "info"
    assert "reviews:9080 and reviews" in said["service-overlap"]["summary"]
    assert f"{upstream.address} is an endpoint of reviews, reviews:9080" in said["endpoint-shared"]["summary"]


@pytest.mark.usefixtures("patient")
def test_a_service_in_front_of_the_control_plane(doctor: Callable[..., Said], upstream: Upstream) -> None:
    listener = sidecar_listener("out", "127.0.0.1:1", "reviews")
    with ControlPlane(listener, build.cluster("c"), build.endpoints("c", upstream.address)) as plane:
        said = doctor(f'[xds]\nserver = "{plane.address}"\n' + service(upstream.address))
    assert "service reviews stands in front of listener out" in said["service-overlap"]["summary"]
    assert "service-collision" not in said


def test_one_service_of_two_sources(facts: Facts) -> None:
    facts["listeners"] = [listener("reviews", source="static"), listener("reviews", source="registry")]
    assert "that of static carries the calls" in judged(facts)["service-collision"]["evidence"]
    facts["listeners"] = [listener("reviews"), listener("ratings")]
    assert not {"service-collision", "service-overlap"} & judged(facts).ids


@pytest.mark.parametrize(
    ("variables", "wins"),
    [
        ({"HTTP_PROXY": "http://user:secret@127.0.0.1:3128"}, True),
        ({"all_proxy": "http://127.0.0.1:3128"}, True),
        ({"HTTP_PROXY": "http://127.0.0.1:3128", "NO_PROXY": "reviews"}, False),
        ({"HTTP_PROXY": "http://127.0.0.1:3128", "no_proxy": "*"}, False),
        ({"HTTPS_PROXY": "http://127.0.0.1:3128"}, False),
        ({}, False),
    ],
)
def test_a_proxy_that_wins(
    doctor: Callable[..., Said],
    monkeypatch: pytest.MonkeyPatch,
    upstream: Upstream,
    variables: dict[str, str],
    *,
    wins: bool,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    said = doctor(service(upstream.address))
    assert ("proxy-wins" in said) == wins
    assert "secret" not in str(said.findings)
    if wins:
        assert "add reviews to NO_PROXY" in said["proxy-wins"]["remedy"]


def test_a_proxy_for_https(facts: Facts) -> None:
    facts["process"]["proxies"], facts["process"]["no_proxy"] = {"https": "http://127.0.0.1:3128"}, ""
    facts["listeners"] = [
        listener("reviews"),
        listener("api.example.com:443"),
        listener("[::1]"),
        listener("*.a:443"),
    ]
    assert "api.example.com" in judged(facts)["proxy-wins"]["remedy"]
    assert "reviews" not in str(judged(facts)["proxy-wins"])
    facts["process"]["proxies"] = {"http": "http://127.0.0.1:3128"}
    assert "calls to reviews, [::1] go" in judged(facts)["proxy-wins"]["summary"]
    facts["process"]["no_proxy"] = "reviews,[::1]"
    assert "proxy-wins" not in judged(facts)


@contextmanager
def telling(ahead: float) -> Iterator[str]:
    """A server whose clock is so many seconds ahead; what it was asked is of no account."""
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=ahead), usegmt=True)
    answer = f"HTTP/1.1 204 No Content\r\nDate: {date}\r\nConnection: close\r\n\r\n".encode()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    asked = connection.recv(1000)
                    assert not asked or asked.startswith(b"OPTIONS * HTTP/1.1\r\n")
                    connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)
        thread.join(5)


@pytest.mark.parametrize(("ahead", "off"), [(0, False), (5, False), (120, True), (-3600, True)])
def test_clocks(
    doctor: Callable[..., Said], monkeypatch: pytest.MonkeyPatch, ahead: float, *, off: bool
) -> None:
    monkeypatch.setattr("meshlib.cli.doctor.probes.PATIENCE", 3.0)
    with telling(ahead) as address:
        said = doctor(service(address))
    assert ("clock-skew" in said) == off
    if off:
        assert f"{address} is " in said["clock-skew"]["summary"]
        assert ("ahead" if ahead > 0 else "behind") in said["clock-skew"]["summary"]


def test_a_clock_that_is_alone_is_the_wrong_one(
    doctor: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meshlib.cli.doctor.probes.PATIENCE", 3.0)
    with telling(0) as right, telling(900) as wrong:
        found = doctor(service(right, name="a") + service(wrong, name="b"))["clock-skew"]
    assert "theirs, as it seems" in found["summary"]
    assert f"{right} and this machine agree" in found["evidence"]


@pytest.mark.parametrize(
    "said", [b"220 mail\r\n\r\n", b"HTTP/1.1 200 OK\r\nDate: \xff\r\n\r\n", b"x" * 99999, b""]
)
def test_a_server_that_speaks_something_else_is_not_judged(doctor: Callable[..., Said], said: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection, suppress(OSError):  # who asks may have heard enough
                connection.recv(1000)
                connection.sendall(said)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        found = doctor(service(f"127.0.0.1:{listening.getsockname()[1]}"))
        thread.join(5)
    assert found.ids <= ALWAYS


# --- files ------------------------------------------------------------------------------------------------------------------


def issue(tmp_path: Path, authority: trustme.CA, **dates: datetime) -> None:
    issued = authority.issue_cert("me", **dates)  # type: ignore[arg-type]
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    issued.private_key_pem.write_to_path(tmp_path / "me.key")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "me.pem")
    (tmp_path / "me.key").chmod(0o600)


FILES = '[xds]\nserver = "127.0.0.1:9"\ntls = { ca = "ca.pem", cert = "me.pem", key = "me.key" }\n'
DATES = {
    "certificate-expired",
    "certificate-not-yet-valid",
    "certificate-expires-soon",
    "certificate-unusable",
}


@pytest.mark.parametrize(
    ("begins", "ends", "found"),
    [
        (-30, -1, {"certificate-expired"}),
        (1, 30, {"certificate-not-yet-valid"}),
        (-360, 3, {"certificate-expires-soon"}),
        (-360, 20, set()),
        (-0.2, 0.8, set()),  # it lives for a day
        (-0.95, 0.05, {"certificate-expires-soon"}),
    ],
)
def test_dates_of_a_certificate(
    doctor: Callable[..., Said],
    tmp_path: Path,
    authority: trustme.CA,
    begins: float,
    ends: float,
    found: set[str],
) -> None:
    now = datetime.now(UTC)
    issue(
        tmp_path,
        authority,
        not_before=now + timedelta(days=begins),
        not_after=now + timedelta(days=ends),
    )
    said = doctor(FILES)
    assert said.ids & DATES == found
    for name in found:
        assert str(tmp_path / "me.pem") in said[name]["summary"]


def test_files_that_are_no_certificates(
    doctor: Callable[..., Said], tmp_path: Path, authority: trustme.CA
) -> None:
    issue(tmp_path, authority)
    authority.issue_cert("other").private_key_pem.write_to_path(tmp_path / "me.key")
    assert "are no pair" in doctor(FILES)["certificate-unusable"]["summary"]
    issue(tmp_path, authority)
    assert "certificate-unusable" not in doctor(FILES)
    (tmp_path / "ca.pem").write_text("nothing of the kind")
    assert "no certificate in PEM" in doctor(FILES)["certificate-unusable"]["summary"]
    (tmp_path / "ca.pem").unlink()
    assert "no such file" in doctor(FILES)["file-unreadable"]["summary"]
    (tmp_path / "ca.pem").mkdir()
    assert "a directory" in doctor(FILES)["file-unreadable"]["summary"]


def test_files_of_clusters(doctor: Callable[..., Said], tmp_path: Path, authority: trustme.CA) -> None:
    """Of a file in Envoy's shape: those that connections to its endpoints need."""
    now = datetime.now(UTC)
    issue(tmp_path, authority, not_before=now - timedelta(days=9), not_after=now - timedelta(days=1))
    context = {
        "certificate_chain": {"filename": str(tmp_path / "me.pem")},
        "private_key": {"filename": str(tmp_path / "me.key")},
    }
    tls = build.any_of(
        "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        {
            "common_tls_context": {
                "tls_certificates": [context],
                "validation_context": {"trusted_ca": {"filename": str(tmp_path / "ca.pem")}},
            }
        },
    )
    secured = build.cluster("c", ["127.0.0.1:1"], transport_socket={"name": "tls", "typed_config": tls})
    listener = sidecar_listener("l", "127.0.0.1:1", "reviews")
    (tmp_path / "envoy.json").write_text(json.dumps({"listeners": [listener], "clusters": [secured]}))
    said = doctor('services_file = "envoy.json"\n')
    assert "clusters.c.tls.cert_file" in said["certificate-expired"]["summary"]
    authority.issue_cert("other").private_key_pem.write_to_path(tmp_path / "me.key")
    assert "are no pair" in doctor('services_file = "envoy.json"\n')["certificate-unusable"]["summary"]


def test_a_pipe_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert certificates.look_at(str(tmp_path / "pipe"), "ca").problem == ""


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644, 0o666])
def test_who_can_read_a_key(
    doctor: Callable[..., Said], tmp_path: Path, authority: trustme.CA, mode: int
) -> None:
    issue(tmp_path, authority)
    (tmp_path / "me.key").chmod(mode)
    said = doctor(FILES)
    assert ("file-readable-by-others" in said) == bool(mode & 0o004)
    assert ("file-writable-by-others" in said) == bool(mode & 0o002)
    if mode & 0o004:
        assert said["file-readable-by-others"]["severity"] == "warning"
        assert str(tmp_path / "me.key") in said["file-readable-by-others"]["remedy"]


@pytest.mark.usefixtures("patient")
def test_who_can_read_a_bootstrap(doctor: Callable[..., Said], tmp_path: Path) -> None:
    with ControlPlane() as plane:
        (tmp_path / "bootstrap.json").write_text(json.dumps(plane.bootstrap()))
        (tmp_path / "bootstrap.json").chmod(0o644)
        said = doctor('[xds]\nbootstrap = "bootstrap.json"\n')
        assert said["file-readable-by-others"]["severity"] == "info"
        (tmp_path / "bootstrap.json").chmod(0o600)
        assert "file-readable-by-others" not in doctor('[xds]\nbootstrap = "bootstrap.json"\n')


def test_dates_are_those_that_another_reader_finds(tmp_path: Path, authority: trustme.CA) -> None:
    from cryptography import x509

    far = datetime(2061, 5, 4, 3, 2, 1, tzinfo=UTC)  # a GeneralizedTime; before 2050 it is a UTCTime
    for end in (far, datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC)):
        pem = authority.issue_cert("a", not_after=end).cert_chain_pems[0].bytes()
        theirs = x509.load_pem_x509_certificate(pem)
        found = validity(ssl.PEM_cert_to_DER_cert(pem.decode()))
        assert found == Validity(
            theirs.not_valid_before_utc.timestamp(), theirs.not_valid_after_utc.timestamp()
        )


def test_a_certificate_that_is_cut_anywhere_is_none(authority: trustme.CA) -> None:
    der = ssl.PEM_cert_to_DER_cert(authority.cert_pem.bytes().decode())
    for length in range(len(der)):
        with pytest.raises(ValueError, match=r"cut off|no certificate|is wrong|missing"):
            validity(der[:length])


# --- the process ------------------------------------------------------------------------------------------------------------


def test_the_admin_directory(doctor: Callable[..., Said], tmp_path: Path, upstream: Upstream) -> None:
    config = service(upstream.address) + '[admin]\nenabled = true\nruntime_dir = "run"\n'
    assert not {"admin-off", "admin-directory"} & doctor(config).ids
    (tmp_path / "run").chmod(0o777)
    assert "others have rights in it" in doctor(config)["admin-directory"]["summary"]
    (tmp_path / "run").rmdir()
    (tmp_path / "run").write_text("")
    assert doctor(config)["admin-directory"]["severity"] == "warning"
    assert "admin-off" in doctor(service(upstream.address))


def cluster(name: str, *addresses: str, http2: bool = False) -> Any:
    return {
        "name": name,
        "source": "static",
        "discovery": "static",
        "dns": [],
        "unresolved": "",
        "resolving": False,
        "http2": http2,
        "plain": not http2,
        "anybody": False,
        "closed": [],
        "endpoints": list(addresses),
    }


def listener(name: str, *, source: str = "static", view: str = "service", attempts: int = 1) -> Any:
    return {
        "name": name,
        "source": source,
        "view": view,
        "addresses": [],
        "domains": ["*"],
        "attempts": attempts,
    }


@pytest.fixture
def facts() -> Facts:
    """Of a process that is well."""
    made = plain(Config.from_mapping({"services": {"reviews": {"endpoints": ["127.0.0.1:9"]}}}))
    with meshlib.Mesh({}) as mesh:
        made["status"] = json.loads(json.dumps(mesh.status().to_dict()))
    made["process"].update(instrumented={}, ours=False, retriers=[], strangers=[], grpc=False, gevent=False)  # type: ignore[call-arg]
    return made


def judged(facts: Facts, seen: Seen | None = None) -> Said:
    """What the checks say of another process's facts."""
    case = Case(facts, seen or Seen(), own=False)
    return Said(0, [finding.to_dict() for check in CHECKS for finding in check(case)])


def test_a_process_that_is_well(facts: Facts) -> None:
    assert judged(facts).findings == []


def test_gevent(facts: Facts) -> None:
    facts["process"]["gevent"] = facts["process"]["grpc_gevent"] = True
    assert judged(facts).ids == set()
    facts["process"]["late"] = True
    assert judged(facts).ids == {"gevent-late"}
    facts["process"]["late"] = facts["process"]["grpc_gevent"] = False
    assert judged(facts).ids == set()  # nobody uses grpc
    facts["process"]["grpc"] = True
    assert judged(facts).ids == {"gevent-without-grpc"}


def test_forks(facts: Facts) -> None:
    assert facts["status"] is not None
    facts["status"]["process"]["forked"] = True
    assert judged(facts)["used-before-fork"]["severity"] == "info"
    facts["status"]["process"]["forked"] = False
    facts["process"]["fork_support"] = "0"
    assert judged(facts).ids == set()  # no stream, nothing to lose
    facts["config"]["servers"] = [{"uri": "127.0.0.1:9", "tls": False, "ca": "", "cert": "", "key": ""}]
    assert "grpc-fork-support-off" in judged(facts)
    facts["process"]["threadless"] = True
    assert judged(facts)["uwsgi-without-threads"]["severity"] == "warning"


@pytest.mark.parametrize(
    ("instrumented", "ours", "severity"),
    [
        ({}, True, None),
        ({"opentelemetry": ["httpx"]}, False, None),
        ({"opentelemetry": ["httpx"]}, True, "info"),
        ({"ddtrace": ["httpx"]}, False, None),
        ({"ddtrace": ["httpx"]}, True, "warning"),
        ({"sentry": ["httpx"], "ddtrace": ["requests"]}, False, "warning"),
        ({"opentelemetry": ["httpx"], "sentry": ["stdlib"]}, False, "warning"),
    ],
)
def test_tracers(facts: Facts, instrumented: Any, *, ours: bool, severity: str | None) -> None:
    facts["process"]["instrumented"], facts["process"]["ours"] = instrumented, ours
    said = judged(facts)
    assert said.ids == ({"double-instrumentation"} if severity else set())
    if severity:
        assert said["double-instrumentation"]["severity"] == severity


@pytest.mark.parametrize(
    ("library", "url", "tells", "severity"),
    [
        ("openai", "http://llm", False, "warning"),
        ("openai", "http://llm:80", False, "warning"),
        ("openai", "http://llm", True, "info"),
        ("anthropic", "http://deep.llm.internal:8080", False, "warning"),
        ("openai", "https://api.example.com", False, None),
        ("urllib3", "http://", False, "info"),
        ("tenacity", "", False, "info"),
    ],
)
def test_retries(facts: Facts, library: Any, url: str, *, tells: bool, severity: str | None) -> None:
    facts["process"]["retriers"] = [{"library": library, "url": url, "retries": 2, "count": 1}]
    facts["config"]["tells_spent_retries"] = tells
    assert judged(facts).ids == set()  # the mesh tries nothing again
    facts["listeners"] = [listener("llm", attempts=3), listener("*.llm.internal", attempts=4)]
    said = judged(facts)
    assert said.ids == ({"retries-owned-twice"} if severity else set())
    if severity:
        assert said["retries-owned-twice"]["severity"] == severity
    if severity == "warning":
        most = 12 if library == "anthropic" else 9
        assert f"up to {most} requests" in said["retries-owned-twice"]["summary"]


def test_sidecars(facts: Facts) -> None:
    assert facts["status"] is not None
    seen = facts["status"]["sidecar"]
    seen.update(kind="istio", mode="transparent", confidence="high", in_use=True, evidence=["15001 listens"])
    assert judged(facts)["sidecar"]["evidence"] == ["15001 listens"]
    assert judged(facts).ids == {"sidecar"}
    for mode in ("istio", "require"):
        facts["config"]["sidecar"] = mode
        assert judged(facts).ids == {"sidecar"}
    seen.update(in_use=False, confidence="low", evidence=[f"15001 {OTHERS} 1000, and that of istio is 1337"])
    assert judged(facts).ids == {"sidecar", "sidecar-absent", "sidecar-other"}
    assert judged(facts)["sidecar-absent"]["severity"] == "error"
    facts["config"]["sidecar"] = "auto"
    assert judged(facts).ids == {"sidecar"}  # nobody said that there is one
    seen.update(kind="none", mode="none", confidence="none", evidence=[])
    assert judged(facts).ids == set()


def test_istios_agent_without_an_envoy_is_no_contradiction(facts: Facts) -> None:
    assert facts["status"] is not None
    facts["config"]["sidecar"] = "istio"
    facts["status"]["sidecar"].update(kind="istio", mode="proxyless", confidence="high", in_use=False)
    assert judged(facts).ids == {"sidecar"}


def test_a_sidecar_that_is_demanded(doctor: Callable[..., Said], upstream: Upstream) -> None:
    said = doctor(service(upstream.address) + '[sidecar]\nmode = "require"\n')
    assert "require" in said["sidecar-absent"]["summary"]
    assert "mesh.toml" in said["sidecar-absent"]["summary"]


def test_a_sidecar_whose_address_is_told(doctor: Callable[..., Said], upstream: Upstream, dead: str) -> None:
    said = doctor(f'[sidecar]\naddress = "{upstream.address}"\n')
    assert (said.code, "sidecar" in said) == (0, True)
    assert said["sidecar"]["summary"].endswith("it carries the calls")
    said = doctor(f'[sidecar]\naddress = "{dead}"\n')
    assert said["sidecar-absent"]["severity"] == "error"
    assert "sidecar-absent" not in doctor(f'[sidecar]\nmode = "off"\naddress = "{dead}"\n')


def test_a_source_that_cannot_be_read(facts: Facts) -> None:
    assert facts["status"] is not None
    source = {
        "name": "file",
        "kind": "file",
        "state": "stale",
        "last_error": "mesh.toml:1:1: no TOML",
        "server": "",
    }
    facts["status"]["sources"] = [{**source, "ignored": [], "rejected": [], "missing": [], "waiting": []}]
    found = judged(facts)["source-failed"]
    assert (found["severity"], "no TOML" in found["summary"]) == ("warning", True)


@pytest.mark.parametrize(
    ("state", "error", "told"),
    [
        ("failed", "state.bin is not used: it is damaged", True),
        ("stale", "", False),  # it serves, and the control plane's own finding says why
        ("idle", "", False),
        ("ready", "", False),
    ],
)
def test_a_last_good_state_that_cannot_be_used(facts: Facts, state: str, error: str, told: bool) -> None:
    assert facts["status"] is not None
    kept = {"resource": "c", "type": "cluster", "problems": ["is not kept on disk: it may hold a secret"]}
    source = {"name": "last_good", "kind": "last_good", "state": state, "last_error": error, "server": "f"}
    facts["status"]["sources"] = [{**source, "ignored": [], "rejected": [kept], "missing": [], "waiting": []}]
    said = judged(facts)
    assert "resource-rejected" not in said
    assert ("source-failed" in said) is told
    if told:
        assert said["source-failed"]["severity"] == "warning"
        assert said["source-failed"]["summary"] == error


# --- the whole --------------------------------------------------------------------------------------------------------------


def test_what_several_processes_say_is_said_once() -> None:
    def of(pid: int, *names: str) -> Subject:
        return Subject(pid, findings=tuple(Finding(name, "info", name, "-", ("seen",)) for name in names))

    found = diagnose([of(1, "a", "b"), of(2, "a")])
    assert [(one.id, one.evidence) for one in found] == [
        ("a", ("seen", "processes 1, 2")),
        ("b", ("seen", "process 1")),
    ]
    assert diagnose([of(1, "a")])[0].evidence == ("seen",)


def test_a_process_of_another_version(facts: Facts) -> None:
    facts["process"]["version"] = "0.0.1"
    assert [one.id for one in _subject(1, [facts]).findings] == ["another-version"]
    assert [one.id for one in _subject(1, [{}]).findings] == ["another-version"]  # type: ignore[typeddict-item]
    assert [one.id for one in _subject(1, []).findings] == ["process-cannot-be-asked"]
    facts["process"]["version"] = meshlib.__version__
    assert _subject(1, [facts]).findings == ()


@pytest.mark.parametrize(
    ("uri", "address"),
    [
        ("127.0.0.1:1", "127.0.0.1:1"),
        ("dns:///control:1", "control:1"),
        ("dns://127.0.0.1/control:1", "control:1"),
        ("dns:control", "control:443"),
        ("ipv4:127.0.0.1:1", "127.0.0.1:1"),
        ("ipv6:[::1]:1", "[::1]:1"),
        ("unix:///run/x", "unix:/run/x"),
        ("unix:/run/x", "unix:/run/x"),
        ("unix:run/x", "unix:run/x"),
    ],
)
def test_targets_of_grpc(uri: str, address: str) -> None:
    assert address_of(uri) == address


@pytest.mark.parametrize(
    ("address", "here"),
    [
        ("127.0.0.1:1", True),
        ("127.9.9.9:1", True),
        ("[::1]:1", True),
        ("[0:0::1]:1", True),
        ("localhost:1", True),
        ("unix:/run/x", True),
        ("127.0.0.1.shop.example:1", False),
        ("localhost.shop.example:1", False),
        ("10.0.0.1:1", False),
        ("0.0.0.0:1", False),
        ("no address", False),
    ],
)
def test_only_this_machine_is_loopback(address: str, here: bool) -> None:
    """An address of a listener is connected to only where it is."""
    assert loopback(address) is here


def test_a_finding_that_is_made_is_in_the_table_and_the_other_way_round() -> None:
    import ast

    folder = Path(package.__file__).parent
    made = {
        node.args[0].value
        for path in folder.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "found"
        and isinstance(node.args[0], ast.Constant)
    }
    assert made == set(CATALOGUE)


def test_the_page_has_every_finding() -> None:
    page = (ROOT / "docs" / "tasks" / "doctor.md").read_text()
    rows = [line for line in page.partition("## The findings")[2].splitlines() if line.startswith("| `")]
    expected = [
        f"| `{name}` | {sort.severity}{f' or {sort.or_else}' if sort.or_else else ''} | {sort.means} |"
        for name, sort in CATALOGUE.items()
    ]
    assert rows == expected


def test_an_address_that_was_not_tried_is_not_dead(facts: Facts) -> None:
    facts["clusters"] = [cluster("reviews", "127.0.0.1:9", "127.0.0.1:10")]
    seen = Seen(reached={"127.0.0.1:9": Reached("connection refused")}, left=frozenset({"127.0.0.1:10"}))
    assert judged(facts, seen)["endpoint-not-listening"]["severity"] == "warning"


# --- TLS between workloads


PAIR = 'cert = "cert.pem"\nkey = "key.pem"\nca = "ca.pem"\n'


@pytest.fixture
def mine(tmp_path: Path) -> Authority:
    """``cert.pem``, ``key.pem`` and ``ca.pem`` beside the configuration."""
    authority = Authority()
    authority.issue("spiffe://td/ns/shop/sa/me").write(tmp_path)
    (tmp_path / "key.pem").chmod(0o600)
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    return authority


def demanding(address: str) -> str:
    return service(address, more="tls = { sans = ['spiffe://td/ns/shop/sa/reviews'] }\n")


def test_who_the_process_is(doctor: Callable[..., Said], upstream: Upstream, mine: Authority) -> None:
    said = doctor(f"[identity]\n{PAIR}\n{demanding(upstream.address)}")
    summary = said["identity"]["summary"]
    assert summary.startswith("files (identity (")
    assert "gives the identity: spiffe://td/ns/shop/sa/me, for 10 d yet, 1 root" in summary
    assert "identity-missing" not in said


def test_an_identity_that_nothing_demands(
    doctor: Callable[..., Said], upstream: Upstream, mine: Authority
) -> None:
    said = doctor(f"[identity]\n{PAIR}\n{service(upstream.address)}")
    assert "which nothing demands yet" in said["identity"]["summary"]


def test_an_identity_that_cannot_be_had(
    doctor: Callable[..., Said], upstream: Upstream, mine: Authority, tmp_path: Path
) -> None:
    (tmp_path / "cert.pem").write_text("nonsense")
    said = doctor(f"[identity]\n{PAIR}\n{demanding(upstream.address)}")
    assert said["identity-missing"]["severity"] == "error"
    assert "cert.pem, " in said["identity-missing"]["evidence"][1]
    assert "it is no certificate in PEM" in said["identity-missing"]["evidence"][1]
    [line] = said["tls-unusable"]["evidence"]
    assert line.startswith("reviews: secret 'default' cannot be used: /")


def identity_of(**other: Any) -> dict[str, Any]:
    known = IdentityStatus(
        "istio", "identity (mesh.toml)", "istiod:15012", "ready", "spiffe://td/a", 3600.0, 1
    )
    return replace(known, **other).to_dict()


@pytest.mark.parametrize(
    ("other", "name", "words"),
    [
        ({}, "identity", "gives the identity: spiffe://td/a, for 1 h yet, 1 root"),
        ({"state": "idle", "name": "", "expires_in": None}, "identity", "which nothing demands yet"),
        ({"state": "connecting", "name": "", "expires_in": None, "roots": 0}, "identity", "connecting"),
        (
            {"state": "stale", "last_error": "refused"},
            "identity-expires-soon",
            "expires in 1 h and cannot be renewed",
        ),
        ({"state": "failed", "expires_in": -7200.0}, "identity-expired", "expired 2 h ago"),
        (
            {"state": "failed", "name": "", "expires_in": None},
            "identity-missing",
            "cannot give all of the identity",
        ),
    ],
)
def test_how_an_identity_stands(facts: Facts, other: dict[str, Any], name: str, words: str) -> None:
    status = {"identity": [identity_of(**other)], "sources": []}
    [finding] = trust.identity(Case({**facts, "status": status}, Seen()))  # type: ignore[typeddict-item]
    assert finding.id == name
    assert words in finding.summary
    assert finding.evidence[0] == "asked: istiod:15012"


def test_tls_that_verifies_nobody(doctor: Callable[..., Said], tmp_path: Path, upstream: Upstream) -> None:
    context = {"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"}
    socket_ = {"name": "tls", "typed_config": context}
    blind = build.cluster("blind", [upstream.address], transport_socket=socket_)
    del blind["@type"]
    (tmp_path / "envoy.json").write_text(json.dumps({"static_resources": {"clusters": [blind]}}))
    said = doctor('services_file = "envoy.json"\n')
    assert said["tls-verifies-nobody"]["evidence"] == ["blind"]
    said = doctor('services_file = "envoy.json"\n[identity]\nverify = "always"\n')
    assert "tls-verifies-nobody" not in said


@pytest.mark.parametrize(
    ("key", "mode", "name"),
    [
        ('[identity]\nprovider = "istio"\ntoken = "secret"\n', 0o644, "file-readable-by-others"),
        (
            '[services.a]\nendpoints = ["127.0.0.1:1"]\ntls = {}\ntoken = "secret"\n',
            0o644,
            "file-readable-by-others",
        ),
        ('[xds]\nserver = "127.0.0.1:1"\nlast_good = "secret"\n', 0o646, "file-writable-by-others"),
    ],
)
def test_files_that_others_have_rights_in(
    doctor: Callable[..., Said], tmp_path: Path, key: str, mode: int, name: str
) -> None:
    path = tmp_path / "secret"
    path.write_text("x")
    path.chmod(mode)
    said = doctor(key)
    assert str(path) in said[name]["summary"]
    path.chmod(0o600)
    assert name not in doctor(key)


def test_a_token_in_its_usual_place_is_looked_at(
    doctor: Callable[..., Said], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(facts_module, "TOKEN", str(tmp_path / "istio-token"))
    config = '[identity]\nprovider = "istio"\n'
    assert (
        f"identity.token: {tmp_path}/istio-token: no such file"
        in doctor(config)["file-unreadable"]["summary"]
    )
    (tmp_path / "istio-token").write_text("x")
    (tmp_path / "istio-token").chmod(0o644)
    assert (
        f"{tmp_path}/istio-token can be read by every user"
        in doctor(config)["file-readable-by-others"]["summary"]
    )


def test_a_socket_that_others_have_rights_in(facts: Facts) -> None:
    # Not in pytest's folder, whose path may be longer than a socket's can be.
    with tempfile.TemporaryDirectory(prefix="meshlib-") as folder, socket.socket(socket.AF_UNIX) as served:
        path = f"{folder}/csds.sock"
        told = plain(Config.from_mapping({"admin": {"csds": f"unix:{path}"}}))["config"]["files"]
        assert [(file["key"], file["use"]) for file in told] == [("admin.csds", "socket")]
        served.bind(path)
        Path(path).chmod(0o666)
        seen = certificates.look_at(path, "socket")
    facts["config"]["files"] = told
    said = judged(facts, Seen(files={path: seen}))
    assert "csds.sock can be changed by every user" in said["file-writable-by-others"]["summary"]


def test_a_directory_in_which_everybody_may_write(doctor: Callable[..., Said], tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    (folder / "token").write_text("x")
    (folder / "token").chmod(0o600)
    folder.chmod(0o777)
    said = doctor('[identity]\nprovider = "istio"\ntoken = "open/token"\n')
    assert said["file-writable-by-others"]["summary"].endswith("can be replaced by every user")
    folder.chmod(0o1777)  # as /tmp
    assert "file-writable-by-others" not in doctor('[identity]\nprovider = "istio"\ntoken = "open/token"\n')


def test_what_a_mesh_makes_itself_may_be_absent(doctor: Callable[..., Said]) -> None:
    said = doctor('[xds]\nserver = "127.0.0.1:1"\nlast_good = "none"\n[admin]\ncsds = "unix:none.sock"\n')
    assert "file-unreadable" not in said
