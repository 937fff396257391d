from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from meshlib.cli.check import inspect, inspect_environment
from meshlib.cli.common import Stop
from meshlib.testing import build
from tests.support.envoy_dir import EnvoyDir


def write(path: Path, text: str | dict[str, Any]) -> Path:
    path.write_text(text if isinstance(text, str) else json.dumps(text))
    return path


def test_a_good_configuration(tmp_path: Path) -> None:
    report = inspect(write(tmp_path / "mesh.toml", '[services.a]\nendpoints = ["127.0.0.1:1"]\n'))
    assert report.fine
    assert (report.kind, report.problems, report.warnings, report.ignored) == ("meshlib", (), (), ())


def test_every_problem_has_its_place(tmp_path: Path) -> None:
    path = write(tmp_path / "mesh.toml", '[services.a]\nendpoint = ["x"]\ntimeout = "soon"\n')
    report = inspect(path)
    assert len(report.problems) == 2
    assert all(str(path) in line for line in report.problems)
    assert any("services.a.endpoint" in line and "endpoints" in line for line in report.problems)
    assert any("services.a.timeout" in line for line in report.problems)


@pytest.mark.parametrize(
    ("name", "text", "place"),
    [
        ("mesh.toml", "[services\n", "line 1"),
        ("mesh.json", "[]", "must be a table"),
        ("mesh.txt", "", "ends with"),
    ],
)
def test_what_cannot_be_used_at_all(tmp_path: Path, name: str, text: str, place: str) -> None:
    report = inspect(write(tmp_path / name, text))
    assert not report.fine
    assert place in "\n".join(report.problems)


def test_what_only_shows_when_it_is_used_has_its_line_too(tmp_path: Path) -> None:
    text = '[services."a.b:80"]\nendpoints = ["127.0.0.1:1"]\n[xds]\napi = "v2"\n[services.c]\ntimeout = 1\n'
    path = write(tmp_path / "mesh.toml", text)
    report = inspect(path)
    assert report.problems == ()
    assert [line.partition(": ")[0] for line in report.warnings] == [
        f"{path}:5:1"
    ]  # who uses it may have more


def test_what_can_hardly_be_meant_is_a_warning(tmp_path: Path) -> None:
    text = '[services.a]\nendpoints = ["127.0.0.1:1"]\n[[services.a.routes]]\nservice = "b"\n'
    report = inspect(write(tmp_path / "mesh.toml", text))
    assert not report.problems
    assert any('goes to "b"' in line for line in report.warnings)
    assert not report.fine


def envoy(**cluster: Any) -> dict[str, Any]:
    return {
        "listeners": [
            build.listener("l", build.route_config("r", build.virtual_host("all", build.route(cluster="c"))))
        ],
        "clusters": [build.cluster("c", ["127.0.0.1:1"], **cluster)],
    }


def test_a_good_file_of_envoys(tmp_path: Path) -> None:
    report = inspect(write(tmp_path / "envoy.json", envoy()))
    assert (report.kind, report.problems) == ("envoy", ())
    assert report.fine


def test_a_setting_of_envoys_that_is_not_honoured_is_listed_and_no_problem(tmp_path: Path) -> None:
    report = inspect(
        write(
            tmp_path / "envoy.json",
            envoy(lrs_server={"self": {}}) | {"admin": {}, "layered_runtime": {}},
        )
    )
    assert report.fine
    assert {(item.type, item.resource) for item in report.ignored} == {("cluster", "c"), ("bootstrap", "")}
    assert report.to_dict()["ignored"]


def test_problems_of_a_file_of_envoys_have_their_place(tmp_path: Path) -> None:
    data = envoy()
    data["clusters"][0]["connect_timeout"] = "soon"
    data["clusters"].append(build.cluster("d", lb_policy="NONSENSE"))
    path = write(tmp_path / "envoy.json", data)
    report = inspect(path)
    # Written on one line by json.dumps: the column tells them apart.
    whole = path.read_text()
    wrong = (("connect_timeout", "soon"), ("lb_policy", "NONSENSE"))
    for line, (key, value) in zip(report.problems, wrong, strict=True):
        column = whole.index(f'"{key}": "{value}"') + 1
        assert line.startswith(f"{path}:1:{column}: "), line
    text = "\n".join(report.problems)
    assert "clusters[0].connect_timeout" in text
    assert "clusters[1]" in text


def test_the_files_that_a_configuration_names_are_looked_at(tmp_path: Path) -> None:
    data = envoy()
    data["clusters"] = []
    write(tmp_path / "envoy.json", data)
    write(tmp_path / "boot.json", '{"xds_servers": []}')
    path = write(tmp_path / "mesh.toml", 'services_file = "envoy.json"\n[xds]\nbootstrap = "boot.json"\n')
    text = "\n".join(inspect(path).problems)
    assert "envoy.json" in text
    assert "'c'" in text
    assert "boot.json" in text
    assert "xds_servers" in text


def test_files_of_tls_must_be_there(tmp_path: Path) -> None:
    path = write(tmp_path / "mesh.toml", '[xds]\nserver = "127.0.0.1:1"\ntls = { ca = "none.pem" }\n')
    [problem] = inspect(path).problems
    assert "xds.tls.ca" in problem
    assert "none.pem cannot be read" in problem


def test_files_of_identity_services_and_tokens_must_be_there(tmp_path: Path) -> None:
    (tmp_path / "me.key").write_text("x")
    path = write(
        tmp_path / "mesh.toml",
        """[identity]
        cert = "me.pem"
        key = "me.key"
        [services."reviews:9080"]
        endpoints = ["127.0.0.1:1"]
        tls = { ca = "ca.pem" }
        token = "token"
        """,
    )
    assert inspect(path).problems == tuple(
        f"{path}: {key}: {tmp_path / name} cannot be read"
        for key, name in (
            ("services.reviews:9080.tls.ca", "ca.pem"),
            ("services.reviews:9080.token", "token"),
            ("identity.cert", "me.pem"),
        )
    )


def test_certificate_providers_of_a_bootstrap_must_be_right(tmp_path: Path) -> None:
    providers = {
        "good": ("file_watcher", {"ca_certificate_file": str(tmp_path / "mesh.toml")}),
        "gone": ("file_watcher", {"ca_certificate_file": str(tmp_path / "none.pem")}),
        "half": ("file_watcher", {"certificate_file": str(tmp_path / "mesh.toml")}),
        "other": ("vault", {}),
    }
    told = {
        "xds_servers": [{"server_uri": "127.0.0.1:1", "channel_creds": [{"type": "insecure"}]}],
        "certificate_providers": {
            name: {"plugin_name": plugin, "config": config} for name, (plugin, config) in providers.items()
        },
    }
    bootstrap = write(tmp_path / "boot.json", json.dumps(told))
    report = inspect(write(tmp_path / "mesh.toml", '[xds]\nbootstrap = "boot.json"\n'))
    assert report.problems == (
        f'{bootstrap}: certificate_providers["half"].config: certificate_file and private_key_file go together',
        f"{bootstrap}: certificate_providers.gone.ca_certificate_file: {tmp_path}/none.pem cannot be read",
    )
    assert [(item.field, item.value) for item in report.ignored] == [
        ('certificate_providers["other"].plugin_name', "vault")
    ]


def test_the_environment_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESHLIB_SEED", "nonsense")
    monkeypatch.setenv("MESHLIB_CONFIG", "/does/not/exist.toml")
    assert inspect(write(tmp_path / "mesh.toml", "")).fine


class TestTheEnvironment:
    def test_the_file_that_it_names_with_the_variables_over_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = write(tmp_path / "mesh.toml", '[services.reviews]\nendpoint = ["127.0.0.1:9"]\n')
        monkeypatch.setenv("MESHLIB_CONFIG", str(path))
        monkeypatch.setenv("MESHLIB_SEED", "x")
        report = inspect_environment()
        assert (report.file, report.kind) == (str(path), "meshlib")
        assert {problem.split(": ")[1] for problem in report.problems} == {
            "seed",
            "services.reviews.endpoint",
        }
        path.write_text('[services.reviews]\nendpoints = ["127.0.0.1:9"]\n')
        monkeypatch.delenv("MESHLIB_SEED")
        assert inspect_environment().fine

    def test_a_file_of_envoys(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = write(tmp_path / "envoy.json", '{"clusters": [{"name": "c", "type": "STATIC"}]}')
        monkeypatch.setenv("MESHLIB_CONFIG", str(path))
        assert inspect_environment().kind == "envoy"

    def test_a_file_that_is_not_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MESHLIB_CONFIG", "/nowhere/mesh.toml")
        assert "/nowhere/mesh.toml: cannot be read" in inspect_environment().problems[0]

    def test_variables_alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MESHLIB_XDS_SERVER", "127.0.0.1:1")
        assert inspect_environment().fine
        monkeypatch.setenv("MESHLIB_XDS_SERVR", "127.0.0.1:1")
        report = inspect_environment()
        assert report.warnings == (
            'MESHLIB_XDS_SERVR: meshlib has no such variable; did you mean "MESHLIB_XDS_SERVER"?',
        )
        assert not report.fine

    def test_nothing_at_all_is_wrong_usage(self) -> None:
        with pytest.raises(Stop, match="a FILE is needed") as caught:
            inspect_environment()
        assert caught.value.code == 2


RETRY = '[services.a]\nendpoints = ["127.0.0.1:1"]\nretry = {{ {} }}\n'


@pytest.mark.parametrize(
    ("retry", "conditions"),
    [
        ("attempts = 3", ["gateway-error", "unavailable"]),
        ('attempts = 2, on = ["5xx", "connect-failure"]', ["5xx"]),
        ('attempts = 2, on = ["reset"], methods = ["get", "post"]', ["reset"]),
        ('attempts = 2, on = ["connect-failure"], statuses = [429]', ["retriable-status-codes"]),
        ('attempts = 2, on = ["connect-failure", "refused-stream", "reset-before-request"]', []),
        ('attempts = 2, on = ["5xx"], methods = ["GET", "PUT"]', []),
        ('attempts = 1, on = ["5xx"]', []),
    ],
)
def test_a_post_that_may_be_sent_twice_is_worth_knowing(
    tmp_path: Path, retry: str, conditions: list[str]
) -> None:
    report = inspect(write(tmp_path / "mesh.toml", RETRY.format(retry)))
    assert report.fine
    assert [list(item.evidence) for item in report.findings] == (
        [[f"retried on {name}" for name in conditions]] if conditions else []
    )


TRIPS = '[services.a]\nendpoints = ["127.0.0.1:1"]\n'


@pytest.mark.parametrize(
    ("policies", "counts"),
    [
        ("", None),
        ("breaker = {}", ["breaker: 5 failures in a row"]),
        (
            "breaker = {}\nendpoint_breaker = { consecutive_failures = 2 }",
            ["breaker: 5", "endpoint_breaker: 2"],
        ),
        ("outlier = {}", ["outlier: 5 failures in a row of one endpoint"]),
        ('breaker = { failure_rate = 0.5, mode = "observe" }', ["breaker: 5"]),
        ("breaker = { failure_rate = 0.5 }", None),
        ("breaker = {}\nendpoint_breaker = { failure_rate = 0.5 }", None),
        ("outlier = { failure_percentage = 30 }", None),
        ("breaker = {}\noutlier = { success_rate = true }", None),
    ],
)
def test_it_says_where_nothing_trips_on_a_part_of_the_calls(
    tmp_path: Path, policies: str, counts: list[str] | None
) -> None:
    report = inspect(write(tmp_path / "mesh.toml", TRIPS + policies + "\n"))
    assert report.fine
    found = [item for item in report.findings if item.id == "breaker.share"]
    assert len(found) == (counts is not None)
    for item in found:
        assert item.summary.startswith("services.a: nothing trips")
        assert all(line.startswith(count) for line, count in zip(item.evidence, counts or (), strict=True))


def test_a_finding_says_where_and_what_to_do(tmp_path: Path) -> None:
    text = RETRY.format('attempts = 2, on = ["5xx"]') + (
        '[[services.a.routes]]\nmatch = { prefix = "/b" }\nretry = { attempts = 2, on = ["reset"] }\n'
    )
    report = inspect(write(tmp_path / "mesh.toml", text))
    told = report.to_dict()["findings"]
    assert [set(item) for item in told] == [{"id", "severity", "summary", "remedy", "evidence"}] * 2  # type: ignore[attr-defined]
    assert {(item.id, item.severity) for item in report.findings} == {("retry.post", "info")}
    first, second = report.findings
    assert first.summary.startswith("services.a.retry: ")
    assert first.remedy.startswith('services.a.retry.methods = ["GET"')
    assert second.summary.startswith("services.a.routes[0].retry: ")


def test_a_post_that_a_file_of_envoys_retries_is_worth_knowing(tmp_path: Path) -> None:
    def listener(name: str, **fields: Any) -> dict[str, Any]:
        host = build.virtual_host("all", build.route(cluster="c", name="r", **fields))
        return build.listener(name, build.route_config(name, host))

    listeners = [
        listener("unsafe", retry={"retry_on": "5xx,connect-failure", "num_retries": 2}),
        listener("safe", retry={"retry_on": "connect-failure,refused-stream"}),
        listener("none"),
    ]
    path = write(
        tmp_path / "envoy.json", {"listeners": listeners, "clusters": [build.cluster("c", ["127.0.0.1:1"])]}
    )
    report = inspect(path)
    assert not report.problems
    (found,) = report.findings
    assert found.summary.startswith("listener unsafe, virtual host all, route r: a POST ")
    assert found.evidence == ("retried on 5xx",)
    named = inspect(write(tmp_path / "mesh.toml", 'services_file = "envoy.json"\n'))
    assert named.findings == report.findings


def test_a_directory_of_the_control_plane(tmp_path: Path) -> None:
    files = EnvoyDir(tmp_path / "xds")
    path = write(tmp_path / "mesh.toml", f'[xds]\nprotocol = "files"\npath = "{files.folder}"\n')
    assert [line.partition(": has none")[0] for line in inspect(path).problems] == [
        f"xds.path: {files.folder}",
        f"xds.path: {files.folder}",
    ]
    files.folder.mkdir()
    files.fill("127.0.0.1:9")
    assert inspect(path).fine
    files.put("cds", {**files.eds("c1"), "lb_policy": "CLUSTER_PROVIDED", "alt_stat_name": "x"})
    files.path("rds").unlink()
    report = inspect(path)
    assert [line for line in report.problems if "cluster c1: lb_policy" in line]
    assert [line for line in report.problems if f"{files.path('rds')}: cannot be read" in line]
    assert len(report.problems) == 2


@pytest.mark.parametrize(
    ("node", "summary"),
    [
        ('zone = "z1"\nregion = "r"', None),
        ('zone = "z1"', "no endpoint is in z1, where we are"),
        ('id = "me"', "our zone is not known"),
    ],
)
def test_it_says_where_zone_aware_routing_does_nothing(
    tmp_path: Path, node: str, summary: str | None
) -> None:
    text = (
        f"[node]\n{node}\n[services.a]\nzone_aware = {{}}\n"
        'endpoints = [{ address = "10.0.0.1:80", zone = "z1", region = "r" }]\n'
    )
    found = [
        item for item in inspect(write(tmp_path / "mesh.toml", text)).findings if item.id == "zones.nobody"
    ]
    assert [item.summary for item in found] == (
        [f"services.a.zone_aware: {summary}: zones do not matter"] if summary else []
    )
    assert all(item.evidence == ("endpoints in r/z1",) for item in found)
