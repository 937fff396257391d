"""Header lines as they travel: ordered, repeated, in the caller's own case."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from meshlib.model.hidden import hidden

__all__ = ["OF_THE_CONNECTION", "Headers"]

#: Headers that say how a message is framed and what becomes of its connection, which is for that connection alone to say: with
#: another's word in them two that read it would not agree on where it ends. Nothing that is configured edits them.
OF_THE_CONNECTION = frozenset(
    [
        "connection",
        "content-length",
        "expect",
        "http2-settings",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ]
)

_Pair = tuple[bytes, bytes]


class Headers:
    """A list of (name, value) lines in bytes, looked up without regard to case.

    Not thread-safe: a call owns its headers. ``copy()`` is cheap, and edits of the copy leave the original as it was.
    Names and values are shown as Latin-1 text, as on the wire.
    """

    __slots__ = ("_index", "raw")

    def __init__(self, raw: Iterable[_Pair] = ()) -> None:
        self.raw: list[_Pair] = list(raw)
        self._index: dict[bytes, str] | None = None

    @classmethod
    def of(cls, *pairs: tuple[str, str]) -> Headers:
        """From text pairs."""
        return cls((name.encode("latin-1"), value.encode("latin-1")) for name, value in pairs)

    @classmethod
    def trimmed(cls, raw: Iterable[_Pair]) -> Headers:
        """Lines as their receiver reads them: white space around a value is not part of it (RFC 9110, 5.5)."""
        return cls([(name, value.strip(b" \t")) for name, value in raw])

    def _lookup(self) -> dict[bytes, str]:
        index = self._index
        if index is None:
            index = {}
            for name, value in self.raw:
                key, text = name.lower(), value.decode("latin-1")
                index[key] = f"{index[key]},{text}" if key in index else text
            self._index = index
        return index

    def get(self, name: str) -> str | None:
        """All values of ``name`` joined with "," (HM-01), or None."""
        return self._lookup().get(name.lower().encode("latin-1", "replace"))

    def __contains__(self, name: str) -> bool:
        return self.get(name) is not None

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return ((name.decode("latin-1"), value.decode("latin-1")) for name, value in self.raw)

    def __len__(self) -> int:
        return len(self.raw)

    def __repr__(self) -> str:
        return f"Headers({[(name, hidden(name, value)) for name, value in self]!r})"

    def copy(self) -> Headers:
        return Headers(self.raw)

    def append(self, name: str, value: str) -> None:
        """One more line, at the end."""
        self.raw.append((name.encode("latin-1"), value.encode("latin-1", "replace")))
        self._index = None

    def remove(self, name: str) -> None:
        """Every line of that name, if any."""
        key = name.lower().encode("latin-1", "replace")
        self.raw = [pair for pair in self.raw if pair[0].lower() != key]
        self._index = None

    def set(self, name: str, value: str) -> None:
        """Exactly one line: in the place of the first that was there, else at the end."""
        self.put(name.encode("latin-1"), value.encode("latin-1", "replace"))

    def put(self, name: bytes, value: bytes) -> None:
        """As ``set``."""
        key, size = name.lower(), len(name)
        self._index = None
        for own, _ in self.raw:
            if len(own) == size and own.lower() == key:
                break
        else:
            self.raw.append((name, value))
            return
        kept: list[_Pair] = []
        placed = False
        for pair in self.raw:
            if pair[0].lower() != key:
                kept.append(pair)
            elif not placed:
                kept.append((pair[0], value))
                placed = True
        self.raw = kept

    def to_dict(self) -> dict[str, str]:
        """Lower-case name → joined value."""
        return {name.decode("latin-1"): value for name, value in self._lookup().items()}
