"""tenacity's objects on the retries of gRPC calls, of every kind, over real servers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
import tenacity

import meshlib
from tests.support.grpc_channels import FACES, Channel, Channels, service

Code = grpc.StatusCode
CALLS: dict[str, Callable[[Channel], Any]] = {
    "unary": lambda here: here.call(timeout=20.0)[1],
    "server stream": lambda here: here.server_stream(timeout=20.0),
    "client stream": lambda here: here.client_stream([b"a", b"b"], timeout=20.0),
}


@pytest.fixture(params=FACES)
def channels(request: pytest.FixtureRequest) -> Iterator[Channels]:
    with Channels(request.param) as made:
        yield made


@pytest.mark.parametrize("kind", CALLS)
def test_retry_stop_and_wait_are_asked(channels: Channels, meshlib_grpc_upstream: Any, kind: str) -> None:
    """A status is the library's own error, whose code and trailing metadata the strategy sees."""
    one = meshlib_grpc_upstream("v1")
    seen: list[Any] = []

    def is_missing(error: BaseException) -> bool:
        seen.append(error)
        return isinstance(error, grpc.RpcError) and error.code() is Code.NOT_FOUND

    strategies = {
        "retry": tenacity.retry_if_exception(is_missing),
        "wait": tenacity.wait_fixed(0.01),
        "stop": tenacity.stop_after_attempt(3),
    }
    here = channels.make(service(one, retry={"attempts": 5, **strategies}))
    one.order(code=Code.NOT_FOUND, trailers=(("why", "gone"),))
    with pytest.raises(grpc.RpcError) as caught:
        CALLS[kind](here)
    assert caught.value.code() is Code.NOT_FOUND
    info = meshlib.call_info(caught.value)
    assert info is not None
    assert (len(info.attempts), one.requests_total) == (3, 3)
    assert any("retry.stop says so" in line for line in info.trace())
    assert all(("why", "gone") in list(error.trailing_metadata()) for error in seen)
    one.behave()
    one.fail(Code.NOT_FOUND, times=2)
    assert CALLS[kind](here)
    one.behave()
    one.fail(Code.UNAVAILABLE)
    with pytest.raises(grpc.RpcError) as caught:
        CALLS[kind](here)
    info = meshlib.call_info(caught.value)
    assert info is not None
    assert len(info.attempts) == 1, "`retry` takes the place of `on`"


def test_futures_are_retried_by_them_too(meshlib_grpc_upstream: Any) -> None:
    one = meshlib_grpc_upstream("v1")
    with Channels("sync") as channels:
        strategies = {"retry": tenacity.retry_if_exception_type(grpc.RpcError), "wait": tenacity.wait_none()}
        here = channels.make(service(one, retry={"attempts": 3, **strategies}))
        one.fail(Code.DATA_LOSS, times=2)
        call = here.begun(timeout=20.0)
        assert call.result(20.0)
        info = meshlib.call_info(call)
        assert info is not None
        assert len(info.attempts) == 3
