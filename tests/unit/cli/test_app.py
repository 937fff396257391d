"""Options and exit codes, through typer's runner."""

from __future__ import annotations

import builtins
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import meshlib
from meshlib.cli import main
from meshlib.cli.app import app
from meshlib.cli.watch import _facts

runner = CliRunner()
CONFIG = """
[services.reviews]
endpoints = ["127.0.0.1:9"]
timeout = 2.0
[[services.reviews.routes]]
match = { prefix = "/teapot" }
response = { status = 418 }
[[services.reviews.routes]]
match = { prefix = "/api" }
[services.empty]
endpoints = []
[[services.gateway.routes]]
match = { prefix = "/api" }
service = "reviews"
"""


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "mesh.toml"
    path.write_text(CONFIG)
    return str(path)


def invoke(*arguments: str) -> Any:
    return runner.invoke(app, list(arguments))


def test_the_version() -> None:
    result = invoke("--version")
    assert (result.exit_code, result.stdout) == (0, f"meshlib {meshlib.__version__}\n")


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("nonsense",),
        ("check",),
        ("check", "/does/not/exist.toml"),
        ("route", "GET"),
        ("route", "GET", "ftp://reviews/"),
        ("route", "GET", "http://[::1/"),
        ("route", "GET", "http://reviews/", "-H", "no colon"),
        ("route", "GET", "http://reviews/", "--config", "/does/not/exist.toml"),
        ("route", "GET", "http://reviews/", "--wait", "-1"),
        ("dump", "x"),
        ("dump", "0"),
        ("dump", "--name", "http://reviews/"),
        ("watch", "--nonsense"),
        ("demo", "--config", __file__),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...]) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)


def test_check(config: str, tmp_path: Path) -> None:
    good = tmp_path / "good.toml"
    good.write_text('[services.a]\nendpoints = ["127.0.0.1:9"]\n')
    assert invoke("check", str(good)).exit_code == 0
    assert invoke("check", "--config", str(good)).exit_code == 0
    assert invoke("check", str(good), "--config", str(good)).exit_code == 2
    assert json.loads(invoke("check", str(good), "--json").stdout) == {
        "file": str(good),
        "kind": "meshlib",
        "problems": [],
        "warnings": [],
        "ignored": [],
        "findings": [],
    }
    good.write_text('[services.a]\nendpoints = ["127.0.0.1:9"]\nretry = { on = ["5xx"] }\n')
    result = invoke("check", str(good))
    assert result.exit_code == 0
    assert "a POST that the service may have carried out already is sent again" in " ".join(
        result.stdout.split()
    )
    bad = tmp_path / "bad.toml"
    bad.write_text("[services.a]\ntimeout = -1\n")
    result = invoke("check", str(bad))
    assert result.exit_code == 1
    assert "services.a.timeout" in result.stdout
    result = invoke("check", str(bad), "--json")
    assert result.exit_code == 1
    assert "services.a.timeout" in json.loads(result.stdout)["problems"][0]


def test_route_is_what_explain_says(config: str) -> None:
    result = invoke(
        "route",
        "GET",
        "http://reviews/api/1",
        "-H",
        "x-a: 1",
        "--header",
        "x-b:2",
        "--config",
        config,
        "--json",
    )
    assert result.exit_code == 0, result.stderr
    said = json.loads(result.stdout)
    with meshlib.Mesh(config) as mesh:
        expected = mesh.explain("GET", "http://reviews/api/1", [("x-a", "1"), ("x-b", "2")]).to_dict()
    assert said == json.loads(json.dumps(expected))
    assert (said["headers"]["x-a"], said["headers"]["x-b"]) == ("1", "2")


@pytest.mark.parametrize(
    ("url", "code", "text"),
    [
        ("http://reviews/api", 0, "reviews at 127.0.0.1:9"),
        ("http://reviews/teapot", 0, "answers 418"),
        ("http://gateway/none", 1, "no route matches"),
        ("http://empty/", 1, "fails"),
        ("http://127.0.0.1:1/", 0, "directly"),
    ],
)
def test_route_says_whether_a_call_would_fail(config: str, url: str, code: int, text: str) -> None:
    result = invoke("route", "GET", url, "--config", config, "--wait", "0")
    assert (result.exit_code, text in result.stdout) == (code, True), result.output
    result = invoke("route", "GET", url, "--config", config, "--wait", "0", "--json")
    assert result.exit_code == code
    assert json.loads(result.stdout)["trace"]


def test_an_unknown_host_that_is_refused_is_a_finding(tmp_path: Path) -> None:
    path = tmp_path / "mesh.toml"
    path.write_text('unknown_hosts = "refuse"\n')
    result = invoke("route", "GET", "http://elsewhere/", "--config", str(path))
    assert result.exit_code == 1
    assert "unknown hosts are refused" in result.stdout


def test_a_wrong_configuration_is_a_finding(tmp_path: Path) -> None:
    path = tmp_path / "mesh.toml"
    path.write_text("[nonsense]\n")
    for arguments in (("route", "GET", "http://a/"), ("dump",), ("watch",), ("dump", "1")):
        result = invoke(*arguments, "--config", str(path))
        assert result.exit_code == 1, arguments
        assert "nonsense" in result.stderr
        assert result.stdout == ""


def test_dump(config: str) -> None:
    result = invoke("dump", "--config", config, "--json")
    assert result.exit_code == 0
    said = json.loads(result.stdout)
    assert set(said) == {"node", "sources", "sidecar", "clusters", "process", "adoption", "identity"}
    assert said["clusters"]["reviews"]["endpoints"][0]["address"] == "127.0.0.1:9"
    assert "127.0.0.1:9" in invoke("dump", "--config", config).stdout
    snapshot = json.loads(invoke("dump", "--config", config, "--snapshot").stdout)
    assert snapshot["parts"][0]["source"] == "static"


def test_the_environment_is_the_configuration(config: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESHLIB_CONFIG", config)
    assert "127.0.0.1:9" in invoke("dump").stdout


def test_check_reads_what_the_environment_names(config: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESHLIB_CONFIG", config)
    result = invoke("check", "--json")
    assert json.loads(result.stdout)["file"] == config
    assert (
        result.exit_code == 0 or json.loads(result.stdout)["problems"] + json.loads(result.stdout)["warnings"]
    )


def test_a_misspelt_variable_is_said_on_standard_error(config: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESHLIB_XDS_SERVR", "127.0.0.1:1")
    result = invoke("dump", "--config", config, "--json")
    assert result.exit_code == 0
    json.loads(result.stdout)
    assert 'did you mean "MESHLIB_XDS_SERVER"?' in result.stderr


def test_main_gives_the_exit_code(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["route", "GET", "http://gateway/none", "--config", config, "--wait", "0"]) == 1
    assert main(["nonsense"]) == 2
    assert main(["check", config]) == 0 or "fine" not in capsys.readouterr().out


@pytest.mark.parametrize("missing", ["rich", "typer"])
def test_without_the_extra_it_says_how_to_get_it(
    missing: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original = builtins.__import__

    def importing(name: str, *arguments: Any, **options: Any) -> Any:
        if name == missing:
            raise ImportError(f"No module named {name!r}", name=name)
        return original(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", importing)
    monkeypatch.delitem(sys.modules, missing)
    assert main(["check"]) == 2
    said = capsys.readouterr().err
    assert missing in said
    assert "pip install 'meshlib-client[cli]'" in said


def test_that_time_passes_is_no_change_to_watch() -> None:
    status = {
        "process": {"pid": 1},
        "sources": [],
        "clusters": {},
        "identity": [{"name": "a", "expires_in": 10.0}],
    }
    later = {**status, "identity": [{"name": "a", "expires_in": 9.0}]}
    assert _facts(status) == _facts(later)
    assert _facts(status) != _facts({**status, "identity": [{"name": "b", "expires_in": 10.0}]})
