"""The demo without a terminal: what happens, in lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from meshlib.cli.render import clean, marked

if TYPE_CHECKING:
    from rich.console import Console

    from meshlib.cli.demo_script import Act, Script
    from meshlib.cli.demo_stage import Stage

__all__ = ["Lines", "Silent", "numbers"]


class Silent:
    """Shows nothing."""

    def began(self, act: Act) -> None: ...

    def tick(self) -> None: ...

    def ended(self, act: Act) -> None: ...


class Lines:
    """Each act as a paragraph: its story, its numbers, its claims, one call explained."""

    def __init__(self, stage: Stage, screen: Console) -> None:
        self._stage = stage
        self._screen = screen
        self._introduced = False

    def began(self, act: Act) -> None:
        if not self._introduced:
            self._introduced = True
            self._introduce()
        self._print(Text.assemble((f"{act.number}  {clean(act.title)}", "bold cyan")))
        self._print(Text(f"   {act.story}", style="dim"))

    def tick(self) -> None: ...

    def ended(self, act: Act) -> None:
        self._print(Text(f"   {numbers(act)}"))
        for line in self._endpoints(act):
            self._print(Text(f"   {line}", style="dim"))
        for fact in act.facts:
            mark, style = ("✓", "green") if fact.holds else ("✗", "bold red")
            self._print(Text.assemble("   ", marked(mark, style, fact.text)))
        if act.trace:
            self._print(Text("   one call, explained:", style="dim"))
            for line in act.trace:
                self._print(Text(f"     {clean(line)}"))
        self._print(Text())

    def all(self, script: Script) -> None:
        """A script that has been played."""
        for act in script.acts:
            self.began(act)
            self.ended(act)

    def _introduce(self) -> None:
        stage = self._stage
        servers = ", ".join(f"{name} at {server.address}" for name, server in stage.versions.items())
        self._print(
            Text.assemble(("meshlib demo", "bold"), ": a client calls http://reviews/ 50 times a second")
        )
        self._print(Text(f"control plane at {stage.control_plane.address}; reviews: {servers}", style="dim"))
        self._print(Text())

    def _endpoints(self, act: Act) -> list[str]:
        """Who answered, by cluster and endpoint, and how the client sees the cluster."""
        known = self._stage.clusters()
        found = []
        for (cluster, endpoint), count in sorted(act.tally.endpoints().items()):
            version = self._stage.version_at(endpoint)
            breaker = known[cluster].breaker if cluster in known else "gone"
            found.append(f"{cluster:<13} {version} {endpoint:<22} {count:>4} calls   breaker {breaker}")
        return found

    def _print(self, line: Text) -> None:
        self._screen.print(line)
        self._screen.file.flush()


def numbers(act: Act) -> str:
    """The act's calls in one line."""
    tally = act.tally
    shares = "  ".join(
        f"{version} {tally.share(version):.1%}".replace("%", " %") for version in ("v1", "v2", "v3")
    )
    times = f"p50 {tally.quantile(0.5) * 1e3:.1f} ms  p99 {tally.quantile(0.99) * 1e3:.1f} ms"
    return f"{len(tally)} calls   {shares}   {times}   retries {tally.retries}   failed {len(tally.failed)}"
