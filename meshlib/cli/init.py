"""`meshlib init`: a configuration file to begin with."""

from __future__ import annotations

from pathlib import Path

from meshlib.cli.common import FINDING, FINE, USAGE, Stop, console, emit
from meshlib.cli.render import marked

__all__ = ["TEXT", "init"]

#: What is written: one service, and beside it, commented out, what is wanted next. Each line that begins with ``#`` and
#: no space after it is a setting.
TEXT = """\
# The configuration of meshlib: who is called, and how.
#   meshlib check mesh.toml                                          what is wrong with it
#   meshlib route GET http://reviews/ --config mesh.toml             what a call would do, and why
#   meshlib run --config mesh.toml -- python app.py                  a program in the mesh, without a change of it
# A program reads it where MESHLIB_CONFIG names it, or with meshlib.Mesh("mesh.toml"). An edit holds without a restart.

# A service without a control plane. http://reviews/ now goes to one of these; every other host is called as ever.
[services.reviews]
endpoints = ["127.0.0.1:8081", "127.0.0.1:8082"]
#balancer = "least_request"       # the less busy of two; default: in turn
#timeout = 2.0                    # seconds for the whole call with its retries
#retry = { attempts = 2, on = ["connect-failure"] }              # nothing was sent: safe for every method
#breaker = { failure_rate = 0.5, open_for = 10.0 }               # half of the calls failed: they fail at once for so many seconds
#outlier = { consecutive_5xx = 5, max_ejection_percent = 50 }    # an endpoint that fails is left out for a while

# Its endpoints from DNS instead: every address of the name, or SRV records with their weights.
#[services.ratings]
#dns = "ratings.internal:8080"

# Some calls elsewhere: the first route whose match holds.
#[[services.reviews.routes]]
#match = { prefix = "/api", headers = { x-tier = "gold" } }
#split = { reviews = 90, ratings = 10 }

# A control plane that speaks xDS (Istio, go-control-plane, your own), and who we are to it.
#[xds]
#server = "127.0.0.1:18000"
#[node]
#cluster = "shop"
"""


def init(path: Path, *, as_json: bool) -> int:
    """The command. A file that is there is never touched. Raises Stop."""
    if path.suffix != ".toml":
        raise Stop(USAGE, [f"init: {path}: the file ends with .toml"])
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(TEXT.replace("mesh.toml", path.name))
    except FileExistsError:
        raise Stop(FINDING, [f"init: {path} is there already, and is left as it is"]) from None
    except OSError as problem:
        raise Stop(FINDING, [f"init: {path} cannot be written: {problem.strerror}"]) from None
    if as_json:
        emit({"file": str(path)})
    else:
        console().print(marked("✓", "bold green", f"wrote {path}; next: meshlib check {path}"))
    return FINE
