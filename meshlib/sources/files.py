"""Resources in files, served to the session as a stream would (``protocol = "files"``).

Theory. A directory has ``lds`` and ``cds``, each with one of the suffixes that Envoy reads: the roots. Their resources
name the files of routes, endpoints and secrets (``path_config_source``, ``path``). Each is a DiscoveryResponse. The session asks as
it asks a server; what it asks for is read, and answered at once:

    every ``PERIOD``   each file that is needed is looked at ──changed──► read ──good──► answered
                                                                         └──wrong──► told; what was good stays
    a request          with other names than before ──► answered

An answer goes out where it differs from the last one of its type, and the next only when that was dealt with. What a
file does not have is said not to exist, so that nobody waits for it; who is deleted from a full list is left out of it.

A file that was moved into its place (another inode, also behind a symbolic link) is read at the next look, as in Envoy.
One that is written in place is read once it has been quiet from one look to the next, since half of a file may well be
read as a whole with fewer resources; so an empty file is a mistake and no deletion.

Everything runs on the worker: files are read where the configuration file is. Paths are taken from these files alone;
what a control plane at the other end of a network sends never names one.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from meshlib.errors import ConfigError
from meshlib.model.status import Ignored
from meshlib.sources.file import PERIOD, Watched
from meshlib.xds import schema
from meshlib.xds.discovery import REQUEST, RESPONSE, name_of, read_response, settle_sources

if TYPE_CHECKING:
    from meshlib.runtime.worker import Timer
    from meshlib.sources.stream import Ears
    from meshlib.xds.bootstrap import Server
    from meshlib.xds.schema import WireMessage

__all__ = ["Content", "FileStream", "contents"]

SUFFIXES = (".yaml", ".yml", ".json", ".pb")
_LARGEST = 16 * 2**20
_ROOTS = {"cluster": "cds", "listener": "lds"}
#: Who is named comes before who names it.
_ORDER = ("cluster", "secret", "endpoint", "listener", "route")
_NOT_FOUND = 5  # google.rpc.Code
_WORDS = {"route": "route configuration", "endpoint": "load assignment", "secret": "secret"}


@dataclass(slots=True)
class Content:
    """What a file says: its resources by their names, and from which files those that they name come."""

    version: str
    resources: tuple[tuple[str, WireMessage], ...]
    paths: Mapping[tuple[str, str], str]
    ignored: tuple[Ignored, ...]


class _File:
    """One file: what was good of it last, and what is wrong with it now."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.content: Content | None = None
        self.error = ""
        self._watched = Watched(path)
        self._place: tuple[int, int] | None = None
        self._written = False  # changed in place, and not read since

    def look(self) -> None:
        """Read it anew where it is another."""
        try:
            seen = Path(self.path).stat()
        except (OSError, ValueError) as problem:
            reason = problem.strerror if isinstance(problem, OSError) else problem
            self.error, self._place = f"{self.path}: cannot be read: {reason}", None
            return
        if not stat.S_ISREG(seen.st_mode):  # a pipe would be waited for
            self.error, self._place = f"{self.path}: is no file", None
            return
        place = (seen.st_dev, seen.st_ino)
        moved, self._place = place != self._place, place
        edited = self._watched.edited()
        if moved or (self._written and not edited):
            self._written = False
            self._read()
        elif edited:
            self._written = True

    def _read(self) -> None:
        try:
            self.content, self.error = _content(self.path), ""
        except ConfigError as problem:
            self.error = str(problem)


@dataclass(slots=True)
class _Type:
    """``wanted``: the names that are asked for, None before the first request; ``told``: of what the last answer was made."""

    wanted: tuple[str, ...] | None = None
    told: tuple[object, ...] = ()
    sent: frozenset[str] = field(default_factory=frozenset)


class FileStream:
    """The stream whose other end is a directory (``server.uri``). ``later`` sets timers of the worker's; ``give_way`` is called before
    each file that is read.
    """

    def __init__(
        self,
        server: Server,
        ears: Ears,
        post: Callable[[Callable[[], object]], None],
        protocol: str = "sotw",
        *,
        later: Callable[[float, Callable[[], object]], Timer],
        give_way: Callable[[], object] = bool,
    ) -> None:
        self._folder = server.uri
        del protocol  # state of the world is all that there is here
        self._ears = ears
        self._post = post
        self._later = later
        self._give_way = give_way
        self._roots: dict[str, _File] = {}
        self._files: dict[str, _File] = {}  # those that resources name
        self._types = {short: _Type() for short in _ORDER}
        self._missing: list[str] = []
        self._told: tuple[str, tuple[Ignored, ...]] = ("", ())
        self._nonce = 0
        self._busy = False  # an answer is being dealt with
        self._cancelled = False
        self._timer: Timer | None = None
        post(self._begin)

    # --- AdsStream ----------------------------------------------------------------------------------------------

    def send(self, raw: bytes) -> None:
        request = schema.message(REQUEST).FromString(raw)
        kind = self._types.get(schema.SHORT_NAMES[request.type_url])
        if kind is None:
            return  # what comes in no file is never answered
        names = tuple(request.resource_names)
        if names != kind.wanted:
            kind.wanted = names
            self._post(self._answer)

    def consumed(self) -> None:
        self._busy = False
        self._post(self._answer)

    def cancel(self, timeout: float = 0.5) -> None:
        del timeout
        self._cancelled = True
        if self._timer is not None:
            self._timer.cancel()

    # --- looks --------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        if not self._cancelled:
            self._ears.on_ready(self)
            self._look()

    def _look(self) -> None:
        if self._cancelled:
            return
        try:
            self._find_roots()
            needed = set(self._named())
            self._files = {path: file for path, file in self._files.items() if path in needed}
            for file in (*self._roots.values(), *self._files.values()):
                self._give_way()
                file.look()
            self._answer()
        finally:
            self._timer = self._later(PERIOD, self._look)

    def _find_roots(self) -> None:
        self._missing = []
        for short in _ROOTS:
            try:
                path = _root_of(self._folder, short)
            except ConfigError as problem:
                self._missing.append(str(problem))
                continue
            if short not in self._roots or self._roots[short].path != path:
                self._roots[short] = _File(path)

    def _path(self, short: str, name: str) -> str | None:
        """Where the resource is to come from."""
        root = self._roots.get("listener" if short == "route" else "cluster")
        content = root.content if root is not None else None
        return content.paths.get((short, name)) if content is not None else None

    def _named(self) -> Iterator[str]:
        for short in _WORDS:
            for name in self._types[short].wanted or ():
                path = self._path(short, name)
                if path is not None:
                    yield path

    def _file(self, path: str) -> _File:
        file = self._files.get(path)
        if file is None:
            file = self._files[path] = _File(path)
            self._give_way()
            file.look()
        return file

    # --- answers ------------------------------------------------------------------------------------------------

    def _answer(self) -> None:
        """Hand out the next answer that differs from the last of its type; when there is none, what is wrong."""
        if self._busy or self._cancelled:
            return
        for short in _ORDER:
            kind = self._types[short]
            if kind.wanted is None:
                continue
            answer = self._root(short, kind) if short in _ROOTS else self._leaves(short, kind)
            if answer is not None:
                self._busy = True
                self._ears.on_message(self, answer)
                return
        self._tell()

    def _tell(self) -> None:
        files = (*self._roots.values(), *self._files.values())
        error = "; ".join((*self._missing, *(file.error for file in files if file.error)))
        ignored = tuple(each for file in files if file.content is not None for each in file.content.ignored)
        if (error, ignored) != self._told:
            self._told = (error, ignored)
            self._ears.on_state(self, error, ignored)

    def _root(self, short: str, kind: _Type) -> bytes | None:
        """Everything of a full list, or what of it is asked for."""
        file = self._roots.get(short)
        if file is None or file.content is None:
            return None
        wanted = kind.wanted or ()
        chosen = list(file.content.resources)
        if wanted and "*" not in wanted:
            chosen = [(name, each) for name, each in chosen if name in wanted or not name]
        here = {name for name, _ in chosen}
        lacking = {name: f"{file.path} has none of this name" for name in wanted if name not in here}
        lacking.pop("*", None)
        return self._response(short, kind, {file.path: file.content.version}, chosen, lacking)

    def _leaves(self, short: str, kind: _Type) -> bytes | None:
        """What other resources name, each from its own file."""
        chosen: list[tuple[str, WireMessage]] = []
        lacking: dict[str, str] = {}
        versions: dict[str, str] = {}
        for name in kind.wanted or ():
            path = self._path(short, name)
            if path is None:
                lacking[name] = f"no path is given for {_WORDS[short]} {name!r}"
                continue
            content = self._file(path).content
            if content is None:
                continue  # what is wrong with the file is told with the state
            versions[path] = content.version
            found = [each for each in content.resources if each[0] == name]
            chosen += found
            if not found:
                lacking[name] = f"{path} has no {_WORDS[short]} {name!r}"
        return self._response(short, kind, versions, chosen, lacking) if chosen or lacking else None

    def _response(
        self,
        short: str,
        kind: _Type,
        versions: Mapping[str, str],
        chosen: list[tuple[str, WireMessage]],
        lacking: Mapping[str, str],
    ) -> bytes | None:
        """The answer; None where it says what the last one said."""
        # Of what was here and is gone the list itself tells: an error would keep it.
        lacking = {name: text for name, text in lacking.items() if name not in kind.sent}
        told = (kind.wanted, tuple(versions.items()), tuple(lacking.items()))
        if told == kind.told:
            return None
        kind.told, kind.sent = told, frozenset(name for name, _ in chosen)
        self._nonce += 1
        made = schema.message(RESPONSE)(
            type_url=schema.TYPE_URLS[short],
            version_info=_version(versions),
            nonce=str(self._nonce),
            resources=[resource for _, resource in chosen],
        )
        for name, text in lacking.items():
            error = made.resource_errors.add()
            error.resource_name.name = name
            error.error_detail.code, error.error_detail.message = _NOT_FOUND, text
        return made.SerializeToString()


def contents(folder: str) -> Iterator[tuple[str, Content]]:
    """Each file of the directory and what it says: what it has now, for somebody who looks once. What is wrong is raised
    at the end, as one ConfigError.
    """
    problems: list[str] = []
    waiting: list[str] = []
    for short in _ROOTS:
        try:
            waiting.append(_root_of(folder, short))
        except ConfigError as problem:
            problems += problem.problems
    seen: set[str] = set()
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        file = _File(path)
        file.look()
        if file.content is None:
            problems.append(file.error)
            continue
        waiting += file.content.paths.values()
        yield path, file.content
    if problems:
        raise ConfigError(problems=problems)


def _root_of(folder: str, short: str) -> str:
    """The path of the full list of a type. Raises ConfigError where there is none, or more than one."""
    paths = [str(Path(folder) / f"{_ROOTS[short]}{suffix}") for suffix in SUFFIXES]
    found = [path for path in paths if os.path.lexists(path)]
    if not found:
        raise ConfigError(f"{folder}: has none of {', '.join(Path(path).name for path in paths)}")
    if len(found) > 1:
        raise ConfigError(f"{' and '.join(found)} are both there: keep one of them")
    return found[0]


def _version(versions: Mapping[str, str]) -> str:
    """Of several files a digest of their versions."""
    if len(versions) == 1:
        return next(iter(versions.values()))
    return _digest("\n".join(versions.values()).encode())


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def _content(path: str) -> Content:
    """What the file says. Raises ConfigError that names it, and the place in it."""
    response, unknown = _load(path)
    paths: dict[tuple[str, str], str] = {}
    twice: list[str] = []

    def taken(short: str, name: str, source: WireMessage) -> bool:
        which = source.WhichOneof("config_source_specifier")
        if which not in ("path", "path_config_source"):
            return False
        named = str(source.path if which == "path" else source.path_config_source.path)
        if paths.setdefault((short, name), named) != named:
            twice.append(f"{_WORDS[short]} {name!r} is to come from {paths[short, name]} and from {named}")
        return True

    settle_sources(response, taken)
    if twice:
        raise ConfigError(problems=[f"{path}: {text}" for text in dict.fromkeys(twice)])
    raw = response.SerializeToString(deterministic=True)
    version = str(response.version_info)
    resources = tuple((name_of(each), each) for each in response.resources)
    # An edit counts though whoever made it left the version as it was.
    return Content(f"{version}-{_digest(raw)}" if version else _digest(raw), resources, paths, unknown)


def _load(path: str) -> tuple[WireMessage, tuple[Ignored, ...]]:
    """By the suffix, as Envoy: binary, YAML, else JSON."""
    from meshlib.config.files import read

    suffix = Path(path).suffix.lower()
    if suffix == ".pb":
        return _binary(path), ()
    if suffix == ".pb_text":
        raise ConfigError(f"{path}: protobuf's text format is not read; write YAML, JSON or binary (.pb)")
    document = read(path, envoy=True, suffix=suffix if suffix in (".yaml", ".yml") else ".json")
    if not document.value:
        raise ConfigError(f"{path}: is empty: a file without resources says resources: []")
    try:
        response, unknown = read_response(document.value)
    except schema.JsonError as problem:
        raise ConfigError(problems=document.told(problem.problems)) from None
    except RecursionError:
        raise ConfigError(f"{path}: is nested too deeply") from None
    told = (
        Ignored("", "file", document.told((f"{place}: is no field that is known",))[0], value)
        for place, value in unknown
    )
    return response, tuple(told)


def _binary(path: str) -> WireMessage:
    try:
        with Path(path).open("rb") as file:
            raw = file.read(_LARGEST + 1)
    except OSError as problem:
        raise ConfigError(f"{path}: cannot be read: {problem.strerror}") from problem
    if len(raw) > _LARGEST:
        raise ConfigError(f"{path}: is larger than {_LARGEST // 2**20} MiB")
    if not raw:
        raise ConfigError(f"{path}: is empty: a file without resources has at least a type_url or a version")
    try:
        return schema.message(RESPONSE).FromString(raw)
    except (schema.DecodeError, RecursionError) as problem:
        raise ConfigError(f"{path}: is no DiscoveryResponse: {problem}") from None
