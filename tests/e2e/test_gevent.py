"""Real gevent: every program is a process of its own, patched before anything else unless it says otherwise."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from meshlib.testing import ControlPlane, Upstream, UpstreamProcess, build
from meshlib.testing.ports import reserve
from tests.support.dns_server import DnsServer
from tests.support.late import again_if_late, soon

pytest.importorskip("gevent")

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "adapters")])}


@pytest.fixture(scope="module")
def addresses() -> Iterator[list[str]]:
    with UpstreamProcess("a") as one, UpstreamProcess("b") as other:
        yield [one.address, other.address]


def run(program: str, *arguments: Any, module: str = "gevent_calls") -> tuple[Any, str]:
    """What the program found, and what it said on stderr. It ends by itself, and well."""
    done = subprocess.run(
        [
            sys.executable,
            "-X",
            "faulthandler",
            "-m",
            f"tests.support.{module}",
            program,
            *map(json.dumps, arguments),
        ],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


# --- calls ------------------------------------------------------------------------------------------------------------


def test_200_greenlets_call_at_once_with_every_face(addresses: list[str]) -> None:
    found, err = run("crowd", {"addresses": addresses})
    assert set(found["found"]) == {"httpx", "httpx stream", "requests", "requests stream", "urllib3"}
    assert all(statuses == {"200": 200} for statuses in found["found"].values())
    assert (sum(found["held"]), found["connections"]) == (0, 0)
    assert found["ticks"] > 5  # each of five rounds takes 50 ms at least
    assert not err


def test_a_call_that_is_killed_at_any_of_its_points_leaves_nothing(addresses: list[str]) -> None:
    """The program checks counters and connections after each. Its ways of calling are to have been killed somewhere."""
    found, _ = run("killed", {"addresses": addresses})
    assert len(found) == 5 * 3 * 2
    for way, ends in found.items():
        assert ends["stopped"] >= 1, way
        assert ends.get("503" if "retried" in way else "200", 0) >= 1, way


def test_timeouts_and_kills_among_many_calls_on_few_connections(addresses: list[str]) -> None:
    found, _ = run("crossfire", {"addresses": addresses})
    assert set(found["found"]) == {"200", "timeout", "killed"}
    assert found["found"]["200"] >= 250
    assert (sum(found["held"]), found["connections"]) == (0, 0)


def test_a_connection_that_a_killed_greenlet_was_told_of_is_the_next_ones(addresses: list[str]) -> None:
    found, _ = run("handed_on", {"addresses": addresses})
    assert found == {"200": 20, "in time": 20, "held": 0}


def test_a_killed_call_on_trial_gives_the_breakers_permit_back(addresses: list[str]) -> None:
    found, _ = run("probe", {"addresses": addresses})
    assert found["stopped"] >= 5
    assert found["then 200"] == found["stopped"] + found["200"]
    assert found["held"] == 0


def test_the_first_call_of_a_process_may_be_killed(addresses: list[str]) -> None:
    found, _ = run("first_call", {"addresses": addresses})
    assert found["stopped"] >= 2
    assert found["then 200"] == found["stopped"] + found["200"]


def test_retries_ejection_timeouts_and_deadlines(addresses: list[str]) -> None:
    with UpstreamProcess("bad") as bad, reserve(0) as gone:
        bad.order(status=500)
        address = f"127.0.0.1:{gone.getsockname()[1]}"
        found, _ = run("policies", {"good": addresses[0], "bad": bad.address, "gone": address})
    assert found["retried"] == {"200": 20}
    assert found["ejecting"] == {"500": 3, "200": 9}
    assert found["ejected"] == {"200": 12}
    assert [name for name, _ in found["slow"]] == ["DeadlineExceeded"] * 20
    assert all(0.29 <= seconds < 3 for _, seconds in found["slow"])  # together: one after the other takes 6 s
    assert found["outside"] == 200
    assert found["ticks"] > 10


def test_what_a_request_says_stays_with_its_greenlet(addresses: list[str]) -> None:
    found, _ = run("contexts", {"addresses": addresses})
    own = {"own deadline": 50, "spawned with none": 50, "spawned with it": 50}
    assert found == {"kept": 150, "carried": 150, "clean": 150, "plain": 50, **own}


def demanding(path: Path, address: str, ca: Path, name: str) -> dict[str, str]:
    """A mesh that demands TLS and ``name`` in the certificate, in Envoy's shape."""
    tls = {
        "sni": "reviews",
        "common_tls_context": {
            "validation_context": {
                "trusted_ca": {"filename": str(ca)},
                "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": name}}],
            }
        },
    }
    kind = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
    socket = {"name": "tls", "typed_config": build.any_of(kind, tls)}
    routes = build.route_config(
        "r", build.virtual_host("v", build.route("/", cluster="c"), domains=["reviews"])
    )
    resources = {
        "listeners": [build.without_type(build.listener("l", routes, address="0.0.0.0:80"))],
        "clusters": [build.without_type(build.cluster("c", [address], transport_socket=socket))],
    }
    path.write_text(json.dumps({"static_resources": resources}))
    return {"services_file": str(path)}


def test_tls_of_the_url_and_of_the_mesh(tmp_path: Path) -> None:
    authority = trustme.CA()
    ca = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("reviews").configure_cert(context)
    with Upstream("secure", tls=context) as upstream:
        address = upstream.address
        services = {"reviews": {"endpoints": [address], "timeout": 20.0}}
        cases = {
            "url": {"url": "https://reviews/", "config": {"services": services}},
            "mesh": {
                "url": "http://reviews/",
                "config": demanding(tmp_path / "a.json", address, ca, "reviews"),
            },
            "other": {
                "url": "http://reviews/",
                "config": demanding(tmp_path / "b.json", address, ca, "ratings"),
            },
        }
        found, _ = run("secured", {"ca": str(ca), "cases": cases})
    assert found["cases"]["url"][0] == {"200": 40}
    assert found["cases"]["mesh"][0] == {"200": 40}
    assert found["cases"]["other"][0] == {"ConnectFailed, names": 40}
    assert max(seconds for _, seconds in found["cases"].values()) < 4  # one after the other: 4 at least
    assert found["ticks"] > 10


# --- sources, processes -----------------------------------------------------------------------------------------------


def test_dns_and_an_edited_file(addresses: list[str], tmp_path: Path) -> None:
    with DnsServer({("named.test", "A"): ["127.0.0.1"]}) as server:
        found, _ = run("sources", {"addresses": addresses, "folder": str(tmp_path), "dns": server.settings})
    assert (found["named"], found["before"], found["after"]) == ("a", "a", "b")
    assert found["ticks"] > 5


def test_executed_programs_a_fork_and_the_admin_socket(addresses: list[str], tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    found, err = run("children", {"addresses": addresses, "folder": str(tmp_path)})
    assert found["true"] == [0] * 20
    assert found["same worker"]
    assert found["child"] == [200, 1, True]
    assert found["ended"] == 0
    assert found["meanwhile"] == {"200": 10}
    assert (found["dumped"], found["dumped again"]) == (1, 1)
    assert found["left"] == []
    assert not err


def test_the_end_of_a_program_is_bounded(addresses: list[str]) -> None:
    found, _ = run("exits", {"addresses": addresses})
    assert time.time() - found["at"] < 5


# --- patched too late -------------------------------------------------------------------------------------------------


def test_patched_after_the_import_and_before_the_first_call_it_is_as_good(addresses: list[str]) -> None:
    found, _ = run("imported", {"addresses": addresses}, module="gevent_late")
    assert found["statuses"] == {"200": 40}
    assert found["seconds"] < 3  # one after the other takes 4
    assert found["said"] == []


def test_patched_after_the_first_call_it_says_so(addresses: list[str]) -> None:
    found, _ = run("used", {"addresses": addresses}, module="gevent_late")
    assert found["statuses"] == {"200": 40}
    assert [line for line in found["said"] if "patch_all" in line and "before" in line] == found["said"] != []


#: A control plane that is polled over grpc, in the place of a stream; in one view, whose state then is that of all polls.
POLLED = {"protocol": "fetch", "refresh": 0.1, "view": "target"}

# --- a control plane --------------------------------------------------------------------------------------------------


class Commanded:
    """A program of ``gevent_xds``."""

    def __init__(
        self,
        prepared: bool,
        plane: ControlPlane,
        local: str,
        xds: dict[str, Any],
        environment: dict[str, str],
    ) -> None:
        argument = {"prepared": prepared, "xds": {"server": plane.address, **xds}, "local": local}
        self._process = subprocess.Popen(
            [sys.executable, "-X", "faulthandler", "-m", "tests.support.gevent_xds", json.dumps(argument)],
            cwd=ROOT,
            env={**ENVIRONMENT, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def ask(self, command: str) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, self._process.communicate(timeout=30)[1][-5000:]
        return json.loads(line)

    def end(self) -> str:
        """Its standard input ends, and so does it. What it said on stderr."""
        _, err = self._process.communicate(timeout=30)
        assert self._process.returncode == 0, err[-5000:]
        return err

    def kill(self) -> None:
        """It and its children: they are a session of their own."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert pipe is not None
            with contextlib.suppress(OSError):
                pipe.close()


@contextlib.contextmanager
def planes(addresses: list[str]) -> Iterator[ControlPlane]:
    host = build.virtual_host("reviews", build.route("/", cluster="c1"), domains=["reviews"])
    with ControlPlane(
        build.api_listener("reviews", build.route_config("r", host)),
        build.cluster("c1"),
        build.endpoints("c1", addresses[0]),
    ) as running:
        yield running


@pytest.fixture
def plane(addresses: list[str]) -> Iterator[ControlPlane]:
    with planes(addresses) as running:
        yield running


@contextlib.contextmanager
def commanded(
    prepared: bool, plane: ControlPlane, local: str, xds: dict[str, Any] | None = None, **environment: str
) -> Iterator[Commanded]:
    program = Commanded(prepared, plane, local, xds or {}, environment)
    try:
        yield program
    finally:
        program.kill()


@pytest.mark.timeout(180)
@pytest.mark.parametrize("xds", [{}, POLLED], ids=["streams", "fetch"])
@again_if_late
def test_with_grpc_prepared_a_control_plane_works_and_the_hub_lives(
    addresses: list[str], xds: dict[str, Any]
) -> None:
    with planes(addresses) as plane, commanded(True, plane, addresses[1], xds) as program:
        assert program.ask("call reviews")[0] == "a"
        program.ask("calls")
        plane.kill()
        assert program.ask("becomes stale") is True
        assert program.ask("call reviews")[0] == "a"
        plane.update(build.endpoints("c1", addresses[1]))
        plane.start()
        assert program.ask("reach b") is True
        assert program.ask("becomes ready") is True
        counted = program.ask("count")
        assert set(counted["found"]) == {"200"}
        assert counted["found"]["200"] > 20
        assert counted["ticks"] > 20
        assert program.ask("killed") is False
        closed = program.ask("close")
        assert "Traceback" not in program.end()
        # A stream that is waited for in the hub's thread blocks it for good.
        soon(counted["worst"], 0.5, "a turn of the hub")
        soon(closed, 2.0, "the close")


@pytest.mark.parametrize("support", ["", "0", "1"])
def test_executed_programs_and_a_fork_beside_a_stream(
    plane: ControlPlane, addresses: list[str], support: str
) -> None:
    """With every setting of grpc's fork support."""
    environment = {"GRPC_ENABLE_FORK_SUPPORT": support} if support else {}
    with commanded(True, plane, addresses[1], **environment) as program:
        assert program.ask("call reviews")[0] == "a"
        assert program.ask("programs 10") == [0, "ready"]
        plane.update(build.endpoints("c1", addresses[1]))
        assert program.ask("reach b") is True
        program.ask("close")
        assert "meshlib" not in program.end()  # nothing that warns: nobody's fork used the mesh


@pytest.mark.parametrize("xds", [{}, POLLED], ids=["streams", "fetch"])
@pytest.mark.parametrize("support", ["", "0", "1"])
def test_a_forked_child_is_warm_and_has_a_stream_of_its_own(
    plane: ControlPlane, addresses: list[str], support: str, xds: dict[str, Any]
) -> None:
    environment = {"GRPC_ENABLE_FORK_SUPPORT": support} if support else {}
    with commanded(True, plane, addresses[1], xds, **environment) as program:
        assert program.ask("call reviews")[0] == "a"
        assert program.ask("fork") == ["a", "ready", 0, "a", "ready"]
        program.ask("close")
        assert "fork" in program.end()


@pytest.mark.timeout(180)
@again_if_late
def test_without_it_a_call_fails_at_once_with_the_remedy_and_others_work(
    plane: ControlPlane, addresses: list[str]
) -> None:
    with commanded(False, plane, addresses[1]) as program:
        said, first = program.ask("call reviews")
        assert said.startswith("NotReady: ")
        assert "grpc.experimental.gevent.init_gevent()" in said
        assert program.ask("call local")[0] == "b"
        second = program.ask("call reviews")[1]
        program.ask("calls")
        assert program.ask("call local")[0] == "b"
        counted = program.ask("count")
        assert program.ask("state") == "failed"
        program.ask("close")
        assert "init_gevent" in program.end()
        soon(first, 3.0, "the first call")
        soon(second, 0.5, "the second call")
        soon(counted["worst"], 0.5, "a turn of the hub")


def test_health_checks_are_a_greenlet_that_holds_up_nobody(addresses: list[str]) -> None:
    silent = socket.create_server(("127.0.0.1", 0))
    with Upstream("dead") as dead, silent:
        dead.kill()
        port = addresses[0].rpartition(":")[2]
        endpoints = [
            f"localhost:{port}",
            addresses[1],
            dead.address,
            f"127.0.0.1:{silent.getsockname()[1]}",
        ]
        expected = ["healthy", "healthy", "unhealthy", "unhealthy"]
        argument = {"endpoints": endpoints, "expected": expected}
        found, err = run("checks", argument, module="gevent_health")
    assert found["found"] == found["again"] == expected
    assert (found["first"], found["statuses"]) == (200, [200])
    assert (found["threads"], found["left"], found["child"]) == (["meshlib-health"], [], 0)
    assert found["worst"] < 1.0
    assert "Traceback" not in err
