# ruff: noqa: PTH122, PTH123  (os.path: text in, text out; pathlib would cost its import)
"""Reading configuration files: TOML, JSON, YAML."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from meshlib.errors import ConfigError
from meshlib.extras import INSTALL

__all__ = ["LARGEST", "is_envoy_shape", "read", "text_of"]

LARGEST = 16 * 2**20
"""Bytes of a configuration file; more is a mistake (somebody named a log or a device)."""

_MOST = 1_000_000
"""Values in a YAML file."""

_ENVOY_KEYS = frozenset({"listeners", "clusters", "routes", "endpoints"})
_OUR_KEYS = frozenset(
    {"xds", "services", "services_file", "sidecar", "adoption", "dns", "bypass"}
)  # not of Envoy's


def read(path: str | os.PathLike[str]) -> Mapping[str, object]:
    """The table that a file holds. Raises ConfigError that names the file, and line and column where it can."""
    name = os.fspath(path)
    suffix = os.path.splitext(name)[1].lower()
    reader = {".toml": _toml, ".json": _json, ".yaml": _yaml, ".yml": _yaml}.get(suffix)
    if reader is None:
        raise ConfigError(
            f'{name}: a configuration file ends with .toml, .json, .yaml or .yml, not "{suffix}"'
        )
    try:
        value = reader(text_of(name), name)
    except RecursionError:
        raise ConfigError(f"{name}: is nested too deeply") from None
    except ValueError as problem:
        raise ConfigError(f"{name}: {problem}") from problem
    if value is None and suffix != ".json":
        return {}
    if not isinstance(value, Mapping):
        raise ConfigError(f"{name}: must be a table at the top, not {type(value).__name__}")
    return value


def is_envoy_shape(raw: Mapping[str, object]) -> bool:
    """Whether a file is one of Envoy's, so that it is a ``services_file`` by itself."""
    return "static_resources" in raw or not (_ENVOY_KEYS.isdisjoint(raw) or not _OUR_KEYS.isdisjoint(raw))


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


def _toml(text: str, _name: str) -> object:
    import tomllib

    return tomllib.loads(text)


def _json(text: str, _name: str) -> object:
    import json

    return json.loads(text, object_pairs_hook=_no_twins)


def _no_twins(pairs: list[tuple[str, object]]) -> dict[str, object]:
    made = dict(pairs)
    if len(made) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f'the key "{twice}" is there twice in one table')
    return made


def _yaml(text: str, name: str) -> object:
    try:
        import yaml
    except ImportError:
        raise ConfigError(
            f"{name}: YAML needs PyYAML, which is not installed: {INSTALL.format('yaml')}"
        ) from None
    try:
        value = yaml.load(text, _yaml_loader())  # noqa: S506  (a SafeLoader)
    except (yaml.YAMLError, LookupError, AttributeError, TypeError) as problem:
        # PyYAML lets these out where a tag (!!int "") does not fit its text.
        raise ValueError(" ".join(str(problem).split()) or "is not YAML") from problem
    _bounded(value)
    return value


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
