"""How far a service has joined, as it is written."""

from __future__ import annotations

__all__ = ["check_mode"]


def check_mode(text: str) -> str:
    """``"off"``, ``"observe"``, ``"on"``, or a percentage from ``"0%"`` to ``"100%"``. Raises ValueError for what is none."""
    if text in ("off", "observe", "on"):
        return text
    digits = text.removesuffix("%")
    whole, _, part = digits.partition(".")
    if (
        digits == text
        or not (digits.isascii() and whole.isdigit() and (part or "0").isdigit())
        or float(digits) > 100
    ):
        raise ValueError("none of these")
    return text
