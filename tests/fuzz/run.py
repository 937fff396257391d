"""Puts random inputs to the HTTP/1.1 and the HTTP/2 connection, to every other reader of outside bytes and to the decoders of xDS
(``http1.py``, ``http2.py``, ``inputs.py`` and ``xds.py`` beside this say what must hold).

    python -m tests.fuzz.run [--inputs N] [--seed S] [--of http1|http2|inputs|xds] [--random]

Atheris chooses the inputs, by what code they reach, where it can be installed: it gets ``build/fuzz``, a folder of its own. Elsewhere
they are mutated at random from the same seeds. Hypothesis chooses those of xDS. What one processor does alone runs beside another.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
LOCK = PROJECT / "locks" / "fuzz.txt"
#: Where atheris is, for this interpreter.
PLACE = PROJECT / "build" / "fuzz" / f"{sys.implementation.cache_tag}"
#: What is tried, and how many of the inputs each gets: one to HTTP/2 takes five times as long.
OF = {"http1": 1.0, "inputs": 1.0, "http2": 0.2, "xds": 1.0}
#: In front of libFuzzer's bytes there is nothing of ours, so that a seed may be as long.
LONGEST = 2048
#: Seconds after which it is told how far a run is.
TELL = 60.0
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
    parser.add_argument("--alone", action="store_true", help="in this process, at random")
    parser.add_argument("--of", choices=OF, action="append", help="all where none is named")
    options = parser.parse_args()
    chosen = options.of or list(OF)
    if options.alone:
        return max(at_random(of, int(options.inputs * OF[of]), options.seed) for of in chosen)
    guided = not options.random and installed()
    with ThreadPoolExecutor(min(2, os.cpu_count() or 1)) as pool:
        codes = list(
            pool.map(lambda of: run(of, options, guided=guided), [of for of in chosen if of != "xds"])
        )
    if "xds" in chosen:  # which takes all processors
        inputs = int(options.inputs * OF["xds"])
        print(f"fuzz: xds by Hypothesis, {inputs} inputs", flush=True)
        codes.append(import_module("tests.fuzz.xds").run(inputs, options.seed))
    return max(codes)


def run(of: str, options: argparse.Namespace, *, guided: bool) -> int:
    """In a process of its own, whose words are shown when it ends."""
    inputs, begun = int(options.inputs * OF[of]), time.monotonic()
    if guided:
        command, environment = by_atheris(of, inputs, options.seed)
    else:
        words = ("--alone", "--of", of, "--inputs", str(options.inputs), "--seed", str(options.seed))
        command, environment = [sys.executable, "-m", "tests.fuzz.run", *words], dict(os.environ)
    with tempfile.TemporaryDirectory() as folder:  # libFuzzer ends without a word to Python
        environment["TMPDIR"] = folder
        with subprocess.Popen(
            command, cwd=PROJECT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            assert process.stdout is not None
            said = list(heard(of, process.stdout, inputs))
    how = (
        "by atheris"
        if guided
        else "at random"
        if options.random
        else "at random (there is no atheris for this interpreter)"
    )
    found = f"{inputs} inputs hold" if process.returncode == 0 else "it fails"
    print(f"fuzz: {of} {how}: {found}, {time.monotonic() - begun:.0f} s", flush=True)
    if process.returncode:
        print("".join(said), flush=True)
    return process.returncode


def heard(of: str, lines: Iterable[str], inputs: int) -> Iterator[str]:
    """What is said, without the counts and libFuzzer's line for each input that it keeps; now and then how far it is is told."""
    told = time.monotonic()
    for line in lines:
        if not line.startswith(("#", "INFO:", "stat::")):
            yield line
        count = line[1:].split(maxsplit=1)[0] if line.startswith("#") else ""
        if count.isdecimal() and time.monotonic() - told >= TELL:
            told = time.monotonic()
            print(f"fuzz: {of}: {int(count):,} of {inputs:,} inputs", flush=True)


def installed() -> bool:
    """Whether atheris is there; it is installed where it can be."""
    stamp = PLACE / "installed"
    if not stamp.exists() or stamp.read_text() != LOCK.read_text():
        words = (
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--only-binary",
            ":all:",
            "--upgrade",
            "--target",
            str(PLACE),
        )
        command = [sys.executable, "-m", "pip", *words, "--require-hashes", "-r", str(LOCK)]
        if subprocess.run(command, check=False).returncode:
            return False
        stamp.write_text(LOCK.read_text())
    return True


def by_atheris(of: str, inputs: int, seed: int) -> tuple[list[str], dict[str, str]]:
    """The command, and its environment."""
    target = import_module(f"tests.fuzz.{of}")
    corpus = PLACE / f"corpus-{of}"
    corpus.mkdir(exist_ok=True)
    for number, data in enumerate(target.seeds()):
        (corpus / f"seed-{number}").write_bytes(data)
    words = PLACE / f"words-{of}"
    words.write_text("".join(f'"{escaped(word)}"\n' for word in target.WORDS))
    settings = {
        "runs": inputs, "seed": seed, "max_len": LONGEST, "dict": words, "rss_limit_mb": MOST_MEMORY, "timeout": 10,
        "print_final_stats": 1, "artifact_prefix": f"{PLACE}/{of}-",
    }  # fmt: skip
    command = [
        sys.executable,
        "-m",
        "tests.fuzz.guided",
        *(f"-{name}={value}" for name, value in settings.items()),
        str(corpus),
    ]
    paths = f"{PROJECT}{os.pathsep}{PLACE}"
    return command, {**os.environ, "PYTHONPATH": paths, "MESHLIB_TEST_FUZZ": of}


def escaped(word: bytes) -> str:
    return "".join(rf"\x{code:02x}" for code in word)


def at_random(of: str, inputs: int, seed: int) -> int:
    target = import_module(f"tests.fuzz.{of}")
    chance, found = random.Random(seed), target.seeds()
    begun = time.monotonic()
    for number in range(inputs):
        if number % 10_000 == 0:
            print(f"#{number}", flush=True)
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
