"""Values that are used and not shown: what a credential's name goes with.

A control plane's and a file's words hold tokens and cookies in the places where any text may be: the value of a header that is added
or matched. There is nothing in the value that tells; its name does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Self

__all__ = ["HIDDEN", "NAME", "Hidden", "HiddenBytes", "hidden", "is_credential", "without_credentials"]

#: What is shown in the place of a value.
HIDDEN = "(hidden)"

#: Of headers, cookies, parameters and entries of metadata.
NAME = re.compile(
    "authorization|cookie|token|secret|passw|credential|private.?key|api.?key|access.?key|session.?key|jwt",
    re.IGNORECASE,
)


class Hidden(str):
    """Text that is equal to what it was made of, and whose repr, JSON and pickles have ``HIDDEN`` in its place."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(HIDDEN)

    def __reduce__(self) -> Any:
        return str, (HIDDEN,)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self


class HiddenBytes(bytes):
    """The same of bytes; text that it is decoded to is hidden, too."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(HIDDEN.encode())

    def __reduce__(self) -> Any:
        return bytes, (HIDDEN.encode(),)

    def strip(self, chars: Any = None) -> HiddenBytes:
        return HiddenBytes(super().strip(chars))

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return Hidden(super().decode(encoding, errors))


def is_credential(name: str) -> bool:
    """Whether what goes with the name is nobody's but its receiver's."""
    return NAME.search(name) is not None


def hidden(name: str, value: str) -> str:
    """``value``, to be shown where ``name`` is no credential's."""
    return Hidden(value) if is_credential(name) else value


def without_credentials(values: Mapping[str, object]) -> dict[str, object]:
    """A copy that is shown: at every depth ``HIDDEN`` is what a credential's name goes with."""
    return {name: HIDDEN if is_credential(name) else _shown(value) for name, value in values.items()}


def _shown(value: object) -> object:
    if isinstance(value, Mapping):
        return without_credentials(value)
    if isinstance(value, list | tuple):
        return [_shown(item) for item in value]
    return value
