"""`meshlib route METHOD URL`: what a call would do, and why. Nothing is sent to the service, and nothing is counted."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from meshlib.cli.common import (
    FINDING,
    FINE,
    USAGE,
    Stop,
    complain,
    console,
    emit,
    lacking,
    opened,
    settle,
    working,
)
from meshlib.cli.render import decision_view

if TYPE_CHECKING:
    from meshlib.core.resolution import Resolution
    from meshlib.mesh import Mesh
    from meshlib.model.call import Decision

__all__ = ["headers_of", "route"]


def route(
    method: str,
    url: str,
    headers: Sequence[tuple[str, str]],
    *,
    config: Path | None,
    seconds: float,
    as_json: bool,
) -> int:
    """The command. ``seconds``: how long sources are waited for at most."""
    with opened(config) as mesh:
        with working("asking …"):
            resolution, missing = _known(mesh, method, url, headers, time.monotonic() + seconds)
        try:
            decision = mesh.explain(method, url, headers)
        except ValueError as problem:
            raise Stop(USAGE, [str(problem)]) from None
        fails = _fails(resolution, decision, missing)
    if as_json:
        emit(decision.to_dict())
        if fails:
            complain([fails])
    else:
        console().print(decision_view(decision, url, fails=fails))
    return FINDING if fails else FINE


def headers_of(lines: Sequence[str]) -> list[tuple[str, str]]:
    """``name: value`` lines, as on a command line. Raises Stop."""
    found = []
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name.strip():
            raise Stop(USAGE, [f"-H {line!r}: must be 'name: value'"])
        found.append((name.strip(), value.strip()))
    return found


def _known(
    mesh: Mesh, method: str, url: str, headers: Sequence[tuple[str, str]], until: float
) -> tuple[Resolution, str]:
    """How the URL resolves once what can be known of it is known, and what it still lacks then."""
    from meshlib.hosts.urls import asked

    runtime = mesh._runtime()
    try:
        target, _ = asked(method, url, headers)
        mesh.explain(method, url, headers)  # asks the control plane for the name
    except ValueError as problem:
        raise Stop(USAGE, [str(problem)]) from None
    settle(mesh, until - time.monotonic(), lambda: not runtime.view.resolve(*target).open)
    resolution = runtime.view.resolve(*target)
    missing = ""
    if resolution.via in ("mesh", "wait"):
        missing = lacking(mesh, target[3], until - time.monotonic())
    return runtime.view.resolve(*target), missing


def _fails(resolution: Resolution, decision: Decision, missing: str) -> str:
    """Why a call now would fail, in words; ``""`` if it would not."""
    end = resolution.otherwise or resolution
    if end.via in ("failed", "refused", "closed"):
        return end.refusal(decision.authority)
    if decision.via != "mesh":
        return ""
    if decision.response is not None:
        return "" if decision.route else "no route matches"
    if not decision.endpoint:
        return missing or f"cluster {decision.cluster!r} has no endpoint that can be called"
    return ""
