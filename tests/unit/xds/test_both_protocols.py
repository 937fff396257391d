"""Random histories of updates, outages and interests: what is in force is the same by delta as by state of the world."""

from __future__ import annotations

from dataclasses import replace

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from meshlib.testing import build
from meshlib.testing.ads_state import Delta, Sotw, State
from meshlib.xds import schema
from meshlib.xds.graph import UPDATE
from meshlib.xds.machine import EXISTENCE_TIMEOUT
from meshlib.xds.session import Session
from tests.support.xds_kit import DELTA_REQUEST, NODE, REQUEST, delta_response, message, response

SHORTS = {url: short for short, url in schema.TYPE_URLS.items()}
NAMES = ["a", "b", "c"]
name = st.sampled_from(NAMES)


@st.composite
def resources(draw):
    """A resource with its name, good or bad."""
    short = draw(st.sampled_from(["listener", "route", "cluster", "endpoint"]))
    own, other, wrong = draw(name), draw(name), draw(st.integers(0, 5)) == 0
    if short == "listener":
        make = draw(st.sampled_from([build.api_listener, build.listener]))
        return own, make(own, other, manager={"http_filters": []} if wrong else {})
    if short == "route":
        hosts = [
            build.virtual_host(f"v{each}", build.route(cluster=draw(name)), domains=[each])
            for each in draw(st.lists(name, unique=True, max_size=3))
        ]
        return own, build.route_config(own, *hosts, **({"vhds": {}} if wrong else {}))
    if short == "cluster":
        timeout = "-1s" if wrong else f"{draw(st.integers(1, 2))}s"
        return own, build.cluster(own, service_name=draw(name), connect_timeout=timeout)
    return own, build.endpoints(own, f"10.0.0.{draw(st.integers(0, 3))}:{0 if wrong else 80}")


class Line:
    """A session of one protocol, and what a server owes to its stream."""

    def __init__(self, protocol, view, state):
        self.protocol = protocol
        self.state = state
        self.session = Session(NODE, view=view, protocol=protocol, jitter=lambda: 0.5)
        self.up = False
        self.types = {}
        self.nonce = 0

    def connect(self, now):
        self.session.opened(now)
        self.up, self.types = True, {}

    def lose(self, now):
        self.session.closed(now, "gone")
        self.up = False

    def pump(self, now):
        """Until neither side has anything to say."""
        while requests := self.session.outgoing(now):
            for raw in requests:
                self.answer(self.on_delta(raw) if self.protocol == "delta" else self.on_sotw(raw), now)

    def on_sotw(self, raw):
        asked = REQUEST.FromString(raw)
        first = asked.type_url not in self.types
        kept = self.types.setdefault(asked.type_url, Sotw(asked.type_url))
        made = kept.request(asked.resource_names, asked.version_info, asked.response_nonce, self.state)
        # As go-control-plane, it says on a new stream what there is, though that may be nothing.
        return kept.again(self.state) if first else made

    def on_delta(self, raw):
        asked = DELTA_REQUEST.FromString(raw)
        kept = self.types.setdefault(asked.type_url, Delta(asked.type_url))
        more, less = asked.resource_names_subscribe, asked.resource_names_unsubscribe
        return kept.request(more, less, asked.initial_resource_versions, self.state)

    def answer(self, made, now):
        if made is None:
            return
        self.nonce += 1
        nonce, short = f"n{self.nonce}", SHORTS[made.type_url]
        given = [schema.message("google.protobuf.Any")(type_url=each.type_url, value=each.value) for each in made.resources]  # fmt: skip
        if self.protocol == "sotw":
            self.types[made.type_url].nonce = nonce
            raw = response(short, *given, version=made.version, nonce=nonce)
        else:
            named = [(each.name, body) for each, body in zip(made.resources, given, strict=True)]
            versions = {each.name: each.own_version for each in made.resources}
            raw = delta_response(
                short, *named, removed=made.removed, version=made.version, nonce=nonce, versions=versions
            )
        self.session.received(raw, now)

    def changed(self, urls, now):
        for url in urls:
            if self.up and url in self.types:
                self.answer(self.types[url].changed(self.state), now)

    @property
    def in_force(self):
        part = self.session.part
        return {
            "targets": dict(part.targets),
            "sidecar": {each.name: each for each in part.sidecar},
            # Why there is nobody is each protocol's to say.
            "clusters": {name: replace(each, unassigned="") for name, each in part.clusters.items()},
            "absent": set(part.absent),
            "lacking": {name: bool(why) for name, why in part.lacking.items()},
            "listed": part.listed,
        }


class Histories(RuleBasedStateMachine):
    @initialize(view=st.sampled_from(["target", "sidecar", "auto"]))
    def start(self, view):
        self.now = 0.0
        self.state = State()
        self.lines = [Line(protocol, view, self.state) for protocol in ("sotw", "delta")]
        self.each(lambda line: line.session.want("a"))
        self.connect()

    def each(self, act):
        for line in self.lines:
            act(line)
            line.pump(self.now)

    @rule(given=st.lists(resources(), min_size=1, max_size=4))
    def update(self, given):
        packed = [
            (each["@type"], own, message(each).SerializeToString(deterministic=True)) for own, each in given
        ]
        urls = self.state.update({(url, own): (url, own, raw) for url, own, raw in packed}.values(), None)
        self.each(lambda line: line.changed(urls, self.now))

    @rule(data=st.data())
    def remove(self, data):
        held = sorted((url, own) for url, by_name in self.state.resources.items() for own in by_name)
        if held:
            url, own = data.draw(st.sampled_from(held))
            urls = self.state.remove(url, [own], None)
            self.each(lambda line: line.changed(urls, self.now))

    @rule(wanted=name)
    def want(self, wanted):
        self.each(lambda line: line.session.want(wanted))

    @rule(wanted=name)
    def forget(self, wanted):
        self.each(lambda line: line.session.forget(wanted))

    @rule()
    def lose(self):
        if self.lines[0].up:
            self.each(lambda line: line.lose(self.now))

    @rule()
    def connect(self):
        if not self.lines[0].up:
            self.each(lambda line: line.connect(self.now))

    @rule(seconds=st.sampled_from([0.5, EXISTENCE_TIMEOUT]))
    def wait(self, seconds):
        self.now += seconds
        self.each(lambda line: line.session.tick(self.now))

    @rule()
    def compare(self):
        """Once everything was said, and what was waited for came or did not."""
        self.connect()
        for seconds in (UPDATE, EXISTENCE_TIMEOUT, EXISTENCE_TIMEOUT, UPDATE):
            self.wait(seconds)
        sotw, delta = self.lines
        assert delta.in_force == sotw.in_force

    def teardown(self):
        if hasattr(self, "lines"):
            self.compare()


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
