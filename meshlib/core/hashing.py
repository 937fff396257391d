"""The one hash of balancing and affinity: XXH64 with seed 0, as Envoy and gRPC (HP-01)."""

from __future__ import annotations

__all__ = ["combine", "hash_text"]

_MASK = (1 << 64) - 1


def hash_text(text: str) -> int:
    """XXH64 of the text in UTF-8 (a lone surrogate as its three bytes, so that no text fails)."""
    import xxhash

    return int(xxhash.xxh64_intdigest(text.encode("utf-8", "surrogatepass")))


def combine(old: int | None, new: int) -> int:
    """The hash of two policies in a row: the first turned left by one bit, exclusive-or the second (HP-01)."""
    if old is None:
        return new
    return ((old << 1 | old >> 63) & _MASK) ^ new
