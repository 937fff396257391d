"""What variables tell, and what they may not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.model.address import Address
from meshlib.sidecar.environment import named, relevant

KATO = {"TENANT_ID": "t", "SERVICE_ID": "s", "SERVICE_NAME": "me", "DEPEND_SERVICE": "db:1,web:2"}


def upstreams(environ):
    (told,) = named(environ)
    return {name: str(address) for name, address in told.upstreams.items()}


class TestConsul:
    @pytest.mark.parametrize(
        ("host", "port", "address"),
        [
            ("127.0.0.1", "1234", "127.0.0.1:1234"),
            ("127.1.2.3", "1", "127.1.2.3:1"),
            ("::1", "65535", "[::1]:65535"),
            ("localhost", "1234", "127.0.0.1:1234"),
        ],
    )
    def test_an_upstream_on_loopback(self, host, port, address):
        environ = {"MY_API_CONNECT_SERVICE_HOST": host, "MY_API_CONNECT_SERVICE_PORT": port}
        assert upstreams(environ) == {"my-api": address}

    @pytest.mark.parametrize(
        ("host", "port"),
        [
            ("10.0.0.1", "1234"),
            ("reviews.example", "1234"),
            ("0.0.0.0", "1234"),
            ("127.0.0.1.example", "1234"),
            ("127.1", "1234"),
            ("", "1234"),
            ("127.0.0.1", ""),
            ("127.0.0.1", "0"),
            ("127.0.0.1", "65536"),
            ("127.0.0.1", "12 34"),
            ("127.0.0.1", "9" * 5000),
        ],
    )
    def test_anything_else_is_ignored_and_told(self, host, port):
        environ = {"A_CONNECT_SERVICE_HOST": host, "A_CONNECT_SERVICE_PORT": port}
        (told,) = named(environ)
        assert told.upstreams == {}
        assert told.addresses == ()
        assert "ignored" in told.lines[0]
        assert len(told.lines[0]) < 300

    def test_a_port_alone_and_a_name_alone_are_nothing(self):
        assert named({"A_CONNECT_SERVICE_PORT": "1"}) == ()
        assert named({"_CONNECT_SERVICE_HOST": "127.0.0.1", "_CONNECT_SERVICE_PORT": "1"}) == ()


class TestKato:
    def test_the_ports_of_a_dependency(self):
        environ = {
            **KATO,
            "DB5432_HOST": "127.0.0.1",
            "DB5432_PORT": "5432",
            "DB9187_HOST": "127.0.0.1",
            "DB9187_PORT": "9188",
        }
        assert upstreams(environ) == {
            "db": "127.0.0.1:5432",
            "db:5432": "127.0.0.1:5432",
            "db:9187": "127.0.0.1:9188",
        }

    def test_native_mode_has_no_sidecar(self):
        environ = {**KATO, "DB5432_HOST": "db-5432", "DB5432_PORT": "5432"}
        assert named(environ) == ()

    @pytest.mark.parametrize("missing", [*KATO])
    def test_each_of_its_marks_is_needed(self, missing):
        environ = {**KATO, "DB5432_HOST": "127.0.0.1", "DB5432_PORT": "5432"}
        del environ[missing]
        assert named(environ) == ()

    def test_rainbonds_spelling(self):
        environ = {"_DEPEND_SERVICE": "db:1", "DB5432_HOST": "127.0.0.1", "DB5432_PORT": "5432"}
        assert upstreams(environ) == {"db": "127.0.0.1:5432", "db:5432": "127.0.0.1:5432"}

    def test_an_application_of_its_own_with_such_variables_is_none(self):
        assert named({"REDIS_HOST": "127.0.0.1", "REDIS_PORT": "6379"}) == ()


class TestDapr:
    def test_one_port_is_enough(self):
        (told,) = named({"DAPR_GRPC_PORT": "50005"})
        assert (told.address, told.grpc) == (Address("127.0.0.1", 3500), Address("127.0.0.1", 50005))

    def test_no_port_is_told(self):
        (told,) = named({"DAPR_HTTP_PORT": "http\n"})
        assert told.addresses == ()
        assert told.lines == ("DAPR_HTTP_PORT=http\\n: no port, ignored",)


class TestRelevant:
    def test_no_token_is_kept(self):
        environ = {"DAPR_HTTP_PORT": "3500", "DAPR_API_TOKEN": "secret", "AWS_SECRET": "secret", "HOME": "/a"}
        assert relevant(environ) == {"DAPR_HTTP_PORT": "3500"}

    def test_hosts_and_ports_of_anybody_are_katos_only(self):
        environ = {"REDIS_HOST": "127.0.0.1", "REDIS_PORT": "6379"}
        assert relevant(environ) == {}
        assert relevant({**KATO, **environ}) == {**KATO, **environ}

    def test_an_environment_without_end(self):
        environ = {f"A{number}_CONNECT_SERVICE_HOST": "127.0.0.1" for number in range(5000)}
        environ |= {f"A{number}_CONNECT_SERVICE_PORT": "1" for number in range(5000)}
        (told,) = named(environ)
        assert len(told.upstreams) == 1000

    def test_and_one_of_which_nothing_can_be_used(self):
        environ = {f"A{number}_CONNECT_SERVICE_HOST": "10.0.0.1" for number in range(5000)}
        (told,) = named(environ)
        assert len(told.lines) == 1000

    @given(st.dictionaries(st.text(min_size=1, max_size=20), st.text(max_size=20)))
    def test_anything_may_stand_in_it(self, environ):
        environ = {
            **environ,
            "_DEPEND_SERVICE": "".join(environ.values()) or "a",
            **{f"{name}_CONNECT_SERVICE_HOST": text for name, text in environ.items()},
        }
        for told in named(environ):
            assert all(address.is_ip for address in told.upstreams.values())
