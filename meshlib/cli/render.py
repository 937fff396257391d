"""Status and Decision for people.

Names, errors and headers come from files and from the network: control characters in them are shown, not sent to the
terminal, and nothing of them is read as markup.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from meshlib.model.call import Decision

__all__ = ["clean", "decision_view", "marked", "new_table", "processes_view", "said", "status_view"]

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
    """Text of others, cleaned."""
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


def new_table(title: str, *columns: str | tuple[str, str]) -> Table:
    """A table that looks like the others; a column is a name, or a name and how it is justified."""
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
    parts.extend(map(_identity, status.get("identity", ())))
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
    sidecar = status.get("sidecar", {})
    if sidecar.get("kind", "none") != "none":
        use = "in use" if sidecar.get("in_use") else f"not in use, confidence {sidecar.get('confidence')}"
        facts.append(f"sidecar {sidecar['kind']} ({sidecar.get('mode')}, {use})")
    if status.get("adoption", {}).get("switched_off"):
        facts.append("switched off")
    return Text.assemble(("meshlib", "bold cyan"), "  ", (clean(" · ".join(facts)), "dim"))


def _sources(sources: Iterable[Mapping[str, Any]]) -> RenderableType:
    table = new_table("sources", "name", "state", ("since", "right"), "server", "holds", "versions")
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
    for key, mark, style, words in (
        ("missing", "✗", "red", "calls fail for want of"),
        ("waiting", "…", "yellow", "waiting for"),
    ):
        names = list(source.get(key, ()))
        if names:
            more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            lines.append(marked(mark, style, f"{name}: {words} {', '.join(names[:_SHOWN])}{more}"))
    return lines


def _identity(one: Mapping[str, Any]) -> Text:
    """Who the process is to other workloads."""
    left, roots = one.get("expires_in"), one.get("roots", 0)
    facts = [
        one.get("name", ""),
        ""
        if left is None
        else f"expired {duration(-left)} ago"
        if left <= 0
        else f"expires in {duration(left)}",
        f"{roots} root{'' if roots == 1 else 's'}" if roots else "",
        one.get("last_error", ""),
    ]
    line = Text.assemble(
        ("identity", "bold"), "  ", said(f"{one['provider']}, {one['found']}"), "  ", state(one["state"])
    )
    return line.append_text(said("".join(f" · {fact}" for fact in facts if fact), "dim"))


def _some(items: Sequence[Mapping[str, Any]], lines: list[Text], what: str) -> Sequence[Mapping[str, Any]]:
    if len(items) > _SHOWN:
        lines.append(
            marked("!", "yellow", f"{what}: {len(items)}, of which the first {_SHOWN} (--json has all)")
        )
    return items[:_SHOWN]


def _resource(item: Mapping[str, Any]) -> str:
    return f"{item['type']} {item['resource']}" if item["resource"] else str(item["type"])


def _clusters(clusters: Mapping[str, Mapping[str, Any]], rows: int | None) -> RenderableType:
    if not clusters:
        return Text("no clusters", "dim")
    table = new_table("clusters", *((name, justify) for name, justify, _ in _COLUMNS))
    left = rows if rows is not None else 10**9
    hidden = 0
    notes: list[Text] = []
    for name, cluster in clusters.items():
        endpoints = cluster.get("endpoints", ())
        if left <= 0:
            hidden += max(1, len(endpoints))
            continue
        shown = _worst_first(endpoints)[:left]
        hidden += len(endpoints) - len(shown)
        left -= max(1, len(shown))
        _cluster_rows(table, name, cluster, shown)
        notes.extend(_notes(name, cluster, shown))
    more = [Text(f"… and {hidden} more", "dim")] if hidden else []
    return Group(table, *more, *notes)


def _health(endpoint: Mapping[str, Any]) -> Text:
    left = endpoint.get("ejected_for")
    return state(endpoint["health"]) if left is None else state("ejected").append(f", {duration(left)}")


def _latency(endpoint: Mapping[str, Any], quantile: str) -> Text:
    latency = endpoint.get("latency")
    if latency is None:
        return Text("–", "dim")
    seconds = latency[quantile]
    return Text(f"{seconds * 1000:.3g} ms" if seconds < 1.0 else f"{seconds:.3g} s")


#: Of an endpoint's row: the column, how it is justified, what stands in it.
_COLUMNS: tuple[tuple[str, str, Callable[[Mapping[str, Any]], Text]], ...] = (
    ("name", "left", lambda _: Text()),
    ("breaker", "left", lambda _: Text()),
    ("endpoint", "left", lambda each: said(each["address"])),
    ("health", "left", _health),
    ("weight", "right", lambda each: said(each["weight"])),
    ("prio", "right", lambda each: said(each["priority"])),
    ("locality", "left", lambda each: said(each["locality"], "dim")),
    ("active", "right", lambda each: said(each["active"])),
    ("requests", "right", lambda each: said(each.get("requests", 0))),
    ("failures", "right", lambda each: said(each.get("failures", 0), "red" if each.get("failures") else "")),
    ("p50", "right", lambda each: _latency(each, "p50")),
    ("p99", "right", lambda each: _latency(each, "p99")),
)


def _worst_first(endpoints: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Those that need a look come first; otherwise the order stays."""
    return sorted(endpoints, key=lambda endpoint: endpoint["health"] == "healthy")


def _cluster_rows(
    table: Table, name: str, cluster: Mapping[str, Any], endpoints: Sequence[Mapping[str, Any]]
) -> None:
    first = (said(name, "bold"), state(cluster.get("breaker", "")))
    if not endpoints:
        leaves = cluster.get("leaves", ())
        none = said(f"→ {', '.join(leaves)}") if leaves else Text("no endpoints", "yellow")
        table.add_row(*first, none)
    for endpoint in endpoints:
        table.add_row(*first, *(cell(endpoint) for _, _, cell in _COLUMNS[2:]))
        first = (Text(), Text())


def _notes(name: str, cluster: Mapping[str, Any], endpoints: Sequence[Mapping[str, Any]]) -> Iterable[Text]:
    """What was counted of the cluster as a whole, and how its endpoints failed last."""
    counts = [
        f"{cluster[key]} {key if cluster[key] != 1 else key[:-1].replace('retrie', 'retry')}"
        for key in ("retries", "overflows", "ejections")
        if cluster.get(key)
    ]
    if counts:
        yield marked("·", "dim", f"{name}: {', '.join(counts)}")
    for endpoint in endpoints:
        held, _, words = endpoint.get("check", "").partition(": ")
        if held == "failing":
            yield marked("!", "yellow", f"{name}: {endpoint['address']} fails its health checks: {words}")
        if endpoint.get("last_error"):
            yield marked(
                "!", "yellow", f"{name}: {endpoint['address']} failed last: {endpoint['last_error']}"
            )


# --- processes -----------------------------------------------------------------------------------------------------------


def processes_view(rows: Sequence[Mapping[str, Any]]) -> RenderableType:
    """The rows of `meshlib ps`."""
    if not rows:
        return Text(
            "no process of this user can be asked: one can where its configuration has [admin] enabled = true, "
            "once it has used its mesh"
        )
    table = new_table(
        "processes", ("pid", "right"), ("parent", "right"), "role", "service", "state", "command"
    )
    for row in rows:
        parent = str(row["parent"]) if row["parent"] else ""
        table.add_row(
            str(row["pid"]),
            parent,
            row["role"],
            said(row["service"]),
            state(row["state"]),
            said(row["command"]),
        )
    problems = [marked("✗", "bold red", row["problem"]) for row in rows if row["problem"]]
    return Group(table, *problems)


# --- Decision ------------------------------------------------------------------------------------------------------------


def decision_view(decision: Decision, url: str, *, fails: str) -> RenderableType:
    """Where a call would go, in a line; then each step and what would arrive. ``fails``: why it would fail, or ``""``."""
    facts = new_table("decision", "", "")
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
