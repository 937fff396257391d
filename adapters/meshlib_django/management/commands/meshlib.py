"""``manage.py meshlib [PID]``: the status of the mesh, with what it has counted."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from django.core.management.base import BaseCommand, CommandError

from meshlib.errors import ConfigError, MeshError
from meshlib.mesh import default

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Command"]


class Command(BaseCommand):  # type: ignore[misc]  # Django has no types
    """The command. Without PID it makes the mesh that the settings say, and asks; with one it asks that process, or a master's
    workers.
    """

    help = "Shows the status of the mesh: of one made from the settings, or of a running process."

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument(
            "pid",
            nargs="?",
            type=int,
            help="a running process, or a master (MESHLIB has admin.enabled = True)",
        )
        parser.add_argument("--json", action="store_true", dest="as_json", help="the whole status, as JSON")
        parser.add_argument("--name", action="append", default=[], help="a host to ask for; may be repeated")
        parser.add_argument("--timeout", type=float, default=5.0, help="seconds to wait for what is asked")

    def handle(self, *_: Any, **options: Any) -> None:
        pid = options["pid"]
        try:
            found = [self._own(options)] if pid is None else _other(pid, options["timeout"])
        except ConfigError as problem:
            raise CommandError("\n".join(problem.problems)) from None
        if options["as_json"]:
            self.stdout.write(json.dumps(found[0] if len(found) == 1 else found, indent=2))
            return
        for status in found:
            for line in _lines(status):
                self.stdout.write(_clean(line))

    def _own(self, options: Any) -> dict[str, Any]:
        mesh = default()
        try:
            mesh.wait_ready(*options["name"], timeout=max(0.0, options["timeout"]))
        except (MeshError, ValueError) as missing:
            self.stderr.write(_clean(f"not ready: {missing}"))
        return mesh.status().to_dict()


def _other(pid: int, timeout: float) -> list[dict[str, Any]]:
    from meshlib.observe.admin import directories
    from meshlib.observe.peer import NotReadable, asked

    configured = default().config.admin.runtime_dir
    places = (*directories(configured), *directories(None)) if configured else directories(None)
    try:
        answers = asked(pid, "status", places, max(0.1, timeout))
    except NotReadable as problem:
        raise CommandError(str(problem)) from None
    meshes = [mesh for _, each in answers for mesh in each]
    if not meshes:
        raise CommandError(f"process {pid} has closed its mesh")
    return meshes


def _lines(status: Mapping[str, Any]) -> Iterator[str]:
    process, node = status.get("process", {}), status.get("node", {})
    yield f"meshlib: process {process.get('pid')}, node {node.get('id') or '-'}, cluster {node.get('cluster') or '-'}"
    for source in status.get("sources", ()):
        where = f" at {source['server']}" if source.get("server") else ""
        yield f"source {source['name']}{where}: {source['state']}"
        if source.get("last_error"):
            yield f"  error: {source['last_error']}"
        if source.get("waiting"):
            yield f"  waiting for {', '.join(source['waiting'])}"
        for item in source.get("rejected", ()):
            yield f"  rejected: {item['type']} {item['resource']}: {'; '.join(item['problems'])}"
        if source.get("ignored"):
            yield f"  {len(source['ignored'])} settings are not honoured (--json has them)"
    for name, cluster in status.get("clusters", {}).items():
        counts = ("requests", "failures", "retries", "overflows", "ejections", "active")
        said = ", ".join(f"{cluster[count]} {count}" for count in counts)
        yield f"cluster {name}: {said}, breaker {cluster['breaker']}"
        for endpoint in cluster["endpoints"]:
            yield f"  {endpoint['address']}: {_endpoint(endpoint)}"


def _endpoint(endpoint: Mapping[str, Any]) -> str:
    facts = [endpoint["health"]]
    if endpoint["ejected_for"] is not None:
        facts.append(f"back in {endpoint['ejected_for']:.0f} s")
    facts.append(f"weight {endpoint['weight']}")
    facts.append(f"{endpoint['requests']} requests, {endpoint['failures']} failures")
    if endpoint["latency"] is not None:
        latency = endpoint["latency"]
        facts.append(f"p50 {latency['p50'] * 1000:.3g} ms, p99 {latency['p99'] * 1000:.3g} ms")
    if endpoint["last_error"]:
        facts.append(f"last error: {endpoint['last_error']}")
    return ", ".join(facts)


def _clean(text: str) -> str:
    """One line without anything that a terminal would obey: names come from the network."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
