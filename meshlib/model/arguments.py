"""What an application gives as an argument, looked at before anything is done with it."""

from __future__ import annotations

__all__ = ["seconds", "text"]


def seconds(value: object, name: str) -> float:
    """``value`` as a number of seconds, 0 or more; infinity is one. ``name``: the argument's, for the error. Raises
    TypeError for what is no number (text and truth values are none) and ValueError for a negative one and for nan.
    """
    if isinstance(value, bool | str | bytes) or not hasattr(value, "__float__"):
        raise TypeError(f"{name}: expected a number of seconds, not {value!r}")
    number = float(value)
    if not number >= 0:
        raise ValueError(f"{name}: expected seconds >= 0, not {value!r}")
    return number


def text(value: object, name: str) -> str:
    """``value`` if it is text. Raises TypeError that has ``name``."""
    if not isinstance(value, str):
        raise TypeError(f"{name}: expected text, not {value!r}")
    return value
