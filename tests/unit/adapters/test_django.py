from __future__ import annotations

import asyncio
import io
import json
import logging

import pytest

from tests.support import django_site

django_site.setup()

from django.core.management import CommandError, call_command  # noqa: E402
from django.test import AsyncClient, Client, RequestFactory, override_settings  # noqa: E402

import meshlib  # noqa: E402
from meshlib.inbound import current  # noqa: E402
from meshlib.mesh import configure  # noqa: E402
from meshlib_django import Middleware  # noqa: E402
from meshlib_django.checks import check_settings  # noqa: E402
from meshlib_django.settings import register  # noqa: E402
from tests.support import django_views  # noqa: E402

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
OURS = "meshlib_django.Middleware"


@pytest.fixture(autouse=True)
def _own_default():
    register()
    yield
    before = configure(None)
    if before is not None:
        before.close()


class TestServing:
    @pytest.mark.parametrize("path", ["/id", "/id-async", "/stream", "/stream-async"])
    def test_a_view_sees_its_request_and_nothing_is_left(self, path):
        web = Client()
        if path == "/stream-async":
            with pytest.warns(Warning, match="consume asynchronous iterators"):
                answer = b"".join(web.get(path, headers={"x-request-id": "one"}))
        else:
            response = web.get(path, headers={"x-request-id": "one"})
            answer = b"".join(response.streaming_content) if response.streaming else response.content
            response.close()
        assert answer == (b"oneone" if "stream" in path else b"one")
        assert current() is None
        if "stream" not in path:
            assert web.get(path).content == b"empty"

    @pytest.mark.parametrize("path", ["/id", "/id-async", "/stream-async"])
    async def test_the_same_when_served_by_a_loop(self, path):
        response = await AsyncClient().get(path, headers={"x-request-id": "one"})
        if response.streaming:
            assert b"".join([part async for part in response.streaming_content]) == b"oneone"
        else:
            assert response.content == b"one"
        assert current() is None

    async def test_requests_at_once_do_not_mix(self):
        web = AsyncClient()
        answers = await asyncio.gather(
            *(web.get("/id-async", headers={"x-request-id": f"r{number}"}) for number in range(20))
        )
        assert [answer.content for answer in answers] == [f"r{number}".encode() for number in range(20)]

    @pytest.mark.parametrize("path", ["/id", "/id-async"])
    @pytest.mark.parametrize(("place", "outside"), [(0, "none"), (1, "one")])
    async def test_beside_a_middleware_that_knows_no_loops(self, path, place, outside):
        middleware = [OURS]
        middleware.insert(place, "tests.support.django_views.sync_only")
        with override_settings(MIDDLEWARE=middleware):
            web = AsyncClient()
            for _ in range(3):
                response = await web.get(path, headers={"x-request-id": "one"})
                assert (response.content, response["x-outside"]) == (b"one", outside)
                assert current() is None
                assert (await web.get(path)).content == b"empty"

    def test_the_settings_hold_without_the_application(self):
        configure(None)
        with override_settings(INSTALLED_APPS=[], MESHLIB={"node": {"zone": "here"}}):
            configure(None)
            Middleware(lambda request: None)
            assert meshlib.default().config.node.zone == "here"

    @pytest.mark.parametrize("path", ["/boom", "/boom-async"])
    def test_an_exception_leaves_nothing_behind(self, path, caplog):
        assert (
            Client(raise_request_exception=False).get(path, headers={"x-request-id": "one"}).status_code
            == 500
        )
        assert current() is None

    def test_a_file_stays_one_that_a_server_may_send(self):
        # Django's test client puts an iterator of its own in its place.
        response = Middleware(django_views.file)(RequestFactory().get("/", headers={"grpc-timeout": "5S"}))
        assert response.file_to_stream is not None
        assert b"".join(response.streaming_content) == b"abc"
        response.close()
        assert response.closed

    def test_the_middleware_is_of_both_kinds(self):
        assert Middleware.sync_capable
        assert Middleware.async_capable

    @pytest.mark.parametrize("path", ["/", "/async"])
    def test_calls_go_by_the_settings_and_carry_on(self, upstream, path):
        server = upstream("stock")
        with override_settings(MESHLIB={"services": {"stock": {"endpoints": [server.address]}}}):
            headers = {"traceparent": PARENT, "x-request-id": "id", "grpc-timeout": "5S"}
            answer = Client().get(path, headers=headers).json()
            mesh = meshlib.default()
        assert mesh.closed
        received = dict(answer["next"]["headers"])
        assert (received["traceparent"], received["x-request-id"]) == (PARENT, "id")
        assert 1 <= int(received["x-envoy-expected-rq-timeout-ms"]) <= 5000
        assert received["x-envoy-attempt-count"] == "1"

    async def test_and_in_a_loop(self, upstream):
        server = upstream("stock")
        with override_settings(MESHLIB={"services": {"stock": {"endpoints": [server.address]}}}):
            answer = (await AsyncClient().get("/async", headers={"traceparent": PARENT})).json()
        assert dict(answer["next"]["headers"])["traceparent"] == PARENT


class TestInbound:
    def test_all_of_it(self, caplog):
        caplog.set_level(logging.INFO, "meshlib.access")
        inbound = {"reject_expired": True, "ready": "/ready", "access_log": "json", "max_requests": 1}
        with override_settings(MESHLIB={"inbound": inbound}):
            web = Client()
            assert web.get("/ready").json() == {"ready": True}
            assert web.get("/id", headers={"grpc-timeout": "0n"}).status_code == 504
            for _ in range(2):
                assert web.get("/id", headers={"x-request-id": "one"}).status_code == 200
            streamed = web.get("/stream", headers={"x-request-id": "one"})
            refused = web.get("/id")
            assert (refused.status_code, refused.headers["x-envoy-overloaded"]) == (503, "true")
            list(streamed.streaming_content)
            streamed.close()
            assert web.get("/id").status_code == 200
        lines = [
            json.loads(record.getMessage()) for record in caplog.records if record.name == "meshlib.access"
        ]
        assert [line["response_code"] for line in lines] == [504, 200, 200, 503, 200, 200]
        assert [line["bytes_sent"] for line in lines if line["path"] == "/stream"] == [6]

    @pytest.mark.parametrize("drop", [False, True])
    def test_a_place_is_given_back_by_a_response_that_nobody_reads(self, drop):
        import gc

        with override_settings(MESHLIB={"inbound": {"max_requests": 1}}):
            web = Client()
            for _ in range(3):
                response = web.get("/stream")
                assert response.status_code == 200
                if not drop:
                    response.close()
                del response
                gc.collect()


class TestCheck:
    def ids(self, **settings):
        with override_settings(**settings):
            return [(message.id, message.msg) for message in check_settings()]

    def test_what_is_right_is_silent(self):
        assert self.ids() == []

    def test_a_wrong_key_is_an_error_of_manage_py_check(self):
        found = self.ids(MESHLIB={"sevices": {}, "bypass": 3})
        assert [one for one, _ in found] == ["meshlib.E001", "meshlib.E001"]
        assert any(
            "settings.MESHLIB" in text and "sevices" in text and "services" in text for _, text in found
        )
        with override_settings(MESHLIB={"sevices": {}}), pytest.raises(Exception, match="sevices"):
            call_command("check")

    def test_settings_that_are_none(self):
        assert self.ids(MESHLIB=["services"])[0][0] == "meshlib.E001"
        assert self.ids(MESHLIB=None) == []

    def test_what_can_hardly_be_meant(self):
        assert self.ids(MESHLIB={"services": {"a": {}}})[0][0] == "meshlib.W001"

    @pytest.mark.parametrize(
        ("middleware", "expected"),
        [
            ([], ["meshlib.W002"]),
            ([OURS, OURS], ["meshlib.W003"]),
            ([OURS, "django.middleware.security.SecurityMiddleware"], ["meshlib.W004"]),
            (["django.contrib.sessions.middleware.SessionMiddleware", OURS], ["meshlib.W005"]),
            (["meshlib_django.middleware.Middleware"], []),
        ],
    )
    def test_the_place_of_the_middleware(self, middleware, expected):
        assert [one for one, _ in self.ids(MIDDLEWARE=middleware)] == expected

    def test_nothing_is_made_by_it(self):
        configure(None)
        check_settings()
        assert configure(None) is None

    def test_a_wrong_setting_stops_a_server_at_its_start(self):
        with override_settings(MESHLIB={"sevices": {}}), pytest.raises(meshlib.ConfigError, match="sevices"):
            Middleware(lambda request: None)


class TestCommand:
    def run(self, *arguments):
        out, err = io.StringIO(), io.StringIO()
        call_command("meshlib", *arguments, stdout=out, stderr=err)
        return out.getvalue(), err.getvalue()

    def test_it_shows_the_status(self, upstream):
        server = upstream("stock")
        with override_settings(MESHLIB={"services": {"stock": {"endpoints": [server.address]}}}):
            text, _ = self.run()
            assert f"{server.address}: healthy" in text
            status = json.loads(self.run("--json", "--name", "stock")[0])
        assert status["clusters"]["stock"]["endpoints"][0]["address"] == server.address

    def test_what_is_missing_is_told(self):
        text, error = self.run("--name", "nobody", "--timeout", "0")
        assert "nobody" in error
        assert text.startswith("meshlib: process")

    def test_a_wrong_setting_is_told(self):
        with override_settings(MESHLIB={"sevices": {}}), pytest.raises(CommandError, match="sevices"):
            self.run()

    def test_a_running_process_is_asked_by_its_number(self, tmp_path):
        import os

        admin = {"enabled": True, "runtime_dir": str(tmp_path / "admin")}
        with override_settings(MESHLIB={"admin": admin}):
            meshlib.default().snapshot()
            status = json.loads(self.run(str(os.getpid()), "--json")[0])
            assert status["process"]["pid"] == os.getpid()
            with pytest.raises(CommandError, match="no process"):
                self.run("999999999")
