"""Checks of the process: its admin socket, forks, gevent, uWSGI, other tracers, other retries, a sidecar beside it."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from meshlib.cli.doctor.case import Case
from meshlib.cli.doctor.catalogue import found
from meshlib.cli.findings import Finding
from meshlib.observe import admin
from meshlib.observe.surroundings import RetrierFacts
from meshlib.sidecar.detect import OTHERS

__all__ = ["admin_socket", "forks", "greenlets", "retries", "sidecar", "tracers"]

#: How a client of each library is told not to try again itself.
_INSTEAD = {
    "openai": 'spent_retries = "tell" and failures = "respond" in the configuration, or max_retries=0 for the client',
    "anthropic": 'spent_retries = "tell" and failures = "respond" in the configuration, or max_retries=0 for the client',
    "urllib3": "nothing has to be done; leave max_retries out if it is meant for the mesh's calls only",
    "tenacity": "let it wrap no call of the mesh, or take the retry out of the mesh for those",
}


def admin_socket(case: Case) -> Iterator[Finding]:
    """Whether programs with this configuration can be looked into."""
    config = case.facts["config"]
    if not case.own or config["disabled"] or not config["configured"]:
        return
    if not config["admin"]:
        yield found("admin-off", "the admin socket is off: a program cannot be looked into while it runs")
        return
    problem = admin.objection(config["runtime_dir"] or None)
    if problem:
        yield found("admin-directory", f"no admin socket can be made: {problem}")


def forks(case: Case) -> Iterator[Finding]:
    """What is other in a fork, and under uWSGI."""
    process, status = case.facts["process"], case.facts["status"]
    streams = bool(case.facts["config"]["servers"])
    if status is not None and status["process"]["forked"]:
        yield found("used-before-fork", "the mesh was used before the process was forked")
    if process["fork_support"] and streams:
        yield found("grpc-fork-support-off", f"GRPC_ENABLE_FORK_SUPPORT is {process['fork_support']}")
    if process["threadless"]:
        yield found("uwsgi-without-threads", "uWSGI runs without threads")


def greenlets(case: Case) -> Iterator[Finding]:
    """Gevent that came late, or without grpc."""
    process = case.facts["process"]
    if process["late"]:
        yield found("gevent-late", "gevent has patched this process after calls of the mesh were made")
    if process["gevent"] and not process["grpc_gevent"]:
        servers = [server["uri"] for server in case.facts["config"]["servers"]]
        if servers or process["grpc"]:
            yield found(
                "gevent-without-grpc",
                "gevent has patched threads, and grpc is not prepared for it",
                *(f"the control plane {uri} is not asked" for uri in servers),
            )


def tracers(case: Case) -> Iterator[Finding]:
    """One trace tells a call once. Several at work tell it several times; packages that are only there may."""
    process = case.facts["process"]
    at_work = process["instrumented"]
    lines = [f"{name}: {', '.join(libraries)}" for name, libraries in at_work.items()]
    lines += ["meshlib, by OpenTelemetry: every call of the mesh"] if process["ours"] else []
    others = [name for name in at_work if name != "opentelemetry"]
    libraries = ", ".join(dict.fromkeys(one for each in at_work.values() for one in each))
    opentelemetry = process["ours"] or "opentelemetry" in at_work
    if len(others) + opentelemetry > 1:
        names = ["OpenTelemetry"] * opentelemetry + others
        yield found(
            "double-instrumentation",
            f"{' and '.join(names)} make spans of the same calls",
            *lines,
            libraries=libraries or "HTTP",
        )
    elif "opentelemetry" in at_work and process["ours"]:
        summary = "OpenTelemetry's packages make the span of a call; meshlib adds to it what it knows, and makes none"
        yield found("double-instrumentation", summary, *lines, less=True, libraries=libraries)
    elif case.tracers and case.facts["config"]["configured"]:
        yield found(
            "double-instrumentation",
            f"{', '.join(case.tracers)}: installed, and may make spans of the same calls",
            "whether they do, a running process tells: meshlib doctor PID",
            less=True,
            libraries="a library",
        )


# --- retries -------------------------------------------------------------------------------------------------------------


def retries(case: Case) -> Iterator[Finding]:
    """Only where the mesh tries again itself."""
    if not any(item["attempts"] > 1 for item in case.facts["listeners"]):
        return
    for item in case.facts["process"]["retriers"]:
        yield from _retrier(case, item)
    if case.clients:
        yield found(
            "retries-owned-twice",
            f"{', '.join(case.clients)}: installed, and try again by themselves unless they are told not to",
            "whether a client of theirs calls the mesh, a running process tells: meshlib doctor PID",
            less=True,
            instead=_INSTEAD["openai"],
        )


def _retrier(case: Case, item: RetrierFacts) -> Iterator[Finding]:
    library, instead = item["library"], _INSTEAD[item["library"]]
    many = f"{item['count']} of them" if item["count"] > 1 else "one of them"
    if library == "tenacity":
        summary = f"tenacity is at work in this process ({item['count']}): what it wraps cannot be told"
        yield found("retries-owned-twice", summary, less=True, instead=instead)
        return
    if library == "urllib3":
        summary = f"urllib3's Retry ({item['retries']}) is mounted for {item['url']}: where the mesh tries again, it does not"
        yield found("retries-owned-twice", summary, many, less=True, instead=instead)
        return
    attempts = _attempts(case, item["url"])
    if attempts < 2:
        return
    tells = case.facts["config"]["tells_spent_retries"]
    most = (item["retries"] + 1) * attempts
    yield found(
        "retries-owned-twice",
        f"{library} tries {item['url']} again {item['retries']} times, and the mesh makes {attempts} attempts of each"
        + ("; it is told when they are spent" if tells else f": up to {most} requests for one call"),
        many,
        less=tells,
        instead=instead,
    )


def _attempts(case: Case, url: str) -> int:
    """How many attempts the mesh makes of a call to ``url`` at most; 0 where it does not know the host."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = parts.port or {"https": 443}.get(parts.scheme, 80)
    wanted = {host, f"{host}:{port}"}
    found_ = [
        item["attempts"]
        for item in case.facts["listeners"]
        for name in (item["name"], *item["domains"])
        if name in wanted or (name.startswith("*.") and host.endswith(name[1:]))
    ]
    return max(found_, default=0)


# --- a sidecar -----------------------------------------------------------------------------------------------------------


def sidecar(case: Case) -> Iterator[Finding]:
    """What was found of one, and whether it is what the configuration says."""
    status, config = case.facts["status"], case.facts["config"]
    if status is None or config["disabled"]:
        return
    seen = status["sidecar"]
    if seen["kind"] != "none":
        use = "carries the calls" if seen["in_use"] else "does not carry the calls"
        summary = f"{seen['kind']}, mode {seen['mode']}, confidence {seen['confidence']}: it {use}"
        yield found("sidecar", summary, *seen["evidence"])
    if config["sidecar"] == "off" or (config["sidecar"] == "auto" and not config["sidecar_address"]):
        return
    where = config["given"].get("sidecar", "argument")
    told = f"sidecar.mode is {config['sidecar']}"
    if config["sidecar_address"]:
        told = f"sidecar.address is {config['sidecar_address']}"
    if not seen["in_use"] and seen["mode"] != "proxyless":
        yield found("sidecar-absent", f"{told} ({where}), and there is none that is ready", *seen["evidence"])
    others = [line for line in seen["evidence"] if OTHERS in line]
    if others:
        yield found("sidecar-other", f"{told} ({where}), and somebody else is in its place", *others)
