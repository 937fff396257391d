"""gRPC channels through the mesh: they come in a later release, and say so when they are asked for."""

from __future__ import annotations

from typing import NoReturn

__all__: list[str] = []

_LATER = frozenset({"aio", "channel"})


def __getattr__(name: str) -> NoReturn:
    if name in _LATER:
        raise NotImplementedError(
            f"meshlib.grpc.{name}: gRPC channels are not yet supported; they come in a later release"
        )
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
