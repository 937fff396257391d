"""Puts random inputs to the HTTP/1.1 and the HTTP/2 connection and to the decoders of xDS (``http1.py``, ``http2.py`` and
``xds.py`` beside this say what must hold).

    python -m tests.fuzz.run [--inputs N] [--seed S] [--of http1|http2|xds]

Atheris chooses the inputs of the connections, by what code they reach, where it can be installed: it gets ``build/fuzz``, an
environment of its own, which is made once and kept. Elsewhere they are mutated at random from the same seeds, in this
interpreter. Hypothesis chooses those of xDS.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import subprocess
import sys
import time
import venv
from importlib import import_module
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
ENVIRONMENT = PROJECT / "build" / "fuzz"
WANTED = ("atheris==3.0.0", "h11==0.16.0", "httptools==0.9.0", "h2==4.4.1")
#: What is tried, and how many of the inputs each gets: one to HTTP/2 takes five times as long.
OF = {"http1": 1.0, "http2": 0.2, "xds": 1.0}
LONGEST = 2048
#: MiB that a run may need in all.
MOST_MEMORY = 1024


def main() -> int:
    """The exit code: 0 when all held."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--random", action="store_true", help="without atheris")
    parser.add_argument("--of", choices=OF, action="append", help="all where none is named")
    options = parser.parse_args()
    return max(run(of, options) for of in options.of or OF)


def run(of: str, options: argparse.Namespace) -> int:
    inputs = int(options.inputs * OF[of])
    if of == "xds":
        print(f"fuzz: {of} by Hypothesis, {inputs} inputs", flush=True)
        return import_module("tests.fuzz.xds").run(inputs, options.seed)
    python = None if options.random else interpreter()
    if python is None:
        why = "as asked for" if options.random else f"{WANTED[0]} cannot be installed for this interpreter"
        print(f"fuzz: {of} at random ({why}), {inputs} inputs", flush=True)
        return at_random(of, inputs, options.seed)
    print(f"fuzz: {of} by {WANTED[0]}, {inputs} inputs", flush=True)
    return by_atheris(of, python, inputs, options.seed)


def interpreter() -> Path | None:
    """The Python of the environment with atheris; None where it cannot be installed."""
    python = ENVIRONMENT / "bin" / "python"
    stamp = ENVIRONMENT / "installed"
    if not stamp.exists() or stamp.read_text() != " ".join(WANTED):
        venv.create(ENVIRONMENT, with_pip=True, clear=True)
        command = [python, "-m", "pip", "install", "--quiet", "--only-binary", ":all:", *WANTED]
        if subprocess.run(command, check=False).returncode:
            return None
        stamp.write_text(" ".join(WANTED))
    return python


def by_atheris(of: str, python: Path, inputs: int, seed: int) -> int:
    target = import_module(f"tests.fuzz.{of}")
    corpus = ENVIRONMENT / f"corpus-{of}"
    corpus.mkdir(exist_ok=True)
    for number, data in enumerate(target.seeds()):
        (corpus / f"seed-{number}").write_bytes(data)
    words = ENVIRONMENT / f"words-{of}"
    words.write_text("".join(f'"{escaped(word)}"\n' for word in target.WORDS))
    settings = {
        "runs": inputs, "seed": seed, "max_len": LONGEST, "dict": words, "rss_limit_mb": MOST_MEMORY, "timeout": 10,
        "print_final_stats": 1, "artifact_prefix": f"{ENVIRONMENT}/",
    }  # fmt: skip
    command = [
        python,
        "-m",
        "tests.fuzz.guided",
        *(f"-{name}={value}" for name, value in settings.items()),
        corpus,
    ]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "MESHLIB_TEST_FUZZ": of}
    return subprocess.run(command, check=False, cwd=PROJECT, env=environment).returncode


def escaped(word: bytes) -> str:
    return "".join(rf"\x{code:02x}" for code in word)


def at_random(of: str, inputs: int, seed: int) -> int:
    target = import_module(f"tests.fuzz.{of}")
    chance, found = random.Random(seed), target.seeds()
    begun = time.monotonic()
    for number in range(inputs):
        data = mutated(chance, found, target.WORDS)
        try:
            target.one_input(data)
        except Exception:
            (PROJECT / "build").mkdir(exist_ok=True)
            failed = PROJECT / "build" / "fuzz-failed"
            failed.write_bytes(data)
            print(f"fuzz: input {number} fails: python -m tests.fuzz.{of} {failed}", flush=True)
            raise
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (
        1 << 20 if sys.platform == "darwin" else 1 << 10
    )
    print(f"fuzz: {inputs} inputs hold, {time.monotonic() - begun:.0f} s, {memory} MiB at most")
    return 0 if memory <= MOST_MEMORY else 1


def mutated(chance: random.Random, found: list[bytes], words: list[bytes]) -> bytes:
    """One of what was found with a few places changed, and sometimes with the end of another one."""
    data = bytearray(chance.choice(found))
    for _ in range(chance.randint(0, 5)):
        place = chance.randint(0, len(data))
        new = chance.choice(words) if chance.random() < 0.6 else chance.randbytes(chance.randint(0, 3))
        data[place : place + chance.randint(0, 4)] = new
    if chance.random() < 0.2:
        other = chance.choice(found)
        data[chance.randint(0, len(data)) :] = other[chance.randint(0, len(other)) :]
    return bytes(data[:LONGEST])


if __name__ == "__main__":
    sys.exit(main())
