from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import meshlib

ROOT = Path(__file__).resolve().parents[2]

NAMES = {
    "AsyncClient", "AsyncTransport", "Attempt", "CallInfo", "CallOptions", "CircuitOpen", "Client", "ClusterStatus",
    "Config", "ConfigError", "ConnectFailed", "DeadlineExceeded", "Decision", "DiscoveryError", "EndpointStatus",
    "Ignored", "Mesh", "MeshError", "NoHealthyEndpoint", "NotReady", "Overloaded", "ProcessStatus", "ProtocolError",
    "Rejected", "Response", "RetryBudget", "RetryPolicy", "SidecarStatus", "Snapshot", "SourceStatus", "Status",
    "Transport", "TransportFailed", "UnavailableError", "UnknownService", "__version__", "call_info", "deadline",
    "default", "grpc", "httpx2",
}  # fmt: skip


def python(script):
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_public_names_are_these():
    """Adding one is a decision; taking one away breaks who uses it."""
    assert set(meshlib.__all__) == NAMES
    assert set(dir(meshlib)) == NAMES


@pytest.mark.parametrize("name", sorted(NAMES))
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
    for name in NAMES - {"__version__"}:
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

        assert meshlib.grpc.__all__ == []

    @pytest.mark.parametrize("name", ["channel", "aio"])
    def test_its_use_says_that_it_comes_later(self, name):
        with pytest.raises(NotImplementedError, match="not yet supported"):
            getattr(meshlib.grpc, name)

    def test_what_is_no_name_of_it_is_an_attribute_error(self):
        assert not hasattr(meshlib.grpc, "nosuch")
        assert not hasattr(meshlib.grpc, "__wrapped__")
