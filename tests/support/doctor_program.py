"""A program that `meshlib doctor PID` is asked about: `python -m tests.support.doctor_program JSON [WHAT …]`.

It has an admin socket, sets up each WHAT, makes its mesh, says "ready", and ends when its standard input does.
"""

from __future__ import annotations

import json
import os
import select
import sys
import warnings
from typing import Any

kept: list[Any] = []


def openai() -> None:
    import openai

    kept.append(openai.OpenAI(base_url="http://reviews/v1", api_key="not-a-secret", max_retries=2))
    kept.append(openai.AsyncOpenAI(base_url="http://elsewhere/v1", api_key="not-a-secret"))


def requests() -> None:
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3.util import Retry

    session = requests.Session()
    session.mount("http://reviews/", HTTPAdapter(max_retries=Retry(4)))
    kept.append(session)


def tenacity() -> None:
    import tenacity

    kept.append(tenacity.retry(stop=tenacity.stop_after_attempt(3))(print))


def sdk() -> None:
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider

    trace.set_tracer_provider(TracerProvider())


def contrib() -> None:
    import httpx
    from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor

    del httpx
    HTTPXClientInstrumentor().instrument()


def sentry() -> None:
    import sentry_sdk

    sentry_sdk.init(dsn="http://key@127.0.0.1:9/1", traces_sample_rate=1.0, auto_enabling_integrations=False)


def ddtrace() -> None:
    os.environ |= {"DD_TRACE_ENABLED": "false", "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false"}
    import ddtrace
    import httpx

    del httpx  # it is patched once it is there
    ddtrace.patch(httpx=True)


def gevent() -> None:
    from gevent import monkey

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of modules that were imported before
        monkey.patch_all()


def init_gevent() -> None:
    from grpc.experimental.gevent import init_gevent as init

    init()


def forked(mesh: Any) -> None:
    """Go on as a fork of a process that used the mesh."""
    mesh.snapshot()
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        os._exit(0)


def main() -> None:
    config, features = json.loads(sys.argv[1]), sys.argv[2:]
    early = [name for name in features if name not in ("late", "forked")]
    for name in early:
        globals()[name]()
    import meshlib

    mesh = meshlib.Mesh(config)
    if "forked" in features:
        forked(mesh)
    mesh.snapshot()
    if "late" in features:
        gevent()
    print(os.getpid(), flush=True)
    select.select([sys.stdin], [], [])  # under gevent, others run meanwhile


if __name__ == "__main__":
    main()
