"""``meshlib run`` and ``import meshlib.auto`` with gRPC: programs that know nothing of meshlib, against real servers."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme

from meshlib.testing import ControlPlane, build
from tests.support.grpc_echo import EchoServer
from tests.support.run_kit import RunWorld

PATCHED = [
    "grpc.aio.insecure_channel",
    "grpc.aio.secure_channel",
    "grpc.insecure_channel",
    "grpc.secure_channel",
]

#: What the programs begin with: a call of the mesh tells so.
START = """
    import sys
    import grpc

    def said(call, value):
        meshlib = sys.modules.get("meshlib")
        info = None if meshlib is None else meshlib.call_info(call)
        print(value.decode(), info and info.via)

    def ask(target, options=None):
        with grpc.insecure_channel(target, options) as channel:
            try:
                value, call = channel.unary_unary("/echo.Echo/unary_unary").with_call(b"", timeout=20)
            except grpc.RpcError as error:
                print(error.code().name, meshlib.call_info(error) and meshlib.call_info(error).via)
            else:
                said(call, value)

"""


class World(RunWorld):
    retried = "unavailable"

    def python(self, text: str, *options: str, run: bool = True, **env: str) -> str:
        """What the program printed; under ``meshlib run`` with our configuration, or else with the environment alone."""
        path = self.program(textwrap.dedent(START) + textwrap.dedent(text))
        done = (self.run if run else self.plainly)(sys.executable, *options, path, env=env)
        assert done.returncode == 0, done.stderr
        self.stderr = done.stderr
        return done.stdout


def books(server: EchoServer) -> tuple[dict[str, Any], ...]:
    """What a control plane has, where ``books`` is one server."""
    routes = build.route_config("r", build.virtual_host("h", build.route(cluster="c")))
    return build.api_listener("books", routes), build.cluster("c"), build.endpoints("c", server.address)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with EchoServer("a") as one, EchoServer("b") as other:
        yield World(tmp_path, one, other)


BLOCKING = """
    channel = grpc.{channel}
    unary = channel.unary_unary("/echo.Echo/unary_unary")
    print(unary(b"").decode())
    print(unary.with_call(b"")[0].decode())
    print(unary.future(b"").result().decode())
    print(b"".join(channel.unary_stream("/echo.Echo/unary_stream")(b"")).decode())
    stream = channel.stream_unary("/echo.Echo/stream_unary")
    print(stream(iter([b"", b""])).decode())
    print(stream.future(iter([b"", b""])).result().decode())
    print(b"".join(channel.stream_stream("/echo.Echo/stream_stream")(iter([b"", b""]))).decode())
    grpc.channel_ready_future(channel).result(10)
    channel.close()
    try:
        unary(b"")
    except ValueError as error:
        print(error)
"""
ASYNCIO = """
    import asyncio
    async def main():
        async with grpc.aio.{channel} as channel:
            unary = channel.unary_unary("/echo.Echo/unary_unary")
            for _ in range(3):
                print((await unary(b"")).decode())
            print(b"".join([m async for m in channel.unary_stream("/echo.Echo/unary_stream")(b"")]).decode())
            stream = channel.stream_unary("/echo.Echo/stream_unary")
            print((await stream(iter([b"", b""]))).decode())
            call = stream()
            await call.write(b"")
            await call.write(b"")
            await call.done_writing()
            print((await call).decode())
            print(b"".join([m async for m in channel.stream_stream("/echo.Echo/stream_stream")(iter([b"", b""]))]).decode())
            await channel.channel_ready()
        try:
            await unary(b"")
        except grpc.aio.UsageError as error:
            print(error)
        print(channel.get_state())
    asyncio.run(main())
"""


@pytest.mark.parametrize(("program", "end"), [(BLOCKING, 1), (ASYNCIO, 2)], ids=["blocking", "asyncio"])
def test_all_kinds_of_calls_go_through_the_mesh(world: World, program: str, end: int) -> None:
    """With warnings as errors: a program that is run so may not see one more than without. Plain grpc fails alike on a channel
    that is closed.
    """
    meshed = world.python(program.format(channel='insecure_channel("reviews")'), "-W", "error").splitlines()
    assert [line.replace("b", "a") for line in meshed[:-end]] == ["a", "a", "a", "aaa", "aa", "aa", "aa"]
    assert sorted(line[0] for line in meshed[:-end]) in (list("aaaabbb"), list("aaabbbb"))
    address = world.servers[0].address
    plain = world.python(program.format(channel=f'insecure_channel("{address}")'), run=False)
    assert plain.splitlines()[-end:] == meshed[-end:]


def test_a_call_is_made_elsewhere_where_a_server_is_gone(world: World) -> None:
    world.servers[0].kill()
    program = (BLOCKING + ASYNCIO).format(channel='insecure_channel("reviews")')
    lines = [line for line in world.python(program).splitlines() if set(line) <= {"a", "b"}]
    assert lines == ["b", "b", "b", "bbb", "bb", "bb", "bb"] * 2


def test_the_status_lists_them_and_errors_tell_their_call(world: World) -> None:
    for server in world.servers:
        server.kill()
    told = world.python(
        """
        import asyncio, meshlib
        print(*meshlib.default().status().process.patched)
        try:
            grpc.insecure_channel("reviews").unary_unary("/echo.Echo/unary_unary")(b"")
        except grpc.RpcError as error:
            print(error.code().name, isinstance(error, meshlib.MeshError), len(meshlib.call_info(error).attempts))

        async def main():
            try:
                await grpc.aio.insecure_channel("reviews").unary_unary("/echo.Echo/unary_unary")(b"")
            except grpc.aio.AioRpcError as error:
                print(error.code().name, isinstance(error, meshlib.MeshError), len(meshlib.call_info(error).attempts))

        asyncio.run(main())
        """
    )
    first, *rest = told.splitlines()
    assert first.split() == PATCHED
    assert rest == ["UNAVAILABLE True 2"] * 2


def test_secure_channels(world: World, tmp_path: Path) -> None:
    """Its certificate is for the name that the application calls, and no endpoint has that."""
    authority = trustme.CA()
    given = authority.issue_cert("reviews")
    pair = given.private_key_pem.bytes(), given.cert_chain_pems[0].bytes()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    credentials = grpc.ssl_server_credentials([pair])
    with EchoServer("tls", credentials=credentials) as server:
        world.config.write_text(f'[services.reviews]\nendpoints = ["{server.address}"]\n')
        factory = 'secure_channel("reviews", grpc.ssl_channel_credentials(open("ca.pem", "rb").read()))'
        told = world.python((BLOCKING + ASYNCIO).format(channel=factory))
    lines = [line for line in told.splitlines() if line.startswith("tls")]
    assert lines == ["tls", "tls", "tls", "tls" * 3, "tls" * 2, "tls" * 2, "tls" * 2] * 2


def test_a_channel_that_is_closed_before_its_first_call(world: World) -> None:
    told = world.python(
        """
        channel = grpc.insecure_channel("reviews")
        unary = channel.unary_unary("/echo.Echo/unary_unary")
        channel.close()
        try:
            unary(b"", timeout=20)
        except ValueError as error:
            print(error)
        """
    )
    assert told == "Cannot invoke RPC on closed channel!\n"


def test_simple_stubs_and_factories_that_were_imported_by_name(world: World) -> None:
    told = world.python(
        """
        from grpc import insecure_channel
        import grpc.experimental
        import meshlib.auto
        print(insecure_channel("reviews").unary_unary("/echo.Echo/unary_unary")(b"").decode())
        method = "/echo.Echo/unary_unary"
        for _ in range(2):
            print(grpc.experimental.unary_unary(b"", "reviews", method, insecure=True, _registered_method=True).decode())
        """,
        run=False,
        MESHLIB_CONFIG=str(world.config),
    )
    assert sorted(told.split()) in (list("aab"), list("abb"))


def test_without_configuration_nothing_changes(world: World) -> None:
    told = world.python(
        f"""
        import meshlib.auto
        ask("{world.servers[0].address}")
        print("meshlib.hosts.grpc.channel" in sys.modules, meshlib.default().status().process.started)
        """,
        run=False,
    )
    assert told.splitlines() == ["a None", "False False"]


class TestWhatStaysGrpcsOwn:
    def test_targets_that_the_mesh_does_not_know(self, world: World) -> None:
        """Such a call is looked at, and goes as it is."""
        told = world.python(f'import meshlib\nask("{world.servers[1].address}")\nask("127.0.0.1:1")')
        assert told.splitlines() == ["b direct", "UNAVAILABLE direct"]

    def test_targets_that_say_where_to_go_themselves(self, world: World, tmp_path: Path) -> None:
        addresses = ",".join(server.address for server in world.servers)
        with EchoServer("unix", f"unix:{tmp_path}/socket"):
            told = world.python(f'import meshlib\nask("unix:{tmp_path}/socket")\nask("ipv4:{addresses}")')
        assert told.splitlines() == ["unix None", "a None"]

    def test_proxies_win_and_that_is_said(self, world: World) -> None:
        program = 'import meshlib\nask("reviews", {})'
        gone = "127.0.0.1:1"
        world.servers[0].kill()
        assert world.python(program.format([("grpc.http_proxy", gone)])) == "UNAVAILABLE None\n"
        assert "reviews is of the mesh, but its channel goes through a proxy" in world.stderr
        assert world.python(program.format(None), https_proxy=f"http://{gone}") == "UNAVAILABLE None\n"
        without = {"http_proxy": f"http://{gone}", "no_proxy": "elsewhere, views"}
        assert world.python(program.format(None), **without) == "b mesh\n"
        off = [("grpc.enable_http_proxy", 0)]
        assert world.python(program.format(off), grpc_proxy=f"http://{gone}") == "b mesh\n"

    def test_a_control_plane_of_its_own(self, world: World) -> None:
        """``xds:`` is the mesh's where the mesh has the bootstrap that grpc would read."""
        one, other = world.servers
        with ControlPlane(*books(one)) as grpcs, ControlPlane(*books(other)) as ours:
            bootstrap = json.dumps(
                {
                    "xds_servers": [
                        {
                            "server_uri": grpcs.address,
                            "channel_creds": [{"type": "insecure"}],
                            "server_features": ["xds_v3"],
                        }
                    ],
                    "node": {"id": "test"},
                }
            )
            program = 'import meshlib\nask("xds:///books")'
            given = {"GRPC_XDS_BOOTSTRAP_CONFIG": bootstrap}
            assert world.python(program, **given) == "a mesh\n"
            assert world.python(program, **given, MESHLIB_XDS_SERVER=ours.address) == "a None\n"
            assert world.python(program, MESHLIB_XDS_SERVER=ours.address) == "b mesh\n"


def test_from_inside_and_back(world: World) -> None:
    """Each call of a channel goes by what is in force then; a channel of before is grpc's own."""
    told = world.python(
        """
        import asyncio

        def state(call):
            try:
                call(b"", timeout=20)
            except grpc.RpcError as error:
                return "plain"
            return "mesh"

        before = grpc.insecure_channel("reviews").unary_unary("/echo.Echo/unary_unary")
        kinds = (grpc._channel.Channel, grpc.aio._channel.Channel)
        factories = grpc.insecure_channel, grpc.aio.secure_channel
        own = [dict(vars(kind)) for kind in kinds]
        import meshlib.auto
        meshlib.auto.install()
        meshed = grpc.insecure_channel("reviews").unary_unary("/echo.Echo/unary_unary")
        print(state(before), state(meshed), len(meshlib.default().status().process.patched))

        async def main():
            async def ask():
                try:
                    await call(b"", timeout=20)
                except grpc.RpcError:
                    return "plain"
                return "mesh"

            async with grpc.aio.insecure_channel("reviews") as channel:
                call = channel.unary_unary("/echo.Echo/unary_unary")
                print(await ask())
                meshlib.auto.remove()
                print(await ask())

        asyncio.run(main())
        print(state(meshed), meshlib.default().status().process.patched)
        print(own == [dict(vars(kind)) for kind in kinds], factories == (grpc.insecure_channel, grpc.aio.secure_channel))
        meshlib.auto.install()
        print(state(before), state(meshed))
        """,
        run=False,
        MESHLIB_CONFIG=str(world.config),
    )
    assert told.splitlines() == ["plain mesh 4", "mesh", "plain", "plain ()", "True True", "plain mesh"]


class TestTracersOfOthers:
    """They stand above the mesh whether they wrap the factories before or after: a call is one of theirs, whatever its attempts."""

    WRAPPER = """
        import functools, os, asyncio
        import grpc._interceptor

        seen = []

        class Tracer(grpc.UnaryUnaryClientInterceptor, grpc.aio.UnaryUnaryClientInterceptor):
            def intercept_unary_unary(self, continuation, details, request):
                seen.append(details.method)
                return continuation(details, request)

        def traced(factory):
            @functools.wraps(factory)
            def channel(*args, **options):
                return grpc.intercept_channel(factory(*args, **options), Tracer())
            return channel

        def traced_aio(factory):
            def channel(*args, interceptors=None, **options):
                class AioTracer(grpc.aio.UnaryUnaryClientInterceptor):
                    async def intercept_unary_unary(self, continuation, details, request):
                        seen.append(details.method)
                        return await continuation(details, request)
                return factory(*args, interceptors=[AioTracer(), *(interceptors or ())], **options)
            return channel

        if os.environ["ORDER"] == "after":
            import meshlib.auto
        grpc.insecure_channel = traced(grpc.insecure_channel)
        grpc.aio.insecure_channel = traced_aio(grpc.aio.insecure_channel)
        theirs = grpc.insecure_channel
        import meshlib.auto

        async def main():
            async with grpc.aio.insecure_channel("reviews") as channel:
                call = channel.unary_unary("/echo.Echo/unary_unary")
                return (await call(b"")).decode()

        for _ in range(2):
            ask("reviews")
        print(asyncio.run(main()), asyncio.run(main()))
        print(len(seen))
        meshlib.auto.remove()
        ask(os.environ["PLAIN"])
        print(len(seen), grpc.insecure_channel is theirs)
    """

    @pytest.mark.parametrize("order", ["before", "after"])
    def test_a_wrapper_of_the_factories(self, world: World, order: str) -> None:
        """The endpoint that is gone costs attempts, and the control plane's stream is none of the tracer's."""
        gone, there = world.servers
        gone.kill()
        told = world.python(
            self.WRAPPER,
            run=False,
            MESHLIB_CONFIG=str(world.config),
            ORDER=order,
            PLAIN=there.address,
        )
        assert told.splitlines() == ["b mesh", "b mesh", "b b", "4", "b None", "5 True"]

    @pytest.mark.parametrize("order", ["before", "after"])
    def test_no_wrapper_sees_the_stream_to_the_control_plane(self, world: World, order: str) -> None:
        with ControlPlane(*books(world.servers[0])) as plane:
            told = world.python(
                """
                import os
                if os.environ["ORDER"] == "after":
                    import meshlib.auto
                made = []
                factory = grpc.insecure_channel

                def channel(target, *args, **options):
                    made.append(target)
                    return factory(target, *args, **options)

                grpc.insecure_channel = channel
                import meshlib.auto
                ask("books")
                print(*made)
                """,
                run=False,
                MESHLIB_XDS_SERVER=plane.address,
                ORDER=order,
            )
        assert told.splitlines() == ["a mesh", "books"]

    @pytest.mark.parametrize("order", ["before", "after"])
    def test_sentry(self, world: World, order: str) -> None:
        pytest.importorskip("sentry_sdk", reason="pip install sentry-sdk")
        world.servers[0].kill()
        told = world.python(
            """
            import asyncio, os
            if os.environ["ORDER"] == "after":
                import meshlib.auto
            import sentry_sdk
            from sentry_sdk.integrations.grpc import GRPCIntegration
            from sentry_sdk.transport import Transport

            class Kept(Transport):
                def capture_envelope(self, envelope):
                    event = envelope.get_transaction_event()
                    if event:
                        print(sorted(span["op"] for span in event["spans"]))

            sentry_sdk.init("http://key@127.0.0.1:1/1", traces_sample_rate=1.0, transport=Kept(),
                            integrations=[GRPCIntegration()], default_integrations=False)
            import meshlib.auto

            async def main():
                async with grpc.aio.insecure_channel("reviews") as channel:
                    await channel.unary_unary("/echo.Echo/unary_unary")(b"")

            with sentry_sdk.start_transaction(name="blocking"):
                ask("reviews")
            with sentry_sdk.start_transaction(name="asyncio"):
                asyncio.run(main())
            """,
            run=False,
            MESHLIB_CONFIG=str(world.config),
            ORDER=order,
        )
        assert told.splitlines() == ["b mesh", "['grpc.client']", "['grpc.client']"]
        assert all("sentry-trace" in metadata for metadata in world.servers[1].metadata)


def test_channels_of_meshlibs_own_stay_what_they_are(world: World) -> None:
    """A patched channel in a patched channel would be a call in each attempt."""
    told = world.python(
        """
        import meshlib, meshlib.grpc
        seen = []
        meshlib.default()._runtime().observe(seen.append)
        channel = meshlib.grpc.channel("reviews")
        said(*reversed(channel.unary_unary("/echo.Echo/unary_unary").with_call(b"")))
        ask("reviews")
        print(sum(type(event).__name__ == "AttemptEnded" for event in seen))
        """
    )
    assert sorted(told.splitlines()) == ["2", "a mesh", "b mesh"]
