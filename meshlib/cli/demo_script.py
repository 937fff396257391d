"""The demo's script: seven acts, each with what it claims. A claim is checked against the calls that were made.

Shares are held against the binomial distribution: with ``n`` calls a share of ``p`` may be off by six standard deviations,
which chance exceeds in one of two million runs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from meshlib.cli.demo_calls import RATE, Call, Calls, Tally
from meshlib.cli.demo_stage import EJECTED_FOR, SERVICE, VERSIONS, Stage

if TYPE_CHECKING:
    from meshlib.model.events import EndpointEjected

__all__ = ["Act", "Fact", "Script", "Viewer"]

_DEVIATIONS = 6.0
#: Seconds that something may take which needs no waiting but for a busy machine.
_SOON = 10.0
#: Seconds that a client may take to come back to its control plane: its backoff included.
_BACK = 20.0
_GLANCE = 0.05


@dataclass(frozen=True, slots=True)
class Fact:
    """A claim and whether it held."""

    text: str
    holds: bool

    def to_dict(self) -> dict[str, Any]:
        return {"fact": self.text, "holds": self.holds}


@dataclass(slots=True)
class Act:
    """One step: what happens, which calls were made while it was in force, what held, and one call explained."""

    number: int
    title: str
    story: str
    began: float
    tally: Tally = field(default_factory=lambda: Tally([]))
    facts: list[Fact] = field(default_factory=list)
    sample: Call | None = None

    def to_dict(self) -> dict[str, Any]:
        tally = self.tally
        return {
            "act": self.number,
            "title": self.title,
            "calls": len(tally),
            "failed": len(tally.failed),
            "retries": tally.retries,
            "shares": {version: tally.share(version) for version in VERSIONS},
            "endpoints": [
                {"cluster": cluster, "endpoint": endpoint, "calls": count}
                for (cluster, endpoint), count in sorted(tally.endpoints().items())
            ],
            "p50": tally.quantile(0.5),
            "p99": tally.quantile(0.99),
            "facts": [fact.to_dict() for fact in self.facts],
            "trace": list(self.trace),
        }

    @property
    def trace(self) -> tuple[str, ...]:
        return self.sample.info.trace() if self.sample is not None and self.sample.info is not None else ()


class Viewer(Protocol):
    """Who is shown the script."""

    def began(self, act: Act) -> None: ...

    def tick(self) -> None:
        """A moment has passed."""
        ...

    def ended(self, act: Act) -> None: ...


class Script:
    """Plays the acts. ``pace``: how much longer than needed each is shown."""

    def __init__(self, stage: Stage, calls: Calls, viewer: Viewer, pace: float = 1.0) -> None:
        self._stage = stage
        self._calls = calls
        self._viewer = viewer
        self._pace = pace
        self.acts: list[Act] = []

    @property
    def facts(self) -> list[Fact]:
        return [fact for act in self.acts for fact in act.facts]

    def play(self) -> None:
        """All of it."""
        self._split(90, 10, "The control plane sends nine calls of ten to v1, one to v2.")
        self._split(50, 50, "A new route configuration is pushed: half and half. Nothing restarts.")
        self._header_route()
        self._kill_v3()
        self._v3_back()
        self._control_plane_killed()
        self._control_plane_back()

    # --- acts -----------------------------------------------------------------------------------------------------------

    def _split(self, first: int, second: int, story: str) -> None:
        act = self._act(f"v1 : v2 = {first} : {second}", story)
        self._stage.publish({"v1": first, "v2": second}, gold=False)
        if act.number == 1:
            self._stage.mesh.wait_ready(SERVICE, timeout=_SOON)
            self._calls.start()
        self._applied(act)
        self._watch(act, 4.0)
        self._shares(act, act.tally, {"v1": first / 100, "v2": second / 100, "v3": 0.0})
        self._end(act)

    def _header_route(self) -> None:
        act = self._act(
            "x-tier: gold goes to v2 and v3",
            "A route by header: calls with x-tier: gold go to the cluster reviews-next, whose servers are v2 and v3.",
        )
        self._stage.publish({"v1": 50, "v2": 50}, gold=True)
        self._applied(act)
        self._watch(act, 4.0)
        self._gold_route(act)
        self._end(act, lambda call: call.gold and call.version == "v3")

    def _gold_route(self, act: Act) -> None:
        self._shares(act, act.tally.gold, {"v1": 0.0, "v2": 0.5, "v3": 0.5}, "gold calls")
        self._shares(act, act.tally.plain, {"v1": 0.5, "v2": 0.5, "v3": 0.0}, "other calls")

    def _kill_v3(self) -> None:
        act = self._act(
            "v3 is killed",
            "SIGKILL, no goodbye. Calls that meet the dead server are tried again on v2; then it is ejected.",
        )
        killed = time.monotonic()
        self._stage.versions["v3"].kill()
        self._until(lambda: self._stage.ejected("v3", killed) is not None, _SOON)
        found = self._stage.ejected("v3", killed)
        if found is not None:
            self._wait(2.5)
        self._count(act)
        self._ejection(act, found)
        self._end(act, lambda call: call.retries > 0)

    def _ejection(self, act: Act, found: tuple[float, EndpointEjected] | None) -> None:
        address = self._stage.versions["v3"].address
        met = act.tally.only(lambda call: call.retries > 0)
        self._fact(act, len(met) > 0, f"{len(met)} calls met the dead server and succeeded elsewhere")
        if found is None:
            self._fact(act, False, f"v3 was not ejected within {_SOON:.0f} s")
            return
        at, event = found
        self._fact(act, True, f"v3 was ejected {at - act.began:.2f} s after it died: {event.reason}")
        # One that was on its way when it was ejected may still arrive there.
        later = act.tally.only(lambda call: call.began > at + 0.1)
        strays = sum(call.tried(address) for call in later.calls)
        self._fact(act, len(later) > 0 and not strays, f"{strays} of {len(later)} calls after that tried v3")

    def _v3_back(self) -> None:
        act = self._act(
            "v3 is back",
            f"A new process at the same address. Its ejection ends after {EJECTED_FOR} s, and it gets calls again.",
        )
        self._stage.versions["v3"].start()
        serves = self._until(lambda: self._calls.since(act.began).count("v3") > 0, _SOON + EJECTED_FOR)
        returned = time.monotonic()
        self._fact(act, serves, f"v3 served again {returned - act.began:.1f} s after its start began")
        self._wait(2.5)
        self._count(act)
        self._shares(act, self._calls.since(returned).gold, {"v2": 0.5, "v3": 0.5}, "gold calls since then")
        health = self._stage.endpoint("v3")
        self._fact(
            act,
            health is not None and health.health == "healthy",
            f"v3 is {health.health if health else 'gone'}",
        )
        self._end(act, lambda call: call.version == "v3")

    def _control_plane_killed(self) -> None:
        act = self._act(
            "the control plane is killed",
            "The client keeps what it knows. Calls go on as before; it tries to come back with growing pauses.",
        )
        self._stage.control_plane.kill()
        knows = self._until(lambda: self._stage.source().state == "stale", _SOON)
        self._fact(
            act,
            knows,
            f"the client knows: its source is {self._stage.source().state}, the last good state serves",
        )
        self._watch(act, 4.0)
        self._gold_route(act)
        self._end(act)

    def _control_plane_back(self) -> None:
        act = self._act(
            "the control plane is back, with v1 : v2 = 10 : 90",
            "It comes back at the same address and says something new. The client finds it by itself.",
        )
        self._stage.publish({"v1": 10, "v2": 90}, gold=True)
        self._stage.control_plane.start()
        self._applied(act, _BACK)
        self._watch(act, 4.0)
        self._shares(act, act.tally.plain, {"v1": 0.1, "v2": 0.9, "v3": 0.0}, "other calls")
        self._end(act)

    # --- the frame of an act ----------------------------------------------------------------------------------------------

    def _act(self, title: str, story: str) -> Act:
        act = Act(len(self.acts) + 1, title, story, time.monotonic())
        self.acts.append(act)
        self._viewer.began(act)
        return act

    def _applied(self, act: Act, patience: float = _SOON) -> None:
        """Wait until what the control plane said is in force. Calls that begin from now on are the act's."""
        done = self._until(self._stage.applied, patience)
        seconds = time.monotonic() - act.began
        versions = ", ".join(f"{kind} {version}" for kind, version in self._stage.source().versions.items())
        words = f"in force {seconds:.2f} s after" if done else f"not in force within {patience:.0f} s of"
        self._fact(act, done, f"{words} being said ({versions})")

    def _watch(self, act: Act, seconds: float) -> None:
        """Let calls be made under what is in force now, and take them for the act's."""
        began = time.monotonic()
        self._wait(seconds * self._pace)
        act.tally = self._calls.since(began)

    def _count(self, act: Act) -> None:
        act.tally = self._calls.since(act.began)

    def _end(self, act: Act, *shown: Callable[[Call], bool]) -> None:
        """No act may cost a call: all since it began count, also those before its change was in force."""
        everything = self._calls.since(act.began)
        failed = everything.failed
        words = f"{len(failed)} of {len(everything)} calls failed"
        self._fact(
            act, not failed and len(everything) > 0, words + (f": {failed[0].error}" if failed else "")
        )
        act.sample = act.tally.sample(*shown, lambda call: not call.error)
        self._viewer.ended(act)

    # --- claims -------------------------------------------------------------------------------------------------------------

    @staticmethod
    def _fact(act: Act, holds: bool, text: str) -> None:
        act.facts.append(Fact(text, holds))

    def _shares(self, act: Act, tally: Tally, expected: Mapping[str, float], what: str = "calls") -> None:
        """Each version got its share. Few calls prove nothing: there must be a quarter of what the rate promises."""
        count = len(tally)
        if count < RATE // 4:
            self._fact(act, False, f"{count} {what} are too few to tell a share")
            return
        for version, share in expected.items():
            got = tally.share(version)
            if share == 0.0:
                self._fact(
                    act,
                    got == 0.0,
                    f"{version} got {tally.count(version)} of {count} {what}, as it should: none",
                )
                continue
            allowed = _DEVIATIONS * math.sqrt(share * (1 - share) / count)
            words = f"{version} got {got:.1%} of {count} {what}: {share:.0%}, give or take {allowed:.1%}"
            self._fact(act, abs(got - share) <= allowed, words.replace("%", " %"))

    # --- time ---------------------------------------------------------------------------------------------------------------

    def _wait(self, seconds: float) -> None:
        self._until(lambda: False, seconds)

    def _until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Whether ``condition`` came true within ``seconds``."""
        until = time.monotonic() + seconds
        while True:
            if condition():
                return True
            left = until - time.monotonic()
            if left <= 0:
                return False
            self._viewer.tick()
            time.sleep(min(left, _GLANCE))
