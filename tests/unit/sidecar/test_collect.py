"""What is seen without asking: bounded, and without a fault whatever stands where a table is looked for."""

from __future__ import annotations

import json
import os
import resource
import socket

import pytest

from meshlib.sidecar import collect
from meshlib.sidecar.collect import Collector
from meshlib.sidecar.evidence import Listening
from meshlib.sidecar.inspect import inspect
from meshlib.sidecar.probe import Prober
from meshlib.sidecar.watch import Watch
from meshlib.testing.clock import VirtualClock
from tests.support.raw_server import RawServer
from tests.support.sidecar_kit import settings

LISTENS = b"   0: 00000000:%04X 00000000:0000 0A 0:0 00:0 0 %d 0 24 1 0 100 0 0 10 0\n"
CONNECTED = b"   9: 0100007F:985C 0100007F:0050 01 0:0 00:0 0 1000 0 26 1 0 20 4 30 10 -1\n"
HEAD = b"  sl  local_address rem_address   st\n"


@pytest.fixture
def proc(tmp_path):
    """The kernel's tables, as files."""
    for name in ("tcp", "tcp6", "unix", "dev"):
        (tmp_path / name).write_bytes(HEAD)
    return tmp_path


def look(proc, environ=(), **config):
    return Collector(settings(**config), dict(environ), str(proc)).look()


class TestTables:
    def test_listeners_of_both_families(self, proc):
        (proc / "tcp").write_bytes(HEAD + LISTENS % (15001, 1337) + CONNECTED)
        (proc / "tcp6").write_bytes(HEAD)
        assert look(proc).listeners == (Listening("0.0.0.0", 15001, 1337),)

    def test_they_come_first_and_the_rest_is_not_read(self, proc):
        (proc / "tcp").write_bytes(HEAD + LISTENS % (1, 2) * 1000 + CONNECTED * 1000 + LISTENS % (3, 4))
        assert {one.port for one in look(proc).listeners} == {1}

    def test_a_table_without_end_is_cut_off(self, proc):
        (proc / "tcp").write_bytes(HEAD + LISTENS % (1, 2) * 40_000)
        assert 1000 < len(look(proc).listeners) < 20_000

    def test_no_tables_at_all(self, tmp_path):
        evidence = look(tmp_path / "none")
        assert evidence.listeners is None
        assert evidence.sockets is None

    def test_a_directory_and_a_pipe_in_their_place(self, tmp_path):
        (tmp_path / "tcp").mkdir()
        os.mkfifo(tmp_path / "tcp6")
        (tmp_path / "dev").mkdir()
        assert look(tmp_path).listeners == ()

    @pytest.mark.parametrize(
        ("table", "words"),
        [
            ("docker0: 0", "docker0"),
            ("eth0: 0\n  cali1234: 0", "cali1234"),
            ("veth1: 0\nveth2: 0", "veth1"),
        ],
    )
    def test_the_network_of_a_whole_machine(self, proc, table, words):
        (proc / "tcp").write_bytes(HEAD + LISTENS % (15001, 1337))
        (proc / "dev").write_text(f"Inter-|\n face |\n    lo: 0\n  {table}\n")
        (line,) = look(proc).shared
        assert words in line

    def test_a_pods_own_network(self, proc):
        (proc / "tcp").write_bytes(HEAD + LISTENS % (15001, 1337))
        (proc / "dev").write_text("Inter-|\n face |\n    lo: 0\n  eth0: 0\n veth1: 0\n")
        assert look(proc).shared == ()

    def test_unix_sockets_are_read_where_one_was_told(self, proc):
        (proc / "unix").write_bytes(b"Num\n0: 00000002 00000000 00010000 0001 01 22 /run/envoy\n")
        assert look(proc).sockets is None
        assert look(proc, address="unix:/run/envoy").sockets == {"/run/envoy"}

    def test_our_own_listener_is_seen_with_its_owner(self):
        with socket.create_server(("127.0.0.1", 0)) as server:
            mine = Listening("127.0.0.1", server.getsockname()[1], os.geteuid())
            assert mine in (Collector(settings(), {}).look().listeners or ())

    def test_a_process_without_a_file_descriptor_left_keeps_what_it_saw(self):
        collector = Collector(settings(), {})
        seen = collector.look().listeners
        assert seen is not None
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (1, hard))
        try:
            assert collector.look().listeners == seen
            assert collect.redirected() is None
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class TestRedirect:
    def test_it_is_looked_for_only_where_something_could_be_a_sidecar(self, proc, monkeypatch):
        asked = []
        monkeypatch.setattr(collect, "redirected", lambda: asked.append(1))
        look(proc)
        assert asked == []
        (proc / "tcp").write_bytes(HEAD + LISTENS % (15001, 1337))
        collector = Collector(settings(), {}, str(proc))
        assert collector.look().redirected is None
        monkeypatch.setattr(collect, "redirected", lambda: asked.append(2) or True)
        assert collector.look().redirected is True
        assert collector.look().redirected is True
        assert asked == [1, 2]  # once seen, it is

    def test_this_machine_tells(self):
        assert collect.redirected() in (True, False, None)


AGENTS = {"xds_servers": [{"server_uri": "unix:///etc/istio/proxy/XDS"}]}


class TestBootstrap:
    def given(self, path, proc):
        return look(proc, {"GRPC_XDS_BOOTSTRAP": str(path)}).bootstrap

    def test_istios_by_its_place_though_it_cannot_be_read_yet(self, proc):
        assert self.given("/etc/istio/proxy/grpc-bootstrap.json", proc)
        assert not self.given("/etc/istio/proxy/../../grpc-bootstrap.json", proc)

    @pytest.mark.parametrize(
        ("text", "istios"),
        [
            (json.dumps(AGENTS), True),
            (json.dumps({"xds_servers": [{"server_uri": "istiod:15010"}]}), False),
            (json.dumps({"xds_servers": [{"server_uri": "dns:///etc/istio/proxy/XDS"}]}), False),
            (json.dumps({"xds_servers": []}), False),
            (json.dumps({"xds_servers": [{"server_uri": 5}]}), False),
            (json.dumps([]), False),
            ("null", False),
            ("{", False),
            ("[" * 100_000, False),
            ("\ud800".encode("utf-8", "surrogatepass"), False),
            (" " * 300_000 + json.dumps(AGENTS), False),
        ],
    )
    def test_others_by_what_they_say(self, proc, tmp_path, text, istios):
        path = tmp_path / "bootstrap.json"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        assert bool(self.given(path, proc)) is istios

    def test_one_that_is_not_there(self, proc, tmp_path):
        assert not self.given(tmp_path / "none", proc)


class TestTogether:
    def test_off_makes_no_system_call(self, monkeypatch):
        def forbidden(*arguments, **options):
            raise AssertionError(arguments)

        for name in ("open", "read", "geteuid"):
            monkeypatch.setattr(collect.os, name, forbidden)
        monkeypatch.setattr(collect.socket, "socket", forbidden)
        watch = Watch(settings("off"), VirtualClock(), forbidden)
        watch.suspect()
        watch.stop()
        assert watch.current.state == "absent"

    def test_an_inspection_asks_what_there_is_to_ask(self, monkeypatch):
        monkeypatch.setattr(Prober.__init__, "__defaults__", (10.0,))
        with RawServer(answer=b"HTTP/1.1 204 No Content\r\n\r\n") as server:
            port = server.address.rpartition(":")[2]
            found = inspect(settings(), {"DAPR_HTTP_PORT": port})
        assert (found.kind, found.confidence, found.ready) == ("dapr", "high", True)
        assert server.heads[0].startswith(b"GET /v1.0/healthz/outbound HTTP/1.1\r\n")
