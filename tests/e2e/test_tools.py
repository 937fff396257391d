"""Other tools in the way of a call, in both ways of joining: who mocks or records stays in charge, who measures sees no span
twice. Each row runs in a process of its own: these tools replace parts of the libraries for the whole process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from meshlib.testing import Upstream

ROOT = Path(__file__).resolve().parents[2]
SUPPORT = ROOT / "tests" / "support"

EVERY = (
    "httpx",
    "httpx async",
    "httpx2",
    "httpx2 async",
    "requests",
    "urllib3",
    "aiohttp",
    "aiohttp connector",
)
HTTPX = ("httpx", "httpx async")

#: Tool → the libraries that it knows.
TOOLS: dict[str, tuple[str, ...]] = {
    "vcrpy": EVERY,
    "respx": HTTPX,
    "pytest-httpx": HTTPX,
    "responses": ("requests",),
    "requests-mock": ("requests",),
    "aioresponses": ("aiohttp", "aiohttp connector"),
    "pook": (*HTTPX, "requests", "urllib3", "aiohttp", "aiohttp connector"),
    "httpretty": ("requests", "urllib3"),
    "mocket": (*HTTPX, "requests", "urllib3", "aiohttp", "aiohttp connector"),
    "urlopen by hand": ("requests", "urllib3"),
    "transport by hand": ("httpx", "httpx2"),
    "async transport by hand": ("httpx async", "httpx2 async"),
}

#: Rows that fail without meshlib, too, with the versions of the lock. What is said there is what must be said here.
DEAD = {
    ("aioresponses", "aiohttp"): "missing 1 required keyword-only argument: 'stream_writer'",
    ("pook", "aiohttp"): "missing 1 required keyword-only argument: 'stream_writer'",
    ("httpretty", "requests"): "Failed to socket.shutdown",
    ("httpretty", "urllib3"): "Failed to socket.shutdown",
}

ROWS = [(tool, library) for tool, libraries in TOOLS.items() for library in libraries]
WAYS = ("auto", "ours")
MEASURED = ("httpx", "httpx async", "requests", "urllib3", "aiohttp", "aiohttp connector")


def ways(library: str) -> tuple[str, ...]:
    """A connector is always the application's own act."""
    return ("ours",) if library == "aiohttp connector" else WAYS


class Programs:
    """All programs of this file, two at a time. ``dead`` is an endpoint that refuses connections."""

    def __init__(self, place: Path, address: str, dead: str, pool: ThreadPoolExecutor) -> None:
        one, two = place / "one.toml", place / "two.toml"
        one.write_text(f'[services.reviews]\nendpoints = ["{address}"]\n')
        two.write_text(
            f'[services.reviews]\nendpoints = ["{dead}", "{address}"]\nbalancer = "round_robin"\n'
            'retry = { attempts = 2, on = ["connect-failure"] }\n'
        )
        self.configs = {"one": one, "two": two}
        self.pool = pool
        self.begun: dict[tuple[str, ...], Future[Any]] = {}

    def begin(self, config: str, program: str, *arguments: str) -> None:
        key = (config, program, *arguments)
        self.begun[key] = self.pool.submit(self.run, config, program, *arguments)

    def result(self, config: str, program: str, *arguments: str) -> Any:
        key = (config, program, *arguments)
        if key not in self.begun:
            self.begin(*key)
        return self.begun[key].result()

    def run(self, config: str, program: str, *arguments: str) -> Any:
        done = subprocess.run(
            [
                sys.executable,
                "-W",
                "error::ResourceWarning",
                str(SUPPORT / program),
                *arguments,
                "http://reviews/",
            ],
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
            cwd=self.configs["one"].parent,
            env={
                **os.environ,
                "MESHLIB_CONFIG": str(self.configs[config]),
                "MESHLIB_SEED": "1",
                "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "adapters")]),
            },
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Programs]:
    with Upstream("a") as server, Upstream("b") as other:
        dead = other.address
        other.kill()
        with ThreadPoolExecutor(2) as pool:
            yield Programs(tmp_path_factory.mktemp("tools"), server.address, dead, pool)


@pytest.mark.parametrize(("tool", "library"), ROWS)
def test_a_tool_that_mocks_stays_in_charge(programs: Programs, tool: str, library: str) -> None:
    """Also when it is there at the first call of the process; and afterwards calls go through the mesh again."""
    chosen = ways(library)
    for way in chosen:
        programs.begin("one", "tools_program.py", way, library, tool)
    for way in chosen:
        under, after, again, at_last = programs.result("one", "tools_program.py", way, library, tool)
        dead = DEAD.get((tool, library.removesuffix(" connector")))
        for answer in (under, again):
            assert answer == "mock" if dead is None else dead in answer, way
        for answer in (after, at_last):
            assert json.loads(answer)["name"] == "a", way


@pytest.mark.parametrize("row", list(DEAD), ids=" ".join)
def test_what_is_said_to_be_dead_is_so_without_meshlib(programs: Programs, row: tuple[str, str]) -> None:
    tool, library = row
    assert DEAD[row] in programs.result("one", "tools_program.py", "plain", library, tool)[0]


@pytest.mark.parametrize("library", MEASURED)
def test_at_most_one_client_span_an_attempt(programs: Programs, library: str) -> None:
    """OpenTelemetry's, Sentry's and ddtrace's instrumentations at once, set up before or after meshlib; two attempts."""
    config = "one" if library == "aiohttp connector" else "two"
    rows = [(way, order) for way in ways(library) for order in ("before", "after")]
    for way, order in rows:
        programs.begin(config, "spans_program.py", way, library, order)
    for way, order in rows:
        found = programs.result(config, "spans_program.py", way, library, order)
        assert json.loads(found["body"])["name"] == "a"
        assert found["attempts"] == (1 if config == "one" else 2)
        assert 1 <= len(found["opentelemetry"]) <= found["attempts"], (way, order, found)
        assert len(found["sentry"]) == 1, (way, order, found)
        # ddtrace's wrapper of urllib3 is around the method of the base class, which a call of the mesh does not come by.
        assert len(found["ddtrace"]) == (0 if library == "urllib3" else 1), (way, order, found)


@pytest.mark.parametrize("library", MEASURED)
def test_the_trace_that_arrives_is_the_span_that_was_made(programs: Programs, library: str) -> None:
    found = programs.result(
        "one" if library == "aiohttp connector" else "two", "spans_program.py", "ours", library, "after"
    )
    assert found["traceparent"].split("-")[2] in found["opentelemetry"], found
