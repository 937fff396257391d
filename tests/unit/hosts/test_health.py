"""What a gRPC server says of its health: our few lines of protobuf against the real thing, and whatever bytes come."""

from grpc_health.v1 import health_pb2
from hypothesis import given
from hypothesis import strategies as st

from meshlib.hosts.health.flows import _grpc_answer, _grpc_request, _serving_status

HEAD = {"content-type": "application/grpc", "grpc-status": "0"}


def framed(message: bytes) -> bytes:
    return b"\0" + len(message).to_bytes(4, "big") + message


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_the_request_is_grpcs(name):
    made = _grpc_request(name)
    assert made == framed(health_pb2.HealthCheckRequest(service=name).SerializeToString())


@given(st.integers(0, 3), st.binary(max_size=20))
def test_a_status_is_read_whatever_stands_beside_it(status, beside):
    message = health_pb2.HealthCheckResponse(status=status).SerializeToString()
    other = b"\x7a" + bytes([len(beside)]) + beside  # field 15
    assert _serving_status(framed(other + message)) == status
    answer = _grpc_answer(200, HEAD, framed(message + other))
    assert answer.good == (status == health_pb2.HealthCheckResponse.SERVING)


@given(st.binary(max_size=64))
def test_any_bytes_are_a_status_or_none(data):
    for body in (data, framed(data)):
        found = _serving_status(body)
        assert found is None or 0 <= found < 1 << 70
        assert _grpc_answer(200, HEAD, body).good == (found == 1)


def test_answers_that_are_not_good():
    good = framed(b"\x08\x01")
    assert _grpc_answer(200, HEAD, good).good
    for status, headers, body in (
        (503, HEAD, good),
        (200, {**HEAD, "content-type": "text/html"}, good),
        (200, {**HEAD, "content-type": "application/grpc-web"}, good),
        (200, {**HEAD, "grpc-status": "12"}, good),
        (200, {"content-type": "application/grpc"}, good),
        (200, HEAD, b""),
        (200, HEAD, b"\1" + good[1:]),
        (200, HEAD, good + good),
        (200, HEAD, framed(b"\x08\x02")),
        (200, HEAD, framed(b"")),
    ):
        answer = _grpc_answer(status, headers, body)
        assert not answer.good, (status, headers, body)
        assert not answer.counted  # an answer that is wrong counts at once
