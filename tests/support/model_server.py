"""A server that answers as the APIs of language models do, as far as their Python clients look: OpenAI's chat completions,
Anthropic's messages, Gemini's generateContent; whole, or as a stream of events.

What a request lacks is refused as there, so that a client that sends something else is noticed.
"""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

__all__ = ["KEY", "WORDS", "ModelServer"]

KEY = "sk-not-a-secret"
#: What follows the server's name in each answer; a stream gives each by itself.
WORDS = ("says", "good", "morning")


@dataclass
class Asked:
    """One request as it arrived."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any] = field(repr=False)


class ModelServer:
    """On loopback. ``with ModelServer("a") as server: server.address``."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.asked: list[Asked] = []
        self._errors: list[tuple[int, dict[str, str]]] = []
        self._always: tuple[int, dict[str, str]] | None = None
        self._breaks = ""
        self._go_on = threading.Event()
        self._go_on.set()
        self.streaming = threading.Semaphore(0)  # one for each stream whose first word is out
        self.gone = threading.Semaphore(0)  # one for each stream whose client went away
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (_Handler,), {"model": self}))
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._http.server_address[1]}"

    @property
    def words(self) -> tuple[str, ...]:
        return (self.name, *WORDS)

    def fail(self, status: int, times: int | None = None, **headers: str) -> None:
        """Answer with an error, so many times or always. Underscores of header names are dashes."""
        said = (status, {name.replace("_", "-"): value for name, value in headers.items()})
        if times is None:
            self._always = said
        else:
            self._errors += [said] * times

    def hold(self) -> None:
        """Streams stop behind their first word until ``release``."""
        self._go_on.clear()

    def release(self) -> None:
        self._go_on.set()

    def break_streams(self, how: str) -> None:
        """Streams end behind their first word: ``"reset"`` or ``"closed"``."""
        self._breaks = how

    def error(self) -> tuple[int, dict[str, str]] | None:
        return self._errors.pop(0) if self._errors else self._always

    def rest_of_a_stream(self, handler: _Handler, events: Iterator[bytes]) -> None:
        handler.chunk(next(events))
        self.streaming.release()
        if self._breaks:
            handler.close_connection = True
            if self._breaks == "reset":
                linger = struct.pack("ii", 1, 0)
                handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            handler.wfile.flush()
            handler.connection.close()
            return
        self._go_on.wait(30)
        try:
            for event in events:
                handler.chunk(event)
            handler.wfile.write(b"0\r\n\r\n")
        except OSError:
            handler.close_connection = True
            self.gone.release()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join(5)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    model: ModelServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.model.asked.append(Asked(self.path, headers, body))
        api = _api_of(self.path)
        if api is None:
            self.answer(404, {"error": {"message": f"no {self.path}"}})
        elif headers.get(api.key[0]) != api.key[1]:
            self.answer(401, api.error("authentication_error", "a key is missing"))
        elif missing := [name for name in api.needs if name not in body]:
            self.answer(400, api.error("invalid_request_error", f"{missing} is missing"))
        elif error := self.model.error():
            self.answer(error[0], api.error("api_error", "not now"), error[1])
        elif api.streams(self.path, body):
            self.send_response(200)
            self.send_header("content-type", "text/event-stream; charset=utf-8")
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            self.model.rest_of_a_stream(self, api.events(self.model.words))
        else:
            self.answer(200, api.whole(" ".join(self.model.words)))

    def answer(self, status: int, said: Any, headers: dict[str, str] | None = None) -> None:
        body = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

    def log_message(self, *_: Any) -> None:
        """Nobody reads it."""


def _event(data: Any, name: str = "") -> bytes:
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(data)}\n\n".encode()


class _OpenAI:
    key = ("authorization", f"Bearer {KEY}")
    needs = ("model", "messages")

    @staticmethod
    def streams(_: str, body: dict[str, Any]) -> bool:
        return body.get("stream") is True

    @staticmethod
    def error(kind: str, message: str) -> Any:
        return {"error": {"message": message, "type": kind, "param": None, "code": None}}

    @staticmethod
    def whole(text: str) -> Any:
        message = {"role": "assistant", "content": text, "refusal": None}
        return {
            "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m",
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 1, "completion_tokens": 4, "total_tokens": 5},
        }  # fmt: skip

    @staticmethod
    def events(words: tuple[str, ...]) -> Iterator[bytes]:
        deltas: list[tuple[Any, Any]] = [({"role": "assistant", "content": f"{words[0]} "}, None)]
        deltas += [({"content": f"{word} "}, None) for word in words[1:]]
        for delta, reason in [*deltas, ({}, "stop")]:
            choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
            yield _event(
                {
                    "id": "chatcmpl-1",
                    "object": "chat.completion.chunk",
                    "created": 1,
                    "model": "m",
                    "choices": [choice],
                }
            )
        yield b"data: [DONE]\n\n"


class _Anthropic:
    key = ("authorization", f"Bearer {KEY}")
    needs = ("model", "messages", "max_tokens")

    streams = _OpenAI.streams

    @staticmethod
    def error(kind: str, message: str) -> Any:
        return {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req-1"}

    @staticmethod
    def message(content: Any, reason: Any) -> Any:
        return {
            "id": "msg-1", "type": "message", "role": "assistant", "model": "m", "content": content,
            "stop_reason": reason, "stop_sequence": None, "usage": {"input_tokens": 1, "output_tokens": 4},
        }  # fmt: skip

    @classmethod
    def whole(cls, text: str) -> Any:
        return cls.message([{"type": "text", "text": text}], "end_turn")

    @classmethod
    def events(cls, words: tuple[str, ...]) -> Iterator[bytes]:
        def said(kind: str, **more: Any) -> bytes:
            return _event({"type": kind, **more}, kind)

        def delta(word: str) -> bytes:
            text = {"type": "text_delta", "text": f"{word} "}
            return said("content_block_delta", index=0, delta=text)

        start = said("message_start", message=cls.message([], None))
        block = said("content_block_start", index=0, content_block={"type": "text", "text": ""})
        yield start + block + said("ping") + delta(words[0])
        for word in words[1:]:
            yield delta(word)
        yield said("content_block_stop", index=0)
        end = {"stop_reason": "end_turn", "stop_sequence": None}
        yield said("message_delta", delta=end, usage={"output_tokens": 4})
        yield said("message_stop")


class _Gemini:
    key = ("x-goog-api-key", KEY)
    needs = ("contents",)

    @staticmethod
    def streams(path: str, _: dict[str, Any]) -> bool:
        return ":streamGenerateContent" in path

    @staticmethod
    def error(kind: str, message: str) -> Any:
        return {"error": {"code": 500, "message": message, "status": kind.upper()}}

    @staticmethod
    def whole(text: str, reason: str | None = "STOP") -> Any:
        candidate = {
            "index": 0,
            "content": {"role": "model", "parts": [{"text": text}]},
            "finishReason": reason,
        }
        usage = {"promptTokenCount": 1, "candidatesTokenCount": 4, "totalTokenCount": 5}
        return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "m"}

    @classmethod
    def events(cls, words: tuple[str, ...]) -> Iterator[bytes]:
        for word in words:
            yield _event(cls.whole(f"{word} ", "STOP" if word == words[-1] else None)).replace(b"\n", b"\r\n")


def _api_of(path: str) -> Any:
    if path == "/v1/chat/completions":
        return _OpenAI
    if path.partition("?")[0] == "/v1/messages":
        return _Anthropic
    if path.startswith(("/v1/models/", "/v1beta/models/")) and ":" in path:
        return _Gemini
    return None
