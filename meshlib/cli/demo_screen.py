"""The demo on a terminal: one screen, drawn anew a few times a second."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich import box
from rich.console import Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from meshlib.cli.demo_stage import SERVICE, VERSIONS
from meshlib.cli.render import clean, marked, state

if TYPE_CHECKING:
    from rich.console import Console

    from meshlib.cli.demo_calls import Calls, Tally
    from meshlib.cli.demo_script import Act
    from meshlib.cli.demo_stage import Stage

__all__ = ["Screen"]

#: Seconds that the numbers look back.
_WINDOW = 3.0
#: Seconds between two drawings.
_PERIOD = 0.2
_ACTS = 7
_BAR = 24
#: How many claims, and whether a call explained: the first pair that fits.
_DETAILS = ((7, True), (4, True), (2, True), (1, True), (3, False), (1, False), (0, False))
_COLOURS = {"v1": "blue", "v2": "magenta", "v3": "yellow"}


class Screen:
    """Enter it to take the terminal over."""

    def __init__(self, stage: Stage, calls: Calls, screen: Console) -> None:
        self._stage = stage
        self._calls = calls
        self._screen = screen
        self._acts: list[Act] = []
        self._drawn = 0.0
        self._live = Live(Text("starting …"), console=screen, screen=True, auto_refresh=False)

    def __enter__(self) -> Self:
        try:
            self._live.start()
        except BaseException:  # an interrupt: the terminal is left as it was
            self._live.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def began(self, act: Act) -> None:
        self._acts.append(act)
        self._draw()

    def tick(self) -> None:
        if time.monotonic() - self._drawn >= _PERIOD:
            self._draw()

    def ended(self, act: Act) -> None:
        del act
        self._draw()

    # --- drawing ----------------------------------------------------------------------------------------------------------

    def _draw(self) -> None:
        self._drawn = time.monotonic()
        recent = self._calls.since(self._drawn - _WINDOW)
        self._live.update(self._fitting(recent), refresh=True)

    def _fitting(self, recent: Tally) -> RenderableType:
        """As much as this terminal has lines for; what explains gives way to what happens."""
        facts = [
            self._story(),
            self._versions(recent),
            self._clusters(recent),
            self._numbers(recent),
            self._control_plane(),
        ]
        shown = Group(*facts)
        for claims, explained in _DETAILS:
            parts: list[RenderableType] = [*facts]
            parts += [self._claims(claims)] if claims else []
            parts += [self._explained(recent)] if explained else []
            shown = Group(*parts, Text("Ctrl-C ends it.", style="dim"))
            if len(self._screen.render_lines(shown, pad=False)) <= self._screen.height:
                break
        return shown

    def _story(self) -> RenderableType:
        act = self._acts[-1]
        title = Text.assemble(
            ("meshlib demo", "bold"), f"   {act.number} of {_ACTS}   ", (clean(act.title), "bold cyan")
        )
        return Panel(Text(act.story), title=title, title_align="left", box=box.ROUNDED, border_style="cyan")

    def _versions(self, recent: Tally) -> RenderableType:
        """Each version's share of all calls, and of those with the header."""
        table = Table(box=None, pad_edge=False, header_style="dim")
        for name in ("version", "all calls", "", "x-tier: gold", "", "server"):
            table.add_column(name)
        for version in VERSIONS:
            server = self._stage.versions[version]
            row: list[RenderableType] = [Text(version, style=f"bold {_COLOURS[version]}")]
            for tally in (recent, recent.gold):
                share = tally.share(version)
                row += [_bar(share, _COLOURS[version]), Text(f"{share:4.0%}".replace("%", " %"))]
            alive = (f"pid {server.pid}", "") if server.pid is not None else ("killed", "bold red")
            row.append(Text(*alive))
            table.add_row(*row)
        return table

    def _clusters(self, recent: Tally) -> RenderableType:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="dim")
        for name in ("cluster", "breaker", "endpoint", "", "health", "in flight"):
            table.add_column(name)
        table.add_column(f"calls, last {_WINDOW:.0f} s", justify="right")
        counts = recent.endpoints()
        for name, cluster in sorted(self._stage.clusters().items()):
            for number, endpoint in enumerate(cluster.endpoints):
                first = number == 0
                version = self._stage.version_at(endpoint.address)
                table.add_row(
                    Text(name if first else ""),
                    state(cluster.breaker) if first else Text(),
                    Text(endpoint.address),
                    Text(version, style=_COLOURS.get(version, "")),
                    state(endpoint.health),
                    Text(str(endpoint.active)),
                    Text(str(counts[name, endpoint.address])),
                )
        return table

    def _numbers(self, recent: Tally) -> RenderableType:
        every = self._calls.since(0.0)
        ejections = sum(type(event).__name__ == "EndpointEjected" for _, event in list(self._stage.events))
        failed = len(every.failed)
        return Text.assemble(
            ("http://", "dim"),
            (f"{SERVICE}/", "bold"),
            f"   {len(recent) / _WINDOW:.0f} calls/s   {len(every)} calls   ",
            (f"{failed} failed", "bold red" if failed else "bold green"),
            f"   {every.retries} retries   {ejections} ejections   "
            f"p50 {recent.quantile(0.5) * 1e3:.1f} ms   p99 {recent.quantile(0.99) * 1e3:.1f} ms",
        )

    def _control_plane(self) -> RenderableType:
        source = self._stage.source()
        versions = "  ".join(f"{kind} {version}" for kind, version in source.versions.items())
        running = ("serves", "green") if self._stage.control_plane.running else ("killed", "bold red")
        return Text.assemble(
            ("control plane ", "dim"),
            f"{source.server} ",
            running,
            ("   the client's view ", "dim"),
            state(source.state),
            ("   xDS versions ", "dim"),
            versions,
        )

    def _claims(self, count: int) -> RenderableType:
        """The last so many."""
        facts = [fact for act in self._acts for fact in act.facts][-count:]
        lines = [
            marked("✓", "green", fact.text) if fact.holds else marked("✗", "bold red", fact.text)
            for fact in facts
        ]
        return Panel(
            Group(*lines) if lines else Text("…"), title="claims", title_align="left", border_style="dim"
        )

    def _explained(self, recent: Tally) -> RenderableType:
        """The last call that says most: one that was retried, else one by the header route, else any."""
        call = recent.sample(lambda call: call.retries > 0, lambda call: call.gold)
        lines = call.info.trace() if call is not None and call.info is not None else ()
        text = Text("\n".join(clean(line) for line in lines) or "…")
        return Panel(text, title="one call, explained", title_align="left", border_style="dim")


def _bar(share: float, colour: str) -> Text:
    filled = round(share * _BAR)
    return Text.assemble(("█" * filled, colour), ("░" * (_BAR - filled), "dim"))
