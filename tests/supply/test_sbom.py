"""The document beside the wheel names what the wheel needs, at the locked versions, and a wrong one is told from it."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from scripts.sbom import installed, wrong

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def document():
    return json.loads(next((ROOT / "dist").glob("*.cdx.json")).read_text())


@pytest.fixture(scope="module")
def there():
    return installed()


def pins() -> dict[str, str]:
    lines = (ROOT / "locks" / "wheel.txt").read_text().splitlines()
    asked = [Requirement(line.split(" \\")[0]) for line in lines if line[:1].isalnum()]
    return {one.name: str(one.specifier)[2:] for one in asked if one.marker is None or one.marker.evaluate()}


def test_it_names_what_is_locked_and_the_wheel(document, there):
    assert document["bomFormat"] == "CycloneDX"
    assert document["metadata"]["component"]["name"] == "meshlib-client"
    parts = {each["name"].lower().replace("_", "-"): each["version"] for each in document["components"]}
    assert parts == pins()
    assert wrong(document, there) == []


def test_it_says_nothing_of_the_machine_or_the_hour(document):
    assert str(ROOT) not in json.dumps(document)
    assert "timestamp" not in document["metadata"]
    assert "serialNumber" not in document


def lacks(document):
    document["components"] = [each for each in document["components"] if each["name"] != "h11"]


def another_version(document):
    next(each for each in document["components"] if each["name"] == "h11")["version"] = "0.1"


def an_orphan(document):
    for each in document["dependencies"]:
        each["dependsOn"] = [ref for ref in each.get("dependsOn", ()) if not ref.startswith("h11")]


def a_stranger(document):
    document["components"].append(
        {"bom-ref": "x", "name": "x", "version": "1", "purl": "pkg:pypi/x@1", "type": "library"}
    )


def no_address(document):
    del next(each for each in document["components"] if each["name"] == "h11")["purl"]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lacks, "h11 0.16.0 is not in it"),
        (another_version, "h11 is 0.16.0, and not 0.1"),
        (an_orphan, "nothing needs h11"),
        (a_stranger, "x is in it and not installed"),
        (no_address, "h11 has no package URL"),
    ],
)
def test_a_wrong_one_is_told(document, there, spoil, words):
    spoilt = copy.deepcopy(document)
    spoil(spoilt)
    assert words.replace("0.16.0", there["h11"]) in wrong(spoilt, there)
