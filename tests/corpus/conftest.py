"""What is tried: all of it (``make corpus``), or with ``MESHLIB_TEST_CORPUS`` every so many-th (a number), or what has that
in its name.
"""

from __future__ import annotations

import os
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

import pytest

from tests.corpus import cases
from tests.corpus.differences import Differences
from tests.interop.build import GoMissing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

T = TypeVar("T")

CHOSEN = os.environ.get("MESHLIB_TEST_CORPUS", "1")
# Who has nothing checked out has not asked for these.
collect_ignore = [] if os.environ.get("MESHLIB_TEST_CHECKOUTS") else ["test_checkouts.py"]


def _some(items: Iterable[T], name: Callable[[T], str]) -> list[T]:
    try:
        if CHOSEN.isdigit():
            return list(islice(items, 0, None, int(CHOSEN)))
        return [item for item in items if CHOSEN in name(item)]
    except GoMissing as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def files() -> list[tuple[str, Path]]:
    return _some(cases.files(), lambda item: item[0])


@pytest.fixture(scope="session")
def resources() -> list[cases.Resources]:
    return _some(cases.resources(), lambda item: item.name)


@pytest.fixture(scope="session")
def differences() -> Differences:
    return Differences()


@pytest.fixture(scope="session")
def whole() -> bool:
    """Whether all of it is tried, so that what is not needed can be told."""
    return CHOSEN == "1"
