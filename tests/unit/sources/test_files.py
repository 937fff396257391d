"""Resources in files, as an Envoy has them (`protocol = "files"`)."""

from __future__ import annotations

import json
import os

import pytest

from meshlib.config import XdsConfig
from meshlib.runtime.threads import GiveWay
from meshlib.sources import files as files_module
from meshlib.sources.control_plane import control_plane
from meshlib.sources.file import PERIOD
from meshlib.sources.last_good import SETTLE
from meshlib.testing import build
from meshlib.xds import schema
from meshlib.xds.bootstrap import Bootstrap, Node, Server
from meshlib.xds.discovery import RESPONSE
from meshlib.xds.hosts import clusters_of
from tests.support.envoy_dir import EnvoyDir, by_path, replaced
from tests.support.sources_kit import Bench, XdsBench

#: A text of some lines whose aliases mean more than a million values.
BOMB = "\n".join(
    ["a0: &a0 [x]"] + [f"a{level + 1}: &a{level + 1} [{', '.join([f'*a{level}'] * 9)}]" for level in range(8)]
)
TLS = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
CERTIFICATE, KEY, OTHER_KEY = (
    f"-----BEGIN {label}-----\n{body}\n-----END {label}-----\n"
    for label, body in (("CERTIFICATE", "MAA="), ("PRIVATE KEY", "MAA="), ("PRIVATE KEY", "MAMCAQU="))
)
ADDRESS, OTHER = "127.0.0.1:1001", "127.0.0.1:1002"


class Plane(XdsBench):
    """A bench with the source of a directory."""

    def __init__(self, folder, view="auto", last_good=None):
        config = XdsConfig(protocol="files", path=str(folder), view=view, last_good=last_good)
        bootstrap = Bootstrap((Server(str(folder)),), Node("me", "shop"))
        self.bench = Bench(lambda merge, bench: control_plane(merge, bootstrap, config))

    def look(self, times=1):
        self.bench.step(PERIOD * times)

    def addresses(self, cluster="c1"):
        return self.bench.addresses("xds", cluster)


@pytest.fixture
def files(tmp_path):
    return EnvoyDir(tmp_path)


def ready(files):
    plane = Plane(files.folder)
    plane.want("reviews")
    return plane


class TestReading:
    @pytest.mark.parametrize("form", ["yaml", "yml", "json", "pb"])
    def test_each_form_serves_the_routes_and_endpoints_that_it_names(self, tmp_path, form):
        files = EnvoyDir(tmp_path, form)
        files.fill(ADDRESS)
        plane = ready(files)
        assert plane.status.state == "ready"
        assert list(plane.part.targets) == ["reviews"]
        assert plane.addresses() == [ADDRESS]
        assert plane.status.waiting == ()

    def test_a_name_that_no_file_has_is_absent_at_once(self, files):
        files.fill(ADDRESS)
        plane = ready(files)
        plane.want("ratings")
        assert "lds.yaml has none of this name" in plane.part.absent["ratings"].why

    def test_others_may_run_between_two_files(self, files, monkeypatch):
        given = []
        monkeypatch.setattr(GiveWay, "__call__", lambda _: given.append(len(read)))
        read = []
        content = files_module._content
        monkeypatch.setattr(files_module, "_content", lambda path: read.append(path) or content(path))
        files.fill(ADDRESS)
        ready(files)
        assert len(read) == 4
        assert {0, 1, 2, 3} <= set(given)

    def test_socket_listeners_are_of_the_sidecar_view(self, files):
        files.put("cds", build.cluster("c1", [ADDRESS]))
        host = build.virtual_host("v", build.route("/", cluster="c1"), domains=["*"])
        files.put("lds", build.listener("in", build.route_config("r", host), address="127.0.0.1:1"))
        plane = Plane(files.folder)
        assert [each.name for each in plane.part.sidecar] == ["in"]

    def test_the_deprecated_path(self, files):
        files.fill(ADDRESS)
        cluster = build.cluster("c1", eds_cluster_config={"eds_config": {"path": str(files.path("eds"))}})
        files.put("cds", cluster)
        assert ready(files).addresses() == [ADDRESS]

    def test_a_relative_path_is_one_from_the_working_directory(self, files, monkeypatch):
        files.fill(ADDRESS)
        monkeypatch.chdir(files.folder)
        cluster = build.cluster(
            "c1", eds_cluster_config={"eds_config": {"path_config_source": {"path": "eds.yaml"}}}
        )
        files.put("cds", cluster)
        assert ready(files).addresses() == [ADDRESS]

    def test_resources_in_wrappers(self, files):
        files.fill(ADDRESS)
        inner = files.api("inner", "r")
        files.put(
            "lds", build.any_of("envoy.service.discovery.v3.Resource", {"name": "reviews", "resource": inner})
        )
        assert list(ready(files).part.targets) == ["reviews"]

    def test_a_field_that_nobody_knows_is_reported_with_its_place(self, files):
        files.fill(ADDRESS)
        cluster = files.eds("c1")
        files.put("cds", {**cluster, "of_a_later_envoy": 1})
        plane = ready(files)
        assert plane.addresses() == [ADDRESS]
        (told,) = [each for each in plane.status.ignored if "of_a_later_envoy" in each.field]
        assert told.field.startswith(f"{files.path('cds')}:")

    def test_nobody_to_ask_for_what_is_to_come_by_ads(self, files):
        files.fill(ADDRESS)
        files.put("lds", build.api_listener("reviews", "r"))
        plane = ready(files)
        assert "no path is given for route configuration 'r'" in plane.part.absent["reviews"].why

    def test_two_paths_for_one_name_are_refused(self, files):
        files.fill(ADDRESS)
        files.put("lds", files.api("reviews", "r"), files.api("ratings", "r", file="other"))
        assert "route configuration 'r' is to come from" in ready(files).status.last_error


class TestChanges:
    def test_a_file_that_is_moved_into_its_place_is_in_force_at_the_next_look(self, files):
        files.fill(ADDRESS)
        plane = ready(files)
        files.put("eds", build.endpoints("c1", OTHER))
        plane.look()
        assert plane.addresses() == [OTHER]

    def test_a_swap_of_the_link_that_a_config_map_is_behind(self, tmp_path):
        """`..data` leads to the newest of them, and each file to one in it."""
        for version, address in (("..1", ADDRESS), ("..2", OTHER)):
            (tmp_path / version).mkdir()
            EnvoyDir(tmp_path / version).put("eds", build.endpoints("c1", address))
        (tmp_path / "..data").symlink_to("..1")
        (tmp_path / "eds.yaml").symlink_to("..data/eds.yaml")
        files = EnvoyDir(tmp_path)
        host = build.virtual_host("reviews", build.route("/", cluster="c1"), domains=["*"])
        files.put("rds", build.route_config("r", host))
        files.put("cds", files.eds("c1"))
        files.put("lds", files.api("reviews", "r", watched_directory={"path": str(tmp_path)}))
        plane = ready(files)
        assert plane.addresses() == [ADDRESS]
        (tmp_path / "..new").symlink_to("..2")
        (tmp_path / "..new").replace(tmp_path / "..data")
        plane.look()
        assert plane.addresses() == [OTHER]

    def test_what_is_written_in_place_is_read_once_it_is_quiet(self, files):
        files.fill(ADDRESS)
        plane = ready(files)
        whole = files.text({"resources": [build.endpoints("c1", OTHER)]})
        files.path("eds").write_text(whole[: len(whole) // 2])
        plane.look()
        files.path("eds").write_text(whole)
        plane.look()
        assert plane.addresses() == [ADDRESS]
        assert plane.status.state == "ready"
        plane.look()
        assert plane.addresses() == [OTHER]

    def test_another_path_for_the_same_routes(self, files):
        files.fill(ADDRESS)
        plane = ready(files)
        host = build.virtual_host("other", build.route("/", cluster="c1"), domains=["*"])
        files.put("second", build.route_config("r", host))
        files.put("lds", files.api("reviews", "r", file="second"))
        plane.look()
        (found,) = plane.part.targets["reviews"].http.routes.virtual_hosts
        assert found.name == "other"

    def test_another_suffix_takes_over(self, files):
        files.fill(ADDRESS)
        plane = ready(files)
        other = EnvoyDir(files.folder, "json")
        other.put("cds", build.cluster("c1", [OTHER]))
        plane.look()
        assert "keep one of them" in plane.status.last_error
        assert plane.addresses() == [ADDRESS]
        files.path("cds").unlink()
        plane.look()
        assert plane.addresses() == [OTHER]
        assert plane.status.state == "ready"

    def test_a_resource_that_is_taken_out_is_gone(self, files):
        files.fill(ADDRESS)
        plane = ready(files)
        files.put("lds")
        plane.look()
        assert plane.part.targets == {}
        assert "lds.yaml has none of this name" in plane.part.absent["reviews"].why

    def test_a_new_cluster_and_the_route_to_it_at_once(self, files):
        files.fill(ADDRESS)
        plane = ready(files)
        host = build.virtual_host("reviews", build.route("/", cluster="c2"), domains=["*"])
        files.put("rds", build.route_config("r", host))
        files.put("cds", files.eds("c1"), build.cluster("c2", [OTHER]))
        plane.look()
        (found,) = plane.part.targets["reviews"].http.routes.virtual_hosts
        assert clusters_of(found) == {"c2"}
        assert plane.addresses("c2") == [OTHER]


class TestSecrets:
    """SD-01, SD-03: by ``path_config_source``, as Envoy reads them."""

    def cluster(self, files, *names, field="path_config_source"):
        source = (
            by_path(files.path("sds")) if field == "path_config_source" else {"path": str(files.path("sds"))}
        )
        common = {
            "tls_certificate_sds_secret_configs": [{"name": names[0], "sds_config": source}],
            "validation_context": {"trusted_ca": {"inline_string": CERTIFICATE}},
        }
        if names[1:]:
            del common["validation_context"]
            common["combined_validation_context"] = {
                "default_validation_context": {},
                "validation_context_sds_secret_config": {"name": names[1], "sds_config": source},
            }
        typed = build.any_of(TLS, {"common_tls_context": common})
        return build.cluster("c1", [ADDRESS], transport_socket={"name": "tls", "typed_config": typed})

    def tls(self, plane):
        return plane.part.clusters["c1"].tls

    @pytest.mark.parametrize("field", ["path_config_source", "path"])
    def test_a_pair_and_a_ca(self, files, field):
        files.put("lds")
        files.put("cds", self.cluster(files, "pair", "roots", field=field))
        files.put(
            "sds",
            build.secret("pair", certificate=CERTIFICATE, key=KEY),
            build.secret("roots", ca=CERTIFICATE),
        )
        plane = Plane(files.folder, "sidecar")
        assert (self.tls(plane).closed, plane.status.state) == ("", "ready")
        assert self.tls(plane).certificate.key.data.decode() == KEY
        assert self.tls(plane).validation.roots.data.decode() == CERTIFICATE

    def test_a_rotation_and_a_bad_one(self, files):
        files.put("lds")
        files.put("cds", self.cluster(files, "pair"))
        files.put("sds", build.secret("pair", certificate=CERTIFICATE, key=KEY))
        plane = Plane(files.folder, "sidecar")
        files.put("sds", build.secret("pair", certificate=CERTIFICATE, key=OTHER_KEY))
        plane.look()
        assert self.tls(plane).certificate.key.data.decode() == OTHER_KEY
        files.put("sds", build.secret("pair", certificate=CERTIFICATE, key="no PEM"))
        plane.look()
        assert self.tls(plane).certificate.key.data.decode() == OTHER_KEY
        assert [each.resource for each in plane.status.rejected] == ["pair"]
        replaced(files.path("sds"), "{")
        plane.look()
        assert self.tls(plane).certificate.key.data.decode() == OTHER_KEY
        assert "sds" in plane.status.last_error

    def test_of_endpoints_by_their_labels(self, files):
        cluster = self.cluster(files, "pair")
        socket = cluster.pop("transport_socket")
        cluster["transport_socket_matches"] = [{"name": "m", "match": {}, "transport_socket": socket}]
        files.put("lds")
        files.put("cds", cluster)
        files.put("sds", build.secret("pair", certificate=CERTIFICATE, key=KEY))
        [match] = Plane(files.folder, "sidecar").part.clusters["c1"].tls_matches
        assert match.tls.certificate.key.data.decode() == KEY

    def test_one_that_no_file_has_closes_the_cluster_at_once(self, files):
        files.put("lds")
        files.put("cds", self.cluster(files, "pair"))
        files.put("sds", build.secret("other", certificate=CERTIFICATE, key=KEY))
        closed = self.tls(Plane(files.folder, "sidecar")).closed
        assert closed.startswith("secret 'pair' ")
        assert "has no secret 'pair'" in closed


class TestWrongFiles:
    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("resources: [", "line 1"),
            ("", "is empty"),
            ("{}", "is empty"),
            ("- a\n", "must be a table"),
            ("resources: 5\n", "must be a mapping"),
            ("resources:\n- '@type': 5\n", "eds.yaml:2:3"),
            ("resources:\n- '@type': type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment\n  endpoints: x\n", "eds.yaml:3"),
            (BOMB, "aliases"),
            ("resources: " + "[" * 5000 + "]" * 5000, "nested too deep"),
            ("x: !!python/object/apply:os.system ['true']\n", ""),
        ],
    )  # fmt: skip
    def test_what_is_good_stays_and_the_file_is_named(self, files, text, words):
        files.fill(ADDRESS)
        plane = ready(files)
        replaced(files.path("eds"), text)
        plane.look()
        if words:
            assert plane.status.state == "stale"
            assert str(files.path("eds")) in plane.status.last_error
            assert words in plane.status.last_error
        assert plane.addresses() == [ADDRESS]
        files.put("eds", build.endpoints("c1", OTHER))
        plane.look()
        assert plane.addresses() == [OTHER]
        assert (plane.status.state, plane.status.last_error) == ("ready", "")

    @pytest.mark.parametrize(
        ("data", "words"), [(b"\xff\xff\xff", "no DiscoveryResponse"), (b"", "is empty"), (b"\0" * (16 * 2**20 + 1), "larger")]
    )  # fmt: skip
    def test_binary(self, tmp_path, data, words):
        files = EnvoyDir(tmp_path, "pb")
        files.fill(ADDRESS)
        plane = ready(files)
        replaced(files.path("eds"), data)
        plane.look()
        assert words in plane.status.last_error
        assert plane.addresses() == [ADDRESS]

    def test_wrappers_in_wrappers_without_end(self, tmp_path, caplog):
        """As on a stream one is opened, and what is in it has no name."""
        files = EnvoyDir(tmp_path, "pb")
        files.fill(ADDRESS)
        plane = ready(files)
        wrapper = build.any_of("envoy.service.discovery.v3.Resource", {})
        packed = schema.from_json("google.protobuf.Any", wrapper)
        for _ in range(3000):
            outer = schema.message("envoy.service.discovery.v3.Resource")()
            outer.resource.CopyFrom(packed)
            packed.value = outer.SerializeToString()
        response = schema.message(RESPONSE)(version_info="2")
        response.resources.append(packed)
        replaced(files.path("eds"), response.SerializeToString())
        plane.look()
        assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []
        assert plane.addresses() == [ADDRESS]
        files.put("eds", build.endpoints("c1", OTHER))
        plane.look()
        assert plane.addresses() == [OTHER]

    def test_json_that_is_nested_without_end(self, tmp_path):
        files = EnvoyDir(tmp_path, "json")
        files.fill(ADDRESS)
        plane = ready(files)
        replaced(files.path("cds"), '{"resources":' * 100_000)
        plane.look()
        assert "nested too deeply" in plane.status.last_error

    def test_of_a_key_that_is_there_twice_the_last_holds(self, tmp_path):
        """As in Envoy's JSON."""
        files = EnvoyDir(tmp_path, "json")
        files.fill(ADDRESS)
        cluster = json.dumps(files.eds("c1")).replace('"name":', '"name": "first", "name":', 1)
        replaced(files.path("cds"), f'{{"resources": [{cluster}]}}')
        plane = ready(files)
        assert list(plane.part.clusters) == ["c1"]
        assert plane.addresses() == [ADDRESS]

    def test_one_that_goes_away(self, files):
        files.fill(ADDRESS)
        plane = ready(files)
        for name in ("lds", "cds", "rds", "eds"):
            files.path(name).unlink()
        plane.look()
        assert plane.status.state == "stale"
        assert "has none of lds.yaml" in plane.status.last_error
        assert "eds.yaml: cannot be read: No such file" in plane.status.last_error
        assert plane.addresses() == [ADDRESS]

    def test_a_pipe_is_not_waited_for(self, files):
        files.fill(ADDRESS)
        plane = ready(files)
        files.path("eds").unlink()
        os.mkfifo(files.path("eds"))
        plane.look()
        assert "is no file" in plane.status.last_error

    def test_a_directory_that_is_not_there_fails_until_it_is(self, tmp_path):
        files = EnvoyDir(tmp_path / "later")
        plane = ready(files)
        assert plane.status.state == "failed"
        assert plane.part.unreached
        files.folder.mkdir()
        files.fill(ADDRESS)
        plane.look()
        assert plane.status.state == "ready"
        assert plane.addresses() == [ADDRESS]

    def test_routes_whose_file_is_not_there_are_not_waited_for(self, files):
        files.fill(ADDRESS)
        files.path("rds").unlink()
        plane = ready(files)
        assert plane.status.state in ("stale", "failed")
        assert "rds.yaml: cannot be read" in plane.part.unreached

    def test_a_resource_that_is_wrong_is_refused_by_its_name(self, files):
        files.fill(ADDRESS)
        plane = ready(files)
        files.put("cds", {**files.eds("c1"), "connect_timeout": "-1s"})
        plane.look()
        (refused,) = plane.status.rejected
        assert (refused.type, refused.resource) == ("cluster", "c1")
        assert plane.addresses() == [ADDRESS]


class TestStopping:
    def test_no_look_after_it_was_stopped_and_all_of_them_when_it_starts_again(self, files):
        files.fill(ADDRESS)
        plane = ready(files)
        plane.bench.merge.stop()
        files.put("eds", build.endpoints("c1", OTHER))
        plane.look(3)
        assert plane.addresses() == [ADDRESS]
        plane.bench.start()
        assert plane.addresses() == [OTHER]


def test_the_last_good_state_of_files_that_are_gone(files, tmp_path):
    files.fill(ADDRESS)
    kept = str(tmp_path / "kept" / "state.bin")
    plane = Plane(files.folder, last_good=kept)
    plane.want("reviews")
    plane.bench.step(SETTLE)
    keeper = next(source for source in plane.bench.merge.sources if source.kind == "last_good")
    keeper.stop()  # waits for the thread that writes
    plane.bench.step()
    assert plane.bench.status("last_good").state == "ready"
    for name in ("lds", "cds", "eds"):
        files.path(name).unlink()
    again = Plane(files.folder, last_good=kept)
    again.look(2)
    assert list(again.part.targets) == ["reviews"]
    assert again.addresses() == [ADDRESS]
    assert again.bench.status("last_good").state == "stale"
    files.fill(OTHER)
    again.look(3)
    assert again.addresses() == [OTHER]
