"""Who is told of a channel's state, at the channel's end."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from meshlib.hosts.grpc import connectivity
from meshlib.hosts.grpc.connectivity import Connectivity


class Kit:
    def __init__(self) -> None:
        self.posted: list[Any] = []
        self.told: list[grpc.ChannelConnectivity] = []
        worker = SimpleNamespace(post=self.posted.append, later=lambda _, look: self.posted.append(look))
        runtime: Any = SimpleNamespace(worker=worker)
        target: Any = None
        self.one = Connectivity(lambda: runtime, target, self.wire)

    def wire(self) -> Any:
        return SimpleNamespace(subchannels=None)


def test_of_a_closed_channel_nobody_is_told() -> None:
    kit = Kit()
    kit.one.close()
    kit.one.subscribe(kit.told.append, try_to_connect=True)
    assert not kit.posted


@pytest.mark.parametrize("when", ["before a look", "within one"])
def test_a_channel_that_is_closed_meanwhile_is_not_looked_at_again(monkeypatch, when) -> None:
    kit = Kit()

    def state_of(*given: Any, **named: Any) -> Any:
        assert when == "within one"
        kit.one.close()
        raise ValueError("Cannot invoke RPC on closed channel!")

    monkeypatch.setattr(connectivity, "state_of", state_of)
    kit.one.subscribe(kit.told.append, try_to_connect=True)
    (look,) = kit.posted
    if when == "before a look":
        kit.one.close()
    look()
    assert (kit.posted, kit.told) == ([look], [])


def test_an_error_of_a_channel_that_is_open_is_not_hidden(monkeypatch) -> None:
    kit = Kit()

    def state_of(*given: Any, **named: Any) -> Any:
        raise ValueError("another")

    monkeypatch.setattr(connectivity, "state_of", state_of)
    kit.one.subscribe(kit.told.append, try_to_connect=True)
    with pytest.raises(ValueError, match="another"):
        kit.posted[0]()
