"""The house rules hold for this tree, and the check that says so finds what it looks for."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = (
    "cryptography",
    "grpc",
    "google.protobuf",
    "httpx",
    "httpx2",
    "yaml",
    "rich",
    "typer",
    "opentelemetry",
    "dns",
)


def _load():
    spec = importlib.util.spec_from_file_location("check_house", ROOT / "scripts" / "check_house.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["check_house"] = module
    spec.loader.exec_module(module)
    return module


house = _load()


def rules(path: str, code: str) -> list[str]:
    return [finding.rule for finding in house.check_file(path, textwrap.dedent(code))]


@pytest.mark.timeout(240)  # it reads the whole tree
def test_this_tree_keeps_the_rules():
    assert [str(finding) for finding in house.check_tree(ROOT)] == []
    assert [place for place in house.NAPS if not (ROOT / place.partition("::")[0]).exists()] == []


def test_a_tree_without_git_is_read_whole_but_for_what_running_it_left(tmp_path):
    for name in ("meshlib/one.py", "meshlib/__pycache__/one.pyc", "build/two.py", ".github/three.yml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    assert house.tracked(tmp_path) == [".github/three.yml", "meshlib/one.py"]


@pytest.mark.parametrize(
    "code",
    [
        "import time",
        "import os.path",
        "import math, random",
        "from asyncio import Lock",
        "from concurrent.futures import Future",
        "from os import environ as e",
        "def f():\n    import socket",
        "try:\n    import logging\nexcept ImportError:\n    logging = None",
        "class A:\n    def f(self):\n        if self:\n            from threading import Lock",
        "import importlib\nimportlib.import_module('time')",
        "__import__('secrets')",
        "def f(p):\n    return open(p).read()",
    ],
)
@pytest.mark.parametrize("room", ["model", "core/balance", "xds"])
def test_a_pure_room_that_reaches_outside_is_found(room, code):
    assert rules(f"meshlib/{room}/x.py", code) == ["pure"]


def test_a_pure_module_of_a_room_that_is_not_pure():
    assert rules("meshlib/sidecar/detect.py", "import socket") == ["pure"]
    assert rules("meshlib/sidecar/collect.py", "import socket") == []
    assert [path for path in house.PURE_MODULES if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("path", ["meshlib/runtime/x.py", "meshlib/mesh.py", "tests/unit/core/test_x.py"])
def test_other_rooms_may_have_a_clock(path):
    assert rules(path, "import time, threading, os") == []


@pytest.mark.parametrize(
    "code",
    [
        "from __future__ import annotations\nimport math\nfrom meshlib.model.address import Address\nfrom . import time",
        "clock = None\ndef now(time):\n    return time.random",
        "text = 'import time'",
    ],
)
def test_a_pure_room_that_stays_inside_passes(code):
    assert rules("meshlib/core/x.py", code) == []


def test_the_length_of_modules_and_functions_is_counted_to_the_line():
    assert rules("meshlib/x.py", "x = 1\n" * 500) == []
    assert rules("meshlib/x.py", "x = 1\n" * 501) == ["module"]
    assert rules("adapters/meshlib_flask/x.py", "def f():\n" + "    x = 1\n" * 59) == []
    assert rules("adapters/meshlib_flask/x.py", "def f():\n" + "    x = 1\n" * 60) == ["function"]
    assert rules("meshlib/x.py", "class A:\n    async def f(self):\n" + "        x = 1\n" * 60) == [
        "function"
    ]
    assert rules("tests/unit/test_x.py", "def f():\n" + "    x = 1\n" * 600) == []


@pytest.mark.parametrize(
    "code",
    [
        "try:\n    f()\nexcept OSError:\n    pass",
        "try:\n    f()\nexcept OSError:\n    ...",
        "import contextlib\nwith contextlib.suppress(Exception):\n    f()",
    ],
)
def test_an_exception_passed_over_is_found(code):
    assert rules("meshlib/runtime/x.py", code) == ["swallowed"]


def test_an_exception_named_and_handled_passes():
    assert rules("meshlib/runtime/x.py", "try:\n    f()\nexcept OSError:\n    gone = True") == []
    assert (
        rules("meshlib/runtime/x.py", "import contextlib\nwith contextlib.suppress(OSError):\n    f()") == []
    )


@pytest.mark.parametrize(
    "code",
    [
        "import time\ntime.sleep(1)",
        "import time as t\ndef test_x():\n    t.sleep(0)",
        "from time import sleep\nsleep(1)",
        "from time import sleep as wait\nwait(1)",
        "import asyncio\nasync def test_x():\n    await asyncio.sleep(0.01)",
        "from asyncio import sleep\nasync def test_x(seconds):\n    await sleep(seconds)",
        "import gevent as g\ng.sleep(0.001)",
        "import anyio\nasync def test_x():\n    await anyio.sleep(delay=1)",
        "while not done():\n    threading.Event().wait(0.02)",
        "while not done():\n    pause.wait(timeout=0.5)",
        "TICK = 0.02\nwhile not done():\n    process.wait(TICK)",
        "assert not used.wait(0.05)",
        "while thread.is_alive():\n    thread.join(0.1)",
        "from concurrent.futures import wait\nassert not wait([first, second], timeout=0.5).done",
        'run(\n    """\n    import threading\n    while not done():\n        threading.Event().wait(0.02)\n    """\n)',
    ],
)
def test_a_sleeping_test_is_found(code):
    assert rules("tests/unit/test_x.py", code) == ["nap"]


def test_a_test_that_waits_for_an_event_passes():
    code = """
        import threading, asyncio
        threading.Event().wait(1)
        threading.Event().wait(patience)
        store.wait(lambda view: view.hosts, 0.5)
        clock.sleep(1)
        thread.join()
        text = ", ".join(names)

        async def test_x():
            await asyncio.sleep(0)
        """
    assert rules("tests/unit/test_x.py", code) == []


def test_a_nap_that_is_let_off_is_one_function_and_is_there(tmp_path, monkeypatch):
    monkeypatch.setattr(house, "NAPS", {"tests/x.py::Server.trickle": "on purpose"})
    nap = f"        while not self.stop.wait({0.05}):\n            self.send()\n"
    file = tmp_path / "tests" / "x.py"
    file.parent.mkdir()
    file.write_text(f"class Server:\n    def trickle(self):\n{nap}")
    assert house.check_tree(tmp_path) == []
    file.write_text(f"class Server:\n    def trickle(self):\n{nap}    def other(self):\n{nap}")
    assert [(found.line, found.rule) for found in house.check_tree(tmp_path)] == [(6, "nap")]
    file.write_text("class Server:\n    def trickle(self):\n        self.send()\n")
    assert [found.text for found in house.check_tree(tmp_path)] == [
        "tests/x.py::Server.trickle does not sleep, and is let off in NAPS"
    ]


@pytest.mark.parametrize(
    "text",
    ["cd /{r}oot/project", "open('/{h}ome/anna/x')", "see https://{p}ypi.org/project/x", '"/{U}sers/anna"'],
)
def test_a_place_is_found(text):
    text = text.format(r="r", h="h", p="p", U="U")
    assert [finding.rule for finding in house.check_file("docs/x.md", text)] == ["place"]


@pytest.mark.parametrize(
    "text", ["/etc/ssl/certs", "http://reviews/home/x", "/homepage", "a/work/b", "~/.config"]
)
def test_what_only_looks_like_a_place_passes(text):
    assert list(house.check_file("docs/x.md", text)) == []


def test_a_file_that_does_not_parse_is_found():
    assert rules("meshlib/x.py", "def f(:") == ["syntax"]


def test_the_command_says_where_and_exits_with_one(tmp_path):
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    room = tmp_path / "meshlib" / "core"
    room.mkdir(parents=True)
    (room / "x.py").write_text("x = 1\nimport time\n")
    command = [sys.executable, str(ROOT / "scripts" / "check_house.py"), str(tmp_path)]
    broken = subprocess.run(command, capture_output=True, text=True, check=False)
    assert broken.returncode == 1
    assert "meshlib/core/x.py:2: pure: imports time (clock)" in broken.stdout
    (room / "x.py").write_text("x = 1\n")
    assert subprocess.run(command, capture_output=True, text=True, check=False).returncode == 0


@pytest.mark.parametrize(
    "code",
    [
        "from meshlib.b import B",
        "import meshlib.b",
        "from meshlib import b",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from meshlib.b import B",
        "def f():\n    from meshlib.b import B",
    ],
)
def test_modules_that_import_each_other_are_a_circle(tmp_path, code):
    room = tmp_path / "meshlib"
    room.mkdir()
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    (room / "a.py").write_text(code + "\n")
    (room / "b.py").write_text("from meshlib.c import C\n")
    (room / "c.py").write_text("")
    assert house.check_tree(tmp_path) == []
    (room / "c.py").write_text("def f():\n    from meshlib.a import A\n")
    found = house.check_tree(tmp_path)
    assert [finding.rule for finding in found] == ["circle"]
    assert "meshlib.a -> meshlib.b -> meshlib.c" in f"{found[0].text} -> {found[0].text}"


def test_importing_meshlib_loads_nothing_heavy():
    code = f"import json, sys; import meshlib; assert meshlib.__file__; print(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))"
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(out.stdout) == []


def test_shell_scripts_run_nothing_by_backticks():
    """They run what they hold also in a comment within a string, and nobody sees that; `$(…)` is seen."""
    scripts = [path for path in (ROOT / ".ci" / "run", *ROOT.glob("scripts/*.sh")) if path.exists()]
    assert scripts
    assert [path.name for path in scripts if "`" in path.read_text()] == []
