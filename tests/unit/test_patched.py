"""Patches: applied at once or at import, listed, put back."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from meshlib import patched


@pytest.fixture(autouse=True)
def _clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield
    patched.restore()
    assert patched.names() == ()
    for name in set(sys.modules) - before:
        if name.startswith("patched_"):
            del sys.modules[name]


class Base:
    def greet(self) -> str:
        return "hello"


class Thing(Base):
    def name(self) -> str:
        return "thing"


def louder(original: Any) -> Any:
    return lambda self: original(self).upper()


def test_replaces_lists_and_puts_back_own_and_inherited() -> None:
    patched.replace(Thing, "name", louder, "Thing")
    patched.replace(Thing, "greet", louder, "Thing")
    patched.replace(Thing, "name", louder, "Thing")
    assert (Thing().name(), Thing().greet(), Base().greet()) == ("THING", "HELLO", "hello")
    assert patched.names() == ("Thing",)
    patched.restore()
    assert (Thing().name(), Thing().greet()) == ("thing", "hello")
    assert "greet" not in vars(Thing)


def test_what_somebody_wrapped_since_stays_and_is_not_patched_twice() -> None:
    thing = SimpleNamespace(name=lambda _: "thing")
    patched.replace(thing, "name", louder, "thing")
    ours = thing.name
    thing.name = lambda self: ours(self) + "!"
    patched.restore()
    assert thing.name(None) == "THING!"
    assert patched.names() == ("thing",)
    patched.replace(thing, "name", louder, "thing")
    assert thing.name(None) == "THING!"
    thing.name = ours
    patched.restore()
    assert thing.name(None) == "thing"


def test_what_stands_for_several_names_lists_them_all() -> None:
    patched.replace(Thing, "name", louder, "Thing", "Other")
    patched.replace(Thing, "greet", louder, "Thing", "Other")
    assert patched.names() == ("Other", "Thing")


def test_a_module_is_patched_once_it_is_imported(tmp_path: Path) -> None:
    (tmp_path / "patched_one.py").write_text("import patched_two\nvalue = 1\n")
    (tmp_path / "patched_two.py").write_text("value = 2\n")
    seen: list[tuple[str, int]] = []
    for name in ("patched_one", "patched_two"):
        patched.when_imported(name, lambda module: seen.append((module.__name__, module.value)))
    assert seen == []
    module = importlib.import_module("patched_one")
    assert seen == [("patched_two", 2), ("patched_one", 1)]
    assert module.__spec__ is not None
    assert type(module.__spec__.loader).__name__ == "SourceFileLoader"
    assert module.__loader__ is module.__spec__.loader
    importlib.reload(module)
    assert len(seen) == 2


def test_a_module_that_is_there_is_patched_at_once() -> None:
    seen: list[Any] = []
    patched.when_imported("json", seen.append)
    assert seen == [sys.modules["json"]]


def test_a_package_keeps_what_its_loader_can(tmp_path: Path) -> None:
    package = tmp_path / "patched_package"
    package.mkdir()
    (package / "__init__.py").write_text("from patched_package import inner\n")
    (package / "inner.py").write_text("")
    (package / "data.txt").write_text("data")
    patched.when_imported("patched_package", lambda _: None)
    module = importlib.import_module("patched_package")
    from importlib.resources import files

    assert files(module).joinpath("data.txt").read_text() == "data"


def test_a_module_that_fails_or_is_not_there_fails_as_ever(tmp_path: Path) -> None:
    (tmp_path / "patched_bad.py").write_text("1 / 0\n")
    seen: list[Any] = []
    for name in ("patched_bad", "patched_missing"):
        patched.when_imported(name, seen.append)
    with pytest.raises(ZeroDivisionError):
        importlib.import_module("patched_bad")
    with pytest.raises(ModuleNotFoundError, match="patched_missing"):
        importlib.import_module("patched_missing")
    assert seen == []
    (tmp_path / "patched_bad.py").write_text("fine = True\n")
    importlib.invalidate_caches()
    importlib.import_module("patched_bad")
    assert len(seen) == 1


def test_a_patch_that_fails_is_logged_and_breaks_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "patched_fine.py").write_text("")

    def patch(_: Any) -> None:
        raise RuntimeError("too old")

    patched.when_imported("patched_fine", patch)
    importlib.import_module("patched_fine")
    assert "patched_fine is left as it is" in caplog.text
    assert "too old" in caplog.text


def test_the_finder_is_there_only_while_something_is_waited_for() -> None:
    before = list(sys.meta_path)
    patched.when_imported("patched_never", lambda _: None)
    assert len(sys.meta_path) == len(before) + 1
    patched.restore()
    assert sys.meta_path == before
