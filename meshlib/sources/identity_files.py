"""An identity of files: certificate, key and roots, read again when they change.

They are told by ``[identity]``, or by an instance of the bootstrap's ``certificate_providers`` whose plug-in is ``file_watcher``
(gRFC A29, A65), which may have a map of SPIFFE's trust bundles in the place of roots (A87).

Certificate and key are one: while they are no pair (one of them was written, the other comes in a moment), or the new certificate has
expired, both stay as they were, and they are read again at each look until they are good. A file that is not there yet is waited for;
one that cannot be understood is not.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any

from meshlib.model.tls import Certificate, Pem, Secret, SecretKind, SecretName, Validation
from meshlib.runtime.files import regular
from meshlib.sources.file import PERIOD, Watched
from meshlib.sources.identity_base import ProviderStatus
from meshlib.sources.identity_facts import check_pair, check_roots, domains
from meshlib.xds.bootstrap import duration

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Self

    from meshlib.runtime.worker import Timer, Worker

__all__ = ["LARGEST", "FilesProvider", "WatchedFiles"]

#: Bytes of a file; the largest bundles of roots have half a million.
LARGEST = 4 * 2**20


@dataclass(frozen=True, slots=True)
class WatchedFiles:
    """What is read: each may be ``""``. ``bundles``: the map of trust bundles, in the place of ``ca``. ``period``: seconds between looks."""

    cert: str = ""
    key: str = ""
    ca: str = ""
    bundles: str = ""
    period: float = PERIOD

    @classmethod
    def of_bootstrap(cls, config: Mapping[str, Any]) -> Self:
        """Of a ``file_watcher``'s configuration. Raises ValueError that says what is wrong with it."""
        names = (
            "certificate_file",
            "private_key_file",
            "ca_certificate_file",
            "spiffe_trust_bundle_map_file",
        )
        found = []
        for name in names:
            value = config.get(name)
            if not isinstance(value, str | None) or "\0" in (value or ""):
                raise ValueError(f"{name} must be the path of a file")
            found.append(value or "")
        cert, key, ca, bundles = found
        if bool(cert) != bool(key):
            raise ValueError("certificate_file and private_key_file go together")
        if not (cert or ca or bundles):
            raise ValueError("it names no file")
        try:
            period = duration(config.get("refresh_interval"))
        except ValueError as problem:
            raise ValueError(f"refresh_interval {problem}") from None
        return cls(cert, key, "" if bundles else ca, bundles, period)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(filter(None, (self.cert, self.key, self.ca, self.bundles)))


class _Missing(Exception):
    """A file is not there."""


class _Material:
    """What is made of some files: the last good secret, and what is wrong with what they hold now."""

    def __init__(self, paths: tuple[str, ...], make: Callable[[tuple[bytes, ...]], Secret]) -> None:
        self._watched = tuple(map(Watched, paths))
        self._make = make
        self.secret: Secret | None = None
        self.problem = ""
        self.missing = True
        self._unread = True

    def look(self) -> bool:
        """Takes up what was written; whether there is anything else to tell than before."""
        edited = [file.edited() for file in self._watched]  # each of them
        if not (any(edited) or self.problem or self._unread):
            return False
        self._unread = False
        before = (self.secret, self.problem)
        paths = [file.path for file in self._watched]
        try:
            made = self._made(paths, tuple(map(_read, paths)))
        except (_Missing, ValueError) as problem:
            self.problem, self.missing = str(problem), isinstance(problem, _Missing)
        else:
            self.secret = self.secret if made == self.secret else made
            self.problem = ""
        return before != (self.secret, self.problem)

    def _made(self, paths: list[str], read: tuple[bytes, ...]) -> Secret:
        try:
            return self._make(read)
        except ValueError as problem:
            raise ValueError(f"{', '.join(paths)}: {problem}") from None


class FilesProvider:
    """A provider (`identity_base.Provider`); it needs no thread, since files do not block for long."""

    def __init__(self, worker: Worker, files: WatchedFiles) -> None:
        self._worker = worker
        self._files = files
        self._timer: Timer | None = None
        self._told: Callable[[], object] = bool
        self._running = False
        self._ends = inf  # of the certificate, in seconds since the epoch
        self._expired = False
        self._materials: dict[SecretKind, _Material] = {}
        if files.cert:
            pair = (files.cert, files.key) if files.key != files.cert else (files.cert,)
            self._materials[SecretKind.CERTIFICATE] = _Material(pair, self._certificate)
        if files.bundles:
            self._materials[SecretKind.CA] = _Material((files.bundles,), _bundles)
        elif files.ca:
            self._materials[SecretKind.CA] = _Material((files.ca,), _roots)

    def start(self, told: Callable[[], object]) -> None:
        self._told = told
        self._running = True
        self._look()

    def stop(self) -> None:
        self._running = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def secret(self, name: SecretName) -> Secret | str | None:
        material = self._materials.get(name.kind)
        if material is None:
            return "is not among the files of identity"
        if material.secret is None and material.problem and not material.missing:
            return f"cannot be used: {material.problem}"
        if self._expired and name.kind is SecretKind.CERTIFICATE:
            return "has expired" + (f": {material.problem}" if material.problem else "")
        return material.secret

    def status(self) -> ProviderStatus:
        materials = list(self._materials.values())
        error = "; ".join(each.problem for each in materials if each.problem)
        if self._expired:
            error = error or "the certificate has expired"
        state = "idle"
        if error:
            whole = all(each.secret is not None for each in materials) and not self._expired
            state = "stale" if whole else "failed"
        elif self._running:
            state = "ready"
        return ProviderStatus(", ".join(self._files.names), state, error)

    def _look(self) -> None:
        changed = [each.look() for each in self._materials.values()]
        left = self._ends - self._worker.clock.wall()
        if (left <= 0) is not self._expired:
            self._expired = left <= 0
            changed.append(True)
        period = self._files.period
        self._timer = self._worker.later(min(period, left) if left > 0 else period, self._look)
        if any(changed):
            self._told()

    def _certificate(self, read: tuple[bytes, ...]) -> Secret:
        chain, key = read[0], read[-1]
        facts = check_pair(chain, key)
        if facts.ends <= self._worker.clock.wall():
            raise ValueError("the certificate has expired")
        self._ends = facts.ends
        return Secret("", SecretKind.CERTIFICATE, certificate=Certificate(Pem(chain), Pem(key)))


def _read(path: str) -> bytes:
    try:
        with open(path, "rb", opener=regular) as file:
            data = file.read(LARGEST + 1)
    except FileNotFoundError:
        raise _Missing(f"{path} is not there") from None
    except OSError as problem:
        raise ValueError(f"{path} cannot be read: {problem.strerror or problem}") from None
    if len(data) > LARGEST:
        raise ValueError(f"{path} is larger than {LARGEST // 2**20} MiB")
    return data


def _roots(read: tuple[bytes, ...]) -> Secret:
    check_roots(read[0])
    return Secret("", SecretKind.CA, validation=Validation(roots=Pem(read[0])))


def _bundles(read: tuple[bytes, ...]) -> Secret:
    found = domains(read[0])
    # With no domain at all there is nothing by which anybody could be verified: it is no Validation then.
    nobody = "" if found else "a map of trust bundles without any: nobody is trusted"
    return Secret("", SecretKind.CA, validation=Validation(domains=found), unsupported=nobody)
