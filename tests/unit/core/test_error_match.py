"""Which responses count as errors. Beside a real Envoy: tests/e2e/oracle/test_cluster_policies.py."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.core.classify import verdict
from meshlib.core.error_match import ErrorMatch
from meshlib.model.call import Outcome, OutcomeKind
from meshlib.model.headers import Headers
from meshlib.model.match import HeaderMatch, StringKind, StringMatch
from meshlib.model.policy import MatchKind, ResponseMatch

EVERYTHING = ResponseMatch(MatchKind.EVERYTHING)
NOTHING = ResponseMatch(MatchKind.NOT, (EVERYTHING,))


def headers(*matches: HeaderMatch) -> ResponseMatch:
    return ResponseMatch(MatchKind.HEADERS, headers=matches)


def answer(status: int = 200, *lines: tuple[str, str]) -> Outcome:
    return Outcome(OutcomeKind.OK, status, Headers.of(*lines))


IS_503 = headers(HeaderMatch(":status", StringMatch(StringKind.EXACT, "503")))
IS_BAD = headers(
    HeaderMatch("x-bad", present=True), HeaderMatch("x-kind", StringMatch(StringKind.PREFIX, "a"))
)


@pytest.mark.parametrize(
    ("match", "outcome", "good"),
    [
        (IS_503, answer(503), False),
        (IS_503, answer(500), True),
        (IS_BAD, answer(200, ("X-Bad", "1"), ("x-kind", "abc")), False),
        (IS_BAD, answer(200, ("x-bad", "1")), True),
        (IS_BAD, Outcome(OutcomeKind.OK, 500), True),
        (ResponseMatch(MatchKind.ANY, (IS_503, IS_BAD)), answer(503), False),
        (ResponseMatch(MatchKind.ALL, (IS_503, IS_BAD)), answer(503), True),
        (ResponseMatch(MatchKind.NOT, (IS_503,)), answer(200), False),
        (EVERYTHING, answer(200), False),
        (NOTHING, answer(503), True),
    ],
)
def test_what_is_matched_is_a_500_and_all_else_a_200(match, outcome, good):
    made = ErrorMatch(match).verdict(outcome)
    assert (made.good, made.status) == (good, 200 if good else 500)


@pytest.mark.parametrize(
    "kind", [each for each in OutcomeKind if each not in (OutcomeKind.OK, OutcomeKind.STATUS)]
)
def test_an_attempt_without_an_answer_is_what_it_is(kind):
    outcome = Outcome(kind)
    assert ErrorMatch(NOTHING).verdict(outcome) == verdict(outcome)
    assert ErrorMatch(EVERYTHING).verdict(Outcome(OutcomeKind.OK, 0, grpc=True)).good is True


trees = st.recursive(
    st.sampled_from((EVERYTHING, NOTHING, IS_503)),
    lambda inner: st.one_of(
        inner.map(lambda one: ResponseMatch(MatchKind.NOT, (one,))),
        st.tuples(
            st.sampled_from((MatchKind.ALL, MatchKind.ANY)), st.lists(inner, min_size=2, max_size=3)
        ).map(lambda pair: ResponseMatch(pair[0], tuple(pair[1]))),
    ),
)


def holds(match: ResponseMatch, status: int) -> bool:
    if match.kind is MatchKind.EVERYTHING:
        return True
    if match.kind is MatchKind.HEADERS:
        return status == 503
    inner = [holds(one, status) for one in match.inner]
    return {MatchKind.NOT: not inner[0], MatchKind.ALL: all(inner), MatchKind.ANY: any(inner)}[match.kind]


@given(trees, st.sampled_from((200, 503)))
def test_trees_say_what_their_parts_say(match, status):
    assert ErrorMatch(match).verdict(answer(status)).good is not holds(match, status)
