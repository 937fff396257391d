"""Which servers of one authority have a stream, where it has more than one (gRFC A71, checklist FB). Pure.

Theory. The servers stand in the order of preference. The first ``opened`` of them have streams; the last of those is the one
that is being relied on. Of each server it is known whether it failed: its channel could not connect, or its stream ended
before an answer (ST-05). It is well again with the first answer on a stream.

    opened  event                        condition                                        opened
    ------  ---------------------------  -----------------------------------------------  ------------------------------------
    0       a name is wanted                                                              1
    n       the last of them fails       something that is wanted is not known, and       n + 1, and so on at once where that
    n       a name is wanted while       there is one more (FB-01, FB-04); or the         one is known to have failed, too
            it has failed                bootstrap says that to be unreachable is         (others may use it)
                                         enough (FB-06)
    n       server i of them answers,    i is not the last                                i + 1: the lower ones are closed, and
                                                                                          its data wins (FB-02)
    n       nothing is wanted any more                                                    0

"Known" includes what the server is known not to have (FB-07), and what stays as it was though it is about to change. So who has all
that it wants stays where it is. An outage is told only once the last server of the list has failed, or once all that is wanted is
known and so no other is asked (FB-03).
"""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Fallback"]


class Fallback:
    """Of one authority. ``count``: of its servers; ``eager``: to be unreachable is enough (gRFC A95)."""

    __slots__ = ("count", "eager", "opened")

    def __init__(self, count: int, *, eager: bool = False) -> None:
        self.count = count
        self.eager = eager
        self.opened = 0

    def settle(
        self,
        *,
        wanted: bool,
        lacks: Callable[[], bool],
        failed: Callable[[int], bool],
        answers: Callable[[int], bool],
    ) -> bool:
        """Looks at how things stand; True if ``opened`` changed. ``lacks``: whether something that is wanted is not known;
        ``failed`` and ``answers`` tell of a server by its place in the order.
        """
        before = self.opened
        if not wanted:
            self.opened = 0
            return before != 0
        best = next((place for place in range(self.opened - 1) if answers(place)), None)
        if best is not None:
            self.opened = best + 1
        self.opened = max(self.opened, 1)
        while self.opened < self.count and failed(self.opened - 1) and (self.eager or lacks()):
            self.opened += 1
        return self.opened != before
