from __future__ import annotations

import importlib
import inspect
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import meshlib

ROOT = Path(__file__).resolve().parents[2]

NAMES = {
    "AsyncClient", "AsyncTransport", "Attempt", "CallInfo", "CallOptions", "CircuitOpen", "Client", "ClusterStatus",
    "Config", "ConfigDict", "ConfigError", "ConnectFailed", "DeadlineExceeded", "Decision", "DiscoveryError", "EndpointStatus",
    "Ignored", "Mesh", "MeshError", "NoHealthyEndpoint", "NotReady", "Overloaded", "ProcessStatus", "ProtocolError",
    "Rejected", "Response", "RetryBudget", "RetryDict", "RetryPolicy", "ServiceDict", "SidecarStatus", "Snapshot", "SourceStatus", "Status",
    "Transport", "TransportFailed", "UnavailableError", "UnknownService", "__version__", "call_info", "deadline",
    "default",
}  # fmt: skip
#: Names of the package that a star does not bring.
MODULES = {"grpc", "httpx2"}


def python(script):
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_public_names_are_these():
    """Adding one is a decision; taking one away breaks who uses it."""
    assert set(meshlib.__all__) == NAMES
    assert set(dir(meshlib)) == NAMES | MODULES


@pytest.mark.parametrize("name", sorted(NAMES | MODULES))
def test_each_is_there(name):
    assert getattr(meshlib, name) is not None
    assert getattr(meshlib, name) is getattr(meshlib, name)


def test_a_name_that_is_none_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nosuch"):
        meshlib.nosuch  # noqa: B018


def test_type_checkers_and_the_program_find_the_same_names():
    """What is imported for type checkers is what is loaded when it is used."""
    source = (ROOT / "meshlib" / "__init__.py").read_text()
    block = source.split("if TYPE_CHECKING:", 1)[1].split("__version__", 1)[0]
    for name in (NAMES | MODULES) - {"__version__"}:
        assert name in block.replace(",", " ").replace("(", " ").split(), name


def test_the_version_is_the_projects():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert meshlib.__version__ == project["version"]


def test_every_error_is_a_mesh_error():
    for name in NAMES:
        value = getattr(meshlib, name)
        if isinstance(value, type) and issubclass(value, Exception):
            assert issubclass(value, meshlib.MeshError)


def test_import_loads_nothing_heavy_and_starts_nothing():
    out = python(
        "import sys, threading, meshlib\n"
        "heavy = {'grpc', 'google.protobuf', 'httpx', 'httpcore', 'httpx2', 'dns', 're2', 'asyncio', 'ssl', 'tenacity',\n"
        "         'pybreaker', 'opentelemetry', 'yaml', 'importlib.metadata'}\n"
        "print(sorted(heavy & set(sys.modules)), threading.active_count())"
    )
    assert out.split("\n")[0] == "[] 1"


def test_a_mesh_and_its_status_need_nothing_heavy_either():
    out = python(
        "import sys, meshlib\n"
        "mesh = meshlib.Mesh({'services': {'a': {'endpoints': ['127.0.0.1:1']}}, 'xds': {'server': '127.0.0.1:2'}})\n"
        "mesh.status()\n"
        "print(sorted({'grpc', 'google.protobuf', 'httpx', 'dns', 'opentelemetry'} & set(sys.modules)))"
    )
    assert out.strip() == "[]"


class TestGrpc:
    def test_it_can_be_imported(self):
        import meshlib.grpc

        assert meshlib.grpc.__all__ == ["ServerInterceptor", "channel"]
        assert meshlib.grpc.aio.__all__ == ["ServerInterceptor", "channel"]
        for place in (meshlib.grpc, meshlib.grpc.aio):
            assert all(getattr(place, name) for name in place.__all__)

    def test_it_loads_grpc_only_when_it_is_used(self):
        out = python(
            "import sys, meshlib.grpc, meshlib.grpc.aio\nprint(sorted({'grpc', 'google.protobuf'} & set(sys.modules)))"
        )
        assert out.strip() == "[]"

    def test_what_is_no_name_of_it_is_an_attribute_error(self):
        assert not hasattr(meshlib.grpc, "nosuch")
        assert not hasattr(meshlib.grpc, "__wrapped__")


# --- the adapters, and the page that lists all of it ---------------------------------------------------------------------

#: Of meshlib_requests, what is not requests' own object.
OF_REQUESTS = {
    "MeshAdapter", "PoolManager", "Session", "adapters", "api", "call_options", "delete", "get", "head", "options", "patch",
    "post", "put", "request", "session", "sessions",
}  # fmt: skip
ADAPTERS = {
    "meshlib.auto": {"install", "remove"},
    "meshlib_aiohttp": {"ClientSession", "Connector", "connector"},
    "meshlib_asgi": {"Middleware"},
    "meshlib_django": {"Middleware"},
    "meshlib_flask": {"Meshlib", "State"},
    "meshlib_pyqwest": {"SyncTransport", "Transport"},
    "meshlib_requests": OF_REQUESTS,
    "meshlib_wsgi": {"Middleware"},
}
PAGE = (ROOT / "docs" / "reference" / "api.md").read_text()
#: What a definition list defines: the lines before those that begin with a colon.
DEFINED = re.findall(r"^(.+)\n:   ", PAGE, re.MULTILINE)


@pytest.fixture
def auto():
    """``meshlib.auto`` patches when it is imported; here nothing shall stay so."""
    import meshlib.auto

    yield meshlib.auto
    meshlib.auto.remove()


def module(name):
    return importlib.import_module(name)


@pytest.mark.parametrize("package", sorted(set(ADAPTERS) - {"meshlib_requests", "meshlib.auto"}))
def test_the_public_names_of_an_adapter_are_these(package):
    assert set(module(package).__all__) == ADAPTERS[package]
    for name in ADAPTERS[package]:
        assert getattr(module(package), name) is not None


def test_the_public_names_of_meshlib_auto_are_these(auto):
    assert set(auto.__all__) == ADAPTERS["meshlib.auto"]


def test_what_meshlib_requests_has_is_requests_own_or_one_of_these():
    ours, theirs = module("meshlib_requests"), module("requests")
    own = {name for name in ours.__all__ if getattr(ours, name) is not getattr(theirs, name, None)}
    assert own == OF_REQUESTS


@pytest.mark.parametrize(
    ("package", "name"), [(package, name) for package, names in ADAPTERS.items() for name in sorted(names)]
)
def test_the_page_lists_each_name_of_an_adapter(package, name):
    """As ``package.name``, or as ``.name`` in a line that names the package."""
    lines = [line for line in DEFINED if f"`{package}." in line]
    assert any(re.search(rf"[`\w]\.{name}\b|`\.{name}\b", line) for line in lines), name


def shown_calls():
    """``what(arguments)`` of the page's definitions: the object, and its arguments as the page has them."""
    for line in DEFINED:
        package = ""
        for span in re.findall(r"`([^`]+)`", line):
            found = re.fullmatch(r"(?:with )?([\w.]+)\((.*)\):?", span)
            path = found[1] if found else span
            if path.startswith("."):
                path = package.rpartition(".")[0] + path if "." in package else package + path
            elif "." in path:
                package = path
            if found and found[2] and path.split(".")[0].startswith(("mesh", "Config")):
                yield path, found[2]


@pytest.mark.parametrize(("path", "arguments"), list(shown_calls()), ids=lambda value: value.split("(")[0])
def test_the_arguments_that_the_page_shows_are_those(path, arguments):
    owner, _, rest = path.partition(".")
    if path == "meshlib_flask.init_app":
        path = "meshlib_flask.Meshlib.init_app"
    if owner == "mesh":
        path = f"meshlib.Mesh.{rest}"
    parts = path.split(".")
    found = module(parts[0])
    for part in parts[1:]:
        found = getattr(found, part) if hasattr(found, part) else module(f"{found.__name__}.{part}")
    parameters = inspect.signature(found).parameters
    for argument in re.sub(r"\{\}", "None", arguments).split(", "):
        name, _, value = argument.partition("=")
        if name in {"*", "…"} or name.startswith("*"):
            continue
        assert name in parameters, f"{path} has no {name}"
        if value:
            assert repr(parameters[name].default) == value, f"{path}: {name}"


def test_there_are_arguments_to_compare():
    assert len(list(shown_calls())) >= 20
