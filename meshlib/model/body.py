"""The format of a body."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["BodyFormat"]


@dataclass(frozen=True, slots=True)
class BodyFormat:
    """Envoy ``SubstitutionFormatString``: ``text``, or ``json``, whose texts are formats. ``omit_empty``: what has no value
    leaves nothing, instead of ``-``, null, and its key.
    """

    text: str = ""
    json: Mapping[str, object] | None = None
    omit_empty: bool = False
    content_type: str = ""
