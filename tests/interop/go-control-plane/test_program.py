"""The program itself, without meshlib: it serves at the port that it says, refuses with reasons, and ends."""

from __future__ import annotations

import http.client

import grpc
import pytest

from tests.interop.support.programs import SnapshotServer
from tests.interop.support.snapshots import Service, snapshot


def serves(address: str, seconds: float = 10.0) -> bool:
    with grpc.insecure_channel(address) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=seconds)
        except grpc.FutureTimeoutError:
            return False
        return True


def test_it_comes_back_at_the_same_port(plane):
    before = plane.server
    assert serves(before)
    for end in (plane.stop, plane.kill):
        end()
        assert not serves(before, 2.0)
        plane.start()
        assert plane.server == before
        assert serves(before)


def test_it_ends_with_its_standard_input(plane):
    process = plane._process
    process.stdin.close()
    assert process.wait(timeout=5) == 0


def test_a_snapshot_outlives_a_restart(plane, upstream):
    plane.put(snapshot("target", "n", "1", Service("reviews", {"v1": [upstream("v1")]})))
    plane.restart()
    assert plane.streams() == []
    assert "preload" not in plane.log


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (
            {"node": "n", "version": "1", "clusters": [{"nme": "x"}]},
            r'clusters: \[0\]: .*unknown field "nme"',
        ),
        ({"node": "n", "version": "1", "clusters": [{}]}, r"clusters: \[0\]: a resource without a name"),
        ({"node": "n", "version": "1", "clsters": []}, "clsters: not a part of a snapshot"),
        ({"node": "n"}, "node and version must be given"),
        ({"node": "n", "version": 1}, "version: .*cannot unmarshal number"),
        (
            {"node": "n", "version": "1", "listeners": [{"@type": "x/no.Such"}]},
            r"listeners: \[0\]: .*no.Such",
        ),
    ],
)
def test_what_is_wrong_in_a_snapshot_is_named(plane, body, problem):
    with pytest.raises(AssertionError, match=problem):
        plane.put(body)


def test_both_views_are_whole(plane, upstream):
    services = (Service("reviews", {"v1": [upstream("v1")]}), Service("ratings", {"r1": [upstream("r1")]}))
    for view in ("target", "sidecar"):
        plane.put(snapshot(view, view, "1", *services))


def test_there_is_nothing_to_close(plane):
    assert (plane.close_streams(), plane.close_connections(), plane.opened()) == (0, 0, 0)
    with pytest.raises(AssertionError, match="NOPE"):
        plane.close_streams(code="NOPE")


def test_a_port_that_is_taken_is_told(plane, binary, tmp_path):
    other = SnapshotServer(binary, tmp_path)
    other._addresses = {"xds": plane.server, "control": "127.0.0.1:0"}
    with pytest.raises(AssertionError, match="address already in use"):
        other.start()


def test_its_control_page_is_only_that(plane):
    connection = http.client.HTTPConnection(plane._addresses["control"], timeout=5)
    connection.request("GET", "/snapshot")
    assert connection.getresponse().status == 405
    connection.close()
