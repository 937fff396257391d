"""The gate over other projects' tests: what it calls a fault. The suites themselves are run by ``make compat``."""

from __future__ import annotations

import importlib.util
import sys
import tarfile
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("compat", ROOT / "scripts" / "compat.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


compat = load_script()
OUTSIDE = compat.Outside(reason="because", modes=("mesh",), tests=("t::inside_out",))


def suite(**options):
    said = {"name": "x", "package": "x", "release": "1", "tests": (), "modes": ("plain", "mesh"), "passed": 2}
    return compat.Suite(**{**said, "least": {"mesh": {"substituted": 3}}, **options})


def faults(plain, mesh, *, calls=3, **options):
    runs = {"plain": compat.Run(plain, {}, 1.0), "mesh": compat.Run(mesh, {"substituted": calls}, 1.0)}
    return compat.judge(suite(**options), runs)


GOOD = {"t::a": "passed", "t::b": "passed", "t::inside_out": "passed", "t::c": "failure"}


def test_what_passes_plainly_must_pass():
    assert faults(GOOD, GOOD) == []
    assert faults(GOOD, {**GOOD, "t::c": "passed"}) == []
    for word in ("failure", "error", "skipped"):
        assert faults(GOOD, {**GOOD, "t::a": word}) == [f"mesh: lost: t::a: {word}"]
    missing = {name: word for name, word in GOOD.items() if name != "t::b"}
    assert faults(GOOD, missing) == ["mesh: lost: t::b: not run"]


def test_what_is_outside_must_really_fail():
    broken = {**GOOD, "t::inside_out": "failure"}
    assert faults(GOOD, broken, outside=(OUTSIDE,)) == []
    (said,) = faults(GOOD, GOOD, outside=(OUTSIDE,))
    assert "t::inside_out" in said
    (said,) = faults(broken, broken, outside=(OUTSIDE,))  # fails plainly: it need not be listed
    assert "t::inside_out" in said


def test_a_run_that_proves_nothing_is_a_fault():
    assert faults(GOOD, GOOD, calls=2) == ["mesh: only 2 calls were 'substituted', not 3"]
    (said,) = faults(GOOD, GOOD, passed=4)
    assert "3 tests passed" in said


def test_the_report_of_pytest_is_read(tmp_path):
    (tmp_path / "r.xml").write_text(
        '<testsuites><testsuite><testcase classname="t" name="a"/><testcase classname="t" name="b"><failure/></testcase>'
        '<testcase classname="t" name="a"><error/></testcase><testcase classname="t" name="s"><skipped/></testcase>'
        "</testsuite></testsuites>"
    )
    found = compat.outcomes(tmp_path / "r.xml")
    assert found == {"t::a": "error", "t::b": "failure", "t::s": "skipped"}


@pytest.mark.parametrize(
    ("said", "asked"), [({}, "x==1"), ({"tests_of": "other==2"}, "other==2")], ids=["its own", "another's"]
)
def test_where_the_tests_come_from(tmp_path, monkeypatch, said, asked):
    """Of the release itself, or of the one that the suite names; what was fetched once is not fetched again."""
    fetched = []

    def command(*words, what):
        fetched.append(words[-1])
        where = Path(words[words.index("--dest") + 1])
        (where / words[-1]).mkdir(parents=True)
        with tarfile.open(where / f"{words[-1]}.tar.gz", "w:gz") as archive:
            archive.add(where / words[-1], arcname=words[-1])

    monkeypatch.setattr(compat, "WORK", tmp_path)
    monkeypatch.setattr(compat, "command", command)
    for one in (suite(**said), suite(**said)):
        assert compat.unpack(one, Path("python")).name == asked
    assert fetched == [asked]
    assert compat.unpack(suite(release="3"), Path("python")).name == "x==3"


@pytest.mark.parametrize(
    "path", sorted(ROOT.glob("tests/compat/*/suite.toml")), ids=lambda path: path.parent.name
)
def test_each_suite_says_what_it_needs(path):
    one = compat.load(path)
    assert one.about
    assert (path.parent / "substitute.py").exists()
    assert set(one.least) == set(one.modes) - {"plain"}
    assert all(entry.reason and entry.tests and entry.modes for entry in one.outside)


def test_a_suite_with_a_wrong_word_is_refused(tmp_path):
    text = 'package = "x"\nrelease = "1"\ntests = []\nmodes = ["plain"]\npassed = 1\n'
    path = tmp_path / "suite.toml"
    path.write_text(text + "lest = {}\n")
    with pytest.raises(TypeError, match="lest"):
        compat.load(path)
    path.write_text(text + "least = { mush = { direct = 1 } }\n")
    with pytest.raises(ValueError, match="mush"):
        compat.load(path)


def test_the_exit_code(capsys):
    assert compat.report({"a": ("line", [])}) == 0
    assert compat.report({"a": ("line", ["fault"])}) == 1
    assert compat.report({"a": ("cannot be run", ["no network"])}) == 2
    assert "no network" in capsys.readouterr().out
