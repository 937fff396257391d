"""A rate limit service of Envoy's protocol: what it was asked is kept, and it answers as it is told."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

import grpc

from meshlib.xds import schema

__all__ = ["Answer", "RateLimitServer"]

REQUEST = "envoy.service.ratelimit.v3.RateLimitRequest"
RESPONSE = "envoy.service.ratelimit.v3.RateLimitResponse"

#: Fields of a RateLimitResponse, or an exception that is raised; ``wait`` seconds pass before.
Answer = dict[str, Any]


class RateLimitServer:
    """``answers`` is asked for each question, with the domain and the descriptors as lists of pairs. ``asked``: all of them, in order."""

    def __init__(self, answers: Callable[[str, list[list[tuple[str, str]]]], Answer] | None = None) -> None:
        self._answers = answers or (lambda domain, descriptors: {"overall_code": "OK"})
        self._lock = threading.Condition()
        self.asked: list[dict[str, Any]] = []
        self.authorities: list[str] = []
        self.release = threading.Event()
        self._server = grpc.server(ThreadPoolExecutor(8))
        method = grpc.unary_unary_rpc_method_handler(self._should_rate_limit)
        handlers = {"ShouldRateLimit": method}
        self._server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler("envoy.service.ratelimit.v3.RateLimitService", handlers)]
        )
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self.address = f"127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.release.set()
        self._server.stop(None).wait(10)

    def _should_rate_limit(self, raw: bytes, context: grpc.ServicerContext) -> bytes:
        request = schema.message(REQUEST).FromString(raw)
        said = schema.to_json(request)
        assert isinstance(said, dict)
        descriptors = [
            [(str(entry.key), str(entry.value)) for entry in each.entries] for each in request.descriptors
        ]
        with self._lock:
            self.asked.append(said)
            self._lock.notify_all()
        answer = dict(self._answers(str(request.domain), descriptors))
        if answer.pop("hang", False):
            self.release.wait(30)
        if answer.pop("fail", False):
            context.abort(grpc.StatusCode.INTERNAL, "on order")
        return bytes(schema.from_json(RESPONSE, answer).SerializeToString())

    def wait_asked(self, count: int) -> None:
        """Until it was asked so many times."""
        with self._lock:
            assert self._lock.wait_for(lambda: len(self.asked) >= count, 20)

    def taken(self) -> list[dict[str, Any]]:
        """What was asked since the last time."""
        with self._lock:
            asked, self.asked = self.asked, []
        return asked
