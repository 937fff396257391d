from __future__ import annotations

import json
import os

import pytest

from meshlib.errors import ConfigError
from meshlib.model.snapshot import Part
from meshlib.sources import file as file_module
from meshlib.sources.file import FileSource, Watched
from meshlib.testing import build
from tests.support.sources_kit import Bench

OLD = 1_000_000_000  # a time long ago, in nanoseconds: a file that has settled


def settle(path, stamp=OLD):
    os.utime(path, ns=(stamp, stamp))


def envoy(*names):
    """A file in Envoy's shape, with a cluster of each name."""
    clusters = [build.without_type(build.cluster(name, ["127.0.0.1:1"])) for name in names]
    return json.dumps({"clusters": clusters})


class TestWatched:
    def test_the_first_look_counts_as_an_edit_and_the_second_does_not(self, tmp_path):
        path = tmp_path / "a"
        path.write_text("one")
        watched = Watched(str(path))
        assert watched.edited()
        assert not watched.edited()

    def test_other_bytes_are_an_edit(self, tmp_path):
        path = tmp_path / "a"
        path.write_text("one")
        watched = Watched(str(path))
        watched.edited()
        path.write_text("two")
        assert watched.edited()
        assert not watched.edited()

    def test_the_same_bytes_written_again_are_none(self, tmp_path):
        path = tmp_path / "a"
        path.write_text("one")
        watched = Watched(str(path))
        watched.edited()
        path.write_text("one")
        settle(path, OLD + 1)
        assert not watched.edited()

    def test_two_edits_within_one_tick_of_the_file_systems_clock_are_seen(self, tmp_path):
        path = tmp_path / "a"
        path.write_text("one")
        stat = path.stat()
        watched = Watched(str(path))
        watched.edited()
        path.write_text("two")
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        assert watched.edited()

    def test_a_settled_file_is_not_read_again(self, tmp_path, monkeypatch):
        path = tmp_path / "a"
        path.write_text("one")
        settle(path)
        watched = Watched(str(path))
        watched.edited()
        monkeypatch.setattr(file_module, "open", lambda *_, **__: pytest.fail("read"), raising=False)
        assert not watched.edited()

    def test_replaced_by_rename(self, tmp_path):
        path, other = tmp_path / "a", tmp_path / "b"
        path.write_text("one")
        other.write_text("two")
        settle(path)
        settle(other)
        watched = Watched(str(path))
        watched.edited()
        other.rename(path)
        assert watched.edited()

    def test_gone_and_back_with_the_same_bytes(self, tmp_path):
        path = tmp_path / "a"
        path.write_text("one")
        watched = Watched(str(path))
        watched.edited()
        path.unlink()
        assert watched.edited()
        assert not watched.edited()
        path.write_text("one")
        assert watched.edited()

    def test_a_pipe_is_not_waited_for(self, tmp_path):
        os.mkfifo(tmp_path / "a")
        watched = Watched(str(tmp_path / "a"))
        assert watched.edited()
        assert not watched.edited()


class TestServices:
    def make(self, path, reload=lambda: None, config="", inherited=()):
        return Bench(
            lambda merge, bench: [FileSource(merge, config, str(path) if path else "", reload)], inherited
        )

    def test_it_is_read_at_once(self, tmp_path):
        path = tmp_path / "envoy.json"
        path.write_text(envoy("a"))
        bench = self.make(path)
        assert set(bench.parts["file"].clusters) == {"a"}
        status = bench.status("file")
        assert (status.state, status.server, status.kind) == ("ready", str(path), "file")
        assert status.resources["cluster"] == 1

    def test_an_edit_comes_into_force(self, tmp_path):
        path = tmp_path / "envoy.json"
        path.write_text(envoy("a"))
        bench = self.make(path)
        path.write_text(envoy("a", "b"))
        bench.step(1.0)
        assert set(bench.parts["file"].clusters) == {"a", "b"}

    @pytest.mark.parametrize(
        ("bad", "words"),
        [
            ('{"clusters": [', "envoy.json"),
            ('{"clusters": [{"name": "a", "type": "NOSUCH"}]}', "clusters[0]"),
            ('{"clusters": 5}', "clusters"),
            ("\xff\xfe", "envoy.json"),
        ],
    )
    def test_a_bad_edit_keeps_the_last_good_state_and_says_why(self, tmp_path, bad, words):
        path = tmp_path / "envoy.json"
        path.write_text(envoy("a"))
        bench = self.make(path)
        published = len(bench.published)
        path.write_bytes(bad.encode("latin-1"))
        bench.step(1.0)
        assert len(bench.published) == published
        assert set(bench.parts["file"].clusters) == {"a"}
        status = bench.status("file")
        assert status.state == "stale"
        assert words in status.last_error
        path.write_text(envoy("b"))
        bench.step(1.0)
        assert set(bench.parts["file"].clusters) == {"b"}
        assert (bench.status("file").state, bench.status("file").last_error) == ("ready", "")

    def test_a_file_that_goes_away_keeps_the_last_good_state(self, tmp_path):
        path = tmp_path / "envoy.json"
        path.write_text(envoy("a"))
        bench = self.make(path)
        path.unlink()
        bench.step(1.0)
        assert set(bench.parts["file"].clusters) == {"a"}
        assert bench.status("file").state == "stale"
        assert "cannot be read" in bench.status("file").last_error

    def test_a_pipe_in_its_place_keeps_the_last_good_state_and_is_not_waited_for(self, tmp_path):
        path = tmp_path / "envoy.json"
        path.write_text(envoy("a"))
        bench = self.make(path)
        path.unlink()
        os.mkfifo(path)
        bench.step(1.0)
        assert set(bench.parts["file"].clusters) == {"a"}
        assert bench.status("file").last_error == f"{path}: cannot be read: it is a pipe"

    def test_a_first_file_that_is_wrong_is_an_error_with_every_problem(self, tmp_path):
        path = tmp_path / "envoy.json"
        path.write_text('{"clusters": [{"name": "a", "type": "NOSUCH"}, {"type": "STATIC", "nosuch": 1}]}')
        with pytest.raises(ConfigError) as caught:
            self.make(path)
        text = str(caught.value)
        assert str(path) in text
        assert "clusters[0]" in text
        assert "clusters[1]" in text

    def test_after_a_fork_what_the_parent_had_serves_while_the_file_is_wrong(self, tmp_path):
        path = tmp_path / "envoy.json"
        path.write_text("{")
        left = Part("file", absent=frozenset({"sign"}))
        bench = self.make(path, inherited=[left])
        assert bench.parts["file"] is left
        assert bench.status("file").state == "stale"

    def test_the_path_may_be_changed_or_taken_away(self, tmp_path):
        first, second = tmp_path / "one.json", tmp_path / "two.json"
        first.write_text(envoy("a"))
        second.write_text(envoy("b"))
        bench = self.make(first)
        source = bench.merge.sources[0]
        source.services_from(str(second))
        bench.step()
        assert set(bench.parts["file"].clusters) == {"b"}
        source.services_from("")
        bench.step()
        assert "file" not in bench.parts
        assert bench.merge.statuses() == ()

    def test_without_files_it_is_not_shown(self):
        bench = self.make("")
        assert bench.merge.statuses() == ()
        bench.step(10.0)
        assert bench.published == [()]

    def test_stopped_it_looks_no_more(self, tmp_path):
        path = tmp_path / "envoy.json"
        path.write_text(envoy("a"))
        bench = self.make(path)
        bench.merge.stop()
        path.write_text(envoy("b"))
        bench.step(10.0)
        assert set(bench.parts["file"].clusters) == {"a"}
        bench.start()
        bench.step(1.0)
        assert set(bench.parts["file"].clusters) == {"b"}


class TestConfiguration:
    def test_an_edit_is_taken_up_once(self, tmp_path):
        path = tmp_path / "mesh.toml"
        path.write_text("seed = 1")
        taken = []
        bench = TestServices().make("", lambda: taken.append(path.read_text()), config=str(path))
        bench.step(5.0)
        assert taken == ["seed = 1"], "it may have been another when the mesh was made"
        path.write_text("seed = 2")
        bench.step(5.0)
        assert taken == ["seed = 1", "seed = 2"]

    def test_a_bad_edit_says_why_until_it_is_corrected(self, tmp_path):
        path = tmp_path / "mesh.toml"
        path.write_text("seed = 1")

        def reload():
            if "bad" in path.read_text():
                raise ConfigError("mesh.toml: services.reviews.timeot: unknown key")

        bench = TestServices().make("", reload, config=str(path))
        assert bench.status("file").state == "ready"
        path.write_text("bad")
        bench.step(1.0)
        assert bench.status("file").state == "stale"
        assert "timeot" in bench.status("file").last_error
        bench.step(30.0)
        assert bench.status("file").state == "stale"
        assert bench.status("file").since == pytest.approx(30.0)
        path.write_text("good")
        bench.step(1.0)
        assert bench.status("file").state == "ready"

    def test_a_pipe_in_its_place_is_not_read(self, tmp_path):
        path = tmp_path / "mesh.toml"
        path.write_text("seed = 1")
        bench = TestServices().make("", lambda: pytest.fail("read"), config=str(path))
        path.unlink()
        os.mkfifo(path)
        bench.step(1.0)
        assert bench.status("file").last_error == f"{path}: cannot be read: it is a pipe"

    def test_both_files_have_their_say(self, tmp_path):
        config, services = tmp_path / "mesh.toml", tmp_path / "envoy.json"
        config.write_text("seed = 1")
        services.write_text(envoy("a"))

        def reload():
            raise ConfigError("wrong config")

        bench = TestServices().make(services, reload, config=str(config))
        config.write_text("seed = 2")
        services.write_text("{")
        bench.step(1.0)
        error = bench.status("file").last_error
        assert "wrong config" in error
        assert str(services) in error
        services.write_text(envoy("b"))
        bench.step(1.0)
        assert set(bench.parts["file"].clusters) == {"b"}
        assert bench.status("file").last_error == "wrong config"
