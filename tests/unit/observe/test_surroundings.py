"""What a process tells of its environment and of other libraries in it. Those that are at work are in tests/e2e/test_doctor.py."""

from __future__ import annotations

import json
import os
import sys
from types import ModuleType

import pytest

from meshlib.observe.surroundings import ProcessFacts, of_process


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("MESHLIB_", "GRPC_", "OTEL_")) or name.lower().endswith(("_proxy", "_base_url")):
            monkeypatch.delenv(name)


def facts(*, retried: bool = False) -> ProcessFacts:
    found = of_process(late=False, retried=retried)
    assert json.loads(json.dumps(found)) == found
    return found


def test_an_environment_without_anything() -> None:
    found = facts()
    assert (found["strangers"], found["proxies"], found["no_proxy"], found["fork_support"]) == (
        [],
        {},
        "",
        "",
    )
    assert (found["exports"], found["retriers"], found["late"], found["threadless"]) == ("", [], False, False)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://127.0.0.1:3128", "http://127.0.0.1:3128"),
        ("http://user:secret@127.0.0.1:3128", "http://127.0.0.1:3128"),
        ("http://user:sec@ret@127.0.0.1:3128", "http://127.0.0.1:3128"),
        ("user:secret@127.0.0.1:3128", "127.0.0.1:3128"),
    ],
)
def test_a_proxy_is_told_without_credentials(monkeypatch: pytest.MonkeyPatch, url: str, told: str) -> None:
    monkeypatch.setenv("HTTP_PROXY", url)
    monkeypatch.setenv("NO_PROXY", "reviews")
    found = facts()
    assert (found["proxies"], found["no_proxy"]) == ({"http": told}, "reviews")
    monkeypatch.setenv("REQUEST_METHOD", "GET")  # a CGI script, whose HTTP_PROXY is a header of its client's
    assert facts()["proxies"] == {}


@pytest.mark.parametrize(
    ("value", "told"), [("0", "0"), ("false", "false"), ("1", ""), ("maybe", ""), ("", "")]
)
def test_grpcs_support_for_forks(monkeypatch: pytest.MonkeyPatch, value: str, told: str) -> None:
    monkeypatch.setenv("GRPC_ENABLE_FORK_SUPPORT", value)
    assert facts()["fork_support"] == told


@pytest.mark.parametrize(("value", "told"), [("otlp", "OTEL_TRACES_EXPORTER"), ("none", ""), ("", "")])
def test_where_telemetry_is_to_go(monkeypatch: pytest.MonkeyPatch, value: str, told: str) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", value)
    assert facts()["exports"] == told


def test_what_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not {"yaml", "h2"} & set(facts()["lacking"])
    monkeypatch.setitem(sys.modules, "h2", None)  # type: ignore[arg-type]
    assert "h2" in facts()["lacking"]


class Client:
    def __init__(self, url: object, retries: object) -> None:
        self.base_url = url
        self.max_retries = retries


class Special(Client):
    """As openai's own for Azure."""


def test_clients_are_counted_by_what_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("openai")
    module.OpenAI, module.AsyncOpenAI = Client, None  # type: ignore[attr-defined]
    for name in ("anthropic", "requests.sessions", "tenacity"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "openai", module)
    kept = [
        Client("http://user:secret@llm:80/v1?key=secret", 2),
        Special("http://llm:80/", 2),
        Client("http://[::1]:8080/v1", 1),
        Client("http://llm/", 0),
        Client("http://llm/", None),
        Client("no url", 3),
        Client("http://llm:99999999/", 3),
    ]
    assert facts()["retriers"] == []  # the mesh tries nothing again
    found = [(one["url"], one["retries"], one["count"]) for one in facts(retried=True)["retriers"]]
    assert found == [("", 3, 2), ("http://[::1]:8080", 1, 1), ("http://llm:80", 2, 2)]
    assert "secret" not in str(found)
    del kept


def test_a_variable_speaks_for_a_client_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("openai", "anthropic", "requests.sessions", "tenacity"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://llm:8000/v1")
    found = facts(retried=True)["retriers"]
    assert found == [{"library": "openai", "url": "http://llm:8000", "retries": 2, "count": 1}]
    monkeypatch.setitem(sys.modules, "openai", ModuleType("openai"))
    assert facts(retried=True)["retriers"] == []  # it would say so itself
