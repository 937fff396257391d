"""Builds the control planes that the tests here talk to: ``python tests/interop/build.py [NAME…]``, or all of PROGRAMS.

A binary is kept in ``build/interop/`` under the hash of all that it is made of (our sources, the pinned modules, the
language's own version), so that a second call costs nothing. The first build of go-control-plane takes about a minute on
two cores, that of istiod two to five, and both read modules through Go's ordinary proxy; java-control-plane takes half a
minute, and Maven brings its libraries; Envoy Gateway takes ten, and so do SPIRE's server and agent together.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HERE = Path(__file__).resolve().parent
KEPT = HERE.parents[1] / "build" / "interop"

ISTIO_MODULE = "istio.io/istio"
ISTIO_VERSION = "v0.0.0-20260423205519-b01690e6db7d"
GATEWAY_MODULE = "github.com/envoyproxy/gateway"
GATEWAY_VERSION = "v1.9.1"
SPIRE_MODULE = "github.com/spiffe/spire"
SPIRE_VERSION = "v1.13.3"

INSTALL_GO = "apt-get install -y golang-go"
INSTALL_JAVA = "apt-get install -y openjdk-17-jdk-headless maven"


class ToolMissing(Exception):
    """What builds a program is not on this machine; the text says how to get it."""


class GoMissing(ToolMissing):
    """There is no Go."""


class JavaMissing(ToolMissing):
    """There is no JDK, or no Maven."""


class BuildFailed(Exception):
    """All was there and could not build; the text is what it said."""


def go() -> str:
    """Go's command. Raises GoMissing."""
    found = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin:/usr/lib/go/bin")
    if found is None:
        raise GoMissing(f"Go is needed to build the control plane and is not installed: {INSTALL_GO}")
    return found


def go_control_plane() -> Path:
    """The binary of go-control-plane/, built if need be."""
    return go_program(HERE / "go-control-plane")


def kato() -> Path:
    """The binary of kato/, built if need be."""
    return go_program(HERE / "kato")


def go_program(sources: Path) -> Path:
    """The binary of the Go module in that folder, built if need be. Raises GoMissing, BuildFailed."""

    def build(binary: Path) -> None:
        _run(["build", "-trimpath", "-mod=readonly", "-o", str(binary), "."], sources)

    return _kept(sources.name, [*sources.glob("*.go"), *sources.glob("go.*")], _go_version(), build)


def istiod() -> Path:
    """The binary of istiod/, built if need be."""
    files = list((HERE / "istiod").glob("*.go"))

    def build(binary: Path) -> None:
        _beside("istiod", ISTIO_MODULE, ISTIO_VERSION, files, ".", binary)

    return _kept("istiod", files, _go_version() + ISTIO_VERSION, build)


def envoy_gateway() -> Path:
    """Envoy Gateway's own program, built if need be."""

    def build(binary: Path) -> None:
        _beside(
            "envoy-gateway",
            GATEWAY_MODULE,
            GATEWAY_VERSION,
            [],
            f"{GATEWAY_MODULE}/cmd/envoy-gateway",
            binary,
        )

    return _kept("envoy-gateway", [], _go_version() + GATEWAY_VERSION, build)


def spire_server() -> Path:
    """SPIRE's own server, built if need be."""
    return _spire("spire-server")


def spire_agent() -> Path:
    """SPIRE's own agent, built if need be."""
    return _spire("spire-agent")


def _spire(name: str) -> Path:
    def build(binary: Path) -> None:
        _beside(name, SPIRE_MODULE, SPIRE_VERSION, [], f"{SPIRE_MODULE}/cmd/{name}", binary)

    return _kept(name, [], _go_version() + SPIRE_VERSION, build)


def _beside(name: str, module: str, version: str, files: list[Path], package: str, binary: Path) -> None:
    """Builds a package with what another module requires: its go.mod is that of the module with another name, and its
    go.sum that module's. Some sums cannot be looked up, and other versions have never been tested with it.
    """
    folder = binary.parent / f"{name}-source"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    found = json.loads(_run(["mod", "download", "-json", f"{module}@{version}"], folder))
    requirements = (Path(found["Dir"]) / "go.mod").read_text(encoding="utf-8").splitlines()
    named = [
        f"module meshlib/interop/{name}" if line.startswith("module ") else line for line in requirements
    ]
    _write(folder / "go.mod", [*named, "", f"require {module} {version}"])
    sums = (Path(found["Dir"]) / "go.sum").read_text(encoding="utf-8").splitlines()
    own = [f"{module} {version} {found['Sum']}", f"{module} {version}/go.mod {found['GoModSum']}"]
    _write(folder / "go.sum", [*sums, *own])
    for file in files:
        shutil.copy(file, folder)
    _run(["build", "-trimpath", "-mod=mod", "-o", str(binary), package], folder)
    shutil.rmtree(folder)


def java_control_plane() -> Path:
    """The program of java-control-plane/, built if need be: a script, and the jar that it starts behind it."""
    folder = HERE / "java-control-plane"
    java, javac, jar, maven = (_java(name) for name in ("java", "javac", "jar", "mvn"))

    def build(binary: Path) -> None:
        with tempfile.TemporaryDirectory() as made:
            shutil.copy(folder / "pom.xml", made)
            _said(
                [maven, "-B", "-q", "dependency:build-classpath", "-Dmdep.outputFile=classpath"], Path(made)
            )
            libraries = (Path(made) / "classpath").read_text(encoding="utf-8").strip()
            sources = [str(path) for path in folder.glob("*.java")]
            _said([javac, "-cp", libraries, "-d", "classes", *sources], Path(made))
            _said([jar, "--create", "--file", "program.jar", "-C", "classes", "."], Path(made))
            options = "-XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xmx256m"
            script = f'#!/bin/sh\nexec "{java}" {options} -cp "$0:{libraries}" Main "$@"\n'
            binary.write_bytes(script.encode() + (Path(made) / "program.jar").read_bytes())
        binary.chmod(0o755)

    version = _said([java, "--version"], HERE)
    return _kept(folder.name, [*folder.glob("*.java"), folder / "pom.xml"], version, build)


def _java(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise JavaMissing(f"{name} is needed to build the control plane and is not installed: {INSTALL_JAVA}")
    return found


PROGRAMS: dict[str, Callable[[], Path]] = {
    "go-control-plane": go_control_plane,
    "istiod": istiod,
    "java-control-plane": java_control_plane,
    "kato": kato,
    "envoy-gateway": envoy_gateway,
    "spire-server": spire_server,
    "spire-agent": spire_agent,
}


def _kept(name: str, files: list[Path], tools: str, build: Callable[[Path], None]) -> Path:
    """The binary for this content, made by these versions of tools. One process builds, others wait for it; binaries of
    older content go.
    """
    digest = hashlib.sha256(tools.encode())
    for file in sorted(files):
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    KEPT.mkdir(parents=True, exist_ok=True)
    binary = KEPT / f"{name}-{digest.hexdigest()[:16]}"
    with _locked(KEPT / f"{name}.lock"):
        if not binary.exists():
            unfinished = KEPT / f"{name}.new"
            build(unfinished)
            for old in KEPT.glob(f"{name}-{'[0-9a-f]' * 16}"):
                old.unlink()
            unfinished.rename(binary)
    return binary


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _go_version() -> str:
    # Outside the package folder, as there is no module there: Go would read its go.mod for another toolchain.
    return _run(["env", "GOVERSION", "GOOS", "GOARCH"], HERE)


def _run(arguments: list[str], folder: Path) -> str:
    return _said([go(), *arguments], folder)


def _said(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        words = " ".join(command)[:200]
        raise BuildFailed(f"{words}, in {folder.name}:\n{done.stdout}{done.stderr}")
    return done.stdout


def _write(path: Path, lines: list[str]) -> None:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def main(names: list[str]) -> int:
    unknown = [name for name in names if name not in PROGRAMS]
    if unknown:
        print(f"no such program: {', '.join(unknown)}; there are {', '.join(PROGRAMS)}", file=sys.stderr)
        return 2
    try:
        for name in names or list(PROGRAMS):
            print(f"{name}: {PROGRAMS[name]()}", flush=True)
    except (ToolMissing, BuildFailed) as problem:
        print(problem, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
