"""Checks of TLS between workloads: who this process is, whom it calls without knowing who that is, whom it cannot call."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from meshlib.cli.doctor.case import Case, named
from meshlib.cli.doctor.catalogue import found
from meshlib.cli.findings import Finding
from meshlib.cli.render import duration

__all__ = ["demands", "identity"]


def identity(case: Case) -> Iterator[Finding]:
    """Of each that gives an identity."""
    status = case.facts["status"]
    for one in () if status is None else status["identity"]:
        yield _identity(one)


def _identity(one: dict[str, Any]) -> Finding:
    who = f"{one['provider']} ({one['found']})"
    evidence = [f"asked: {one['server']}"] if one["server"] else []
    evidence += [one["last_error"]] if one["last_error"] else []
    left = one["expires_in"]
    if one["state"] == "idle":
        return found("identity", f"{who} gives the identity, which nothing demands yet", *evidence)
    if left is not None and left <= 0:
        return found("identity-expired", f"{one['name']} of {who} expired {duration(-left)} ago", *evidence)
    if one["state"] == "stale" and left is not None:
        summary = f"{one['name']} of {who} expires in {duration(left)} and cannot be renewed"
        return found("identity-expires-soon", summary, *evidence)
    if one["state"] in ("failed", "stale"):
        return found("identity-missing", f"{who} cannot give all of the identity", *evidence)
    roots = f"{one['roots']} root{'' if one['roots'] == 1 else 's'}" if one["roots"] else ""
    has = [one["name"], "" if left is None else f"for {duration(left)} yet", roots]
    return found(
        "identity", f"{who} gives the identity: {', '.join(filter(None, has)) or one['state']}", *evidence
    )


def demands(case: Case) -> Iterator[Finding]:
    """What clusters demand of TLS that is less than it should be, or cannot be had."""
    anybody = [cluster["name"] for cluster in case.facts["clusters"] if cluster["anybody"]]
    if anybody:
        yield found("tls-verifies-nobody", f"TLS verifies nobody: {named(anybody)}", *anybody)
    closed = {cluster["name"]: cluster["closed"] for cluster in case.facts["clusters"] if cluster["closed"]}
    if closed:
        lines = [f"{name}: {'; '.join(words)}" for name, words in closed.items()]
        yield found("tls-unusable", f"TLS cannot be had: {named(list(closed))}", *lines)
