"""One message there and one back, for a caller that blocks: over grpc's core, past its layer of Python.

That layer makes a condition, a set and a future's state for each RPC, also for one that nobody but the calling thread ever sees;
it is a quarter of what such an RPC costs its process (docs/benchmarks.md). What it gives is the same: the bytes, and where the
status is not OK grpc's own ``_InactiveRpcError``. The names of the core are grpc's own (tests/unit/test_private_names.py); where
one is not as it was, ``make_direct`` gives None and the layer is used. So it is while grpc's observability plug-in is on, which
counts there.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

import grpc
from grpc import _channel as grpc_channel
from grpc import _common, _observability
from grpc._cython import cygrpc

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshlib.hosts.grpc.request import Method

__all__ = ["make_direct"]

_log = logging.getLogger("meshlib")


def make_direct(inner: Any, method: Method) -> Callable[..., Any] | None:
    """What makes RPCs of ``inner``, a unary-unary callable of grpc's own: called with message, seconds, metadata, credentials and
    ``wait_for_ready``. None where grpc is not as it is known. The callable raises ``grpc.RpcError``.
    """
    try:
        return _made(inner, method)
    except AttributeError:
        return None


def _made(inner: Any, method: Method) -> Callable[..., Any] | None:
    with _observability.get_plugin() as plugin:
        if plugin is not None:
            return None
    begin, path, context = inner._channel.segregated_call, inner._method, inner._context
    registered = inner._registered_call_handle
    send_metadata, send_message = cygrpc.SendInitialMetadataOperation, cygrpc.SendMessageOperation
    close, read_metadata = cygrpc.SendCloseFromClientOperation, cygrpc.ReceiveInitialMetadataOperation
    read_message, read_status = cygrpc.ReceiveMessageOperation, cygrpc.ReceiveStatusOnClientOperation
    types = cygrpc.OperationType
    kinds = types.receive_message, types.receive_status_on_client, types.receive_initial_metadata
    propagate, of_context = (
        cygrpc.PropagationConstants.GRPC_PROPAGATE_DEFAULTS,
        cygrpc.get_deadline_from_context,
    )
    not_patient = cygrpc.InitialMetadataFlags.wait_for_ready_explicitly_set
    serializer = method.serializer
    now = time.time

    def call(message: Any, seconds: float | None, metadata: Any, credentials: Any, wait: bool | None) -> Any:
        if serializer is not None:
            try:
                message = serializer(message)
            except Exception:  # noqa: BLE001 - logged; the words and the code are grpc's
                _log.exception("meshlib: a message of %s could not be serialized", method.path)
                raise _error(grpc.StatusCode.INTERNAL, "Exception serializing request!") from None
        deadline = None if seconds is None else now() + seconds
        outer = of_context()
        if outer is not None and (deadline is None or outer < deadline):
            deadline = outer
        rpc = begin(
            propagate,
            path,
            None,
            deadline,
            metadata,
            None if credentials is None else credentials._credentials,
            (
                (
                    (
                        send_metadata(metadata, 0 if wait is None else not_patient),
                        send_message(message, 0),
                        close(0),
                        read_metadata(0),
                        read_message(0),
                        read_status(0),
                    ),
                    None,
                ),
            ),
            context,
            registered,
        )
        return _answer(rpc.next_event(), kinds, method)

    return call


def _answer(event: Any, kinds: tuple[Any, Any, Any], method: Method) -> Any:
    """What an RPC that is over gives. ``kinds``: of the operations that have the message, the status and the metadata."""
    is_message, is_status, is_metadata = kinds
    answer = status = headers = None
    for operation in event.batch_operations:
        kind = operation.type()
        if kind == is_message:
            answer = operation.message()
        elif kind == is_status:
            status = operation
        elif kind == is_metadata:
            headers = operation
    assert status is not None
    if status.code() != 0:
        raise _ended(status, headers)
    deserializer = method.deserializer
    if deserializer is None:
        return answer
    try:
        return deserializer(answer)
    except Exception:  # noqa: BLE001 - logged; the words and the code are grpc's
        _log.exception("meshlib: an answer of %s could not be deserialized", method.path)
        raise _error(grpc.StatusCode.INTERNAL, "Exception deserializing response!") from None


def _ended(status: Any, headers: Any) -> Exception:
    code = _common.CYGRPC_STATUS_CODE_TO_STATUS_CODE.get(status.code())
    details = status.details()
    if code is None:
        details = f'Server sent unknown code {status.code()} and details "{details}"'
        code = grpc.StatusCode.UNKNOWN
    initial = headers.initial_metadata() if headers is not None else ()
    return _error(code, details, initial or (), status.trailing_metadata() or (), status.error_string())


def _error(
    code: grpc.StatusCode, details: str, initial: Any = (), trailing: Any = (), debug: str | None = None
) -> Exception:
    state = grpc_channel._RPCState((), initial, trailing, code, details)
    state.debug_error_string = debug
    error: Exception = grpc_channel._InactiveRpcError(state)
    return error
