"""Every module that reads outside bytes has a target of `make fuzz`, every target reaches the modules that it is for, and holds.

What looks as if it read such bytes is found in the syntax trees: the parsers of the standard library and of those that are in use.
"""

from __future__ import annotations

import ast
import random
import sys
from importlib import import_module
from pathlib import Path

import pytest

from tests.fuzz.inputs import ELSEWHERE, READ, TARGETS, one_input, seeds
from tests.fuzz.run import OF, mutated

ROOT = Path(__file__).resolve().parents[2]
#: Names of functions and methods that make something of bytes or text.
PARSERS = frozenset(
    [
        "FromString",
        "MergeFromString",
        "Parse",
        "ParseDict",
        "ParseFromString",
        "a2b_base64",
        "b64decode",
        "fromhex",
        "fromisoformat",
        "from_wire",
        "getresponse",
        "get_node",
        "ip_address",
        "ip_network",
        "iter_unpack",
        "literal_eval",
        "load_cert_chain",
        "load_der_private_key",
        "load_der_x509_certificate",
        "load_der_x509_crl",
        "load_key_and_certificates",
        "load_pem_private_key",
        "load_pem_x509_certificate",
        "load_pem_x509_certificates",
        "load_pem_x509_crl",
        "load_pkcs12",
        "load_verify_locations",
        "loads",
        "parse_qs",
        "parse_qsl",
        "parsedate_to_datetime",
        "receive_data",
        "recv",
        "recv_into",
        "recvfrom",
        "recvmsg",
        "strptime",
        "unpack",
        "unpack_from",
        "unquote",
        "unquote_to_bytes",
        "urlsafe_b64decode",
        "urlparse",
        "urlsplit",
    ]
)
SEEN = ("meshlib", "adapters")
TESTING = "meshlib/testing/"


def parsing() -> set[str]:
    """The files of the product in which a parser is called."""
    found = set()
    for path in (file for folder in SEEN for file in (ROOT / folder).rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        if name.startswith(TESTING):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                called = getattr(node.func, "attr", None) or getattr(node.func, "id", "")
                # `loads` are also what a cluster bears.
                if called in PARSERS and (
                    called != "loads" or getattr(node.func.value, "id", "") in ("json", "tomllib")
                ):
                    found.add(name)
    return found


def test_a_module_that_reads_outside_bytes_has_a_target():
    without = sorted(parsing() - {f"meshlib/{name}" for name in READ} - ELSEWHERE.keys())
    assert without == [], (
        "each needs a target in tests/fuzz/, or a reason in ELSEWHERE of tests/fuzz/inputs.py"
    )


def test_the_lists_are_of_this_tree():
    for name in READ:
        assert (ROOT / "meshlib" / name).is_file(), name
    assert sorted(ELSEWHERE.keys() - parsing()) == [], "no parser is called there any more"
    assert not {f"meshlib/{name}" for name in READ} & ELSEWHERE.keys()
    assert {name for names in READ.values() for name in names} == {
        *OF,
        *(target.name for target in TARGETS),
    } - {"inputs"}
    assert len({target.name for target in TARGETS}) == len(TARGETS)


def reached(run) -> set[str]:
    """The modules of which a function ran, below `meshlib`."""
    found: set[str] = set()

    def look(frame, event, _argument):
        if event == "call":
            found.add(frame.f_code.co_filename)

    sys.setprofile(look)
    try:
        run()
    finally:
        sys.setprofile(None)
    inside = f"{ROOT}/meshlib/"
    return {name.removeprefix(inside) for name in found if name.startswith(inside)}


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_a_target_reaches_what_it_is_for_and_holds(target):
    chance = random.Random(1)

    def run():
        for seed in target.seeds:
            target.one(seed)
        for _ in range(100):
            target.one(mutated(chance, list(target.seeds), list(target.words) or [b"\0"]))

    assert sorted(set(target.reads) - reached(run)) == []


@pytest.mark.parametrize("of", ["http1", "http2"])
def test_the_connections_reach_what_they_are_for(of):
    target = import_module(f"tests.fuzz.{of}")
    modules = {name for name, names in READ.items() if of in names}
    assert sorted(modules - reached(lambda: [target.one_input(seed) for seed in target.seeds()])) == []


def test_the_decoders_reach_what_they_are_for():
    from tests.fuzz import xds

    modules = {name for name, names in READ.items() if names == ("xds",)}
    assert (
        sorted(modules - reached(lambda: [xds.one_input(random.Random(each)) for each in range(3000)])) == []
    )


def test_each_input_is_somebodys():
    assert len(seeds()) == sum(len(target.seeds) for target in TARGETS)
    for data in (b"", b"\0", *seeds()[:3]):
        one_input(data)
