"""The locks hold what pyproject.toml asks for, on every Python that it allows, and say nothing of where it comes from; nothing is
installed, and no action of a workflow run, without a hash."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
#: The extras of each; `make demo` stands on the second, and a user of the wheel on the third.
LOCKS = {"dev": ["dev"], "run": ["cli", "yaml"], "wheel": []}
#: Of other environments.
GROUPS = PROJECT["dependency-groups"]
PYTHONS = ["3.11", "3.12", "3.13", "3.14"]
PIN = re.compile(r"[a-z0-9-]+==[^ ;]+( ; .+)?")


def entries(name: str) -> list[tuple[Requirement, list[str]]]:
    """Each pin, with its hashes."""
    text = (ROOT / "locks" / f"{name}.txt").read_text().replace("\\\n", " ")
    found = []
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        pin, *hashes = re.split(r" +--hash=", line.strip())
        assert PIN.fullmatch(pin), line
        found.append((Requirement(pin), hashes))
    return found


def there(name: str, python: str) -> dict[str, str]:
    """What is installed on Linux with that Python: versions by name."""
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.5",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "os_name": "posix",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
    }
    pins: dict[str, str] = {}
    for pin, _ in entries(name):
        if pin.marker is None or pin.marker.evaluate(environment):
            assert pin.name not in pins, f"{pin.name} is there twice with Python {python}"
            pins[pin.name] = str(pin.specifier).removeprefix("==")
    return pins


def asked(extras: list[str]) -> list[Requirement]:
    """What the project asks for with these extras, those of its own that they name included, and what builds it."""
    project = PROJECT["project"]
    found = [*project["dependencies"], *(PROJECT["build-system"]["requires"] if extras else ())]
    for extra in extras:
        found += project["optional-dependencies"][extra]
    wanted = []
    for requirement in map(Requirement, found):
        if requirement.name == project["name"]:
            wanted += asked(sorted(requirement.extras))
        else:
            wanted.append(requirement)
    return wanted


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("name", LOCKS)
def test_what_the_project_asks_for_is_locked(name, python):
    pins = there(name, python)
    for requirement in asked(LOCKS[name]):
        version = pins.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement}: not locked; `make lock LOCK_ARGS=--keep` adds it"
        assert requirement.specifier.contains(version, prereleases=True), (
            f"{requirement}: locked is {version}"
        )


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("name", GROUPS)
def test_what_other_environments_are_made_of_is_locked(name, python):
    pins = there(name, python)
    for requirement in map(Requirement, GROUPS[name]):
        if requirement.marker is None or requirement.marker.evaluate({"python_version": python}):
            assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), requirement


@pytest.mark.parametrize("name", [*LOCKS, *GROUPS])
def test_every_pin_has_its_hashes(name):
    for pin, hashes in entries(name):
        assert hashes, pin
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", one) for one in hashes), pin


@pytest.mark.parametrize("python", PYTHONS)
def test_the_demo_and_the_wheel_stand_on_the_versions_that_are_tested(python):
    everything = there("dev", python)
    assert there("run", python).items() <= everything.items()
    assert there("wheel", python).items() <= there("run", python).items()


@pytest.mark.parametrize("name", [*LOCKS, *GROUPS])
def test_no_lock_says_where_packages_come_from(name):
    text = (ROOT / "locks" / f"{name}.txt").read_text()
    assert not re.search(r"://|--(extra-)?index|--find-links|--trusted-host|@ ", text)


def test_each_lock_is_somebodys():
    assert {file.stem for file in (ROOT / "locks").iterdir()} == {*LOCKS, *GROUPS}


def test_an_action_of_a_workflow_is_a_commit():
    used = [
        (file.name, line.split("uses:")[1].strip())
        for file in (ROOT / ".github" / "workflows").glob("*.yml")
        for line in file.read_text().splitlines()
        if "uses:" in line and "./.github" not in line
    ]
    assert used
    for file, action in used:
        assert re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40} # v[0-9.]+", action), (file, action)
