"""A shop whose web application (``application``, WSGI) sends tasks, and whose tasks (``app``) call the service ``stock``.

``mesh_celery`` is the file that docs/tasks/celery.md shows: the test puts it on the path. The environment says the rest:
SITE_BROKER; SITE_EARLY=1 makes a call when this module is imported, which in a worker is before its children are forked.
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
import signal
import sys
import time
from typing import Any

if sys.modules.get("gevent.monkey") is not None:
    import gevent.monkey

    if gevent.monkey.is_module_patched("threading") and "SITE_UNPREPARED" not in os.environ:
        from grpc.experimental import gevent as grpc_gevent

        grpc_gevent.init_gevent()

import flask
import httpx
import mesh_celery
from celery import Celery, chain, chord

import meshlib
import meshlib_requests
from meshlib.deadlines import current_deadline
from meshlib.inbound import current
from meshlib_flask import Meshlib

faulthandler.register(signal.SIGUSR2)  # for a test that finds a process hanging
BROKER = os.environ["SITE_BROKER"]
app = Celery("shop", broker=BROKER, backend=BROKER)
app.conf.update(
    broker_connection_retry_on_startup=True,
    worker_prefetch_multiplier=4,
    worker_enable_remote_control=False,
    redis_socket_timeout=20.0,
    broker_transport_options={"visibility_timeout": 600},
    beat_schedule={"often": {"task": "shop.noted", "schedule": 0.2, "args": ["beat"]}},
    timezone="UTC",
)
client = meshlib.Client()
session = meshlib_requests.Session()


async def _asynchronously(url: str) -> Any:
    async with meshlib.AsyncClient() as calls:
        return await calls.get(url)


CALLS = {
    "requests": session.get,
    "client": client.get,
    "async": lambda url: asyncio.run(_asynchronously(url)),
}
if os.environ.get("SITE_EARLY"):
    CALLS["client"]("http://stock/early").raise_for_status()


def _called(kind: str, path: str) -> dict[str, Any]:
    response = CALLS[kind](f"http://stock/{path}")
    response.raise_for_status()
    info, said = meshlib.call_info(response), response.json()
    return {
        "pid": os.getpid(),
        "path": said["path"],
        "server": said["name"],
        "headers": {name.lower(): value for name, value in said["headers"]},
        "attempts": 0 if info is None else len(info.attempts),
        "via": None if info is None else info.via,
    }


@app.task(name="shop.reserve")
def reserve(kind: str, path: str) -> dict[str, Any]:
    return _called(kind, path)


@app.task(name="shop.sturdy", acks_late=True, reject_on_worker_lost=True)
def sturdy(kind: str, path: str) -> dict[str, Any]:
    return _called(kind, path)


@app.task(name="shop.repeated", bind=True, max_retries=2)
def repeated(self: Any, kind: str, path: str) -> dict[str, Any]:
    try:
        return {**_called(kind, path), "retries": self.request.retries}
    except (httpx.HTTPStatusError, meshlib_requests.HTTPError) as error:
        # Not at once: Celery 5.7 loses such a repetition where it comes in before the first try is reported.
        raise self.retry(exc=error, countdown=0.2) from error


@app.task(name="shop.sends")
def sends(kind: str, path: str) -> str:
    """The id of a task that this one sends."""
    return reserve.delay(kind, path).id


@app.task(name="shop.last")
def last(*found: Any) -> list[dict[str, Any]]:
    """The end of a chain or chord: what came before, and a call of its own."""
    return [
        *(one for each in found for one in (each if isinstance(each, list) else [each])),
        _called("client", "last"),
    ]


@app.task(name="shop.noted")
def noted(word: str) -> dict[str, Any]:
    """What a task knows of who sent it; and a call."""
    request = current()
    return {
        **_called("client", word),
        "request_id": request.request_id if request else None,
        "deadline": current_deadline() is not None,
    }


TASKS = {"reserve": reserve, "sturdy": sturdy, "repeated": repeated, "sends": sends}

application = flask.Flask("shop")
Meshlib(application)


@application.post("/send/<name>/<kind>")
def send(name: str, kind: str) -> Any:
    """``many`` tasks (in a query), whose result somebody waits for (``awaited``) or does not; their ids."""
    asked = flask.request.args
    options = mesh_celery.awaited() if asked.get("awaited") else {}
    paths = [f"{asked.get('path', 'task')}/{number}" for number in range(int(asked.get("many", "1")))]
    if name == "chain":
        sent = [chain(reserve.s(kind, path), last.s()).apply_async(**options) for path in paths]
    elif name == "chord":
        sent = [chord([reserve.s(kind, path) for path in paths], last.s()).apply_async(**options)]
    elif name == "eager":
        return flask.jsonify([TASKS["reserve"].apply(args=(kind, path)).get() for path in paths])
    else:
        sent = [TASKS[name].apply_async((kind, path), **options) for path in paths]
    return flask.jsonify([one.id for one in sent])


@application.get("/now")
def now() -> Any:
    return flask.jsonify(time.time())
