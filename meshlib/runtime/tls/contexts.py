"""One context for equal demands in a process, and its files, which are read again when they change.

Theory. ``MeshContext`` stands in for the context of the newest material. Its files are looked at before each handshake, and by
``watch`` while it is in use; both are ``look``. What a file looks like from outside (``Stamps``) says whether it may have changed, what is in it
whether it has. So nothing happens where a file was only touched; and since two changes within one tick of a file system's clock look the
same, what changed a moment ago is read once more at the next look.

    current ──stamps differ──► read ──equal──► current
                                 │──other, usable──► new context, epoch + 1
                                 └──unusable───────► the old stays; read again at the next look

A certificate and a key that do not belong together are two files of which one was written, so they are unusable for a moment.

Connections of an older epoch are used no more: whoever holds them is told by ``rotations``, and looks before each call whether its count
has moved on.

Locks: ``_Kept.lock`` guards the table of contexts; a context's ``_guard`` what it stands for. Files are read under the latter, and no other
is taken there; what is to be told is told after it. A child makes all of it anew: a parent's locks may be held.
"""

from __future__ import annotations

import logging
import ssl
import threading
import time
import weakref
from collections import OrderedDict
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from meshlib.errors import ConfigError
from meshlib.runtime.known import Known
from meshlib.runtime.process import Local
from meshlib.runtime.tls.making import make
from meshlib.runtime.tls.material import read, stamps

if TYPE_CHECKING:
    from collections.abc import Iterable

    from meshlib.model.tls import Tls
    from meshlib.runtime.tls.checks import CheckedContext
    from meshlib.runtime.tls.material import Stamps

__all__ = ["MeshContext", "Rotations", "context_for", "rotations"]

#: Contexts that nobody uses, kept for values that may come again. They hold keys, so they are few.
_MOST_KEPT = 64
#: Nanoseconds for which a change of a file may hide another: FAT's clock has a tick of 2 s, others some milliseconds.
_TICK = 2_000_000_000

_Key = tuple["Tls", bool, bool]

_log = logging.getLogger("meshlib")


class Follower(Protocol):
    """Who has connections that were made with a context."""

    def rotated(self) -> None:
        """A context was made anew. On any thread, and under no lock; blocks for nothing."""
        ...


class Rotations:
    """How many contexts of this process were made anew: who has seen the same count has nothing to look at. Two that come at once
    may count as one, which is as good. ``followers`` are told at once.
    """

    __slots__ = ("count", "followers")

    def __init__(self) -> None:
        self.count = 0
        self.followers: Known[Follower] = Known()

    def tell(self) -> None:
        """One more."""
        self.count += 1
        for follower in self.followers:
            follower.rotated()


rotations = Rotations()


class _Kept:
    """The contexts of one process: those in use, and the ones asked for last."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._used: weakref.WeakValueDictionary[_Key, MeshContext] = weakref.WeakValueDictionary()
        self._last: OrderedDict[_Key, MeshContext] = OrderedDict()

    def get(self, key: _Key) -> MeshContext | None:
        """Under the lock, as ``put``."""
        context = self._used.get(key)
        return None if context is None else self.put(key, context)

    def put(self, key: _Key, context: MeshContext) -> MeshContext:
        """The one of ``key``: that is there by now, or ``context``."""
        context = self._used.setdefault(key, context)
        self._last[key] = context
        self._last.move_to_end(key)
        if len(self._last) > _MOST_KEPT:
            self._last.popitem(last=False)
        return context


_here = Local(_Kept)


def context_for(tls: Tls, *, http2: bool = False, named: bool = False) -> MeshContext:
    """The context that ``tls`` demands; the same one for equal values, whatever name is asked for. Thread-safe.

    ``http2`` keeps those who offer HTTP/2 apart from those who do not, since a transport sets what it offers on the
    context. ``named``: the names to be checked come with each connection. Raises ConfigError that names the field and what is wrong
    with it, also for what is not supported or not there: without a secret that is to come it would verify nobody.
    """
    if tls.sni or tls.auto_host_sni:
        tls = replace(tls, sni="", auto_host_sni=False)
    key = (tls, http2, named)
    kept = _here.get()
    with kept.lock:
        context = kept.get(key)
    if context is None:
        context = MeshContext.of(tls, named=named)
        with kept.lock:
            context = kept.put(key, context)
    return context


class MeshContext(ssl.SSLContext):
    """Stands in for the context of the newest files. Thread-safe.

    Attributes:
        tls: What is demanded, but for the names that are asked for.
        epoch: How often the material has changed.
        users: Who makes connections with it.
    """

    tls: Tls
    epoch: int
    users: Known[object]
    _named: bool
    _inner: CheckedContext
    _stamps: Stamps
    _settled: bool
    _digest: bytes
    _alpn: list[str] | None
    _warned: str
    _guard: threading.Lock

    @classmethod
    def of(cls, tls: Tls, *, named: bool = False) -> MeshContext:
        """The context for ``tls``. Raises ConfigError."""
        if tls.closed:
            raise ConfigError(tls.closed)
        made = cls(ssl.PROTOCOL_TLS_CLIENT)
        made.tls, made.epoch, made.users = tls, 0, Known()
        made._named, made._alpn, made._warned = named, None, ""
        made._guard = threading.Lock()
        made._stamps = stamps(tls)
        made._settled = _is_settled(made._stamps)
        material = read(tls)
        made._digest = material.digest
        made._inner = make(tls, material, named=named)
        made.check_hostname = made._inner.check_hostname  # for who looks before the handshake
        made.verify_mode = made._inner.verify_mode
        return made

    @property
    def of_files(self) -> bool:
        """Whether there are files to be looked at."""
        return bool(self._stamps)

    @property
    def used(self) -> bool:
        """Whether somebody has it for connections that are to come."""
        return any(True for _ in self.users)

    def current(self) -> ssl.SSLContext:
        """The context of the files as they are now; of the last that could be read, if these cannot."""
        self.look()
        return self._inner

    def look(self) -> None:
        """Take in what changed in the files. Never raises."""
        if not self._stamps:
            return
        found = stamps(self.tls)
        if found == self._stamps and self._settled:
            return
        with self._guard:
            before = self.epoch
            problem = self._take_in(found)
            self._stamps = found
            changed = self.epoch != before
        if problem:
            # Who is told may make connections of this context.
            _log.warning("meshlib: TLS files changed and cannot be used; the old stay in use: %s", problem)
        if changed:
            rotations.tell()

    def _take_in(self, found: Stamps) -> str:
        """Why they cannot be used, where that is not said yet."""
        try:
            material = read(self.tls)
            digest = material.digest
            if digest != self._digest:
                inner = make(self.tls, material, named=self._named)
                if self._alpn is not None:
                    inner.set_alpn_protocols(self._alpn)
                self._inner, self._digest = inner, digest
                self.epoch += 1
        except ConfigError as error:
            self._settled = False
            said, self._warned = self._warned, str(error)
            return "" if said == self._warned else self._warned
        self._settled = _is_settled(found)
        self._warned = ""
        return ""

    def set_alpn_protocols(self, alpn_protocols: Iterable[str]) -> None:
        with self._guard:
            self._alpn = list(alpn_protocols)
            self._inner.set_alpn_protocols(self._alpn)

    def wrap_socket(self, *args: Any, **kwargs: Any) -> ssl.SSLSocket:
        return self.current().wrap_socket(*args, **kwargs)

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        return self.current().wrap_bio(*args, **kwargs)


def _is_settled(found: Stamps) -> bool:
    """Whether no file changed so lately that another change would look the same."""
    now = time.time_ns()
    return all(len(stamp) > 1 and now - int(str(stamp[1])) > _TICK for stamp in found)
