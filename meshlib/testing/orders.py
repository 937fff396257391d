"""What an upstream is told to do with a request, instead of answering 200 with who it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

__all__ = ["ORDER_HEADER", "Order"]

# A request may bring its own order, as JSON, in this header.
ORDER_HEADER = "x-upstream-order"


@dataclass(frozen=True, slots=True)
class Order:
    """How to answer; each part stands by itself. Seconds are floats.

    status, headers    of the response; `headers` are pairs, after the server's own
    body               text instead of who it is
    delay              before the head
    hold               keep back the `head`, or the second half of the `body`, until `Upstream.release()`
    reset              reset the connection (RST) before the `head`, or in the middle of the `body`
    truncate           close the connection (FIN) in the middle of the body
    close              answer `connection: close`, and close
    chunks             send the body in that many chunks, with `chunk_delay` before each but the first
    echo               send the request's body back, chunk by chunk as it comes
    early              answer before the request's body is read, and close
    garbage            these characters (latin-1) instead of a response, then close
    """

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: str | None = None
    delay: float = 0.0
    hold: Literal["", "head", "body"] = ""
    reset: Literal["", "head", "body"] = ""
    truncate: bool = False
    close: bool = False
    chunks: int = 0
    chunk_delay: float = 0.0
    echo: bool = False
    early: bool = False
    garbage: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Only what differs from the default, JSON-ready."""
        plain = Order()
        return {key: value for key, value in asdict(self).items() if value != getattr(plain, key)}

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> Order:
        """From what `to_dict` gives, or what a request's header says. Raises ValueError for what is no order."""
        if not isinstance(given, Mapping):
            raise ValueError(f"an order is a mapping, not {given!r}")  # noqa: TRY004  (as for its parts)
        known = {field.name: field for field in fields(cls)}
        plain, values = cls(), dict(given)
        for key, value in values.items():
            if key not in known:
                raise ValueError(f"an order has no {key!r}; it has {', '.join(known)}")
            default = getattr(plain, key)
            kind = (int, float) if isinstance(default, float) else str if default is None else type(default)
            if key != "headers" and not isinstance(value, kind):
                raise ValueError(f"an order's {key} cannot be {value!r}")
        values["headers"] = tuple((str(name), str(text)) for name, text in values.get("headers", ()))
        return cls(**values)
