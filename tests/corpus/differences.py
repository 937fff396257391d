"""The list of known differences, and what of it was needed."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from pathlib import Path

from tests.corpus.modules import checkout

__all__ = ["Differences"]


class Differences:
    """Entries of ``differences.toml`` by the name of their list. Counts what each explained."""

    def __init__(self) -> None:
        text = Path(__file__).with_name("differences.toml").read_text(encoding="utf-8")
        self._entries = {
            kind: [
                (re.compile(entry["says"]), entry["why"])
                for entry in entries
                if "checkout" not in entry or checkout(entry["checkout"])
            ]
            for kind, entries in tomllib.loads(text).items()
        }
        self.used: Counter[tuple[str, str]] = Counter()

    def explain(self, kind: str, said: str) -> str:
        """Why this difference may be, ``""`` where nothing on the list explains it."""
        for pattern, why in self._entries.get(kind, ()):
            if pattern.search(said):
                self.used[kind, pattern.pattern] += 1
                return str(why)
        return ""

    def unused(self, *kinds: str) -> list[str]:
        return [
            f"{kind}: {pattern.pattern}"
            for kind in kinds
            for pattern, _ in self._entries.get(kind, ())
            if not self.used[kind, pattern.pattern]
        ]
