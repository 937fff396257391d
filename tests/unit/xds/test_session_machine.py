"""The session under a server, a network and an application that do what they like."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from meshlib.model.cluster import Discovery
from meshlib.model.route import Forward
from meshlib.testing import build
from meshlib.xds import schema
from meshlib.xds.decode import TYPES
from meshlib.xds.session import Session
from tests.support.matchers import chain_named
from tests.support.xds_kit import NODE, REQUEST, packed, response

NAMES = ["a", "b", "c"]
SHORTS = [kind.short for kind in TYPES]
name = st.sampled_from(NAMES)
_FILTERS = "type.googleapis.com/envoy.extensions.filters.http."
TLS = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
CA = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----"
CORS, RBAC = f"{_FILTERS}cors.v3.Cors", f"{_FILTERS}rbac.v3.RBAC"


def _hosts(draw):
    used = draw(st.lists(name, unique=True, max_size=3))
    return [
        build.virtual_host(f"v{each}", build.route(cluster=draw(name)), domains=[each] if draw(st.booleans()) else [each, f"*.{each}"])
        for each in used
    ]  # fmt: skip


def _extension(own, kind):
    """A filter's configuration of that type."""
    held = {"type_url": kind, "value": {}}
    return build.any_of(
        "envoy.config.core.v3.TypedExtensionConfig",
        {"name": own, "typed_config": build.any_of("udpa.type.v1.TypedStruct", held)},
    )


def _led_to(own, chain, source):
    """A listener whose only filter chain comes by itself."""
    made = build.listener(
        own, "r", fcds_config=source, filter_chain_matcher={"on_no_match": chain_named(chain)}
    )
    del made["filter_chains"]
    return made


def _host(domain, cluster):
    return build.virtual_host(f"v{domain}", build.route(cluster=cluster), domains=[domain])


def _demanding(named):
    """A transport socket with a secret of that name."""
    secret = {"validation_context_sds_secret_config": {"name": named, "sds_config": {"ads": {}}}}
    return {"name": "tls", "typed_config": build.any_of(TLS, {"common_tls_context": secret})}


@st.composite
def resources(draw, short, own=None):
    """A resource, good or bad; unless its name is given, maybe bytes that are none."""
    if own is None and draw(st.integers(0, 9)) == 0:
        return schema.message("google.protobuf.Any")(
            type_url=draw(st.sampled_from([schema.TYPE_URLS[short], schema.SECRET])),
            value=draw(st.binary(max_size=9)),
        )
    own, wrong = own or draw(name), draw(st.integers(0, 7)) == 0
    if short == "listener":
        routes = draw(name) if draw(st.booleans()) else build.route_config("inline", *_hosts(draw))
        make = draw(st.sampled_from([build.api_listener, build.listener]))
        filters = []
        if make is build.listener and draw(st.integers(0, 3)) == 0:
            return packed(_led_to(own, draw(name), {} if wrong else {"config_source": {"ads": {}}}))
        if make is build.listener and draw(st.booleans()):
            source = {"config_source": {"ads": {}}, "type_urls": [CORS, RBAC]}
            filters = [{"name": draw(name), "config_discovery": source}]
        manager = {"http_filters": []} if wrong else {}
        return packed(make(own, routes, filters=filters, manager=manager))
    if short == "route":
        return packed(build.route_config(own, *_hosts(draw), **({"vhds": {}} if wrong else {})))
    if short == "cluster":
        if draw(st.booleans()):
            fields = {"transport_socket": _demanding(draw(name))} if draw(st.booleans()) else {}
            return packed(build.cluster(own, ["10.0.0.1:80"], connect_timeout=0 if wrong else 1, **fields))
        return packed(build.cluster(own, service_name=draw(name), connect_timeout=draw(st.integers(1, 2))))
    if short == "extension":
        return packed(_extension("" if wrong else own, draw(st.sampled_from([CORS, RBAC]))))
    if short == "filter_chain":
        routes = draw(name) if draw(st.booleans()) else build.route_config("inline", *_hosts(draw))
        return packed(build.filter_chain("" if wrong else own, routes))
    if short == "secret":
        return packed(build.secret(own, ca="none" if wrong else CA))
    return packed(build.endpoints(own, f"10.0.0.{draw(st.integers(0, 3))}:{0 if wrong else 80}"))


class Stream(RuleBasedStateMachine):
    @initialize(view=st.sampled_from(["auto", "sidecar", "target"]), begun=st.booleans())
    def start(self, view, begun):
        self.now = 0.0
        self.session = Session(NODE, view=view, jitter=lambda: 0.5)
        self.open = False
        self.owed = {short: [] for short in SHORTS}
        self.said = {short: [] for short in SHORTS}
        self.asked = {}
        self.nonce = 0
        self.world = {
            "listener": {"a": packed(build.api_listener("a", "a")), "b": packed(build.listener("b", "b"))},
            "route": {
                each: packed(build.route_config(each, _host(each, "a"), _host("x", each))) for each in NAMES
            },
            "cluster": {
                "a": packed(build.cluster("a", transport_socket=_demanding("a"))),
                **{each: packed(build.cluster(each)) for each in NAMES[1:]},
            },
            "endpoint": {each: packed(build.endpoints(each, "10.0.0.1:80")) for each in NAMES},
            "extension": {"a": packed(_extension("a", CORS))},
            "filter_chain": {"a": packed(build.filter_chain("a", "a"))},
            "secret": {"a": packed(build.secret("a", ca=CA))},
        }
        self.session.want("a")
        self.connect()
        if begun:
            self.serve(SHORTS, 4)
            part = self.session.part
            assert set(part.targets) == (set() if view == "sidecar" else {"a"})
            assert len(part.sidecar) == (0 if view == "target" else 1)

    @rule(data=st.data(), short=st.sampled_from(SHORTS))
    def change(self, data, short):
        """The server means something else from now on; it says so when it serves."""
        own = data.draw(name)
        if data.draw(st.integers(0, 4)) == 0:
            self.world[short].pop(own, None)
        else:
            self.world[short][own] = data.draw(resources(short, own))

    @rule(order=st.permutations(SHORTS), rounds=st.integers(1, 4))
    def serve(self, order, rounds):
        """A server that does its work: it answers what it is asked, in some order of the types."""
        for _ in range(rounds):
            self.write()
            for short in order:
                names = self.asked.get(short)
                if not self.open or names is None:
                    continue
                wild = "*" in names or (not names and short in ("listener", "cluster"))
                given = [each for own, each in self.world[short].items() if wild or own in names]
                self._send(short, given, "7")
                self.write()

    @rule(wanted=name)
    def want(self, wanted):
        self.session.want(wanted)

    @rule(wanted=name)
    def forget(self, wanted):
        self.session.forget(wanted)

    @rule()
    def connect(self):
        if not self.open:
            self.session.opened(self.now)
            self.open, self.asked = True, {}

    @rule(error=st.sampled_from(["", "gone"]))
    def lose(self, error):
        delay = self.session.closed(self.now, error)
        assert 0.8 <= delay <= 144
        self.open = False
        self.owed = {short: [] for short in SHORTS}
        self.said = {short: [] for short in SHORTS}

    @rule(seconds=st.sampled_from([0.0, 0.05, 1.0, 15.0, 40.0]))
    def wait(self, seconds):
        self.now += seconds
        self.session.tick(self.now)
        self.write()
        due = self.session.next_timer()
        assert due is None or due > self.now

    @rule()
    def write(self):
        """Everything owed is paid: one answer for each response, in order, and requests that a server can follow."""
        for raw in self.session.outgoing(self.now):
            assert self.open
            request = REQUEST.FromString(raw)
            short = schema.SHORT_NAMES[request.type_url]
            assert request.HasField("node")
            names = list(request.resource_names)
            assert len(set(names)) == len(names)
            if short not in self.asked:
                assert not request.response_nonce  # ST-08
                assert names or (short in ("listener", "cluster") and self.session.view != "target")  # SW-16
            self._paid(short, request, names)
            self.asked[short] = names
        assert self.session.outgoing(self.now) == []
        # The same answer again is held back for a while, the newest only; all else is told at once.
        assert all(len(owed) < 2 for owed in self.owed.values())
        assert all(self.said[short].count(owed[0][1:]) > 1 for short, owed in self.owed.items() if owed)

    def _paid(self, short, request, names):
        owed = self.owed[short]
        if owed:
            nonce, version, error = owed.pop(0)
            assert request.response_nonce == nonce
            assert request.error_detail.message == error
            assert error or request.version_info == version
            assert not error or names == self.asked[short]
        else:
            assert not request.HasField("error_detail")
            assert names != self.asked.get(short)

    @rule(data=st.data(), short=st.sampled_from(SHORTS), version=st.sampled_from("123"))
    def answer(self, data, short, version):
        self._send(short, data.draw(st.lists(resources(short), max_size=4)), version)

    def _send(self, short, given, version):
        self.nonce += 1
        nonce = f"n{self.nonce}"
        found = self.session.received(response(short, *given, version=version, nonce=nonce), self.now)
        if short in self.asked and self.open:
            assert found.type == short
            assert found.accepted == (not found.rejected)
            owed, said = self.owed[short], ("" if found.error else version, found.error)
            if owed and owed[-1][1:] == said and not (found.accepted and (found.updated or found.removed)):
                owed.pop()  # of the same answer only the newest is told
            owed.append((nonce, *said))
            self.said[short].append(said)
        else:
            assert found.type == ""

    @rule(data=st.binary(max_size=40))
    def garbage(self, data):
        try:
            parsed = schema.message("envoy.service.discovery.v3.DiscoveryResponse").FromString(data)
        except schema.DecodeError:
            parsed = None
        if parsed is None or parsed.type_url not in schema.SHORT_NAMES:
            assert self.session.received(data, self.now).type == ""

    @invariant()
    def what_is_in_force_is_whole(self):
        if not hasattr(self, "session"):
            return
        part = self.session.part
        for listener in (*part.sidecar, *part.targets.values()):
            for chain in listener.chains:
                self._check_routes(chain.http.routes if chain.http else None, part)
        for cluster in part.clusters.values():
            assert cluster.discovery is not Discovery.EDS or cluster.assignment is not None
            if cluster.tls is not None and self.session.cache.value("cluster", cluster.name) is not None:
                latest = self.session.cache.value("cluster", cluster.name)
                [secret] = latest.tls.secrets if latest.tls is not None else [None]
                if secret is not None and self.session.cache.failed("secret", secret.name):
                    assert cluster.tls.lacking
                elif secret is not None and self.session.cache.value("secret", secret.name) is not None:
                    assert cluster.tls.closed == ""
        assert part.absent.keys().isdisjoint(part.targets)
        assert part.lacking.keys().isdisjoint(part.clusters)
        for name, why in part.lacking.items():
            here = self.session.cache.value("cluster", name) is not None
            assert bool(why) == bool(self.session.cache.missing("cluster", name)) or (here and not why)

    def _check_routes(self, routes, part):
        """CA-02: of each cluster that a route in force names it is known whether calls go, wait or fail."""
        for host in routes.virtual_hosts if routes else ():
            for route in host.routes:
                if isinstance(route.action, Forward) and route.action.cluster:
                    assert route.action.cluster in part.clusters or route.action.cluster in part.lacking

    @invariant()
    def status_can_always_be_told(self):
        if hasattr(self, "session"):
            status = self.session.status(self.now)
            assert status.connected == self.open
            for wanted in NAMES:
                self.session.pending(wanted)

    def teardown(self):
        """Once nothing is wanted, nothing is asked for, and nothing is left in force (no index leaks)."""
        if not hasattr(self, "session"):
            return
        for wanted in NAMES:
            self.session.forget(wanted)
        if self.session.view == "target":
            interests = self.session._graph.interests()
            assert [
                short for short, interest in interests.items() if interest.names or interest.expected
            ] == []
            part = self.session.part
            assert (dict(part.targets), dict(part.clusters), part.absent) == ({}, {}, {})


TestStream = Stream.TestCase
TestStream.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
