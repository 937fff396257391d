"""What the tests of connections share."""

from __future__ import annotations

import pytest

from meshlib.wire import heads_h11, heads_llhttp

PARSERS = {"llhttp": heads_llhttp.parse_head, "h11": heads_h11.parse_head}


@pytest.fixture(params=PARSERS)
def parse(request):
    """Each parser of heads: with either one a connection must do the same."""
    return PARSERS[request.param]
