"""Of which session a call is, and what its answer tells of it (SS-01; what Envoy does was measured with 1.40)."""

from __future__ import annotations

from base64 import b64decode, b64encode
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.core.endpoint import LiveEndpoint
from meshlib.core.override import Override
from meshlib.core.sessions import Held, hold
from meshlib.model.address import Address
from meshlib.model.call import Head, Outcome, OutcomeKind
from meshlib.model.endpoint import Endpoint, Locality
from meshlib.model.headers import Headers
from meshlib.model.listener import FilterKind, HttpFilter, Listener
from meshlib.model.route import ClusterWeight, FilterSwitch, Forward
from meshlib.model.session import Session, SessionKind
from meshlib.runtime.sessions import Sessions

NAME = "envoy.filters.http.stateful_session"
COOKIE = Session(SessionKind.COOKIE, "sid")
HEADER = Session(SessionKind.HEADER, "x-s")
ENVELOPE = Session(SessionKind.ENVELOPE, "x-s")
MEMORY = Session(SessionKind.MEMORY, "x-s", 60.0, strict=True, status=404)
WALL = 1_000_000.0
#: What Envoy 1.40 set for 127.0.0.1:44245 with a ttl of 120 s, at 1795992640.17; and without a ttl.
OF_ENVOY = "Cg8xMjcuMC4wLjE6NDQyNDUQuNmy2AY="
WITHOUT_TTL = "Cg8xMjcuMC4wLjE6NDQyNDU="


def at(text: str = "10.0.0.1:80", *more: str) -> LiveEndpoint:
    others = tuple(map(Address.parse, more))
    endpoint = Endpoint(Address.parse(text), additional_addresses=others)
    return LiveEndpoint(endpoint, priority=0, locality=Locality())


def head(path: str = "/", **headers: str) -> Head:
    lines = ((name.replace("_", "-"), value) for name, value in headers.items())
    return Head("GET", "http", "tools", path, Headers.of(*lines))


def held(
    session: Session, request: Head | None = None, *, wall: float = WALL, memory: Sessions | None = None, grpc: bool = False,
    api: bool = False, now: float = 0.0,
) -> Held | None:  # fmt: skip
    filters = (HttpFilter(NAME, FilterKind.SESSION, session=session),)
    resolution = SimpleNamespace(sessions=filters, listener=Listener("l", api=api))
    env = SimpleNamespace(sessions=memory, wall=lambda: wall)
    return hold(resolution, place(), None, request or head(), env, now, grpc=grpc)  # type: ignore[arg-type]


def place(route=(), host=(), config=(), action=None) -> SimpleNamespace:
    action = action or Forward(cluster="c")
    return SimpleNamespace(
        route=SimpleNamespace(filters=route, action=action),
        virtual_host=SimpleNamespace(filters=host),
        config=SimpleNamespace(filters=config),
    )


def names(session: Held | None, number: int = 1) -> tuple[str, ...]:
    override = session.override(number) if session is not None else None
    return () if override is None else override.names


def lines(session: Held | None, endpoint: LiveEndpoint, *answer: tuple[str, str], cluster: str = "c") -> list[tuple[str, str]]:  # fmt: skip
    assert session is not None
    before = Headers.of(*answer)
    edited = session.edited(before, endpoint, cluster)
    assert list(before) == list(answer)
    return list(answer if edited is None else edited)


def test_a_cookie_is_envoys() -> None:
    """SS-01: byte for byte."""
    begun = held(Session(SessionKind.COOKIE, "sid", 120.0, "/a", (("SameSite", "Lax"),)), head("/a/b"), wall=1795992640.17)  # fmt: skip
    cookie = f'sid="{OF_ENVOY}"; Max-Age=120; Path=/a; SameSite=Lax; HttpOnly'
    assert lines(begun, at("127.0.0.1:44245")) == [("set-cookie", cookie)]
    assert lines(held(COOKIE), at("127.0.0.1:44245")) == [("set-cookie", f'sid="{WITHOUT_TTL}"; HttpOnly')]


@pytest.mark.parametrize(
    ("value", "wall", "found"),
    [
        (OF_ENVOY, 1795992759.0, ("127.0.0.1:44245",)),
        (f'"{OF_ENVOY}"', 1795992759.0, ("127.0.0.1:44245",)),
        (OF_ENVOY, 1795992761.0, ()),
        (WITHOUT_TTL, 9e9, ("127.0.0.1:44245",)),
        (b64encode(b"10.0.0.1:80").decode(), WALL, ("10.0.0.1:80",)),
        (b64encode(b"10.0.0.1:80,10.1.0.1:80;c").decode(), WALL, ("10.0.0.1:80", "10.1.0.1:80")),
        ("", WALL, ()),
        ("!!!", WALL, ()),
        ("CgD/", WALL, ()),
        (OF_ENVOY[:-4], WALL, ()),
        (b64encode(b"\n\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01").decode(), WALL, ()),
        (b64encode(b"\x0a\x03a\r\n").decode(), WALL, ()),
        ("A" * 8192, WALL, ()),
    ],
)  # fmt: skip
def test_what_a_cookie_says(value: str, wall: float, found: tuple[str, ...]) -> None:
    assert names(held(COOKIE, head(cookie=f"a=b; sid={value}; c=d"), wall=wall)) == found


def test_the_cookie_is_set_only_where_it_is_another_endpoint() -> None:
    """SS-01."""
    request = head(cookie=f"sid={WITHOUT_TTL}")
    assert lines(held(COOKIE, request), at("127.0.0.1:44245")) == []
    assert [name for name, _ in lines(held(COOKIE, request), at("127.0.0.1:1"))] == ["set-cookie"]


@pytest.mark.parametrize(
    ("path", "asked", "is_for"),
    [
        ("", "/x", True), ("/", "/x", True), ("/foo", "/foo", True), ("/foo", "/foo/bar", True), ("/foo", "/foo?q", True),
        ("/foo", "/foobar", False), ("/foo/", "/foo/bar", True), ("/foo/", "/foo", False), ("/foo", "/", False),
    ],
)  # fmt: skip
def test_a_cookie_is_for_its_paths(path: str, asked: str, is_for: bool) -> None:
    """SS-01: RFC 6265, 5.1.4."""
    found = held(Session(SessionKind.COOKIE, "sid", path=path), head(asked, cookie=f"sid={WITHOUT_TTL}"))
    assert (found is not None) is is_for


def test_of_a_grpc_target_it_is_grpcs_with_all_addresses_and_the_cluster() -> None:
    """SS-01: A60, A61."""
    begun = held(COOKIE, grpc=True, api=True)
    [(name, value)] = lines(begun, at("10.0.0.1:80", "10.1.0.1:80"))
    assert (name, b64decode(value[4:].partition(";")[0])) == ("set-cookie", b"10.0.0.1:80,10.1.0.1:80;c")
    said = head(cookie=value.partition(";")[0])
    again = held(COOKIE, said, grpc=True, api=True)
    assert names(again) == ("10.0.0.1:80", "10.1.0.1:80")
    assert lines(again, at("10.0.0.1:80", "10.1.0.1:80")) == []
    assert lines(again, at("10.0.0.1:80"), cluster="other"), "another cluster is told, too"


def test_a_header_names_the_endpoint() -> None:
    text = b64encode(b"10.0.0.1:80").decode()
    assert names(held(HEADER, head(x_s=text))) == ("10.0.0.1:80",)
    assert lines(held(HEADER, head(x_s=text)), at()) == []
    assert lines(held(HEADER), at(), ("x-s", "the server's")) == [("x-s", text)]


def test_an_envelope_has_the_servers_value_inside() -> None:
    wrapped = f"{b64encode(b'10.0.0.1:80').decode()};UV:{b64encode(b'abc').decode()}"
    assert lines(held(ENVELOPE), at(), ("x-s", "abc")) == [("x-s", wrapped)]
    assert lines(held(ENVELOPE), at()) == []
    assert lines(held(ENVELOPE), at(), ("x-s", "a"), ("x-s", "b")) == [("x-s", "a"), ("x-s", "b")]
    request = head(x_s=wrapped)
    opened = held(ENVELOPE, request)
    assert opened is not None
    assert names(opened) == ("10.0.0.1:80",)
    assert opened.head.headers.get("x-s") == "abc"
    assert request.headers.get("x-s") == wrapped


@pytest.mark.parametrize(
    "said", ["abc", "MTAuMC4wLjE6ODA=", "MTAuMC4wLjE6ODA=;UV:", "MTAuMC4wLjE6ODA=;UV:DQo=", ";;"]
)
def test_what_is_no_envelope_goes_on_as_it_is(said: str) -> None:
    opened = held(ENVELOPE, head(x_s=said))
    assert opened is not None
    assert names(opened) == ()
    assert opened.head.headers.get("x-s") == said


def test_of_a_value_that_the_server_chose_it_is_remembered_whose_it_is() -> None:
    memory = Sessions()
    begun = held(MEMORY, memory=memory)
    assert begun is not None
    begun.learn(_answer(200, x_s="abc"), at(), "c", 0.0)
    assert names(held(MEMORY, head(x_s="abc"), memory=memory, now=59.0)) == ("10.0.0.1:80",)
    assert names(held(MEMORY, head(x_s="abd"), memory=memory, now=59.0)) == ()
    assert names(held(MEMORY, head(x_s="abc"), memory=memory, now=118.0)) == ("10.0.0.1:80",), (
        "each call counts"
    )
    assert names(held(MEMORY, head(x_s="abc"), memory=memory, now=179.0)) == ()


@pytest.mark.parametrize(
    ("status", "kept"), [(200, True), (202, True), (304, True), (400, False), (404, False), (503, False)]
)
def test_an_error_tells_of_no_session(status: int, kept: bool) -> None:
    memory = Sessions()
    asked = held(MEMORY, head(x_s="abc"), memory=memory)
    assert asked is not None
    asked.learn(_answer(status), at(), "c", 0.0)
    assert bool(names(held(MEMORY, head(x_s="abc"), memory=memory))) is kept


def test_a_session_stays_in_its_share() -> None:
    """A60."""
    shares = (ClusterWeight("v1", 9), ClusterWeight("v2", 1), ClusterWeight("v3", 0))
    match = place(action=Forward(weighted=shares))
    memory = Sessions()
    for cluster, found in (("v2", shares[1]), ("v3", shares[0]), ("gone", shares[0])):
        memory.keep("l", "abc", (cluster, "10.0.0.1:80"), 0.0, 60.0)
        session = held(MEMORY, head(x_s="abc"), memory=memory)
        assert session is not None
        assert session.place(match, "v1", shares[0]) == (found.cluster, found)  # type: ignore[arg-type]
        assert bool(names(session)) is (cluster == "v2"), "an address is of its own cluster only"


def test_which_attempts_go_by_it() -> None:
    loose, strict = (held(Session(SessionKind.HEADER, "x-s", strict=strict), head(x_s="MTAuMC4wLjE6ODA=")) for strict in (False, True))  # fmt: skip
    assert [bool(names(loose, number)) for number in (1, 2)] == [True, False]
    assert [bool(names(strict, number)) for number in (1, 2)] == [True, True]
    of_grpc = held(HEADER, head(x_s="MTAuMC4wLjE6ODA="), grpc=True)
    assert [bool(names(of_grpc, number)) for number in (1, 2)] == [True, True]


@pytest.mark.parametrize(
    ("filters", "where", "found"),
    [
        ((HttpFilter(NAME, FilterKind.SESSION, session=COOKIE),), {}, "sid"),
        ((HttpFilter(NAME, FilterKind.SESSION, True, session=COOKIE),), {}, None),
        ((HttpFilter(NAME, FilterKind.SESSION, True, session=COOKIE),), {"route": (FilterSwitch(NAME, True, plain=True),)}, "sid"),
        ((HttpFilter(NAME, FilterKind.SESSION, session=COOKIE),), {"route": (FilterSwitch(NAME, False),)}, None),
        ((HttpFilter(NAME, FilterKind.SESSION, session=COOKIE),), {"host": (FilterSwitch(NAME, False),), "route": (FilterSwitch(NAME, True, session=HEADER),)}, "x-s"),
        ((HttpFilter(NAME, FilterKind.SESSION),), {}, None),
        ((HttpFilter("one", FilterKind.SESSION, session=COOKIE), HttpFilter("two", FilterKind.SESSION, session=HEADER)), {}, "x-s"),
    ],
)  # fmt: skip
def test_which_session_is_in_force(filters, where, found) -> None:
    resolution = SimpleNamespace(sessions=filters, listener=None)
    env = SimpleNamespace(sessions=None, wall=lambda: WALL)
    session = hold(resolution, place(**where), None, head(), env, 0.0, grpc=False)  # type: ignore[arg-type]
    assert (session and session.session.name) == found


@given(
    st.text(alphabet=st.characters(max_codepoint=255)), st.sampled_from([COOKIE, HEADER, ENVELOPE, MEMORY])
)
def test_nothing_that_a_call_says_breaks_it(said: str, session: Session) -> None:
    value = "".join(each for each in said if each.isprintable())
    found = held(session, head(cookie=f"sid={value}", x_s=value), memory=Sessions())
    assert found is not None
    override = found.override(1)
    assert override is None or isinstance(override, Override)
    lines(found, at(), ("x-s", "abc"))


@given(st.binary(max_size=64))
def test_nothing_that_is_in_a_cookie_breaks_it(data: bytes) -> None:
    value = b64encode(data).decode()
    for name in names(held(COOKIE, head(cookie=f"sid={value}"))):
        assert name
        assert name.isascii()
        assert name.isprintable()


def _answer(status: int, **headers: str) -> Outcome:
    lines = ((name.replace("_", "-"), value) for name, value in headers.items())
    return Outcome(OutcomeKind.OK, status, Headers.of(*lines), True)
