"""Every block that the documentation shows runs, each by itself, against real servers; and type checkers accept it.

Addresses that a page shows are put for those of the servers here; nothing else of a block is changed. What runs in another test,
or cannot run, is in a table with the reason.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from mcp.server.mcpserver import MCPServer
from mcp.server.transport_security import TransportSecuritySettings

from meshlib.cli.check import inspect
from meshlib.testing import ControlPlane, GrpcUpstream, Upstream, build
from tests.support.asgi_server import AsgiServer
from tests.support.model_server import ModelServer
from tests.support.pages import PAGES, ROOT, blocks

pytestmark = pytest.mark.timeout(180)  # each test is a program

BIN = Path(sys.executable).parent

#: Pages whose blocks belong together and are run so → where. Each of these tests reads the page.
TOGETHER = {
    "docs/tasks/celery.md": "tests/e2e/test_celery.py",
    "docs/tasks/gunicorn.md": "tests/e2e/test_gunicorn.py",
    "docs/tasks/jupyter.md": "tests/e2e/test_jupyter.py",
    "docs/tasks/multiprocessing.md": "tests/e2e/test_multiprocessing.py",
    "docs/tasks/uwsgi.md": "tests/e2e/test_uwsgi.py",
}

#: What is run behind a block that only defines something: it is used as its page says. By page and number of the block.
USED = {
    ("docs/tasks/django.md", 1): """
        urlpatterns = []
        from django.conf import settings
        settings.configure(INSTALLED_APPS=[name for name in INSTALLED_APPS if "." not in name], MIDDLEWARE=MIDDLEWARE,
                           MESHLIB=MESHLIB, ROOT_URLCONF=__name__, SECRET_KEY="x", ALLOWED_HOSTS=["*"])
        import django
        django.setup()
        from django.core.management import call_command
        call_command("check")
    """,
    ("docs/tasks/django.md", 2): """
        from django.conf import settings
        settings.configure(ALLOWED_HOSTS=["*"])
        from django.test import RequestFactory
        assert order(RequestFactory().get("/"), 7).status_code == 200
    """,
    ("docs/tasks/django.md", 3): """
        import django
        from django.conf import settings
        settings.configure(ALLOWED_HOSTS=["*"], INSTALLED_APPS=["meshlib_django"])
        django.setup()
        from django.test import RequestFactory
        import meshlib_django
        asked = RequestFactory().get("/", headers={"x-request-id": "r-1"})
        assert b'"id": "r-1"' in meshlib_django.Middleware(view)(asked).content
    """,
    ("docs/tasks/fastapi.md", 1): """
        from starlette.testclient import TestClient
        with TestClient(app) as browser:
            assert browser.get("/stock/bolts").status_code == 200
    """,
    ("docs/tasks/fastapi.md", 2): """
        from starlette.testclient import TestClient
        assert TestClient(app).get("/ready").status_code in {200, 503}
        mesh.close()
    """,
    ("docs/tasks/flask.md", 1): "assert app.test_client().get('/stock/bolts').status_code == 200",
    ("docs/tasks/flask.md", 2): "assert create_app().extensions['meshlib'].mesh is not None",
    ("docs/tasks/flask.md", 3): """
        said = []
        assert b"".join(application({"PATH_INFO": "/", "REQUEST_METHOD": "GET"}, lambda *head: said.append(head))) == b"hello"
        assert said[0][0] == "200 OK"
    """,
}

USED["docs/reference/hosts.md", 1] = """
        import threading
        from urllib.error import HTTPError, URLError
        from urllib.request import Request

        info = meshlib.call_info(response)
        assert (info.via, info.cluster, len(info.attempts)) == ("mesh", "reviews", 1)
        assert response.headers["content-type"] == "application/json"

        # A body, read in pieces; given up, and the connection is kept or closed, but not in use.
        with opener.open("http://reviews/x", data=b"abc") as answer:
            assert answer.read(1) == b"{"
            assert b'"body_length": 3' in answer.read()
        opener.open("http://reviews/").close()

        def active(mesh):
            return sum(cluster.active for cluster in mesh.status().clusters.values())

        assert active(meshlib.default()) == 0

        # Directly, with what was done on the response.
        address = info.endpoint
        with opener.open(f"http://{address}/") as answer:
            assert meshlib.call_info(answer).via == "direct"

        # Failures are of both; the last answer comes after all attempts; a deadline bounds a direct call as well.
        order = {"x-upstream-order": '{"status": 503}'}
        config = {
            "services": {
                "gone": {"endpoints": ["127.0.0.1:1"]},
                "bad": {"endpoints": [address], "retry": {"attempts": 3, "on": ["5xx"]}},
            }
        }
        with meshlib.Mesh(config) as mesh:
            own = urllib.request.build_opener(MeshHandler(mesh))
            try:
                own.open("http://gone/")
            except URLError as error:
                assert isinstance(error, meshlib.errors.ConnectFailed), error
                assert meshlib.call_info(error).endpoint == "127.0.0.1:1"
            else:
                raise AssertionError("it was answered")
            try:
                own.open(Request("http://bad/", headers=order))
            except HTTPError as error:
                assert error.code == 503
                assert [attempt.status for attempt in meshlib.call_info(error.fp).attempts] == [503] * 3
                error.close()
            else:
                raise AssertionError("it was answered well")
            held = Request(f"http://{address}/", headers={"x-upstream-order": '{"delay": 30}'})
            try:
                with meshlib.deadline(0.2):
                    own.open(held)
            except meshlib.DeadlineExceeded as error:
                assert isinstance(error, TimeoutError)
            else:
                raise AssertionError("nothing bounded it")
            assert active(mesh) == 0
        assert threading.active_count() < 5
    """

#: Services that the pages call by name, of the file that the environment names.
NAMES = ("reviews", "ratings", "orders", "stock")
SHOWN = re.compile(r"10\.\d+\.\d+\.\d+:80\d\d|127\.0\.0\.1:80\d\d")
PLANE = re.compile(r"127\.0\.0\.1:18000")


@pytest.fixture(scope="module")
def servers():
    with Upstream("a") as one, Upstream("b") as other, Upstream("c") as third:
        yield one, other, third


@pytest.fixture(scope="module")
def plane(servers):
    resources = []
    for name in NAMES:
        routes = build.route_config(name, build.virtual_host("all", build.route(cluster=name)))
        resources += [build.api_listener(name, routes), build.cluster(name, [servers[0].address])]
    with ControlPlane(*resources) as running:
        yield running


@pytest.fixture(scope="module")
def assistants():
    """What the page on language models and tools calls, for its mesh.toml: servers that answer as those do."""
    server = MCPServer("tools")
    app = server.streamable_http_app(
        stateless_http=True, transport_security=TransportSecuritySettings(allowed_hosts=["tools"])
    )
    with ModelServer("a") as one, ModelServer("b") as other, AsgiServer(app) as tools:
        yield (
            f'[services.llm]\nendpoints = ["{one.address}", "{other.address}"]\n'
            f'[services.tools]\nendpoints = ["{tools.address}"]\n'
        )


@pytest.fixture(scope="module")
def rpc_servers():
    """What the pages on gRPC call, for their mesh.toml."""
    with GrpcUpstream("a") as one, GrpcUpstream("b") as other:
        yield f'[services.reviews]\nendpoints = ["{one.address}", "{other.address}"]\n'


@pytest.fixture
def place(servers, plane, tmp_path):
    """A directory with the files that the pages name, and what puts their addresses right in a text."""

    def localized(text):
        addresses = list(dict.fromkeys(SHOWN.findall(text)))
        for address, server in zip(addresses, servers * 3, strict=False):
            text = text.replace(address, server.address)
        return PLANE.sub(plane.address, text)

    services = {
        name: f'[services.{name}]\nendpoints = ["127.0.0.1:8080", "127.0.0.1:8081"]\n' for name in NAMES
    }
    (tmp_path / "mesh.toml").write_text(localized("".join(services.values())))
    (tmp_path / "app.py").write_text(
        "import meshlib_requests as requests\nprint(requests.get('http://reviews/').status_code)\n"
    )
    calls = next(item.body for item in blocks("python") if item.page == "docs/quickstart.md")
    (tmp_path / "calls.py").write_text(calls)
    return tmp_path, localized


def run(command, directory, **environment):
    return subprocess.run(
        command,
        cwd=directory,
        env={
            "PATH": f"{BIN}:/usr/bin:/bin",
            "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "adapters"))),
            "HOME": str(directory),
            "NO_PROXY": "*",
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )


def programs():
    return [item for item in blocks("python") if item.page not in TOGETHER and "/decisions/" not in item.page]


@pytest.mark.parametrize("block", programs(), ids=str)
def test_a_program_runs_by_itself(request, block, place):
    directory, localized = place
    if block.page == "docs/tasks/llm.md":
        with (directory / "mesh.toml").open("a") as file:
            file.write(request.getfixturevalue("assistants"))
    if block.page == "docs/tasks/grpc.md":
        (directory / "mesh.toml").write_text(request.getfixturevalue("rpc_servers"))
    lines = USED.get((block.page, block.number), "").splitlines()
    used = "\n".join(line.removeprefix("        ") for line in lines)
    text = localized(block.body) + "\n" + used
    command = [sys.executable, "-W", "error", "-W", "ignore::ResourceWarning", "block.py"]
    if "\ndef test_" in text:
        (directory / "test_block.py").write_text(text)
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:asyncio",
            "test_block.py",
        ]
    else:
        (directory / "block.py").write_text(text)
    done = run(command, directory, MESHLIB_CONFIG="mesh.toml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert not done.stderr or "logging" in block.body, done.stderr


@pytest.mark.parametrize(("page", "test"), TOGETHER.items())
def test_a_page_whose_blocks_belong_together_is_read_by_its_test(page, test):
    name = Path(page).name
    sources = [ROOT / test, *(ROOT / "tests" / "support").glob("*_kit.py")]
    assert any(name in source.read_text() for source in sources)


def test_what_is_used_is_there():
    there = {(item.page, item.number) for item in programs()}
    assert set(USED) <= there
    assert {str(page.relative_to(ROOT)) for page in PAGES} >= set(TOGETHER)


# --- configurations -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", blocks("toml"), ids=str)
def test_a_configuration_is_one(block, place):
    """As a file of its own, by `meshlib check`; the files that it names are there."""
    directory, _ = place
    for name in ("ca.pem", "me.pem", "me.key"):
        (directory / name).write_text("")
    (directory / "envoy.yaml").write_text("listeners: []\n")
    bootstrap = {"xds_servers": [{"server_uri": "127.0.0.1:1", "channel_creds": [{"type": "insecure"}]}]}
    (directory / "grpc-bootstrap.json").write_text(json.dumps(bootstrap))
    served = directory / "xds"
    served.mkdir()
    for name in ("lds.json", "cds.json"):
        (served / name).write_text('{"resources": []}')
    shown = block.body.replace("/etc/xds", str(served))
    for secret in set(re.findall(r'"(/(?:etc|var/run)/[^"]+)"', shown)):
        there = directory / secret[1:]
        there.parent.mkdir(parents=True, exist_ok=True)
        there.write_text("")
        shown = shown.replace(f'"{secret}"', f'"{there}"')
    (directory / "shown.toml").write_text(shown)
    report = inspect(directory / "shown.toml")
    assert (report.problems, report.warnings) == ((), ())


# --- commands -----------------------------------------------------------------------------------------------------

#: Commands that are not run here → why.
NOT_HERE = {
    r"make sim": "takes half a minute; tests/unit/test_sim.py",
    r"make (demo|test|bench)": "is run by tests/e2e/test_demo.py, by who runs this test, by tests/unit/test_bench.py",
    r"python -m bench": "takes minutes; tests/unit/test_bench.py",
    r"(python -m )?pip install": "installs from an index, or the clone; tests/unit/test_extras.py looks at what the extras bring",
    r"python3 -m http\.server": "any server will do; here they are upstreams of the test kit",
    r"meshlib adoption": "asks programs that run; tests/e2e/test_adoption.py",
    r"meshlib watch": "runs until it is interrupted; tests/e2e/test_cli.py",
    r".* 4711": "asks a process that the page makes up; tests/e2e/test_admin.py",
    r".*manage\.py": "of a project of the reader's; tests/e2e/test_django.py",
    r".*(gunicorn|uvicorn|uwsgi)": "serves until it is interrupted; tests/e2e/test_gunicorn.py, test_asgi.py, test_uwsgi.py",
    r"grpcdebug ": "a program of the reader's; tests/interop/grpcdebug",
    r"export ": "belongs to the line after it",
}


def commands():
    for block in blocks("console"):
        lines = block.body.splitlines()
        for index, line in enumerate(lines):
            if line.startswith("$ "):
                output = [text for text in lines[index + 1 :] if text.strip()]
                until = next((at for at, text in enumerate(output) if text.startswith("$ ")), len(output))
                yield f"{block}+{index}", line[2:], output[:until]


def why_not(command):
    return next((why for pattern, why in NOT_HERE.items() if re.match(pattern, command)), "")


@pytest.mark.parametrize(
    ("command", "output"),
    [
        pytest.param(command, output, id=place)
        for place, command, output in commands()
        if not why_not(command)
    ],
)
def test_a_command_does_what_its_page_says(command, output, place):
    directory, localized = place
    done = run(["bash", "-c", localized(command)], directory)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip()
    if output:
        assert done.stdout.splitlines() == output


def test_every_reason_not_to_run_a_command_is_of_one():
    shown = [command for _, command, _ in commands()]
    assert shown
    for pattern in NOT_HERE:
        assert any(re.match(pattern, command) for command in shown), pattern


# --- types --------------------------------------------------------------------------------------------------------


@pytest.mark.timeout(300)  # the types of openai, anthropic and google-genai are large, and are read once
def test_type_checkers_accept_every_program(tmp_path):
    """Not strictly: a page shows no annotation for its own sake."""
    named = {}
    for block in blocks("python"):
        if "/decisions/" in block.page or block.page.endswith("jupyter.md"):
            continue  # cells await at the top, and go on from one to the next
        module = re.sub(r"\W", "_", f"{block.page.removesuffix('.md')}_{block.number}")
        said = re.match(r'"""(\w+)\.py', block.body)
        if said and said[1] not in named:
            module = said[1]  # other blocks of its page import it
        named[module] = block
        (tmp_path / f"{module}.py").write_text(block.body)
    (tmp_path / "shop.py").write_text(next(b.body for b in blocks("python") if "def reserve" in b.body))
    config = (
        "[mypy]\ncheck_untyped_defs = True\nwarn_unused_ignores = True\nimplicit_reexport = False\n"
        "[mypy-celery.*,django.*,gevent.*,grpc.experimental.*,uwsgidecorators.*]\nignore_missing_imports = True\n"
    )
    (tmp_path / "mypy.ini").write_text(config)
    done = subprocess.run(
        [
            str(BIN / "mypy"),
            "--config-file",
            "mypy.ini",
            "--python-executable",
            sys.executable,
            *sorted(path.name for path in tmp_path.glob("*.py")),
        ],
        cwd=tmp_path,
        env={
            **os.environ,
            "MYPYPATH": f"{ROOT}:{ROOT / 'adapters'}",
            "MYPY_CACHE_DIR": str(ROOT / ".mypy_cache" / "pages"),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    said = re.sub(
        r"^(\w+)\.py", lambda found: str(named.get(found[1], found[1])), done.stdout, flags=re.MULTILINE
    )
    assert done.returncode == 0, said
