"""The checklist and the tests speak of the same items, and nothing on it is left without a word."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.conformance.checklist import items, main, proofs

DIFFERENCES = Path(__file__).resolve().parents[2] / "docs" / "differences.md"
#: A row of the page's table of choices: ids, what others do, what we do, tests.
ROW = re.compile(r"^\| ((?:[A-Z]{2}-\d\d(?:, )?)+) \|.*\| (.*?) ?\|$", re.MULTILINE)


@pytest.fixture(scope="module")
def proven():
    return proofs()


def test_every_item_that_a_test_names_is_on_the_list(proven):
    assert sorted(set(proven) - set(items())) == []


def test_every_item_is_proven_or_the_list_says_why_not(proven):
    silent = [
        each.id
        for each in items().values()
        if not (proven.get(each.id) or each.not_applicable or each.lacking)
    ]
    assert silent == []


def test_nothing_is_both_proven_and_no_matter(proven):
    assert [each.id for each in items().values() if each.not_applicable and proven.get(each.id)] == []


def test_each_choice_is_written_down_with_a_test_that_proves_it(proven):
    rows = {
        ids: re.findall(r"`(tests/[^`]+)`", tests)
        for ids, tests in ROW.findall(DIFFERENCES.read_text("utf-8"))
    }
    chosen = {each for ids in rows for each in ids.split(", ")}
    assert sorted({each for each in items() if each.startswith("DV-")} - chosen) == []
    for ids, paths in rows.items():
        for each in ids.split(", "):
            files = {test.partition("::")[0] for test in proven.get(each, ())}
            if not items()[each].lacking:
                assert files & set(paths), f"{each}: none of {paths} names it"
    assert [
        path for paths in rows.values() for path in paths if not (DIFFERENCES.parents[1] / path).is_file()
    ] == []


def test_the_table(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["checklist", "SW-02", "EX-09"])
    assert main() == 0
    told = capsys.readouterr().out
    assert "SW-02  proven" in told
    assert "tests/conformance/xds/test_answers.py::TestEach::test_an_ack_has_the_responses_version" in told
    assert "EX-09  not applicable" in told
    assert told.endswith("1 proven; 1 not applicable\n")
    monkeypatch.setattr(sys, "argv", ["checklist", "SW-2"])
    assert main() == 2
    assert capsys.readouterr().err == "not on the checklist: SW-2\n"


def test_what_is_read_of_a_test(tmp_path):
    (tmp_path / "test_it.py").write_text(
        "def test_sw_02_st07_and_so_on(): pass  # not ST-99 of ours\n"
        "class TestA:\n"
        "    '''CA-01.'''\n"
        "    @mark\n"
        "    def test_b(self):\n"
        "        x = 1  # EX-05\n"
        "        def helper(): 'LD-01'\n"
        "    def helper(self): 'no test: LD-02'\n"
        "def test_in_front_st_of_nothing(): 'A sentence.'\n"
    )
    found = proofs(tmp_path)
    both = "tests/test_it.py::TestA::test_b"
    assert found == {
        "SW-02": ("tests/test_it.py::test_sw_02_st07_and_so_on",),
        "ST-07": ("tests/test_it.py::test_sw_02_st07_and_so_on",),
        "ST-99": ("tests/test_it.py::test_sw_02_st07_and_so_on",),
        "CA-01": ("tests/test_it.py::TestA",),
        "EX-05": (both,),
        "LD-01": (both,),
    }
