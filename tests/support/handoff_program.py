"""A program in a pod that calls through every library until its input ends, and tells of each call a line of JSON.

    python -m tests.support.handoff_program '{"sidecar": …}' http://reviews:9080/ HOST…

Each call has a number of its own in the header ``x-number``. Lines: ``{"host", "number", "begun", "ended", "via", "name"}``, and
``"error"``, in words, where it failed. Times are of the system's monotonic clock.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import meshlib

_numbers = itertools.count(1)
_writing = threading.Lock()


def tell(host: str, number: int, begun: float, answer: Any, name: str, error: BaseException | None) -> None:
    info = meshlib.call_info(answer if error is None else error)
    line: dict[str, Any] = {"host": host, "number": number, "begun": begun, "ended": time.monotonic()}
    line |= {"via": None if info is None else info.via, "name": name}
    if error is not None:
        line["error"] = f"{type(error).__name__}: {error}"
        line["of_the_mesh"] = isinstance(error, meshlib.MeshError)
    with _writing:
        print(json.dumps(line), flush=True)


def call(host: str, do: Callable[[dict[str, str]], tuple[Any, str]], stop: threading.Event) -> None:
    while not stop.is_set():
        number, begun = next(_numbers), time.monotonic()
        try:
            answer, name = do({"x-number": str(number)})
        except Exception as error:  # noqa: BLE001 - told
            tell(host, number, begun, None, "", error)
        else:
            tell(host, number, begun, answer, name, None)
        stop.wait(0.01)


async def acall(
    host: str, do: Callable[[dict[str, str]], Awaitable[tuple[Any, str]]], stop: threading.Event
) -> None:
    while not stop.is_set():
        number, begun = next(_numbers), time.monotonic()
        try:
            answer, name = await do({"x-number": str(number)})
        except Exception as error:  # noqa: BLE001 - told
            tell(host, number, begun, None, "", error)
        else:
            tell(host, number, begun, answer, name, None)
        await asyncio.sleep(0.01)


def of_httpx(url: str, mesh: meshlib.Mesh, stop: threading.Event) -> None:
    def do(headers: dict[str, str]) -> tuple[Any, str]:
        answer = client.get(url, headers=headers)
        return answer, answer.raise_for_status().json()["name"]

    with meshlib.Client(mesh=mesh) as client:
        call("httpx", do, stop)


def of_requests(url: str, mesh: meshlib.Mesh, stop: threading.Event) -> None:
    import meshlib_requests

    def do(headers: dict[str, str]) -> tuple[Any, str]:
        answer = session.get(url, headers=headers, timeout=5)
        answer.raise_for_status()
        return answer, answer.json()["name"]

    with meshlib_requests.Session(mesh=mesh) as session:
        call("requests", do, stop)


def of_aiohttp(url: str, mesh: meshlib.Mesh, stop: threading.Event) -> None:
    import meshlib_aiohttp

    async def main() -> None:
        async def do(headers: dict[str, str]) -> tuple[Any, str]:
            async with session.get(url, headers=headers) as answer:
                answer.raise_for_status()
                return answer, (await answer.json(content_type=None))["name"]

        async with meshlib_aiohttp.ClientSession(mesh=mesh) as session:
            await acall("aiohttp", do, stop)

    asyncio.run(main())


def of_grpc(url: str, mesh: meshlib.Mesh, stop: threading.Event) -> None:
    import meshlib.grpc

    def do(headers: dict[str, str]) -> tuple[Any, str]:
        value, made = method.with_call(b"", metadata=list(headers.items()), timeout=5)
        return made, json.loads(value)["name"]

    with meshlib.grpc.channel(url, mesh=mesh) as channel:
        method = channel.unary_unary("/shop.Stock/Get")
        call("grpc", do, stop)


HOSTS = {"aiohttp": of_aiohttp, "grpc": of_grpc, "httpx": of_httpx, "requests": of_requests}


def main() -> None:
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING)
    config, url, *hosts = sys.argv[1:]
    stop = threading.Event()
    with meshlib.Mesh(meshlib.Config.from_mapping(json.loads(config))) as mesh:
        threads = [threading.Thread(target=HOSTS[host], args=(url, mesh, stop)) for host in hosts]
        for thread in threads:
            thread.start()
        sys.stdin.read()
        stop.set()
        for thread in threads:
            thread.join()


if __name__ == "__main__":
    main()
