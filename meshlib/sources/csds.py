"""Envoy's client status service (CSDS): what grpcdebug and the like read of this process. Off unless ``[admin] csds`` names an address.

Theory. One server a process and address, shared by the meshes that name it; what each has is asked of its sources when somebody
asks. A sync server of grpcio's answers on threads of its own, one a call, and none of them keeps a process from ending.

    start ──► taken? ──no──► serving ──stop──► (as before start)
                └─yes─► waiting ──each RETRY s─┘

One process serves an address. A second one (gunicorn's other workers, a child whose parent serves) says so once and looks again
each ``RETRY`` seconds, so that another takes the place of one that ended. A port is taken by its own binding. A socket in the file
system is taken by a lock on a file beside it, since a path can be bound over; it comes into being under another name, in a
directory that only its owner may enter, and is renamed once it has the mode 0600.

Before a fork the server ends, as streams do, and it is back with them: at the parent's next use of the mesh.

``_lock`` guards ``_serving``; each process has its own.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
import threading
from concurrent import futures
from pathlib import Path
from typing import TYPE_CHECKING, Any

from meshlib.runtime import threads
from meshlib.runtime.process import Local
from meshlib.sources.base import Source, State
from meshlib.sources.channel import refusal
from meshlib.sources.stream import channels_closed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import grpc

    from meshlib.runtime.worker import Timer
    from meshlib.sources.merge import Merge
    from meshlib.xds.csds import Client

__all__ = ["RETRY", "CsdsSource"]

#: Seconds after which a process looks again whether its address is free.
RETRY = 5.0
#: Calls that are answered at once, open streams included.
_CALLS = 16
#: Bytes of a request.
_LONGEST = 65_536
#: Seconds for which the end of the server is waited for.
_ENDING = 0.2


class CsdsSource(Source):
    """Serves while its mesh runs. It publishes nothing. ``address``: ``"unix:/path"``, or an address of loopback with its port."""

    def __init__(self, merge: Merge, address: str) -> None:
        super().__init__("csds", "csds", merge)
        self._merge = merge
        self._address = address
        self._server: _Server | None = None
        self._retry: Timer | None = None

    @property
    def shown(self) -> bool:
        return False

    @property
    def streaming(self) -> bool:
        return self._server is not None

    def start(self) -> None:
        self._retry = None
        if self._server is not None:
            return
        problem = refusal()
        if not problem:
            try:
                self._server = _join(self._address, self._clients)
            except OSError as error:
                problem = f"the client status service is not served: {error}"
        if not problem:
            self.good()
            return
        self.trouble(problem)
        self._retry = self.sink.worker.later(RETRY, self.start)

    def stop(self) -> None:
        retry, self._retry = self._retry, None
        if retry is not None:
            retry.cancel()
        server, self._server = self._server, None
        if server is not None:
            _leave(server, self._clients)
        if self.state is not State.IDLE:
            self.rest()

    def _clients(self) -> Iterable[Client]:
        """In a thread of the server's."""
        for source in self._merge.sources:
            yield from source.xds_states()


# --- one server a process and address --------------------------------------------------------------------------------------


class _Serving:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.servers: dict[str, _Server] = {}


_serving = Local(_Serving)


def _join(address: str, clients: Callable[[], Iterable[Client]]) -> _Server:
    """Have ``clients`` served there, too. Raises OSError where nothing can be, another process's server among the reasons."""
    mine = _serving.get()
    with mine.lock:
        server = mine.servers.get(address)
        if server is None:
            server = mine.servers[address] = _Server(address)
        server.shown = (*server.shown, clients)
        return server


def _leave(server: _Server, clients: Callable[[], Iterable[Client]]) -> None:
    mine = _serving.get()
    with mine.lock:
        server.shown = tuple(each for each in server.shown if each != clients)
        if not server.shown and mine.servers.get(server.address) is server:
            del mine.servers[server.address]
            server.close()


class _Threads(futures.Executor):
    """A daemon thread a call: those of a ``ThreadPoolExecutor`` are waited for at the end of the process, and a stream may stay open."""

    def submit(self, call: Callable[..., Any], /, *args: Any, **kwargs: Any) -> futures.Future[Any]:
        made: futures.Future[Any] = futures.Future()

        def run() -> None:
            try:
                made.set_result(call(*args, **kwargs))
            except BaseException as error:  # noqa: BLE001 - whoever has the future gets it
                made.set_exception(error)

        threads.start(threading.Thread(target=run, name="meshlib-csds", daemon=True))
        return made


class _Server:
    """A server that runs. ``shown``: what it asks for the clients; swapped whole."""

    def __init__(self, address: str) -> None:
        import grpc

        self.address = address
        self.shown: tuple[Callable[[], Iterable[Client]], ...] = ()
        options = (("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", _LONGEST))
        # It only submits; the stubs ask for Python's own pool.
        pool: Any = _Threads()
        self._server = grpc.server(pool, options=options, maximum_concurrent_rpcs=_CALLS)
        self._server.add_generic_rpc_handlers((_handlers(self._answer),))
        self._held = contextlib.ExitStack()
        try:
            if address.startswith("unix:"):
                self._held.enter_context(_socket(self._server, Path(address.removeprefix("unix:"))))
            else:
                _bind(self._server, address)
            self._server.start()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._server.stop(None).wait(_ENDING)
        self._held.close()
        channels_closed()

    def _answer(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        import grpc

        from meshlib.xds.csds import Refused, answer

        try:
            return answer(request, lambda: (show() for show in self.shown), threads.GiveWay())
        except Refused as refused:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(refused))


def _handlers(answer: Callable[[bytes, grpc.ServicerContext], bytes]) -> grpc.GenericRpcHandler[bytes, bytes]:
    """Of bytes as they are."""
    import grpc

    from meshlib.xds.schema import CSDS

    def each(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        for request in requests:
            yield answer(request, context)

    methods = {
        "FetchClientStatus": grpc.unary_unary_rpc_method_handler(answer),
        "StreamClientStatus": grpc.stream_stream_rpc_method_handler(each),
    }
    return grpc.method_handlers_generic_handler(CSDS.removeprefix("/"), methods)


def _bind(server: grpc.Server, where: str) -> None:
    try:
        bound = server.add_insecure_port(where)
    except RuntimeError as error:
        raise OSError(f"{where} cannot be bound: {error}") from None
    if not bound:
        raise OSError(f"{where} cannot be bound")


@contextlib.contextmanager
def _socket(server: grpc.Server, path: Path) -> Iterator[None]:
    """Bound, for its owner alone, for as long as the context lasts. Raises OSError."""
    with _locked(path.with_name(f"{path.name}.lock"), path):
        with tempfile.TemporaryDirectory(prefix=".", dir=path.parent) as directory:
            unnamed = Path(directory, "s")
            _bind(server, f"unix:{unnamed}")
            unnamed.chmod(0o600)
            unnamed.rename(path)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(lock: Path, path: Path) -> Iterator[None]:
    held = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OSError(f"{path} is served by another process") from None
        yield
    finally:
        os.close(held)
