"""The guards of tests/conftest.py guard: they are run against small suites of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def suite(tmp_path):
    """Runs a test file under a copy of the global conftest in a process of its own; gives (exit code, output)."""
    (tmp_path / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text())
    settings = "addopts = -p no:cacheprovider -p no:ddtrace\nasyncio_default_fixture_loop_scope = function\n"
    (tmp_path / "pytest.ini").write_text(f"[pytest]\n{settings}")

    def run(code: str, *options: str, **environment: str) -> tuple[int, str]:
        (tmp_path / "test_it.py").write_text(textwrap.dedent(code))
        env = {k: v for k, v in os.environ.items() if k != "CI"} | {"PYTHONPATH": str(ROOT)} | environment
        command = [sys.executable, "-m", "pytest", "-ra", *options, str(tmp_path)]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    return run


SKIPS = """
    import pytest

    def test_by_call():
        pytest.skip("no such tool")

    @pytest.mark.skip(reason="not today")
    def test_by_mark():
        raise AssertionError

    @pytest.mark.xfail(reason="known", strict=True)
    def test_expected():
        raise AssertionError
"""


def test_a_skip_fails_on_ci_and_says_why(suite):
    code, output = suite(SKIPS, CI="true")
    assert code == 1
    assert "1 failed, 1 xfailed, 1 error" in output  # a mark skips while the test is being set up
    assert "no such tool" in output
    assert "not today" in output


def test_a_skip_is_a_skip_elsewhere(suite):
    code, output = suite(SKIPS)
    assert code == 0
    assert "2 skipped, 1 xfailed" in output


def test_a_skipped_module_fails_on_ci(suite):
    code, output = suite("import pytest\npytest.importorskip('no_such_module_at_all')", CI="true")
    assert code != 0
    assert "no_such_module_at_all" in output


@pytest.mark.timeout(240)  # three interpreters, one after the other, on a machine that is busy
def test_a_worker_that_dies_says_how(suite, tmp_path):
    code, output = suite(
        """
        import os

        def test_it_dies():
            os.abort()

        def test_another():
            pass
        """,
        "-n1",
        TMPDIR=str(tmp_path),
    )
    assert code == 1
    assert "1 failed, 1 passed" in output
    assert "crashed while running 'test_it.py::test_it_dies' (exit code -6)" in output
    assert "Fatal Python error: Aborted" in output
    assert "in test_it_dies" in output
    assert not list(tmp_path.glob("meshlib-tests-*"))


def test_reaching_outside_fails_also_when_the_error_is_swallowed(suite):
    code, output = suite("""
        import socket, pytest

        REACH = [
            lambda: socket.create_connection(("192.0.2.1", 80), timeout=1),
            lambda: socket.socket().connect_ex(("192.0.2.1", 80)),
            lambda: socket.socket(type=socket.SOCK_DGRAM).sendto(b"x", ("192.0.2.1", 53)),
            lambda: socket.socket(type=socket.SOCK_DGRAM).sendto(b"x", 0, ("192.0.2.1", 53)),
            lambda: socket.socket(socket.AF_INET6).connect(("2001:db8::1", 80)),
            lambda: socket.socket().bind(("192.0.2.1", 0)),
        ]

        @pytest.mark.parametrize("number", range(len(REACH)))
        def test_it(number):
            with pytest.raises(AssertionError, match="may only use loopback"):
                REACH[number]()
    """)
    assert code == 1
    assert "6 passed, 6 errors" in output  # each test is content, and its teardown is not
    assert output.count("OutsideLoopbackError: a test may only use loopback: socket.") >= 6


def test_loopback_and_unix_sockets_work_and_names_are_unknown_at_once(suite):
    code, output = suite("""
        import asyncio, os, socket, pytest

        @pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
        def test_loopback(host):
            with socket.create_server((host, 0)) as server, socket.create_connection(server.getsockname()) as client:
                peer, _ = server.accept()
                peer.close()

        def test_unix(tmp_path):
            with socket.socket(socket.AF_UNIX) as server:
                server.bind(os.path.relpath(tmp_path / "s"))

        def test_names():
            with pytest.raises(socket.gaierror, match="no names are resolved"):
                socket.getaddrinfo("reviews.example", 80)
            with pytest.raises(OSError):
                socket.create_connection(("reviews.example", 80))

        def test_names_in_a_loop():
            async def look():
                await asyncio.get_running_loop().getaddrinfo("reviews.example", 80)
            with pytest.raises(socket.gaierror):
                asyncio.run(look())
    """)
    assert code == 0, output


def test_the_shell_of_the_developer_does_not_reach_a_test(suite):
    code, output = suite(
        """
        import os

        def test_it():
            assert not [n for n in os.environ if n.startswith("MESHLIB_") or n.upper() == "HTTP_PROXY"]
        """,
        MESHLIB_CONFIG="/x",
        http_proxy="http://127.0.0.1:1",
    )
    assert code == 0, output
