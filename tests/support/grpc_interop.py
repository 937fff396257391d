"""gRPC's interop service, and a server of it: ``python -m tests.support.grpc_interop NAME PORT`` runs until it is ended.

A message is one line of JSON and a body. Messages of a stream are numbered by who sends them, so that one that is lost or comes
twice is seen.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

import grpc

__all__ = [
    "ECHO_INITIAL",
    "ECHO_TRAILING",
    "METHODS",
    "Interop",
    "InteropProcess",
    "Message",
    "pack",
    "unpack",
]

SERVICE = "mesh.interop.Test"
#: What a server gives back as it came.
ECHO_INITIAL = "x-echo-initial"
ECHO_TRAILING = "x-echo-trailing-bin"

#: Name → how a stub makes it.
METHODS = {
    "Empty": "unary_unary",
    "Unary": "unary_unary",
    "Sleep": "unary_unary",
    "Input": "stream_unary",
    "Output": "unary_stream",
    "Duplex": "stream_stream",
    "Flood": "unary_stream",
    "Missing": "unary_unary",  # the server has no such method
}


@dataclass(frozen=True)
class Message:
    """``sizes``: of the answers that are asked for; ``code`` and ``words``: the status to end with; ``name``: whose it is."""

    body: bytes = b""
    sizes: tuple[int, ...] = ()
    number: int = 0
    code: int = 0
    words: str = ""
    name: str = ""


def pack(message: Message) -> bytes:
    head = [message.sizes, message.number, message.code, message.words, message.name]
    return json.dumps(head).encode() + b"\n" + message.body


def unpack(data: bytes) -> Message:
    head, _, body = data.partition(b"\n")
    sizes, *rest = json.loads(head)
    return Message(body, tuple(sizes), *rest)


class Interop:
    """A server in threads of this process. ``given`` counts the messages that it gave to streams, ``taken`` those it took."""

    def __init__(self, name: str, port: int = 0, credentials: grpc.ServerCredentials | None = None) -> None:
        self.name = name
        self.given = self.taken = 0
        self.read = threading.Event()  # set: client streams are read
        self.read.set()
        self._idle = threading.Condition()  # guards ``_active``
        self._active = 0
        self._threads = ThreadPoolExecutor(64, thread_name_prefix=name)
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_metadata_size", 256 * 1024)]
        self._server = grpc.server(self._threads, options=options)
        handlers = {
            method: getattr(grpc, f"{kind}_rpc_method_handler")(getattr(self, method.lower()), unpack, pack)
            for method, kind in METHODS.items()
            if method != "Missing"
        }
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        place = f"127.0.0.1:{port}"
        if credentials is None:
            self.port = self._server.add_insecure_port(place)
        else:
            self.port = self._server.add_secure_port(place, credentials)
        self.address = f"127.0.0.1:{self.port}"
        self._server.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.stop(None).wait()
        self._threads.shutdown()

    def wait(self) -> None:
        self._server.wait_for_termination()

    def idle(self, seconds: float = 20.0) -> bool:
        """Wait until no call is under way; whether it came to that."""
        with self._idle:
            return self._idle.wait_for(lambda: not self._active, seconds)

    # --- methods ------------------------------------------------------------------------------------------------------

    def empty(self, request: Message, context: grpc.ServicerContext) -> Message:
        self._begin(context)
        return Message(name=self.name)

    def unary(self, request: Message, context: grpc.ServicerContext) -> Message:
        self._begin(context)
        self._end(request, context)
        return self._answer(request.sizes[0] if request.sizes else 0, len(request.body))

    def sleep(self, request: Message, context: grpc.ServicerContext) -> Message:
        """Until the caller gives up."""
        self._begin(context).wait()
        return Message()

    def input(self, requests: Iterator[Message], context: grpc.ServicerContext) -> Message:
        """How many messages came, and the sum of their bodies."""
        self._begin(context)
        self.read.wait()
        count = total = 0
        for request in requests:
            if request.number != count:
                context.abort(grpc.StatusCode.DATA_LOSS, f"{request.number} came where {count} was due")
            self.taken += 1
            count, total = count + 1, total + len(request.body)
        return Message(number=count, sizes=(total,), name=self.name)

    def output(self, request: Message, context: grpc.ServicerContext) -> Iterator[Message]:
        self._begin(context)
        for number, size in enumerate(request.sizes):
            yield self._answer(size, number)
        self._end(request, context)

    def duplex(self, requests: Iterator[Message], context: grpc.ServicerContext) -> Iterator[Message]:
        """For each message those that it asks for; none for one without sizes."""
        self._begin(context)
        number = expected = 0
        with suppress(grpc.RpcError):  # the call was cancelled
            for request in requests:
                if request.number != expected:
                    context.abort(
                        grpc.StatusCode.DATA_LOSS, f"{request.number} came where {expected} was due"
                    )
                expected += 1
                self.taken += 1
                self._end(request, context)
                for size in request.sizes:
                    yield self._answer(size, number)
                    number += 1
                    self.given += 1

    def flood(self, request: Message, context: grpc.ServicerContext) -> Iterator[Message]:
        """``number`` messages of ``sizes[0]`` bytes, as fast as they can be sent."""
        self._begin(context)
        for number in range(request.number):
            yield self._answer(request.sizes[0], number)
            self.given += 1

    def _answer(self, size: int, number: int) -> Message:
        return Message(bytes(size), number=number, name=self.name)

    def _begin(self, context: grpc.ServicerContext) -> threading.Event:
        """Give back what is to come back; what is set when the call is over."""
        over = threading.Event()
        with self._idle:
            self._active += 1

        def end() -> None:
            over.set()
            with self._idle:
                self._active -= 1
                self._idle.notify_all()

        if not context.add_callback(end):
            end()
        sent = list(context.invocation_metadata())
        initial = [(key, value) for key, value in sent if key.startswith(ECHO_INITIAL)]
        if initial:
            context.send_initial_metadata(initial)
        context.set_trailing_metadata([(key, value) for key, value in sent if key == ECHO_TRAILING])
        return over

    @staticmethod
    def _end(request: Message, context: grpc.ServicerContext) -> None:
        if request.code:
            code = next(code for code in grpc.StatusCode if code.value[0] == request.code)
            context.abort(code, request.words)


class InteropProcess:
    """A server that is a process, and can be killed and started again at its place."""

    def __init__(self, name: str, port: int = 0) -> None:
        self.name = name
        command = [sys.executable, "-m", "tests.support.grpc_interop", name, str(port)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        self.address = f"127.0.0.1:{self.port}"

    def kill(self) -> None:
        """By SIGKILL: nothing is said to anybody."""
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def again(self) -> InteropProcess:
        return InteropProcess(self.name, self.port)


def main() -> None:
    name, port = sys.argv[1:]
    with Interop(name, int(port)) as server:
        print(server.port, flush=True)
        server.wait()


if __name__ == "__main__":
    main()
