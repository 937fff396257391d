"""The server's side of HTTP/1.1, on a pair of sockets."""

import socket
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.testing.http_connection import BadRequest, Connection, Gone


@pytest.fixture
def pair():
    listener = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(listener.getsockname())
    server, _ = listener.accept()
    connection = Connection(server, 1)
    with listener, client:
        yield client, connection
    connection.close()


def head_of(data):
    """What a connection reads from these bytes and an end."""
    listener = socket.create_server(("127.0.0.1", 0))
    with listener, socket.create_connection(listener.getsockname()) as client:
        connection = Connection(listener.accept()[0], 1)
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        try:
            head = connection.read_head()
            return head, b"".join(connection.read_body(head)) if head else b""
        finally:
            connection.close()


def test_heads_and_bodies_one_after_another(pair):
    client, connection = pair
    client.sendall(
        b"POST /a?b HTTP/1.1\r\nHost: h\r\nX-A:  b \r\nX-A: c\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\n\r\n"
    )
    head = connection.read_head()
    assert (head.method, head.path, head.version) == ("POST", "/a?b", "HTTP/1.1")
    assert head.headers == (("Host", "h"), ("X-A", "b"), ("X-A", "c"), ("Content-Length", "3"))
    assert head.get("x-a") == "b"
    assert b"".join(connection.read_body(head)) == b"abc"
    assert connection.read_head().method == "GET"


def test_chunks_with_extensions_and_trailers():
    chunked = b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\nA\r\n0123456789\r\n0\r\nT: v\r\n\r\n"
    assert head_of(chunked)[1] == b"hello0123456789"


def test_a_client_that_waits_is_told_to_go_on(pair):
    client, connection = pair
    client.sendall(b"PUT / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n")
    body = connection.read_body(connection.read_head())
    assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.sendall(b"x")
    assert list(body) == [b"x"]


@pytest.mark.parametrize(
    ("version", "header", "keeps"),
    [
        ("1.1", "", True),
        ("1.1", "Connection: Close\r\n", False),
        ("1.0", "", False),
        ("1.0", "Connection: keep-alive\r\n", True),
    ],
)
def test_keep_alive(version, header, keeps):
    assert head_of(f"GET / HTTP/{version}\r\n{header}\r\n".encode())[0].keeps_alive is keeps


@pytest.mark.parametrize(
    "data",
    [
        b"GET /\r\n\r\n",
        b"GET / HTTP/2\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\n: empty\r\n\r\n",
        b"GET / HTTP/1.1\r\nspace : x\r\n\r\n",
        b"PUT / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n",
        b"x" * 70_000,
    ],
)
def test_what_is_no_request(data):
    with pytest.raises(BadRequest):
        head_of(data)


@given(
    st.binary(max_size=120)
    | st.binary(max_size=60).map(lambda tail: b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + tail)
)
def test_any_bytes_are_a_request_or_a_clear_refusal(data):
    try:
        head, _ = head_of(data)
    except (BadRequest, Gone):
        return
    assert head is None or head.version.startswith("HTTP/1.")


def test_a_client_that_leaves_in_the_middle():
    with pytest.raises(Gone, match="middle of a request"):
        head_of(b"PUT / HTTP/1.1\r\nContent-Length: 10\r\n\r\nabc")


def test_a_pause_ends_in_time_or_by_a_wake(pair):
    _, connection = pair
    connection.pause(0.001)
    woken = threading.Event()
    thread = threading.Thread(target=lambda: connection.pause_until(woken.is_set))
    thread.start()
    woken.set()
    connection.wake()
    thread.join(5)
    assert not thread.is_alive()


def test_a_pause_ends_when_the_client_leaves(pair):
    client, connection = pair
    client.close()
    with pytest.raises(Gone, match="left while"):
        connection.pause(30)


def test_a_pause_outlasts_a_further_request(pair):
    client, connection = pair
    client.sendall(b"GET")
    connection.pause(0.01)
    assert connection._more()


@pytest.mark.parametrize("end", [Connection.cut, Connection.leave])
def test_ending_from_another_thread(pair, end):
    _, connection = pair
    gone = []

    def wait():
        try:
            connection.pause(30)
        except Gone as error:
            gone.append(str(error))

    thread = threading.Thread(target=wait)
    thread.start()
    end(connection)
    thread.join(5)
    assert len(gone) == 1
    with pytest.raises(Gone, match="being stopped"):
        connection.pause(30)


def test_cut_resets_and_leave_closes(pair):
    client, connection = pair
    connection.cut()
    connection.close()
    with pytest.raises(ConnectionResetError):
        client.recv(1)
