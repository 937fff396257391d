"""What each case gets: a control plane whose messages the case writes, in each protocol in turn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.conformance.support.ads import Control

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture(params=["sotw", "delta"])
def protocol(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def control(protocol: str) -> Callable[..., Control]:
    """A function that makes a control plane, as `Control` after its protocol, and a client that wants these targets."""
    return lambda *names, **options: Control(protocol, *names, **options)
