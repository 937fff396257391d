"""The gRPC server that everybody is measured against: one process of grpcio, in an event loop, answers made in advance.

``python -m bench.grpc_server 100 cert.pem key.pem`` listens on 100 ports of 127.0.0.1 and on one more over TLS, prints them as a
JSON list, and ends with its standard input.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc

SERVICE = "bench.Echo"
ANSWER = b"x" * 1024
MESSAGES = 200  # of a stream


async def _unary(asked: bytes, context: Any) -> bytes:
    del asked, context
    return ANSWER


async def _stream(asked: bytes, context: Any) -> AsyncIterator[bytes]:
    del asked, context
    for _ in range(MESSAGES):
        yield ANSWER


async def serve(ports: int, certificate: bytes, key: bytes) -> None:
    server = grpc.aio.server()
    handlers = {
        "Unary": grpc.unary_unary_rpc_method_handler(_unary),
        "Stream": grpc.unary_stream_rpc_method_handler(_stream),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    found = [server.add_insecure_port("127.0.0.1:0") for _ in range(ports)]
    found.append(server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, certificate)])))
    await server.start()
    print(json.dumps(found), flush=True)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), ended.set)
    await ended.wait()
    await server.stop(None)


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), Path(sys.argv[2]).read_bytes(), Path(sys.argv[3]).read_bytes()))
