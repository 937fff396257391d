from __future__ import annotations

import sys

import pytest

from meshlib.sources import channel, stream


@pytest.fixture
def forked(monkeypatch):
    """What a process that forked with grpc in use leaves its child; the test says which process it is."""
    monkeypatch.setattr(channel, "_left_by", 0)
    monkeypatch.setitem(sys.modules, "grpc", channel)
    monkeypatch.setattr(channel, "_grpc_threads", lambda: ["event_engine"])
    monkeypatch.setenv("GRPC_ENABLE_FORK_SUPPORT", "0")
    pids = [100]
    monkeypatch.setattr(channel, "getpid", lambda: pids[0])

    def become(pid):
        pids[0] = pid

    return become


def test_the_child_of_a_process_with_grpc_in_use_and_without_its_fork_support_has_no_stream(forked):
    stream._settle()
    assert channel.refusal() == "", "the parent goes on"
    forked(101)
    assert "GRPC_ENABLE_FORK_SUPPORT" in channel.refusal()
    stream._settle()
    forked(102)
    assert channel.refusal(), "nor has a child's child"


@pytest.mark.parametrize("value", ["", "1", "true", "what"])
def test_with_it_there_is_one(forked, monkeypatch, value):
    monkeypatch.setenv("GRPC_ENABLE_FORK_SUPPORT", value)
    stream._settle()
    forked(101)
    assert channel.refusal() == ""


@pytest.mark.parametrize("threads", [[], None])
def test_nor_is_it_refused_where_grpc_is_at_rest_or_the_system_does_not_tell(forked, monkeypatch, threads):
    stream._settle()
    monkeypatch.setattr(channel, "_grpc_threads", lambda: threads)
    stream._settle()  # another fork of the same parent
    forked(101)
    assert channel.refusal() == ""


def test_waiting_for_grpc_has_an_end(monkeypatch):
    monkeypatch.setattr(channel, "_grpc_threads", lambda: ["event_engine"])
    monkeypatch.setitem(sys.modules, "grpc", channel)
    assert not channel.wait_quiet(0.01)
    monkeypatch.setattr(channel, "_grpc_threads", list)
    assert channel.wait_quiet(0.01)
