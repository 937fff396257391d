"""What is installed only on demand, and the words that say so. The one home of both."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["INSTALL", "needed"]

#: The command that brings an extra.
INSTALL = "python -m pip install 'meshlib-client[{}]'"


@contextmanager
def needed(extra: str, what: str) -> Iterator[None]:
    """Around the imports that ``what`` cannot do without: the ModuleNotFoundError of one that is missing names ``extra``
    and the command that installs it. The module that is missing stays the error's ``name``.
    """
    try:
        yield
    except ModuleNotFoundError as missing:
        text = f"{what} needs {missing.name}, which is not installed: {INSTALL.format(extra)}"
        raise ModuleNotFoundError(text, name=missing.name) from None
