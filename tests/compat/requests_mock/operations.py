"""A host that the mesh knows: requests-mock is in charge of it, and what it lets through reaches it."""

from __future__ import annotations

import pytest
import requests
import requests_mock


def test_what_is_mocked_does_not_reach_the_server(httpbin):
    with requests_mock.Mocker() as mocker:
        mocker.get(httpbin.url + "/status/500", text="mocked")
        with requests.Session() as session:
            assert session.get(httpbin.url + "/status/500").text == "mocked"
            with pytest.raises(requests_mock.NoMockAddress):
                session.get(httpbin.url + "/get")
        assert requests.get(httpbin.url + "/status/500", timeout=5).text == "mocked"
    assert mocker.call_count == 3


def test_what_is_let_through_reaches_it(httpbin):
    with requests_mock.Mocker(real_http=True) as mocker, requests.Session() as session:
        mocker.get(httpbin.url + "/status/500", text="mocked")
        for number in range(5):
            said = session.post(httpbin.url + "/post", data={"n": number}).json()
            assert said["form"] == {"n": str(number)}
            assert session.get(httpbin.url + "/status/500").text == "mocked"
    assert mocker.call_count == 10


def test_afterwards_all_is_as_it_was(httpbin):
    with requests.Session() as session:
        with requests_mock.Mocker() as mocker:
            mocker.get(httpbin.url + "/get", text="mocked")
            assert session.get(httpbin.url + "/get").text == "mocked"
        assert session.get(httpbin.url + "/get?a=b").json()["args"] == {"a": "b"}


def test_an_adapter_of_its_own(httpbin):
    adapter = requests_mock.Adapter()
    adapter.register_uri("GET", "/get", text="mocked")
    with requests.Session() as session:
        session.mount(httpbin.url + "/get", adapter)
        assert session.get(httpbin.url + "/get").text == "mocked"
        assert session.get(httpbin.url + "/headers").json()["headers"]["Host"].endswith(str(httpbin.port))
