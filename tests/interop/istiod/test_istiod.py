"""meshlib against Istio's discovery server and generators, over an in-memory Kubernetes API.

Every scenario runs in both views: ``target``, where the node's metadata say GENERATOR=grpc and Istio makes
api_listeners named ``host:port``; and ``sidecar``, where it makes what an Envoy in a sidecar would get. And by both
protocols, state of the world and delta.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import httpx
import pytest

import meshlib
from tests.interop.support import istio
from tests.interop.support.calling import PATIENCE, calling, calling_async, fits, said
from tests.interop.support.istio import PORT, to
from tests.interop.support.meshes import READY, xds
from tests.support.watch import until

URL = f"http://reviews:{PORT}"


class TestServiceEntry:
    def test_subsets_split_eighty_to_twenty(self, view, istiod, join, reviews):
        istiod.apply(istio.virtual_service("reviews", {"route": to("reviews", v1=80, v2=20)}))
        mesh = join(view, f"reviews:{PORT}")
        with meshlib.Client(mesh=mesh) as client:
            responses = [client.get(f"{URL}/api") for _ in range(1440)]
        names = Counter(response.json()["name"] for response in responses)
        assert set(names) == {"v1", "v2"}
        assert fits(names, "v2", 0.2), names
        info = meshlib.call_info(responses[0])
        name = responses[0].json()["name"]
        assert info.via == "mesh"
        assert info.listener == (f"reviews:{PORT}" if view == "target" else f"0.0.0.0_{PORT}")
        assert info.cluster == f"outbound|{PORT}|{name}|{istio.fqdn('reviews')}"
        assert info.endpoint == reviews[name].address

    async def test_subsets_split_under_tasks(self, view, istiod, join, reviews):
        istiod.apply(istio.virtual_service("reviews", {"route": to("reviews", v1=80, v2=20)}))
        mesh = join(view)
        async with meshlib.AsyncClient(mesh=mesh) as client:

            async def some(count: int) -> list[str]:
                return [(await client.get(URL)).json()["name"] for _ in range(count)]

            batches = await asyncio.gather(*(some(72) for _ in range(20)))
        names = Counter(name for batch in batches for name in batch)
        assert names.total() == 1440
        assert fits(names, "v2", 0.2), names

    def test_without_a_route_of_ours_all_endpoints_take_turns(self, view, istiod, join, reviews):
        mesh = join(view, f"reviews:{PORT}")
        with meshlib.Client(mesh=mesh) as client:
            names = Counter(client.get(URL).json()["name"] for _ in range(40))
        assert names == {"v1": 20, "v2": 20}

    @pytest.mark.parametrize(
        "host", ["reviews", "reviews.default", "reviews.default.svc", istio.fqdn("reviews")]
    )
    def test_every_name_of_a_service(self, view, host, istiod, join, reviews):
        # `reviews.default` is asked for by name only where `xds.domains` has it: it could be any name of DNS.
        mesh = join(view, f"{host}:{PORT}", domains=["<local>", "*.svc", "*.svc.*", "*.default"])
        with meshlib.Client(mesh=mesh) as client:
            response = client.get(f"http://{host}:{PORT}/")
        assert response.json()["name"] in reviews
        assert response.json()["headers"]["host"] == f"{host}:{PORT}"
        assert meshlib.call_info(response).via == "mesh"

    def test_the_scheme_s_port_need_not_be_written(self, view, istiod, join, upstream):
        istiod.apply(istio.service_entry("plain", upstream("p1"), port=80))
        mesh = join(view)
        with meshlib.Client(mesh=mesh) as client:
            response = client.get("http://plain/")
        assert response.json()["name"] == "p1"
        assert meshlib.call_info(response).cluster == f"outbound|80||{istio.fqdn('plain')}"

    def test_clusters_that_never_come_hold_up_nobody_else(self, view, istiod, join, reviews, upstream):
        # A VirtualService without a port is written into the routes of every port, also where its service has none:
        # the routes of port 80 name outbound|80|v1|reviews…, and no such cluster exists.
        istiod.apply(
            istio.virtual_service("reviews", {"route": to("reviews", v1=80, v2=20)}),
            istio.service_entry("plain", upstream("p1"), port=80),
        )
        mesh = join(view, "plain:80", f"reviews:{PORT}")
        with meshlib.Client(mesh=mesh) as client:
            assert client.get("http://plain/").json()["name"] == "p1"
            assert client.get(URL).json()["name"] in reviews

    def test_hosts_outside_the_mesh_are_called_directly(self, view, istiod, join, reviews, upstream):
        outside = upstream("outside")
        mesh = join(view, f"reviews:{PORT}")
        assert mesh.explain("GET", f"http://other.example:{PORT}/", headers={}).via == "direct"
        with meshlib.Client(mesh=mesh) as client:
            response = client.get(f"http://{outside.address}/")
        assert response.json()["name"] == "outside"
        assert meshlib.call_info(response).via == "direct"

    def test_nothing_that_istio_sends_is_refused(self, view, istiod, join, reviews):
        istiod.apply(istio.virtual_service("reviews", {"route": to("reviews", v1=80, v2=20)}))
        mesh = join(view, f"reviews:{PORT}")
        status = until(mesh, lambda: (found := xds(mesh)).state == "ready" and found, PATIENCE)
        assert status.rejected == ()
        assert set(status.versions) == {"listener", "route", "cluster", "endpoint"}
        if view == "sidecar":
            # Istio's own filters (metadata exchange, ALPN) mean nothing to us, and that is told.
            assert any(one.type == "listener" and "filters" in one.field for one in status.ignored)


class TestVirtualService:
    def test_header_match(self, view, istiod, join, reviews):
        istiod.apply(
            istio.virtual_service(
                "reviews",
                {"match": [{"headers": {"x-tier": {"exact": "gold"}}}], "route": to("reviews", v2=100)},
                {"match": [{"headers": {"x-tier": {"prefix": "sil"}}}], "route": to("reviews", v2=100)},
                {"route": to("reviews", v1=100)},
            )
        )
        mesh = join(view, f"reviews:{PORT}")
        with meshlib.Client(mesh=mesh) as client:
            for tier, name in {"gold": "v2", "silver": "v2", "Gold": "v1", "golden": "v1", "": "v1"}.items():
                said = {client.get(URL, headers={"x-tier": tier}).json()["name"] for _ in range(5)}
                assert said == {name}, tier
            assert client.get(URL).json()["name"] == "v1"

    def test_uri_match(self, view, istiod, join, reviews):
        istiod.apply(
            istio.virtual_service(
                "reviews",
                {"match": [{"uri": {"exact": "/one"}}], "route": to("reviews", v2=100)},
                {"match": [{"uri": {"regex": "/n/[0-9]+"}}], "route": to("reviews", v2=100)},
                {"match": [{"queryParams": {"beta": {"exact": "1"}}}], "route": to("reviews", v2=100)},
                {"route": to("reviews", v1=100)},
            )
        )
        mesh = join(view, f"reviews:{PORT}")
        wanted = {
            "/one": "v2",
            "/one/": "v1",
            "/n/12": "v2",
            "/n/12x": "v1",
            "/?beta=1": "v2",
            "/?beta=2": "v1",
        }
        with meshlib.Client(mesh=mesh) as client:
            assert {path: client.get(URL + path).json()["name"] for path in wanted} == wanted

    def test_rewrite(self, view, istiod, join, reviews):
        istiod.apply(
            istio.virtual_service(
                "reviews",
                {
                    "match": [{"uri": {"prefix": "/old/"}}],
                    "rewrite": {"uri": "/new/", "authority": "rewritten.example"},
                    "headers": {"request": {"set": {"x-set": "a"}, "remove": ["x-gone"]}},
                    "route": to("reviews", v1=100),
                },
                {"route": to("reviews", v1=100)},
            )
        )
        mesh = join(view, f"reviews:{PORT}")
        with meshlib.Client(mesh=mesh) as client:
            said = client.get(f"{URL}/old/a/b?q=1", headers={"x-set": "mine", "x-gone": "1"}).json()
            untouched = client.get(f"{URL}/older").json()
        assert said["path"] == "/new/a/b?q=1"
        assert said["headers"]["host"] == "rewritten.example"
        assert said["headers"]["x-set"] == "a"
        assert "x-gone" not in said["headers"]
        assert (untouched["path"], untouched["headers"]["host"]) == ("/older", f"reviews:{PORT}")

    def test_redirect_and_direct_response(self, view, istiod, join, reviews):
        istiod.apply(
            istio.virtual_service(
                "reviews",
                {
                    "match": [{"uri": {"exact": "/moved"}}],
                    "redirect": {"uri": "/here", "authority": "there.example", "redirectCode": 302},
                },
                {
                    "match": [{"uri": {"exact": "/tea"}}],
                    "directResponse": {"status": 418, "body": {"string": "short and stout"}},
                },
                {"route": to("reviews", v1=100)},
            )
        )
        mesh = join(view, f"reviews:{PORT}")
        with meshlib.Client(mesh=mesh) as client:
            moved, tea = client.get(f"{URL}/moved"), client.get(f"{URL}/tea")
        assert (moved.status_code, moved.headers["location"]) == (302, "http://there.example/here")
        assert (tea.status_code, tea.text) == (418, "short and stout")
        assert reviews["v1"].served == 0

    def test_retries(self, view, istiod, join, reviews):
        istiod.apply(
            istio.virtual_service(
                "reviews",
                {
                    "retries": {"attempts": 3, "retryOn": "5xx,connect-failure,reset"},
                    "route": to("reviews", v1=100),
                },
            )
        )
        mesh = join(view, f"reviews:{PORT}")
        with meshlib.Client(mesh=mesh) as client:
            reviews["v1"].fail(503, 500)
            response = client.get(URL)
            info = meshlib.call_info(response)
            assert response.status_code == 200
            assert [(one.number, one.status) for one in info.attempts] == [(1, 503), (2, 500), (3, 200)]
            reviews["v1"].fail(503, 503, 503, 503, 503)
            response = client.get(URL)
            assert response.status_code == 503
            assert len(meshlib.call_info(response).attempts) == 4  # Istio counts the retries, not the calls

    def test_a_try_that_takes_too_long_goes_to_another_endpoint(self, view, istiod, join, reviews):
        istiod.apply(
            istio.virtual_service(
                "reviews",
                {
                    "retries": {"attempts": 2, "perTryTimeout": "0.25s", "retryOn": "5xx"},
                    "timeout": "8s",
                    "route": to("reviews"),
                },
            )
        )
        mesh = join(view, f"reviews:{PORT}")
        with meshlib.Client(mesh=mesh) as client, reviews["v1"].holding():
            responses = [client.get(URL) for _ in range(8)]
        assert {response.json()["name"] for response in responses} == {"v2"}
        attempts = [one for response in responses for one in meshlib.call_info(response).attempts]
        assert {(one.endpoint, one.outcome) for one in attempts} == {
            (reviews["v1"].address, "timeout"),
            (reviews["v2"].address, "ok"),
        }

    def test_timeout(self, view, istiod, join, reviews):
        istiod.apply(
            istio.virtual_service(
                "reviews", {"timeout": "0.4s", "retries": {"attempts": 0}, "route": to("reviews", v1=100)}
            )
        )
        mesh = join(view, f"reviews:{PORT}")
        with meshlib.Client(mesh=mesh, timeout=30) as client, reviews["v1"].holding():
            begun = time.monotonic()
            with pytest.raises(meshlib.DeadlineExceeded) as raised:
                client.get(URL)
            assert 0.3 < time.monotonic() - begun < 3
        assert isinstance(raised.value, httpx.TimeoutException)
        assert raised.value.info.endpoint == reviews["v1"].address
        assert [one.outcome for one in raised.value.info.attempts] == ["timeout"]


class TestKubernetes:
    def test_service_with_endpoint_slices(self, view, istiod, join, upstream):
        found = [upstream(name, f"127.0.0.{number}") for number, name in enumerate("abc", 2)]
        istiod.apply(istio.service("ratings", "10.96.0.10"), istio.destination_rule("ratings"))
        istiod.apply(*(istio.endpoint_slice("ratings", one) for one in found))
        mesh = join(view, f"ratings:{PORT}")
        with meshlib.Client(mesh=mesh) as client:
            names = Counter(client.get(f"http://ratings:{PORT}/").json()["name"] for _ in range(30))
        assert names == {"a": 10, "b": 10, "c": 10}
        endpoints = mesh.status().clusters[f"outbound|{PORT}||{istio.fqdn('ratings')}"].endpoints
        assert {one.address for one in endpoints} == {one.address for one in found}
        assert {one.health for one in endpoints} == {"healthy"}

    def test_endpoints_change_while_calls_go_on(self, view, istiod, join, upstream):
        found = [upstream(name, f"127.0.0.{number}") for number, name in enumerate("abc", 2)]
        slices = {one.name: istio.endpoint_slice("ratings", one) for one in found}
        istiod.apply(istio.service("ratings", "10.96.0.10"), slices["a"], slices["b"])
        mesh = join(view)
        with (
            meshlib.Client(mesh=mesh) as client,
            calling(lambda: client.get(f"http://ratings:{PORT}/")) as calls,
        ):
            calls.only("a", "b")
            istiod.apply(slices["c"])
            calls.only("a", "b", "c", count=60)
            istiod.delete(slices["a"], slices["b"])
            calls.only("c")
            istiod.apply(slices["a"])
            istiod.delete(slices["c"])
            calls.only("a")
        assert calls.failures == []

    def test_a_service_that_comes_while_we_run(self, view, istiod, join, reviews, upstream):
        mesh = join(view, f"reviews:{PORT}")
        late = upstream("late")
        istiod.apply(istio.service("ratings", "10.96.0.10"), istio.endpoint_slice("ratings", late))
        mesh.wait_ready(f"ratings:{PORT}", timeout=READY)
        with meshlib.Client(mesh=mesh) as client:
            assert client.get(f"http://ratings:{PORT}/").json()["name"] == "late"


class TestChanges:
    def test_weights_change_while_calls_go_on(self, view, istiod, join, reviews):
        istiod.apply(istio.virtual_service("reviews", {"route": to("reviews", v1=100, v2=0)}))
        mesh = join(view)
        with meshlib.Client(mesh=mesh) as client, calling(lambda: client.get(URL)) as calls:
            calls.only("v1")
            istiod.apply(istio.virtual_service("reviews", {"route": to("reviews", v1=50, v2=50)}))
            calls.only("v1", "v2")
            istiod.apply(istio.virtual_service("reviews", {"route": to("reviews", v1=0, v2=100)}))
            calls.only("v2")
        assert calls.failures == []

    async def test_weights_and_endpoints_change_under_tasks(self, view, istiod, join, reviews, upstream):
        istiod.apply(istio.virtual_service("reviews", {"route": to("reviews", v1=100)}))
        mesh = join(view)
        v3 = upstream("v3")
        async with meshlib.AsyncClient(mesh=mesh) as client, calling_async(lambda: client.get(URL)) as calls:
            await asyncio.to_thread(calls.only, "v1")
            istiod.apply(istio.virtual_service("reviews", {"route": to("reviews", v2=100)}))
            await asyncio.to_thread(calls.only, "v2")
            istiod.apply(istio.service_entry("reviews", *reviews.values(), v3))
            istiod.apply(istio.destination_rule("reviews", "v1", "v2", "v3"))
            istiod.apply(istio.virtual_service("reviews", {"route": to("reviews", v3=100)}))
            await asyncio.to_thread(calls.only, "v3")
        assert calls.failures == []

    def test_a_virtual_service_comes_and_goes(self, view, istiod, join, reviews):
        mesh = join(view)
        rule = istio.virtual_service("reviews", {"route": to("reviews", v2=100)})
        with meshlib.Client(mesh=mesh) as client, calling(lambda: client.get(URL)) as calls:
            calls.only("v1", "v2")
            istiod.apply(rule)
            calls.only("v2")
            istiod.delete(rule)
            calls.only("v1", "v2")
        assert calls.failures == []


class TestOutage:
    def test_killed_and_restarted_while_calls_go_on(self, view, istiod, join, reviews):
        istiod.apply(istio.virtual_service("reviews", {"route": to("reviews", v1=100)}))
        mesh = join(view)
        with meshlib.Client(mesh=mesh) as client, calling(lambda: client.get(URL)) as calls:
            calls.only("v1")
            istiod.kill()
            until(mesh, lambda: xds(mesh).state == "stale", PATIENCE)
            calls.more(200)
            assert set(calls.names) == {"v1"}
            istiod.start()
            until(mesh, lambda: xds(mesh).state == "ready", PATIENCE)
            calls.more(200)
            assert set(calls.names) == {"v1"}
            istiod.apply(istio.virtual_service("reviews", {"route": to("reviews", v2=100)}))
            calls.only("v2")
        assert calls.failures == []

    def test_changed_while_it_was_away(self, view, istiod, join, reviews, upstream):
        istiod.apply(istio.virtual_service("reviews", {"route": to("reviews", v1=100)}))
        mesh = join(view)
        with meshlib.Client(mesh=mesh) as client, calling(lambda: client.get(URL)) as calls:
            calls.only("v1")
            istiod.kill()
            v3 = upstream("v3")
            istiod.apply(istio.service_entry("reviews", v3), istio.destination_rule("reviews", "v3"))
            istiod.apply(istio.virtual_service("reviews", {"route": to("reviews", v3=100)}))
            istiod.start()
            calls.only("v3")
        assert calls.failures == []

    def test_connection_cut_while_calls_go_on(self, view, istiod, join, reviews):
        istiod.apply(istio.virtual_service("reviews", {"route": to("reviews", v1=100)}))
        mesh = join(view)
        with meshlib.Client(mesh=mesh) as client, calling(lambda: client.get(URL)) as calls:
            calls.only("v1")
            for _ in range(3):
                before = {stream["id"] for stream in istiod.streams()}
                assert istiod.close_connections() >= 1
                said(lambda before=before: {one["id"] for one in istiod.streams()} - before, "a new stream")
                calls.more(50)
            istiod.apply(istio.virtual_service("reviews", {"route": to("reviews", v2=100)}))
            calls.only("v2")
        assert calls.failures == []
