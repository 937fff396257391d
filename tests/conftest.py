"""What holds for every test: sockets stay on loopback, and on CI a test that did not run is a failure."""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import importlib.metadata
import ipaddress
import os
import signal
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest

from tests.support.raw_server import RawServer

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

CI = os.environ.get("CI", "").lower() not in {"", "0", "false"}

# An installed meshlib brings its test kit as a plugin; a bare checkout loads it by name.
_INSTALLED = any(point.name == "meshlib" for point in importlib.metadata.entry_points(group="pytest11"))
_PLUGIN = Path(__file__).resolve().parents[1] / "meshlib" / "testing" / "plugin.py"
if not _INSTALLED and _PLUGIN.exists():
    pytest_plugins = ["meshlib.testing.plugin"]

# A shell that runs this in the background ignores SIGINT, and so would every process that a test starts and interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A loaded machine is slow at times: the time that an example takes proves nothing. CI repeats the same examples.
hypothesis.settings.register_profile("dev", deadline=None, print_blob=True)
hypothesis.settings.register_profile("ci", deadline=None, print_blob=True, derandomize=True)
hypothesis.settings.load_profile("ci" if CI else "dev")


def pytest_collection_finish() -> None:
    """What was imported and collected stays to the end: no collection need look at it again, and tests have many."""
    gc.collect()
    gc.freeze()


# ------------------------------------------------------------------------------ the test kit's fixtures, by short names


@pytest.fixture
def control_plane(meshlib_control_plane: Any) -> Any:
    """`meshlib_control_plane`."""
    return meshlib_control_plane


@pytest.fixture
def upstream(meshlib_upstream: Any) -> Any:
    """`meshlib_upstream`."""
    return meshlib_upstream


@pytest.fixture
def server() -> Iterator[RawServer]:
    """One that keeps what arrives byte for byte."""
    with RawServer() as made:
        yield made


# ------------------------------------------------------------------------------------------ a skip is a failure on CI


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    return _refuse_skip(report) if CI else report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    return _refuse_skip(report) if CI else report


def _refuse_skip(report: Any) -> Any:
    """The same report, as a failure if it is a skip; an expected failure is no skip."""
    if report.outcome == "skipped" and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid} did not run, and on CI everything runs: {reason}"
    return report


# --------------------------------------------------------------------------- how a worker died, where its report says


def _last_words(run: str, worker: str) -> Path:
    """Where a worker of a run says what all its threads do when it crashes: its stderr is captured, and lost with it."""
    return Path(tempfile.gettempdir(), f"meshlib-tests-{run}-{worker}")


@pytest.hookimpl(trylast=True)  # pytest's own has them on stderr
def pytest_configure(config: pytest.Config) -> None:
    worker = getattr(config, "workerinput", None)
    if worker is not None:
        path = _last_words(worker["testrunuid"], worker["workerid"])
        config.stash[_WORDS] = words = path.open("w")
        faulthandler.enable(words)


def pytest_unconfigure(config: pytest.Config) -> None:
    words = config.stash.get(_WORDS, None)
    if words is not None:
        faulthandler.disable()
        words.close()
        Path(words.name).unlink()


_WORDS: pytest.StashKey[Any] = pytest.StashKey()


@pytest.hookimpl(optionalhook=True)
def pytest_handlecrashitem(report: Any) -> None:
    node = report.node
    path = _last_words(node.workerinput["testrunuid"], node.gateway.id)
    with contextlib.suppress(OSError):
        code = node.gateway._io.popen.wait(10)
        report.longrepr += f" (exit code {code})\n{path.read_text()}"
        path.unlink()


# ------------------------------------------------------------------------------------------------- loopback, or fail


class OutsideLoopbackError(AssertionError):
    """A test reached for the network. Not an OSError: code under test would take it for a peer's failure."""


_LOCAL_NAMES = {"", "localhost", "localhost.", "ip6-localhost", socket.gethostname()}
_outside: list[str] = []


def _is_local(host: object) -> bool:
    """Whether `host`, a name or an address as sockets take them, stays on this machine."""
    if host is None:
        return True
    text = host.decode("ascii", "replace") if isinstance(host, bytes) else str(host)
    if text.lower() in _LOCAL_NAMES or text.lower().endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(text.split("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None) or address
    return mapped.is_loopback or mapped.is_unspecified


def _guarded(name: str, where: int) -> Any:
    """socket.socket's method `name`, which has the address at position `where`, held to loopback."""
    original = getattr(socket.socket, name)

    def method(self: socket.socket, *arguments: Any) -> Any:
        address = arguments[where]
        if self.family in {socket.AF_INET, socket.AF_INET6} and not _is_local(address[0]):
            _outside.append(f"socket.{name}({address!r})")
            raise OutsideLoopbackError(f"a test may only use loopback: socket.{name}({address!r})")
        return original(self, *arguments)

    return method


_getaddrinfo = socket.getaddrinfo


def _resolve(host: Any, *arguments: Any, **options: Any) -> Any:
    """getaddrinfo without a resolver: what is not on this machine is not known, as quickly as that can be said."""
    text = host.decode("ascii", "replace") if isinstance(host, bytes) else host
    if not _is_local(text):
        try:
            ipaddress.ip_address(str(text).split("%")[0])
        except ValueError:
            raise socket.gaierror(socket.EAI_NONAME, f"no names are resolved in tests: {text!r}") from None
    return _getaddrinfo(host, *arguments, **options)


@pytest.fixture(scope="session", autouse=True)
def _loopback_only() -> Iterator[None]:
    """Python's own sockets reach loopback and Unix paths only; grpc's and uvloop's are not Python's."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("bind", "connect", "connect_ex"):
            patch.setattr(socket.socket, name, _guarded(name, 0))
        patch.setattr(socket.socket, "sendto", _guarded("sendto", -1))
        patch.setattr(socket, "getaddrinfo", _resolve)
        yield


@pytest.fixture(autouse=True)
def _loopback_kept(_loopback_only: None) -> Iterator[None]:
    """Fail the test that reached outside, also where its code swallowed the error."""
    _outside.clear()
    yield
    reached, _outside[:] = list(_outside), []
    if reached:
        raise OutsideLoopbackError(f"a test may only use loopback: {', '.join(reached)}")


# ------------------------------------------------------------------------------------------------------ environment


_PROXIES = {"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR"}
_SETTINGS = ("MESHLIB_", "GRPC_XDS_", "OTEL_")
_FOR_TESTS = ("MESHLIB_ORACLE_", "MESHLIB_TEST_")


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the developer's shell reaches a test: neither meshlib's variables nor a proxy."""
    for name in list(os.environ):
        upper = name.upper()
        if upper in _PROXIES or (upper.startswith(_SETTINGS) and not upper.startswith(_FOR_TESTS)):
            monkeypatch.delenv(name)
