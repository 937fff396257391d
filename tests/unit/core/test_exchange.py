"""An exchange: who carries a call, what observers hear, how it ends."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from meshlib.core.effects import Call, Deliver, Direct, Env, Fail, Reply, Send, Sleep, Wait
from meshlib.core.endpoint import LiveEndpoint
from meshlib.core.exchange import GRPC, Exchange, Place
from meshlib.core.match import compile_routes
from meshlib.core.resolution import Resolution
from meshlib.core.tokens import NO_TOKENS, Tokens
from meshlib.core.upstream import PickContext
from meshlib.errors import DeadlineExceeded, NoHealthyEndpoint, NotReady, Overloaded, UnknownService
from meshlib.model.address import Address
from meshlib.model.call import Head, Outcome, OutcomeKind
from meshlib.model.cluster import Cluster, Discovery
from meshlib.model.endpoint import Assignment, Endpoint, Locality
from meshlib.model.events import AttemptEnded, AttemptStarted, CallEnded, CallStarted
from meshlib.model.headers import Headers
from meshlib.model.listener import Listener
from meshlib.model.match import PathKind, PathMatch, RouteMatch
from meshlib.model.policy import RetryPolicy
from meshlib.model.route import DirectResponse, Forward, Route, RouteConfiguration, VirtualHost
from meshlib.model.sidecar import Sidecar

PLACE: Place = ("http", "reviews", None, "reviews")
ENDPOINT = LiveEndpoint(Endpoint(Address("10.0.0.1", 80)), priority=0, locality=Locality())


class Pick:
    endpoint = ENDPOINT

    def __init__(self, upstream: Any) -> None:
        self.upstream = upstream
        self.reports: list[Outcome] = []
        self.released = 0

    def report(self, outcome: Outcome, now: float) -> None:
        self.reports.append(outcome)

    def give_up(self) -> None: ...

    def release(self, now: float, failure: Outcome | None = None) -> None:
        self.released += 1


class Cluster1:
    def __init__(self, cluster: Cluster) -> None:
        self.consistent = False
        self.labelled = False
        self.limiter = None
        self.cluster = cluster
        self.picks: list[Pick] = []

    def pick(self, context: PickContext, now: float) -> Pick:
        self.picks.append(Pick(self))
        return self.picks[-1]

    def begin_retry(self, budget: object) -> Any:
        class Permit:
            def release(self) -> None: ...

        return Permit()


@dataclass
class View:
    """What the URL means; each look takes the next."""

    means: list[Resolution]

    def resolve(self, *place: object) -> Resolution:
        return self.means.pop(0) if len(self.means) > 1 else self.means[0]


@dataclass
class Config:
    disabled: bool = False
    failures: str = "raise"


@dataclass
class Process:
    """``meshlib.core.exchange.Surroundings``."""

    view: Any
    env: Env
    config: Config = field(default_factory=Config)
    tokens: Tokens = NO_TOKENS
    wanted: list[str] = field(default_factory=list)
    last: Resolution | None = None
    seconds: float = 1.0

    suspicions: int = 0

    def suspect(self) -> None:
        self.suspicions += 1

    def want(self, name: str, authority: str = "") -> None:
        self.wanted.append(name)

    def patience(self, resolution: Resolution, timeout: float) -> float:
        return min(self.seconds, timeout)

    def known(self, view: Any, place: Place) -> bool:
        return not view.resolve(*place).open

    def settled(self, *place: object) -> Resolution:
        assert self.last is not None
        return self.last


def routed(action: object | None = None) -> Resolution:
    route = Route(RouteMatch(PathMatch(PathKind.PREFIX, "/")), action or Forward(cluster="c"), name="r")  # type: ignore[arg-type]
    routes = compile_routes(RouteConfiguration("rc", (VirtualHost("v", ("*",), (route,)),)))
    return Resolution("mesh", "a test", part="p", listener=Listener("l"), routes=routes)


@dataclass
class World:
    process: Process
    exchange: Exchange
    cluster: Cluster1
    events: list[Any]
    reads: list[Resolution]

    @property
    def told(self) -> list[tuple[str, int]]:
        return [
            (type(event).__name__, event.key)
            for event in self.events
            if isinstance(event, AttemptStarted | AttemptEnded)
        ]


def make(
    *means: Resolution,
    plain: bool = False,
    observed: bool = True,
    cluster: Cluster | None = None,
    config: Config | None = None,
    settled: Resolution | None = None,
    **call: Any,
) -> World:
    events: list[Any] = []
    live = Cluster1(cluster or Cluster("c", assignment=Assignment("c")))
    env = Env(lambda part, name: live, lambda: 0.5, lambda: 1e6, events.append if observed else None)  # type: ignore[arg-type, return-value]
    process = Process(View(list(means)), env, config or Config(), last=settled)
    reads: list[Resolution] = []

    def read(resolution: Resolution) -> Call:
        reads.append(resolution)
        head = Head("GET", "http", "reviews", "/", Headers.of(("accept", "*/*")))
        return Call(resolution, head, **{"url": "http://reviews/", "wait": 5.0, **call})

    return World(process, Exchange(process, PLACE, read, plain=plain), live, events, reads)


def direct() -> Resolution:
    return Resolution("direct", "nobody knows it")


# --- who carries it ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["disabled", "a tool in charge", "bypass"])
def test_a_plain_call_is_not_read_and_not_told(how: str) -> None:
    means = Resolution("direct", "bypass", plain=True) if how == "bypass" else routed()
    config = Config(disabled=how == "disabled")
    world = make(means, plain=how == "a tool in charge", config=config)
    step = world.exchange.start(0.0)
    assert isinstance(step, Direct)
    assert step.head is None
    assert isinstance(world.exchange.arrived(step, 200, None, "1.1", "", 0.1), Deliver)
    assert world.exchange.info(0.1) is None
    assert not world.events
    assert not world.reads


def test_a_host_of_the_mesh_goes_by_the_plan() -> None:
    world = make(routed())
    step = world.exchange.start(0.0)
    assert isinstance(step, Send)
    assert step.endpoint is ENDPOINT
    assert isinstance(world.exchange.arrived(step, 200, Headers(), "2", "", 0.2), Deliver)
    world.exchange.close(0.3)
    info = world.exchange.info(0.3)
    assert info is not None
    assert (info.via, info.cluster, info.attempts[0].seconds) == ("mesh", "c", 0.2)
    assert world.events[1].protocol == "2"
    assert isinstance(world.events[2], CallEnded)


def test_a_host_that_nobody_knows_goes_directly_and_is_told() -> None:
    world = make(direct())
    step = world.exchange.start(0.0)
    assert isinstance(step, Direct)
    assert step.head is not None
    world.exchange.arrived(step, 204, None, "1.1", "127.0.0.1:80", 0.5)
    info = world.exchange.info(0.6)
    assert info is not None
    assert (info.via, info.endpoint, info.attempts[0].status) == ("direct", "127.0.0.1:80", 204)
    assert world.told == [("AttemptStarted", step.key), ("AttemptEnded", step.key)]


def test_what_observers_make_of_a_direct_calls_lines_is_to_be_sent() -> None:
    world = make(direct())
    world.process.env.emit = None
    events: list[Any] = []

    def inject(event: Any) -> None:
        events.append(event)
        if isinstance(event, AttemptStarted):
            event.head.headers.set("traceparent", "00-1")
            event.head.headers.remove("accept")

    world.exchange._emit = inject
    step = world.exchange.start(0.0)
    assert isinstance(step, Direct)
    assert step.changes == ({b"accept"}, [(b"traceparent", b"00-1")])


@pytest.mark.parametrize(("via", "failure"), [("refused", UnknownService), ("failed", NotReady)])
def test_a_call_that_is_not_let_out_is_a_failure_or_a_reply(via: Any, failure: type) -> None:
    step = make(Resolution(via, "so it is")).exchange.start(0.0)
    assert isinstance(step, Fail)
    assert step.failure is failure
    step = make(Resolution(via, "so it is"), config=Config(failures="respond")).exchange.start(0.0)
    assert isinstance(step, Reply)
    assert step.response.status == 503


def test_a_pass_through_cluster_is_direct_within_the_routes_time() -> None:
    world = make(
        routed(Forward(cluster="c", timeout=3.0)), cluster=Cluster("c", discovery=Discovery.ORIGINAL_DST)
    )
    step = world.exchange.start(10.0)
    assert isinstance(step, Direct)
    assert step.deadline == 13.0
    assert world.exchange.info(10.0).via == "direct"  # type: ignore[union-attr]
    assert [type(event).__name__ for event in world.events] == ["CallEnded", "AttemptStarted"]


def test_what_the_configuration_orders_is_a_reply_with_its_info() -> None:
    step = make(routed(DirectResponse(418))).exchange.start(0.0)
    assert isinstance(step, Reply)
    assert step.response.status == 418
    assert step.info is not None
    assert step.info.route == "r"


# --- a sidecar ---------------------------------------------------------------------------------------------------------------


def handed(way: str) -> Resolution:
    """To a sidecar's own listener, or redirected to it."""
    made = routed() if way == "listener" else Resolution("sidecar", "it is redirected")
    made.handed = Sidecar(
        kind="envoy", mode="listener" if way == "listener" else "transparent", state="ready"
    )
    return made


@pytest.mark.parametrize("way", ["listener", "redirected"])
@pytest.mark.parametrize("kind", OutcomeKind)
@pytest.mark.parametrize("sent", [False, True])
def test_a_call_is_carried_on_once_where_its_sidecar_could_not_be_connected_to_and_got_nothing(
    way: str, kind: OutcomeKind, sent: bool
) -> None:
    if kind in (OutcomeKind.OK, OutcomeKind.STATUS):
        return  # it is an answer
    world = make(handed(way), settled=handed(way))
    step = world.exchange.start(0.0)
    assert isinstance(step, Send | Direct)
    step = world.exchange.failed(step, Outcome(kind, sent=sent), 0.1)
    assert world.process.suspicions == (kind in (OutcomeKind.CONNECT, OutcomeKind.RESET))
    if kind is not OutcomeKind.CONNECT or sent:
        assert isinstance(step, Fail)
        return
    assert isinstance(step, Wait)
    step = world.exchange.woke(0.2)  # the verdict: it is there
    assert isinstance(step, Send | Direct)
    assert isinstance(world.exchange.failed(step, Outcome(kind, sent=sent), 0.3), Fail)


def test_a_call_whose_sidecar_went_away_goes_by_what_holds_then() -> None:
    world = make(handed("listener"), settled=routed())
    step = world.exchange.start(0.0)
    assert isinstance(step, Send)
    assert isinstance(world.exchange.failed(step, Outcome(OutcomeKind.CONNECT), 0.1), Wait)
    step = world.exchange.woke(0.2)
    assert isinstance(step, Send)
    assert isinstance(world.exchange.arrived(step, 200, Headers(), "1.1", "", 0.3), Deliver)
    info = world.exchange.info(0.3)
    assert info is not None
    assert (info.via, [attempt.outcome for attempt in info.attempts]) == ("mesh", ["ok"])


# --- waiting for the control plane ------------------------------------------------------------------------------------------


def waiting(otherwise: Resolution) -> Resolution:
    return Resolution("wait", "not heard yet", name="reviews", otherwise=otherwise)


def test_what_is_not_known_yet_is_waited_for_and_then_carried_by_whom_it_is_known_to() -> None:
    world = make(waiting(direct()), waiting(direct()), routed(), settled=routed())
    step = world.exchange.start(10.0)
    assert isinstance(step, Wait)
    assert step.until == 11.0
    assert world.process.wanted == ["reviews"]
    assert not step.ready(world.process.view)
    assert step.ready(world.process.view)
    assert isinstance(world.exchange.woke(10.4), Send)


def test_where_there_is_no_time_to_wait_what_holds_otherwise_holds_at_once() -> None:
    world = make(waiting(direct()), settled=direct(), deadline=10.0)
    step = world.exchange.start(10.0)
    assert isinstance(step, Fail), "its deadline is over, too"
    world = make(waiting(direct()), settled=direct())
    world.process.seconds = 0.0
    assert isinstance(world.exchange.start(10.0), Direct)


def test_a_cluster_that_has_not_come_is_waited_for_until_another_view_is_there() -> None:
    world = make(routed(), settled=routed())
    world.process.env.upstream = lambda part, name: ""
    step = world.exchange.start(0.0)
    assert isinstance(step, Wait)
    view = world.process.view
    assert not step.ready(view)
    assert step.ready(View([routed()]))  # type: ignore[arg-type]


# --- attempts begin once and end once ---------------------------------------------------------------------------------------

RETRY = RetryPolicy(frozenset({"5xx", "connect-failure"}), retries=2)


def test_each_attempt_of_a_call_is_told_once() -> None:
    world = make(routed(Forward(cluster="c", retry=RETRY)))
    exchange = world.exchange
    step = exchange.start(0.0)
    assert isinstance(step, Send)
    first = step.key
    assert isinstance(exchange.failed(step, Outcome(OutcomeKind.CONNECT), 0.1), Sleep)
    step = exchange.woke(0.2)
    assert isinstance(step, Send)
    second = step.key
    exchange.arrived(step, 200, Headers(), "1.1", "", 0.3)
    exchange.close(0.4)
    assert world.told == [
        ("AttemptStarted", first),
        ("AttemptEnded", first),
        ("AttemptStarted", second),
        ("AttemptEnded", second),
    ]
    assert [pick.released for pick in world.cluster.picks] == [1, 1]


@pytest.mark.parametrize("what", ["a send", "a direct call", "a sleep"])
def test_a_cancelled_call_ends_its_attempt_once_and_holds_nothing(what: str) -> None:
    world = make(direct() if what == "a direct call" else routed(Forward(cluster="c", retry=RETRY)))
    exchange = world.exchange
    step = exchange.start(0.0)
    if what == "a sleep":
        assert isinstance(step, Send)
        step = exchange.failed(step, Outcome(OutcomeKind.CONNECT), 0.1)
    exchange.cancel(step, KeyboardInterrupt(), sent=True, now=0.5)
    exchange.cancel(step, KeyboardInterrupt(), sent=True, now=0.6)
    assert [name for name, _ in world.told] == ["AttemptStarted", "AttemptEnded"]
    assert all(pick.released == 1 for pick in world.cluster.picks)


def test_nothing_is_told_where_nobody_observes() -> None:
    world = make(routed(), observed=False)
    step = world.exchange.start(0.0)
    assert isinstance(step, Send)
    assert step.key == 0
    assert isinstance(world.exchange.arrived(step, 200, Headers(), "1.1", "", 0.1), Deliver)


# --- ends -------------------------------------------------------------------------------------------------------------------


def test_a_limit_of_our_own_is_overloaded_and_says_nothing_of_the_endpoint() -> None:
    world = make(routed(Forward(cluster="c", retry=RETRY)))
    step = world.exchange.start(0.0)
    assert isinstance(step, Send)
    end = world.exchange.failed(step, Outcome(OutcomeKind.OVERFLOW, error=Overloaded("full")), 0.1)
    assert isinstance(end, Fail)
    assert end.failure is Overloaded
    assert end.info is not None
    assert end.info.attempts[0].outcome == "refused"


def test_a_failure_is_told_as_a_response_where_that_is_ordered() -> None:
    world = make(routed(), config=Config(failures="respond"))
    step = world.exchange.start(0.0)
    assert isinstance(step, Send)
    end = world.exchange.failed(step, Outcome(OutcomeKind.PROTOCOL, detail="no HTTP"), 0.1)
    assert isinstance(end, Reply)
    assert end.response.status == 502


def test_a_direct_calls_own_error_is_the_callers_unless_the_deadline_ended_it() -> None:
    for late, failure in ((False, None), (True, DeadlineExceeded)):
        world = make(direct(), deadline=5.0)
        step = world.exchange.start(0.0)
        assert isinstance(step, Direct)
        assert step.deadline == 5.0
        end = world.exchange.failed(step, Outcome(OutcomeKind.TIMEOUT, late=late), 5.0)
        assert isinstance(end, Fail)
        assert end.failure is failure


def test_a_deadline_that_is_over_sends_nothing() -> None:
    world = make(direct(), deadline=5.0)
    end = world.exchange.start(5.0)
    assert isinstance(end, Fail)
    assert end.failure is DeadlineExceeded
    assert not world.events


def test_a_cluster_that_is_not_there_fails_with_the_plans_words() -> None:
    world = make(routed())
    world.process.env.upstream = lambda part, name: "is not known"
    end = world.exchange.start(0.0)
    assert isinstance(end, Fail)
    assert end.failure is NoHealthyEndpoint
    assert "is not known" in end.message


# --- an RPC as a whole ------------------------------------------------------------------------------------------------------


def rpc(*means: Resolution, **more: Any) -> World:
    return make(*means, grpc=True, target="dns:///reviews", registered=True, **more)


@pytest.mark.parametrize("means", [routed, direct])
def test_an_rpc_is_told_from_its_begin_to_its_last_message(means: Any) -> None:
    world = rpc(means())
    step = world.exchange.start(1.0)
    assert isinstance(step, Send | Direct)
    assert isinstance(world.exchange.arrived(step, 0, None, GRPC, "", 1.25), Deliver)
    begun, started = world.events
    assert begun == CallStarted(begun.key, "", True, "dns:///reviews", "reviews")
    assert started.call == begun.key != started.key
    world.exchange.close(1.5)
    world.exchange.close(1.75)
    read, ended = world.events[2:]
    assert (read.key, read.outcome.status, read.outcome.seconds) == (started.key, 0, 0.5)
    assert (ended.key, ended.outcome.status, ended.seconds) == (begun.key, 0, 0.5)
    assert ended.info is not None


def test_a_stream_that_breaks_ends_its_attempt_by_that() -> None:
    world = rpc(routed())
    step = world.exchange.start(0.0)
    assert isinstance(step, Send)
    world.exchange.arrived(step, 0, None, GRPC, "", 0.25)
    broken = Outcome(OutcomeKind.RESET, sent=True, grpc=True)
    world.exchange.close(1.0, broken)
    _, _, read, ended = world.events
    assert (read.outcome.kind, read.outcome.seconds) == (OutcomeKind.RESET, 1.0)
    assert ended.outcome is broken


def test_an_answer_that_is_no_message_ends_its_attempt_at_once() -> None:
    world = rpc(routed())
    step = world.exchange.start(0.0)
    assert isinstance(step, Send)
    world.exchange.arrived(step, 5, None, GRPC, "", 0.25)
    assert isinstance(world.events[-1], AttemptEnded)
    world.exchange.close(1.0)
    assert [type(event).__name__ for event in world.events[2:]] == ["AttemptEnded", "CallEnded"]
    assert world.events[-1].outcome.status == 5


@pytest.mark.parametrize("read", [False, True])
def test_an_rpc_that_is_given_up_ends_once_with_its_attempt(read: bool) -> None:
    world = rpc(routed())
    step = world.exchange.start(0.0)
    assert isinstance(step, Send)
    if read:
        world.exchange.arrived(step, 0, None, GRPC, "", 0.25)
    error = KeyboardInterrupt()
    world.exchange.cancel(None if read else step, error, True, 0.5)
    world.exchange.close(0.75)
    assert [type(event).__name__ for event in world.events[2:]] == ["AttemptEnded", "CallEnded"]
    for event in world.events[2:]:
        assert (event.outcome.kind, event.outcome.error) == (OutcomeKind.CANCELLED, error)


def test_an_rpc_that_fails_ends_by_what_is_raised() -> None:
    world = rpc(Resolution("failed", "no"))
    step = world.exchange.start(0.0)
    assert isinstance(step, Fail)
    assert [type(event) for event in world.events] == [CallStarted]
    error = NoHealthyEndpoint("no")
    world.exchange.cancel(step, error, False, 0.5)
    ended = world.events[-1]
    assert (ended.outcome.kind, ended.outcome.error, ended.seconds) == (OutcomeKind.REFUSED, error, 0.5)


def test_an_rpc_that_waits_for_ready_waits_as_long_as_nothing_is_known() -> None:
    """CA-09: however hopeless; looked at again each minute, within its deadline."""
    hopeless = Resolution("wait", "not there yet", name="reviews", otherwise=direct(), hopeless=True)
    world = rpc(hopeless, settled=direct(), patient=True, deadline=100.0)
    step = world.exchange.start(10.0)
    assert isinstance(step, Wait)
    assert step.until == 70.0
    assert not step.ready(world.process.view)
    step = world.exchange.woke(70.0)
    assert isinstance(step, Wait)
    assert step.until == 100.0
    assert len(world.reads) == 1
    end = world.exchange.woke(100.0)
    assert isinstance(end, Fail)
    assert end.failure is DeadlineExceeded
    world.process.view.means = [routed()]
    assert step.ready(world.process.view)


def test_an_rpc_whose_deadline_ends_while_it_waits_has_that_for_its_end() -> None:
    world = rpc(waiting(direct()), settled=direct(), deadline=10.5)
    assert isinstance(world.exchange.start(10.0), Wait)
    end = world.exchange.woke(10.5)
    assert isinstance(end, Fail)
    assert end.failure is DeadlineExceeded


def test_an_rpc_goes_past_the_mesh_only_where_that_is_known_to_be_meant() -> None:
    unanswered = Resolution("direct", "not answered: it is called directly", name="reviews", unanswered=True)
    for means, more, failure in ((unanswered, {}, NotReady), (direct(), {"strict": True}, UnknownService)):
        end = rpc(means, **more).exchange.start(1.0)
        assert isinstance(end, Fail)
        assert end.failure is failure
    assert isinstance(rpc(direct()).exchange.start(1.0), Direct)


def test_nothing_is_told_of_an_rpc_where_nobody_observes() -> None:
    world = rpc(routed(), observed=False)
    step = world.exchange.start(0.0)
    assert isinstance(step, Send)
    world.exchange.arrived(step, 0, None, GRPC, "", 0.25)
    world.exchange.close(0.5)
    assert world.exchange.call.key == 0
    assert not world.events
