"""The kill switch: whose file it may be."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from meshlib.sources.kill_switch import KillSwitch

OTHER = 54_321
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away: run as root")


def turned(path: Path) -> tuple[KillSwitch, list[bool]]:
    told: list[bool] = []
    sink: Any = SimpleNamespace(worker=SimpleNamespace(clock=SimpleNamespace(now=float)))
    switch = KillSwitch(sink, str(path), told.append)
    switch.open(None)
    return switch, told


def test_our_own(tmp_path: Path) -> None:
    path = tmp_path / "off"
    assert turned(path)[1] == []
    path.touch()
    assert turned(path)[1] == [True]


@as_root
def test_that_of_the_directorys_owner(tmp_path: Path) -> None:
    path = tmp_path / "off"
    path.touch()
    for each in (tmp_path, path):
        os.chown(each, OTHER, OTHER)
    assert turned(path)[1] == [True]


@as_root
@pytest.mark.parametrize("kind", ["file", "link", "link to ours", "directory"])
def test_anybody_elses_is_none(tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str) -> None:
    path, target = tmp_path / "off", tmp_path / "ours"
    target.touch()
    if kind == "directory":
        path.mkdir()
    elif kind == "file":
        path.touch()
    else:
        path.symlink_to(target if kind == "link to ours" else "/etc/hostname")
    os.chown(path, OTHER, OTHER, follow_symlinks=False)
    with caplog.at_level(logging.WARNING, "meshlib"):
        switch, told = turned(path)
        switch.open(None)
    assert told == []
    assert [
        f"{path} belongs to user {OTHER} and is no kill switch" in each.getMessage()
        for each in caplog.records
    ] == [True]


@pytest.mark.parametrize("path", ["/nowhere/off", "/etc/passwd/off", "a\0b"])
def test_what_can_be_no_file(path: str) -> None:
    assert turned(Path(path))[1] == []
