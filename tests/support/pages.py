"""The pages of the documentation, and the blocks that they show."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PAGES", "ROOT", "Block", "blocks"]

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<kind>\w*)[^\n]*\n(?P<body>.*?)^(?P=indent)```$", re.DOTALL | re.MULTILINE
)


@dataclass(frozen=True)
class Block:
    """A fenced block. ``number`` counts those of its kind on its page, from 1."""

    page: str
    line: int
    kind: str
    number: int
    body: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(*kinds: str) -> list[Block]:
    """The blocks of these kinds (default: of all), in the order of the pages."""
    found = []
    for page in PAGES:
        text = page.read_text()
        numbers: dict[str, int] = {}
        for fence in _FENCE.finditer(text):
            kind = fence["kind"]
            numbers[kind] = numbers.get(kind, 0) + 1
            line = text.count("\n", 0, fence.start()) + 1
            if not kinds or kind in kinds:
                found.append(Block(str(page.relative_to(ROOT)), line, kind, numbers[kind], fence["body"]))
    return found
