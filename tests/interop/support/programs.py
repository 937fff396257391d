"""The control planes as processes of ours: started, asked, stopped by their own pid, restarted at the same port."""

from __future__ import annotations

import http.client
import json
import queue
import subprocess
import threading
from dataclasses import asdict
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import urlencode

from meshlib.testing.kato_resources import Service
from tests.interop.support.tokens import Tokens
from tests.support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

START = 30.0  # seconds; istiod needs 0.3 s on a free machine
STOP = 5.0


class ControlPlane:
    """One program, which may run several times one after another, always at the same ports.

    ``server`` is where it serves xDS. Used from one thread.
    """

    _ports = ("xds", "control")

    def __init__(self, binary: Path, folder: Path, *options: str) -> None:
        self._binary, self._folder, self._options = binary, folder, options
        self._addresses = {name: f"127.0.0.1:{free_port()}" for name in self._ports}
        self._process: subprocess.Popen[str] | None = None
        self._log: IO[str] | None = None

    @property
    def server(self) -> str:
        return self._addresses["xds"]

    @property
    def log(self) -> str:
        """What the program has said on standard error, over all its runs."""
        path = self._folder / f"{self._binary.name}.log"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def start(self) -> None:
        """Returns when it can be asked: its listeners are open, and it has what `_preload` gave it."""
        assert self._process is None, "it runs already"
        self._log = (self._folder / f"{self._binary.name}.log").open("a", encoding="utf-8")
        ports = [text for name, address in self._addresses.items() for text in (f"-{name}", address)]
        self._process = subprocess.Popen(
            [str(self._binary), *ports, *self._preload(), *self._options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        said = json.loads(_first_line(self._process, START) or "null")
        if said is None:
            self.kill()
            raise AssertionError(f"{self._binary.name} did not start:\n{self.log[-4000:]}")
        self._addresses = {name: said[name] for name in self._addresses}

    def stop(self) -> None:
        """As an operator would: SIGTERM, and it goes. Nothing if it does not run."""
        if self._process is not None:
            self._process.terminate()
            self._reap()

    def kill(self) -> None:
        """As a crash would: SIGKILL. Its connections are reset, its port is free."""
        if self._process is not None:
            self._process.kill()
            self._reap()

    def restart(self) -> None:
        """Killed, and started again at the same port with the configuration that it had."""
        self.kill()
        self.start()

    def _reap(self) -> None:
        assert self._process is not None
        try:
            self._process.wait(STOP)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(STOP)
        for stream in (self._process.stdin, self._process.stdout, self._log):
            if stream is not None:
                stream.close()
        self._process = self._log = None

    def _preload(self) -> list[str]:
        raise NotImplementedError

    def _ask(self, method: str, path: str, body: str = "", query: Mapping[str, str] | None = None) -> Any:
        connection = http.client.HTTPConnection(self._addresses["control"], timeout=10)
        try:
            connection.request(method, f"{path}?{urlencode(query)}" if query else path, body.encode())
            response = connection.getresponse()
            answer = json.loads(response.read())
        finally:
            connection.close()
        if response.status != 200:
            raise AssertionError(f"{method} {path}: {answer.get('error', answer)}")
        return answer


def _first_line(process: subprocess.Popen[str], seconds: float) -> str:
    """The first line of its standard output, or nothing if it ended, or was silent for so long."""
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    assert process.stdout is not None
    threading.Thread(
        target=lambda out: lines.put(out.readline()), args=(process.stdout,), daemon=True
    ).start()
    try:
        return lines.get(timeout=seconds)
    except queue.Empty:  # the thread ends with the program, which the caller kills
        return ""


class SnapshotServer(ControlPlane):
    """A program that is given snapshots: go-control-plane or java-control-plane. It keeps each node's last one over a
    restart.

    ``protocol``: how the meshes of a test ask it; ``transport``: the settings of theirs that its TLS needs.
    """

    protocol = "auto"

    def __init__(self, binary: Path, folder: Path, *options: str) -> None:
        super().__init__(binary, folder, *options)
        self.transport: dict[str, Any] = {}
        self._snapshots: dict[str, dict[str, Any]] = {}

    def put(self, snapshot: dict[str, Any]) -> None:
        """Serves this to its node from now on; while the program is down, from its next start."""
        if self._process is not None:
            self._ask("PUT", "/snapshot", json.dumps(snapshot))
        self._snapshots[snapshot["node"]] = snapshot

    def lose(self) -> None:
        """From its next start on it knows nothing of any node."""
        self._snapshots.clear()

    def streams(self) -> list[dict[str, Any]]:
        """Open streams: id, node, delta, types (type URL → names, sent, acked, requests, nacks, error)."""
        found: list[dict[str, Any]] = self._ask("GET", "/streams")["streams"]
        return found

    def opened(self) -> int:
        """How many streams were opened since the start of the program."""
        return int(self._ask("GET", "/streams")["opened"])

    def watch(self, short: str) -> dict[str, Any]:
        """What the open stream said last about a type, by the last part of its name (``"Cluster"``); blank where it
        said nothing, or while there is none.
        """
        streams = self.streams()
        assert len(streams) <= 1, f"more than one stream is open: {streams}"
        for stream in streams:
            for url, watch in stream["types"].items():
                if url.endswith("." + short):
                    return dict(watch)
        return {"names": [], "sent": "", "acked": "", "requests": 0, "nacks": 0, "error": ""}

    def close_streams(self, *, code: str = "UNAVAILABLE") -> int:
        """Ends every stream with this status. Returns how many there were."""
        return int(self._ask("POST", "/streams/close", query={"mode": "status", "code": code})["closed"])

    def close_connections(self) -> int:
        """Closes every connection, without a word of HTTP/2. Returns how many there were."""
        return int(self._ask("POST", "/streams/close", query={"mode": "connection"})["closed"])

    def _preload(self) -> list[str]:
        path = self._folder / "snapshots.json"
        path.write_text(json.dumps(list(self._snapshots.values())), encoding="utf-8")
        return ["-preload", str(path)]


class Kato(ControlPlane):
    """go-control-plane 0.9 with Kato's conversion: the methods of `meshlib.testing.KatoControlPlane` that make something of it. It keeps
    what it was told over a restart; its versions begin anew, as the agent's do.
    """

    def __init__(self, binary: Path, folder: Path, *options: str) -> None:
        super().__init__(binary, folder, *options)
        self._services: dict[tuple[str, int], dict[str, Any]] = {}
        self._settings: dict[str, dict[str, Any]] = {}

    @property
    def address(self) -> str:
        return self.server

    @property
    def streams(self) -> list[str]:
        """The methods of the open streams."""
        found: list[str] = self._ask("GET", "/streams")["open"]
        return found

    def version(self, node: str) -> str:
        return str(self._ask("GET", "/version", query={"node": node})["version"])

    def watches(self, node: str) -> int:
        return int(self._ask("GET", "/version", query={"node": node})["watches"])

    def serve(self, alias: str, port: int, *ready: str, unready: Iterable[str] = ()) -> None:
        self.serve_service(Service(alias, port, (ready,), tuple(unready)))

    def serve_service(self, service: Service) -> None:
        made = asdict(service)
        if self._process is not None:
            self._ask("PUT", "/service", json.dumps(made))
        self._services[service.alias, service.port] = made

    def configure(self, node: str, *rows: Mapping[str, Any]) -> None:
        ports = [dict(row) for row in rows if "listen_port" in row]
        made = {"base_services": [dict(row) for row in rows if "listen_port" not in row], "base_ports": ports}
        if self._process is not None:
            self._ask("PUT", "/settings", json.dumps(made), {"node": node})
        self._settings[node] = made

    def lose_watches(self, node: str) -> None:
        self._ask("DELETE", "/settings", query={"node": node})
        self._settings.pop(node, None)

    def recreate(self, node: str, *rows: Mapping[str, Any]) -> None:
        self.lose_watches(node)
        self.configure(node, *rows)

    def drop_streams(self) -> int:
        return int(self._ask("POST", "/streams/close")["closed"])

    def _preload(self) -> list[str]:
        path = self._folder / "there.json"
        path.write_text(
            json.dumps({"services": list(self._services.values()), "settings": self._settings}),
            encoding="utf-8",
        )
        return ["-preload", str(path)]


class Istiod(ControlPlane):
    """Istio's discovery server. Objects are mappings as in Istio's YAML; it keeps them over a restart."""

    def __init__(self, binary: Path, folder: Path, *options: str) -> None:
        super().__init__(binary, folder, *options)
        self._objects: dict[tuple[str, str, str], dict[str, Any]] = {}

    def apply(self, *objects: dict[str, Any]) -> None:
        """Creates or replaces these, and returns when they are served; while the program is down, for its next start."""
        if self._process is not None:
            self._ask("POST", "/apply", _documents(objects))
        self._objects.update({_key(item): item for item in objects})

    def delete(self, *objects: dict[str, Any]) -> None:
        if self._process is not None:
            self._ask("POST", "/delete", _documents(objects))
        for item in objects:
            del self._objects[_key(item)]

    @property
    def objects(self) -> tuple[dict[str, Any], ...]:
        """All that was applied and not deleted."""
        return tuple(self._objects.values())

    def clear(self) -> None:
        """Deletes all that was applied."""
        self.delete(*self._objects.values())

    def streams(self) -> list[dict[str, str]]:
        """Open streams: id, node, generator."""
        found: list[dict[str, str]] = self._ask("GET", "/streams")["streams"]
        return found

    def close_connections(self) -> int:
        """Closes every connection, without a word of HTTP/2. Returns how many there were."""
        return int(self._ask("POST", "/streams/close")["closed"])

    def _preload(self) -> list[str]:
        path = self._folder / "config.yaml"
        path.write_text(_documents(self._objects.values()), encoding="utf-8")
        return ["-config", str(path)]


class IstioAuthority(Istiod):
    """The same beside Istio's own CA, with a port that is put together as istiod's 15012. ``folder`` gets the files of roots and token.

    Over a restart it has another root, as every self-signed CA whose secret was lost.
    """

    _ports = ("xds", "control", "secure")

    def __init__(self, binary: Path, folder: Path, *options: str) -> None:
        self.tokens = Tokens(folder)
        self.roots_file = folder / "root-cert.pem"
        more = ("-roots", str(self.roots_file), "-jwks", str(self.tokens.jwks))
        super().__init__(binary, folder, *more, *options)

    @property
    def secure(self) -> str:
        """Where it serves xDS and certificates over TLS, to who says who he is."""
        return self._addresses["secure"]

    @property
    def settings(self) -> dict[str, str]:
        """`[identity]` of a mesh that asks it, but for the provider's name."""
        return {"server": self.secure, "token": str(self.tokens.path), "ca": str(self.roots_file)}

    def rotate(self) -> None:
        """Another root signs; those before it are trusted as well."""
        self._ask("POST", "/ca/rotate")

    def sign(self, uri: str) -> tuple[str, str]:
        """A chain and its key for a server of the mesh."""
        made = self._ask("POST", "/ca/sign", query={"account": uri})
        return made["cert"], made["key"]

    @property
    def issued(self) -> int:
        """How many certificates were issued to those who asked."""
        return int(self._ask("GET", "/ca/issued")["issued"])


def _documents(objects: Iterable[dict[str, Any]]) -> str:
    return "\n---\n".join(json.dumps(item) for item in objects)  # JSON is YAML


def _key(item: Mapping[str, Any]) -> tuple[str, str, str]:
    metadata = item["metadata"]
    return item["kind"], metadata.get("namespace", "default"), metadata["name"]
