from __future__ import annotations

import sys
import threading
import time
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
from grpc import _channel as grpc_channel

from meshlib.sources import channel, stream
from meshlib.testing import ControlPlane
from meshlib.xds.bootstrap import Server


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


def test_before_a_fork_grpcs_thread_that_takes_requests_is_waited_for(monkeypatch):
    """It would wait for Python's lock, which stays broken in a child of the C library's fork."""
    awaited = threading.Event()
    take, join = stream._Requests.__next__, stream.threads.join

    def slowly(self):
        try:
            return take(self)
        except StopIteration:
            awaited.wait()
            raise

    def joined(thread, timeout):
        if "(_run)" in thread.name:
            awaited.set()
        return join(thread, timeout)

    monkeypatch.setattr(stream._Requests, "__next__", slowly)
    monkeypatch.setattr(stream.threads, "join", joined)
    monkeypatch.setattr(stream, "_SETTLE", 20.0)
    monkeypatch.setattr(stream, "wait_quiet", bool)  # that of grpc's core stay, for the server is here, too
    before = set(threading.enumerate())
    with ControlPlane() as plane:
        told: list[object] = []  # what nobody calls
        made = stream.GrpcStream(Server(plane.address), Mock(), told.append, "sotw")
        plane.wait_for_streams()
        made.cancel()
        stream._settle()
        names = [each.name for each in threading.enumerate() if each not in before]
        awaited.set()
    assert not [name for name in names if "(_run)" in name or name == "meshlib-xds"]


class Watcher:
    """grpcio's own of one channel: when it looks, and when it goes on. Threads of RPCs are held up at the same place, and go on."""

    def __init__(self) -> None:
        self.of: object = None
        self.looks, self.go_on = threading.Event(), threading.Event()

    def late(self, state: object) -> None:
        if state is self.of:
            self.looks.set()
            self.go_on.wait(20)


@pytest.fixture
def watcher(monkeypatch):
    made = Watcher()
    monkeypatch.setattr(grpc_channel.cygrpc, "block_if_fork_in_progress", made.late)
    yield made
    made.go_on.set()


class Told:
    """A channel to a control plane, of which it is told when nobody listens to it any more and when it is closed. ``watcher``: what holds
    up its grpcio's; None: of that nothing is known. ``leaves``, ``may_leave``: who listens to it is about to go, and goes.
    """

    def __init__(self, monkeypatch, watcher: Watcher | None = None) -> None:
        self.left, self.closed_at, self.closed = 0.0, 0.0, threading.Event()
        self.leaves, self.may_leave = threading.Event(), threading.Event()
        self.may_leave.set()
        self._watcher = watcher
        monkeypatch.setattr(stream, "open_channel", self._open)

    def _open(self, server):
        made = channel.open_channel(server)
        names = {name: getattr(made, name) for name in ("stream_stream", "subscribe")}
        if self._watcher is not None:
            names["_connectivity_state"] = self._watcher.of = made._connectivity_state

        def unsubscribe(callback):
            self.leaves.set()
            self.may_leave.wait(20)
            made.unsubscribe(callback)
            if not self.closed.is_set():  # grpc's thread may leave it as well, and at any time
                self.left = time.monotonic()

        def close():
            self.closed_at = time.monotonic()
            self.closed.set()
            made.close()

        return SimpleNamespace(**names, unsubscribe=unsubscribe, close=close)


def stream_to(plane):
    told: list[object] = []  # what nobody calls
    return stream.GrpcStream(Server(plane.address), Mock(), told.append, "sotw")


def test_a_channel_is_closed_when_grpcios_watcher_has_ended_however_late(monkeypatch, watcher):
    """It raises in its thread where its channel is closed before it looked."""
    told = Told(monkeypatch, watcher)
    with ControlPlane() as plane:
        made = stream_to(plane)
        assert watcher.looks.wait(20)
        made.cancel(3 * stream._WATCHER_ENDS)
        assert not told.closed.is_set(), "the watcher is there"
        watcher.go_on.set()
        assert told.closed.wait(20)


def test_a_watcher_that_does_not_end_is_waited_for_no_longer_than_it_may_take(monkeypatch, watcher):
    monkeypatch.setattr(stream, "_WATCHER_MOST", 0.0)
    told = Told(monkeypatch, watcher)
    with ControlPlane() as plane:
        made = stream_to(plane)
        assert watcher.looks.wait(20)
        made.cancel()
        assert told.closed.wait(15)


def test_where_grpcio_says_nothing_of_its_watcher_it_has_the_time_of_a_look(monkeypatch):
    told = Told(monkeypatch)
    with ControlPlane() as plane:
        made = stream_to(plane)
        plane.wait_for_streams()
        made.cancel()
        assert told.closed.wait(20)
    assert told.closed_at - told.left >= stream._WATCHER_ENDS


def test_where_grpcs_thread_is_about_to_leave_it_the_channel_is_closed_after_that(monkeypatch):
    told = Told(monkeypatch)
    told.may_leave.clear()
    with ControlPlane() as plane:
        made = stream_to(plane)
        assert told.leaves.wait(20)
        made.cancel(3 * stream._WATCHER_ENDS)
        assert not told.closed.is_set()
        told.may_leave.set()
        assert told.closed.wait(20)
    assert told.closed_at - told.left >= stream._WATCHER_ENDS


def test_waiting_for_grpc_has_an_end(monkeypatch):
    monkeypatch.setattr(channel, "_grpc_threads", lambda: ["event_engine"])
    monkeypatch.setitem(sys.modules, "grpc", channel)
    assert not channel.wait_quiet(0.01)
    monkeypatch.setattr(channel, "_grpc_threads", list)
    assert channel.wait_quiet(0.01)
