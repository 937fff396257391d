"""One input to one of the readers of outside bytes that have no run of their own: which of them its first two bytes say.

Which target is for which module is told here and nowhere else: `READ` has those of ``http1.py``, ``http2.py`` and ``xds.py``, too, and
`ELSEWHERE` why a module that looks as if it read outside bytes has none. `tests/unit/test_fuzz.py` holds the tree to it.

    python -m tests.fuzz.inputs FILE…     the inputs that these files hold, as a run leaves them where one fails
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.fuzz import answers, files, texts, trust
from tests.fuzz.target import Target

__all__ = ["ELSEWHERE", "READ", "TARGETS", "WORDS", "one_input", "seeds"]

TARGETS: tuple[Target, ...] = (*texts.TARGETS, *files.TARGETS, *answers.TARGETS, *trust.TARGETS)

#: What the first byte chooses from; each as often as its share says.
_CHOICE = [target for target in TARGETS for _ in range(target.share)]

#: Module, below ``meshlib`` or ``adapters``, and who puts bytes to it.
READ: dict[str, tuple[str, ...]] = {}
for _target in TARGETS:
    for _module in _target.reads:
        READ[_module] = (*READ.get(_module, ()), _target.name)
for _name, _modules in {
    "http1": "chunks framing heads heads_h11 heads_llhttp http1",
    "http2": "http2 http2_fields http2_frames http2_library http2_stream",
}.items():
    READ |= {f"wire/{_module}.py": (_name,) for _module in _modules.split()}
READ |= dict.fromkeys(
    [
        f"xds/{_module}.py"
        for _module in [
            "bootstrap",
            "cache",
            "csds",
            "discovery",
            "envoy_file",
            "last_good",
            "lrs",
            "machine",
            "names",
            "orca",
            "response",
            "rls",
            "secrets",
            "session",
            "v2",
            "decode/action",
            "decode/address",
            "decode/balancing",
            "decode/calls",
            "decode/chains",
            "decode/cluster",
            "decode/connecting",
            "decode/dns",
            "decode/endpoint",
            "decode/filters",
            "decode/guards",
            "decode/health",
            "decode/limits",
            "decode/listener",
            "decode/match",
            "decode/matcher",
            "decode/outlier",
            "decode/pem",
            "decode/sds",
            "decode/validation",
            "decode/programs",
            "decode/replies",
            "decode/resource",
            "decode/retry",
            "decode/route",
            "decode/secret",
            "decode/sessions",
            "decode/tls",
            "decode/values",
            "schema/messages",
            "schema/reader",
            "schema/writer",
        ]
    ],
    ("xds",),
)

#: Modules in which a parser is called all the same, and why it needs no target of its own.
ELSEWHERE = {
    "meshlib/cli/doctor/process.py": "variables of the user's own process, for a line that is shown to that user",
    "meshlib/core/chains.py": "addresses that the decoder has made",
    "meshlib/core/matched.py": "addresses that the decoder has made, or that a call has",
    "meshlib/observe/surroundings.py": "proxies in the user's own variables, for words",
    "meshlib/patching/grpc.py": "targets and options that the program itself gives to grpc",
    "meshlib/sources/fetch.py": "bytes that the decoders of xDS read, which `xds` tries",
    "meshlib/sources/files.py": "a watched file's resources, by the decoders of `config` and `xds`",
    "meshlib/sources/polling.py": "bytes that `polled` has made a response of, which `xds` tries",
    "meshlib/sources/separate.py": "a response that the session reads, which `xds` tries",
    "meshlib/wire/stream.py": "bytes as they come",
    "meshlib/hosts/grpc/pipe.py": "bytes as they come",
    "meshlib/hosts/grpc/private.py": "what the kernel says of a peer",
    "meshlib/hosts/grpc/tunnel.py": "a byte that wakes its thread",
    "meshlib/xds/istio.py": "a listener that the decoder has read",
    "adapters/meshlib_requests/adapter.py": "a URL that requests has read",
    "adapters/meshlib_requests/pools.py": "a URL that urllib3 has read",
    "adapters/meshlib_requests/instrumented.py": "a response that the wire has read",
    "adapters/meshlib_requests/tls.py": "files that the program itself names, read by OpenSSL",
}

#: What a mutation may put in, of all; libFuzzer combines them.
WORDS = list(dict.fromkeys(word for target in TARGETS for word in target.words if len(word) < 64))


def one_input(data: bytes) -> None:
    if len(data) > 1:
        _CHOICE[int.from_bytes(data[:2]) % len(_CHOICE)].one(data[2:])


def seeds() -> list[bytes]:
    """Those of all targets, with the bytes that choose each."""
    first = {target.name: number for number, target in reversed(list(enumerate(_CHOICE)))}
    return [first[target.name].to_bytes(2) + seed for target in TARGETS for seed in target.seeds]


if __name__ == "__main__":
    for name in sys.argv[1:]:
        one_input(Path(name).read_bytes())
        print(f"{name}: holds")
