"""What the tests of connections share."""

from __future__ import annotations

import pytest

from tests.unit.wire.reading import PARSERS


@pytest.fixture(params=PARSERS)
def parse(request):
    """Each parser of heads: with either one a connection must do the same."""
    return PARSERS[request.param]
