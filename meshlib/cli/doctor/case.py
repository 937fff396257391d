"""What the checks look at: the facts of one mesh, what was seen around it, what a configuration was refused for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from meshlib.cli.doctor.probes import Seen
from meshlib.cli.findings import Finding
from meshlib.observe.facts import Facts

__all__ = ["Case", "Check", "named"]


@dataclass(frozen=True, slots=True)
class Case:
    """``own``: the calling process, with a mesh made for the purpose. ``problems``: why none could be made. ``tracers`` and
    ``clients``: what is installed beside it that may make spans of its calls, and try them again; a running process tells that
    itself.
    """

    facts: Facts
    seen: Seen
    own: bool = True
    problems: tuple[str, ...] = ()
    tracers: tuple[str, ...] = ()
    clients: tuple[str, ...] = ()

    @property
    def sources(self) -> list[dict[str, Any]]:
        status = self.facts["status"]
        return [] if status is None else list(status["sources"])


Check = Callable[[Case], Iterator[Finding]]


def named(names: list[str], most: int = 5) -> str:
    """``a, b and 3 more``."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
