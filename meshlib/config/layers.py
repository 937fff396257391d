# ruff: noqa: PTH100, PTH120  (os.path: text in, text out; pathlib would cost its import)
"""From layers to one configuration: argument over environment over a framework's settings over file over defaults.

Every layer is a table of raw values. They are laid over one another value by value, the origin of each is kept, and
the whole is read once: so every problem of every layer is found at once, and is told with its own origin.
Nothing is kept between two readings: who watches a file calls again.

The file is the one that ``MESHLIB_CONFIG`` names, unless an argument takes its place: a path is another file, a mapping
stands for itself. A Config is whole by itself and neither file nor environment is laid beside it, but for one that a
framework's settings made.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from meshlib.config import kato
from meshlib.config.files import Document, read, text_of
from meshlib.config.hosts import key_form
from meshlib.config.identity import SOCKET, WorkloadSocket
from meshlib.config.kinds import Place, Refused, Report, did_you_mean, shown
from meshlib.config.policies import RetryConfig
from meshlib.config.section import Section, Table, leaves
from meshlib.config.source import ARGUMENT, DEFAULT, Path, Rank, Source
from meshlib.config.values import Config, InboundConfig
from meshlib.errors import ConfigError

if TYPE_CHECKING:
    from meshlib.config.shapes import ConfigDict

__all__ = [
    "VARIABLES",
    "ConfigLike",
    "bootstrap_text",
    "from_mapping",
    "from_settings",
    "load",
    "near_misses",
    "read_inbound",
    "read_retry",
    "reload",
    "resolve",
    "strangers",
]

ConfigLike: TypeAlias = "Config | ConfigDict | str | os.PathLike[str] | None"
"""What a Mesh takes as its configuration."""

VARIABLES: Mapping[str, tuple[Path, str]] = {
    "GRPC_XDS_BOOTSTRAP_CONFIG": (("xds", "bootstrap_config"), "JSON of a gRPC bootstrap."),
    "GRPC_XDS_BOOTSTRAP": (
        ("xds", "bootstrap"),
        "A gRPC bootstrap file; wins over GRPC_XDS_BOOTSTRAP_CONFIG.",
    ),
    "MESHLIB_XDS_SERVER": (
        ("xds", "server"),
        "The control plane, or several with commas between; wins over both bootstraps.",
    ),
    "MESHLIB_NODE_ID": (("node", "id"), "Our name."),
    "MESHLIB_CLUSTER": (("node", "cluster"), "What we are part of."),
    "MESHLIB_ZONE": (("node", "zone"), "Our zone."),
    "MESHLIB_SIDECAR": (("sidecar", "mode"), "As sidecar.mode."),
    "MESHLIB_DISABLED": (("disabled",), "1: every call is plain."),
    "MESHLIB_SEED": (("seed",), "As seed."),
}
"""Variable → the key that it sets, and what it means. A later one displaces what excludes it (BS-01)."""

#: How alike a name must be (``difflib``) to be a slip: one or two letters of a dozen.
_NEAR = 0.9

_PREFIX = "MESHLIB_"
_FILE = "MESHLIB_CONFIG"

_TRUE = frozenset({"1", "true", "yes", "on", "t", "y"})
_FALSE = frozenset({"0", "false", "no", "off", "f", "n"})

_XDS = ("server", "bootstrap", "bootstrap_config", "tls", "token")
_WHERE = ("endpoints", "dns", "srv")

_log = logging.getLogger("meshlib")
_warned: set[str] = set()


#: Tables whose keys are hosts.
_BY_HOST = ("services", "adoption")


def _folded(path: Path) -> Path:
    """The path as origins are kept: the spelling of hosts and the case of other names are of no account."""
    steps = tuple(step.lower() if isinstance(step, str) else step for step in path)
    if len(path) > 1 and steps[0] in _BY_HOST:
        return steps[0], key_form(str(path[1])), *steps[2:]
    return steps


@dataclass(slots=True)
class _Tree:
    """Layers laid over one another. ``origins``: of every value that is not a table, or an empty one; ``files``: what
    tells the lines of those layers that are files read just now.
    """

    raw: dict[Any, Any] = field(default_factory=dict)
    origins: dict[Path, Source] = field(default_factory=dict)
    files: dict[Source, Document] = field(default_factory=dict)

    def lay(self, raw: Mapping[Any, Any], source: Source, file: Document | None = None) -> None:
        """Puts a layer on top of those that are there."""
        if file is not None:
            self.files[source] = file
        raw = self._as_spelled(raw)
        self._displace(raw)
        self._lay(self.raw, raw, (), source)

    def _as_spelled(self, raw: Mapping[Any, Any]) -> Mapping[Any, Any]:
        """``raw`` with its hosts under the keys that the layers below have for them. Two spellings in one layer stay."""
        found = dict(raw)
        for table in _BY_HOST:
            below, above = self.raw.get(table), raw.get(table)
            if isinstance(below, dict) and isinstance(above, Mapping):
                known = {key_form(str(key)): key for key in below}
                renamed = {known.get(key_form(str(key)), key): item for key, item in above.items()}
                found[table] = renamed if len(renamed) == len(above) else above
        return found

    def _lay(self, into: dict[Any, Any], raw: Mapping[Any, Any], path: Path, source: Source) -> None:
        for name, said in raw.items():
            here = (*path, name if isinstance(name, str) else str(shown(name)))
            item = dict(_nested(leaves(said))) if isinstance(said, Section) else said
            if isinstance(item, Mapping) and item:
                below = into.get(name)
                if not isinstance(below, dict):
                    self._forget(here)
                    below = into[name] = {}
                self._lay(below, item, here, source)
            elif not (isinstance(item, Mapping) and isinstance(into.get(name), dict)):
                self._forget(here)
                into[name] = {} if isinstance(item, Mapping) else item
                self.origins[_folded(here)] = source

    def _forget(self, path: Path) -> None:
        path = _folded(path)
        for known in [known for known in self.origins if known[: len(path)] == path]:
            del self.origins[known]

    def _displace(self, raw: Mapping[Any, Any]) -> None:
        """What a layer says instead of something below takes that away: a server, the bootstrap that was named."""
        self._displace_in(("xds",), raw.get("xds"), _XDS[:3], _XDS)
        services = raw.get("services")
        for name, service in services.items() if isinstance(services, Mapping) else ():
            self._displace_in(("services", name), service, _WHERE, _WHERE)

    def _displace_in(
        self, path: Path, layer: object, choices: tuple[str, ...], away: tuple[str, ...]
    ) -> None:
        table: Any = self.raw
        for step in path:
            table = table.get(step) if isinstance(table, dict) else None
        said = isinstance(layer, Mapping) and any(layer.get(name) is not None for name in choices)
        if not said or not isinstance(table, dict):
            return
        for name in away:
            if table.pop(name, None) is not None:
                self._forget((*path, name))

    def source_at(self, path: Path) -> Source:
        """Of the value at ``path``, of the value that it is in, or of what is in it."""
        path = _folded(path)
        for length in range(len(path), 0, -1):
            if path[:length] in self.origins:
                return self.origins[path[:length]]
        for length in range(len(path), -1, -1):
            below = [source for known, source in self.origins.items() if known[:length] == path[:length]]
            if below:
                return max(below, key=lambda source: source.rank)
        return DEFAULT

    def _told(self, path: Path) -> str:
        source = self.source_at(path)
        return self.files[source].at(path) if source in self.files else source.name

    def config(self, *, file: str | None, complete: bool) -> Config:
        """Reads it all. Raises ConfigError with every problem."""
        report = Report(self.source_at, told=self._told)
        try:
            made = Table(Config).parse(self.raw, Place((), report))
        except Refused:
            raise ConfigError(problems=report.problems) from None
        return replace(made, file=file, sources=dict(self.origins), complete=complete)


def _nested(items: Iterator[tuple[Path, Any]]) -> Mapping[Any, Any]:
    made: dict[Any, Any] = {}
    for path, value in items:
        table = made
        for step in path[:-1]:
            table = table.setdefault(step, {})
        table[path[-1]] = value
    return made


def from_mapping(
    mapping: Mapping[str, object], origin: str = "argument", rank: Rank = Rank.ARGUMENT
) -> Config:
    """What ``mapping`` says, over the defaults. Reads nothing else."""
    if not isinstance(mapping, Mapping):
        raise ConfigError(f"{origin}: must be a mapping, not {type(mapping).__name__}")
    tree = _Tree()
    tree.lay(mapping, Source(rank, origin))
    return tree.config(file=None, complete=rank is not Rank.SETTINGS)


def from_settings(mapping: Mapping[str, object], origin: str) -> Config:
    """What a framework's settings say: given to a Mesh, it wins over a file, and the environment wins over it.
    ``origin`` is what its problems are said to come from (``"settings.MESHLIB"``). Raises ConfigError.
    """
    return from_mapping(mapping, origin, Rank.SETTINGS)


def load(path: str | os.PathLike[str]) -> Config:
    """What the file says, over the defaults. Reads it anew each time, and no variable."""
    tree = _Tree()
    tree.lay(*_file(path))
    return tree.config(file=os.path.abspath(path), complete=True)


def _file(path: str | os.PathLike[str]) -> tuple[Mapping[str, object], Source, Document]:
    found = read(path)
    absolute = os.path.abspath(path)
    source = Source(Rank.FILE, os.fspath(path), os.path.dirname(absolute))
    return ({"services_file": absolute} if found.envoy else found.value), source, found


def resolve(config: ConfigLike = None, environ: Mapping[str, str] | None = None) -> Config:
    """The configuration in force: what ``config`` says, over ``environ`` (default: the process's), over a file.

    The file is the one at ``config`` where that is a path, none where it is a mapping, else the one that
    ``MESHLIB_CONFIG`` names. A complete Config is taken as it is; of one that a framework's settings made the values lie
    between file and environment. Raises ConfigError with every problem of all layers; warns, once each, of variables
    that are none.
    """
    environ = os.environ if environ is None else environ
    if isinstance(config, Config) and config.complete:
        return _again(config)
    tree, file = _Tree(), None
    if isinstance(config, str | os.PathLike):
        file = os.path.abspath(config)
        tree.lay(*_file(config))
    elif config is not None and not isinstance(config, Mapping | Config):
        raise ConfigError(f"argument: must be a Config, a mapping or a path, not {type(config).__name__}")
    elif not isinstance(config, Mapping) and environ.get(_FILE):
        file = os.path.abspath(environ[_FILE])
        tree.lay(*_file_of_variable(environ[_FILE]))
    if isinstance(config, Config):
        _lay_config(tree, config, Rank.SETTINGS)
    _lay_environment(tree, environ)
    if isinstance(config, Config):
        _lay_config(tree, config, Rank.ARGUMENT)
    elif isinstance(config, Mapping):
        tree.lay(config, ARGUMENT)
    made = tree.config(file=file, complete=True)
    if made.xds.api == "v2":
        made = _with_kato(tree, made, environ)
    return _with_workload_socket(_with_service_name(made, environ), environ)


def _again(config: Config) -> Config:
    """A complete one, checked: it may have been made by hand."""
    tree = _Tree()
    for rank in sorted(Rank):
        _lay_config(tree, config, rank)
    return tree.config(file=config.file, complete=True)


def strangers(environ: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """A sentence for each variable that begins as ours do and is none of them, with the nearest name. ``environ``:
    default the process's.
    """
    ours = (_FILE, *(name for name in VARIABLES if name.startswith(_PREFIX)))
    return tuple(
        f"{name}: meshlib has no such variable{did_you_mean(name, ours)}"
        for name, text in sorted((os.environ if environ is None else environ).items())
        if name.startswith(_PREFIX) and name not in ours and text
    )


def near_misses(environ: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """A sentence for each variable that is a slip of the pen away from one that is read, and does not begin as ours do.
    ``environ``: default the process's.
    """
    from difflib import get_close_matches

    ours = (_FILE, *VARIABLES)
    found = []
    for name, text in sorted((os.environ if environ is None else environ).items()):
        if name not in ours and not name.startswith(_PREFIX) and text:
            nearest = get_close_matches(name.upper(), ours, 1, _NEAR)
            found += [f'{name}: meshlib reads no such variable; did you mean "{one}"?' for one in nearest]
    return tuple(found)


def reload(config: Config) -> Config:
    """``config`` with what its file says now; what came from elsewhere stays as it was. Raises ConfigError."""
    tree = _Tree()
    _lay_config(tree, config, Rank.DEFAULT)
    if config.file is not None:
        tree.lay(*_file(config.file))
    _lay_config(tree, config, Rank.SETTINGS)
    _lay_config(tree, config, Rank.ENVIRONMENT)
    _lay_config(tree, config, Rank.ARGUMENT)
    return tree.config(file=config.file, complete=config.complete)


def _file_of_variable(path: str) -> tuple[Mapping[str, object], Source, Document]:
    try:
        return _file(path)
    except ConfigError as problem:
        raise ConfigError(f"{_FILE}: {problem}") from problem


def _lay_config(tree: _Tree, config: Config, rank: Rank) -> None:
    """The values of ``config`` that came with ``rank``; what was put in by hand is an argument."""
    by_source: dict[Source, list[tuple[Path, Any]]] = {}
    for path, value in leaves(config):
        steps = _folded(path)
        known = (config.sources.get(steps[:length]) for length in range(len(steps), 0, -1))
        source = next((source for source in known if source is not None), ARGUMENT)
        by_source.setdefault(source, []).append((path, value))
    for source, items in by_source.items():
        if source.rank is rank:
            tree.lay(_nested(iter(items)), source)


def _lay_environment(tree: _Tree, environ: Mapping[str, str]) -> None:
    for sentence in strangers(environ):
        _warn_once(sentence)
    for variable, (path, _) in VARIABLES.items():
        text = environ.get(variable)
        if text:
            tree.lay(_nested(iter([(path, _typed(path, text))])), Source(Rank.ENVIRONMENT, variable))


def _warn_once(sentence: str) -> None:
    if sentence not in _warned:
        _warned.add(sentence)
        _log.warning("meshlib: %s", sentence)


def _typed(path: Path, text: str) -> object:
    """A variable is text; what is meant as another type and cannot be read as one is left for the report."""
    if path == ("disabled",):
        low = text.strip().lower()
        return low in _TRUE if low in _TRUE | _FALSE else text
    if path == ("seed",):
        digits = text.strip()
        return int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= 20 else text
    if path == ("xds", "server") and "," in text:
        return [item.strip() for item in text.split(",")]
    return text if path == ("xds", "bootstrap_config") else text.strip()


def _with_kato(tree: _Tree, made: Config, environ: Mapping[str, str]) -> Config:
    """``made`` with what the platform tells of us and of its control plane: below all layers."""
    ours = (made.node.cluster, "node.cluster") if made.node.cluster else kato.identity(environ)
    agent = ("", "") if made.xds.configured else kato.server(environ)
    found = ((("node", "cluster"), ours), (("node", "id"), ours), (("xds", "server"), agent))
    for path, (value, told_by) in found:
        if value and getattr(getattr(made, path[0]), path[1]) is None:
            tree.lay(_nested(iter([(path, value)])), Source(Rank.DEFAULT, told_by))
    return tree.config(file=made.file, complete=True)


def _with_service_name(made: Config, environ: Mapping[str, str]) -> Config:
    """``OTEL_SERVICE_NAME`` is the default of node.cluster: below all layers."""
    name = environ.get("OTEL_SERVICE_NAME", "").strip()
    if made.node.cluster is not None or not name:
        return made
    source = Source(Rank.DEFAULT, "OTEL_SERVICE_NAME")
    sources = {**made.sources, ("node", "cluster"): source}
    return replace(made, node=replace(made.node, cluster=name), sources=sources)


def _with_workload_socket(made: Config, environ: Mapping[str, str]) -> Config:
    """``SPIFFE_ENDPOINT_SOCKET`` is the default of identity.socket, unless identity is of another provider: below all layers. One
    that is none is an error where SPIFFE's is told, and else of no account.
    """
    text = environ.get(SOCKET, "").strip()
    if not text or made.identity.socket is not None or made.identity.chosen not in (None, "spiffe"):
        return made
    source, path = Source(Rank.DEFAULT, SOCKET), ("identity", "socket")
    report = Report(lambda _: source)
    try:
        socket = WorkloadSocket().parse(text, Place(path, report))
    except Refused:
        if made.identity.chosen is not None:
            raise ConfigError(problems=report.problems) from None
        _warn_once(f"{report.problems[0]}; it is not used")
        return made
    return replace(
        made, identity=replace(made.identity, socket=socket), sources={**made.sources, path: source}
    )


def read_retry(raw: Mapping[str, object], origin: str = "CallOptions.retry") -> RetryConfig:
    """A mapping with the keys of a service's ``retry``, for one call. Raises ConfigError with every problem."""
    report = Report(lambda _: Source(Rank.ARGUMENT, origin))
    try:
        return Table(RetryConfig).parse(raw, Place(("retry",), report))
    except Refused:
        raise ConfigError(problems=report.problems) from None


def read_inbound(raw: Mapping[str, object], origin: str = "argument") -> InboundConfig:
    """A mapping with the keys of ``[inbound]``, for one application. Raises ConfigError with every problem."""
    report = Report(lambda _: Source(Rank.ARGUMENT, origin))
    try:
        return Table(InboundConfig).parse(raw, Place(("inbound",), report))
    except Refused:
        raise ConfigError(problems=report.problems) from None


def bootstrap_text(config: Config) -> tuple[str | None, str]:
    """The bootstrap that the configuration names, or None, and what to call it in errors. Reads the file anew; raises
    ConfigError where it cannot.
    """
    if config.xds.bootstrap is not None:
        variable = config.source_of("xds.bootstrap")
        try:
            return text_of(config.xds.bootstrap), config.xds.bootstrap
        except ConfigError as problem:
            raise ConfigError(f"{variable}: xds.bootstrap: {problem}") from problem
    if config.xds.bootstrap_config is not None:
        return config.xds.bootstrap_config, config.source_of("xds.bootstrap_config")
    return None, ""
