"""The last good state in a file: what is written when, what is done with what is read."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from meshlib.sources import last_good
from meshlib.sources.last_good import PERIOD, RETRY, SETTLE, LastGood
from meshlib.sources.xds_pair import xds_source
from meshlib.testing import build
from meshlib.xds.bootstrap import Bootstrap, Node, Server
from meshlib.xds.last_good import decode
from tests.support.sources_kit import SERVER, ScriptedBench
from tests.support.xds_kit import simple


class Plane(ScriptedBench):
    """A process with one control plane, and what it keeps at ``path``. Streams: the views', as they are opened."""

    def __init__(self, path, *, view="target", node="me", server=SERVER, inherited=()):
        bootstrap = Bootstrap((server,), Node(node, "shop"))

        def build_sources(merge, bench):
            self.keeper = LastGood(merge, str(path), bootstrap)
            return [
                self.keeper,
                xds_source(merge, bootstrap, view, self.open_stream, protocol="sotw", last_good=self.keeper),
            ]

        super().__init__(build_sources, inherited)

    def answer(self, short, *resources, at=-1, **fields):
        super().answer(short, *resources, at=at, version=f"v{self.nonce + 1}", **fields)

    def serve(self, *names, at=-1):
        for short in ("listener", "route", "cluster", "endpoint"):
            self.answer(short, *(simple(name)[short] for name in names), at=at)

    def settle(self, seconds=SETTLE):
        """Let that time pass, and what is to be written be written."""
        self.bench.step(seconds)
        if self.keeper._thread is not None:
            self.keeper._thread.join()
        self.bench.step()

    @property
    def status(self):
        return self.bench.status("last_good")


@pytest.fixture
def path(tmp_path):
    tmp_path.chmod(0o755)
    return tmp_path / "state.bin"


@pytest.fixture
def filled(path):
    """A file that a process left which knew the target ``a``."""
    plane = Plane(path)
    plane.want("a")
    plane.up()
    plane.serve("a")
    plane.settle()
    assert plane.status.state == "ready"
    return path


class TestWriting:
    def test_what_is_in_force_is_written_a_moment_later_for_its_owner_only(self, path):
        plane = Plane(path)
        assert (plane.status.state, plane.status.server) == ("idle", str(path))
        plane.want("a")
        plane.up()
        plane.serve("a")
        assert not path.exists()
        plane.settle()
        assert path.stat().st_mode & 0o777 == 0o600
        held = decode(path.read_bytes())
        assert (held.node, held.server) == ("me", SERVER.uri)
        assert held.views["target"].targets == {"a": "a"}
        assert plane.status.state == "ready"
        assert plane.status.resources == {"listener": 1, "route": 1, "cluster": 1, "endpoint": 1}
        assert plane.status.versions["cluster"] == "v3"
        assert list(path.parent.iterdir()) == [path]

    def test_the_age_is_of_what_was_written(self, path):
        plane = Plane(path)
        plane.want("a")
        plane.up()
        plane.serve("a")
        plane.settle()
        plane.settle(100)
        assert plane.status.since == pytest.approx(100)

    def test_not_before_what_is_there_has_all_that_it_names(self, path):
        """CA-02: what is in force is older until then."""
        plane = Plane(path)
        plane.want("a")
        plane.up()
        plane.serve("a")
        plane.settle()
        before = path.read_bytes()
        other = build.route_config(
            "r-a", build.virtual_host("a", build.route(cluster="other"), domains=["a"])
        )
        plane.answer("route", other)
        plane.settle(PERIOD)
        assert path.read_bytes() == before
        plane.answer("cluster", build.cluster("other"))
        plane.settle(PERIOD)
        assert path.read_bytes() == before
        plane.answer("endpoint", build.endpoints("other", "10.0.0.3:80"))
        plane.settle(PERIOD)
        again = Plane(path)
        assert again.bench.addresses("xds", "other") == ["10.0.0.3:80"]

    def test_a_name_that_nobody_knows_holds_up_nothing(self, path):
        plane = Plane(path)
        plane.want("a", "b")
        plane.up()
        plane.serve("a")
        plane.settle()
        assert decode(path.read_bytes()).views["target"].targets == {"a": "a"}

    def test_ten_updates_a_second_are_one_writing_in_a_period(self, path, monkeypatch):
        written = []
        monkeypatch.setattr(last_good, "write", lambda path, pieces: written.append(b"".join(pieces)))
        plane = Plane(path)
        plane.want("a")
        plane.up()
        plane.serve("a")
        for index in range(100):
            plane.answer("endpoint", build.endpoints("a", f"10.0.0.{index}:80"))
            plane.settle(0.1)
        assert len(written) == 2
        plane.settle(PERIOD)
        assert len(written) == 3
        plane.settle(100)
        assert len(written) == 3

    def test_what_did_not_change_is_not_written_again(self, path, monkeypatch):
        plane = Plane(path)
        plane.want("a")
        plane.up()
        plane.serve("a")
        plane.settle()
        monkeypatch.setattr(last_good, "write", lambda *_: pytest.fail("written"))
        before = path.stat().st_mtime_ns
        plane.answer("endpoint", simple("a")["endpoint"])  # under another version
        plane.settle(PERIOD)
        assert path.stat().st_mtime_ns == before

    def test_what_may_hold_a_secret_is_not_written_and_told(self, path):
        held = {"filter_metadata": {"x": {"api_key": "HUNTER2"}}}
        plane = Plane(path)
        plane.want("a")
        plane.up()
        plane.answer("listener", simple("a")["listener"])
        plane.answer("route", simple("a")["route"])
        plane.answer("cluster", build.cluster("a", metadata=held))
        plane.answer("endpoint", simple("a")["endpoint"])
        plane.settle()
        assert b"HUNTER2" not in path.read_bytes()
        assert "cluster" not in plane.status.resources
        (left,) = plane.status.rejected
        assert (left.type, left.resource) == ("cluster", "a")
        assert "HUNTER2" not in left.problems[0]
        # And a start from it says of the cluster that it lacks, and nothing else.
        again = Plane(path)
        again.end()
        assert "a" in again.part.targets
        assert "a" not in again.part.clusters

    def test_both_views_are_in_one_file(self, path):
        plane = Plane(path, view="auto")
        plane.want("a")
        plane.up(0)
        plane.answer(
            "listener",
            build.listener("web", build.route_config("r", build.virtual_host("v", build.route(cluster="c")))),
            at=0,
        )
        plane.answer("cluster", build.cluster("c"), at=0)
        plane.answer("endpoint", build.endpoints("c", "10.0.0.2:80"), at=0)
        plane.up(1)
        plane.serve("a", at=1)
        plane.settle()
        held = decode(path.read_bytes())
        assert set(held.views) == {"sidecar", "target"}
        assert held.views["sidecar"].listed == {"listener", "cluster"}
        again = Plane(path, view="auto")
        again.bench.step()
        assert [each.name for each in again.part.sidecar] == ["web"]
        assert set(again.part.targets) == {"a"}
        assert again.part.listed
        assert {name: bool(each.assignment) for name, each in again.part.clusters.items()} == {
            "a": True,
            "c": True,
        }

    def test_a_command_reads_and_never_writes(self, filled):
        before = filled.read_bytes()
        plane = Plane(filled)
        assert plane.part.targets["a"]
        plane.bench.merge.only_look()
        plane.up()
        plane.serve("a")
        plane.answer("endpoint", build.endpoints("a", "10.0.0.9:80"))
        plane.settle(PERIOD)
        assert plane.bench.addresses("xds", "a") == ["10.0.0.9:80"]
        assert filled.read_bytes() == before

    def test_a_missing_directory_is_made_for_us_alone(self, tmp_path):
        path = tmp_path / "new" / "state.bin"
        plane = Plane(path)
        plane.want("a")
        plane.up()
        plane.serve("a")
        plane.settle()
        assert path.exists()
        assert path.parent.stat().st_mode & 0o777 == 0o700


class TestTrouble:
    def refused(self, path, caplog=None):
        plane = Plane(path)
        plane.want("a")
        plane.up()
        plane.serve("a")
        plane.settle()
        return plane

    @pytest.mark.parametrize("mode", [0o777, 0o775, 0o757])
    def test_a_directory_that_others_may_write(self, filled, mode):
        filled.parent.chmod(mode)
        plane = self.refused(filled)
        assert plane.status.state == "failed"
        assert "others may write" in plane.status.last_error
        assert plane.part.targets["a"]  # calls go on

    def test_a_sticky_directory(self, filled):
        filled.parent.chmod(0o1777)
        assert self.refused(filled).status.state == "ready"

    def test_one_that_cannot_be_written_is_told_once_and_tried_again(self, path, monkeypatch):
        def full(path, pieces):
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(last_good, "write", full)
            plane = self.refused(path)
            for index in range(3):
                plane.answer("endpoint", build.endpoints("a", f"10.0.0.{index}:80"))
                plane.settle(RETRY)
            told = [change for change in plane.bench.changes if change[0] == "last_good"]
            assert told == [("last_good", "failed", f"{path} cannot be written: No space left on device")]
        plane.settle(RETRY)
        assert plane.status.state == "ready"
        assert path.exists()

    def test_a_directory_that_may_only_be_read(self, path):
        """Root may write everywhere but in a directory of the kernel's."""
        kernels = Path("/proc/self/fd")
        path.parent.chmod(0o555)
        try:
            plane = self.refused(path if os.geteuid() else kernels / "state.bin")
        finally:
            path.parent.chmod(0o755)
        assert plane.status.state == "failed"
        assert "cannot be written" in plane.status.last_error

    def test_a_directory_that_is_a_file(self, tmp_path):
        (tmp_path / "x").write_text("")
        plane = self.refused(tmp_path / "x" / "state.bin")
        assert plane.status.state == "failed"
        assert plane.part.targets["a"]

    def test_a_path_that_is_a_directory(self, path):
        path.mkdir()
        assert self.refused(path).status.state == "failed"
        assert list(path.parent.iterdir()) == [path]  # and no temporary file is left

    def test_what_killed_processes_left_is_taken_away_after_a_while(self, path):
        old, new = path.parent / ".state.bin.abc.tmp", path.parent / ".state.bin.def.tmp"
        other = path.parent / ".other.bin.abc.tmp"
        for each in (old, new, other):
            each.write_text("")
        for each in (old, other):
            os.utime(each, (1, 1))
        self.refused(path)
        assert set(path.parent.iterdir()) == {path, new, other}

    def test_whatever_the_file_is_called(self, tmp_path):
        path = tmp_path / "state[1]*.bin"
        old, other = tmp_path / ".state[1]*.bin.abc.tmp", tmp_path / ".state1.bin.abc.tmp"
        for each in (old, other):
            each.write_text("")
            os.utime(each, (1, 1))
        last_good.write(str(path), [b"it"])
        assert set(tmp_path.iterdir()) == {path, other}


class TestReading:
    def test_a_control_plane_that_is_away_at_the_start(self, filled, caplog):
        """CA-10."""
        plane = Plane(filled)
        assert plane.part.targets["a"].http.routes is not None
        assert plane.part.clusters["a"].assignment is not None
        assert plane.status.state == "stale"
        assert plane.status.resources == {"listener": 1, "route": 1, "cluster": 1, "endpoint": 1}
        with caplog.at_level(logging.WARNING, "meshlib"):
            for _ in range(5):
                plane.end("connection refused")
                plane.bench.step(200)
        said = [record.getMessage() for record in caplog.records if "serves" in record.getMessage()]
        assert len(said) == 1
        assert "connection refused" in said[0]
        assert str(filled) in said[0]
        assert plane.bench.status("xds").state == "stale"
        assert plane.part.targets["a"].http.routes is not None
        assert plane.part.unreached

    def test_nothing_without_a_file(self, path):
        plane = Plane(path)
        plane.want("a")
        plane.end("connection refused")
        assert plane.bench.status("xds").state == "failed"
        assert plane.status.state == "idle"
        assert plane.part.targets == {}

    def test_the_control_plane_says_otherwise(self, filled):
        plane = Plane(filled)
        plane.end("away")
        plane.bench.step(2)
        plane.up()
        plane.answer("listener", simple("a")["listener"])
        plane.answer("route", simple("a")["route"])
        plane.answer("cluster", build.cluster("a"))
        assert plane.bench.addresses("xds", "a") == ["10.0.0.1:80"]
        plane.answer("endpoint", build.endpoints("a", "10.0.0.9:80"))
        assert plane.bench.addresses("xds", "a") == ["10.0.0.9:80"]
        plane.settle()
        assert plane.status.state == "ready"
        again = Plane(filled)
        assert again.bench.addresses("xds", "a") == ["10.0.0.9:80"]

    def test_the_control_plane_has_none_of_it(self, filled):
        plane = Plane(filled)
        plane.up()
        plane.answer("listener")
        assert plane.part.targets == {}
        plane.settle()
        assert decode(filled.read_bytes()).views["target"].targets == {}

    def test_a_control_plane_that_says_nothing_takes_nothing(self, filled):
        plane = Plane(filled)
        plane.up()
        plane.settle(100)
        assert plane.part.targets["a"].http.routes is not None
        assert plane.part.clusters["a"].assignment is not None

    def test_but_where_it_answers_the_other_view_silence_tells(self, path):
        """EX-02: go-control-plane says nothing of a listener that it does not have."""
        plane = Plane(path, view="auto")
        plane.want("a")
        plane.up(0)
        plane.answer("listener", at=0)
        plane.answer("cluster", at=0)
        plane.up(1)
        plane.serve("a", at=1)
        plane.settle()
        again = Plane(path, view="auto")
        again.bench.step()
        again.up(1)
        again.settle(100)
        assert set(again.part.targets) == {"a"}
        again.up(0)
        again.answer("listener", at=0)
        again.answer("cluster", at=0)
        again.settle(16)
        assert again.part.targets == {}
        assert again.status.state == "ready"
        assert decode(path.read_bytes()).views["target"].targets == {}

    def test_what_nobody_wants_any_more_goes_from_the_file(self, filled):
        plane = Plane(filled)
        plane.up()
        plane.serve("a")
        plane.settle()
        plane.bench.merge.forget("a")
        plane.want("b")
        plane.serve("b")
        plane.settle(PERIOD)
        assert decode(filled.read_bytes()).views["target"].targets == {"b": "b"}

    def test_a_child_has_what_its_parent_had(self, filled):
        parent = Plane(filled)
        child = Plane(filled, inherited=parent.bench.published[-1])
        assert child.part.targets["a"] is parent.part.targets["a"]
        assert child.status.state == "idle"  # it did not read the file

    @pytest.mark.parametrize(
        ("more", "words"),
        [
            ({"node": "you"}, "node 'me'"),
            ({"server": Server("127.0.0.1:18001")}, "the control plane '127.0.0.1:18000'"),
        ],
    )
    def test_another_ones_file(self, filled, more, words):
        plane = Plane(filled, **more)
        assert plane.status.state == "failed"
        assert words in plane.status.last_error
        plane.end("away")
        assert plane.part is None or plane.part.targets == {}

    def test_a_damaged_one_is_told_and_written_anew(self, filled):
        data = bytearray(filled.read_bytes())
        data[-1] ^= 1
        filled.write_bytes(data)
        plane = Plane(filled)
        assert plane.status.state == "failed"
        assert "damaged" in plane.status.last_error
        plane.want("a")
        plane.up()
        plane.serve("a")
        plane.settle()
        assert plane.status.state == "ready"
        assert plane.status.last_error == ""
        decode(filled.read_bytes())

    @pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
    def test_one_that_others_may_write(self, filled, mode):
        filled.chmod(mode)
        plane = Plane(filled)
        assert plane.status.state == "failed"
        assert "chmod 600" in plane.status.last_error

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away: run the tests as root")
    def test_one_of_another_user(self, filled):
        os.chown(filled, 12345, -1)
        assert "user 12345" in Plane(filled).status.last_error

    @pytest.mark.skipif(
        os.geteuid() != 0, reason="only root can give a directory away: run the tests as root"
    )
    def test_in_the_directory_of_another_user(self, filled):
        os.chown(filled.parent, 12345, -1)
        assert "user 12345" in Plane(filled).status.last_error

    def test_a_link(self, filled):
        link = filled.parent / "link.bin"
        link.symlink_to(filled)
        assert Plane(link).status.state == "failed"

    def test_a_pipe_is_not_waited_for(self, path):
        os.mkfifo(path, 0o600)
        assert "no file" in Plane(path).status.last_error

    def test_a_socket(self, path):
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            assert Plane(path).status.state == "failed"

    def test_one_that_is_too_large_is_not_read(self, path):
        path.touch(0o600)
        os.truncate(path, 2**40)
        assert "the most are" in Plane(path).status.last_error


class TestProcesses:
    def test_killed_while_it_writes(self, filled):
        """The old file stays, whole."""
        before = filled.read_bytes()
        program = (
            "import os, sys, time\n"
            "from meshlib.sources import last_good\n"
            "def stop(file):\n"
            "    print('writing', flush=True)\n"
            "    sys.stdin.read()\n"
            "os.fsync = stop\n"
            "last_good.write(sys.argv[1], [b'x' * 100_000])\n"
        )
        child = subprocess.Popen(
            [sys.executable, "-c", program, str(filled)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert child.stdout is not None
        assert child.stdout.readline() == b"writing\n"
        child.send_signal(signal.SIGKILL)
        child.communicate()
        assert filled.read_bytes() == before
        assert len(list(filled.parent.iterdir())) == 2  # with what it was writing
        assert Plane(filled).status.state == "stale"
        last_good.write(str(filled), [b"another"])  # nothing that it left stands in the way
        assert filled.read_bytes() == b"another"

    def test_several_write_at_once_and_whoever_reads_sees_one_of_them_whole(self, path):
        context = multiprocessing.get_context("spawn")
        writers = [context.Process(target=_write_often, args=(str(path), mark)) for mark in b"abc"]
        for writer in writers:
            writer.start()
        seen, alive = set(), True
        while alive:  # and once more after the end
            alive = any(writer.is_alive() for writer in writers)
            data = last_good.read(str(path))
            if data is not None:
                assert len(data) == 500_000
                assert len(set(data)) == 1
                seen.add(data[0])
        for writer in writers:
            writer.join()
            assert writer.exitcode == 0
        assert seen <= set(b"abc")
        assert seen
        assert list(path.parent.iterdir()) == [path]

    def test_a_stop_does_not_wait_for_a_disk_that_hangs(self, path, monkeypatch):
        hang = threading.Event()
        monkeypatch.setattr(last_good, "write", lambda *_: hang.wait(30))
        plane = Plane(path)
        plane.want("a")
        plane.up()
        plane.serve("a")
        plane.bench.step(SETTLE)
        assert plane.keeper._thread.is_alive()
        plane.answer("endpoint", build.endpoints("a", "10.0.0.9:80"))  # and updates come into force meanwhile
        plane.bench.step(PERIOD * 3)
        assert plane.bench.addresses("xds", "a") == ["10.0.0.9:80"]
        plane.bench.merge.stop()
        assert plane.keeper._thread.is_alive()
        hang.set()
        plane.keeper._thread.join()


def _write_often(path: str, mark: int) -> None:
    for _ in range(30):
        last_good.write(path, [bytes([mark]) * 250_000] * 2)


def test_the_module_keeps_no_lock() -> None:
    """One that a killed process holds would stop the others."""
    source = Path(last_good.__file__).read_text()
    assert not any(word in source for word in ("flock", "lockf", "Lock("))
