from __future__ import annotations

import flask
import pytest

import meshlib
from meshlib.config import from_settings, reload, resolve
from meshlib.inbound import current
from meshlib.mesh import configure
from meshlib_flask import Meshlib

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture(autouse=True)
def _own_default():
    yield
    before = configure(None)
    if before is not None:
        before.close()


def application(config=None, name="app", **options):
    app = flask.Flask(name)
    if config is not None:
        app.config["MESHLIB"] = config
    Meshlib(app, **options)

    @app.get("/id")
    def identity():
        return current().request_id

    @app.get("/call")
    def call():
        with meshlib.Client() as client:
            return client.get("http://stock/").text

    @app.get("/stream")
    def stream():
        return flask.Response((current().request_id for _ in range(2)), mimetype="text/plain")

    @app.get("/boom")
    def boom():
        raise RuntimeError("boom")

    return app


def test_a_view_sees_its_request_and_nothing_is_left():
    web = application().test_client()
    assert web.get("/id", headers={"x-request-id": "one"}).text == "one"
    assert web.get("/stream", headers={"x-request-id": "two"}).text == "twotwo"
    assert web.get("/id").text == ""
    assert web.get("/boom", headers={"x-request-id": "one"}).status_code == 500
    assert current() is None


def test_a_test_that_looks_into_exceptions_leaves_nothing_either():
    app = application()
    app.testing = True
    with pytest.raises(RuntimeError, match="boom"):
        app.test_client().get("/boom", headers={"x-request-id": "one"})
    assert current() is None


def test_a_wrong_key_is_told_where_it_is_read():
    with pytest.raises(meshlib.ConfigError, match=r'app\.config\["MESHLIB"\].*sevices.*services'):
        application({"sevices": {}})
    with pytest.raises(meshlib.ConfigError, match=r'app\.config\["MESHLIB"\]: must be a mapping'):
        application(["services"])


def test_calls_go_by_the_configuration_of_the_application(upstream):
    server = upstream("stock")
    app = application({"services": {"stock": {"endpoints": [server.address]}}})
    answer = app.test_client().get("/call", headers={"traceparent": PARENT, "grpc-timeout": "5S"})
    received = dict(answer.get_json(force=True)["headers"])
    assert received["traceparent"] == PARENT
    assert int(received["x-envoy-expected-rq-timeout-ms"]) <= 5000
    assert app.extensions["meshlib"].mesh is meshlib.default()


def test_two_applications_in_a_process_have_a_mesh_each(upstream):
    apps = []
    for name in ("one", "two"):
        server = upstream(name)
        apps.append(application({"services": {"stock": {"endpoints": [server.address]}}}, name))
    names = [app.test_client().get("/call").get_json(force=True)["name"] for app in (*apps, *apps)]
    assert names == ["one", "two", "one", "two"]
    assert apps[0].extensions["meshlib"].mesh is not apps[1].extensions["meshlib"].mesh
    assert meshlib.default() is apps[1].extensions["meshlib"].mesh
    apps[0].extensions["meshlib"].mesh.close()


def test_one_extension_serves_several_applications_of_a_factory():
    extension = Meshlib()
    apps = []
    for name in ("one", "two"):
        app = flask.Flask(name)
        extension.init_app(app)
        apps.append(app)
    assert apps[0].extensions["meshlib"] is not apps[1].extensions["meshlib"]
    assert apps[0].extensions["meshlib"].mesh is apps[1].extensions["meshlib"].mesh is meshlib.default()
    assert not vars(extension)


def test_a_second_time_reads_anew_and_wraps_once():
    app = application()
    served = app.wsgi_app
    state = app.extensions["meshlib"]
    app.config["MESHLIB"] = {"inbound": {"ready": "/ready"}}
    Meshlib(app)
    assert app.wsgi_app == served
    assert app.extensions["meshlib"] is state
    assert app.test_client().get("/ready").status_code == 200
    app.config["MESHLIB"] = {"bypas": []}
    with pytest.raises(meshlib.ConfigError):
        Meshlib(app)
    assert app.test_client().get("/ready").status_code == 200


def test_nothing_starts_before_the_first_call(upstream):
    server = upstream("stock")
    app = application({"services": {"stock": {"endpoints": [server.address]}}})
    assert app.test_client().get("/id", headers={"x-request-id": "one"}).text == "one"
    assert not app.extensions["meshlib"].mesh.status().process.started


def test_a_mesh_that_was_closed_is_made_anew(upstream):
    server = upstream("stock")
    app = application({"services": {"stock": {"endpoints": [server.address]}}})
    app.extensions["meshlib"].mesh.close()
    assert app.test_client().get("/call").get_json(force=True)["name"] == "stock"


def test_a_mesh_of_the_caller_s_own(upstream):
    server = upstream("stock")
    with meshlib.Mesh({"services": {"stock": {"endpoints": [server.address]}}}) as mesh:
        app = application(mesh=mesh)
        assert app.test_client().get("/call").get_json(force=True)["name"] == "stock"
        assert app.extensions["meshlib"].mesh is mesh
        assert meshlib.default() is not mesh
        with pytest.raises(meshlib.ConfigError, match="mesh="):
            application({"bypass": []}, mesh=mesh)


def test_the_environment_wins_over_the_settings(monkeypatch):
    monkeypatch.setenv("MESHLIB_ZONE", "eu-1b")
    app = application({"node": {"zone": "eu-1a", "region": "eu-1"}})
    config = app.extensions["meshlib"].mesh.config
    assert (config.node.zone, config.source_of("node.zone")) == ("eu-1b", "MESHLIB_ZONE")
    assert config.source_of("node.region") == 'app.config["MESHLIB"]'


def test_the_settings_win_over_a_file(monkeypatch, tmp_path):
    file = tmp_path / "mesh.toml"
    file.write_text('[node]\nzone = "file"\nregion = "file"\n')
    monkeypatch.setenv("MESHLIB_CONFIG", str(file))
    node = application({"node": {"zone": "settings"}}).extensions["meshlib"].mesh.config.node
    assert (node.zone, node.region) == ("settings", "file")


def test_an_edit_of_the_file_leaves_the_settings(monkeypatch, tmp_path):
    file = tmp_path / "mesh.toml"
    file.write_text('[node]\nzone = "file"\nregion = "file"\n')
    monkeypatch.setenv("MESHLIB_CONFIG", str(file))
    config = resolve(from_settings({"node": {"zone": "settings"}}, "settings"))
    file.write_text('[node]\nzone = "edited"\nregion = "edited"\n')
    again = reload(config)
    assert (again.node.zone, again.node.region) == ("settings", "edited")


def test_an_asgi_application_is_told_where_to_go():
    class Quart:
        extensions = None

    with pytest.raises(TypeError, match="meshlib_asgi"):
        Meshlib(Quart())  # type: ignore[arg-type]
