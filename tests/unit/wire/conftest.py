"""What the tests of connections share."""

from __future__ import annotations

import asyncio

import pytest
import uvloop

from tests.support.scripted import Awaited, Blocking, Trio
from tests.unit.wire.reading import PARSERS


@pytest.fixture(params=PARSERS)
def parse(request):
    """Each parser of heads: with either one a connection must do the same."""
    return PARSERS[request.param]


DRIVERS = {
    "blocking": Blocking,
    "asyncio": lambda: Awaited(asyncio.new_event_loop),
    "uvloop": lambda: Awaited(uvloop.new_event_loop),
    "trio": Trio,
}


@pytest.fixture(params=DRIVERS)
def driver(request):
    """Connections of each kind, called alike."""
    made = DRIVERS[request.param]()
    yield made
    made.end()
