"""Tokens in files: bearers (RFC 6750) that somebody else writes and renews, so that they are read again at each use."""

from __future__ import annotations

import os

__all__ = ["as_token", "read_token"]

#: Bytes of a token at most: what servers take in one header.
_LARGEST = 16 * 1024


def read_token(path: str) -> str:
    """The token in the file, without the white space around it. Raises OSError, whose words have the path and never the token."""
    try:
        # What is no file (a pipe that nobody writes to) must not block.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0))
        with os.fdopen(descriptor, "rb") as file:
            raw = file.read(_LARGEST + 1)
    except (OSError, ValueError) as problem:
        raise OSError(f"the token {path} cannot be read: {getattr(problem, 'strerror', problem)}") from None
    token = as_token(raw.strip().decode("ascii", "replace"))
    if token is None:
        raise OSError(f"{path} holds no token")
    return token


def as_token(text: object) -> str | None:
    """``text`` if it can be sent as a token: visible ASCII, as much as servers take; else None."""
    if not isinstance(text, str) or not 0 < len(text) <= _LARGEST:
        return None
    return text if text.isascii() and text.isprintable() and " " not in text else None
