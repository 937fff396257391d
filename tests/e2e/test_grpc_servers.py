"""What a call says of itself holds for the calls made while it is served: grpcio's servers of both kinds, and its own clients."""

import asyncio
import contextlib
import contextvars
import functools
import json
import queue
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

import meshlib
import meshlib.grpc
from meshlib.deadlines import current_deadline
from meshlib.inbound import current

KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")
PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
SAID = (
    ("traceparent", PARENT),
    ("tracestate", "a=1"),
    ("tracestate", "b=2"),
    ("baggage", "user=7"),
    ("x-request-id", "r-1"),
    ("x-envoy-attempt-count", "3"),
    ("x-forwarded-for", "10.0.0.1"),
)
EXPECTED = {
    "traceparent": PARENT,
    "tracestate": "a=1,b=2",
    "baggage": "user=7",
    "request_id": "r-1",
    "attempt": 3,
    "forwarded": {"x-forwarded-for": "10.0.0.1"},
}
NOTHING = {
    "traceparent": "",
    "tracestate": "",
    "baggage": "",
    "request_id": "",
    "attempt": None,
    "forwarded": {},
}


def inherited():
    """What holds here, as bytes: the call that is served, and the seconds until the deadline."""
    request, deadline = current(), current_deadline()
    told = {name: request and getattr(request, name) for name in NOTHING}
    if request is not None:
        told["forwarded"] = dict(request.forwarded)
    left = None if deadline is None else deadline - time.monotonic()
    return json.dumps({**told, "left": left}).encode()


def read(answer):
    """`inherited`, the seconds apart."""
    told = json.loads(answer)
    return told.pop("left"), told


class Plain:
    """Handlers as they are written for grpc.server, of each kind; they look around at each message."""

    @staticmethod
    def unary_unary(message, context):
        return inherited()

    @staticmethod
    def stream_unary(messages, context):
        list(messages)
        return inherited()

    @staticmethod
    def unary_stream(message, context):
        yield inherited()
        yield inherited()

    @staticmethod
    def stream_stream(messages, context):
        for _ in messages:
            yield inherited()


class Asynchronous:
    """As they are written for grpc.aio.server."""

    @staticmethod
    async def unary_unary(message, context):
        await asyncio.sleep(0)
        return inherited()

    @staticmethod
    async def stream_unary(messages, context):
        async for _ in messages:
            pass
        return inherited()

    @staticmethod
    async def unary_stream(message, context):
        yield inherited()
        await asyncio.sleep(0)
        yield inherited()

    @staticmethod
    async def stream_stream(messages, context):
        async for _ in messages:
            yield inherited()


class Reading(Asynchronous):
    """With grpc.aio's reader and writer, where there is a stream."""

    @staticmethod
    async def stream_unary(messages, context):
        while await context.read() is not grpc.aio.EOF:
            pass
        return inherited()

    @staticmethod
    async def unary_stream(message, context):
        await context.write(inherited())
        await context.write(inherited())

    @staticmethod
    async def stream_stream(messages, context):
        while await context.read() is not grpc.aio.EOF:
            await context.write(inherited())


class Methods(grpc.GenericRpcHandler):
    """`/s/{kind}` is the behaviour of that name."""

    def __init__(self, **behaviours):
        self._behaviours = behaviours

    def service(self, details):
        name = details.method.rpartition("/")[2]
        behaviour = self._behaviours.get(name)
        return getattr(grpc, f"{name}_rpc_method_handler")(behaviour) if behaviour else None


def methods(home):
    return Methods(**{kind: getattr(home, kind) for kind in KINDS})


@pytest.fixture
def pool():
    """One thread: what a call left there, the next would find."""
    with ThreadPoolExecutor(1) as made:
        yield made


@pytest.fixture
def serve(pool):
    """A function that starts a blocking server and gives a channel to it."""
    started = []

    def start(handlers, *interceptors, mesh=None, around=(), pool=pool):
        server = grpc.server(
            pool, interceptors=[*around, meshlib.grpc.ServerInterceptor(mesh=mesh), *interceptors]
        )
        server.add_generic_rpc_handlers((handlers,))
        channel = grpc.insecure_channel(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
        server.start()
        started.append((server, channel))
        return channel

    yield start
    for server, channel in started:
        channel.close()
        server.stop(None).wait()


@pytest.fixture
async def serve_aio(pool):
    """The same on this event loop."""
    started = []

    async def start(handlers, *, mesh=None, around=()):
        server = grpc.aio.server(
            migration_thread_pool=pool,
            interceptors=[*around, meshlib.grpc.aio.ServerInterceptor(mesh=mesh)],
        )
        server.add_generic_rpc_handlers((handlers,))
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
        await server.start()
        started.append((server, channel))
        return channel

    yield start
    for server, channel in started:
        await channel.close()
        await server.stop(None)


def call(channel, kind, **options):
    """All answers to two messages, or one."""
    asked = iter([b"1", b"2"]) if kind.startswith("stream") else b"1"
    answer = getattr(channel, kind)(f"/s/{kind}")(asked, **options)
    return list(answer) if kind.endswith("stream") else [answer]


async def call_aio(channel, kind, **options):
    asked = iter([b"1", b"2"]) if kind.startswith("stream") else b"1"
    answer = getattr(channel, kind)(f"/s/{kind}")(asked, **options)
    return [each async for each in answer] if kind.endswith("stream") else [await answer]


def count(kind):
    return 2 if kind.endswith("stream") else 1


@pytest.mark.parametrize("kind", KINDS)
class TestEachKind:
    def test_blocking(self, serve, pool, kind):
        channel = serve(methods(Plain))
        answers = [read(each) for each in call(channel, kind, metadata=SAID, timeout=30)]
        assert [told for _, told in answers] == [EXPECTED] * count(kind)
        assert all(20 < left <= 31 for left, _ in answers)
        assert pool.submit(inherited).result() == inherited()
        assert [read(each) for each in call(channel, kind)] == [(None, NOTHING)] * count(kind)

    @pytest.mark.parametrize("home", [Asynchronous, Reading, Plain])
    async def test_asyncio(self, serve_aio, pool, kind, home):
        channel = await serve_aio(methods(home))
        answers = [read(each) for each in await call_aio(channel, kind, metadata=SAID, timeout=30)]
        assert [told for _, told in answers] == [EXPECTED] * count(kind)
        assert all(20 < left <= 31 for left, _ in answers)
        assert pool.submit(inherited).result() == inherited()
        assert current() is None
        assert [read(each) for each in await call_aio(channel, kind)] == [(None, NOTHING)] * count(kind)

    async def test_many_at_once_keep_apart(self, serve_aio, kind):
        channel = await serve_aio(methods(Asynchronous))
        names = [f"r-{number}" for number in range(50)]
        calls = [call_aio(channel, kind, metadata=(("x-request-id", name),), timeout=30) for name in names]
        found = [
            {json.loads(each)["request_id"] for each in answers} for answers in await asyncio.gather(*calls)
        ]
        assert found == [{name} for name in names]


class TestDeadlines:
    @pytest.mark.parametrize(
        ("timeout", "expected", "nearest"),
        [
            (30, "5000", 5),
            (5, "30000", 5),
            (None, "5000", 5),
            (5, "soon", 5),
            (5, "0", 0),
            (100_000, None, None),
        ],
    )
    def test_the_nearest_holds(self, serve, timeout, expected, nearest):
        metadata = () if expected is None else (("x-envoy-expected-rq-timeout-ms", expected),)
        (answer,) = call(serve(methods(Plain)), "unary_unary", metadata=metadata, timeout=timeout)
        left, _ = read(answer)
        assert left is None if nearest is None else nearest - 4 < left <= nearest + 1

    def test_what_outlives_the_call_keeps_the_trace_and_loses_the_deadline(self, serve):
        answered, found = threading.Event(), queue.SimpleQueue()

        def later():
            answered.wait(20)
            found.put(inherited())

        def background():
            thread = threading.Thread(target=contextvars.copy_context().run, args=(later,))
            thread.start()
            return b""

        def unary(message, context):
            return background()

        def stream(message, context):
            yield background()

        for kind, behaviour in (("unary_unary", unary), ("unary_stream", stream)):
            answered.clear()
            call(serve(Methods(**{kind: behaviour})), kind, metadata=SAID, timeout=30)
            answered.set()
            assert read(found.get(timeout=20)) == (None, EXPECTED)

    @pytest.mark.parametrize("style", ["coroutine", "generator"])
    async def test_a_task_does_so_too(self, serve_aio, style):
        answered, found = asyncio.Event(), asyncio.get_running_loop().create_future()
        tasks = []

        async def later():
            await answered.wait()
            found.set_result(inherited())

        async def coroutine(message, context):
            tasks.append(asyncio.create_task(later()))
            return b""

        async def generator(message, context):
            yield await coroutine(message, context)

        kind = "unary_unary" if style == "coroutine" else "unary_stream"
        behaviour = coroutine if style == "coroutine" else generator
        await call_aio(await serve_aio(Methods(**{kind: behaviour})), kind, metadata=SAID, timeout=30)
        answered.set()
        assert read(await found) == (None, EXPECTED)

    def test_a_handler_that_fails_is_answered(self, serve):
        kept = []

        def abort(message, context):
            kept.append(current())
            context.abort(grpc.StatusCode.NOT_FOUND, "no such")

        def stream(message, context):
            kept.append(current())
            yield b"1"
            raise ValueError("broken")

        channel = serve(Methods(unary_unary=abort, unary_stream=stream, stream_stream=abort))
        codes = []
        for kind in ("unary_unary", "stream_stream", "unary_stream"):
            with pytest.raises(grpc.RpcError) as caught:
                call(channel, kind, timeout=30)
            codes.append((caught.value.code().name, caught.value.details()))
        assert codes == [
            ("NOT_FOUND", "no such"),
            ("NOT_FOUND", "no such"),
            ("UNKNOWN", "Exception iterating responses: broken"),
        ]
        assert [request.answered for request in kept] == [True] * 3


class TestStreams:
    def test_what_a_broken_off_generator_has_to_clean_up_belongs_to_the_call(self, serve, pool):
        found = queue.SimpleQueue()

        def stream(message, context):
            try:
                with meshlib.deadline(20):
                    while True:
                        yield inherited()
            finally:
                found.put(inherited())

        answers = serve(Methods(unary_stream=stream)).unary_stream("/s/unary_stream")(b"", metadata=SAID)
        left, told = read(next(answers))
        answers.cancel()
        assert told == EXPECTED
        assert 10 < left <= 20
        assert read(found.get(timeout=20)) == (None, EXPECTED)
        assert pool.submit(inherited).result() == inherited()

    async def test_so_it_does_on_an_event_loop(self, serve_aio):
        found = asyncio.get_running_loop().create_future()

        async def stream(message, context):
            try:
                while True:
                    yield inherited()
            finally:
                await asyncio.sleep(0)
                found.set_result(inherited())

        channel = await serve_aio(Methods(unary_stream=stream))
        answers = channel.unary_stream("/s/unary_stream")(b"", metadata=SAID)
        assert read(await answers.read()) == (None, EXPECTED)
        answers.cancel()
        assert read(await asyncio.wait_for(found, 20)) == (None, EXPECTED)

    def test_a_generator_that_threads_take_turns_with_stays_in_its_context(self):
        """As a server may that drives it from a pool. A block that it is in neither breaks nor stays with a thread."""

        def stream(message, context):
            with meshlib.deadline(20):
                yield inherited()
                yield inherited()
            yield inherited()

        handler = intercepted(Methods(unary_stream=stream), "unary_stream")
        answers = handler.unary_stream(b"", FakeContext())
        with contextlib.ExitStack() as stack:
            pools = [stack.enter_context(ThreadPoolExecutor(1)) for _ in range(3)]
            taken = [read(pool.submit(next, answers).result(20)) for pool in pools]
            assert [told for _, told in taken] == [EXPECTED] * 3
            assert [left is None for left, _ in taken] == [False, False, True]
            assert [pool.submit(inherited).result(20) for pool in pools] == [inherited()] * 3

    async def test_an_asynchronous_generator_that_tasks_take_turns_with_is_in_its_call(self):
        interceptor = meshlib.grpc.aio.ServerInterceptor()

        async def found(details):
            return methods(Asynchronous).service(details)

        handler = await interceptor.intercept_service(found, Details("/s/unary_stream", SAID))
        answers = handler.unary_stream(b"", FakeContext())
        taken = [read(await asyncio.create_task(anext(answers))) for _ in range(2)]
        assert taken == [(None, EXPECTED)] * 2
        assert current() is None

    def test_a_handler_that_gives_any_iterator(self, serve):
        channel = serve(Methods(unary_stream=lambda message, context: iter([inherited(), inherited()])))
        assert [read(each) for each in call(channel, "unary_stream", metadata=SAID)] == [(None, EXPECTED)] * 2

    def test_a_handler_that_sends_by_callback(self, serve):
        """As the health service of grpcio-health-checking does by default."""
        ended = threading.Event()
        kept = []

        class Health:
            def watch(self, message, context, send):
                kept.append(current())
                inside = contextvars.copy_context()

                def later():
                    for _ in range(2):
                        inside.run(lambda: send(inherited()))
                    kept.append(current())
                    kept.append(kept[0].answered)
                    send(None)
                    ended.set()

                threading.Thread(target=later).start()

        with ThreadPoolExecutor(1, thread_name_prefix="health") as own:
            Health.watch.experimental_non_blocking = True
            Health.watch.experimental_thread_pool = own
            handlers = Methods(unary_stream=Health().watch)
            made = intercepted(handlers, "unary_stream").unary_stream
            assert (made.experimental_non_blocking, made.experimental_thread_pool) == (True, own)
            answers = call(serve(handlers), "unary_stream", metadata=SAID, timeout=30)
            assert [told for _, told in map(read, answers)] == [EXPECTED] * 2
            assert all(20 < left <= 31 for left, _ in map(read, answers))
            assert ended.wait(20)
            assert own.submit(current).result() is None
        assert kept[1:] == [None, False]
        assert kept[0].answered


class Details:
    def __init__(self, method, metadata):
        self.method = method
        self.invocation_metadata = metadata


class FakeContext:
    """Of a server that is none of grpcio's."""

    def time_remaining(self):
        return None


def intercepted(handlers, kind):
    details = Details(f"/s/{kind}", SAID)
    return meshlib.grpc.ServerInterceptor().intercept_service(handlers.service, details)


class TestBesideOthers:
    def test_interceptors_before_it_are_outside_and_those_behind_it_inside(self, serve):
        seen = []
        variable = contextvars.ContextVar("variable", default="")

        class Other(grpc.ServerInterceptor):
            def __init__(self, place):
                self.place = place

            def intercept_service(self, continuation, details):
                handler = continuation(details)

                def behaviour(message, context):
                    request = current()
                    seen.append((self.place, request and request.request_id, variable.get()))
                    variable.set(self.place)
                    return handler.unary_stream(message, context)

                return grpc.unary_stream_rpc_method_handler(behaviour)

        def stream(message, context):
            seen.append(("handler", current().request_id, variable.get()))
            yield b""

        channel = serve(Methods(unary_stream=stream), Other("inner"), around=[Other("outer")])
        call(channel, "unary_stream", metadata=SAID)
        assert seen == [("outer", None, ""), ("inner", "r-1", "outer"), ("handler", "r-1", "inner")]

    def test_what_a_unary_handler_sets_is_seen_outside(self, serve):
        variable = contextvars.ContextVar("variable", default="")
        seen = []

        class Log(grpc.ServerInterceptor):
            def intercept_service(self, continuation, details):
                handler = continuation(details)

                def behaviour(message, context):
                    answer = handler.unary_unary(message, context)
                    seen.append(variable.get())
                    return answer

                return grpc.unary_unary_rpc_method_handler(behaviour)

        def unary(message, context):
            variable.set("the user's name")
            return b""

        call(serve(Methods(unary_unary=unary), around=[Log()]), "unary_unary")
        assert seen == ["the user's name"]

    def test_serializers_stay(self, serve):
        class Numbers(grpc.GenericRpcHandler):
            def service(self, details):
                return grpc.stream_stream_rpc_method_handler(
                    lambda messages, context: (each * 2 for each in messages), int, lambda each: b"%d" % each
                )

        assert call(serve(Numbers()), "stream_stream") == [b"2", b"4"]

    async def test_a_method_that_nobody_has(self, serve, serve_aio):
        with pytest.raises(grpc.RpcError) as blocking:
            call(serve(Methods()), "unary_unary")
        channel = await serve_aio(Methods())
        with pytest.raises(grpc.aio.AioRpcError) as later:
            await call_aio(channel, "unary_unary")
        assert {blocking.value.code(), later.value.code()} == {grpc.StatusCode.UNIMPLEMENTED}

    @pytest.mark.parametrize("kind", KINDS)
    async def test_handlers_that_are_no_plain_functions(self, serve, serve_aio, kind):
        partial = functools.partial(getattr(Plain, kind))
        (told, *_) = [read(each)[1] for each in call(serve(Methods(**{kind: partial})), kind, metadata=SAID)]
        assert told == EXPECTED
        partial = functools.partial(getattr(Asynchronous, kind))
        channel = await serve_aio(Methods(**{kind: partial}))
        (told, *_) = [read(each)[1] for each in await call_aio(channel, kind, metadata=SAID)]
        assert told == EXPECTED


class TestChains:
    """Plain client → a server with the interceptor → through the mesh → an upstream, which tells what reached it."""

    @pytest.fixture
    def mesh(self, meshlib_grpc_upstream, meshlib_upstream, meshlib_mesh):
        last, web = meshlib_grpc_upstream("last"), meshlib_upstream("web")
        services = {"last": {"endpoints": [last.address]}, "web": {"endpoints": [web.address]}}
        made = meshlib_mesh({"services": services})
        made.last, made.web = last, web
        return made

    def arrived(self, mesh):
        """Of the last gRPC call: what was carried on, and the time that it had."""
        received = mesh.last.requests[-1]
        names = ("traceparent", "tracestate", "baggage", "x-request-id")
        return {name: received.header(name) for name in names}, received.time_remaining

    CARRIED = {"traceparent": PARENT, "tracestate": "a=1,b=2", "baggage": "user=7", "x-request-id": "r-1"}  # noqa: RUF012

    def test_blocking(self, serve, mesh):
        with meshlib.grpc.channel("last", mesh=mesh) as further:

            def unary(message, context):
                return further.unary_unary("/last/Get")(message)

            def stream(message, context):
                for _ in range(2):
                    yield further.unary_unary("/last/Get")(message)

            channel = serve(Methods(unary_unary=unary, unary_stream=stream))
            for kind in ("unary_unary", "unary_stream"):
                call(channel, kind, metadata=SAID, timeout=30)
                carried, left = self.arrived(mesh)
                assert carried == self.CARRIED
                assert 15 < left <= 31
            call(channel, "unary_unary")
            assert self.arrived(mesh) == (dict.fromkeys(self.CARRIED), None)

    async def test_asyncio(self, serve_aio, mesh):
        async with meshlib.grpc.aio.channel("last", mesh=mesh) as further:

            async def unary(message, context):
                return await further.unary_unary("/last/Get")(message)

            async def stream(message, context):
                for _ in range(2):
                    yield await further.unary_unary("/last/Get")(message)

            channel = await serve_aio(Methods(unary_unary=unary, unary_stream=stream))
            for kind in ("unary_unary", "unary_stream"):
                await call_aio(channel, kind, metadata=SAID, timeout=30)
                carried, left = self.arrived(mesh)
                assert carried == self.CARRIED
                assert 15 < left <= 31
            await call_aio(channel, "unary_unary")
            assert self.arrived(mesh) == (dict.fromkeys(self.CARRIED), None)

    def test_from_grpc_to_http(self, serve, mesh):
        with meshlib.Client(mesh=mesh) as client:
            channel = serve(Methods(unary_unary=lambda message, context: client.get("http://web/").content))
            call(channel, "unary_unary", metadata=SAID, timeout=30)
        (received,) = mesh.web.requests
        assert received.header("traceparent") == PARENT
        assert received.header("x-envoy-attempt-count") == "1"
        assert 15_000 < int(received.header("x-envoy-expected-rq-timeout-ms")) <= 31_000

    def test_three_hops_have_one_deadline(self, mesh, serve):
        """The deadline that ends the last call is the first caller's."""
        failed = queue.SimpleQueue()
        with (
            ThreadPoolExecutor(4) as pool,
            meshlib.grpc.channel("last", mesh=mesh) as further,
        ):

            def second(message, context):
                try:
                    return further.unary_unary("/last/Get")(message)
                except meshlib.DeadlineExceeded as error:
                    failed.put(error)
                    raise

            behind = serve(Methods(unary_unary=second), pool=pool)
            first = functools.partial(self.hand_on, behind)
            channel = serve(Methods(unary_unary=first), pool=pool)
            call(
                channel, "unary_unary", timeout=30
            )  # all are connected, so the time is enough to get to the last
            mesh.last.hang()
            with pytest.raises(grpc.RpcError) as caught:
                call(channel, "unary_unary", timeout=1.5)
            assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            assert failed.get(timeout=20).code() is grpc.StatusCode.DEADLINE_EXCEEDED
            mesh.last.wait_for(lambda: mesh.last.requests_total == 2 and mesh.last.calls_open == 0)
        assert mesh.last.requests[1].time_remaining <= 1.6

    @staticmethod
    def hand_on(channel, message, context):
        """By a plain channel of grpcio, which is told the time by hand."""
        return channel.unary_unary("/s/unary_unary")(message, timeout=current_deadline() - time.monotonic())

    async def test_the_mesh_of_the_server_is_the_default_within(self, serve, serve_aio, mesh):
        """A client without a mesh goes by that one."""
        with meshlib.grpc.channel("last") as further:
            channel = serve(
                Methods(unary_unary=lambda message, context: further.unary_unary("/last/Get")(message)),
                mesh=mesh,
            )
            assert json.loads(call(channel, "unary_unary", timeout=30)[0])["name"] == "last"

        async def unary(message, context):
            return str(meshlib.default() is mesh).encode()

        channel = await serve_aio(Methods(unary_unary=unary), mesh=mesh)
        assert await call_aio(channel, "unary_unary") == [b"True"]

    @pytest.mark.parametrize("kind", [meshlib.grpc.ServerInterceptor, meshlib.grpc.aio.ServerInterceptor])
    def test_what_is_no_mesh(self, kind):
        with pytest.raises(TypeError, match=r"expected a meshlib\.Mesh"):
            kind(mesh={"services": {}})
