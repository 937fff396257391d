"""MurmurHash2 in 64 bits, as the C++ library of GCC has it and Envoy by ``MURMUR_HASH_2``; rings of other clients stand on it."""

from __future__ import annotations

__all__ = ["murmur2"]

_MASK = (1 << 64) - 1
_MULTIPLIER = 0xC6A4A7935BD1E995
#: Of GCC's ``std::hash``.
_SEED = 0xC70F6907


def murmur2(data: bytes) -> int:
    """The hash of ``data``."""
    size = len(data)
    value = _SEED ^ (size * _MULTIPLIER & _MASK)
    whole = size & ~7
    for at in range(0, whole, 8):
        mixed = _mixed(int.from_bytes(data[at : at + 8], "little") * _MULTIPLIER & _MASK)
        value = (value ^ mixed * _MULTIPLIER & _MASK) * _MULTIPLIER & _MASK
    if size & 7:
        value = (value ^ int.from_bytes(data[whole:], "little")) * _MULTIPLIER & _MASK
    value = _mixed(value) * _MULTIPLIER & _MASK
    return _mixed(value)


def _mixed(value: int) -> int:
    return value ^ value >> 47
