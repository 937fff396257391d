import pytest

from meshlib.core.classify import CANCELLED, verdict
from meshlib.model.call import Outcome, OutcomeKind


@pytest.mark.parametrize(
    ("kind", "status", "good", "counts_as", "local", "gateway"),
    [
        (OutcomeKind.OK, 200, True, 200, False, False),
        (OutcomeKind.OK, 404, True, 404, False, False),
        (OutcomeKind.STATUS, 429, True, 429, False, False),
        (OutcomeKind.OK, 500, False, 500, False, False),
        (OutcomeKind.STATUS, 502, False, 502, False, True),
        (OutcomeKind.OK, 599, False, 599, False, False),
        (OutcomeKind.CONNECT, None, False, 503, True, True),
        (OutcomeKind.RESET, None, False, 503, True, True),
        (OutcomeKind.REFUSED, None, False, 503, True, True),
        (OutcomeKind.TIMEOUT, None, False, 504, True, True),
        # A body that broke after a good head: the host failed all the same.
        (OutcomeKind.RESET, 200, False, 503, True, True),
    ],
)
def test_one_verdict(kind, status, good, counts_as, local, gateway):
    found = verdict(Outcome(kind, status=status))
    assert (found.good, found.status, found.local, found.gateway) == (good, counts_as, local, gateway)


def test_a_cancelled_attempt_says_nothing():
    assert verdict(Outcome(OutcomeKind.CANCELLED)) is CANCELLED
    assert CANCELLED.good is None


def test_a_status_out_of_range_is_no_failure_of_ours():
    assert verdict(Outcome(OutcomeKind.OK, status=700)).good is True
    assert verdict(Outcome(OutcomeKind.OK)).good is True
