"""One look with all its questions, for who asks once and can wait: `meshlib doctor`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshlib.sidecar.collect import Collector
from meshlib.sidecar.detect import detect
from meshlib.sidecar.probe import Prober

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from meshlib.config import SidecarConfig
    from meshlib.sidecar.detect import Finding
    from meshlib.sidecar.evidence import Evidence

__all__ = ["answered", "inspect"]


def inspect(settings: SidecarConfig, environ: Mapping[str, str] | None = None) -> Finding:
    """What is found now, as if it had been waited for. Blocks for a second at most for each question, of which there are two at
    most.
    """
    return answered(
        Collector(settings, environ).look(), lambda evidence: detect(evidence, settings, late=True), Prober()
    )


def answered(evidence: Evidence, decide: Callable[[Evidence], Finding], prober: Prober) -> Finding:
    """What ``decide`` finds once everything that it wants to know is asked."""
    found = decide(evidence)
    while found.probe is not None and found.probe not in evidence.answers:
        evidence = evidence._replace(answers={**evidence.answers, found.probe: prober.ask(found.probe)})
        found = decide(evidence)
    return found
