"""What a control plane owes to a stream: the rules of the protocol, from the server's side."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.testing.ads_state import Delta, Sotw, State
from meshlib.xds import schema

CLUSTER, ENDPOINT = schema.CLUSTER, schema.ENDPOINT


def state(*names, url=CLUSTER):
    made = State()
    made.replace([(url, name, name.encode()) for name in names], None)
    return made


def given_names(response):
    return None if response is None else [stored.name for stored in response.resources]


class Client:
    """A state-of-the-world client of one type, which acknowledges what it gets."""

    def __init__(self, url=CLUSTER, **options):
        self.sotw = Sotw(url, **options)
        self.nonces = 0
        self.version = ""

    def took(self, response):
        if response is not None:
            self.nonces += 1
            self.sotw.nonce = str(self.nonces)
            self.version = response.version
        return response

    def ask(self, made, *names, nonce=None):
        return self.took(
            self.sotw.request(names, self.version, self.sotw.nonce if nonce is None else nonce, made)
        )

    def changed(self, made):
        return self.took(self.sotw.changed(made))


class TestState:
    def test_replace_tells_the_types_in_which_something_changed(self):
        made = state("a", "b")
        assert made.replace([(CLUSTER, "a", b"a"), (CLUSTER, "b", b"b")], None) == []
        assert made.replace([(CLUSTER, "a", b"a"), (CLUSTER, "b", b"new"), (ENDPOINT, "e", b"")], None) == [
            CLUSTER,
            ENDPOINT,
        ]
        versions = {name: stored.version for name, stored in made.resources[CLUSTER].items()}
        assert versions["a"] != versions["b"] == made.versions[CLUSTER]

    def test_update_gives_a_new_version_even_to_the_same(self):
        made = state("a")
        before = made.resources[CLUSTER]["a"].version
        assert made.update([(CLUSTER, "a", b"a")], None) == [CLUSTER]
        assert made.resources[CLUSTER]["a"].version != before
        made.update([(CLUSTER, "a", b"a")], "odd")
        assert made.versions[CLUSTER] == "odd"

    def test_what_refers_comes_after_what_it_refers_to(self):
        urls = [schema.ROUTE, schema.LISTENER, ENDPOINT, CLUSTER, "x/y.Z"]
        order = State().update([(url, "a", b"") for url in urls], None)
        assert order == [CLUSTER, ENDPOINT, schema.LISTENER, schema.ROUTE, "x/y.Z"]

    def test_removing_what_is_not_there(self):
        with pytest.raises(KeyError):
            state("a").remove(CLUSTER, ["b"], None)


class TestSotw:
    def test_an_empty_first_request_is_a_wildcard(self):  # SW-17
        client = Client()
        assert given_names(client.ask(state("a", "b"))) == ["a", "b"]
        assert client.ask(state("a", "b")) is None  # the ACK

    def test_a_wildcard_is_answered_though_there_is_nothing(self):
        assert given_names(Client().ask(State())) == []

    def test_star_and_names(self):  # SW-17
        client, made = Client(), state("a", "b")
        assert given_names(client.ask(made, "*", "z")) == ["a", "b"]
        assert client.ask(made, "a") is None
        made.update([(CLUSTER, "b", b"2")], None)
        assert client.changed(made) is None

    def test_names_after_a_wildcard_then_none_is_no_wildcard(self):  # SW-16
        client, made = Client(), state("a", "b")
        assert given_names(client.ask(made, "a")) == ["a"]
        client.ask(made)
        made.update([(CLUSTER, "a", b"2")], None)
        assert client.changed(made) is None

    def test_a_name_that_is_not_there_is_not_answered_until_it_is(self):  # SW-15
        client, made = Client(), State()
        assert client.ask(made, "a") is None
        made.update([(CLUSTER, "a", b"")], None)
        assert given_names(client.changed(made)) == ["a"]

    def test_what_is_gone_is_missing_in_full_state_types(self):  # SW-14
        client, made = Client(), state("a", "b")
        client.ask(made, "a", "b")
        made.remove(CLUSTER, ["a"], None)
        assert given_names(client.changed(made)) == ["b"]
        made.remove(CLUSTER, ["b"], None)
        assert given_names(client.changed(made)) == []

    def test_nothing_is_said_of_what_is_gone_in_the_other_types(self):  # SW-14
        client, made = Client(ENDPOINT), state("a", "b", url=ENDPOINT)
        client.ask(made, "a", "b")
        made.remove(ENDPOINT, ["a"], None)
        assert client.changed(made) is None

    def test_no_names_of_the_other_types_is_no_wildcard(self):
        client, made = Client(ENDPOINT), state("a", url=ENDPOINT)
        assert client.ask(made) is None
        assert given_names(client.ask(made, "a")) == ["a"]

    def test_a_stale_nonce_is_ignored(self):  # CP-03
        client, made = Client(), state("a", "b")
        client.ask(made, "a")
        assert client.ask(made, "a", "b", nonce="old") is None
        assert given_names(client.ask(made, "a", "b")) == ["a", "b"]

    def test_only_what_is_new_where_answers_are_partial(self):
        client, made = Client(ENDPOINT, partial=True), state("a", "b", url=ENDPOINT)
        assert given_names(client.ask(made, "a")) == ["a"]
        assert given_names(client.ask(made, "a", "b")) == ["b"]
        client = Client(CLUSTER, partial=True)
        client.ask(state("a", "b"), "a")
        assert given_names(client.ask(state("a", "b"), "a", "b")) == ["a", "b"]

    def test_a_newest_version_needs_no_answer_where_none_is_resent(self):  # EX-04
        made = state("a")
        client = Client(resend=False)
        client.version = made.versions[CLUSTER]
        assert client.ask(made, "a") is None
        made.update([(CLUSTER, "a", b"2")], None)
        assert given_names(client.changed(made)) == ["a"]
        other = Client(resend=False)
        assert given_names(other.ask(made, "a")) == ["a"]

    def test_who_brings_an_old_version_is_told_what_is_gone(self):  # SW-14
        made = state("a")
        client = Client()
        client.version = made.versions[CLUSTER]
        made.remove(CLUSTER, ["a"], None)
        assert given_names(client.ask(made, "a")) == []
        assert Client().ask(made, "a") is None

    def test_all_of_it_again(self):
        client, made = Client(), state("a")
        assert client.sotw.again(made) is None  # nobody asked yet
        client.ask(made, "a")
        assert client.changed(made) is None
        assert given_names(client.sotw.again(made)) == ["a"]


class TestDelta:
    def ask(self, delta, made, *subscribe, drop=(), initial=None):
        response = delta.request(subscribe, drop, initial or {}, made)
        return None if response is None else (given_names(response), list(response.removed))

    def changed(self, delta, made):
        response = delta.changed(made)
        return None if response is None else (given_names(response), list(response.removed))

    def test_only_differences_are_sent(self):  # DL-05
        delta, made = Delta(CLUSTER), state("a", "b", "c")
        assert self.ask(delta, made, "a", "b") == (["a", "b"], [])
        made.update([(CLUSTER, "b", b"2"), (CLUSTER, "c", b"2")], None)
        assert self.changed(delta, made) == (["b"], [])
        made.remove(CLUSTER, ["a"], None)
        assert self.changed(delta, made) == ([], ["a"])
        assert self.changed(delta, made) is None

    def test_a_name_that_is_not_there_is_removed_at_once(self):  # DL-06
        delta, made = Delta(ENDPOINT), State()
        assert self.ask(delta, made, "a") == ([], ["a"])
        made.update([(ENDPOINT, "a", b"")], None)
        assert self.changed(delta, made) == (["a"], [])

    def test_what_the_client_holds_is_not_sent_again(self):  # DL-02
        made = state("a", "b")
        held = {"a": made.resources[CLUSTER]["a"].own_version, "gone": "1"}
        assert self.ask(Delta(CLUSTER), made, "a", "b", "gone", initial=held) == (["b"], ["gone"])
        assert self.ask(Delta(CLUSTER), made, initial=held) == (["b"], ["gone"])

    def test_subscribing_again_sends_again(self):  # DL-12
        delta, made = Delta(CLUSTER), state("a", "b")
        self.ask(delta, made, "a", "b")
        assert self.ask(delta, made, "a") == (["a"], [])

    def test_wildcard(self):  # DL-09
        delta, made = Delta(CLUSTER), state("a", "b")
        assert self.ask(delta, made) == (["a", "b"], [])
        assert self.ask(delta, made) is None  # an ACK
        assert self.ask(delta, made, "a") == (["a"], [])
        assert self.ask(delta, made, drop=["a"]) == (["a"], [])
        assert self.ask(delta, made, drop=["zz"]) == ([], ["zz"])
        self.ask(delta, made, "b")
        assert self.ask(delta, made, drop=["*"]) is None
        made.update([(CLUSTER, "a", b"2"), (CLUSTER, "b", b"2")], None)
        assert self.changed(delta, made) == (["b"], [])

    def test_a_wildcard_is_answered_though_there_is_nothing(self):
        assert self.ask(Delta(CLUSTER), State(), "*") == ([], [])
        assert self.ask(Delta(ENDPOINT), State()) is None

    def test_what_is_unsubscribed_is_not_sent(self):
        delta, made = Delta(CLUSTER), state("a", "b")
        self.ask(delta, made, "a", "b")
        assert self.ask(delta, made, drop=["b"]) is None
        made.remove(CLUSTER, ["b"], None)
        assert self.changed(delta, made) is None


names = st.sets(st.sampled_from("abcd"))
steps = st.lists(
    st.tuples(st.just("ask"), names) | st.tuples(st.just("put"), names) | st.tuples(st.just("take"), names),
    max_size=12,
)


@given(steps)
def test_a_client_of_either_protocol_ends_with_what_is_there(script):
    """Whatever is asked, put and taken: each client holds just what it asked for and the server has."""
    made, client, sotw, delta, held, asked = State(), Client(), {}, Delta(CLUSTER), {}, set()

    def apply(answer, difference):
        if answer is not None:
            sotw.clear()
            sotw.update((stored.name, stored.version) for stored in answer.resources)
        if difference is not None:
            held.update((stored.name, stored.version) for stored in difference.resources)
            for name in difference.removed:
                held.pop(name, None)

    client.ask(made, "none")
    delta.request(["none"], [], {}, made)
    for what, chosen in script:
        if what == "ask":
            added, dropped, asked = chosen - asked, asked - chosen, set(chosen)
            for name in dropped:
                held.pop(name, None)
                sotw.pop(name, None)
            apply(client.ask(made, "none", *asked), delta.request(added, dropped, {}, made))
        else:
            if what == "put":
                made.update([(CLUSTER, name, b"") for name in chosen], None)
            else:
                made.remove(CLUSTER, chosen & made.resources.get(CLUSTER, {}).keys(), None)
            apply(client.changed(made), delta.changed(made))
        there = {
            name: stored.version for name, stored in made.resources.get(CLUSTER, {}).items() if name in asked
        }
        assert held == there
        assert sotw == there
