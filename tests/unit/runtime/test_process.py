from __future__ import annotations

import gc
import os
import subprocess
import sys
import textwrap
import threading
import weakref

import pytest

from meshlib.runtime import process
from meshlib.runtime.clock import MonotonicClock
from meshlib.runtime.process import PerProcess, SharedWorker
from tests.support.asking import asked
from tests.support.log import told_here


class Resident:
    """A resident that keeps a journal."""

    def __init__(self, inherited=None, *, streaming=False, awaited=False):
        self.inherited = inherited
        self.streaming = streaming
        self.awaited = awaited
        self.journal = []

    def pause(self):
        self.journal.append("pause")

    def resume(self):
        self.journal.append("resume")

    def close(self, timeout):
        self.journal.append("close")

    def abandon(self):
        self.journal.append("abandon")


class ToldLock:
    """A lock that tells when a thread finds it taken."""

    def __init__(self, lock):
        self._lock = lock
        self.awaited = threading.Event()

    def acquire(self, timeout=-1.0):
        if self._lock.acquire(blocking=False):
            return True
        self.awaited.set()
        return self._lock.acquire(timeout=timeout)

    def release(self):
        self._lock.release()

    def __enter__(self):
        return self.acquire()

    def __exit__(self, *exception):
        self.release()


class TestAChildThatOnlyExecutes:
    """gevent's subprocess forks by way of Python's hooks."""

    def test_a_stream_is_paused_and_goes_on_at_once_without_a_warning(self, caplog):
        holder = PerProcess(lambda inherited: Resident(inherited, streaming=True))
        resident = holder.get()
        holder.before_fork(executes=True)
        resident.streaming = False
        holder.after_fork_in_parent()
        assert resident.journal == ["pause", "resume"]
        assert not told_here(caplog)

    def test_what_has_no_stream_is_left_alone(self):
        holder = PerProcess(Resident)
        resident = holder.get()
        holder.before_fork(executes=True)
        holder.after_fork_in_parent()
        assert holder.get() is resident
        assert resident.journal == []

    def test_what_was_closed_meanwhile_stays_closed(self, caplog):
        holder = PerProcess(lambda inherited: Resident(inherited, streaming=True))
        resident = holder.get()
        holder.before_fork(executes=True)
        holder.close()
        holder.after_fork_in_parent()
        assert resident.journal == ["pause", "close"]
        assert not told_here(caplog)


class TestOneProcess:
    def test_nothing_is_made_before_it_is_used(self):
        made = []
        holder = PerProcess(lambda inherited: made.append(1) or Resident())
        assert made == []
        assert holder.peek() is None
        assert not holder.forked

    def test_it_is_made_once(self):
        holder = PerProcess(Resident)
        assert holder.get() is holder.get() is holder.peek()

    def test_many_threads_get_the_same(self):
        barrier = threading.Barrier(8)
        holder = PerProcess(Resident)
        got = []

        def use():
            barrier.wait(5.0)
            got.append(holder.get())

        threads = [threading.Thread(target=use) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(5.0)
        assert len(got) == 8
        assert len(set(map(id, got))) == 1

    def test_what_fails_is_tried_again_at_the_next_use(self):
        attempts = []

        def make(inherited):
            attempts.append(1)
            if len(attempts) == 1:
                raise ValueError("not yet")
            return Resident()

        holder = PerProcess(make)
        with pytest.raises(ValueError, match="not yet"):
            holder.get()
        assert holder.peek() is None
        assert isinstance(holder.get(), Resident)

    def test_close_ends_it_for_good(self):
        holder = PerProcess(Resident)
        resident = holder.get()
        holder.close()
        holder.close()
        assert resident.journal == ["close"]
        assert holder.closed
        with pytest.raises(RuntimeError, match="closed"):
            holder.get()

    def test_close_before_use_starts_nothing(self):
        holder = PerProcess(lambda inherited: pytest.fail("made"))
        holder.close()
        assert holder.closed

    def test_one_that_nobody_has_any_more_is_ended_without_waiting(self):
        holder = PerProcess(Resident)
        resident = holder.get()
        gone = weakref.ref(holder)
        del holder
        gc.collect()
        assert gone() is None
        assert resident.journal == ["abandon"]

    def test_but_not_one_that_was_closed_or_never_used(self):
        closed, unused = PerProcess(Resident), PerProcess(Resident)
        resident = closed.get()
        closed.close()
        del closed, unused
        gc.collect()
        assert resident.journal == ["close"]


class TestAroundFork:
    """The hooks, called by hand: the fork itself is in TestFork."""

    def test_the_parent_is_paused_for_it_and_goes_on_at_the_next_use(self):
        holder = PerProcess(Resident)
        resident = holder.get()
        holder.before_fork()
        holder.after_fork_in_parent()
        assert resident.journal == ["pause"]
        assert holder.get() is resident
        assert resident.journal == ["pause", "resume"]
        assert holder.get() is resident
        assert resident.journal == ["pause", "resume"]

    def test_it_goes_on_at_once_where_somebody_waits(self):
        holder = PerProcess(lambda inherited: Resident(inherited, awaited=True))
        resident = holder.get()
        holder.before_fork()
        holder.after_fork_in_parent()
        assert resident.journal == ["pause", "resume"]

    def test_another_thread_cannot_resume_before_the_fork_is_done(self):
        holder = PerProcess(Resident)
        resident = holder.get()
        guard = holder._guards.get()
        guard.lock = lock = ToldLock(guard.lock)
        holder.before_fork()
        thread = threading.Thread(target=holder.get)
        thread.start()
        assert lock.awaited.wait(5.0)
        resident.journal.append("fork")
        holder.after_fork_in_parent()
        thread.join(5.0)
        assert resident.journal == ["pause", "fork", "resume"]

    def test_a_child_makes_its_own_from_what_it_inherited(self, monkeypatch):
        holder = PerProcess(Resident)
        parents = holder.get()
        holder.before_fork()
        holder.after_fork_in_child()
        monkeypatch.setattr(process, "getpid", lambda: os.getpid() + 1)
        assert holder.forked
        assert holder.peek() is None
        assert holder.inherited is parents
        child = holder.get()
        assert child is not parents
        assert child.inherited is parents
        assert holder.forked
        assert holder.inherited is None
        holder.close()
        assert child.journal == ["close"]
        assert parents.journal == ["pause"]

    def test_a_fork_without_hooks_is_noticed_by_the_process_id_alone(self, monkeypatch):
        holder = PerProcess(Resident)
        parents = holder.get()
        lock = holder._guards.get().lock
        lock.acquire()  # held by a thread of the parent at the fork: nobody will ever release it in the child
        monkeypatch.setattr(process, "getpid", lambda: os.getpid() + 1)
        got = []
        thread = threading.Thread(target=lambda: got.append(holder.get()), daemon=True)
        thread.start()
        thread.join(5.0)
        assert got
        assert got[0].inherited is parents
        lock.release()

    def test_hooks_that_run_twice_for_one_fork_give_the_lock_back_twice(self):
        """Python's and the C library's, under uWSGI."""
        holder = PerProcess(Resident)
        holder.get()
        for _ in range(2):
            holder.before_fork()
        for _ in range(2):
            holder.after_fork_in_parent()
        used = threading.Event()
        thread = threading.Thread(target=lambda: (holder.get(), used.set()), daemon=True)
        thread.start()
        assert used.wait(5.0)
        thread.join(5.0)

    def test_who_ran_before_a_fork_runs_after_it_though_others_were_armed_meanwhile(self, monkeypatch):
        told = []
        monkeypatch.setattr(process, "_before", lambda **_: told.append("before"))
        monkeypatch.setattr(process, "_every", lambda step: told.append("after"))
        first, second = process._Hooks(1), process._Hooks(2)
        monkeypatch.setattr(process, "_armed", 1)
        first.before()
        monkeypatch.setattr(process, "_armed", 2)
        first.after_in_parent()
        second.after_in_parent()
        assert told == ["before", "after"]
        first.before()
        second.before()
        first.after_in_parent()
        second.after_in_parent()
        assert told == ["before", "after"] * 2

    @pytest.mark.parametrize("end", ["close", "drop"])
    def test_what_a_parent_left_is_never_finalized_in_a_child(self, monkeypatch, end):
        """Its channels and sockets are the parent's."""
        holder = PerProcess(Resident)
        parents = weakref.ref(holder.get())
        monkeypatch.setattr(process, "getpid", lambda: os.getpid() + 1)
        monkeypatch.setattr(process, "_inherited", [])
        if end == "close":
            holder.close()
        del holder
        gc.collect()
        assert parents() is not None
        assert parents().journal == []

    def test_an_ancestors_process_id_that_comes_again_is_another_process(self, monkeypatch):
        holder = PerProcess(Resident)
        parents = holder.get()
        holder.before_fork()
        holder.after_fork_in_child()
        assert holder.peek() is None
        assert holder.inherited is parents
        assert holder.get() is not parents

    def test_a_running_stream_is_warned_of_once(self, monkeypatch, caplog):
        monkeypatch.setattr(process, "_warned", False)
        holder = PerProcess(lambda inherited: Resident(inherited, streaming=True))
        for _ in range(3):
            holder.get()
            holder.before_fork()
            holder.after_fork_in_parent()
        lines = [record.getMessage() for record in caplog.records]
        assert len(lines) == 1
        assert "meshlib" in lines[0]
        assert "fork" in lines[0]
        assert "post_fork" in lines[0]

    def test_without_a_stream_there_is_nothing_to_warn_of(self, monkeypatch, caplog):
        monkeypatch.setattr(process, "_warned", False)
        holder = PerProcess(Resident)
        holder.get()
        holder.before_fork()
        holder.after_fork_in_parent()
        assert told_here(caplog) == []

    def test_a_closed_one_stays_closed_in_the_child(self, monkeypatch):
        holder = PerProcess(Resident)
        holder.get()
        holder.close()
        monkeypatch.setattr(process, "getpid", lambda: os.getpid() + 1)
        with pytest.raises(RuntimeError, match="closed"):
            holder.get()


class TestSharedWorker:
    def test_it_runs_while_somebody_has_it(self):
        shared = SharedWorker(MonotonicClock())
        first = shared.acquire()
        second = shared.acquire()
        assert first is second
        assert first.running
        shared.release(first)
        assert first.running
        shared.release(first)
        assert asked(lambda: not first.running)

    def test_it_starts_again(self):
        shared = SharedWorker(MonotonicClock())
        worker = shared.acquire()
        shared.release(worker)
        again = shared.acquire()
        ran = threading.Event()
        again.post(ran.set)
        assert ran.wait(5.0)
        shared.release(again)

    def test_a_worker_of_another_process_is_left_alone(self, monkeypatch):
        shared = SharedWorker(MonotonicClock())
        parents = shared.acquire()
        with monkeypatch.context() as patch:
            patch.setattr(process, "getpid", lambda: os.getpid() + 1)
            mine = shared.acquire()
            assert mine is not parents
            shared.release(parents)
            assert mine.running
            shared.release(mine)
        assert parents.running
        shared.release(parents)


def run(script, timeout=30.0):
    """A script in a process of its own: what it printed and what it said on stderr."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=timeout,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


class TestFork:
    def test_a_child_has_its_own_and_the_parent_goes_on(self):
        out, err = run(
            """
            import os, threading
            import meshlib
            mesh = meshlib.Mesh({"services": {"reviews": {"endpoints": ["127.0.0.1:1"]}}})
            parents = mesh._runtime()
            version = mesh.snapshot().version
            pid = os.fork()
            if not pid:
                assert mesh.status().process.forked and not mesh.status().process.started
                mine = mesh._runtime()
                assert mine is not parents
                assert mesh.status().process.started and mesh.status().process.forked
                assert mesh.explain("GET", "http://reviews/").endpoint == "127.0.0.1:1"
                assert mesh.snapshot().version > version
                assert mine.worker.running and mine.worker is not parents.worker
                mesh.close()
                for thread in threading.enumerate():
                    thread is threading.main_thread() or thread.join(10)  # close waits for a second
                assert [t.name for t in threading.enumerate()] == ["MainThread"], threading.enumerate()
                print("child", flush=True)
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
            assert mesh._runtime() is parents
            assert parents.worker.running
            assert not mesh.status().process.forked
            mesh.close()
            print("parent")
            """
        )
        assert out.split() == ["child", "parent"]
        assert err == ""

    def test_a_fork_waits_for_the_modules_that_a_first_use_is_loading(self, tmp_path):
        """A child that had one half loaded would wait for its lock for ever."""
        tmp_path.joinpath("slow.py").write_text(
            "import threading, go\ngo.inside.set()\nthreading.Event().wait(1.5)  # longer than a pause may take\n"
        )
        tmp_path.joinpath("go.py").write_text("import threading\ninside = threading.Event()\n")
        out, err = run(
            f"""
            import os, signal, sys, threading
            sys.path.insert(0, {str(tmp_path)!r})
            import go
            import meshlib
            from meshlib.runtime.runtime import Runtime
            began = Runtime.__init__

            def begin(self, *arguments, **more):
                import slow
                began(self, *arguments, **more)

            Runtime.__init__ = begin
            mesh = meshlib.Mesh({{"services": {{"reviews": {{"endpoints": ["127.0.0.1:1"]}}}}}})
            first = threading.Thread(target=lambda: mesh.explain("GET", "http://reviews/"))
            first.start()
            assert go.inside.wait(20)
            pid = os.fork()
            if not pid:
                signal.alarm(15)
                print(mesh.explain("GET", "http://reviews/").endpoint, flush=True)
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0, "the child hangs"
            first.join()
            print("parent")
            """,
        )
        assert out.split() == ["127.0.0.1:1", "parent"], err

    def test_forks_under_load_never_hang(self):
        out, _ = run(
            """
            import os, threading
            import meshlib
            mesh = meshlib.Mesh({"services": {"reviews": {"endpoints": ["127.0.0.1:1"]}}})
            # Python's own hazard is kept out: a fork during another thread's import leaves that module locked.
            mesh.explain("GET", "http://reviews/")
            stop = threading.Event()
            def use():
                while not stop.is_set():
                    mesh.explain("GET", "http://reviews/")
            threads = [threading.Thread(target=use) for _ in range(4)]
            for thread in threads: thread.start()
            for _ in range(15):
                pid = os.fork()
                if not pid:
                    ok = mesh.explain("GET", "http://reviews/").endpoint == "127.0.0.1:1"
                    os._exit(0 if ok else 1)
                assert os.waitpid(pid, 0)[1] == 0
            stop.set()
            for thread in threads: thread.join()
            print("done")
            """
        )
        assert out.split() == ["done"]

    def test_a_process_that_never_closes_ends_cleanly_and_soon(self):
        out, err = run(
            """
            import atexit, time
            import meshlib
            meshlib.Mesh({"services": {"reviews": {"dns": "localhost:1"}}}).wait_ready("reviews", timeout=10)
            started = time.monotonic()
            print("end")
            """
        )
        assert out.split() == ["end"]
        assert err == ""

    def test_import_and_construction_start_nothing(self):
        run(
            """
            import os, threading
            import meshlib
            mesh = meshlib.Mesh({"xds": {"server": "127.0.0.1:1"}, "services": {"a": {"dns": "localhost:1"}}})
            mesh.status(), repr(mesh)
            assert threading.enumerate() == [threading.main_thread()]
            assert "grpc" not in __import__("sys").modules
            """
        )
