"""``meshlib run`` and ``import meshlib.auto``: programs that know nothing of meshlib, as processes, against real servers."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from meshlib.cli.run import BOOTSTRAP
from meshlib.testing import Upstream
from tests.support.run_kit import ROOT, RUN, RunWorld, environment

BIN = Path(sys.executable).parent


class World(RunWorld):
    retried = "connect-failure"

    def python(
        self, text: str, *, options: tuple[str, ...] = (), **more: Any
    ) -> subprocess.CompletedProcess[str]:
        return self.run(sys.executable, *options, self.program(text), **more)

    def names(self, done: subprocess.CompletedProcess[str]) -> list[str]:
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        return done.stdout.split()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with Upstream("a") as one, Upstream("b") as other:
        yield World(tmp_path, one, other)


CALLS = {
    "requests": """
        import requests
        for _ in range(2):
            print(requests.get("http://reviews/").json()["name"])
        session = requests.Session()
        for _ in range(2):
            print(session.post("http://reviews/", json={}).json()["name"])
    """,
    "urllib3": """
        import json, urllib3
        for _ in range(2):
            print(json.loads(urllib3.request("GET", "http://reviews/").data)["name"])
        pool = urllib3.PoolManager()
        for _ in range(2):
            print(pool.request("GET", "http://reviews/").json()["name"])
    """,
    "httpx": """
        import asyncio, httpx
        for _ in range(2):
            print(httpx.get("http://reviews/").json()["name"])
        async def main():
            async with httpx.AsyncClient() as client:
                for _ in range(2):
                    print((await client.get("http://reviews/")).json()["name"])
        asyncio.run(main())
    """,
    "aiohttp": """
        import asyncio, aiohttp
        async def main():
            async with aiohttp.ClientSession() as session:
                for _ in range(4):
                    async with session.get("http://reviews/") as response:
                        print((await response.json(content_type=None))["name"])
        asyncio.run(main())
    """,
}
CALLS["httpx2"] = CALLS["httpx"].replace("httpx", "httpx2")


@pytest.mark.parametrize("library", list(CALLS))
def test_a_programs_calls_go_through_the_mesh(world: World, library: str) -> None:
    """With warnings as errors: a program that is run so may not see one more than without."""
    names = world.names(world.python(CALLS[library], options=("-W", "error")))
    assert sorted(names) == ["a", "a", "b", "b"]


def test_all_of_them_in_one_program_with_a_server_away(world: World) -> None:
    world.servers[0].kill()
    program = "\n".join(textwrap.dedent(calls) for calls in CALLS.values())
    assert world.names(world.python(program)) == ["b"] * 4 * len(CALLS)


def test_the_status_lists_what_is_patched_and_errors_tell_their_call(world: World) -> None:
    for server in world.servers:
        server.kill()
    done = world.python(
        """
        import requests, httpx, aiohttp, asyncio, meshlib
        print(*meshlib.default().status().process.patched)
        for call, kind in ((requests.get, requests.ConnectionError), (httpx.get, httpx.ConnectError)):
            try:
                call("http://reviews/")
            except kind as error:
                print(isinstance(error, meshlib.MeshError), len(meshlib.call_info(error).attempts))
        async def main():
            async with aiohttp.ClientSession() as session:
                try:
                    await session.get("http://reviews/")
                except aiohttp.ClientConnectorError as error:
                    print(isinstance(error, meshlib.MeshError), len(meshlib.call_info(error).attempts))
        asyncio.run(main())
        """
    )
    assert done.returncode == 0, done.stderr
    first, *rest = done.stdout.splitlines()
    assert first.split() == [
        "aiohttp.ClientSession", "httpx.AsyncHTTPTransport", "httpx.HTTPTransport", "requests.adapters.HTTPAdapter",
        "urllib3.PoolManager",
    ]  # fmt: skip
    assert rest == ["True 2"] * 3


def test_children_are_in_the_mesh_too(world: World) -> None:
    done = world.python(
        """
        import multiprocessing, os, subprocess, sys

        def call(out=None):
            import requests
            print(requests.get("http://reviews/").json()["name"], flush=True)

        if __name__ == "__main__":
            for method in ("spawn", "fork", "forkserver"):
                child = multiprocessing.get_context(method).Process(target=call)
                child.start()
                child.join()
                assert child.exitcode == 0, method
            code = "import httpx; print(httpx.get('http://reviews/').json()['name'])"
            subprocess.run([sys.executable, "-c", code], check=True)
            subprocess.run(["sh", "-c", f'"{sys.executable}" -c "{code}"'], check=True)
            call()
        """
    )
    assert len(world.names(done)) == 6
    assert sum(server.requests_total for server in world.servers) == 6


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGINT, 41), (signal.SIGKILL, -signal.SIGKILL)],
)
def test_signals_reach_the_command_itself(world: World, number: signal.Signals, code: int) -> None:
    program = world.program(
        """
        import os, signal, sys
        signal.signal(signal.SIGINT, lambda *_: os._exit(41))
        print(os.getpid(), flush=True)
        while True:
            signal.pause()
        """
    )
    child = subprocess.Popen(
        [*RUN, "--", sys.executable, program], stdout=subprocess.PIPE, text=True, env=environment()
    )
    with child:
        assert child.stdout is not None
        assert int(child.stdout.readline()) == child.pid
        child.send_signal(number)
        assert child.wait(20) == code


def test_exit_code_streams_arguments_and_signal_dispositions(world: World) -> None:
    done = world.python(
        """
        import sys
        sys.stderr.write("complaint")
        sys.stdout.write(sys.stdin.read().upper())
        sys.exit(13)
        """,
        stdin="hello",
    )
    assert (done.returncode, done.stdout, done.stderr) == (13, "HELLO", "complaint")
    echoed = world.run(
        sys.executable, "-c", "import sys; print(sys.argv[1:])", "--config", "-h", "--", "--json"
    )
    assert echoed.stdout == "['--config', '-h', '--', '--json']\n"
    look = ["sh", "-c", "grep SigIgn /proc/self/status"]
    plain = subprocess.run(look, capture_output=True, text=True, check=True)
    assert world.run(*look).stdout == plain.stdout


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        (["no-such-command-here"], 127, "no-such-command-here: command not found"),
        (["./notes.txt"], 126, "./notes.txt: cannot be executed"),
        ([], 2, "COMMAND"),
    ],
)
def test_what_cannot_be_run(world: World, command: list[str], code: int, words: str) -> None:
    (world.place / "notes.txt").write_text("no program")
    done = world.run(*command)
    assert done.returncode == code
    assert words in done.stderr
    assert done.stdout == ""


def test_a_wrong_configuration_stops_before_the_command(world: World) -> None:
    world.config.write_text("[services.reviews]\nendpoint = []\n")
    done = world.run("sh", "-c", "echo ran")
    assert done.returncode == 2
    assert "services.reviews.endpoint" in done.stderr
    assert done.stdout == ""


def test_without_configuration_nothing_changes(world: World) -> None:
    one = world.servers[0]
    done = world.python(
        f"""
        import sys, requests, httpx, threading
        for response in (requests.get("{one.url}/x"), httpx.get("{one.url}/x")):
            print(response.json()["name"])
        assert "meshlib_requests" not in sys.modules
        assert threading.active_count() == 1
        import meshlib
        assert meshlib.call_info(response) is None
        assert not meshlib.default().status().process.started
        """,
        configured=False,
    )
    assert (done.returncode, done.stdout.split()) == (0, ["a", "a"])
    assert done.stderr.startswith(
        "! run: nothing is configured: unless the command configures meshlib itself"
    )
    assert "MESHLIB_CONFIG" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_misspelt_variable_is_said(world: World) -> None:
    done = world.run("sh", "-c", "echo ran", configured=False, env={"MESHLIB_CONFG": str(world.config)})
    assert (done.returncode, done.stdout) == (0, "ran\n")
    assert done.stderr.splitlines()[0] == (
        '! run: MESHLIB_CONFG: meshlib has no such variable; did you mean "MESHLIB_CONFIG"?'
    )
    done = world.python(
        """
        import logging, meshlib
        logging.basicConfig(format="%(message)s")
        meshlib.default(), meshlib.Mesh({})
        """,
        env={"MESHLIB_CONFG": "x"},
    )
    said = [line for line in done.stderr.splitlines() if line.startswith("meshlib: MESHLIB_CONFG")]
    assert len(said) == 1, done.stderr


def test_switched_off_nothing_is_said(world: World) -> None:
    done = world.run("sh", "-c", "echo ran", configured=False, env={"MESHLIB_DISABLED": "1"})
    assert (done.stdout, done.stderr) == ("ran\n", "")


def test_hosts_that_the_mesh_does_not_know_are_called_as_ever(world: World) -> None:
    other = world.servers[1]
    done = world.python(
        f"""
        import requests, httpx, meshlib
        for call in (requests.get, httpx.get):
            response = call("{other.url}/x")
            print(response.json()["name"], meshlib.call_info(response).via)
        try:
            requests.get("http://127.0.0.1:1/")
        except requests.ConnectionError as error:
            print(isinstance(error, meshlib.MeshError))
        """
    )
    assert done.stdout.split() == ["b", "direct", "b", "direct", "False"], done.stderr


def test_an_environments_own_sitecustomize_runs_as_well(world: World) -> None:
    own = world.place / "own"
    own.mkdir()
    (own / "sitecustomize.py").write_text("import builtins\nbuiltins.was_here = True\n")
    path = os.pathsep.join([str(own), str(ROOT), str(ROOT / "adapters")])
    text = """
        import sys, sitecustomize, requests
        print(was_here, sitecustomize.__file__.endswith("own/sitecustomize.py"))
        print(any("bootstrap" in one for one in sys.path))
        print(requests.get("http://reviews/").json()["name"])
    """
    done = world.python(text, env={"PYTHONPATH": path})
    assert done.stdout.split()[:3] == ["True", "True", "False"], done.stderr
    assert done.stdout.split()[3] in {"a", "b"}
    (own / "sitecustomize.py").write_text("1 / 0\n")
    done = world.python(
        "import requests; print(requests.get('http://reviews/').json()['name'])", env={"PYTHONPATH": path}
    )
    assert done.stdout.strip() in {"a", "b"}
    assert "ZeroDivisionError" in done.stderr  # as Python says without us


def test_a_python_without_meshlib_runs_on(world: World) -> None:
    bare = Path(sys.base_prefix) / "bin" / "python3"
    done = subprocess.run(
        [str(bare), "-c", "print('ran')"],
        capture_output=True,
        text=True,
        check=False,
        cwd=world.place,
        env={"PYTHONPATH": str(BOOTSTRAP)},
    )
    assert (done.returncode, done.stdout) == (0, "ran\n")
    assert done.stderr == "" or done.stderr.startswith("meshlib: calls of this process do not go through")


def test_a_library_that_cannot_be_patched_is_left_alone_and_said(world: World) -> None:
    (world.place / "aiohttp.py").write_text(
        "__version__ = '3.8'\nclass ClientSession:\n    async def _request(self): pass\n"
    )
    done = world.python(
        """
        import aiohttp, requests
        print(requests.get("http://reviews/").json()["name"])
        """
    )
    assert done.stdout.strip() in {"a", "b"}
    assert "aiohttp 3.8 is too old: 3.12 is needed" in done.stderr


def test_a_mesh_that_cannot_be_made_is_said_once_and_calls_are_plain(world: World) -> None:
    one = world.servers[0]
    program = world.program(
        f"""
        import os
        os.environ["MESHLIB_CONFIG"] = "nowhere.toml"
        import meshlib.auto, requests, httpx
        for call in (requests.get, httpx.get, requests.get):
            print(call("{one.url}/").json()["name"])
        """
    )
    done = world.plainly(sys.executable, program)
    assert done.stdout.split() == ["a", "a", "a"], done.stderr
    assert done.stderr.count("do not go through the mesh") == 1
    assert "nowhere.toml" in done.stderr


def test_from_inside_and_back(world: World) -> None:
    """Imported before or after; what was made in the meantime makes plain calls once the patches are gone."""
    program = world.program(
        """
        import asyncio, httpx, requests, urllib3, aiohttp, meshlib

        def plain(call):
            try:
                call()
            except meshlib.MeshError:
                return "mesh"
            except (OSError, httpx.ConnectError):
                return "plain"
            return "mesh"

        async def get(session):
            async with session.get("http://reviews/"):
                pass

        before = [vars(kind).get(name) for kind, name in (
            (httpx.HTTPTransport, "handle_request"), (requests.adapters.HTTPAdapter, "send"),
            (urllib3.PoolManager, "_new_pool"), (aiohttp.ClientSession, "_request"))]
        client, session = httpx.Client(), requests.Session()

        async def main():
            async with aiohttp.ClientSession() as calls:
                print("before", plain(lambda: client.get("http://reviews/")))
                import meshlib.auto
                client.get("http://reviews/")
                session.get("http://reviews/")
                await get(calls)
                await get(calls)
                print(len(meshlib.default().status().process.patched))
                meshlib.auto.remove()
                print(meshlib.default().status().process.patched)
                print("after", plain(lambda: client.get("http://reviews/")), plain(lambda: session.get("http://reviews/")))
                try:
                    await get(calls)
                except OSError as error:
                    print(isinstance(error, meshlib.MeshError))
                after = [vars(kind).get(name) for kind, name in (
                    (httpx.HTTPTransport, "handle_request"), (requests.adapters.HTTPAdapter, "send"),
                    (urllib3.PoolManager, "_new_pool"), (aiohttp.ClientSession, "_request"))]
                print(before == after)
                meshlib.auto.install()
                print(plain(lambda: client.get("http://reviews/")), plain(lambda: session.get("http://reviews/")))
        asyncio.run(main())
        """
    )
    done = world.plainly(sys.executable, program, env={"MESHLIB_CONFIG": str(world.config)})
    assert done.stdout.splitlines() == [
        "before plain", "5", "()", "after plain plain", "False", "True", "mesh mesh",
    ], done.stderr  # fmt: skip


def test_mocking_tools_stay_in_charge(world: World) -> None:
    done = world.python(
        """
        import httpx, requests, requests_mock, responses, respx, meshlib

        session, client = requests.Session(), httpx.Client()
        assert session.get("http://reviews/").json()["name"] in "ab"
        assert client.get("http://reviews/").json()["name"] in "ab"
        with responses.RequestsMock() as mock:
            mock.get("http://reviews/", json={"name": "responses"})
            print(session.get("http://reviews/").json()["name"])
        with requests_mock.Mocker() as mock:
            mock.get("http://reviews/", json={"name": "requests-mock"})
            print(session.get("http://reviews/").json()["name"])
        with respx.mock:
            respx.get("http://reviews/").respond(json={"name": "respx"})
            response = client.get("http://reviews/")
            print(response.json()["name"], meshlib.call_info(response))
        with respx.mock(using="httpx"):
            respx.get("http://reviews/")
        print(httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(200, text="own"))).get("http://reviews/").text)
        assert session.get("http://reviews/").json()["name"] in "ab"
        assert client.get("http://reviews/").json()["name"] in "ab"
        """
    )
    assert done.stdout.splitlines() == ["responses", "requests-mock", "respx None", "own"], done.stderr
    assert sum(server.requests_total for server in world.servers) == 4


def test_a_connector_with_a_mesh_of_its_own_keeps_it(world: World) -> None:
    with Upstream("own") as own:
        done = world.python(
            f"""
            import asyncio, aiohttp, meshlib, meshlib_aiohttp
            async def main():
                with meshlib.Mesh({{"services": {{"reviews": {{"endpoints": ["{own.address}"]}}}}}}) as mesh:
                    async with aiohttp.ClientSession(connector=meshlib_aiohttp.connector(mesh)) as session:
                        async with session.get("http://reviews/") as response:
                            print((await response.json(content_type=None))["name"])
            asyncio.run(main())
            """
        )
    assert done.stdout.split() == ["own"], done.stderr


def test_proxies_win(world: World) -> None:
    with Upstream("proxy") as proxy:
        text = """
            import httpx, requests
            print(requests.get("http://reviews/").json()["name"])
            print(httpx.get("http://reviews/").json()["name"])
        """
        done = world.python(text, env={"HTTP_PROXY": proxy.url, "http_proxy": proxy.url})
    assert done.stdout.split() == ["proxy", "proxy"], done.stderr


class TestThePage:
    """docs/tasks/join.md, as somebody tries it who has just found it."""

    @staticmethod
    def fenced(kind: str) -> list[str]:
        text = (ROOT / "docs" / "tasks" / "join.md").read_text()
        return re.findall(rf"^```{kind}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)

    def configure(self, world: World) -> None:
        (text,) = self.fenced("toml")
        for shown, server in zip(("127.0.0.1:8081", "127.0.0.1:8082"), world.servers, strict=True):
            assert shown in text
            text = text.replace(shown, server.address)
        (world.place / "mesh.toml").write_text(text)

    def test_its_programs_join_in_one_line(self, world: World) -> None:
        self.configure(world)
        programs = [text for text in self.fenced("python") if "http://reviews/" in text]
        assert len(programs) == 3
        for text in programs:
            done = world.plainly(sys.executable, "-c", text, env={"MESHLIB_CONFIG": "mesh.toml"})
            assert done.stdout == "200\n", done.stderr
        assert sum(server.requests_total for server in world.servers) == 3

    def test_its_look_whether_it_joined(self, world: World) -> None:
        self.configure(world)
        (shown,) = [text for text in self.fenced("console") if "call_info" in text]
        command, _, answer = shown.removeprefix("$ meshlib ").partition("\n")
        arguments = [sys.executable if part == "python" else part for part in shlex.split(command)]
        done = world.plainly(sys.executable, "-m", "meshlib", *arguments)
        assert done.stdout == answer, done.stderr


#: fsspec is what pandas, dask and their like open URLs with: aiohttp, on an event loop in a thread of its own.
FSSPEC = "import sys, fsspec; print(fsspec.filesystem('http').cat(sys.argv[1]).decode())"
#: Programs that fetch a URL, redirects included, and print what is there.
FETCHERS = {
    "httpie": (str(BIN / "http"), "--ignore-stdin", "--follow", "--body"),
    "httpx": (str(BIN / "httpx"), "--follow-redirects", "--no-verify"),
    "fsspec": (sys.executable, "-W", "error", "-c", FSSPEC),
}


class TestProgramsOfOthers:
    """Programs from PyPI that know nothing of meshlib: requests, httpx and aiohttp underneath."""

    @pytest.mark.parametrize("program", list(FETCHERS))
    def test_their_calls_are_balanced_and_traced(self, world: World, program: str) -> None:
        """Two calls a program: the second is where a redirect leads."""
        for server in world.servers:
            elsewhere = (("location", "http://reviews/there"),)
            server.order(status=302, headers=elsewhere, where=lambda head: head.path == "/here")
        done = world.run(
            *FETCHERS[program],
            "http://reviews/here",
            env={"OTEL_PYTHON_TRACER_PROVIDER": "sdk_tracer_provider"},
        )
        assert done.returncode == 0, done.stderr
        assert '"/there"' in done.stdout
        assert [server.requests_total for server in world.servers] == [1, 1]
        seen = [request for server in world.servers for request in server.requests]
        assert {request.path for request in seen} == {"/here", "/there"}
        parents = [dict(request.headers).get("traceparent", "") for request in seen]
        assert all(re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", parent) for parent in parents)
        assert len({parent[36:52] for parent in parents}) == 2  # a span for each

    @pytest.mark.parametrize("program", list(FETCHERS))
    def test_their_calls_are_retried_elsewhere(self, world: World, program: str) -> None:
        """The calls take turns, so one of the two meets the server that is gone."""
        gone, there = world.servers
        gone.kill()
        there.order(
            status=302,
            headers=(("location", "http://reviews/there"),),
            where=lambda head: head.path == "/here",
        )
        done = world.run(*FETCHERS[program], "http://reviews/here")
        assert done.returncode == 0, done.stderr
        assert '"/there"' in done.stdout
        assert [request.path for request in there.requests] == ["/here", "/there"]

    def test_httpie(self, world: World) -> None:
        """requests underneath."""
        found = []
        for _ in range(2):
            done = world.run(str(BIN / "http"), "--ignore-stdin", "--body", "POST", "http://reviews/x", "a=1")
            assert done.returncode == 0, done.stderr
            found.append(json.loads(done.stdout))
        assert {one["path"] for one in found} == {"/x"}
        assert sum(server.requests_total for server in world.servers) == 2
        world.servers[0].kill()
        assert (
            json.loads(world.run(str(BIN / "http"), "--ignore-stdin", "-b", "http://reviews/").stdout)["name"]
            == "b"
        )

    def test_the_program_of_httpx(self, world: World) -> None:
        done = world.run(str(BIN / "httpx"), "http://reviews/y", "--no-verify")
        assert done.returncode == 0, done.stderr
        assert '"path": "/y"' in done.stdout
        assert world.servers[0].requests_total + world.servers[1].requests_total == 1
