"""Kato's stand-in of the test kit, by itself and with meshlib. The cases are those of the program that go-control-plane 0.9 is in
`tests/interop/kato`; what only the stand-in tells stands here.
"""

from __future__ import annotations

import json
import urllib.request

import grpc
import pytest

import meshlib
from meshlib.testing import KatoControlPlane
from meshlib.testing.kato import dependency, inbound
from tests.interop.support.calling import said
from tests.interop.support.upstreams import Upstream
from tests.support.kato_cases import ME, NODE, MeshCases, ServerCases, client, config, told
from tests.support.watch import Watch

__all__ = ["client"]


@pytest.fixture
def kato():
    with KatoControlPlane() as running:
        yield running


@pytest.fixture
def upstream():
    running = []

    def start(name):
        running.append(Upstream(name))
        return running[-1]

    yield start
    for one in running:
        one.close()


class TestServer(ServerCases):
    def test_an_option_that_is_no_text_would_crash_the_agent(self, kato):
        with pytest.raises(TypeError, match="MaxRequests: 5 is no text"):
            kato.configure(NODE, dependency("gr2", 5000, MaxRequests=5))

    def test_a_node_has_three_parts(self, kato):
        with pytest.raises(ValueError, match="namespace_plugin_alias"):
            kato.configure("shop", dependency("gr2", 5000))

    def test_streams_and_requests_are_told(self, kato, client):
        stream = client.stream("Clusters")
        stream.send(NODE)
        stream.ack(stream.receive())
        request = kato.wait_for_ack("cluster", kato.version(NODE), timeout=20)
        assert (request.protocol, request.names, request.is_ack) == ("v2", (), True)
        assert (kato.streams, kato.opened) == (("cluster",), 1)
        kato.drop_streams(grpc.StatusCode.ABORTED, "enough")
        assert stream.code() == (grpc.StatusCode.ABORTED, "enough")

    def test_what_is_no_request_ends_the_stream(self, client):
        stream = client.stream("Clusters")
        stream._requests.put(b"\xff\xff")
        assert stream.code()[0] is grpc.StatusCode.INTERNAL


def get(url):
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as problem:
        return problem.code, problem.read().decode()


class TestPages:
    def test_the_api(self, kato):
        kato.serve("gr2", 5000, "10.0.0.1:5000")
        kato.configure(NODE, dependency("gr2", 5000, Domains="shop"))
        with kato.api() as api:
            status, text = get(f"{api.url}/v1/resources/demo/gr000001/plugin")
            assert status == 200
            assert json.loads(text)["base_services"][0]["options"] == {"Domains": "shop"}
            assert get(f"{api.url}/v1/resources/demo/gr9/plugin")[0] == 404
            status, text = get(f"{api.url}/v1/registration/{ME}_gr2_5000")
            assert json.loads(text)["hosts"] == [{"ip_address": "10.0.0.1", "port": 5000, "tags": {}}]
            assert json.loads(get(f"{api.url}/v1/registration/none")[1]) == {"hosts": []}
            assert get(f"{api.url}/v1/routes/a/b/c") == (200, "")
            assert get(f"{api.url}/other")[0] == 404

    def test_the_sidecars_admin_page_keeps_its_last_state(self, kato):
        with kato.sidecar(NODE) as admin:
            assert get(f"{admin.url}/ready") == (503, "PRE_INITIALIZING\n")
            kato.serve("gr2", 5000, "10.0.0.1:5000")
            kato.configure(NODE, dependency("gr2", 5000), inbound(8000, 65301))
            kato.kill()
            assert get(f"{admin.url}/ready") == (200, "LIVE\n")
            assert get(f"{admin.url}/listeners")[1].splitlines() == [
                f"{ME}_5000::127.0.0.1:5000",
                f"{ME}_http_80::127.0.0.1:80",
                f"{ME}_8000::0.0.0.0:65301",
            ]
            assert get(f"{admin.url}/stats")[0] == 404

    def test_a_page_has_a_port_while_it_serves(self, kato):
        with pytest.raises(RuntimeError, match="before it serves"):
            _ = kato.api().address


class TestMesh(MeshCases):
    def test_each_streams_first_request_has_no_version_and_all_have_our_name(self, kato, ready):
        kato.drop_streams()
        kato.wait_for(lambda: len({each.stream for each in kato.requests}) == 6, timeout=20)
        first = {}
        for request in kato.requests:
            first.setdefault(request.stream, request)
        assert {(each.version, each.nonce) for each in first.values()} == {("", "")}
        assert {each.node.cluster for each in kato.requests} == {NODE}
        assert {each.kind for each in first.values()} == {"listener", "cluster", "endpoint"}

    def test_a_refusal_backs_off(self, kato, ready):
        """1.4: it ignores refusals, and answers one that repeats an older version at once."""
        version = kato.version(NODE)
        kato.wait_for_ack("endpoint", version, timeout=20)
        before = len(kato.requests)
        kato.send_bytes(self.bad_cluster(), "cluster")
        kato.wait_for_request("cluster", lambda each: each.is_nack, after=before, timeout=20)
        kato.serve("gr2", 5000, "10.0.0.1:1")
        kato.wait_for_ack("cluster", kato.version(NODE), timeout=20)
        assert len([each for each in kato.requests if each.is_nack]) == 1

    def bad_cluster(self):
        from tests.support.v2_client import RESPONSE

        response = RESPONSE(
            version_info="version_9", nonce="9", type_url="type.googleapis.com/envoy.api.v2.Cluster"
        )
        response.resources.add(type_url=response.type_url, value=b"\xff")
        return response.SerializeToString()

    def test_bytes_that_are_no_answer(self, kato, ready):
        """SW-20"""
        watch = Watch(ready)
        kato.send_bytes(b"\xff\xff\xff", "cluster")
        watch.until(lambda: "no DiscoveryResponse" in told(ready).last_error)
        assert self.names(ready, self.URL) == ["v1"]

    def test_the_agent_is_away_at_the_start(self, kato, upstream, make_mesh):
        kato.stop()
        mesh = make_mesh(config(kato))
        with meshlib.Client(mesh=mesh) as client, pytest.raises(meshlib.MeshError):
            client.get(self.URL)
        kato.serve("gr2", 5000, upstream("v1").address)
        kato.configure(NODE, dependency("gr2", 5000, Domains="shop"))
        kato.start()
        mesh.wait_ready("shop", timeout=10)
        assert self.names(mesh, self.URL) == ["v1"]

    def test_the_last_good_state_of_an_earlier_process(self, kato, shop, make_mesh, tmp_path):
        kept = str(tmp_path / "last-good.bin")
        first = make_mesh(config(kato, last_good=kept))
        first.wait_ready("shop", timeout=10)
        said((tmp_path / "last-good.bin").exists, "the file of the last good state")
        first.close()
        kato.kill()
        second = make_mesh(config(kato, last_good=kept))
        second.wait_ready("shop", timeout=10)
        assert self.names(second, self.URL, "http://127.0.0.1:5000/") == ["v1", "v1"]
