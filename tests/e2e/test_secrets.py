"""Secrets looked for, byte by byte, in all that a mesh tells.

A whole mesh runs with recognisable keys, tokens and passwords in every place by which they can come; it makes calls of each kind, good
and bad. Then what it tells by each surface is searched for every one of them. A surface that said nothing at all would pass, so each
must have a word that shows it was read.
"""

from __future__ import annotations

import asyncio
import base64
import gc
import io
import json
import logging
import os
import pickle
import socket
import ssl
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any
from wsgiref.util import setup_testing_defaults

import grpc
import pytest
import trustme
from cryptography.hazmat.primitives import serialization

import meshlib
import meshlib_aiohttp
import meshlib_requests
import meshlib_wsgi
from meshlib.testing import ControlPlane, Upstream, build
from meshlib.xds import schema
from tests.support import telemetry
from tests.support.watch import Watch

#: All of it is one program's life.
pytestmark = pytest.mark.timeout(300)

AUTHORITY = trustme.CA()
TLS = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
PASSWORD = "passphrase-of-the-key"
#: By where they come in. Of a PEM key each line is looked for.
TOKENS = {
    name: f"{name.replace(' ', '-')}-5f3a9c1e7b2d4068"
    for name in (
        "callable", "file", "control plane", "jar", "route", "matched", "inbound", "metadata",
        *("own header", "own answer", "own cookie", "own value", "own rpc"),
    )
}  # fmt: skip


def issued(*names: str) -> tuple[str, str]:
    made = AUTHORITY.issue_cert(*names)
    return "".join(
        pem.bytes().decode() for pem in made.cert_chain_pems
    ), made.private_key_pem.bytes().decode()


def encrypted(key: str) -> str:
    read = serialization.load_pem_private_key(key.encode(), None)
    kind = serialization.BestAvailableEncryption(PASSWORD.encode())
    return read.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, kind
    ).decode()


KEYS = {
    name: issued(name) for name in ("inline", "of-sds", "of-a-file", "of-the-service", "of-the-stream", "me")
}
CA = AUTHORITY.cert_pem.bytes().decode()


def markers() -> dict[str, bytes]:
    """What must be nowhere: its text, and what it becomes on the way."""
    found: dict[str, bytes] = {PASSWORD: PASSWORD.encode()}
    for name, token in TOKENS.items():
        found[name] = token.encode()
        found[f"{name}, base64"] = base64.b64encode(token.encode()).rstrip(b"=")[4:-4]
    for name, (_, key) in KEYS.items():
        lines = [line for line in key.splitlines() if line and not line.startswith("-----")]
        for number, line in enumerate(lines):
            found[f"key {name}, line {number}"] = line[:32].encode()
        read = serialization.load_pem_private_key(key.encode(), None)
        secret = read.private_numbers().private_value.to_bytes(32, "big")  # type: ignore[union-attr]
        found[f"key {name}, raw"] = secret
        found[f"key {name}, hex"] = secret.hex().encode()
    return found


class Records(logging.Handler):
    """All that all loggers say, at every level, with the tracebacks."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.setFormatter(logging.Formatter("%(name)s %(levelname)s %(message)s"))
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


class Stage:
    """The mesh, and what it said by each surface."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.errors: list[BaseException] = []
        self.values: list[Any] = []
        self.said: dict[str, bytes] = {}

    def path(self, name: str, text: str) -> str:
        file = self.folder / name
        file.write_text(text)
        file.chmod(0o600)
        return str(file)

    def fails(self, call: Callable[[], Any]) -> None:
        try:
            call()
        except Exception as error:  # noqa: BLE001 - it is looked through
            self.errors.append(error)
        else:
            raise AssertionError("it did not fail")

    # --- what there is ------------------------------------------------------------------------------------------------

    def config(self, plane: str, up: Upstream, closed: str) -> dict[str, Any]:
        secure = {"ca": self.path("ca.pem", CA)}
        service = self._pair("of-the-service")
        tokens = {"token": self.path("token", TOKENS["file"])}
        edits = {"set": {"authorization": f"Bearer {TOKENS['route']}"}}
        return {
            "node": {"id": "n", "metadata": {"api_token": TOKENS["metadata"]}},
            "xds": {
                "server": plane,
                "view": "sidecar",
                "tls": {**secure, **self._pair("of-the-stream")},
                "token": self.path("stream-token", TOKENS["control plane"]),
                "last_good": str(self.folder / "last-good"),
            },
            "identity": {"provider": "files", **secure, **self._pair("me")},
            "admin": {"enabled": True, "runtime_dir": str(self.folder / "run"), "csds": self.csds},
            "inbound": {"access_log": "json"},
            "services": {
                "tokens": {"endpoints": [up.address], "tls": {**secure, **service}, **tokens},
                "routed": {
                    "endpoints": [up.address],
                    "tls": secure,
                    "routes": [
                        {
                            "match": {"headers": {"authorization": f"Bearer {TOKENS['own value']}"}},
                            "request_headers": edits,
                        }
                    ],
                },
                "plain": {"endpoints": [closed], "tls": secure, **tokens},
                "lost": {"endpoints": [up.address], "tls": secure, "token": str(self.folder / "no-token")},
            },
        }

    @property
    def csds(self) -> str:
        return f"unix:{self.folder}/csds"

    def _pair(self, name: str) -> dict[str, str]:
        chain, key = KEYS[name]
        return {"cert": self.path(f"{name}.pem", chain), "key": self.path(f"{name}.key", key)}

    def resources(self, up: Upstream) -> list[Any]:
        file = self._pair("of-a-file")
        chain, key = KEYS["inline"]
        ads: dict[str, Any] = {"ads": {}}
        validation = {"trusted_ca": {"inline_string": CA}}
        contexts: dict[str, Any] = {
            "inline": {
                "tls_certificates": [
                    {"certificate_chain": {"inline_string": chain}, "private_key": {"inline_string": key}}
                ]
            },
            "file": {
                "tls_certificates": [
                    {
                        "certificate_chain": {"filename": file["cert"]},
                        "private_key": {"filename": file["key"]},
                    }
                ]
            },
            "sds": {"tls_certificate_sds_secret_configs": [{"name": "pair", "sds_config": ads}]},
            "password": {
                "tls_certificates": [
                    {
                        "certificate_chain": {"inline_string": chain},
                        "private_key": {"inline_string": encrypted(key)},
                        "password": {"inline_string": PASSWORD},
                    }
                ]
            },
        }
        clusters = [
            build.cluster(
                name,
                [up.address],
                transport_socket={
                    "name": "tls",
                    "typed_config": build.any_of(
                        TLS, {"common_tls_context": {**context, "validation_context": validation}}
                    ),
                },
            )
            for name, context in contexts.items()
        ]
        added = [
            build.header("authorization", f"Bearer {TOKENS['route']}"),
            build.header("cookie", f"sid={TOKENS['jar']}"),
        ]
        matched = {
            "prefix": "/",
            "headers": [
                {"name": "authorization", "string_match": {"exact": f"Bearer {TOKENS['matched']}"}},
                {"name": "x-token", "string_match": {"prefix": TOKENS["matched"]}},
            ],
        }
        answered = [build.header("set-cookie", f"sid={TOKENS['own answer']}")]
        hosts = [
            build.virtual_host(
                name,
                {"match": matched, "route": {"cluster": name}},
                build.route(
                    "/",
                    cluster=name,
                ),
                domains=[name],
                request_headers_to_add=added,
                response_headers_to_add=answered,
            )
            for name in contexts
        ]
        plain = build.virtual_host("plain", build.route("/", cluster="inline"), domains=["open"])
        return [
            build.listener("l", build.route_config("r", *hosts), address="0.0.0.0:80"),
            build.listener("open", build.route_config("open", plain), address="0.0.0.0:81"),
            *clusters,
            build.secret("pair", certificate=KEYS["of-sds"][0], key=KEYS["of-sds"][1]),
        ]

    # --- calls --------------------------------------------------------------------------------------------------------

    def call(self, mesh: meshlib.Mesh, up: Upstream) -> None:
        mine = {"authorization": f"Bearer {TOKENS['own header']}", "cookie": f"sid={TOKENS['own cookie']}"}
        matched = {"authorization": f"Bearer {TOKENS['own value']}"}
        up.order(body="ok")
        with meshlib.Client(mesh=mesh) as client, meshlib_requests.Session(mesh=mesh) as session:
            for url in (
                "http://inline/",
                "http://file/",
                "http://sds/",
                "http://tokens/",
                "http://routed/",
                "http://called/",
            ):
                for headers in ({}, mine, matched):
                    for get in (client.get, session.get):
                        self._try(get, url, headers)
            up.order(reset="head")
            for url in ("http://inline/", "http://tokens/", "http://called/"):
                for get in (client.get, session.get):
                    self.fails(lambda get=get, url=url: get(url, headers=mine))
                asyncio.run(self._aiohttp(mesh, url, mine))
            for post in (client.post, session.post):  # broken while it is written
                self.fails(
                    lambda post=post: post(
                        "http://called/", **{"content" if post == client.post else "data": b"x" * 20_000_000}
                    )
                )
            up.order(garbage="no HTTP\r\n\r\n")
            self.fails(lambda: client.get("http://tokens/"))
            self.fails(lambda: session.get("http://tokens/"))
            up.order(delay=20.0)
            self.fails(lambda: client.get("http://tokens/", timeout=0.2))
            self.fails(lambda: session.get("http://tokens/", timeout=0.2))
            up.behave()
            for url in ("http://plain/", "http://lost/", "http://given/", "http://raises/"):
                self.fails(lambda url=url: client.get(url, headers={} if url != "http://plain/" else mine))
                self.fails(lambda url=url: session.get(url, headers={} if url != "http://plain/" else mine))
            self.fails(lambda: client.get("http://tokens/", headers={**mine, "x-bad": "a\r\nb"}))
            self.values += [
                mesh.explain("GET", "http://inline/"),
                mesh.explain("GET", "http://routed/", matched),
            ]
        for target in ("tokens", "lost"):
            with meshlib.grpc.channel(target, mesh=mesh) as channel:
                metadata = (("authorization", TOKENS["own rpc"]),)
                for each in (None, metadata):
                    self.fails(lambda each=each: channel.unary_unary("/s/m")(b"", metadata=each, timeout=2))

    async def _aiohttp(self, mesh: meshlib.Mesh, url: str, headers: dict[str, str]) -> None:
        async with meshlib_aiohttp.ClientSession(mesh=mesh) as session:
            try:
                async with session.get(url, headers=headers):
                    raise AssertionError("it did not fail")
            except OSError as error:
                self.errors.append(error)
            except Exception as error:  # noqa: BLE001 - as above
                self.errors.append(error)

    def _try(self, get: Callable[..., Any], url: str, headers: dict[str, str]) -> None:
        try:
            response = get(url, headers=headers)
        except Exception as error:  # noqa: BLE001 - a cluster whose TLS is not made is refused
            self.errors.append(error)
        else:
            self.values.append(meshlib.call_info(response))

    def serve(self, mesh: meshlib.Mesh) -> None:
        """A request that is served here, and logged."""

        def application(environ: Any, start: Any) -> list[bytes]:
            start("200 OK", [("set-cookie", f"sid={TOKENS['inbound']}")])
            return [b"ok"]

        environ: dict[str, Any] = {
            "HTTP_AUTHORIZATION": f"Bearer {TOKENS['inbound']}",
            "HTTP_COOKIE": f"sid={TOKENS['inbound']}",
            "wsgi.input": io.BytesIO(),
        }
        setup_testing_defaults(environ)
        answer = meshlib_wsgi.Middleware(application, mesh=mesh)(environ, lambda *_: None)
        assert b"".join(answer) == b"ok"
        getattr(answer, "close", bool)()

    # --- what is told -------------------------------------------------------------------------------------------------

    def look(self, mesh: meshlib.Mesh) -> None:
        said, status = self.said, mesh.status()
        said["status"] = f"{status!r}{json.dumps(status.to_dict())}".encode()
        snapshot = mesh.snapshot()
        said["snapshot"] = f"{snapshot!r}{json.dumps(snapshot.to_dict())}".encode()
        said["configuration"] = f"{mesh.config!r}{mesh!r}".encode()
        for what in ("status", "snapshot", "facts", "process"):
            said[f"admin socket, {what}"] = admin_socket(self.folder / "run", what)
        with grpc.insecure_channel(self.csds) as channel:
            ask = channel.unary_unary(f"{schema.CSDS}/FetchClientStatus")
            said["client status service"] = ask(b"", timeout=20)
        said["last good state"] = (self.folder / "last-good").read_bytes()
        said["errors"] = "".join(map(told, self.errors)).encode()
        said["frames of errors"] = "".join(map(frames, self.errors)).encode()
        said["values of calls"] = "".join(
            f"{each!r}{json.dumps(each.to_dict())}{each.trace()}" for each in self.values
        ).encode()
        said["pickles"] = b"".join(pickled([*self.errors, *self.values, status, snapshot]))
        said["objects"] = "\n".join(reachable(mesh)).encode("utf-8", "backslashreplace")
        config = str(self.folder / "mesh.json")
        for command in (
            ("check", config),
            ("check", "--json", config),
            ("doctor", "--json", "--config", config),
            ("doctor", "--json", "--config", config, str(os.getpid())),
            ("dump", "--json", "--config", config, str(os.getpid())),
            ("route", "GET", "http://routed/", "--config", config),
            ("route", "--json", "GET", "http://routed/", "--config", config),
            ("ps", "--config", config),
        ):
            said[f"meshlib {command[0]} {len(command)}"] = self._command(*command)

    def _command(self, *command: str) -> bytes:
        done = subprocess.run(
            [sys.executable, "-m", "meshlib", *command], capture_output=True, timeout=120, check=False
        )
        return done.stdout + done.stderr


def admin_socket(folder: Path, what: str) -> bytes:
    """What this process says there."""
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(20)
        peer.connect(str(folder / f"{os.getpid()}.sock"))
        peer.sendall(f"{what}\n".encode())
        return b"".join(iter(lambda: peer.recv(65_536), b""))


def told(error: BaseException) -> str:
    """What a program prints of an error: of its cause and of the error that it came from, too."""
    info = meshlib.call_info(error)
    lines = () if info is None else info.trace()
    return f"{error!r}{error}{info!r}{lines}{''.join(traceback.format_exception(error))}"


def frames(error: BaseException | None, depth: int = 0) -> str:
    """What reporters of errors show: the local names of our frames."""
    if error is None or depth > 8:
        return ""
    found = []
    trace = error.__traceback__
    while trace is not None:
        frame: FrameType = trace.tb_frame
        if f"{os.sep}meshlib" in frame.f_code.co_filename:
            found += [f"{name}={value!r}\n" for name, value in frame.f_locals.items()]
        trace = trace.tb_next
    return "".join(found) + frames(error.__cause__, depth + 1) + frames(error.__context__, depth + 1)


def pickled(values: list[Any]) -> Iterator[bytes]:
    for value in values:
        try:
            yield pickle.dumps(value)
        except Exception:  # noqa: BLE001 - what cannot be pickled tells nothing
            continue


def reachable(start: object) -> Iterator[str]:
    """The repr of all that is ours and can be reached."""
    seen: set[int] = set()
    left: list[object] = [start]
    while left:
        found = left.pop()
        if id(found) in seen or isinstance(found, type | ModuleType):
            continue
        seen.add(id(found))
        module = str(type(found).__module__)
        if module.startswith("meshlib") and not module.startswith(
            "meshlib.testing"
        ):  # the servers know what they got
            yield repr(found)
        left += gc.get_referents(found)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Short, since the path of a socket is."""
    with tempfile.TemporaryDirectory(prefix="mesh-") as made:
        yield Path(made)


@pytest.fixture(scope="module")
def stage(folder: Path) -> Iterator[Stage]:
    made = Stage(folder)
    records, root = Records(), logging.getLogger()
    before = root.level
    root.addHandler(records)
    root.setLevel(logging.DEBUG)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    AUTHORITY.issue_cert(
        "inline", "file", "sds", "tokens", "routed", "plain", "lost", "called"
    ).configure_cert(context)
    own = AUTHORITY.issue_cert("127.0.0.1")
    pair = own.private_key_pem.bytes(), b"".join(pem.bytes() for pem in own.cert_chain_pems)
    credentials = grpc.ssl_server_credentials([pair])

    def raises() -> str:
        raise RuntimeError("it has no token today")

    tokens = {
        "called": lambda: TOKENS["callable"],
        "given": lambda: f"{TOKENS['callable']}\r\n",
        "raises": raises,
    }
    try:
        with (
            telemetry.sdk() as recorded,
            Upstream("up", tls=context) as up,
            Upstream("closed") as closed,
            ControlPlane(credentials=credentials) as plane,
        ):
            closed.kill()
            plane.set(*made.resources(up))
            config = made.config(plane.address, up, closed.address)
            for name in ("called", "given", "raises"):
                config["services"][name] = {
                    "endpoints": [up.address],
                    "tls": {"ca": str(made.folder / "ca.pem")},
                }
            (made.folder / "mesh.json").write_text(json.dumps(config))
            with meshlib.Mesh(str(made.folder / "mesh.json"), tokens=tokens) as mesh:
                watch = Watch(mesh)
                mesh.wait_ready("inline", "tokens", timeout=20)
                made.call(mesh, up)
                made.serve(mesh)
                watch.until(lambda: _is_kept(mesh))
                made.look(mesh)
                arrived = {
                    value
                    for each in up.requests
                    for name, value in each.headers
                    if name.lower() == "authorization"
                }
                made.said["spans"] = "".join(span.to_json() for span in recorded.client_spans).encode()
                made.said["metrics"] = "".join(metric.to_json() for metric in recorded.metrics).encode()
        # They were really used.
        assert arrived >= {f"Bearer {TOKENS[name]}" for name in ("callable", "file", "own header", "route")}
        made.said["logs"] = "\n".join(records.lines).encode("utf-8", "backslashreplace")
        yield made
    finally:
        root.removeHandler(records)
        root.setLevel(before)


def _is_kept(mesh: meshlib.Mesh) -> bool:
    return any(each.kind == "last_good" and each.state == "ready" for each in mesh.status().sources)


#: What is the application's own, and where that is whatever a mesh does: its requests and answers in the frames of the library that it
#: called with, and in the errors of some; a value of its configuration in the object that has that value alone.
OWN = {
    "frames of errors": {"own header", "own answer", "own cookie", "own value", "own rpc"},
    "pickles": {"own header", "own answer", "own cookie", "own value"},
    "objects": {"own value"},
}

#: What shows that a surface was read.
SURFACES = {
    "status": b"inline",
    "snapshot": b"routed",
    "configuration": b"routed",
    "admin socket, status": b"inline",
    "admin socket, snapshot": b"routed",
    "admin socket, facts": b"of-the-stream.key",
    "admin socket, process": b"sources",
    "client status service": b"inline",
    "last good state": b"meshlib last good state",
    "errors": b"wants a token",
    "frames of errors": b"attempt=",
    "values of calls": b"inline",
    "pickles": b"CallInfo",
    "objects": b"Cluster(",
    "spans": b"inline",
    "metrics": b"http.client.request.duration",
    "logs": b"access",
    "meshlib check 2": b"",
    "meshlib check 3": b"{",
    "meshlib doctor 4": b"findings",
    "meshlib doctor 5": b"findings",
    "meshlib dump 5": b"clusters",
    "meshlib route 5": b"routed",
    "meshlib route 6": b"routed",
    "meshlib ps 3": str(os.getpid()).encode(),
}


@pytest.mark.parametrize("surface", SURFACES)
def test_no_secret_is_told(stage: Stage, surface: str) -> None:
    said = stage.said[surface]
    assert SURFACES[surface] in said, said[:2000]
    own = OWN.get(surface, set())
    found = {
        name
        for name, marker in markers().items()
        if marker in said and name.removesuffix(", base64") not in own
    }
    places = [said[max(0, said.find(markers()[name]) - 200) :][:300] for name in sorted(found)[:4]]
    assert not found, places


def test_every_surface_is_searched(stage: Stage) -> None:
    assert set(stage.said) == set(SURFACES)


def test_a_secret_would_be_found() -> None:
    for name, marker in markers().items():
        assert len(marker) >= 12, name
    assert any(KEYS["me"][1].encode().count(marker) for marker in markers().values())
