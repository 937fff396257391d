"""docs/security.md names a test for what it says, and the tests that it names are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text()
NAMED = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)
WHO = {title: body for title, _, body in (part.partition("\n") for part in PAGE.split("\n## ")[1:])}
#: Sections that are not of somebody who says something.
OTHERS = {"Who trusts whom", "To report a weakness"}


@pytest.mark.parametrize(("path", "name"), sorted(set(NAMED)))
def test_a_test_that_is_named_is_there(path: str, name: str) -> None:
    assert re.search(rf"^ *(async )?def {name}\(", (ROOT / path).read_text(), re.MULTILINE)


@pytest.mark.parametrize("who", sorted(WHO.keys() - OTHERS))
def test_whoever_may_say_something_is_held_by_a_test(who: str) -> None:
    assert "t worst" in WHO[who] or "May nothing" in WHO[who]
    assert "`tests/" in WHO[who]


def test_every_name_of_a_test_is_read() -> None:
    assert len(NAMED) == PAGE.count("`tests/")
