"""Who the process is to other workloads: which provider has its certificate and roots, and what of them is there.

What a name is answered by:

    [identity] says a provider          that one, whatever the name
    else, the bootstrap has an          that instance; for ROOTCA, which Istio's agent has beside ``default``, that one
    instance of certificate_providers
    of the name
    else, a provider was found          that one: SPIFFE_ENDPOINT_SOCKET, or Istio's token beside a control plane of Istio's
    else                                nobody: calls that need it fail, in words

Theory of a name that a cluster names (``find``):

    asked first ──► awaited ──came──► there ──rotated──► there
                       │                └──its end, or withdrawn──► in words ──came──► there
                       └──will not come, or WAIT is over──► in words ──came──► there

A provider starts when the first name that it answers is asked for, and what it has serves until it has better (its own affair, see
`identity_base`). A fork asks anew, and has until then what its parent had.

All of this runs on the worker, but ``statuses``, which reads what is swapped whole.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from meshlib.config.identity import SOCKET, TOKEN
from meshlib.model.status import IdentityStatus
from meshlib.model.tls import Secret, SecretKind, SecretName
from meshlib.sources.base import Source
from meshlib.sources.identity_base import CERTIFICATE, ROOTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from meshlib.config import Config
    from meshlib.runtime.worker import Timer, Worker
    from meshlib.sources.base import Sink
    from meshlib.sources.identity_base import Provider
    from meshlib.xds.bootstrap import Bootstrap, CertificateProvider

__all__ = ["WAIT", "Identity"]

#: Seconds for which a secret is awaited, as a resource of a control plane is (EX-09).
WAIT = 15.0

_ISTIO_PORTS = (15010, 15012)


_Facts = tuple[str, "float | None", int]
_NO_FACTS: _Facts = ("", None, 0)


class _Giver:
    """A provider in use. ``kind``: what a status calls it; ``found``: what told of it; ``words``: why it cannot be used at all."""

    def __init__(self, kind: str, found: str, make: Callable[[], Provider] | None, words: str = "") -> None:
        self.kind = kind
        self.found = found
        self.words = words
        self._make = make
        self.provider: Provider | None = None

    def start(self, told: Callable[[], object]) -> None:
        if self.provider is None and self._make is not None:
            try:
                self.provider = self._make()
            except ValueError as problem:
                self.words, self._make = f"cannot be had of {self.kind} ({self.found}): {problem}", None
        if self.provider is not None:
            self.provider.start(told)

    def lacks(self) -> str:
        """Who is to give it, and the last error."""
        status = None if self.provider is None else self.provider.status()
        where = f"{self.kind} ({status.server if status is not None and status.server else self.found})"
        error = status.last_error if status is not None else ""
        return where + (f": {error}" if error else "")

    def late(self) -> str:
        """What is told of a secret that did not come in time."""
        return f"has not come within {WAIT:g} s from {self.lacks()}"


class _Want:
    """A name that is asked for. ``answer``: what ``find`` gives."""

    def __init__(self, giver: _Giver | None, since: float, answer: Secret | str | None) -> None:
        self.giver = giver
        self.since = since
        self.answer = answer
        self.inherited = isinstance(answer, Secret)
        self.facts = _facts(answer) if isinstance(answer, Secret) else _NO_FACTS

    def ended(self, wall: float) -> bool:
        """Whether what was inherited is not valid any more."""
        ends = self.facts[1]
        return ends is not None and ends <= wall


class Identity(Source):
    """The holder. ``changed``: is told that ``find`` may give something else. ``inherited``: what a parent process had.

    Args:
        make: Makes the providers, by kind; for tests. Default: the real ones.
    """

    def __init__(
        self,
        sink: Sink,
        config: Config,
        bootstrap: Bootstrap | None,
        random: Callable[[], float],
        changed: Callable[[], object],
        make: Mapping[str, Callable[..., Provider]] | None = None,
    ) -> None:
        super().__init__("identity", "identity", sink)
        self._make = make or _PROVIDERS
        self._random = random
        self._changed = changed
        self._running = False
        self._inherited: Mapping[SecretName, Secret] = {}
        self._wants: dict[SecretName, _Want] = {}
        self._started: list[_Giver] = []
        self._timer: Timer | None = None
        self._metadata = config.node.to_dict()["metadata"] if bootstrap is None else bootstrap.node.metadata
        self._told = self._of_config(config, bootstrap) if config.identity_told else None
        self._instances = {} if bootstrap is None or self._told is not None else self._of_bootstrap(bootstrap)
        self._found = self._told or self._find_one(config, bootstrap)

    # --- who gives it -------------------------------------------------------------------------------------------

    def _of_config(self, config: Config, bootstrap: Bootstrap | None) -> _Giver:
        told = config.identity
        kind = told.chosen or ""
        found = f"identity ({config.source_of('identity')})"
        if kind == "files":
            files = {"cert": told.cert or "", "key": told.key or "", "ca": told.ca or ""}
            return self._giver(kind, found, **files)
        if kind == "istio":
            near = ("", "") if bootstrap is None or told.server is not None else _istiod(bootstrap)
            server = near[0] if told.server is None else str(told.server)
            return self._istio(found, server=server, token=told.token or "", ca=told.ca or near[1])
        if told.socket is None:
            words = f"cannot be had: identity.socket is not given, and {SOCKET} is not set"
            return _Giver(kind, found, None, words)
        return self._giver(kind, found, socket=told.socket)

    def _of_bootstrap(self, bootstrap: Bootstrap) -> dict[str, _Giver]:
        """Equal ones are one (BS-08)."""
        made: list[tuple[CertificateProvider, _Giver]] = []
        found: dict[str, _Giver] = {}
        for name, each in bootstrap.providers.items():
            known = next((giver for other, giver in made if other == each), None)
            if known is None:
                known = self._instance(name, each)
                made.append((each, known))
            found[name] = known
        return found

    def _instance(self, name: str, told: CertificateProvider) -> _Giver:
        found = f"certificate_providers[{name!r}] of the bootstrap"
        if told.plugin != "file_watcher":
            words = f"cannot be had: the plug-in {told.plugin[:100]!r} of {found} is not known"
            return _Giver(told.plugin[:100], found, None, words)
        return self._giver(told.plugin, found, config=told.config)

    def _find_one(self, config: Config, bootstrap: Bootstrap | None) -> _Giver | None:
        if config.identity.socket is not None:
            return self._giver("spiffe", SOCKET, socket=config.identity.socket)
        server, ca = ("", "") if bootstrap is None else _istiod(bootstrap)
        if server and Path(TOKEN).is_file():
            return self._istio(f"{TOKEN} beside the control plane {server}", server=server, ca=ca)
        return None

    def _istio(self, found: str, **given: str) -> _Giver:
        return self._giver(
            "istio",
            found,
            **{key: value for key, value in given.items() if value},
            metadata=self._metadata,
        )

    def _giver(self, kind: str, found: str, **told: object) -> _Giver:
        make, worker, random = self._make[kind], self.sink.worker, self._random
        return _Giver(kind, found, lambda: make(worker, random, **told))

    def _giver_of(self, name: str) -> _Giver | None:
        if self._told is not None:
            return self._told
        instances = self._instances
        if name in instances:
            return instances[name]
        return instances[CERTIFICATE] if name == ROOTS and CERTIFICATE in instances else self._found

    # --- what is there ------------------------------------------------------------------------------------------

    def inherit(self, secrets: Mapping[SecretName, Secret]) -> None:
        """What a parent process had: it serves until this one has its own."""
        self._inherited = {**self._inherited, **secrets}

    def find(self, name: SecretName) -> Secret | str | None:
        """The secret, or why it will not come, in words that follow its name; None: it may yet come."""
        want = self._wants.get(name)
        if want is None:
            giver = self._giver_of(name.name)
            want = _Want(giver, self.sink.worker.clock.now(), self._inherited.get(name))
            if giver is None:
                want.answer = f"cannot be had: {_NOBODY}"
            self._wants[name] = want
            if self._running:
                self.sink.worker.post(self._begin)
        return want.answer

    def awaits(self, name: SecretName) -> str:
        """A secret that may yet come, and from whom, in words. Any thread."""
        giver = self._giver_of(name.name)
        return f"secret {name.name!r}" + (f" of {giver.lacks()}" if giver is not None else "")

    def secrets(self) -> Mapping[SecretName, Secret]:
        """All that are there."""
        return {name: want.answer for name, want in self._wants.items() if isinstance(want.answer, Secret)}

    def keep(self, names: frozenset[SecretName]) -> None:
        """These are named; others are forgotten."""
        for name in [name for name in self._wants if name not in names]:
            del self._wants[name]

    def start(self) -> None:
        self._running = True
        self._begin()

    def stop(self) -> None:
        self._running = False
        started, self._started = self._started, []
        for giver in started:
            if giver.provider is not None:
                giver.provider.stop()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.rest()

    @property
    def shown(self) -> bool:
        return False

    @property
    def streaming(self) -> bool:
        return any(giver.kind in ("istio", "spiffe") for giver in self._started)

    def _begin(self) -> None:
        """Start whoever is needed, and look at what is there."""
        if not self._running:
            return
        for giver in dict.fromkeys(want.giver for want in self._wants.values()):
            if giver is not None and giver not in self._started:
                self._started.append(giver)
                giver.start(self._look)
        self._look()
        self._changed()  # of the names that are asked for some may be named no more

    def _look(self) -> None:
        """A provider has something else, or the time of one that is awaited is over."""
        if not self._running:
            return
        changed = [self._answer(name, want) for name, want in list(self._wants.items())]
        self._wait()
        self._tell()
        if any(changed):
            self._changed()

    def _tell(self) -> None:
        """How it stands as a source: of all that were started."""
        errors = [status.last_error for status in map(self._stands, self._started) if status.last_error]
        if any(want.giver is None for want in self._wants.values()):
            errors.append(_NOBODY)
        if errors:
            self.trouble("; ".join(errors))
        elif any(not isinstance(want.answer, Secret) for want in self._wants.values()):
            self.begin()
        elif self._wants:
            self.good()

    def _answer(self, name: SecretName, want: _Want) -> bool:
        giver, before = want.giver, want.answer
        if giver is None or giver not in self._started:
            return False
        said = giver.words if giver.provider is None else giver.provider.secret(name)
        ended = want.inherited and want.ended(self.sink.worker.clock.wall())
        if want.inherited and not ended and not isinstance(said, Secret):
            return False
        if said is None and self.sink.worker.clock.now() >= want.since + WAIT:
            said = giver.late()
        if ended and not isinstance(said, Secret):
            said = f"has expired, and a new one {said or giver.late()}"
        if said is not before:
            want.inherited = False
            want.answer = said
            if isinstance(said, Secret):
                want.facts = _facts(said)
        return said != before or (isinstance(said, Secret) and said is not before)

    def _wait(self) -> None:
        """A timer for the first that is awaited in vain, or is a parent's and ends."""
        now, wall = self.sink.worker.clock.now(), self.sink.worker.clock.wall()
        ends = [want.since + WAIT for want in self._wants.values() if want.answer is None]
        ends += [
            now + want.facts[1] - wall
            for want in self._wants.values()
            if want.inherited and want.facts[1] is not None
        ]
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if ends:
            self._timer = self.sink.worker.later(min(ends) - now, self._look)

    # --- what is told -------------------------------------------------------------------------------------------

    def statuses(self) -> tuple[IdentityStatus, ...]:
        """Of each that gives an identity, in the order in which they are asked. Any thread."""
        givers: Iterable[_Giver | None] = (*self._instances.values(), self._found)
        wants = list(self._wants.values())
        return tuple(
            self._status(giver, [want for want in wants if want.giver is giver])
            for giver in dict.fromkeys(givers)
            if giver is not None
        )

    @staticmethod
    def _stands(giver: _Giver) -> IdentityStatus:
        if giver.words:
            return IdentityStatus(giver.kind, giver.found, state="failed", last_error=giver.words)
        if giver.provider is None:
            return IdentityStatus(giver.kind, giver.found)
        how = giver.provider.status()
        return IdentityStatus(giver.kind, giver.found, how.server, how.state, last_error=how.last_error)

    def _status(self, giver: _Giver, wants: list[_Want]) -> IdentityStatus:
        facts = [want.facts for want in wants]
        ends = next((ends for _, ends, _ in facts if ends is not None), None)
        return replace(
            self._stands(giver),
            name=next((name for name, _, _ in facts if name), ""),
            expires_in=None if ends is None else ends - self.sink.worker.clock.wall(),
            roots=max((roots for _, _, roots in facts), default=0),
        )


_NOBODY = (
    f"nobody gives an identity: neither [identity] nor {SOCKET} nor certificate_providers of a bootstrap is there, nor "
    "Istio's token beside a control plane of Istio's"
)


def _istiod(bootstrap: Bootstrap) -> tuple[str, str]:
    """Where Istio's CA is, by a control plane that is Istio's, and the file of the roots that the latter is known by; "" where none is.
    The port without TLS has no CA.
    """
    for server in bootstrap.servers:
        host, _, port = server.uri.rpartition("/")[2].rpartition(":")
        istio = host.partition(".")[0].startswith("istiod") or bootstrap.node.id.count("~") == 3
        if istio and port.isdigit() and int(port) in _ISTIO_PORTS:
            return f"{host}:{_ISTIO_PORTS[-1]}", server.channel.ca_file
    return "", ""


def _facts(secret: Secret) -> _Facts:
    """The name and the end of a certificate; how many roots there are."""
    from meshlib.sources.identity_facts import check_roots, facts_of

    try:
        if secret.kind is SecretKind.CERTIFICATE and secret.certificate is not None:
            known = facts_of(secret.certificate.chain.data)
            return known.name, known.ends, 0
        if secret.validation is not None:
            pems = (secret.validation.roots, *secret.validation.domains.values())
            return "", None, sum(check_roots(pem.data) for pem in pems if pem.data)
    except ValueError:  # it is for who makes the context to say
        return _NO_FACTS
    return _NO_FACTS


def _files(worker: Worker, _random: Callable[[], float], *, cert: str, key: str, ca: str) -> Provider:
    from meshlib.sources.identity_files import FilesProvider, WatchedFiles

    return FilesProvider(worker, WatchedFiles(cert, key, ca))


def _watcher(worker: Worker, _random: Callable[[], float], *, config: Mapping[str, Any]) -> Provider:
    from meshlib.sources.identity_files import FilesProvider, WatchedFiles

    return FilesProvider(worker, WatchedFiles.of_bootstrap(config))


def _istio(worker: Worker, random: Callable[[], float], **told: Any) -> Provider:
    from meshlib.sources.identity_istio import IstioProvider

    return IstioProvider(worker, random, **told)


def _spiffe(worker: Worker, random: Callable[[], float], *, socket: str) -> Provider:
    from meshlib.sources.identity_spiffe import SpiffeProvider

    return SpiffeProvider(worker, random, socket=socket)


_PROVIDERS: Mapping[str, Callable[..., Provider]] = {
    "files": _files,
    "file_watcher": _watcher,
    "istio": _istio,
    "spiffe": _spiffe,
}
