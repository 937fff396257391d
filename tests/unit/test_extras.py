"""Without an extra: everything else works, and what needs the extra names the command that brings it.

The programs here see the base dependencies and nothing else: a directory with links to them, and no site-packages.
"""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

#: What asks for an extra → the extra. The program ends with the error, whose last line is looked at.
NAMED = {
    "import meshlib.httpx2": "httpx2",
    "from meshlib import httpx2": "httpx2",
    "import meshlib; meshlib.httpx2.Client": "httpx2",
    "import meshlib_requests": "requests",
    "import meshlib_requests.urllib3": "requests",
    "from meshlib_requests import *": "requests",
    "import meshlib_aiohttp": "aiohttp",
    "from meshlib_aiohttp import ClientSession": "aiohttp",
    "import meshlib_pyqwest": "pyqwest",
    "from meshlib_pyqwest import Transport": "pyqwest",
    "import meshlib_django; meshlib_django.Middleware": "django",
    "from meshlib_django import Middleware": "django",
    "import meshlib; meshlib.Config.from_file('mesh.yaml')": "yaml",
    "import meshlib; meshlib.Mesh('mesh.yaml')": "yaml",
    "import meshlib.cli, sys; sys.exit(meshlib.cli.main(['check', 'mesh.toml']))": "cli",
    "import runpy; runpy.run_module('meshlib', run_name='__main__')": "cli",
}

#: Extras that nothing of ours imports.
OTHERS = {
    "dev": "for work on meshlib itself",
    "flask": "meshlib_flask takes an application, and so the caller has Flask",
    "http2": "a call finds it out, below",
    "otel": "an SDK, which the program sets up; meshlib speaks to the API",
    "redis": "a storage, which the caller makes and hands over",
}

#: What looks at names and must meet no error, whatever is missing.
LOOKS = {
    "help": "import pydoc, {0}; pydoc.render_doc({0})",
    "help by name": "import pydoc; pydoc.render_doc({0!r})",
    "completion": "import rlcompleter, {0}; assert rlcompleter.Completer({{'it': {0}}}).attr_matches('it.')",
    "inspect": "import inspect, {0}; inspect.getmembers({0})",
    "star": "import {0} as it; exec('from {0} import *'); assert set(it.__all__) <= set(globals())",
    "hasattr": "import {0}; hasattr({0}, 'nosuch')",
}
WHOLE = ("meshlib", "meshlib.grpc", "meshlib.testing", "meshlib_asgi", "meshlib_flask", "meshlib_wsgi")


def requirements(name: str, seen: set[str]) -> set[str]:
    """``name`` and what it needs without any extra, all the way down."""
    if name in seen:
        return seen
    seen.add(name)
    for line in importlib.metadata.requires(name) or ():
        needed = Requirement(line)
        if needed.marker is None or needed.marker.evaluate({"extra": ""}):
            requirements(needed.name, seen)
    return seen


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """Runs a program that finds the standard library, meshlib and the base dependencies."""
    place = tmp_path_factory.mktemp("bare")
    (place / "mesh.toml").write_text("[services]\n")
    (place / "mesh.yaml").write_text("services: {}\n")
    found: set[str] = set()
    for line in PROJECT["dependencies"]:
        requirements(Requirement(line).name, found)
    for name in found:
        distribution = importlib.metadata.distribution(name)
        for top in {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
            link = place / top
            if not link.exists():
                link.symlink_to(Path(str(distribution.locate_file(top))))

    def run(code: str) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join(map(str, (place, ROOT, ROOT / "adapters")))
        return subprocess.run(
            [sys.executable, "-S", "-W", "error::SyntaxWarning", "-c", code],
            env={"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
            cwd=place,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


@pytest.mark.parametrize("module", ["requests", "httpx2", "aiohttp", "django", "yaml", "rich", "h2", "flask"])
def test_what_the_extras_bring_is_really_absent(bare, module):
    assert bare(f"import {module}").returncode == 1


@pytest.mark.parametrize("code", NAMED)
def test_what_needs_an_extra_names_it(bare, code):
    done = bare(code)
    assert done.returncode in {1, 2}
    assert f"python -m pip install 'meshlib-client[{NAMED[code]}]'" in done.stderr.strip().splitlines()[-1]
    assert "which is not installed" in done.stderr


def test_an_import_that_fails_is_a_module_that_is_not_found_under_its_own_name(bare):
    code = "try:\n    import meshlib_requests\nexcept ModuleNotFoundError as missing:\n    print(missing.name, missing.__cause__)"
    assert bare(code).stdout.split() == ["requests", "None"]


@pytest.mark.parametrize("package", WHOLE)
@pytest.mark.parametrize("look", LOOKS)
def test_who_looks_at_names_meets_no_error(bare, look, package):
    done = bare(LOOKS[look].format(package))
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("look", ["help", "completion", "inspect"])
def test_who_looks_at_the_names_of_the_django_application_meets_no_error(bare, look):
    done = bare(LOOKS[look].format("meshlib_django"))
    assert (done.returncode, done.stderr) == (0, "")


def test_a_library_that_is_missing_is_an_attribute_that_is_missing(bare):
    assert bare("import meshlib; print(hasattr(meshlib, 'httpx2'))").stdout == "False\n"


def test_a_star_hides_no_library(bare):
    """``grpc`` and ``httpx2`` of meshlib have the names of libraries that the program may have imported before."""
    code = "import grpc as before\ngrpc = before\nfrom meshlib import *\nassert grpc is before"
    assert bare(code).returncode == 0


def test_every_extra_is_here():
    assert set(PROJECT["optional-dependencies"]) == set(NAMED.values()) | set(OTHERS)


OVER_HTTP2 = """
import json, pathlib
import meshlib
from meshlib.testing import Upstream, build

with Upstream("a") as upstream:
    cluster = build.cluster("reviews-h2", [upstream.address], http2_protocol_options={})
    routes = [build.virtual_host("all", build.route(cluster="reviews-h2"))]
    listener = build.listener("reviews", build.route_config("all", *routes), address="127.0.0.1:8001")
    pathlib.Path("envoy.json").write_text(json.dumps({"listeners": [listener], "clusters": [cluster]}))
    with meshlib.Mesh({"services_file": "envoy.json"}) as mesh, meshlib.Client(mesh=mesh) as client:
        mesh.wait_ready()
        client.get("http://127.0.0.1:8001/")
"""


def test_a_cluster_of_http2_names_the_extra_that_it_needs(bare):
    said = bare(OVER_HTTP2).stderr.strip().splitlines()[-1]
    remedy = "python -m pip install 'meshlib-client[http2]'"
    assert said == f"httpx.UnsupportedProtocol: cluster 'reviews-h2' wants HTTP/2, which needs h2: {remedy}"
