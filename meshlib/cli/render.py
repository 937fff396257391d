"""Status and Decision for people.

Names, errors and headers come from files and from the network: control characters in them are shown, not sent to the
terminal, and nothing of them is read as markup.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from meshlib.model.call import Decision

__all__ = ["clean", "decision_view", "marked", "status_view"]

_STATES = {
    "ready": "green",
    "healthy": "green",
    "closed": "green",
    "connecting": "yellow",
    "stale": "yellow",
    "draining": "yellow",
    "half_open": "yellow",
    "failed": "bold red",
    "unhealthy": "red",
    "ejected": "bold red",
    "open": "bold red",
}

#: Entries of one kind (rejected, ignored, waiting) that are shown; ``--json`` has all.
_SHOWN = 10


def clean(text: object) -> str:
    """One line of ``text`` without anything that a terminal would obey."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in str(text)
    )


def marked(mark: str, style: str, line: str) -> Text:
    """A line behind a mark."""
    return Text.assemble((mark, style), " ", clean(line))


def said(text: object, style: str = "") -> Text:
    return Text(clean(text), style=style)


def state(word: str) -> Text:
    return said(word, _STATES.get(word, ""))


def duration(seconds: float) -> str:
    """``12.3 s``, ``4 min``, ``3 h``, ``2 d``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    for size, unit in ((86400, "d"), (3600, "h")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 60:.0f} min"


def _table(title: str, *columns: str | tuple[str, str]) -> Table:
    table = Table(
        title=Text(title, "bold"),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        header_style="dim",
    )
    for column in columns:
        name, justify = column if isinstance(column, tuple) else (column, "left")
        table.add_column(name, justify="right" if justify == "right" else "left", overflow="fold")
    return table


# --- Status --------------------------------------------------------------------------------------------------------------


def status_view(status: Mapping[str, Any], *, rows: int | None = None) -> RenderableType:
    """A ``Status.to_dict()``, of this process or of another. ``rows``: how many endpoints are shown at most."""
    parts: list[RenderableType] = [_head(status), Text(), _sources(status.get("sources", ()))]
    for source in status.get("sources", ()):
        parts.extend(_remarks(source))
    parts.append(_clusters(status.get("clusters", {}), rows))
    return Group(*parts)


def _head(status: Mapping[str, Any]) -> Text:
    process, node = status.get("process", {}), status.get("node", {})
    facts = [f"process {process.get('pid')}"]
    if node.get("id"):
        facts.append(f"node {node['id']}")
    if node.get("cluster"):
        facts.append(f"cluster {node['cluster']}")
    if process.get("forked"):
        facts.append("a fork")
    if not process.get("started"):
        facts.append("not started")
    return Text.assemble(("meshlib", "bold cyan"), "  ", (clean(" · ".join(facts)), "dim"))


def _sources(sources: Iterable[Mapping[str, Any]]) -> RenderableType:
    table = _table("sources", "name", "state", ("since", "right"), "server", "holds", "versions")
    for source in sources:
        holds = ", ".join(f"{count} {kind}" for kind, count in source.get("resources", {}).items() if count)
        versions = ", ".join(
            f"{kind} {version}" for kind, version in source.get("versions", {}).items() if version
        )
        table.add_row(
            said(source["name"]),
            state(source["state"]),
            duration(source.get("since", 0.0)),
            said(source.get("server", "")),
            said(holds),
            said(versions, "dim"),
        )
    return table


def _remarks(source: Mapping[str, Any]) -> list[Text]:
    """What a source lacks, refuses and does not honour."""
    name, lines = source["name"], []
    if source.get("last_error"):
        style = "bold red" if source["state"] in ("failed", "stale") else "yellow"
        lines.append(marked("✗", style, f"{name}: {source['last_error']}"))
    lines.extend(
        marked("✗", "bold red", f"{name}: {_resource(item)} rejected: {'; '.join(item['problems'])}")
        for item in _some(source.get("rejected", ()), lines, f"{name}: rejected")
    )
    lines.extend(
        marked("!", "yellow", f"{name}: {_resource(item)}: {item['field']} is not honoured")
        for item in _some(source.get("ignored", ()), lines, f"{name}: not honoured")
    )
    waiting = list(source.get("waiting", ()))
    if waiting:
        more = f" and {len(waiting) - _SHOWN} more" if len(waiting) > _SHOWN else ""
        lines.append(marked("…", "yellow", f"{name}: waiting for {', '.join(waiting[:_SHOWN])}{more}"))
    return lines


def _some(items: Sequence[Mapping[str, Any]], lines: list[Text], what: str) -> Sequence[Mapping[str, Any]]:
    if len(items) > _SHOWN:
        lines.append(
            marked("!", "yellow", f"{what}: {len(items)}, of which the first {_SHOWN} (--json has all)")
        )
    return items[:_SHOWN]


def _resource(item: Mapping[str, Any]) -> str:
    return f"{item['type']} {item['resource']}" if item["resource"] else str(item["type"])


def _clusters(clusters: Mapping[str, Mapping[str, Any]], rows: int | None) -> RenderableType:
    table = _table(
        "clusters", "name", "breaker", "endpoint", "health", ("weight", "right"), ("prio", "right"), "locality", ("active", "right")
    )  # fmt: skip
    left = rows if rows is not None else 10**9
    hidden = 0
    for name, cluster in clusters.items():
        endpoints = cluster.get("endpoints", ())
        if left <= 0:
            hidden += max(1, len(endpoints))
            continue
        shown = _worst_first(endpoints)[:left]
        hidden += len(endpoints) - len(shown)
        left -= max(1, len(shown))
        _cluster_rows(table, name, cluster, shown)
    if not clusters:
        return Text("no clusters", "dim")
    return Group(table, Text(f"… and {hidden} more", "dim")) if hidden else table


def _worst_first(endpoints: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Those that need a look come first; otherwise the order stays."""
    return sorted(endpoints, key=lambda endpoint: endpoint["health"] == "healthy")


def _cluster_rows(
    table: Table, name: str, cluster: Mapping[str, Any], endpoints: Sequence[Mapping[str, Any]]
) -> None:
    first = (said(name, "bold"), state(cluster.get("breaker", "")))
    if not endpoints:
        table.add_row(*first, Text("no endpoints", "yellow"), "", "", "", "", str(cluster.get("active", 0)))
    for endpoint in endpoints:
        table.add_row(
            *first,
            said(endpoint["address"]),
            state(endpoint["health"]),
            str(endpoint["weight"]),
            str(endpoint["priority"]),
            said(endpoint["locality"], "dim"),
            str(endpoint["active"]),
        )
        first = (Text(), Text())


# --- Decision ------------------------------------------------------------------------------------------------------------


def decision_view(decision: Decision, url: str, *, fails: str) -> RenderableType:
    """Where a call would go, in a line; then each step and what would arrive. ``fails``: why it would fail, or ``""``."""
    facts = _table("decision", "", "")
    facts.show_header = False
    for name, value in _facts(decision):
        facts.add_row(Text(name, "dim"), said(value))
    steps = [
        Text.assemble((f"{number:>3}  ", "dim"), clean(line))
        for number, line in enumerate(decision.trace(), 1)
    ]
    return Group(_headline(decision, url, fails), Text(), facts, Text("why", "bold"), Text(), *steps)


def _headline(decision: Decision, url: str, fails: str) -> Text:
    asked = f"{decision.trace()[0].partition(' ')[0] if decision.trace() else decision.method} {url}"
    if fails:
        return Text.assemble(("✗ ", "bold red"), (clean(asked), "bold"), " fails: ", clean(fails))
    if decision.response is not None:
        goal = f"the configuration answers {decision.response.status}"
    elif decision.via != "mesh":
        goal = "directly, as without meshlib"
    else:
        goal = f"{decision.cluster} at {decision.endpoint}"
    return Text.assemble(("✓ ", "bold green"), (clean(asked), "bold"), " → ", (clean(goal), "cyan"))


def _facts(decision: Decision) -> Iterable[tuple[str, str]]:
    pairs = {
        "via": decision.via,
        "listener": decision.listener,
        "virtual host": decision.virtual_host,
        "route": decision.route,
        "cluster": decision.cluster,
        "endpoint": decision.endpoint,
        "timeout": f"{decision.timeout:g} s" if decision.timeout is not None else "none",
        "retry": _retry(decision),
        "arrives as": f"{decision.method} {decision.authority}{decision.path}",
    }
    yield from ((name, value) for name, value in pairs.items() if value)
    yield from (("header", f"{name}: {value}") for name, value in decision.headers.items())
    if decision.response is not None:
        yield from (("answer", f"{name}: {value}") for name, value in decision.response.headers)
        if decision.response.body:
            yield "answer", decision.response.body[:200].decode("utf-8", "replace")


def _retry(decision: Decision) -> str:
    """What the policy says beyond its defaults."""
    policy = decision.to_dict()["retry"]
    if not isinstance(policy, dict):
        return "none"
    said = (
        f"{name} {_short(value)}" for name, value in policy.items() if value not in (None, [], {}, "", False)
    )
    return ", ".join(said)


def _short(value: object) -> str:
    if isinstance(value, list):
        return " ".join(map(_short, value))
    if isinstance(value, dict):
        return "(" + ", ".join(f"{name} {_short(item)}" for name, item in value.items()) + ")"
    return f"{value:g}" if isinstance(value, float) else str(value)
