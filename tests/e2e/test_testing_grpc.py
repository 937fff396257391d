"""The gRPC servers of the test kit against grpcio's own channels, blocking and asyncio."""

import json
import os
import queue
import signal
import socket
import threading
import time

import grpc
import pytest
import trustme

from meshlib.testing import GrpcOrder, GrpcUpstream, GrpcUpstreamProcess
from tests.support.asking import asked

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
#: What the client adds by itself: a test that counts attempts sees the server's.
PLAIN = (("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1))


@pytest.fixture
def grpc_upstream(meshlib_grpc_upstream):
    return meshlib_grpc_upstream


@pytest.fixture
def channel():
    """A function that makes a channel to an upstream."""
    made = []

    def make(server, **options):
        made.append(grpc.insecure_channel(server.target, options=(*PLAIN, *options.items())))
        return made[-1]

    yield make
    for each in made:
        each.close()


def failure(call, *arguments, **options):
    """The error with which a call ends, whatever its kind."""
    with pytest.raises(grpc.RpcError) as caught:
        list(call(*arguments, **options))
    return caught.value


def refuses(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def pairs(metadata):
    return [(key, value) for key, value in metadata or () if key.startswith("x-")]


class TestAnswers:
    def test_it_says_who_it_is_and_what_it_got(self, grpc_upstream, channel):
        v1 = grpc_upstream("v1")
        get = channel(v1, **{"grpc.default_authority": "stock"}).unary_unary("/shop.Stock/Get")
        sent = (("x-a", "1"), ("x-a", "2"), ("x-b-bin", b"\xff\x00"))
        response, call = get.with_call(b"12345", metadata=sent, timeout=30)
        told = json.loads(response)
        assert (told["name"], told["method"], told["payload_length"], told["request"]) == (
            "v1",
            "/shop.Stock/Get",
            5,
            1,
        )
        assert [pair for pair in told["metadata"] if pair[0].startswith("x-")] == [
            ["x-a", "1"],
            ["x-a", "2"],
            ["x-b-bin", "\xff\x00"],
        ]
        assert pairs(call.initial_metadata()) == [("x-upstream", "v1")]
        v1.wait_for(lambda: v1.calls_open == 0)
        (received,) = v1.requests
        assert (received.method, received.payload, received.authority) == (
            "/shop.Stock/Get",
            b"12345",
            "stock",
        )
        assert (received.header("X-A"), received.header("x-b-bin"), received.header("x-c")) == (
            "1",
            b"\xff\x00",
            None,
        )
        assert 20 < received.time_remaining <= 31
        assert (received.complete, received.answered, received.ended) == (True, True, True)
        assert received.peer.startswith("ipv4:127.0.0.1:")
        get(b"")
        assert v1.requests[1].time_remaining is None
        assert json.loads(get(b""))["time_remaining"] is None

    def test_all_kinds_of_calls(self, grpc_upstream, channel):
        server = grpc_upstream(methods={"/a.B/Watch": "unary_stream"})
        to = channel(server)
        (message,) = to.unary_stream("/any.Service/UnaryStream")(b"x")
        assert json.loads(message)["method"] == "/any.Service/UnaryStream"
        assert json.loads(to.stream_unary("/s/StreamUnary")(iter([b"12", b"345"])))["payload_length"] == 5
        lengths = [
            json.loads(each)["payload_length"]
            for each in to.stream_stream("/s/StreamStream")(iter([b"1", b"22"]))
        ]
        assert lengths == [1, 2]
        server.order(messages=3, where=lambda received: received.method == "/a.B/Watch")
        assert len(list(to.unary_stream("/a.B/Watch")(b""))) == 3
        assert [each.messages for each in server.requests] == [[b"x"], [b"12", b"345"], [b"1", b"22"], [b""]]

    async def test_asyncio_clients(self, grpc_upstream):
        server = grpc_upstream("v1")
        async with grpc.aio.insecure_channel(server.target) as to:
            assert json.loads(await to.unary_unary("/a.B/C")(b""))["name"] == "v1"
            call = to.stream_stream("/s/StreamStream")()
            for each in (b"1", b"22"):
                await call.write(each)
                assert json.loads(await call.read())["payload_length"] == len(each)
            await call.done_writing()
            assert await call.read() is grpc.aio.EOF

    def test_a_stream_is_answered_message_by_message(self, grpc_upstream, channel):
        server = grpc_upstream()
        server.order(echo=True)
        outgoing = queue.SimpleQueue()
        call = channel(server).stream_stream("/s/StreamStream")(iter(outgoing.get, None), timeout=20)
        for each in (b"a", b"b"):
            outgoing.put(each)
            assert next(call) == each
        (received,) = server.requests
        assert (received.messages, received.complete) == ([b"a", b"b"], False)
        outgoing.put(None)
        assert list(call) == []
        server.wait_for(lambda: received.ended)
        assert (received.complete, received.answered) == (True, True)

    def test_echoes_and_bodies(self, grpc_upstream, channel):
        server = grpc_upstream()
        to = channel(server)
        server.order(echo=True)
        assert to.unary_unary("/a.B/C")(b"x") == b"x"
        assert to.stream_unary("/s/StreamUnary")(iter([b"x", b"y"])) == b"xy"
        server.order(echo=True, messages=2)
        assert list(to.unary_stream("/s/UnaryStream")(b"x")) == [b"x", b"x"]
        server.order(body=b"\x08\x01")
        assert to.unary_unary("/a.B/C")(b"x") == b"\x08\x01"
        large = b"x" * 6_000_000
        server.order(echo=True)
        wide = channel(server, **{"grpc.max_receive_message_length": -1})
        assert wide.unary_unary("/a.B/C")(large) == large
        assert len(server.requests[-1].payload) == 64 * 1024

    def test_services_of_ones_own(self, channel):
        class Health(grpc.GenericRpcHandler):
            def service(self, details):
                if details.method == "/grpc.health.v1.Health/Check":
                    return grpc.unary_unary_rpc_method_handler(lambda message, context: b"\x08\x01")
                return None

        with GrpcUpstream("v1", setup=lambda made: made.add_generic_rpc_handlers((Health(),))) as server:
            for _ in range(2):
                to = channel(server)
                assert to.unary_unary("/grpc.health.v1.Health/Check")(b"") == b"\x08\x01"
                assert json.loads(to.unary_unary("/a.B/C")(b""))["name"] == "v1"
                server.restart()
            assert server.requests_total == 2

    def test_methods_have_one_of_four_kinds(self):
        with pytest.raises(ValueError, match=r"/a\.B/C is one of unary_unary, .*, not 'stream'"):
            GrpcUpstream(methods={"/a.B/C": "stream"})


class TestOrders:
    def test_a_failure_is_trailers_only(self, grpc_upstream, channel):
        server = grpc_upstream("v1")
        server.fail(times=1, metadata=(("grpc-retry-pushback-ms", "5"), ("x-c", "d")))
        get = channel(server).unary_unary("/a.B/C")
        error = failure(get, b"")
        assert (error.code(), error.details()) == (UNAVAILABLE, "failed by order")
        assert pairs(error.trailing_metadata()) == [("x-upstream", "v1"), ("x-c", "d")]
        assert ("grpc-retry-pushback-ms", "5") in error.trailing_metadata()
        assert pairs(error.initial_metadata()) == []
        assert json.loads(get(b""))["name"] == "v1"

    def test_a_failure_that_a_client_may_retry_is_retried(self, grpc_upstream):
        """A44 and A6: only a trailers-only response is tried again; one with metadata is committed."""
        policy = {"maxAttempts": 3, "initialBackoff": "0.01s", "maxBackoff": "0.01s", "backoffMultiplier": 1}
        config = json.dumps(
            {
                "methodConfig": [
                    {"name": [{}], "retryPolicy": policy | {"retryableStatusCodes": ["UNAVAILABLE"]}}
                ]
            }
        )
        server = grpc_upstream()
        with grpc.insecure_channel(server.target, [("grpc.service_config", config)]) as to:
            server.fail(times=2)
            assert json.loads(to.unary_unary("/a.B/C")(b""))["request"] == 3
            server.order(code=UNAVAILABLE, metadata=(("x-a", "b"),), times=1)
            assert failure(to.unary_unary("/a.B/C"), b"").code() is UNAVAILABLE
            assert server.requests_total == 4

    def test_metadata_of_both_ends(self, grpc_upstream, channel):
        server = grpc_upstream("v1")
        get = channel(server).unary_unary("/a.B/C")
        server.order(metadata=(("x-a", "b"), ("x-b-bin", b"\xff")), trailers=(("x-c", "d"),), times=1)
        _, call = get.with_call(b"")
        assert pairs(call.initial_metadata()) == [("x-upstream", "v1"), ("x-a", "b"), ("x-b-bin", b"\xff")]
        assert pairs(call.trailing_metadata()) == [("x-c", "d")]
        server.order(code=grpc.StatusCode.ABORTED, details="why", metadata=(("x-a", "b"),))
        error = failure(get, b"")
        assert (error.code(), error.details(), pairs(error.initial_metadata())) == (
            grpc.StatusCode.ABORTED,
            "why",
            [("x-upstream", "v1"), ("x-a", "b")],
        )

    @pytest.mark.parametrize("kind", ["UnaryStream", "StreamStream"])
    def test_a_stream_that_breaks_off(self, grpc_upstream, channel, kind):
        server = grpc_upstream()
        server.order(code=grpc.StatusCode.INTERNAL, messages=2)
        to = channel(server)
        endless = iter(lambda: b"x", None)
        call = to.unary_stream(f"/s/{kind}")(b"x") if kind == "UnaryStream" else None
        call = call or to.stream_stream(f"/s/{kind}")(endless)
        got = []
        with pytest.raises(grpc.RpcError) as caught:
            got.extend(json.loads(each)["name"] for each in call)
        assert (got, caught.value.code()) == ([server.name] * 2, grpc.StatusCode.INTERNAL)

    @pytest.mark.parametrize("kind", ["stream_unary", "stream_stream"])
    def test_an_early_answer_does_not_wait_for_the_stream(self, grpc_upstream, channel, kind):
        server = grpc_upstream(methods={"/a.B/C": kind})
        server.order(early=True)
        silent = threading.Event()
        call = getattr(channel(server), kind)("/a.B/C")
        try:
            waiting = iter(lambda: silent.wait(20) and None, None)
            answer = call(waiting, timeout=20)
            assert json.loads(next(answer) if kind == "stream_stream" else answer)["payload_length"] == 0
        finally:
            silent.set()

    def test_the_newest_order_that_applies_holds(self, grpc_upstream, channel):
        server = grpc_upstream()
        to = channel(server)
        server.fail(grpc.StatusCode.INTERNAL)
        server.order(code=grpc.StatusCode.NOT_FOUND, where=lambda received: received.payload == b"x")
        server.fail(times=1)
        codes = [failure(to.unary_unary("/a.B/C"), body).code().name for body in (b"x", b"x", b"", b"")]
        assert codes == ["UNAVAILABLE", "NOT_FOUND", "INTERNAL", "INTERNAL"]
        server.behave()
        assert to.unary_unary("/a.B/C")(b"")

    def test_a_call_brings_its_own_order(self, grpc_upstream, channel):
        get = channel(grpc_upstream()).unary_unary("/a.B/C")

        def ordered(text):
            return failure(get, b"", metadata=(("x-upstream-order", text),))

        for text in ('{"code": "NOT_FOUND"}', '{"code": 5}', '{"code": "not-found"}'):
            assert ordered(text).code() is grpc.StatusCode.NOT_FOUND
        wrong = ordered('{"cod": 5}')
        assert wrong.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "no 'cod'" in wrong.details()
        assert ordered("{").code() is grpc.StatusCode.INVALID_ARGUMENT

    def test_hanging_until_released(self, grpc_upstream, channel):
        server = grpc_upstream()
        get = channel(server).unary_unary("/a.B/C")
        server.hang(times=1)
        # It is connected within that time on a busy machine, too.
        assert failure(get, b"", timeout=1.0).code() is grpc.StatusCode.DEADLINE_EXCEEDED
        server.wait_for(lambda: server.requests and server.held == 0 and server.calls_open == 0)
        assert (server.requests[0].answered, server.requests[0].ended) == (False, True)
        server.hang(times=1)
        future = get.future(b"", timeout=20)
        server.wait_for(lambda: server.held == 1)
        assert not future.done()
        server.release()
        assert json.loads(future.result())["request"] == 2

    def test_holding_the_rest_of_a_stream(self, grpc_upstream, channel):
        server = grpc_upstream()
        server.order(hold="body", messages=2)
        call = channel(server).unary_stream("/s/UnaryStream")(b"", timeout=20)
        assert pairs(call.initial_metadata()) == [("x-upstream", server.name)]
        assert next(call)
        server.wait_for(lambda: server.held == 1)
        server.release()
        assert len(list(call)) == 1

    def test_a_cancelled_call_is_told(self, grpc_upstream, channel):
        server = grpc_upstream()
        server.hang()
        future = channel(server).unary_unary("/a.B/C").future(b"")
        server.wait_for(lambda: server.held == 1)
        future.cancel()
        server.wait_for(lambda: server.calls_open == 0 and server.held == 0)
        assert (server.requests[0].answered, server.requests[0].ended) == (False, True)

    def test_a_late_answer(self, grpc_upstream, channel):
        server = grpc_upstream()
        server.delay(0.05)
        before = time.monotonic()
        assert channel(server).unary_unary("/a.B/C")(b"")
        assert time.monotonic() - before >= 0.05

    def test_there_and_back_as_json(self):
        order = GrpcOrder(
            code=UNAVAILABLE,
            details="x",
            metadata=(("a", "b"), ("c-bin", b"\xff")),
            trailers=(("d", "e"),),
            body=b"\x00\xff",
            delay=0.5,
            hold="body",
            messages=3,
            message_delay=1.0,
            echo=True,
            early=True,
        )
        assert GrpcOrder.from_dict(json.loads(json.dumps(order.to_dict()))) == order
        assert GrpcOrder(code=UNAVAILABLE).to_dict() == {"code": "UNAVAILABLE"}

    @pytest.mark.parametrize(
        "given",
        [
            {"cod": 5},
            {"code": "NOTHING"},
            {"code": 99},
            {"code": True},
            {"code": None},
            {"details": 5},
            {"metadata": 1},
            {"metadata": ["x"]},
            {"trailers": [["a", 1]]},
            {"trailers": [["a-bin", "\u0100"]]},
            {"body": 5},
            {"body": "\u0100"},
            {"delay": "1"},
            {"hold": "foot"},
            {"messages": 1.5},
            {"messages": True},
            {"echo": 1},
            [],
            3,
        ],
    )
    def test_what_is_no_order(self, given):
        with pytest.raises(ValueError, match="an order"):
            GrpcOrder.from_dict(given)


class TestLife:
    @pytest.mark.parametrize("kind", ["unary_unary", "stream_stream"])
    def test_killed_and_restarted_at_the_same_port(self, grpc_upstream, channel, kind):
        server = grpc_upstream(methods={"/a.B/C": kind})
        port, to = server.port, channel(server, **{"grpc.initial_reconnect_backoff_ms": 100})
        server.hang()
        open_ended = threading.Event()
        asked = b"" if kind == "unary_unary" else iter(lambda: open_ended.wait(20) and None, None)
        calls = [channel(server) for _ in range(5)]
        started = []
        for each in calls:
            call = getattr(each, kind)("/a.B/C")
            started.append(
                call.future(asked, timeout=20) if kind == "unary_unary" else call(asked, timeout=20)
            )
        server.wait_for(lambda: server.held == 5)
        server.kill()
        assert [call.code() for call in started] == [UNAVAILABLE] * 5
        open_ended.set()
        assert (server.held, server.calls_open, server.running) == (0, 0, False)
        assert failure(to.unary_unary("/x/Y"), b"", timeout=20).code() is UNAVAILABLE
        assert refuses(port)
        with pytest.raises(OSError, match="in use"), socket.socket() as other:  # nobody else gets the port
            other.bind(("127.0.0.1", port))
        server.behave()
        server.start()
        assert server.port == port
        assert to.unary_unary("/x/Y")(b"", wait_for_ready=True, timeout=20)

    def test_stopping_in_order_lets_calls_end(self, grpc_upstream, channel):
        server = grpc_upstream()
        server.hang()
        future = channel(server).unary_unary("/a.B/C").future(b"", timeout=20)
        server.wait_for(lambda: server.held == 1)
        stopping = threading.Thread(target=server.stop, args=(20.0,))
        stopping.start()
        assert asked(
            lambda: refuses(server.port)
        )  # before, grpcio accepts the connection and cancels its call
        late = channel(server).unary_unary("/a.B/C")
        assert failure(late, b"", timeout=20).code() is UNAVAILABLE
        server.release()
        assert future.result()
        stopping.join(10)
        assert not stopping.is_alive()

    def test_connections_and_streams_are_bounded_and_counted(self, grpc_upstream, channel):
        server = grpc_upstream(max_concurrent_streams=2)
        server.hang()
        one, other = channel(server), channel(server)
        futures = [one.unary_unary("/a.B/C").future(b"", timeout=20) for _ in range(3)]
        server.wait_for(lambda: server.held == 2)
        futures.append(other.unary_unary("/a.B/C").future(b"", timeout=20))
        server.wait_for(lambda: server.held == 3)
        counts = {"calls_open": 3, "connections_total": 2, "requests_total": 3, "held": 3}
        assert server.counts() == counts
        server.behave()
        assert all(future.result() for future in futures)
        server.wait_for(lambda: server.calls_open == 0)
        assert (server.requests_total, server.connections_total) == (4, 2)

    def test_tls(self, grpc_upstream):
        authority = trustme.CA()
        own = authority.issue_cert("127.0.0.1")
        key, chain = own.private_key_pem.bytes(), own.cert_chain_pems[0].bytes()
        server = grpc_upstream(credentials=grpc.ssl_server_credentials([(key, chain)]))
        trusted = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
        with grpc.secure_channel(server.target, trusted) as to:
            assert json.loads(to.unary_unary("/a.B/C")(b""))["name"] == server.name

    def test_waiting_for_what_does_not_come_tells_the_counts(self, grpc_upstream):
        server = grpc_upstream("v1")
        with pytest.raises(
            TimeoutError, match=r"v1: two calls did not come within 0\.01 s; .*'requests_total': 0"
        ):
            server.wait_for(lambda: server.requests_total == 2, timeout=0.01, what="two calls")

    def test_nothing_is_left_after_it_stops(self):
        before = set(threading.enumerate())
        with GrpcUpstream() as server, grpc.insecure_channel(server.target) as to:
            server.hang()
            future = to.unary_unary("/a.B/C").future(b"")
            server.wait_for(lambda: server.held == 1)
        assert isinstance(future.exception(), grpc.RpcError)
        left = {each for each in set(threading.enumerate()) - before if each.name.startswith("grpc-upstream")}
        for thread in left:
            thread.join(5)
        assert not any(thread.is_alive() for thread in left)

    def test_a_taken_port_is_an_error_and_not_shared(self, grpc_upstream):
        with pytest.raises(OSError, match="somebody listens on"):
            GrpcUpstream(port=grpc_upstream().port).start()

    def test_without_a_port_it_has_no_address(self):
        with pytest.raises(RuntimeError, match="upstream v1 has no port"):
            _ = GrpcUpstream("v1").target


class TestProcess:
    def test_killed_in_earnest_and_started_again(self, channel):
        with GrpcUpstreamProcess("v3") as server:
            get = channel(server).unary_unary("/a.B/C")
            assert json.loads(get(b""))["name"] == "v3"
            server.order(code=grpc.StatusCode.ABORTED, trailers=(("x-a", "b"),), times=1)
            error = failure(get, b"")
            assert (error.code(), error.details()) == (grpc.StatusCode.ABORTED, "")
            assert pairs(error.trailing_metadata()) == [("x-upstream", "v3"), ("x-a", "b")]
            assert get(b"")
            assert server.counts()["requests_total"] == 3
            port = server.port
            server.order(hold="head")
            under_way = get.future(b"", timeout=20)
            _held(server)
            os.kill(server.pid, signal.SIGKILL)
            assert under_way.exception().code() is UNAVAILABLE
            server.kill()
            assert server.pid is None
            assert failure(channel(server).unary_unary("/a.B/C"), b"").code() is UNAVAILABLE
            server.start()
            assert server.port == port
            assert json.loads(channel(server).unary_unary("/a.B/C")(b""))["name"] == "v3"

    def test_orders_from_afar(self, channel):
        with GrpcUpstreamProcess() as server:
            server.order(GrpcOrder(hold="head"))
            under_way = channel(server).unary_unary("/a.B/C").future(b"", timeout=20)
            _held(server)
            server.release()
            assert under_way.result()
            server.behave()
            assert channel(server).unary_unary("/a.B/C")(b"", timeout=20)
            with pytest.raises(ValueError, match="no order: an order has no 'stats'"):
                server._ask("order", {"stats": 1})
            with pytest.raises(ValueError, match="no order"):
                server._ask("order", [])


def _held(server):
    """Of a process, which tells nothing by itself."""
    assert asked(lambda: server.counts()["held"] == 1, 10.0)
