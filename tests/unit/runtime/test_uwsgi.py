from __future__ import annotations

import logging
import os
import subprocess
import sys
import textwrap
import types

import pytest

from meshlib.runtime import uwsgi


@pytest.fixture
def module(monkeypatch):
    """uWSGI's, as its processes have it."""
    made = types.ModuleType("uwsgi")
    made.opt, made.version = {"master": True, "processes": b"2"}, b"2.0.26"
    monkeypatch.setitem(sys.modules, "uwsgi", made)
    monkeypatch.setattr(uwsgi, "_warned", False)
    return made


def test_elsewhere_nothing_is_other():
    assert not uwsgi.present()
    assert not uwsgi.threadless()


def test_a_module_of_that_name_is_not_enough(monkeypatch):
    monkeypatch.setitem(sys.modules, "uwsgi", types.ModuleType("uwsgi"))
    assert not uwsgi.present()
    assert not uwsgi.threadless()


@pytest.mark.parametrize(
    "option", [{"enable-threads": True}, {"threads": b"4"}, {b"enable-threads": True}, {"gevent": b"100"}]
)
def test_threads_are_switched_on_by_an_option(module, option):
    assert uwsgi.present()
    assert uwsgi.threadless()
    module.opt |= option
    assert not uwsgi.threadless()


@pytest.mark.parametrize(
    ("version", "off"), [(b"2.0.26", True), (b"2.0.27", False), (b"2.1-dev-1", False), (b"?", True)]
)
def test_or_by_the_version(module, version, off):
    module.version = version
    assert uwsgi.threadless() is off


def test_it_is_told_once_with_the_remedy(module, caplog):
    with caplog.at_level(logging.WARNING, "meshlib"):
        uwsgi.warn_threadless()
        uwsgi.warn_threadless()
    (line,) = [record.getMessage() for record in caplog.records]
    assert "meshlib" in line
    assert "enable-threads" in line


def run(script):
    paths = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=30,
        env={**os.environ, "PYTHONPATH": paths},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.split()


def test_every_fork_calls_back_and_none_after_the_interpreters_end():
    out = run(
        """
        import atexit, ctypes, os, sys
        libc = ctypes.PyDLL(None)

        def fork(how):
            pid = how()
            if not pid:
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0

        # Runs last of all handlers: the hooks are gone by then.
        atexit.register(lambda: (fork(libc.fork), print("end", flush=True)))
        from meshlib.runtime import uwsgi
        if not uwsgi.on_fork(lambda: print("before", flush=True), lambda: print("after", flush=True)):
            raise SystemExit("this C library has no such hooks")
        fork(libc.fork)
        fork(os.fork)
        """
    )
    assert out == ["before", "after", "before", "after", "end"]


def test_only_a_process_of_uwsgis_asks_the_c_library():
    out = run(
        """
        import sys, types
        import meshlib, meshlib.runtime.process
        from meshlib.runtime import uwsgi
        print(len(uwsgi._kept))
        module = types.ModuleType("uwsgi")
        module.opt = {}
        sys.modules["uwsgi"] = module
        del sys.modules["meshlib.runtime.process"]
        import meshlib.runtime.process
        print(len(uwsgi._kept))
        """
    )
    assert out == ["0", "3"]
