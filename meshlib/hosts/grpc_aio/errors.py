"""What an RPC of an asyncio channel raises where meshlib says so."""

from __future__ import annotations

from typing import Any

import grpc
from grpc.aio import AioRpcError, Metadata

from meshlib.hosts.grpc.errors import GrpcErrors

__all__ = ["ERRORS"]


def _fill(error: Any, code: grpc.StatusCode, message: str, inner: Any) -> None:
    error._code = code
    error._details = message
    error._debug_error_string = f"{code.name}:{message}"
    error._initial_metadata = error._trailing_metadata = Metadata()
    if isinstance(inner, AioRpcError):
        error._debug_error_string = inner.debug_error_string()
        error._initial_metadata = inner.initial_metadata() or Metadata()
        error._trailing_metadata = inner.trailing_metadata() or Metadata()


ERRORS = GrpcErrors(AioRpcError, _fill)
