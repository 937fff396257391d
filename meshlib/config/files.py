# ruff: noqa: PTH122, PTH123  (os.path: text in, text out; pathlib would cost its import)
"""Reading configuration files: TOML, JSON, YAML.

A file is one of two: a configuration of ours, or one in Envoy's shape. What is at its top tells which, and so how what
is in it is read: ours by the rules of the formats, Envoy's as Envoy itself reads it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from meshlib.errors import ConfigError
from meshlib.extras import INSTALL

if TYPE_CHECKING:
    from meshlib.config.marks import Mark
    from meshlib.config.source import Path

__all__ = ["LARGEST", "Document", "read", "text_of"]

LARGEST = 16 * 2**20
"""Bytes of a configuration file; more is a mistake (somebody named a log or a device)."""

_MOST = 1_000_000
"""Values in a YAML file."""

_LISTS = frozenset({"listeners", "clusters", "routes", "endpoints", "resources"})
_BOOTSTRAP = frozenset(
    [
        "node_context_params",
        "static_resources",
        "dynamic_resources",
        "cluster_manager",
        "hds_config",
        "flags_path",
        "stats_sinks",
        "deferred_stat_options",
        "stats_config",
        "stats_flush_interval",
        "stats_flush_on_admin",
        "stats_eviction_interval",
        "watchdog",
        "watchdogs",
        "tracing",
        "layered_runtime",
        "overload_manager",
        "enable_dispatcher_stats",
        "header_prefix",
        "stats_server_version_override",
        "use_tcp_for_dns_lookups",
        "dns_resolution_config",
        "typed_dns_resolver_config",
        "bootstrap_extensions",
        "fatal_actions",
        "config_sources",
        "default_config_source",
        "default_socket_interface",
        "certificate_provider_instances",
        "inline_headers",
        "perf_tracing_file_path",
        "default_regex_engine",
        "xds_delegate_extension",
        "xds_config_tracker_extension",
        "listener_manager",
        "application_log_config",
        "grpc_async_client_manager_config",
        "memory_allocator_manager",
        "enable_worker_cpu_affinity",
    ]
)
"""Keys of ``envoy.config.bootstrap.v3.Bootstrap``, without the two that are keys of ours too."""

_WITHIN = {
    "admin": frozenset(
        [
            "access_log",
            "access_log_path",
            "profile_path",
            "address",
            "socket_options",
            "ignore_global_conn_limit",
            "allow_paths",
        ]
    ),
    "node": frozenset(
        [
            "locality",
            "dynamic_parameters",
            "user_agent_name",
            "user_agent_version",
            "user_agent_build_version",
            "extensions",
            "client_features",
            "listening_addresses",
        ]
    ),
}
"""Those two: what only Envoy's have in them."""

_OURS = frozenset(
    [
        "xds",
        "services",
        "services_file",
        "bypass",
        "unknown_hosts",
        "failures",
        "spent_retries",
        "retry_chains",
        "deadline_headers",
        "disabled",
        "seed",
        "dns",
        "identity",
        "sidecar",
        "adoption",
        "inbound",
        "telemetry",
    ]
)


class Document:
    """What a file holds (``value``), whether it is in Envoy's shape (``envoy``), and where each key of it stands."""

    def __init__(
        self, name: str, suffix: str, text: str, value: Mapping[str, object], *, envoy: bool
    ) -> None:
        self.name = name
        self.value = value
        self.envoy = envoy
        self._suffix = suffix
        self._text = text

    @cached_property
    def _marks(self) -> Mark:
        from meshlib.config.marks import marks_of

        return marks_of(self._text, self._suffix)

    def at(self, path: Path) -> str:
        """``file:line:column`` of the value at ``path``, or of the nearest thing around it that is there."""
        return self._shown(self._marks.nearest(path))

    def at_key(self, key: str) -> str:
        """As :meth:`at`, for a key as :func:`~meshlib.config.source.plain_text` writes it."""
        return self._shown(self._marks.nearest_key(key))

    def _shown(self, mark: Mark) -> str:
        return f"{self.name}:{mark.line}:{mark.column}"

    def told(self, problems: Iterable[str]) -> tuple[str, ...]:
        """Problems that begin with the path of what is wrong, each with its file, line and column before it."""
        from meshlib.config.marks import steps_of

        return tuple(f"{self.at(steps_of(problem.partition(': ')[0]))}: {problem}" for problem in problems)


def read(path: str | os.PathLike[str], *, envoy: bool | None = None, suffix: str = "") -> Document:
    """The table that a file holds. ``envoy``: whether it must be, or must not be, one in Envoy's shape; by default what
    is at its top tells. ``suffix``: as what it is read, whatever its name ends with. Raises ConfigError that names the file,
    and line and column where it can.
    """
    name = os.fspath(path)
    suffix = suffix or os.path.splitext(name)[1].lower()
    reader = {".toml": _toml, ".json": _json, ".yaml": _yaml, ".yml": _yaml}.get(suffix)
    if reader is None:
        raise ConfigError(
            f'{name}: a configuration file ends with .toml, .json, .yaml or .yml, not "{suffix}"'
        )
    text = text_of(name)
    try:
        value, shape = reader(text, name, envoy)
    except RecursionError:
        raise ConfigError(f"{name}: is nested too deeply") from None
    except ValueError as problem:
        raise ConfigError(f"{name}: {problem}") from problem
    if value is None and suffix != ".json":
        value = {}
    if not isinstance(value, Mapping):
        raise ConfigError(f"{name}: must be a table at the top, not {type(value).__name__}")
    return Document(name, suffix, text, value, envoy=shape)


def _is_envoys(top: object) -> bool:
    """Whether a file with this at its top, and in the tables there, is one in Envoy's shape."""
    if not isinstance(top, Mapping):
        return False
    keys = {_snake(key): held for key, held in top.items() if isinstance(key, str)}
    if "static_resources" in keys:
        return True
    if not _OURS.isdisjoint(keys):
        return False
    return not (_LISTS | _BOOTSTRAP).isdisjoint(keys) or any(
        isinstance(held, Mapping) and not _WITHIN[key].isdisjoint(map(_snake, held))
        for key, held in keys.items()
        if key in _WITHIN
    )


def _snake(key: object) -> str:
    """``staticResources`` as ``static_resources``."""
    return "".join(f"_{char.lower()}" if char.isupper() else char for char in str(key)[:100])


def text_of(name: str) -> str:
    """The text of a file. Raises ConfigError that names it."""
    try:
        with open(name, "rb") as file:
            data = file.read(LARGEST + 1)
    except (OSError, ValueError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else None
        raise ConfigError(f"{name}: cannot be read: {reason or problem}") from problem
    if len(data) > LARGEST:
        raise ConfigError(f"{name}: is larger than {LARGEST // 2**20} MiB")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        raise ConfigError(f"{name}: is not UTF-8 at byte {problem.start}") from problem


def _toml(text: str, _name: str, envoy: bool | None) -> tuple[object, bool]:
    import tomllib

    value = tomllib.loads(text)
    return value, _is_envoys(value) if envoy is None else envoy


class _Twice(dict[str, object]):
    """An object of JSON in which a key is there twice: its items are all of them; a lookup finds the last."""

    def __init__(self, pairs: list[tuple[str, object]]) -> None:
        super().__init__(pairs)
        self.pairs = pairs

    def items(self) -> Any:
        return tuple(self.pairs)


def _json(text: str, _name: str, envoy: bool | None) -> tuple[object, bool]:
    import json

    twice: list[str] = []

    def table(pairs: list[tuple[str, object]]) -> dict[str, object]:
        made = dict(pairs)
        if len(made) == len(pairs):
            return made
        names = [name for name, _ in pairs]
        twice.append(next(name for name in names if names.count(name) > 1))
        return _Twice(pairs)

    value = json.loads(text, object_pairs_hook=table, parse_constant=_no_constant)
    shape = _is_envoys(value) if envoy is None else envoy
    if twice and not shape:
        raise ValueError(f'the key "{twice[0]}" is there twice in one table')
    return value, shape


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is no number of JSON")


def _yaml(text: str, name: str, envoy: bool | None) -> tuple[object, bool]:
    try:
        import yaml
    except ImportError:
        raise ConfigError(
            f"{name}: YAML needs PyYAML, which is not installed: {INSTALL.format('yaml')}"
        ) from None
    try:
        loader = _yaml_loader()(text)
        root = loader.get_node() if loader.check_node() else None
        shape = _is_envoys(_top(root)) if envoy is None else envoy
        if not shape and loader.check_node():
            raise ValueError(f"line {loader.line + 1}: another document begins, and a configuration is one")
        value = _EnvoysYaml().value(root) if shape else loader.construct_document(root) if root else None
    except (yaml.YAMLError, LookupError, AttributeError, TypeError) as problem:
        # PyYAML lets these out where a tag (!!int "") does not fit its text.
        raise ValueError(" ".join(str(problem).split()) or "is not YAML") from problem
    _bounded(value)
    return value, shape


def _top(node: Any, depth: int = 0) -> object:
    """The keys at the top of a document, and those in the tables there."""
    if node is None or node.id != "mapping" or depth > 1:
        return None
    return {key.value: _top(value, depth + 1) for key, value in node.value if key.id == "scalar"}


class _EnvoysYaml:
    """YAML as Envoy reads it: what is quoted is text, and so is what is neither null, a truth value (of YAML 1.1) nor
    a whole number; tags mean nothing but ``!ignore`` before a key, which leaves it out; a key is text; one that is
    there twice holds what it has last; of several documents the first is read.
    """

    def __init__(self) -> None:
        import re

        self._known: dict[int, Any] = {}  # an alias leads to the same node again, perhaps to one around it
        self._whole = re.compile(r"[-+]?(?:0[xX][0-9a-fA-F]{1,16}|0[0-7]{0,22}|[1-9][0-9]{0,18})", re.ASCII)

    def value(self, node: Any) -> object:
        if node is None:
            return None
        if node.id == "scalar":
            return self._scalar(node)
        if id(node) in self._known:
            return self._known[id(node)]
        if node.id == "sequence":
            items = self._known[id(node)] = []
            items.extend(self.value(item) for item in node.value)
            return items
        table = self._known[id(node)] = {}
        for key, held in node.value:
            if key.id != "scalar":
                raise ValueError(f"line {key.start_mark.line + 1}: a key must be text")
            if key.tag != "!ignore":
                table[key.value] = self.value(held)
        return table

    def _scalar(self, node: Any) -> object:
        text: str = node.value
        if node.style is not None and node.tag == "tag:yaml.org,2002:str":
            return text
        if text in _WORDS:
            return _WORDS[text]
        if not self._whole.fullmatch(text):
            return text
        sign, digits = (text[0], text[1:]) if text[0] in "+-" else ("", text)
        number = int(sign + digits, 16 if digits[:2] in ("0x", "0X") else 8 if digits[0] == "0" else 10)
        # Of what does not fit 32 bits Envoy makes text again, so that no digit is lost on the way to its own JSON.
        if -(2**31) <= number < 2**31:
            return number
        return str(number) if -(2**63) <= number < 2**63 else text


_WORDS = {
    form: truth
    for truth, words in ((True, ("y", "yes", "true", "on")), (False, ("n", "no", "false", "off")))
    for word in words
    for form in (word, word.capitalize(), word.upper())
} | dict.fromkeys(("", "~", "null", "Null", "NULL"))


def _bounded(value: object) -> None:
    """With aliases (``*name``) a short text can mean a value without end."""
    waiting, seen = [value], 0
    while waiting:
        item = waiting.pop()
        seen += 1
        if seen > _MOST:
            raise ValueError(f"its aliases (*name) make more than {_MOST} values of it")
        if isinstance(item, dict):
            waiting += item.values()
        elif isinstance(item, list | tuple):
            waiting += item


def _yaml_loader() -> type[Any]:
    """PyYAML's safe loader with YAML 1.2's core types: ``on`` and ``off`` are words (``retry.on`` is a key of ours),
    ``12:30`` is no number, a date is text, ``<<`` is a key like any other. A key that is there twice is an error.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        yaml_implicit_resolvers: dict[str, list[tuple[str, Any]]] = {}  # noqa: RUF012  (PyYAML's own shape)

        def flatten_mapping(self, node: Any) -> None:
            """No merging: it could grow without end before anything counts it."""

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            seen: set[str] = set()
            for key, _ in node.value:
                if not isinstance(key, yaml.ScalarNode):
                    continue  # which super() refuses: no such key can be hashed
                if key.value in seen:
                    raise yaml.YAMLError(
                        f'line {key.start_mark.line + 1}: the key "{key.value}" is there twice'
                    )
                seen.add(key.value)
            return super().construct_mapping(node, deep)

    _resolve_core_types(Loader)
    return Loader


def _resolve_core_types(loader: type[Any]) -> None:
    """YAML 1.2, section 10.3.2."""
    import re

    tag = "tag:yaml.org,2002:"
    loader.add_implicit_resolver(tag + "null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""])
    loader.add_implicit_resolver(
        tag + "bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
    )
    loader.add_implicit_resolver(tag + "int", re.compile(r"^[-+]?(?:0|[1-9][0-9]*)$"), list("-+0123456789"))
    number = r"^(?:[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    loader.add_implicit_resolver(tag + "float", re.compile(number), list("-+0123456789."))
