from __future__ import annotations

import gc
import json
import threading
from typing import ClassVar

import pytest

import meshlib
from meshlib import mesh as module
from meshlib.config import Config, from_settings
from tests.support.asking import asked
from tests.support.watch import until

REVIEWS = {"endpoints": ["127.0.0.1:8080"]}


@pytest.fixture
def mesh():
    with meshlib.Mesh({"services": {"reviews": REVIEWS}, "node": {"id": "me", "zone": "a"}}) as made:
        yield made


def threads(before=()):
    """Ours, by name, but for those that another test left."""
    now = [thread for thread in threading.enumerate() if thread not in before]
    return [thread.name for thread in now if thread.name.startswith("meshlib")]


class TestMaking:
    def test_from_a_mapping_a_config_a_path_and_the_environment(self, tmp_path, monkeypatch):
        path = tmp_path / "mesh.toml"
        path.write_text('[services.reviews]\nendpoints = ["127.0.0.1:8080"]\n')
        mapping = {"services": {"reviews": REVIEWS}}
        for argument in (mapping, Config.from_mapping(mapping), str(path), path):
            with meshlib.Mesh(argument) as made:
                assert made.explain("GET", "http://reviews/").endpoint == "127.0.0.1:8080"
        monkeypatch.setenv("MESHLIB_CONFIG", str(path))
        with meshlib.Mesh() as made:
            assert made.explain("GET", "http://reviews/").endpoint == "127.0.0.1:8080"

    def test_it_starts_nothing(self):
        before = threading.enumerate()
        made = meshlib.Mesh({"services": {"a": {"dns": "localhost:1"}}, "xds": {"server": "127.0.0.1:1"}})
        assert threads(before) == []
        assert made.status().process.started is False
        assert "not started" in repr(made)

    @pytest.mark.parametrize(
        ("config", "words"),
        [
            ({"servces": {}}, "servces"),
            ({"services": {"reviews": {"timeot": 1}}}, "services.reviews.timeot"),
            ({"xds": {"server": "https://host:1"}}, "xds.server"),
            ({"services": {"reviews": {"endpoints": ["127.0.0.1"]}}}, "services.reviews.endpoints"),
        ],
    )
    def test_a_wrong_key_or_value_is_named(self, config, words):
        with pytest.raises(meshlib.ConfigError, match=words):
            meshlib.Mesh(config)

    def test_what_is_no_configuration(self):
        with pytest.raises(meshlib.ConfigError, match="int"):
            meshlib.Mesh(5)  # type: ignore[arg-type]


class TestExplain:
    def test_a_service(self, mesh):
        decision = mesh.explain("get", "http://reviews/api?x=1", headers={"X-A": "1"})
        assert (decision.via, decision.listener, decision.cluster) == ("mesh", "reviews", "reviews")
        assert (decision.method, decision.authority, decision.path) == ("GET", "reviews", "/api?x=1")
        assert decision.headers["x-a"] == "1"
        assert decision.timeout is None
        assert decision.retry is None
        assert decision.trace()
        json.dumps(decision.to_dict())

    def test_a_host_that_nothing_knows(self, mesh):
        decision = mesh.explain("GET", "http://example.test/")
        assert decision.via == "direct"
        assert any("example.test" in line for line in decision.trace())

    def test_the_host_header_counts(self, mesh):
        decision = mesh.explain("GET", "http://reviews/", headers=[("Host", "other")])
        assert decision.authority == "other"
        assert "host" not in decision.headers

    def test_it_counts_nothing(self, mesh):
        for _ in range(5):
            mesh.explain("GET", "http://reviews/")
        assert mesh.status().clusters["reviews"].active == 0

    @pytest.mark.parametrize(
        "url", ["/path", "reviews", "ftp://reviews/", "http://", "http://[::1/", "http://a:99999/"]
    )
    def test_what_is_no_url(self, mesh, url):
        with pytest.raises(ValueError, match=r"must be|Invalid|invalid|Port"):
            mesh.explain("GET", url)


class TestStatus:
    def test_before_and_after_the_first_use(self):
        with meshlib.Mesh({"services": {"reviews": REVIEWS}, "node": {"id": "me", "zone": "z"}}) as made:
            before = made.status()
            assert before.sources == ()
            assert before.clusters == {}
            made.snapshot()
            after = made.status()
        assert after.process.started
        assert not after.process.forked
        assert (after.node["id"], after.node["locality"]) == ("me", "z")
        assert [source.name for source in after.sources] == ["static"]
        assert after.clusters["reviews"].endpoints[0].address == "127.0.0.1:8080"
        assert after.sidecar.kind == "none"
        json.dumps(after.to_dict())

    def test_the_node_has_the_host_name_without_an_id(self):
        import socket

        assert meshlib.Mesh({}).status().node["id"] == socket.gethostname()

    def test_the_node_of_a_bootstrap_that_cannot_be_read(self, tmp_path):
        made = meshlib.Mesh({"xds": {"bootstrap": str(tmp_path / "nosuch")}, "node": {"id": "me"}})
        assert made.status().node["id"] == "me"

    def test_a_snapshot_is_json_ready(self, mesh):
        snapshot = mesh.snapshot()
        assert set(snapshot.clusters) == {"reviews"}
        json.dumps(snapshot.to_dict())


class TestWaitReady:
    def test_what_can_be_called_is_not_waited_for(self, mesh):
        mesh.wait_ready("reviews", timeout=0)
        mesh.wait_ready("reviews:80", "REVIEWS", timeout=0)
        mesh.wait_ready(timeout=0)

    def test_a_name_that_can_never_come_is_told_at_once(self, mesh):
        with pytest.raises(meshlib.NotReady) as caught:
            mesh.wait_ready("reviews", "nosuch", timeout=60)
        assert list(caught.value.missing) == ["nosuch"]
        assert "nosuch: no service of the configuration" in str(caught.value)

    def test_nobody_to_call(self):
        with (
            meshlib.Mesh({"services": {"reviews": {"endpoints": []}}}) as made,
            pytest.raises(meshlib.NotReady, match="no healthy endpoint in cluster 'reviews'"),
        ):
            made.wait_ready("reviews", timeout=0)

    def test_routes_that_lead_nowhere(self):
        with (
            meshlib.Mesh({"services": {"reviews": {"routes": [{"service": "nosuch"}]}}}) as made,
            pytest.raises(meshlib.NotReady, match="not there: 'nosuch', which is not known"),
        ):
            made.wait_ready("reviews", timeout=0)

    def test_one_route_of_two_that_leads_nowhere_does_not_keep_the_other(self):
        services = {"reviews": {**REVIEWS, "routes": [{"match": {"prefix": "/x"}, "service": "nosuch"}]}}
        with meshlib.Mesh({"services": services}) as made:
            made.wait_ready("reviews", timeout=0)

    def test_a_service_that_only_answers_by_itself(self):
        with meshlib.Mesh({"services": {"ping": {"routes": [{"response": {"status": 200}}]}}}) as made:
            made.wait_ready("ping", timeout=0)

    def test_plain_hosts_are_ready(self):
        with meshlib.Mesh({"bypass": ["plain"]}) as made:
            made.wait_ready("plain", timeout=0)

    @pytest.mark.parametrize("name", ["http://reviews", "", "reviews:http", "a/b"])
    def test_what_is_no_name(self, mesh, name):
        with pytest.raises(ValueError, match=r"host|port"):
            mesh.wait_ready(name)


class TestDisabled:
    CONFIG: ClassVar = {"services": {"reviews": REVIEWS}, "xds": {"server": "127.0.0.1:1"}}

    @pytest.mark.parametrize("given", ["mapping", "path", "variable", "settings"])
    def test_everything_is_plain(self, given, monkeypatch, tmp_path):
        path = tmp_path / "mesh.json"
        path.write_text(json.dumps(self.CONFIG))
        monkeypatch.setenv("MESHLIB_DISABLED", "1")
        if given == "variable":
            monkeypatch.setenv("MESHLIB_CONFIG", str(path))
        config = {"mapping": self.CONFIG, "path": path, "settings": from_settings(self.CONFIG, "settings")}
        with meshlib.Mesh(config.get(given)) as made:
            assert made.explain("GET", "http://reviews/").via == "direct"
            made.wait_ready("reviews", "ratings", timeout=0)
            assert [source.kind for source in made.status().sources] == ["static"]
            assert made._runtime().wait_known("http", "ratings", None, "ratings", 5.0).via == "direct"

    def test_a_config_depends_on_nothing_outside(self, monkeypatch):
        monkeypatch.setenv("MESHLIB_DISABLED", "1")
        with meshlib.Mesh(meshlib.Config.from_mapping({"services": {"reviews": REVIEWS}})) as made:
            assert made.explain("GET", "http://reviews/").via == "mesh"

    def test_unknown_hosts_may_be_refused(self):
        with meshlib.Mesh({"unknown_hosts": "refuse", "services": {"reviews": REVIEWS}}) as made:
            runtime = made._runtime()
            assert runtime.view.resolve("http", "reviews", None, "reviews").via == "mesh"
            assert runtime.view.resolve("http", "nosuch", None, "nosuch").via == "refused"


class TestItsFile:
    @pytest.fixture
    def path(self, tmp_path):
        made = tmp_path / "mesh.toml"
        made.write_text('[services.reviews]\nendpoints = ["127.0.0.1:8080"]\n')
        return made

    def test_what_is_edited_before_the_first_use_takes_effect(self, path):
        with meshlib.Mesh(path) as made:
            path.write_text(path.read_text().replace("8080", "8081"))
            until(made, lambda: made.explain("GET", "http://reviews/").endpoint == "127.0.0.1:8081")

    def test_read_again_it_changes_nothing_that_it_said_already(self, path, monkeypatch):
        again, reload = threading.Event(), module.reload
        monkeypatch.setattr(module, "reload", lambda config: (again.set(), reload(config))[1])
        with meshlib.Mesh(path) as made:
            view = made._runtime().view
            assert again.wait(20)
            made._runtime().worker.call(bool, 20.0)  # after that turn of it
            assert made._runtime().view is view


class TestClosing:
    @pytest.fixture(autouse=True)
    def _alone(self):
        """The worker is the process's: it runs on for a mesh that another test left to the collector, which tells nobody."""
        gc.collect()
        assert asked(lambda: "meshlib-worker" not in threads())

    def test_it_ends_what_runs(self):
        before = threading.enumerate()
        made = meshlib.Mesh({"services": {"reviews": REVIEWS}})
        made.snapshot()
        assert threads(before) == ["meshlib-worker"]
        made.close()
        made.close()
        assert asked(lambda: threads(before) == [])
        assert made.closed
        with pytest.raises(RuntimeError, match="closed"):
            made.snapshot()
        assert made.status().process.started is False

    def test_one_that_was_dropped_without_being_closed_ends_too(self):
        before = threading.enumerate()
        made = meshlib.Mesh({"services": {"reviews": REVIEWS}})
        made.snapshot()
        (thread,) = [
            each for each in threading.enumerate() if each not in before and each.name == "meshlib-worker"
        ]
        del made
        gc.collect()
        thread.join(10.0)
        assert asked(lambda: threads(before) == [])

    def test_before_it_was_used(self):
        before = threading.enumerate()
        made = meshlib.Mesh({})
        made.close()
        assert asked(lambda: threads(before) == [])

    async def test_async_with(self):
        async with meshlib.Mesh({"services": {"reviews": REVIEWS}}) as made:
            assert made.explain("GET", "http://reviews/").via == "mesh"
        assert made.closed

    def test_a_seed_makes_what_is_drawn_repeatable(self):
        draws = []
        for _ in range(2):
            with meshlib.Mesh({"seed": 7}) as made:
                draws.append([made._runtime().random() for _ in range(5)])
        assert draws[0] == draws[1]


class TestDefault:
    @pytest.fixture(autouse=True)
    def _fresh(self, monkeypatch):
        monkeypatch.setattr(module, "_default", None)

    def test_there_is_one(self, monkeypatch):
        monkeypatch.setenv("MESHLIB_NODE_ID", "from-the-environment")
        before = threading.enumerate()
        made = meshlib.default()
        assert meshlib.default() is made
        assert made.status().node["id"] == "from-the-environment"
        assert threads(before) == []

    def test_many_threads_get_the_same(self):
        barrier, found = threading.Barrier(8), []

        def use():
            barrier.wait(5.0)
            found.append(meshlib.default())

        workers = [threading.Thread(target=use) for _ in range(8)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(10.0)
        assert len(found) == 8
        assert len(set(map(id, found))) == 1

    def test_closed_it_is_made_anew(self):
        made = meshlib.default()
        made.close()
        assert meshlib.default() is not made

    def test_a_wrong_environment_is_an_error_each_time(self, monkeypatch):
        monkeypatch.setenv("MESHLIB_XDS_SERVER", "https://wrong")
        for _ in range(2):
            with pytest.raises(meshlib.ConfigError, match="MESHLIB_XDS_SERVER"):
                meshlib.default()


class TestObservers:
    def test_they_hear_of_changes_and_cannot_break_anything(self, caplog):
        heard = []

        def observe(event):
            heard.append(type(event).__name__)
            raise ZeroDivisionError

        with meshlib.Mesh({"services": {"reviews": REVIEWS}}) as made:
            made._observe(observe)
            runtime = made._runtime()
            runtime.worker.call(lambda: runtime.publish(runtime.store.snapshot.parts), 5.0)
            assert "ConfigurationChanged" in heard
            assert made.explain("GET", "http://reviews/").via == "mesh"
        assert "observer failed" in caplog.text


class TestTelemetry:
    def test_first_calls_that_come_at_once_wait_for_it(self, monkeypatch):
        """Or the second would go out without a span, while the first still loads what makes them."""
        contended = threading.Event()

        class Telling:
            """A lock that tells when a thread finds it taken."""

            def __init__(self):
                self._lock = threading.RLock()

            def __enter__(self):
                if not self._lock.acquire(blocking=False):
                    contended.set()
                    self._lock.acquire()

            def __exit__(self, *exception):
                self._lock.release()

        lock, made, seen = Telling(), [], []
        with meshlib.Mesh({}) as mesh:
            monkeypatch.setattr(mesh._looking, "get", lambda: lock)
            monkeypatch.setattr(mesh._lookout, "look", lambda: True)
            monkeypatch.setattr(type(mesh._lookout), "possible", staticmethod(lambda: True))

            def make():
                second.start()
                assert contended.wait(10)
                made.append("telemetry")

            monkeypatch.setattr(mesh, "_make_telemetry", make)
            second = threading.Thread(target=lambda: (mesh._runtime(), seen.extend(made)))
            mesh._runtime()
            second.join()
        assert made == seen == ["telemetry"]


@pytest.mark.parametrize(("told", "zones"), [({"zone_aware": {}}, {"a"}), ({}, {"a", "b"})])
def test_calls_stay_in_our_zone_where_a_service_says_so(told, zones):
    spots = [{"address": f"10.0.0.{number}:80", "zone": "ab"[number % 2]} for number in range(6)]
    service = {"endpoints": spots, "balancer": "random", **told}
    with meshlib.Mesh({"node": {"zone": "a"}, "services": {"s": service}}) as mesh:
        zone_of = {spot["address"]: spot["zone"] for spot in spots}
        assert {zone_of[mesh.explain("GET", "http://s/").endpoint] for _ in range(60)} == zones
