"""The clients of language models over a client of ours: openai, anthropic, google-genai.

They are the packages from PyPI; the servers answer as the real APIs do (``tests/support/model_server.py``). Which of the two
libraries a client takes is part of what is shown here: ``http`` says it.
"""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import anthropic
import httpx
import httpx2
import openai
import pytest
from google import genai
from google.genai import errors as genai_errors

import meshlib
import meshlib.httpx2
from meshlib.model.events import AttemptEnded, AttemptStarted
from tests.support.model_server import KEY, ModelServer

QUESTION: Any = [{"role": "user", "content": "Good morning?"}]


class Kind:
    """One package's client, in its own words. ``over``: what of ours it is given; ``retried``: its retries, by default."""

    over: ClassVar[Any] = meshlib.httpx2
    retried: ClassVar[int] = 2
    collected: ClassVar[bool] = (
        False  # a stream that is given up is closed when it is collected, and not at once
    )
    failed: ClassVar[Any]  # its error for a status
    broken: ClassVar[Any]  # and for a stream that breaks, or whose time is over

    def __init__(self, mesh: meshlib.Mesh, **options: Any) -> None:
        self.mesh = mesh
        self.http = self.over.Client(mesh=mesh)
        self.client = self.make(**options)

    def make(self, **options: Any) -> Any:
        raise NotImplementedError

    def ask(self) -> str:
        """The whole text of an answer."""
        raise NotImplementedError

    def stream(self) -> Iterator[str]:
        """The words of an answer, as they come."""
        raise NotImplementedError

    def settle(self) -> None:
        """Let what is left of a stream that was given up be done."""
        if self.collected:
            gc.collect()
        self.mesh._runtime().worker.call(lambda: None, 5.0)

    def close(self) -> None:
        self.http.close()


class AsyncKind(Kind):
    """The same for an asyncio client. Its loop runs while it is asked for something."""

    def __init__(self, mesh: meshlib.Mesh, **options: Any) -> None:
        self.runner = asyncio.Runner()
        self.mesh = mesh
        self.http = self.over.AsyncClient(mesh=mesh)
        self.client = self.make(**options)

    async def ask_async(self) -> str:
        raise NotImplementedError

    def stream_async(self) -> Any:
        raise NotImplementedError

    def ask(self) -> str:
        return self.runner.run(self.ask_async())

    def stream(self) -> Iterator[str]:
        words = self.stream_async()
        try:
            while (word := self.runner.run(anext(words, None))) is not None:  # type: ignore[arg-type]
                yield word
        finally:
            self.runner.run(words.aclose())

    def settle(self) -> None:
        # Generators within generators, of which each is closed when the outer one is.
        for _ in range(5):
            self.runner.run(asyncio.sleep(0))
            super().settle()

    def close(self) -> None:
        self.runner.run(self.http.aclose())
        self.runner.close()


class OpenAI(Kind):
    failed, broken = openai.InternalServerError, openai.APIConnectionError

    def make(self, **options: Any) -> Any:
        return openai.OpenAI(api_key=KEY, base_url="http://llm/v1", http_client=self.http, **options)

    def ask(self) -> str:
        return self.client.chat.completions.create(model="m", messages=QUESTION).choices[0].message.content

    def stream(self) -> Iterator[str]:
        with self.client.chat.completions.create(model="m", messages=QUESTION, stream=True) as stream:
            for chunk in stream:
                if chunk.choices[0].delta.content:
                    yield chunk.choices[0].delta.content.strip()


class OpenAIOnHttpx(OpenAI):
    over = meshlib


class AsyncOpenAI(AsyncKind):
    failed, broken = OpenAI.failed, OpenAI.broken

    def make(self, **options: Any) -> Any:
        return openai.AsyncOpenAI(api_key=KEY, base_url="http://llm/v1", http_client=self.http, **options)

    async def ask_async(self) -> str:
        answer = await self.client.chat.completions.create(model="m", messages=QUESTION)
        return answer.choices[0].message.content

    async def stream_async(self) -> Any:
        async with await self.client.chat.completions.create(
            model="m", messages=QUESTION, stream=True
        ) as stream:
            async for chunk in stream:
                if chunk.choices[0].delta.content:
                    yield chunk.choices[0].delta.content.strip()


class AsyncOpenAIOnHttpx(AsyncOpenAI):
    over = meshlib


class Anthropic(Kind):
    """What breaks a stream is told by httpx2's own error."""

    failed, broken = anthropic.InternalServerError, httpx2.TransportError

    def make(self, **options: Any) -> Any:
        return anthropic.Anthropic(api_key=KEY, base_url="http://llm", http_client=self.http, **options)

    def ask(self) -> str:
        return self.client.messages.create(model="m", max_tokens=9, messages=QUESTION).content[0].text

    def stream(self) -> Iterator[str]:
        with self.client.messages.stream(model="m", max_tokens=9, messages=QUESTION) as stream:
            for text in stream.text_stream:
                yield text.strip()


class AsyncAnthropic(AsyncKind):
    failed, broken = Anthropic.failed, Anthropic.broken

    def make(self, **options: Any) -> Any:
        return anthropic.AsyncAnthropic(api_key=KEY, base_url="http://llm", http_client=self.http, **options)

    async def ask_async(self) -> str:
        answer = await self.client.messages.create(model="m", max_tokens=9, messages=QUESTION)
        return answer.content[0].text

    async def stream_async(self) -> Any:
        async with self.client.messages.stream(model="m", max_tokens=9, messages=QUESTION) as stream:
            async for text in stream.text_stream:
                yield text.strip()


class Gemini(Kind):
    """Its errors for what is no answer are httpx's own; it tries nothing again unless ``retry_options`` say so."""

    retried = 0
    collected = True
    failed, broken = genai_errors.ServerError, httpx2.TransportError

    def make(self, **options: Any) -> Any:
        http = genai.types.HttpOptions(base_url="http://llm", httpx_client=self.http, **options)
        return genai.Client(api_key=KEY, http_options=http)

    def ask(self) -> str:
        return self.client.models.generate_content(model="m", contents="Good morning?").text

    def stream(self) -> Iterator[str]:
        for chunk in self.client.models.generate_content_stream(model="m", contents="Good morning?"):
            yield chunk.text.strip()


class GeminiOnHttpx(Gemini):
    over = meshlib
    broken = httpx.TransportError


class AsyncGemini(AsyncKind):
    retried = 0
    collected = True
    failed, broken = Gemini.failed, Gemini.broken

    def make(self, **options: Any) -> Any:
        http = genai.types.HttpOptions(base_url="http://llm", httpx_async_client=self.http, **options)
        return genai.Client(api_key=KEY, http_options=http).aio

    async def ask_async(self) -> str:
        answer = await self.client.models.generate_content(model="m", contents="Good morning?")
        return answer.text

    async def stream_async(self) -> Any:
        async for chunk in await self.client.models.generate_content_stream(
            model="m", contents="Good morning?"
        ):
            yield chunk.text.strip()


class AsyncGeminiOnHttpx(AsyncGemini):
    over = meshlib
    broken = httpx.TransportError


KINDS: dict[str, type[Kind]] = {
    "openai": OpenAI,
    "openai on httpx": OpenAIOnHttpx,
    "openai async": AsyncOpenAI,
    "openai async on httpx": AsyncOpenAIOnHttpx,
    "anthropic": Anthropic,
    "anthropic async": AsyncAnthropic,
    "google-genai": Gemini,
    "google-genai on httpx": GeminiOnHttpx,
    "google-genai async": AsyncGemini,
    "google-genai async on httpx": AsyncGeminiOnHttpx,
}

Open = Callable[..., Any]


@pytest.fixture
def servers() -> Iterator[tuple[ModelServer, ModelServer]]:
    with ModelServer("a") as one, ModelServer("b") as other:
        yield one, other


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> type[Kind]:
    return KINDS[request.param]


@pytest.fixture
def llm(kind: type[Kind], servers: tuple[ModelServer, ModelServer]) -> Iterator[Open]:
    """``llm({"timeout": 1.0}, failures="respond")``: a client of the service ``llm``, which both servers are."""
    opened: list[Any] = []

    def make(policies: dict[str, Any] | None = None, options: Any = None, **config: Any) -> Kind:
        service = {"endpoints": [server.address for server in servers], "balancer": "round_robin"}
        mesh = meshlib.Mesh({"services": {"llm": {**service, **(policies or {})}}, **config})
        opened.extend((kind(mesh, **(options or {})), mesh))
        return opened[-2]

    yield make
    for each in opened:
        each.close()


def active(client: Kind) -> int:
    return client.mesh.status().clusters["llm"].active


def asked(servers: tuple[ModelServer, ...]) -> int:
    return sum(len(server.asked) for server in servers)


# --- what each takes ----------------------------------------------------------------------------------------------


def test_ours_are_instances_of_the_librarys_clients() -> None:
    """openai and anthropic ask, and refuse what is none, such as a client of the other sort."""
    with meshlib.Mesh({"services": {}}) as mesh:
        for ours, theirs in ((meshlib, httpx), (meshlib.httpx2, httpx2)):
            assert isinstance(ours.Client(mesh=mesh), theirs.Client)
            assert isinstance(ours.AsyncClient(mesh=mesh), theirs.AsyncClient)
        for make in (openai.OpenAI, anthropic.Anthropic):
            with pytest.raises(TypeError, match="http_client"):
                make(api_key=KEY, http_client=meshlib.httpx2.AsyncClient(mesh=mesh))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "word"), [(anthropic.Anthropic, "Client"), (anthropic.AsyncAnthropic, "AsyncClient")]
)
def test_anthropic_takes_no_client_of_httpx(make: Any, word: str) -> None:
    with meshlib.Mesh({"services": {}}) as mesh, pytest.raises(TypeError, match=f"httpx2.{word}"):
        make(api_key=KEY, http_client=getattr(meshlib, word)(mesh=mesh))


# --- calls --------------------------------------------------------------------------------------------------------


def test_calls_go_to_both_endpoints(llm: Open, servers: tuple[ModelServer, ModelServer]) -> None:
    client = llm()
    assert Counter(client.ask() for _ in range(4)) == {
        "a says good morning": 2,
        "b says good morning": 2,
    }
    host = servers[0].asked[0].headers["host"]
    assert host == "llm"
    assert active(client) == 0


def test_a_stream_is_read_as_it_comes(llm: Open, servers: tuple[ModelServer, ModelServer]) -> None:
    """The first word is there while the server holds the others back: nothing waits for the end."""
    for server in servers:
        server.hold()
    client = llm({"balancer": "round_robin"})
    words = client.stream()
    first = next(words)
    assert first in {"a", "b"}
    assert active(client) == 1
    for server in servers:
        server.release()
    assert list(words) == ["says", "good", "morning"]
    assert active(client) == 0


@pytest.mark.parametrize("how", ["reset", "closed"])
def test_a_stream_that_breaks_raises_both_errors(
    llm: Open, kind: type[Kind], servers: tuple[ModelServer, ModelServer], how: str
) -> None:
    """What was read is kept; nothing is asked again, be it by the mesh or by the client, since words are out."""
    for server in servers:
        server.break_streams(how)
    client = llm({"retry": {"attempts": 3, "on": ["reset", "5xx"]}})
    words = client.stream()
    assert next(words) in {"a", "b"}
    with pytest.raises(kind.broken) as caught:
        list(words)
    info = meshlib.call_info(caught.value)
    assert info is not None
    assert (info.cluster, len(info.attempts)) == ("llm", 1)
    assert info.endpoint in {server.address for server in servers}
    chain = [caught.value, caught.value.__cause__]
    assert any(isinstance(error, meshlib.errors.TransportFailed) for error in chain)
    assert asked(servers) == 1
    assert active(client) == 0


# --- retries of theirs and ours -----------------------------------------------------------------------------------

RETRY = {"attempts": 2, "on": ["5xx", "connect-failure", "reset"], "backoff_base": 0.001}


@pytest.mark.parametrize("word", ["silent", "tell"])
def test_retries_do_not_multiply_where_that_is_ordered(
    llm: Open, kind: type[Kind], servers: tuple[ModelServer, ModelServer], word: str
) -> None:
    for server in servers:
        server.fail(503, retry_after_ms="1")
    client = llm({"retry": RETRY}, spent_retries=word)
    with pytest.raises(kind.failed):
        client.ask()
    assert asked(servers) == (2 if word == "tell" else 2 * (1 + kind.retried))


def test_nor_where_theirs_are_switched_off(
    llm: Open, kind: type[Kind], servers: tuple[ModelServer, ModelServer]
) -> None:
    for server in servers:
        server.fail(503, retry_after_ms="1")
    client = llm({"retry": RETRY}, {"max_retries": 0} if kind.retried else {})
    with pytest.raises(kind.failed):
        client.ask()
    assert asked(servers) == 2


def test_what_the_mesh_does_not_try_again_is_theirs_to_try(
    llm: Open, kind: type[Kind], servers: tuple[ModelServer, ModelServer]
) -> None:
    for server in servers:
        server.fail(429, retry_after_ms="1")
    client = llm({"retry": RETRY}, spent_retries="tell")
    with pytest.raises(Exception, match="429"):
        client.ask()
    assert asked(servers) == 1 + kind.retried


def test_a_failure_that_is_told_as_a_response_is_not_tried_again(llm: Open, kind: type[Kind]) -> None:
    """An exception cannot say it: their clients try again whatever their transport raises."""
    client = llm({"retry": RETRY, "endpoints": ["127.0.0.1:1"]}, failures="respond", spent_retries="tell")
    seen: list[Any] = []
    client.mesh._runtime().observe(seen.append)
    with pytest.raises(kind.failed):
        client.ask()
    assert len([event for event in seen if isinstance(event, AttemptStarted)]) == 2


def test_a_call_is_tried_again_elsewhere(llm: Open, servers: tuple[ModelServer, ModelServer]) -> None:
    servers[0].fail(503)
    client = llm({"retry": RETRY})
    assert {client.ask() for _ in range(4)} == {"b says good morning"}


def test_retry_after_is_obeyed(llm: Open, servers: tuple[ModelServer, ModelServer]) -> None:
    for server in servers:
        server.fail(429, 1, retry_after_ms="40")
    client = llm({"retry": {"attempts": 3, "on": ["5xx"], "statuses": [429], "retry_after": 5.0}})
    seen: list[Any] = []
    client.mesh._runtime().observe(seen.append)
    assert client.ask().endswith("says good morning")
    waits = [event.delay for event in seen if type(event).__name__ == "RetryScheduled"]
    assert len(waits) == 2
    assert all(0.04 <= wait <= 0.06 for wait in waits)


# --- time ---------------------------------------------------------------------------------------------------------


def test_their_own_default_timeouts_hold(kind: type[Kind], llm: Open) -> None:
    """Ten minutes, and 5 s to connect, of openai and anthropic, whose clients take over what was chosen and not a default."""
    found = llm().client
    if kind.retried:
        assert (found.timeout.read, found.timeout.connect) == (600, 5.0)


def test_the_meshs_timeout_bounds_a_call_with_theirs(
    llm: Open, kind: type[Kind], servers: tuple[ModelServer, ModelServer]
) -> None:
    for server in servers:
        server.hold()
    client = llm({"timeout": 1.5})  # within which the first word must come
    words = client.stream()
    assert next(words) in {"a", "b"}
    with pytest.raises(kind.broken) as caught:
        list(words)
    chain = [caught.value, caught.value.__cause__]
    assert any(isinstance(error, meshlib.DeadlineExceeded) for error in chain)
    assert active(client) == 0


# --- giving up ----------------------------------------------------------------------------------------------------


def test_a_stream_that_is_closed_early_gives_all_back(
    llm: Open, servers: tuple[ModelServer, ModelServer]
) -> None:
    for server in servers:
        server.hold()
    client = llm({"limits": {"max_requests": 1}})
    words = client.stream()
    next(words)
    words.close()
    del words
    client.settle()
    assert active(client) == 0
    for server in servers:
        server.release()
    assert client.ask().endswith("says good morning")


def test_a_cancelled_stream_gives_all_back(
    llm: Open, kind: type[Kind], servers: tuple[ModelServer, ModelServer]
) -> None:
    """The task ends at a word that does not come; connection, permit and attempt are given back, the server sees it go."""
    for server in servers:
        server.hold()
    client = llm({"limits": {"max_requests": 1}})
    if not isinstance(client, AsyncKind):
        return  # nobody cancels a thread
    seen: list[Any] = []
    client.mesh._runtime().observe(seen.append)

    async def cancelled() -> None:
        words: asyncio.Queue[str] = asyncio.Queue()

        async def read() -> None:
            async for word in client.stream_async():
                words.put_nowait(word)

        task = asyncio.ensure_future(read())
        assert await asyncio.wait_for(words.get(), 20) in {"a", "b"}
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    client.runner.run(cancelled())
    client.settle()
    assert active(client) == 0
    assert [event.key for event in seen if isinstance(event, AttemptStarted)] == [
        event.key for event in seen if isinstance(event, AttemptEnded)
    ]
    for server in servers:
        server.release()
    assert client.ask().endswith("says good morning")
